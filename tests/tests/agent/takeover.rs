//! Starting on a node that Felix has left running: what is as it should be is not touched, the rest is replaced
//! without a moment in which a packet goes another way, and what nobody wants goes when the datastore is in sync.
//!
//! What Felix left is put in by hand: the golden states, and what older releases rendered differently.

mod late;
mod leftovers;
mod node;
mod older;
mod probe;
mod switch;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use libtest_mimic::Trial;

use self::node::{Left, Node, POLICIES, is_kept, untouched};
use self::older::Release;
use self::probe::Probes;
use crate::Outcome;
use crate::scene::{Backend, expect_same};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::on_both(
        "takeover",
        &[
            ("what_felix_left_is_adopted_without_touching_it", adopted),
            ("only_the_chain_that_felix_gets_wrong_is_replaced", one_replaced),
            ("no_packet_goes_astray_while_what_release_3_27_left_is_replaced", from_3_27),
            ("no_packet_goes_astray_while_what_release_3_31_left_is_replaced", from_3_31),
            ("marks_of_release_3_27_are_not_misunderstood_however_long_table_raw_takes", slow_raw),
            ("what_nobody_wants_goes_when_the_datastore_is_in_sync_and_not_before", leftovers::of_iptables),
            ("no_packet_goes_astray_when_the_next_agent_uses_this_back_end", switch::at_a_restart),
            ("no_packet_goes_astray_when_the_agent_is_told_to_use_this_back_end", switch::in_flight),
            ("no_packet_goes_astray_when_felix_used_the_other_back_end", switch::from_felix),
        ],
    );
    let native = crate::on_both(
        "takeover",
        &[(
            "tables_of_nftables_mode_go_when_the_datastore_is_in_sync_and_not_before",
            leftovers::of_nftables,
        )],
    );
    let native = native.into_iter().chain(crate::on_both(
        "takeover",
        &[
            ("no_packet_goes_astray_when_the_next_agent_uses_nftables_mode", switch::to_native),
            ("no_packet_goes_astray_when_the_next_agent_leaves_nftables_mode", switch::from_native),
            (
                "no_packet_goes_astray_when_the_agent_is_told_to_use_nftables_mode",
                switch::in_flight_to_native,
            ),
            (
                "no_packet_goes_astray_when_the_agent_is_told_to_leave_nftables_mode",
                switch::in_flight_from_native,
            ),
        ],
    ));
    let native = native.chain(crate::on(
        &[Backend::Native],
        "takeover",
        &[("no_packet_goes_astray_while_what_felix_left_in_nftables_mode_is_replaced", leftovers::replaced)],
    ));
    // Nothing else here needs that program.
    let has_nft = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].iter().any(|path| Path::new(path).exists());
    trials.extend(native.map(|trial| trial.with_ignored_flag(!has_nft)));
    trials
}

/// States that Felix gets right, with options of many kinds.
const STATES: [&str; 23] = [
    "00-worked-example",
    "03-profile",
    "05-tiers",
    "06-hep",
    "07-apply-on-forward",
    "08-pre-dnat",
    "09-do-not-track",
    "10-wildcard-hep",
    "11-dual-stack",
    "14-append",
    "14-marks",
    "15-many",
    "17-qos",
    "19-long-names",
    "22-floating-ip",
    "23-spoofing",
    "16-nat-exclusions",
    "18-staged",
    "20-log",
    "27-groups",
    "28-ipvs",
    "35-conflict",
    "36-hep-tiers",
];

/// The chain that Felix gets wrong, of the state of most tests.
const WRONG: &str = "cali-pi-gnp/web-in";

fn adopted(backend: Backend) -> Outcome {
    for state in STATES {
        let left = adopt(state, backend)?;
        assert!(left.replaced.is_empty(), "{state}: {:#?}", left.replaced);
        assert_eq!(left.restores, 0, "{state}");
    }
    Ok(())
}

fn one_replaced(backend: Backend) -> Outcome {
    let left = adopt(POLICIES, backend)?;
    let chains: BTreeSet<&str> =
        left.replaced.iter().filter_map(|rule| rule.split_whitespace().nth(2)).collect();
    assert_eq!(chains, BTreeSet::from([WRONG]));
    assert_eq!(left.restores, 1, "no rule of IPv6 is wrong");
    Ok(())
}

/// What an agent did to a state of Felix's.
struct Adoption {
    /// Rules that do not count from where they did.
    replaced: Vec<String>,
    restores: u64,
}

fn adopt(state: &str, backend: Backend) -> Result<Adoption, libtest_mimic::Failed> {
    let mut node = Node::new(state)?;
    let left = Left::by_felix(state)?;
    node.load(&left, backend)?;
    let (births, rules) = (node.set_births()?, node.rules(backend)?);
    let begun = Instant::now();
    node.start(Some(backend))?;
    node.settle()?;
    let took = begun.elapsed();
    let status = node.status()?;
    eprintln!(
        "{state} ({}): adopted in {took:?} with {} restores and {} changes",
        backend.name(),
        status.counters.restores,
        status.last_apply.changed
    );
    if state != POLICIES {
        expect_same(&rules, &node.rules(backend)?)?;
        assert_eq!(births, node.set_births()?, "{state}: sets were made anew");
    }
    let counters = node.counters(backend)?;
    // ip6tables-nft-restore 1.8.9 loads no counters.
    let is_counted =
        |rule: &str| rule.contains("-A ") && (backend == Backend::Legacy || rule.starts_with("iptables "));
    let ours = counters.into_iter().filter(|(rule, _)| is_counted(rule));
    let replaced = ours.filter(|(_, count)| !is_kept(count)).map(|(rule, _)| rule).collect();
    Ok(Adoption { replaced, restores: status.counters.restores })
}

fn from_3_27(backend: Backend) -> Outcome {
    replace(Release::V3_27, backend)
}

fn from_3_31(backend: Backend) -> Outcome {
    replace(Release::V3_31, backend)
}

/// Other tables are ready long before `raw` is, and have to wait for it.
fn slow_raw(backend: Backend) -> Outcome {
    let mut node = Node::new(POLICIES)?;
    node.slow_down("raw", backend)?;
    replace_on(node, Release::V3_27, backend)
}

fn replace(release: Release, backend: Backend) -> Outcome {
    replace_on(Node::new(POLICIES)?, release, backend)
}

/// Takes over from an older release under fire.
fn replace_on(mut node: Node, release: Release, backend: Backend) -> Outcome {
    Probes::prepare(&node)?;
    let left = older::left_by(release, &Left::by_felix(POLICIES)?);
    node.load(&left, backend)?;
    let wanted = untouched(POLICIES, backend)?;
    let before = node.kernel(backend)?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.start(Some(backend))?;
    node.settle()?;
    let took = begun.elapsed();
    probes.end(&format!("{release:?} on {}: taken over in {took:?}", backend.name()))?;
    assert!(expect_same(&before, &wanted).is_err(), "an older release is like this one");
    node.expect_kernel(backend, &wanted)
}
