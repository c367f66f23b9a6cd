//! Endpoints as values of mark bits, for packets that IPVS takes past the interface that they came from.
//!
//! A value is a hash of the interface's name, so that it is the same after a restart; where two names meet, the
//! one that came later takes the next free value. An endpoint keeps its value as long as it is there.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, Marks};
use super::dispatch::leaves;
use super::names::{self, Direction};
use super::rule::deny;
use super::statics::others_mark;
use crate::graph::model::HostInterface;
use crate::ruleset::{Action, Bits, Chain, Match, Rule};

/// Values in use.
#[derive(Debug)]
pub(crate) struct EndpointMarks {
    /// The bits that hold a value.
    mask: Bits,
    /// The mark of packets that came from elsewhere, whose value is never given out.
    others: Bits,
    by_endpoint: BTreeMap<HostInterface, Bits>,
    taken: BTreeSet<Bits>,
}

impl EndpointMarks {
    pub(crate) fn new(marks: &Marks) -> Self {
        let others = others_mark(marks);
        Self {
            mask: marks.endpoint,
            others,
            by_endpoint: BTreeMap::new(),
            taken: BTreeSet::from([0, others]),
        }
    }

    /// Gives these endpoints a value each, and takes those of others back.
    pub(crate) fn assign(&mut self, endpoints: &BTreeSet<HostInterface>) {
        let taken = &mut self.taken;
        self.by_endpoint.retain(|endpoint, mark| {
            let stays = endpoints.contains(endpoint);
            if !stays {
                taken.remove(mark);
            }
            stays
        });
        for endpoint in endpoints {
            if !self.by_endpoint.contains_key(endpoint)
                && let Some(mark) = self.free(endpoint)
            {
                self.taken.insert(mark);
                self.by_endpoint.insert(endpoint.clone(), mark);
            }
        }
    }

    /// Endpoints for which no value is left.
    pub(crate) fn unmarked<'a>(&self, endpoints: &'a BTreeSet<HostInterface>) -> Vec<&'a HostInterface> {
        endpoints.iter().filter(|endpoint| !self.by_endpoint.contains_key(endpoint)).collect()
    }

    fn free(&self, endpoint: &HostInterface) -> Option<Bits> {
        let size = 1_u64 << self.mask.count_ones();
        let hash = u64::from(fnv1(names::interface_text(endpoint).as_bytes()));
        let values = (0..size).map(|step| (hash + step) % size);
        values.map(|value| spread(value, self.mask)).find(|mark| !self.taken.contains(mark))
    }

    /// The chains that set marks and that look at them. `workloads` and `hosts` are sorted.
    pub(crate) fn chains(&self, workloads: &[&str], hosts: &[&HostInterface], config: &Config) -> Vec<Chain> {
        let mut chains = Vec::new();
        let workloads: Vec<HostInterface> =
            workloads.iter().map(|name| HostInterface::Named((*name).into())).collect();
        let all = || workloads.iter().chain(hosts.iter().copied());
        chains.extend(all().map(|endpoint| self.set_mark(endpoint, config)));
        chains.extend(self.dispatch(&workloads, hosts, config));
        let from = |endpoint: &HostInterface, chain: String| {
            let mark = self.by_endpoint.get(endpoint)?;
            let matches = vec![Match::Mark { value: *mark, mask: self.mask }];
            Some(Rule::when(matches, Action::Goto(chain)))
        };
        let workload_chain = |endpoint: &HostInterface| {
            names::workload_chain(Direction::Egress, names::interface_text(endpoint))
        };
        let mut rules: Vec<Rule> =
            workloads.iter().filter_map(|endpoint| from(endpoint, workload_chain(endpoint))).collect();
        let host_chain = |endpoint: &HostInterface| names::forward_chain(Direction::Ingress, endpoint);
        rules.extend(hosts.iter().filter_map(|endpoint| from(endpoint, host_chain(endpoint))));
        rules.push(Rule::always(deny(config)).comment("Unknown interface"));
        chains.push(Chain { name: names::FROM_ENDPOINT_MARK.to_owned(), rules });
        chains
    }

    /// Packets of an endpoint without a mark could not meet its policy.
    fn set_mark(&self, endpoint: &HostInterface, config: &Config) -> Chain {
        let rule = match self.by_endpoint.get(endpoint) {
            Some(mark) => Rule::always(Action::SetMaskedMark { value: *mark, mask: self.mask }),
            None => Rule::always(deny(config)).comment("No endpoint mark left"),
        };
        Chain { name: names::set_mark_chain(endpoint), rules: vec![rule] }
    }

    /// From the interface that a packet came in by to what sets the mark.
    ///
    /// In chains for several names every packet finds an end, where Felix's lets those of other interfaces go without
    /// a mark: what they send to a service would pass the policy of who gets it.
    fn dispatch(
        &self,
        workloads: &[HostInterface],
        hosts: &[&HostInterface],
        config: &Config,
    ) -> impl Iterator<Item = Chain> {
        let root = names::SET_ENDPOINT_MARK;
        let target = |name: &str| names::set_mark_chain(&HostInterface::Named(name.into()));
        let unknown: Vec<Rule> = config
            .interface_prefixes
            .iter()
            .map(|prefix| Rule::when(vec![Match::InInterface(format!("{prefix}+"))], deny(config)))
            .map(|rule| rule.comment("Unknown endpoint"))
            .collect();
        let others = self.others_end(hosts, config);
        let workloads: Vec<&str> = workloads.iter().map(names::interface_text).collect();
        let named: Vec<&str> = hosts
            .iter()
            .filter(|host| matches!(host, HostInterface::Named(_)))
            .map(|host| names::interface_text(host))
            .collect();
        let (mut rules, mut chains) =
            leaves(&format!("{root}-wep"), &workloads, Match::InInterface, target, &unknown);
        let (more, children) =
            leaves(&format!("{root}-hep"), &named, Match::InInterface, target, std::slice::from_ref(&others));
        rules.extend(more);
        chains.extend(children);
        rules.extend(unknown);
        rules.push(others);
        chains.push(Chain { name: root.to_owned(), rules });
        chains.into_iter()
    }

    /// For packets of interfaces that have no endpoint of their own.
    fn others_end(&self, hosts: &[&HostInterface], config: &Config) -> Rule {
        if hosts.contains(&&HostInterface::Any) {
            return Rule::always(Action::Goto(names::set_mark_chain(&HostInterface::Any)));
        }
        if self.others == 0 {
            return Rule::always(deny(config)).comment("No endpoint mark left");
        }
        let mark = Action::SetMaskedMark { value: self.others, mask: self.mask };
        Rule::always(mark).comment("Non-Cali endpoint mark")
    }
}

