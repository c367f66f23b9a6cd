//! Dispatch: from the interface of a packet to the chains of its endpoint.
//!
//! A tree of two levels, split at the first character in which the names differ, so that a packet is compared
//! with few names.

use std::collections::BTreeMap;

use super::config::Config;
use super::names::{self, Direction};
use super::rule::deny;
use crate::graph::model::HostInterface;
use crate::render::Table;
use crate::ruleset::{Action, Chain, Match, Rule};

/// The dispatch chains of workloads in one direction. Names must be sorted and distinct.
pub(crate) fn workloads(interfaces: &[&str], direction: Direction, config: &Config) -> Vec<Chain> {
    let end = [Rule::always(deny(config)).comment("Unknown interface")];
    let on = match direction {
        Direction::Ingress => Match::OutInterface,
        Direction::Egress => Match::InInterface,
    };
    let target = |name: &str| names::workload_chain(direction, name);
    tree(names::dispatch_chain(direction), interfaces, on, target, &end)
}

/// Where a host endpoint has policy beyond the normal one. The tables of such policy are spared packets of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    pub(crate) pre_dnat: bool,
    pub(crate) untracked: bool,
}

/// The dispatch chains of host endpoints in a table.
///
/// An interface with an endpoint of its own never meets the endpoint for all interfaces. Felix lets it meet that one's
/// policy before DNAT if its own has none, which then may accept what its own endpoint denies.
pub(crate) fn hosts(
    table: Table,
    endpoints: &BTreeMap<HostInterface, Extras>,
    config: &Config,
) -> Vec<Chain> {
    let of = |wanted: fn(&Extras) -> bool| Interfaces::new(endpoints, wanted);
    let (ingress, egress) = (Direction::Ingress, Direction::Egress);
    match table {
        Table::Raw => {
            let mut untracked = of(|e| e.untracked);
            untracked.any = false;
            [ingress, egress].into_iter().flat_map(|d| untracked.host(d, Vec::new())).collect()
        }
        Table::Mangle => {
            let pre_dnat = of(|e| e.pre_dnat);
            let spared = if pre_dnat.any { of(|e| !e.pre_dnat).spared() } else { Vec::new() };
            let mut chains = pre_dnat.host(ingress, spared);
            let all = of(|_| true);
            chains.extend(all.host(egress, if all.any { spare_workloads(config) } else { Vec::new() }));
            chains
        }
        Table::Filter => {
            let all = of(|_| true);
            let both = [ingress, egress].into_iter();
            both.flat_map(|d| all.host(d, Vec::new()).into_iter().chain(all.forward(d))).collect()
        }
        Table::Nat => Vec::new(),
    }
}

/// What the host sends to its own workloads is not for the endpoint of all interfaces.
fn spare_workloads(config: &Config) -> Vec<Rule> {
    let prefixes = config.interface_prefixes.iter();
    let spare = |prefix| Rule::when(vec![Match::OutInterface(format!("{prefix}+"))], Action::Return);
    prefixes.map(|p| spare(p).comment("Skip egress WHEP policy for traffic to local workload")).collect()
}

/// Interfaces to tell apart, and whether there is an endpoint for all others.
struct Interfaces<'a> {
    named: Vec<&'a str>,
    any: bool,
}

impl<'a> Interfaces<'a> {
    fn new(endpoints: &'a BTreeMap<HostInterface, Extras>, wanted: fn(&Extras) -> bool) -> Self {
        let mut interfaces = Self { named: Vec::new(), any: false };
        for (interface, _) in endpoints.iter().filter(|(_, extras)| wanted(extras)) {
            match interface {
                HostInterface::Named(name) => interfaces.named.push(name),
                HostInterface::Any => interfaces.any = true,
            }
        }
        interfaces
    }

    /// Packets that came in by these interfaces go back.
    fn spared(&self) -> Vec<Rule> {
        let spare = |name: &&str| Rule::when(vec![Match::InInterface((*name).to_owned())], Action::Return);
        self.named.iter().map(|name| spare(name).comment("Has a host endpoint of its own")).collect()
    }

