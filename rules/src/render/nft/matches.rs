//! Conditions as expressions.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange, Protocol};

use super::sets::set_name;
use crate::ruleset::nft::{
    Comparison, ConntrackKey, Data, Expression, FibResult, FibSelector, LimitUnit, MetaKey, Payload, Register,
};
use crate::ruleset::{Bits, ConntrackState, Match, SetKey, Side};

/// Most matches have one value at a time in hand.
const REG: Register = Register::FIRST;

/// `RTN_LOCAL` of linux/rtnetlink.h.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
const STATUS_DNAT: u32 = 32;
/// TCP's flags FIN, SYN, RST and ACK, and SYN alone.
const FLAGS_OF_SYN: u8 = 0x17;
const SYN: u8 = 0x02;
/// What the kernel lets through at once if a rule does not say, in iptables as well.
const DEFAULT_BURST: u32 = 5;

/// Ways in which a match can hold: expressions of which all must match. No packet matches two of them.
type Ways = Vec<Vec<Expression>>;

/// The conditions of a rule as lists of expressions, of which a packet that fits matches exactly one. Empty if nothing
/// can fit.
pub(super) fn alternatives(version: IpVersion, matches: &[Match]) -> Result<Ways, &'static str> {
    let mut all: Ways = vec![Vec::new()];
    let mut lowering = Lowering { version, protocol: None };
    for m in matches {
        let ways = lowering.ways(m)?;
        all = all.iter().flat_map(|begin| ways.iter().map(|end| [begin.as_slice(), end].concat())).collect();
    }
    Ok(all)
}

struct Lowering {
    version: IpVersion,
    /// What an earlier match of the rule asks for.
    protocol: Option<u8>,
}