/// FNV-1 of 32 bits.
fn fnv1(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte))
}

/// The bits of a value, the lowest first, at the places of the mask's bits.
pub(crate) fn spread(value: u64, mask: Bits) -> Bits {
    let places = (0..32).map(|place| 1 << place).filter(|bit: &Bits| mask & bit != 0);
    places.enumerate().filter(|(at, _)| value >> at & 1 != 0).map(|(_, bit)| bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &[&str]) -> BTreeSet<HostInterface> {
        names.iter().map(|name| HostInterface::Named((*name).into())).collect()
    }

    fn marks(mask: u32, names: &[&str]) -> EndpointMarks {
        let mut marks = EndpointMarks::new(&Marks { endpoint: mask, ..Marks::default() });
        marks.assign(&endpoints(names));
        marks
    }

    fn mark(marks: &EndpointMarks, name: &str) -> Option<Bits> {
        marks.by_endpoint.get(&HostInterface::Named(name.into())).copied()
    }

    #[test]
    fn values_are_felixs() {
        let names = ["cali0a1b2c3d4e5", "cali5d5d5d5d5d5", "eth0"];
        let marks = marks(0xffe0_0000, &names);
        let values = names.map(|name| mark(&marks, name));
        assert_eq!(values, [Some(0x0d40_0000), Some(0x3480_0000), Some(0xf440_0000)]);
    }

    #[test]
    fn values_lie_in_the_bits_of_the_mask() {
        assert_eq!(spread(0b1011, 0b1010_1010_1000), 0b0010_0010_1000);
    }

    #[test]
    fn every_endpoint_has_a_value_of_its_own_until_none_is_left() {
        // Three bits make eight values, of which two are never given out.
        let names: Vec<String> = (0..8).map(|n| format!("cali{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut marks = marks(0b111, &names);
        let given: BTreeSet<Bits> = marks.by_endpoint.values().copied().collect();
        assert_eq!((given.len(), given.contains(&0), given.contains(&1)), (6, false, false));
        assert_eq!(marks.unmarked(&endpoints(&names)).len(), 2);
        let kept = mark(&marks, "cali1");
        marks.assign(&endpoints(&names[1..]));
        assert_eq!(mark(&marks, "cali1"), kept);
        assert_eq!(marks.unmarked(&endpoints(&names[1..])).len(), 1);
    }

    #[test]
    fn an_endpoint_without_a_mark_sends_nothing_to_services() {
        let config = Config { marks: Marks { endpoint: 0, ..Marks::default() }, ..Config::default() };
        let marks = EndpointMarks::new(&config.marks);
        let host = HostInterface::Named("eth0".into());
        let chains = marks.chains(&["cali1"], &[&host], &config);
        let open = |rule: &Rule| !matches!(rule.action, Some(Action::Goto(_) | Action::Drop));
        assert!(chains.iter().flat_map(|chain| &chain.rules).all(|rule| !open(rule)), "{chains:?}");
    }

    #[test]
    fn the_endpoint_for_all_interfaces_has_a_mark_as_well() {
        let mut marks = EndpointMarks::new(&Marks::default());
        marks.assign(&BTreeSet::from([HostInterface::Any]));
        let chains = marks.chains(&[], &[&HostInterface::Any], &Config::default());
        let root = chains.iter().find(|chain| chain.name == names::SET_ENDPOINT_MARK).expect("the root");
        let end = root.rules.last().and_then(|rule| rule.action.as_ref()).and_then(Action::target);
        assert_eq!(end, Some("cali-sm-any-interface-at-all"));
    }

    #[test]
    fn packets_of_unknown_interfaces_find_an_end_in_every_chain() {
        let hosts = endpoints(&["eth10", "eth11", "eth2"]);
        let mut marks = EndpointMarks::new(&Marks::default());
        marks.assign(&hosts);
        let chains = marks.chains(
            &["cali11", "cali12", "cali2"],
            &hosts.iter().collect::<Vec<_>>(),
            &Config::default(),
        );
        let last = |name: &str| {
            let chain = chains.iter().find(|chain| chain.name == name).unwrap_or_else(|| panic!("no {name}"));
            chain.rules.last().expect("rules").comments.join(" ")
        };
        assert_eq!(last("cali-set-endpoint-mark-wep-1"), "Unknown endpoint");
        assert_eq!(last("cali-set-endpoint-mark-hep-1"), "Non-Cali endpoint mark");
        assert_eq!(last("cali-set-endpoint-mark"), "Non-Cali endpoint mark");
        assert_eq!(last("cali-from-endpoint-mark"), "Unknown interface");
    }
}
