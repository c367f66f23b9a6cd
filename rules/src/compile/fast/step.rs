//! Rules in the terms of tables: whose addresses, which protocol, which ports. What does not fit is a barrier.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange};
use tortie_api::policy::Action;

use crate::compile::names::Direction;
use crate::graph::model::{RuleSpec, SetId, SideSpec};

/// An address as a number.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of a number.
pub(super) fn address(version: IpVersion, bits: u128) -> IpAddr {
    match version {
        // Numbers of IPv4 addresses come from such.
        IpVersion::V4 => std::net::Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpVersion::V6 => std::net::Ipv6Addr::from_bits(bits).into(),
    }
}

/// The last address of a version.
pub(super) const fn last_address(version: IpVersion) -> u128 {
    match version {
        IpVersion::V4 => u32::MAX as u128,
        IpVersion::V6 => u128::MAX,
    }
}

/// The first and the last address of a network.
pub(super) fn range_of(net: &IpNet) -> (u128, u128) {
    (bits(net.network()), bits(net.broadcast()))
}

/// Disjoint ranges in order, with those that touch made one.
fn merged<T: Copy + Ord>(ranges: impl Iterator<Item = (T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    let mut ranges: Vec<(T, T)> = ranges.collect();
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if next(*end).is_none_or(|next| first <= next) => *end = last.max(*end),
            _ => out.push((first, last)),
        }
    }
    out
}

/// Addresses as disjoint ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressSet(Vec<(u128, u128)>);

impl AddressSet {
    pub(super) fn of(nets: &[IpNet]) -> Self {
        Self(merged(nets.iter().map(range_of), |end| end.checked_add(1)))
    }

    pub(super) fn contains(&self, address: u128) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= address);
        at > 0 && self.0[at - 1].1 >= address
    }

    pub(super) fn ranges(&self) -> &[(u128, u128)] {
        &self.0
    }
}

/// Ports as disjoint ranges in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    pub(super) fn new(ranges: impl Iterator<Item = (u16, u16)>) -> Self {
        Self(merged(ranges, |end| end.checked_add(1)))
    }

    fn of(ports: &[PortRange]) -> Self {
        Self::new(ports.iter().map(|range| (range.first(), range.last())))
    }

    /// Those of these that are not among others.
    fn without(&self, others: &Self) -> Self {
        let mut out = Vec::new();
        for (first, last) in &self.0 {
            let mut start = u32::from(*first);
            for (from, to) in others.0.iter().filter(|(from, to)| to >= first && from <= last) {
                if u32::from(*from) > start {
                    out.push((port(start), from - 1));
                }
                start = start.max(u32::from(*to) + 1);
            }
            if start <= u32::from(*last) {
                out.push((port(start), *last));
            }
        }
        Self(out)
    }

    pub(super) fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|(first, last)| other.0.iter().any(|(from, to)| from <= last && to >= first))
    }
}

fn port(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// What a rule says of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProtocolTest {
    Any,
    Is(u8),
    Not(u8),
}

/// Whose addresses a rule is for, as seen by the endpoint: those of the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerTest {
    /// In these, if asked for.
    pub(super) nets: Option<AddressSet>,
    /// In none of these.
    pub(super) not_nets: AddressSet,
    /// In each of these.
    pub(super) sets: Vec<SetId>,
    /// In none of these.
    pub(super) not_sets: Vec<SetId>,
}

/// A rule that tables can express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) peer: PeerTest,
    pub(super) protocol: ProtocolTest,
    /// Any, if absent.
    pub(super) ports: Option<PortSet>,
    pub(super) action: Action,
}

impl ProtocolTest {
    const fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Is(a), Self::Is(b)) => a == b,
            (Self::Is(a), Self::Not(b)) | (Self::Not(b), Self::Is(a)) => a != b,
            (Self::Any | Self::Not(_), _) | (_, Self::Any) => true,
        }
    }
}

impl Step {
    /// Whether some packets are of a protocol and a port that both are about.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let ports_meet = match (&self.ports, &other.ports) {
            (Some(a), Some(b)) => a.meets(b),
            (Some(ports), None) | (None, Some(ports)) => !ports.ranges().is_empty(),
            (None, None) => true,
        };
        self.protocol.meets(other.protocol) && ports_meet
    }
}

/// A rule, for tables or not.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// It is for the other IP version.
    Nothing,
    /// Tables can express it.
    Step(Step),
    /// They cannot: it stays a rule. It parts what is before from what is behind.
    Barrier,
}

