//! The agent end to end: real agents on real kernels, told by files and asked by `tortiectl`, watched from the pods.
//!
//! | module | about |
//! |---|---|
//! | [`bad_input`] | manifests that cannot be used |
//! | [`chaos`] | kills, slow and failing programs, full disks, refused settings, all while policies change |
//! | [`pods`] | pods, labels and interfaces that change |
//! | [`settings`] | where settings come from, and changing them in flight |
//! | [`lifecycle`] | ending, killing and starting agents |
//! | [`drift`] | others who change our kernel objects |
//! | [`endpoints`] | what single endpoints ask for: sources, addresses, limits, marks |
//! | [`faults`] | what Felix does wrong |
//! | [`refused`] | what the kernel does not take |
//! | [`health`] | readiness and liveness |
//! | [`metrics`] | what Prometheus is told |
//! | [`offload`] | connections that skip the rules |
//! | [`hosts`] | host endpoints and interfaces |
//! | [`flows`] | established connections, and addresses on the way out |
//! | [`sharing`] | agents beside each other |
//! | [`takeover`] | nodes that Felix has left running |
//! | [`vm`] | the same on another kernel |
//! | [`scene`] [`shop`] [`watch`] [`wire`] | what they stand on |

mod bad_input;
mod chaos;
mod drift;
mod endpoints;
mod faults;
mod flows;
mod health;
mod hosts;
mod lifecycle;
mod line;
mod metrics;
mod offload;
mod pods;
mod refused;
mod revocation;
mod scene;
mod settings;
mod sharing;
mod shop;
mod takeover;
mod vm;
mod watch;
mod wire;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use tortie_tests::lab;

use self::scene::Backend;

type Outcome = Result<(), Failed>;

/// A test: its name is the sentence that it proves.
type Test = (&'static str, fn() -> Outcome);

/// A test that is run on each iptables back end.
type BackendTest = (&'static str, fn(Backend) -> Outcome);

/// A test that is run in each layout of nftables mode.
type LayoutTest = (&'static str, fn(&str) -> Outcome);

/// Tests mostly wait for the kernel and for programs, so more of them than processors run at a time.
const AT_ONCE: usize = 6;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = lab::enter()
    {
        eprintln!("the lab cannot be used here: {error}");
        return ExitCode::FAILURE;
    }
    arguments.test_threads.get_or_insert(AT_ONCE);
    let trials: Vec<Vec<Trial>> = vec![
        bad_input::trials(),
        chaos::trials(),
        drift::trials(),
        endpoints::trials(),
        faults::trials(),
        flows::trials(),
        health::trials(),
        hosts::trials(),
        lifecycle::trials(),
        metrics::trials(),
        offload::trials_here(),
        pods::trials(),
        refused::trials(),
        revocation::trials(),
        settings::trials(),
        sharing::trials(),
        takeover::trials(),
        vm::trials(),
    ];
    let mut trials: Vec<Trial> = trials.into_iter().flatten().collect();
    trials.extend(vm::only_there(offload::trials));
    vm::choose(&mut trials);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Tests by name, in order.
fn named(module: &str, tests: &[Test]) -> Vec<Trial> {
    tests.iter().map(|(name, test)| Trial::test(format!("{module}::{name}"), *test)).collect()
}

/// Those of the tests for both back ends that look at nothing of iptables, and run in nftables mode as well.
const IN_NFTABLES_MODE_TOO: [&str; 17] = [
    "chaos::a_full_disk_loses_no_policy",
    "endpoints::a_pod_may_send_from_the_listed_networks_only_and_a_new_list_takes_the_olds_place",
    "endpoints::allowed_sources_need_the_nodes_consent_which_may_be_given_and_taken_in_flight",
    "endpoints::packets_over_the_rate_are_dropped_in_each_direction",
    "endpoints::the_connection_above_the_limit_is_reset_until_another_has_ended",
    "endpoints::what_leaves_the_cluster_is_marked_and_what_stays_is_not",
    "faults::denying_with_an_answer_leaves_the_other_tables_in_force",
    "flows::a_new_policy_is_for_new_connections_and_established_ones_go_on",
    "flows::a_policy_and_what_it_refers_to_in_one_file_come_into_force_together",
    "flows::a_policy_that_takes_anothers_place_in_one_file_opens_nothing_meanwhile",
    "health::an_agent_is_ready_only_when_its_rules_are_in_force",
    "lifecycle::agents_killed_at_random_moments_converge_and_never_open_what_is_closed",
    "lifecycle::sigterm_leaves_everything_in_force_and_traffic_as_it_was",
    "lifecycle::what_changed_while_no_agent_ran_is_applied_by_the_next",
    "pods::an_interface_later_than_its_pod_is_enforced_from_its_first_packet",
    "pods::an_interface_that_goes_down_and_up_gets_its_routes_back",
    "settings::a_change_in_flight_interrupts_and_opens_nothing",
];

/// Tests that run in both layouts of nftables mode.
fn in_both_layouts(module: &str, tests: &[LayoutTest]) -> Vec<Trial> {
    let trial = |name: &str, test: fn(&str) -> Outcome, layout: &'static str| {
        Trial::test(format!("{module}::{name}::{layout}"), move || test(layout))
    };
    let each = |(name, test): &LayoutTest| ["Chains", "Tables"].map(|layout| trial(name, *test, layout));
    tests.iter().flat_map(each).collect()
}

/// Tests that run on both iptables back ends.
fn on_both(module: &str, tests: &[BackendTest]) -> Vec<Trial> {
    let is_too =
        |(name, _): &&BackendTest| IN_NFTABLES_MODE_TOO.contains(&format!("{module}::{name}").as_str());
    let too: Vec<BackendTest> = tests.iter().filter(is_too).copied().collect();
    let mut trials = on(&[Backend::Nft, Backend::Legacy], module, tests);
    trials.extend(on(&[Backend::Native], module, &too));
    trials
}

/// Tests that run on these.
fn on(backends: &[Backend], module: &str, tests: &[BackendTest]) -> Vec<Trial> {
    let trial = |name: &str, test: fn(Backend) -> Outcome, backend: Backend| {
        Trial::test(format!("{module}::{name}::{}", backend.name()), move || test(backend))
    };
    let each = |(name, test): &BackendTest| {
        backends.iter().map(|backend| trial(name, *test, *backend)).collect::<Vec<_>>()
    };
    tests.iter().flat_map(each).collect()
}
