//! Rules in few bytes, for the many policies that select nothing on this node.
//!
//! ```text
//! rules = directions, ingress count, { action { field } END }
//! field = FIELD value, only those that say something
//! ```
//!
//! Selectors are kept as their canonical texts: nothing that is made of a rule depends on how they were written,
//! except whether anything was.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tortie_api::net::{IpVersion, Port, PortRange, Protocol};
use tortie_api::policy::{
    Action, EntityRule, HttpMatch, HttpPath, Icmp, Rule, RuleMetadata, ServiceAccountMatch, ServiceMatch,
};
use tortie_api::selector::Selector;

use super::labels::{push_number, take_number};

/// The rules of a policy or profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackedRules(Box<[u8]>);

const HAS_INGRESS: u8 = 1;
const HAS_EGRESS: u8 = 2;

impl PackedRules {
    /// Rules of the directions that a policy applies to. `own` is the canonical text of its selector, which rules
    /// often ask for as well; it must be the same when they are unpacked.
    pub(crate) fn new(own: &str, ingress: Option<&[Rule]>, egress: Option<&[Rule]>) -> Self {
        let [first, second] = [ingress, egress].map(|rules| rules.unwrap_or(&[]));
        let bytes = Vec::with_capacity(8 + 64 * (first.len() + second.len()));
        let mut writer = Writer { bytes, known: Known::new(own) };
        let flag = |is_there, flag| if is_there { flag } else { 0 };
        writer.bytes.push(flag(ingress.is_some(), HAS_INGRESS) | flag(egress.is_some(), HAS_EGRESS));
        push_number(&mut writer.bytes, first.len());
        first.iter().chain(second).for_each(|rule| writer.rule(rule));
        Self(writer.bytes.into())
    }

    /// Whether the policy applies to traffic to its endpoints.
    pub(crate) fn has_ingress(&self) -> bool {
        self.0[0] & HAS_INGRESS != 0
    }

    /// Whether the policy applies to traffic from its endpoints.
    pub(crate) fn has_egress(&self) -> bool {
        self.0[0] & HAS_EGRESS != 0
    }

    /// The rules again, those for ingress and those for egress.
    pub(crate) fn unpack(&self, own: &str, parsed: &mut Parsed) -> [Vec<Rule>; 2] {
        let mut reader = Reader { bytes: &self.0[1..], known: Known::new(own), parsed };
        let count = reader.number().expect("there is a number behind the first byte");
        let mut rules = Vec::new();
        while !reader.bytes.is_empty() {
            rules.push(reader.rule().expect("what was packed can be unpacked"));
        }
        let egress = rules.split_off(count);
        [rules, egress]
    }
}

/// The texts of the first few selectors, of which only a number is kept where they come again.
struct Known<'a>(SmallVec<[&'a str; Known::MOST]>);

impl<'a> Known<'a> {
    /// Few, because they are compared one by one.
    const MOST: usize = 8;

    fn new(own: &'a str) -> Self {
        Self(SmallVec::from_slice(&[own]))
    }

    fn add(&mut self, text: &'a str) {
        if self.0.len() < Self::MOST {
            self.0.push(text);
        }
    }
}

/// Selectors that were unpacked before. Many policies ask for the same.
#[derive(Debug, Default)]
pub(crate) struct Parsed(FxHashMap<Box<str>, Selector>);

impl Parsed {
    /// Enough for the policies of most nodes.
    const MOST: usize = 4096;

    fn selector(&mut self, text: &str) -> Option<Selector> {
        if let Some(selector) = self.0.get(text) {
            return Some(selector.clone());
        }
        let selector = Selector::parse(text).ok()?;
        if self.0.len() < Self::MOST {
            self.0.insert(text.into(), selector.clone());
        }
        Some(selector)
    }
}

