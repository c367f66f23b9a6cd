//! The space of packets between two ends, cut along what rules mention, and what of it changes.
//!
//! Rules tell protocols, ports and ICMP types apart only at the places that they mention; between two such places
//! all packets fare alike, so one of each class is enough.

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::net::{IpVersion, Port, Protocol};
use tortie_api::policy::Rule;

use super::super::explain::Verdict;
use super::super::flow::{ICMP, ICMP_V6};
use super::super::term::Side;
use super::super::words;
use super::{Span, Traffic};

/// The protocols whose ports can be matched.
const WITH_PORTS: [u8; 3] = [6, UDP, 132];
const UDP: u8 = 17;
/// A port that programs send from unless they choose one.
const EPHEMERAL: u16 = 49152;

/// The places where rules cut.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    protocols: BTreeSet<u8>,
    /// By protocol: where spans of source ports (or ICMP types) and of destination ports (or codes) begin.
    axes: BTreeMap<u8, [BTreeSet<u16>; 2]>,
    /// Ports of UDP that do not stand for others.
    odd_ports: Vec<u16>,
    /// Types of ICMP that do not stand for others.
    odd_types: Vec<u16>,
}

impl Cuts {
    /// Takes a rule of which everything but this may hold. `named` are the ports that a name stands for.
    pub(super) fn take(
        &mut self,
        rule: &Rule,
        version: IpVersion,
        named: impl Fn(Side, &str) -> Vec<(u8, u16)>,
    ) {
        let mentioned = [rule.protocol, rule.not_protocol];
        self.protocols.extend(mentioned.iter().flatten().map(|protocol| protocol.number()));
        for icmp in [rule.icmp, rule.not_icmp].into_iter().flatten() {
            if let Some(icmp_type) = icmp.icmp_type {
                self.icmp(version, icmp_type, icmp.code);
            }
        }
        for (side, entity) in [(Side::Source, &rule.source), (Side::Destination, &rule.destination)] {
            for port in entity.ports.iter().chain(&entity.not_ports) {
                match port {
                    Port::Range(range) => {
                        let protocols = rule.protocol.map(Protocol::number);
                        for protocol in WITH_PORTS.into_iter().filter(|p| protocols.is_none_or(|of| of == *p))
                        {
                            self.ports(protocol, side, (range.first(), range.last()));
                        }
                    }
                    Port::Named(name) => {
                        for (protocol, port) in named(side, name) {
                            self.ports(protocol, side, (port, port));
                        }
                    }
                }
            }
        }
    }

    /// Cuts out a protocol.
    pub(super) fn protocol(&mut self, number: u8) {
        self.protocols.insert(number);
    }

    /// Cuts out a range of ports.
    pub(super) fn ports(&mut self, protocol: u8, side: Side, (first, last): (u16, u16)) {
        self.protocols.insert(protocol);
        let axis = usize::from(side == Side::Destination);
        let starts = &mut self.axes.entry(protocol).or_default()[axis];
        starts.insert(first);
        starts.extend(last.checked_add(1));
    }

    /// Cuts out messages of ICMP, or of ICMPv6.
    pub(super) fn icmp(&mut self, version: IpVersion, icmp_type: u8, code: Option<u8>) {
        let protocol = icmp_of(version);
        self.protocols.insert(protocol);
        let [types, codes] = self.axes.entry(protocol).or_default();
        types.extend([u16::from(icmp_type), u16::from(icmp_type) + 1]);
        codes.extend(code.into_iter().flat_map(|code| [u16::from(code), u16::from(code) + 1]));
    }

    /// A port of UDP whose packets do not fare as those beside it, whatever rules say.
    pub(super) fn do_not_ask_port(&mut self, port: u16) {
        self.odd_ports.push(port);
    }

    /// The same for types of ICMP.
    pub(super) fn do_not_ask_types(&mut self, types: impl IntoIterator<Item = u8>) {
        self.odd_types.extend(types.into_iter().map(u16::from));
    }

    /// The classes of packets.
    pub(super) fn classes(mut self, version: IpVersion) -> Vec<Class> {
        // Any that is not mentioned stands for all such. If there is none, all are.
        let special = [ICMP, ICMP_V6, WITH_PORTS[0], WITH_PORTS[1], WITH_PORTS[2]];
        let rest = (0..=u8::MAX).rev().find(|n| !self.protocols.contains(n) && !special.contains(n));
        if rest.is_none() {
            self.protocols.extend(special);
        }
        let mut axes = self.axes;
        let mentioned = self.protocols.into_iter().map(|protocol| {
            let [x, y] = axes.remove(&protocol).unwrap_or_default();
            let kind = match protocol {
                _ if WITH_PORTS.contains(&protocol) => Kind::Ports,
                _ if protocol == icmp_of(version) => Kind::Icmp,
                _ => Kind::Plain,
            };
            let max = match kind {
                Kind::Ports => u16::MAX,
                Kind::Icmp => u8::MAX.into(),
                Kind::Plain | Kind::Rest => 0,
            };
            let odd = match (kind, protocol) {
                (Kind::Icmp, _) => [self.odd_types.clone(), Vec::new()],
                (Kind::Ports, UDP) => [Vec::new(), self.odd_ports.clone()],
                _ => Default::default(),
            };
            Class { protocol, kind, axes: [spans(&x, max), spans(&y, max)], odd }
        });
        let plain = |protocol| Class {
            protocol,
            kind: Kind::Rest,
            axes: [0, 0].map(|n| vec![Span::one(n)]),
            odd: Default::default(),
        };
        mentioned.chain(rest.map(plain)).collect()
    }
}