    /// With `end` before what leads to the endpoint for all interfaces.
    fn host(&self, direction: Direction, end: Vec<Rule>) -> Vec<Chain> {
        self.tree(names::host_dispatch_chain(direction), direction, names::host_chain, end)
    }

    fn forward(&self, direction: Direction) -> Vec<Chain> {
        self.tree(names::forward_dispatch_chain(direction), direction, names::forward_chain, Vec::new())
    }

    fn tree(
        &self,
        root: &str,
        direction: Direction,
        chain: fn(Direction, &HostInterface) -> String,
        mut end: Vec<Rule>,
    ) -> Vec<Chain> {
        let on = match direction {
            Direction::Ingress => Match::InInterface,
            Direction::Egress => Match::OutInterface,
        };
        if self.any {
            end.push(Rule::always(Action::Goto(chain(direction, &HostInterface::Any))));
        }
        let target = |name: &str| chain(direction, &HostInterface::Named(name.into()));
        tree(root, &self.named, on, target, &end)
    }
}

/// The root first, then its children; each ends with the rules of `end`. Names must be sorted and distinct.
fn tree(
    root: &str,
    interfaces: &[&str],
    on: fn(String) -> Match,
    target: impl Fn(&str) -> String,
    end: &[Rule],
) -> Vec<Chain> {
    let (mut rules, children) = leaves(root, interfaces, on, target, end);
    rules.extend(end.iter().cloned());
    let root = Chain { name: root.to_owned(), rules };
    std::iter::once(root).chain(children).collect()
}

/// The rules of a root without its end, and its children, whose names begin with that of the root.
pub(crate) fn leaves(
    root: &str,
    interfaces: &[&str],
    on: fn(String) -> Match,
    target: impl Fn(&str) -> String,
    end: &[Rule],
) -> (Vec<Rule>, Vec<Chain>) {
    let to_endpoint = |name: &str| Rule::when(vec![on(name.to_owned())], Action::Goto(target(name)));
    let mut rules = Vec::new();
    let mut children = Vec::new();
    for (bin, members) in bins(interfaces) {
        if let [one] = members.as_slice() {
            rules.push(to_endpoint(one));
            continue;
        }
        let name = format!("{root}-{}", &bin[common_prefix(interfaces).len()..]);
        rules.push(Rule::when(vec![on(format!("{bin}+"))], Action::Goto(name.clone())));
        let child = members.iter().map(|m| to_endpoint(m)).chain(end.iter().cloned()).collect();
        children.push(Chain { name, rules: child });
    }
    (rules, children)
}

/// Names by common prefix and the character behind it.
fn bins<'a>(interfaces: &[&'a str]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let prefix = common_prefix(interfaces).len();
    let mut bins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in interfaces {
        let next = name[prefix..].chars().next().map_or(0, char::len_utf8);
        bins.entry(&name[..prefix + next]).or_default().push(name);
    }
    bins
}