/// What follows. Fields of a side are those of the source; those of the destination are [`DESTINATION`] more.
mod field {
    pub(super) const END: u8 = 0;
    pub(super) const IP_VERSION: u8 = 1;
    pub(super) const PROTOCOL: u8 = 2;
    pub(super) const ICMP: u8 = 3;
    pub(super) const NOT_PROTOCOL: u8 = 4;
    pub(super) const NOT_ICMP: u8 = 5;
    pub(super) const HTTP: u8 = 6;
    pub(super) const METADATA: u8 = 7;
    pub(super) const NETS: u8 = 16;
    pub(super) const SELECTOR: u8 = 17;
    pub(super) const NAMESPACE_SELECTOR: u8 = 18;
    pub(super) const SERVICES: u8 = 19;
    pub(super) const PORTS: u8 = 20;
    pub(super) const NOT_NETS: u8 = 21;
    pub(super) const NOT_SELECTOR: u8 = 22;
    pub(super) const NOT_PORTS: u8 = 23;
    pub(super) const SERVICE_ACCOUNTS: u8 = 24;
    pub(super) const NODES: u8 = 25;
    pub(super) const DESTINATION: u8 = 16;
}

const ACTIONS: [Action; 4] = [Action::Allow, Action::Deny, Action::Log, Action::Pass];

struct Writer<'a> {
    bytes: Vec<u8>,
    known: Known<'a>,
}

impl<'a> Writer<'a> {
    fn rule(&mut self, rule: &'a Rule) {
        let Rule {
            action,
            ip_version,
            protocol,
            icmp,
            not_protocol,
            not_icmp,
            source,
            destination,
            http,
            metadata,
        } = rule;
        let action = ACTIONS.iter().position(|a| a == action).expect("these are all actions");
        push_number(&mut self.bytes, action);
        self.field(field::IP_VERSION, ip_version.as_ref(), |w, v| {
            w.bytes.push(u8::from(*v == IpVersion::V6));
        });
        self.field(field::PROTOCOL, protocol.as_ref(), |w, p| w.protocol(*p));
        self.field(field::ICMP, icmp.as_ref(), |w, i| w.icmp(*i));
        self.field(field::NOT_PROTOCOL, not_protocol.as_ref(), |w, p| w.protocol(*p));
        self.field(field::NOT_ICMP, not_icmp.as_ref(), |w, i| w.icmp(*i));
        self.field(field::HTTP, http.as_ref(), |w, http| {
            w.list(&http.methods, |w, method| w.text(method));
            w.list(&http.paths, |w, path| {
                w.option(path.exact.as_deref());
                w.option(path.prefix.as_deref());
            });
        });
        self.field(field::METADATA, metadata.as_ref(), |w, metadata| {
            let annotations: Vec<_> = metadata.annotations.iter().collect();
            w.list(&annotations, |w, (key, value)| {
                w.text(key);
                w.text(value);
            });
        });
        self.side(source, 0);
        self.side(destination, field::DESTINATION);
        self.bytes.push(field::END);
    }

    fn side(&mut self, side: &'a EntityRule, at: u8) {
        let EntityRule {
            nets,
            selector,
            namespace_selector,
            services,
            ports,
            not_nets,
            not_selector,
            not_ports,
            service_accounts,
            nodes,
        } = side;
        let list = |is_empty: bool| (!is_empty).then_some(());
        self.field(at + field::NETS, list(nets.is_empty()), |w, ()| w.list(nets, Self::net));
        self.field(at + field::SELECTOR, selector.as_ref(), Self::selector);
        self.field(at + field::NAMESPACE_SELECTOR, namespace_selector.as_ref(), Self::selector);
        self.field(at + field::SERVICES, services.as_ref(), |w, service| {
            w.text(&service.name);
            w.option(service.namespace.as_deref());
        });
        self.field(at + field::PORTS, list(ports.is_empty()), |w, ()| w.list(ports, Self::port));
        self.field(at + field::NOT_NETS, list(not_nets.is_empty()), |w, ()| w.list(not_nets, Self::net));
        self.field(at + field::NOT_SELECTOR, not_selector.as_ref(), Self::selector);
        self.field(at + field::NOT_PORTS, list(not_ports.is_empty()), |w, ()| w.list(not_ports, Self::port));
        self.field(at + field::SERVICE_ACCOUNTS, service_accounts.as_ref(), |w, accounts| {
            w.list(&accounts.names, |w, name| w.text(name));
            w.bytes.push(u8::from(accounts.selector.is_some()));
            accounts.selector.iter().for_each(|selector| w.selector(selector));
        });
        self.field(at + field::NODES, nodes.as_ref(), Self::selector);
    }

