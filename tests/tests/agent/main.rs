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
mod metrics;
mod pods;
mod refused;
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
        pods::trials(),
        refused::trials(),
        settings::trials(),
        sharing::trials(),
        takeover::trials(),
        vm::trials(),
    ];
    let mut trials = trials.into_iter().flatten().collect();
    vm::choose(&mut trials);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Tests by name, in order.
fn named(module: &str, tests: &[Test]) -> Vec<Trial> {
    tests.iter().map(|(name, test)| Trial::test(format!("{module}::{name}"), *test)).collect()
}

/// Tests that run on both iptables back ends.
fn on_both(module: &str, tests: &[BackendTest]) -> Vec<Trial> {
    on(&[Backend::Nft, Backend::Legacy], module, tests)
}

/// The same in nftables mode as well.
fn on_all(module: &str, tests: &[BackendTest]) -> Vec<Trial> {
    on(&[Backend::Nft, Backend::Legacy, Backend::Native], module, tests)
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