fn common_prefix<'a>(interfaces: &[&'a str]) -> &'a str {
    // Of sorted names the first and the last differ the earliest.
    let (Some(first), Some(last)) = (interfaces.first(), interfaces.last()) else { return "" };
    let same = first.chars().zip(last.chars()).take_while(|(a, b)| a == b);
    &first[..same.map(|(c, _)| c.len_utf8()).sum()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(interfaces: &[&str]) -> Vec<String> {
        let chains = workloads(interfaces, Direction::Egress, &Config::default());
        let rule = |r: &Rule| match (&r.matches.first(), &r.action) {
            (Some(Match::InInterface(i)), Some(Action::Goto(t))) => format!("{i}>{t}"),
            _ => "end".to_owned(),
        };
        chains
            .iter()
            .map(|c| format!("{}: {}", c.name, c.rules.iter().map(rule).collect::<Vec<_>>().join(" ")))
            .collect()
    }

    /// `chain: interface>target …`, with `>` alone for every interface.
    fn host_text(table: Table, endpoints: &[(&str, bool, bool)]) -> Vec<String> {
        let key = |name: &str| match name {
            "*" => HostInterface::Any,
            name => HostInterface::Named(name.into()),
        };
        let extras = |pre_dnat, untracked| Extras { pre_dnat, untracked };
        let endpoints = endpoints.iter().map(|(name, pre, raw)| (key(name), extras(*pre, *raw))).collect();
        let rule = |r: &Rule| {
            let on = match r.matches.first() {
                Some(Match::InInterface(i) | Match::OutInterface(i)) => i,
                _ => "",
            };
            format!(" {on}>{}", r.action.as_ref().and_then(Action::target).unwrap_or("back"))
        };
        let chains = hosts(table, &endpoints, &Config::default());
        let text = |c: &Chain| c.rules.iter().map(rule).fold(format!("{}:", c.name), |a, b| a + &b);
        chains.iter().map(text).collect()
    }

    #[test]
    fn tables_see_only_the_host_endpoints_that_have_policy_for_them() {
        let endpoints = [("eth0", true, false), ("eth1", false, true), ("*", false, true)];
        assert_eq!(
            host_text(Table::Raw, &endpoints),
            ["cali-from-host-endpoint: eth1>cali-fh-eth1", "cali-to-host-endpoint: eth1>cali-th-eth1"]
        );
        assert_eq!(
            host_text(Table::Mangle, &endpoints),
            [
                "cali-from-host-endpoint: eth0>cali-fh-eth0",
                "cali-to-host-endpoint: eth0>cali-th-eth0 eth1>cali-th-eth1 cali+>back >cali-th-any-interface-at-all"
            ]
        );
        assert_eq!(
            host_text(Table::Filter, &endpoints[..2]),
            [
                "cali-from-host-endpoint: eth0>cali-fh-eth0 eth1>cali-fh-eth1",
                "cali-from-hep-forward: eth0>cali-fhfw-eth0 eth1>cali-fhfw-eth1",
                "cali-to-host-endpoint: eth0>cali-th-eth0 eth1>cali-th-eth1",
                "cali-to-hep-forward: eth0>cali-thfw-eth0 eth1>cali-thfw-eth1"
            ]
        );
    }

    #[test]
    fn every_chain_of_the_tree_ends_at_the_endpoint_for_all_interfaces() {
        let endpoints =
            [("eth10", false, false), ("eth11", false, false), ("eth2", false, false), ("*", true, false)];
        let filter = host_text(Table::Filter, &endpoints);
        let any = "cali-fh-any-interface-at-all";
        assert_eq!(
            filter[..2],
            [
                format!("cali-from-host-endpoint: eth1+>cali-from-host-endpoint-1 eth2>cali-fh-eth2 >{any}"),
                format!("cali-from-host-endpoint-1: eth10>cali-fh-eth10 eth11>cali-fh-eth11 >{any}")
            ]
        );
        let own = "eth10>back eth11>back eth2>back";
        assert_eq!(host_text(Table::Mangle, &endpoints)[0], format!("cali-from-host-endpoint: {own} >{any}"));
    }

    #[test]
    fn names_are_split_at_the_first_difference() {
        assert_eq!(text(&["cali1234"]), ["cali-from-wl-dispatch: cali1234>cali-fw-cali1234 end"]);
        assert_eq!(
            text(&["cali1234", "cali1aaa", "cali2"]),
            [
                "cali-from-wl-dispatch: cali1+>cali-from-wl-dispatch-1 cali2>cali-fw-cali2 end",
                "cali-from-wl-dispatch-1: cali1234>cali-fw-cali1234 cali1aaa>cali-fw-cali1aaa end",
            ]
        );
        assert_eq!(text(&[]), ["cali-from-wl-dispatch: end"]);
        assert_eq!(
            text(&["cali1", "cali12"]),
            ["cali-from-wl-dispatch: cali1>cali-fw-cali1 cali12>cali-fw-cali12 end"]
        );
    }
}