/// What a rule is. It must have been cut to one IP version.
pub(super) fn shape(rule: Option<&RuleSpec>, direction: Direction) -> Shape {
    let Some(rule) = rule else { return Shape::Nothing };
    let (peer, own) = match direction {
        Direction::Ingress => (&rule.source, &rule.destination),
        Direction::Egress => (&rule.destination, &rule.source),
    };
    let is_odd = rule.action == Action::Log || rule.icmp.is_some() || rule.not_icmp.is_some();
    let named = |side: &SideSpec| {
        !(side.named_ports.is_empty() && side.not_named_ports.is_empty() && side.services.is_empty())
    };
    let with_addresses = |side: &SideSpec| {
        !(side.nets.is_empty()
            && side.not_nets.is_empty()
            && side.sets.is_empty()
            && side.not_sets.is_empty())
    };
    let has_source_ports = !(rule.source.ports.is_empty() && rule.source.not_ports.is_empty());
    if is_odd || named(peer) || named(own) || with_addresses(own) || has_source_ports {
        return Shape::Barrier;
    }
    let Some(ports) = ports(rule) else { return Shape::Barrier };
    let protocol = match (rule.protocol, rule.not_protocol) {
        (Some(protocol), _) => ProtocolTest::Is(protocol.number()),
        (None, Some(protocol)) => ProtocolTest::Not(protocol.number()),
        (None, None) => ProtocolTest::Any,
    };
    let peer = PeerTest {
        nets: (!peer.nets.is_empty()).then(|| AddressSet::of(&peer.nets)),
        not_nets: AddressSet::of(&peer.not_nets),
        sets: peer.sets.clone(),
        not_sets: peer.not_sets.clone(),
    };
    Shape::Step(Step { peer, protocol, ports, action: rule.action })
}

/// The destination ports of a rule, if it asks for some; nothing where tables have no place for them.
#[allow(clippy::option_option, reason = "whether tables can tell, and whether the rule asks")]
fn ports(rule: &RuleSpec) -> Option<Option<PortSet>> {
    let SideSpec { ports, not_ports, .. } = &rule.destination;
    if ports.is_empty() && not_ports.is_empty() {
        return Some(None);
    }
    if !rule.protocol.is_some_and(tortie_api::net::Protocol::has_ports) {
        return None;
    }
    let all = if ports.is_empty() { PortSet(vec![(0, u16::MAX)]) } else { PortSet::of(ports) };
    Some(Some(all.without(&PortSet::of(not_ports))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_without_others() {
        let set = |ranges: &[(u16, u16)]| PortSet::new(ranges.iter().copied());
        let all = set(&[(0, 65535)]);
        assert_eq!(all.without(&set(&[(0, 0), (80, 80), (65535, 65535)])), set(&[(1, 79), (81, 65534)]));
        assert_eq!(set(&[(10, 20), (30, 40)]).without(&set(&[(15, 35)])), set(&[(10, 14), (36, 40)]));
        assert_eq!(set(&[(5, 6)]).without(&all).ranges(), []);
        assert_eq!(set(&[(1, 2), (3, 4), (9, 9)]).ranges(), [(1, 4), (9, 9)]);
    }

    #[test]
    fn rules_meet_where_protocols_and_ports_do() {
        let step = |protocol: ProtocolTest, ports: Option<&[(u16, u16)]>| Step {
            peer: PeerTest {
                nets: None,
                not_nets: AddressSet::default(),
                sets: Vec::new(),
                not_sets: Vec::new(),
            },
            protocol,
            ports: ports.map(|ranges| PortSet::new(ranges.iter().copied())),
            action: Action::Allow,
        };
        let web = step(ProtocolTest::Is(6), Some(&[(80, 80), (443, 450)]));
        for (other, expected) in [
            (step(ProtocolTest::Is(6), Some(&[(450, 460)])), true),
            (step(ProtocolTest::Is(6), Some(&[(81, 442)])), false),
            (step(ProtocolTest::Is(17), None), false),
            (step(ProtocolTest::Not(6), None), false),
            (step(ProtocolTest::Not(17), None), true),
            (step(ProtocolTest::Any, None), true),
            (step(ProtocolTest::Is(6), Some(&[])), false),
        ] {
            assert_eq!((web.meets(&other), other.meets(&web)), (expected, expected), "{other:?}");
        }
        assert!(step(ProtocolTest::Not(6), None).meets(&step(ProtocolTest::Not(17), None)));
    }

    #[test]
    fn networks_as_ranges() {
        let nets: Vec<IpNet> =
            ["10.0.0.0/31", "10.0.0.2/32", "10.0.0.0/30", "0.0.0.0/8"].map(|n| n.parse().unwrap()).into();
        let set = AddressSet::of(&nets);
        assert_eq!(set.ranges(), [(0, 0xff_ffff), (0x0a00_0000, 0x0a00_0003)]);
        assert!(set.contains(0x0a00_0003) && !set.contains(0x0a00_0004));
        assert!(AddressSet::of(&["::/0".parse().unwrap()]).contains(u128::MAX));
    }
}