    fn field<T>(&mut self, name: u8, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        if let Some(value) = value {
            self.bytes.push(name);
            write(self, value);
        }
    }

    fn list<T>(&mut self, list: &[T], write: impl Fn(&mut Self, &T)) {
        push_number(&mut self.bytes, list.len());
        list.iter().for_each(|value| write(self, value));
    }

    fn text(&mut self, text: &str) {
        push_number(&mut self.bytes, text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn option(&mut self, text: Option<&str>) {
        self.bytes.push(u8::from(text.is_some()));
        text.iter().for_each(|text| self.text(text));
    }

    fn selector(&mut self, selector: &'a Selector) {
        let is_blank = selector.source().trim().is_empty();
        let text = if is_blank { "" } else { selector.canonical() };
        if let Some(at) = self.known.0.iter().position(|known| *known == text) {
            push_number(&mut self.bytes, at + 1);
        } else {
            self.bytes.push(0);
            self.text(text);
            self.known.add(text);
        }
    }

    fn protocol(&mut self, protocol: Protocol) {
        match protocol {
            Protocol::Number(number) => self.bytes.extend([0, number]),
            named => {
                let at = PROTOCOLS.iter().position(|p| *p == named).expect("these are all that have names");
                push_number(&mut self.bytes, at + 1);
            }
        }
    }

    fn icmp(&mut self, icmp: Icmp) {
        for number in [icmp.icmp_type, icmp.code] {
            self.bytes.extend([u8::from(number.is_some()), number.unwrap_or(0)]);
        }
    }

    fn net(&mut self, net: &IpNet) {
        match net.addr() {
            IpAddr::V4(addr) => {
                self.bytes.push(4);
                self.bytes.extend(addr.octets());
            }
            IpAddr::V6(addr) => {
                self.bytes.push(6);
                self.bytes.extend(addr.octets());
            }
        }
        self.bytes.push(net.prefix_len());
    }

    fn port(&mut self, port: &Port) {
        match port {
            Port::Range(range) => {
                self.bytes.push(0);
                self.bytes.extend(range.first().to_be_bytes());
                self.bytes.extend(range.last().to_be_bytes());
            }
            Port::Named(name) => {
                self.bytes.push(1);
                self.text(name);
            }
        }
    }
}

const PROTOCOLS: [Protocol; 6] =
    [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::IcmpV6, Protocol::Sctp, Protocol::UdpLite];

struct Reader<'a> {
    bytes: &'a [u8],
    known: Known<'a>,
    parsed: &'a mut Parsed,
}

/// What was read is not what was written.
struct Unreadable;

impl<'a> Reader<'a> {
    fn rule(&mut self) -> Option<Rule> {
        let mut rule = Rule::new(*ACTIONS.get(self.number()?)?);
        loop {
            match self.byte()? {
                field::END => return Some(rule),
                field::IP_VERSION => {
                    rule.ip_version = Some(if self.flag()? { IpVersion::V6 } else { IpVersion::V4 });
                }
                field::PROTOCOL => rule.protocol = Some(self.protocol()?),
                field::ICMP => rule.icmp = Some(self.icmp()?),
                field::NOT_PROTOCOL => rule.not_protocol = Some(self.protocol()?),
                field::NOT_ICMP => rule.not_icmp = Some(self.icmp()?),
                field::HTTP => rule.http = Some(self.http()?),
                field::METADATA => {
                    let annotations = self.list(|r| Some((r.text()?, r.text()?)))?;
                    rule.metadata = Some(RuleMetadata { annotations: annotations.into_iter().collect() });
                }
                name if name < field::NETS + field::DESTINATION => self.side(&mut rule.source, name)?,
                name => self.side(&mut rule.destination, name - field::DESTINATION)?,
            }
        }
    }