impl Lowering {
    fn ways(&mut self, m: &Match) -> Result<Ways, &'static str> {
        Ok(match m {
            Match::MarkClear(bits) => one(mark(*bits, Comparison::Equal, 0)),
            Match::MarkAnySet(bits) => one(mark(*bits, Comparison::NotEqual, 0)),
            Match::Mark { value, mask } => one(mark(*mask, Comparison::Equal, *value)),
            Match::MarkNot { value, mask } => one(mark(*mask, Comparison::NotEqual, *value)),
            Match::InInterface(name) => one(interface(MetaKey::InInterface, name)),
            Match::OutInterface(name) => one(interface(MetaKey::OutInterface, name)),
            Match::ReversePathFails => one(reverse_path_fails()),
            Match::Local(side) => one(address_type(*side, false, Comparison::Equal)),
            Match::NotFromOutInterface => one(address_type(Side::Source, true, Comparison::NotEqual)),
            Match::Conntrack { states, negate } => one(conntrack(states, *negate)?),
            Match::Protocol { protocol, negate } => one(self.protocol(*protocol, *negate)),
            Match::Net { side, net, negate } => self.net(*side, net, *negate),
            Match::Address { side, address } => self.net(*side, &IpNet::from(*address), false),
            Match::Set { name, side, key, negate } => one(self.set(name, *side, *key, *negate)?),
            Match::Ports { side, ports, negate } => self.ports(*side, ports, *negate)?,
            Match::DestinationPort(port) => {
                self.ports(Side::Destination, &[PortRange::single(*port)], false)?
            }
            Match::Icmp { version, icmp_type, code, negate } => {
                self.icmp(*version, *icmp_type, *code, *negate)?
            }
            Match::Limit { rate, burst } => one(vec![limit(rate, *burst)?]),
            Match::TcpSyn => one(self.tcp_syn()?),
            Match::ConnectionsAbove(count) => {
                one(vec![Expression::ConnectionLimit { count: *count, over: true }])
            }
        })
    }

    fn protocol(&mut self, protocol: Protocol, negate: bool) -> Vec<Expression> {
        if !negate {
            self.protocol = Some(protocol.number());
        }
        is_protocol(protocol.number(), equal_or_not(negate))
    }

    /// `ip saddr 10.0.0.0/8`. What is in no network of the other IP version never matches.
    fn net(&self, side: Side, net: &IpNet, negate: bool) -> Ways {
        let is_mine = IpVersion::of(net) == self.version;
        if !is_mine || net.prefix_len() == 0 {
            return if is_mine == negate { Vec::new() } else { one(Vec::new()) };
        }
        let (full, bits) = (address(self.version, side), u32::from(net.prefix_len()));
        let bytes = |address: IpAddr, len: usize| match address {
            IpAddr::V4(address) => Data::new(&address.octets()[..len]),
            IpAddr::V6(address) => Data::new(&address.octets()[..len]),
        };
        // Whole bytes are compared as they are, as nft itself writes it.
        let (payload, len) = if bits.is_multiple_of(8) {
            (Payload { len: bits / 8, ..full }, bits as usize / 8)
        } else {
            (full, full.len as usize)
        };
        let mut out = vec![Expression::Payload { payload, to: REG }];
        if !bits.is_multiple_of(8) {
            let mask = bytes(net.netmask(), len);
            out.push(Expression::Bitwise { from: REG, to: REG, mask, xor: Data::new(&vec![0; len]) });
        }
        out.push(compare(equal_or_not(negate), bytes(net.network(), len)));
        one(out)
    }

    /// `ip daddr @set`, or `ip daddr . meta l4proto . th dport @set`.
    fn set(
        &self,
        name: &str,
        side: Side,
        key: SetKey,
        negate: bool,
    ) -> Result<Vec<Expression>, &'static str> {
        let payload = address(self.version, side);
        let mut out = vec![Expression::Payload { payload, to: REG }];
        if key == SetKey::AddressPort {
            let protocol = REG.after(payload.len as usize).ok_or(TOO_LONG)?;
            let port = protocol.after(1).ok_or(TOO_LONG)?;
            out.push(Expression::Meta { key: MetaKey::Protocol, to: protocol });
            out.push(Expression::Payload { payload: port_of(side), to: port });
        }
        out.push(Expression::Lookup { set: set_name(name), key: REG, negate });
        Ok(out)
    }

    /// `tcp dport 80`. Of several ports each becomes a way of its own, and of negated ones all must fail.
    fn ports(&self, side: Side, ports: &[PortRange], negate: bool) -> Result<Ways, &'static str> {
        if !self.protocol.is_some_and(|number| matches!(number, 6 | 17 | 33 | 132 | 136)) {
            // For other protocols something else stands where these have ports.
            return Err("ports without a protocol that has them");
        }
        let load = Expression::Payload { payload: port_of(side), to: REG };
        let ranges = disjoint(ports);
        if negate {
            let tests = ranges.into_iter().map(|(low, high)| port_outside(low, high));
            return Ok(one(tests.flat_map(|test| [load.clone(), test]).collect()));
        }
        let ways = ranges.into_iter().map(|(low, high)| {
            std::iter::once(load.clone()).chain(port_inside(low, high)).collect::<Vec<_>>()
        });
        Ok(ways.collect())
    }

    fn icmp(
        &mut self,
        version: IpVersion,
        icmp_type: u8,
        code: Option<u8>,
        negate: bool,
    ) -> Result<Ways, &'static str> {
        let number = match version {
            IpVersion::V4 => Protocol::Icmp.number(),
            IpVersion::V6 => Protocol::IcmpV6.number(),
        };
        let mut begin = Vec::new();
        match self.protocol {
            None => begin = is_protocol(number, Comparison::Equal),
            Some(known) if known == number => {}
            Some(_) => return Err("an ICMP type with another protocol"),
        }
        self.protocol = Some(number);
        let field = |payload, comparison, value| {
            [Expression::Payload { payload, to: REG }, compare(comparison, Data::u8(value))]
        };
        let is_type = |comparison| field(Payload::ICMP_TYPE, comparison, icmp_type);
        let ends: Ways = match (code, negate) {
            (None, _) => one(is_type(equal_or_not(negate)).into()),
            (Some(code), false) => {
                one([is_type(Comparison::Equal), field(Payload::ICMP_CODE, Comparison::Equal, code)].concat())
            }
            // Not both: another type, or this type with another code.
            (Some(code), true) => vec![
                is_type(Comparison::NotEqual).into(),
                [is_type(Comparison::Equal), field(Payload::ICMP_CODE, Comparison::NotEqual, code)].concat(),
            ],
        };
        Ok(ends.into_iter().map(|end| [begin.as_slice(), &end].concat()).collect())
    }

    fn tcp_syn(&self) -> Result<Vec<Expression>, &'static str> {
        if self.protocol != Some(Protocol::Tcp.number()) {
            return Err("TCP flags without TCP");
        }
        Ok(vec![
            Expression::Payload { payload: Payload::TCP_FLAGS, to: REG },
            Expression::Bitwise { from: REG, to: REG, mask: Data::u8(FLAGS_OF_SYN), xor: Data::u8(0) },
            compare(Comparison::Equal, Data::u8(SYN)),
        ])
    }
}

const TOO_LONG: &str = "a key longer than the registers";

fn one(expressions: Vec<Expression>) -> Ways {
    vec![expressions]
}

const fn equal_or_not(negate: bool) -> Comparison {
    if negate { Comparison::NotEqual } else { Comparison::Equal }
}

pub(super) fn compare(comparison: Comparison, value: Data) -> Expression {
    Expression::Compare { comparison, from: REG, value }
}

/// Keeps these bits of four bytes in the host's order.
pub(super) fn only(bits: Bits) -> Expression {
    Expression::Bitwise { from: REG, to: REG, mask: Data::host32(bits), xor: Data::host32(0) }
}

/// `meta l4proto tcp`.
fn is_protocol(number: u8, comparison: Comparison) -> Vec<Expression> {
    vec![Expression::Meta { key: MetaKey::Protocol, to: REG }, compare(comparison, Data::u8(number))]
}

/// `meta mark & 0x10000 == 0x10000`.
pub(super) fn mark(mask: Bits, comparison: Comparison, value: Bits) -> Vec<Expression> {
    let load = Expression::Meta { key: MetaKey::Mark, to: REG };
    vec![load, only(mask), compare(comparison, Data::host32(value))]
}

