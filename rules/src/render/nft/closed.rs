//! What stands in for a chain that the kernel refuses, or that cannot be lowered.
//!
//! What it guards gets no traffic until it is right. In `nat` nothing is guarded, so such a chain lets packets pass
//! unchanged; so does one that only marks packets, and the one that spares some the check of their source, which all
//! of them then get. A chain that a hook leads to sees the host's own traffic as well; it drops what goes to and comes
//! from workloads, so that the node can still be reached and repaired. For the same reason dispatch to host endpoints
//! lets packets pass, a host endpoint stays open at its failsafe ports, and where these are not known, at every port.

use tortie_api::net::IpVersion;

use super::{Content, chain_name};
use crate::render::Table;
use crate::ruleset::{Action, Chain, Match, Rule, nft};

/// Dispatch to host endpoints, for which no chain is there yet or which cannot be told apart.
const HOST_DISPATCH: [&str; 2] = ["cali-from-host-endpoint", "cali-to-host-endpoint"];
/// Chains that guard nothing: exceptions from the check of sources, and DSCP values.
const GUARDS_NOTHING: [&str; 2] = ["cali-rpf-skip", "cali-egress-dscp"];
/// What no policy of host endpoints closes.
const FAILSAFE: [&str; 2] = ["cali-failsafe-in", "cali-failsafe-out"];
/// Host endpoints: what comes in, and what goes out. Forwarded traffic has other names.
const FROM_HOST: &str = "cali-fh-";
const TO_HOST: &str = "cali-th-";

/// Our chains that a hook leads to.
const BEHIND_HOOKS: [&str; 5] =
    ["cali-PREROUTING", "cali-INPUT", "cali-FORWARD", "cali-OUTPUT", "cali-POSTROUTING"];

/// The stand-in for a chain of ours, by its name here. `workloads` are interface patterns such as `cali+`.
pub fn closed(full_name: &str, version: IpVersion, workloads: &[String]) -> Content {
    let split = Table::ALL.into_iter().find_map(|table| {
        let name = full_name.strip_prefix(table.name())?.strip_prefix('-')?;
        Some((table, name))
    });
    let is_about_connections = full_name.starts_with(super::established::PREFIX);
    let Some((table, name)) = split else {
        // What it would say of a connection stays unsaid, and policy is asked about each packet.
        let verdict = if is_about_connections { nft::Verdict::Return } else { nft::Verdict::Drop };
        let rule = nft::Rule {
            expressions: vec![nft::Expression::Counter, nft::Expression::Verdict(verdict)],
            comment: Some(COMMENT.to_owned()),
        };
        return Content { chain: nft::Chain::plain(full_name), rules: vec![rule] };
    };
    let rules = stand_in(table, name, workloads);
    let rules = rules.into_iter().map(|rule| rule.comment(COMMENT)).collect();
    let chain = Chain { name: name.to_owned(), rules };
    super::chain(table, version, &chain)
        .unwrap_or_else(|_| Content { chain: nft::Chain::plain(chain_name(table, name)), rules: Vec::new() })
}

const COMMENT: &str = "closed: its rules were refused";

fn stand_in(table: Table, name: &str, workloads: &[String]) -> Vec<Rule> {
    let is_any = |prefixes: [&str; 2]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let jump = |chain: &str| Rule::always(Action::Jump(chain.to_owned()));
    let drop = || Rule::always(Action::Drop);
    if table == Table::Nat || is_any(HOST_DISPATCH) || GUARDS_NOTHING.contains(&name) {
        vec![Rule::always(Action::Return)]
    } else if is_any(FAILSAFE) {
        vec![Rule::always(Action::Accept)]
    } else if name.starts_with(FROM_HOST) {
        vec![jump("cali-failsafe-in"), drop()]
    } else if name.starts_with(TO_HOST) {
        vec![jump("cali-failsafe-out"), drop()]
    } else if BEHIND_HOOKS.contains(&name) {
        let sides = |interface: &String| {
            [Match::InInterface(interface.clone()), Match::OutInterface(interface.clone())]
        };
        let matches = workloads.iter().flat_map(sides);
        matches.map(|m| Rule::when(vec![m], Action::Drop)).collect()
    } else {
        vec![drop()]
    }
}
