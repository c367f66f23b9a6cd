//! Dispatch: from the interface of a packet to the chains of its endpoint.
//!
//! A tree of two levels, split at the first character in which the names differ, so that a packet is compared
//! with few names.

use std::collections::BTreeMap;

use super::config::Config;
use super::names::{self, Direction};
use super::rule::deny;
use crate::ruleset::{Action, Chain, Match, Rule};

/// The dispatch chains of one direction: the root first, then its children. Names must be sorted and distinct.
pub(crate) fn workloads(interfaces: &[&str], direction: Direction, config: &Config) -> Vec<Chain> {
    let root = names::dispatch_chain(direction);
    let end = || Rule::always(deny(config)).comment("Unknown interface");
    let on = |name: String| match direction {
        Direction::Ingress => Match::OutInterface(name),
        Direction::Egress => Match::InInterface(name),
    };
    let to_endpoint = |name: &str| {
        Rule::when(vec![on(name.to_owned())], Action::Goto(names::workload_chain(direction, name)))
    };
    let mut rules = Vec::new();
    let mut children = Vec::new();
    for (bin, members) in bins(interfaces) {
        if let [one] = members.as_slice() {
            rules.push(to_endpoint(one));
            continue;
        }
        let name = format!("{root}-{}", &bin[common_prefix(interfaces).len()..]);
        rules.push(Rule::when(vec![on(format!("{bin}+"))], Action::Goto(name.clone())));
        let child = members.iter().map(|m| to_endpoint(m)).chain([end()]).collect();
        children.push(Chain { name, rules: child });
    }
    rules.push(end());
    let root = Chain { name: root.to_owned(), rules };
    std::iter::once(root).chain(children).collect()
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