    fn side(&mut self, side: &mut EntityRule, name: u8) -> Option<()> {
        match name {
            field::NETS => side.nets = self.list(Self::net)?,
            field::SELECTOR => side.selector = Some(self.selector()?),
            field::NAMESPACE_SELECTOR => side.namespace_selector = Some(self.selector()?),
            field::SERVICES => {
                side.services =
                    Some(ServiceMatch { name: self.text()?, namespace: self.optional(Self::text).ok()? });
            }
            field::PORTS => side.ports = self.list(Self::port)?,
            field::NOT_NETS => side.not_nets = self.list(Self::net)?,
            field::NOT_SELECTOR => side.not_selector = Some(self.selector()?),
            field::NOT_PORTS => side.not_ports = self.list(Self::port)?,
            field::SERVICE_ACCOUNTS => {
                let names = self.list(Self::text)?;
                let selector = self.optional(Self::selector).ok()?;
                side.service_accounts = Some(ServiceAccountMatch { names, selector });
            }
            field::NODES => side.nodes = Some(self.selector()?),
            _ => return None,
        }
        Some(())
    }

    fn http(&mut self) -> Option<HttpMatch> {
        let methods = self.list(Self::text)?;
        let paths = self.list(|r| {
            Some(HttpPath { exact: r.optional(Self::text).ok()?, prefix: r.optional(Self::text).ok()? })
        })?;
        Some(HttpMatch { methods, paths })
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.number()?).map(|_| read(self)).collect()
    }

    fn number(&mut self) -> Option<usize> {
        take_number(&mut self.bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        self.byte().map(|byte| byte == 1)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*bytes)
    }

    fn text(&mut self) -> Option<String> {
        self.str().map(str::to_owned)
    }

    fn str(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        let (text, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        std::str::from_utf8(text).ok()
    }

    /// What may be missing, behind a byte that says whether it is there.
    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Result<Option<T>, Unreadable> {
        match self.flag() {
            Some(true) => read(self).map(Some).ok_or(Unreadable),
            Some(false) => Ok(None),
            None => Err(Unreadable),
        }
    }

    fn selector(&mut self) -> Option<Selector> {
        let text = if let Some(at) = self.number()?.checked_sub(1) {
            *self.known.0.get(at)?
        } else {
            let text = self.str()?;
            self.known.add(text);
            text
        };
        self.parsed.selector(text)
    }

    fn protocol(&mut self) -> Option<Protocol> {
        match self.number()?.checked_sub(1) {
            None => self.byte().map(Protocol::Number),
            Some(at) => PROTOCOLS.get(at).copied(),
        }
    }

    fn icmp(&mut self) -> Option<Icmp> {
        let mut number = || self.bytes().map(|[is_there, number]| (is_there == 1).then_some(number));
        Some(Icmp { icmp_type: number()?, code: number()? })
    }

    fn net(&mut self) -> Option<IpNet> {
        let addr = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.bytes()?)),
            _ => IpAddr::V6(Ipv6Addr::from(self.bytes()?)),
        };
        IpNet::new(addr, self.byte()?).ok()
    }

    fn port(&mut self) -> Option<Port> {
        if self.flag()? {
            return self.text().map(Port::Named);
        }
        let (first, last) = (u16::from_be_bytes(self.bytes()?), u16::from_be_bytes(self.bytes()?));
        PortRange::new(first, last).map(Port::Range)
    }
}

#[cfg(test)]
mod tests;