const fn icmp_of(version: IpVersion) -> u8 {
    match version {
        IpVersion::V4 => ICMP,
        IpVersion::V6 => ICMP_V6,
    }
}

/// The spans from 0 to `max` that begin at these places.
fn spans(starts: &BTreeSet<u16>, max: u16) -> Vec<Span> {
    let starts: Vec<u16> =
        std::iter::once(0).chain(starts.iter().copied().filter(|start| (1..=max).contains(start))).collect();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([max]);
    starts.iter().zip(ends).map(|(first, last)| Span { first: *first, last }).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ports,
    Icmp,
    Plain,
    /// Stands for all protocols that are not mentioned.
    Rest,
}

/// The packets of one protocol, or of all that are not mentioned.
#[derive(Debug)]
pub(super) struct Class {
    protocol: u8,
    kind: Kind,
    /// Source ports and destination ports, or types and codes.
    axes: [Vec<Span>; 2],
    /// Numbers that do not stand for the others of their span.
    odd: [Vec<u16>; 2],
}

/// What tells one packet between two ends from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) protocol: u8,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) icmp: Option<(u8, u8)>,
}

impl Class {
    fn header(&self, x: Span, y: Span) -> Header {
        let pick = |span: Span, odd: &[u16]| {
            (span.first..=span.last).find(|number| !odd.contains(number)).unwrap_or(span.first)
        };
        let (low, to) = (pick(x, &self.odd[0]), pick(y, &self.odd[1]));
        let byte = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
        let from = if x.contains(EPHEMERAL) { EPHEMERAL } else { x.last };
        Header {
            protocol: self.protocol,
            ports: (self.kind == Kind::Ports).then_some((from, to)),
            icmp: (self.kind == Kind::Icmp).then(|| (byte(low), byte(to))),
        }
    }
}

/// What changes between two ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    pub(super) allowed: Vec<Traffic>,
    pub(super) denied: Vec<Traffic>,
}

/// Asks for one packet of each class what becomes of it (`None` if that does not change).
pub(super) fn difference(
    classes: &[Class],
    mut changed: impl FnMut(Header) -> Option<Verdict>,
) -> Difference {
    let [mut allowed, mut denied] = [Collector::default(), Collector::default()];
    for class in classes {
        let [xs, ys] = &class.axes;
        let rows: Vec<Vec<Option<Verdict>>> =
            xs.iter().map(|x| ys.iter().map(|y| changed(class.header(*x, *y))).collect()).collect();
        allowed.take(class, &rows, Verdict::Allow);
        denied.take(class, &rows, Verdict::Deny);
    }
    Difference { allowed: allowed.finish(), denied: denied.finish() }
}

/// Puts classes with the same fate together.
#[derive(Debug, Default)]
struct Collector {
    whole: Vec<u8>,
    mentioned: Vec<u8>,
    has_rest: bool,
    parts: Vec<Traffic>,
}

impl Collector {
    fn take(&mut self, class: &Class, rows: &[Vec<Option<Verdict>>], wanted: Verdict) {
        let is_wanted = |verdict: &Option<Verdict>| *verdict == Some(wanted);
        let is_whole = rows.iter().flatten().all(is_wanted);
        if class.kind == Kind::Rest {
            self.has_rest = is_whole;
            return;
        }
        self.mentioned.push(class.protocol);
        if is_whole {
            self.whole.push(class.protocol);
            return;
        }
        let [xs, ys] = &class.axes;
        // Source ports whose destination ports fare alike belong together.
        let mut by_columns: Vec<(Vec<usize>, Vec<Span>)> = Vec::new();
        for (x, row) in xs.iter().zip(rows) {
            let columns: Vec<usize> =
                row.iter().enumerate().filter(|(_, v)| is_wanted(v)).map(|(at, _)| at).collect();
            match by_columns.iter_mut().find(|(known, _)| *known == columns) {
                _ if columns.is_empty() => {}
                Some((_, from)) => from.push(*x),
                None => by_columns.push((columns, vec![*x])),
            }
        }
        for (columns, from) in by_columns {
            let to: Vec<Span> = columns.iter().map(|at| ys[*at]).collect();
            let (from, to) = (joined(&from, xs), joined(&to, ys));
            let mut traffic = of_protocol(class.protocol);
            if class.kind == Kind::Icmp {
                (traffic.icmp_types, traffic.icmp_codes) = (from, to);
            } else {
                (traffic.source_ports, traffic.ports) = (from, to);
            }
            self.parts.push(traffic);
        }
    }

    fn finish(self) -> Vec<Traffic> {
        let mut all = Vec::new();
        if self.has_rest {
            let not = self.mentioned.iter().filter(|protocol| !self.whole.contains(protocol));
            let not_protocols = not.map(|protocol| words::protocol(*protocol)).collect();
            all.push(Traffic { not_protocols, ..Traffic::default() });
        } else {
            all.extend(self.whole.iter().map(|protocol| of_protocol(*protocol)));
        }
        all.extend(self.parts);
        all
    }
}

fn of_protocol(number: u8) -> Traffic {
    let protocol: Protocol = words::protocol(number);
    Traffic { protocol: Some(protocol), ..Traffic::default() }
}

/// Joins neighbours; nothing is said of a whole axis.
fn joined(some: &[Span], all: &[Span]) -> Vec<Span> {
    if some.len() == all.len() {
        return Vec::new();
    }
    let mut result: Vec<Span> = Vec::new();
    for span in some {
        match result.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(span.first) => last.last = span.last,
            _ => result.push(*span),
        }
    }
    result
}