/// `iifname "cali*"`. The pattern that stands for all interfaces asks nothing.
pub(super) fn interface(key: MetaKey, name: &str) -> Vec<Expression> {
    let value = match name.strip_suffix('+') {
        Some("") => return Vec::new(),
        Some(prefix) => Data::interface_prefix(prefix),
        None => Data::interface(name),
    };
    vec![Expression::Meta { key, to: REG }, compare(Comparison::Equal, value)]
}

/// `fib saddr . mark . iif oif 0`: no route back by the interface that the packet came from.
fn reverse_path_fails() -> Vec<Expression> {
    let selector = FibSelector { source: true, mark: true, in_interface: true, ..FibSelector::default() };
    let ask = Expression::Fib { result: FibResult::OutIndex, selector, to: REG };
    vec![ask, compare(Comparison::Equal, Data::host32(0))]
}

/// `fib daddr type local`, and with the interface that the packet leaves by.
fn address_type(side: Side, out_interface: bool, comparison: Comparison) -> Vec<Expression> {
    let (source, destination) = (side == Side::Source, side == Side::Destination);
    let selector = FibSelector { source, destination, out_interface, ..FibSelector::default() };
    let ask = Expression::Fib { result: FibResult::AddressType, selector, to: REG };
    vec![ask, compare(comparison, Data::host32(LOCAL))]
}

/// `ct state established,related`, `ct status dnat`.
///
/// Felix's nftables mode asks for a status that is not exactly "translated", which every connection has.
fn conntrack(states: &[ConntrackState], negate: bool) -> Result<Vec<Expression>, &'static str> {
    let (key, bits) = if states.contains(&ConntrackState::Dnat) {
        if states.len() > 1 {
            return Err("translation together with other states");
        }
        (ConntrackKey::Status, STATUS_DNAT)
    } else {
        (ConntrackKey::State, states.iter().map(|state| state_bit(*state)).fold(0, |all, bit| all | bit))
    };
    let load = Expression::Conntrack { key, direction: None, to: REG };
    // Some of the bits, or none of them.
    Ok(vec![load, only(bits), compare(equal_or_not(!negate), Data::host32(0))])
}

/// `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h.
const fn state_bit(state: ConntrackState) -> Bits {
    match state {
        ConntrackState::Invalid => 1,
        ConntrackState::Established => 2,
        ConntrackState::Related => 4,
        ConntrackState::New => 8,
        ConntrackState::Dnat => 0,
    }
}

/// `ip saddr` and its like.
pub(super) const fn address(version: IpVersion, side: Side) -> Payload {
    match (version, side) {
        (IpVersion::V4, Side::Source) => Payload::IPV4_SOURCE,
        (IpVersion::V4, Side::Destination) => Payload::IPV4_DESTINATION,
        (IpVersion::V6, Side::Source) => Payload::IPV6_SOURCE,
        (IpVersion::V6, Side::Destination) => Payload::IPV6_DESTINATION,
    }
}

/// `th sport`, `th dport`.
pub(super) const fn port_of(side: Side) -> Payload {
    match side {
        Side::Source => Payload::SOURCE_PORT,
        Side::Destination => Payload::DESTINATION_PORT,
    }
}

/// The same ports in ranges that neither overlap nor touch.
fn disjoint(ports: &[PortRange]) -> Vec<(u16, u16)> {
    let mut sorted: Vec<(u16, u16)> = ports.iter().map(|range| (range.first(), range.last())).collect();
    sorted.sort_unstable();
    let mut out: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match out.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => out.push((first, last)),
        }
    }
    out
}

fn port_inside(low: u16, high: u16) -> Vec<Expression> {
    if low == high {
        return vec![compare(Comparison::Equal, Data::be16(low))];
    }
    vec![
        compare(Comparison::GreaterOrEqual, Data::be16(low)),
        compare(Comparison::LessOrEqual, Data::be16(high)),
    ]
}

fn port_outside(low: u16, high: u16) -> Expression {
    if low == high {
        return compare(Comparison::NotEqual, Data::be16(low));
    }
    Expression::Range { negate: true, from: REG, low: Data::be16(low), high: Data::be16(high) }
}

/// `limit rate 10/minute burst 5 packets`.
fn limit(rate: &str, burst: u32) -> Result<Expression, &'static str> {
    const BAD: &str = "a rate that is not like 10/minute";
    let (count, unit) = rate.split_once('/').ok_or(BAD)?;
    let unit = match unit {
        "sec" | "second" => LimitUnit::Second,
        "min" | "minute" => LimitUnit::Minute,
        "hour" => LimitUnit::Hour,
        "day" => LimitUnit::Day,
        _ => return Err(BAD),
    };
    let burst = if burst == 0 { DEFAULT_BURST } else { burst };
    Ok(Expression::Limit { rate: count.parse().map_err(|_| BAD)?, unit, burst, bytes: false, over: false })
}
