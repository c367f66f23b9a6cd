//! Whether a rule matches a packet, term by term.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::labels::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL};
use tortie_api::net::{IpVersion, Port, Protocol};
use tortie_api::policy::{Action, EntityRule, Icmp, Rule};
use tortie_api::selector::Selector;

use super::derived::{Derived, Item};
use super::flow::{Flow, ICMP, ICMP_V6};
use super::policy::{RuleEntry, namespace_selected, service_account_selected};
use super::term::{Clause, Miss, Side};

/// A packet as rules see it.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) version: IpVersion,
    pub(super) protocol: u8,
    pub(super) icmp: Option<(u8, u8)>,
    pub(super) source: End,
    pub(super) destination: End,
}

/// One end of a packet.
#[derive(Debug)]
pub(super) struct End {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
    /// What has the address.
    pub(super) items: Vec<usize>,
}

impl Packet {
    /// The flow's first packet; `destination` where it goes as seen from where it is looked at.
    pub(super) fn new(derived: &Derived, flow: &Flow, destination: (IpAddr, Option<u16>)) -> Self {
        let end = |address, port| End { address, port, items: derived.items_at(address) };
        Self {
            version: flow.version(),
            protocol: flow.protocol,
            icmp: flow.icmp,
            source: end(flow.source.address, flow.source_port),
            destination: end(destination.0, destination.1),
        }
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }
}

/// Takes the terms that do not hold.
pub(super) trait Misses {
    /// Takes one; `false` if the others are not wanted any more.
    fn take(&mut self, miss: impl FnOnce() -> Miss) -> bool;
}

/// Whether there is one at all.
#[derive(Debug, Default)]
pub(super) struct Found(pub(super) bool);

impl Misses for Found {
    fn take(&mut self, _: impl FnOnce() -> Miss) -> bool {
        self.0 = true;
        false
    }
}

/// The first two: enough to know whether there is exactly one.
#[derive(Debug, Default)]
pub(super) struct FirstTwo(pub(super) Vec<Miss>);

impl Misses for FirstTwo {
    fn take(&mut self, miss: impl FnOnce() -> Miss) -> bool {
        self.0.push(miss());
        self.0.len() < 2
    }
}

/// What one side of a rule selects among the items.
#[derive(Debug)]
pub(super) enum Selection {
    /// It does not ask.
    Anything,
    /// Only these; one flag for each item.
    Among(Vec<bool>),
    /// Anything but these.
    NoneOf(Vec<bool>),
}

/// A rule that is asked whether it matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) derived: &'a Derived,
    pub(super) packet: &'a Packet,
    /// The namespace of the rule's policy; empty for others.
    pub(super) namespace: &'a str,
    pub(super) entry: &'a RuleEntry,
}

impl Question<'_> {
    /// Hands out the terms that do not hold; the rule matches if there is none.
    pub(super) fn ask(&self, misses: &mut impl Misses) {
        let rule = &self.entry.rule;
        if rule.http.is_some() {
            self.ask_http(misses);
            return;
        }
        let _ = self.version(misses)
            && self.protocol(misses)
            && self.icmp(misses)
            && self.ports(Side::Destination, misses)
            && self.ports(Side::Source, misses)
            && self.nets(Side::Source, misses)
            && self.nets(Side::Destination, misses)
            && self.selection(Side::Source, misses)
            && self.selection(Side::Destination, misses)
            && self.service(Side::Source, misses)
            && self.service(Side::Destination, misses);
    }

    /// Whether a rule with an HTTP clause holds cannot be seen in packets: one that allows never does, one that
    /// denies (or passes on, which denies then) always.
    fn ask_http(&self, misses: &mut impl Misses) {
        let rule = &self.entry.rule;
        if matches!(rule.action, Action::Allow | Action::Log) {
            misses.take(|| Miss::Http);
        } else if let Some(wanted) = rule.ip_version.filter(|v| *v != self.packet.version) {
            misses.take(|| Miss::IpVersion { wanted });
        }
    }

    /// A rule is for one version if it says so, by ICMP, or by networks.
    fn version(&self, misses: &mut impl Misses) -> bool {
        let rule = &self.entry.rule;
        let other = match self.packet.version {
            IpVersion::V4 => IpVersion::V6,
            IpVersion::V6 => IpVersion::V4,
        };
        let says = rule.ip_version.or_else(|| implied_version(rule)) == Some(other);
        let lists =
            [&rule.source.nets, &rule.source.not_nets, &rule.destination.nets, &rule.destination.not_nets];
        let is_of_other =
            |nets: &&Vec<IpNet>| !nets.is_empty() && nets.iter().all(|net| IpVersion::of(net) == other);
        if says || lists.iter().any(is_of_other) {
            return misses.take(|| Miss::IpVersion { wanted: other });
        }
        true
    }

    fn protocol(&self, misses: &mut impl Misses) -> bool {
        let (rule, have) = (&self.entry.rule, self.packet.protocol);
        if let Some(wanted) = rule.protocol.filter(|p| p.number() != have)
            && !misses.take(|| Miss::Protocol { have, wanted })
        {
            return false;
        }
        match rule.not_protocol.filter(|p| p.number() == have) {
            Some(unwanted) => misses.take(|| Miss::NotProtocol { unwanted }),
            None => true,
        }
    }

    fn icmp(&self, misses: &mut impl Misses) -> bool {
        let (rule, have) = (&self.entry.rule, self.packet.icmp);
        if let Some((wanted_type, wanted_code)) = rule.icmp.and_then(type_and_code)
            && !is_icmp(have, wanted_type, wanted_code)
            && !misses.take(|| Miss::Icmp { have, wanted_type, wanted_code })
        {
            return false;
        }
        match rule.not_icmp.and_then(type_and_code) {
            Some((unwanted_type, unwanted_code)) if is_icmp(have, unwanted_type, unwanted_code) => {
                misses.take(|| Miss::NotIcmp { unwanted_type, unwanted_code })
            }
            _ => true,
        }
    }

    fn nets(&self, side: Side, misses: &mut impl Misses) -> bool {
        let (entity, address) = (self.entity(side), self.packet.end(side).address);
        if !entity.nets.is_empty()
            && !entity.nets.iter().any(|net| net.contains(&address))
            && !misses.take(|| Miss::Nets { side, address, nets: entity.nets.clone() })
        {
            return false;
        }
        match entity.not_nets.iter().find(|net| net.contains(&address)) {
            Some(net) => misses.take(|| Miss::NotNets { side, address, net: *net }),
            None => true,
        }
    }

    fn ports(&self, side: Side, misses: &mut impl Misses) -> bool {
        let (entity, have) = (self.entity(side), self.packet.end(side).port);
        if !entity.ports.is_empty()
            && !entity.ports.iter().any(|port| self.is_port(side, port))
            && !misses.take(|| Miss::Ports { side, have, wanted: entity.ports.clone() })
        {
            return false;
        }
        match entity.not_ports.iter().find(|port| self.is_port(side, port)) {
            Some(port) => misses.take(|| Miss::NotPorts { side, have, unwanted: port.clone() }),
            None => true,
        }
    }

    /// Whether the packet's port is a rule's. A name stands for ports of the endpoints that the side selects,
    /// all of them if it selects none in particular.
    fn is_port(&self, side: Side, wanted: &Port) -> bool {
        let end = self.packet.end(side);
        let Some(have) = end.port else { return false };
        let name = match wanted {
            Port::Range(range) => return range.first() <= have && have <= range.last(),
            Port::Named(name) => name,
        };
        let has_it = |item: &Item| {
            let mut ports = item.ports.iter();
            ports.any(|p| p.name == *name && p.port == have && p.protocol.number() == self.packet.protocol)
        };
        let selected = |item: usize| match self.selected(side) {
            Selection::Among(flags) => flags[item],
            Selection::Anything | Selection::NoneOf(_) => true,
        };
        end.items.iter().any(|item| has_it(&self.derived.items[*item]) && selected(*item))
    }

    fn selection(&self, side: Side, misses: &mut impl Misses) -> bool {
        let end = self.packet.end(side);
        match self.selected(side) {
            Selection::Anything => true,
            Selection::Among(flags) if end.items.iter().any(|item| flags[*item]) => true,
            Selection::Among(_) => self.explain_selection(side, misses),
            Selection::NoneOf(flags) => match end.items.iter().find(|item| flags[**item]) {
                Some(item) => misses.take(|| Miss::NotSelector {
                    side,
                    subject: self.derived.items[*item].name.clone(),
                    selector: text(self.entity(side).not_selector.as_ref()),
                }),
                None => true,
            },
        }
    }

    /// The clauses that fail for the item that comes closest.
    fn explain_selection(&self, side: Side, misses: &mut impl Misses) -> bool {
        let (entity, end) = (self.entity(side), self.packet.end(side));
        let failing =
            |item: &usize| (*item, failing_clauses(entity, self.namespace, &self.derived.items[*item]));
        let eligible = |item: &&usize| self.derived.items[**item].is_node == entity.nodes.is_some();
        let best = end.items.iter().filter(eligible).map(failing).min_by_key(|(_, clauses)| clauses.len());
        let Some((item, clauses)) = best else {
            return misses.take(|| Miss::Unknown { side, address: end.address });
        };
        let subject = &self.derived.items[item].name;
        clauses
            .into_iter()
            .all(|clause| misses.take(|| Miss::Selection { side, subject: subject.clone(), clause }))
    }

    fn service(&self, side: Side, misses: &mut impl Misses) -> bool {
        let Some(service) = &self.entity(side).services else { return true };
        let namespace =
            service.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(self.namespace);
        let key = (namespace.to_owned(), service.name.clone());
        let end = self.packet.end(side);
        let is_behind = self.derived.services.get(&key).into_iter().flatten().any(|(addresses, ports)| {
            addresses.contains(&end.address)
                && (side == Side::Source
                    || end.port.is_some_and(|p| ports.contains(&(self.packet.protocol, p))))
        });
        is_behind
            || misses.take(|| Miss::Service { side, address: end.address, namespace: key.0, name: key.1 })
    }

    fn entity(&self, side: Side) -> &EntityRule {
        match side {
            Side::Source => &self.entry.rule.source,
            Side::Destination => &self.entry.rule.destination,
        }
    }

    fn selected(&self, side: Side) -> &Selection {
        let cell = match side {
            Side::Source => &self.entry.source,
            Side::Destination => &self.entry.destination,
        };
        cell.get_or_init(|| select(self.entity(side), self.namespace, &self.derived.items))
    }
}

/// Which items a side selects. Nodes are selected as such, or not at all. A `notSelector` beside anything that
/// selects takes away from that; alone it is about the address, whatever else has it.
fn select(entity: &EntityRule, namespace: &str, items: &[Item]) -> Selection {
    let wants_nodes = entity.nodes.is_some();
    let flags = |test: &dyn Fn(&Item) -> bool| {
        items.iter().map(|item| item.is_node == wants_nodes && test(item)).collect()
    };
    if selects_positively(entity, namespace) {
        return Selection::Among(flags(&|item| failing_clauses(entity, namespace, item).is_empty()));
    }
    match &entity.not_selector {
        Some(not) => Selection::NoneOf(flags(&|item| not.matches(&item.labels))),
        None => Selection::Anything,
    }
}

/// Whether a side picks endpoints and network sets. The policy's namespace alone does not: a rule with only
/// addresses or ports is about anybody.
fn selects_positively(entity: &EntityRule, namespace: &str) -> bool {
    let accounts = entity.service_accounts.as_ref();
    entity.selector.is_some()
        || entity.nodes.is_some()
        || entity.namespace_selector.is_some()
        || accounts.is_some_and(|a| !a.names.is_empty() || a.selector.is_some())
        || (entity.not_selector.is_some() && !namespace.is_empty())
}

/// The clauses of a side that do not hold for an item.
fn failing_clauses(entity: &EntityRule, namespace: &str, item: &Item) -> Vec<Clause> {
    let labels = &item.labels;
    let mut failing = Vec::new();
    let mut need = |holds: bool, clause: &dyn Fn() -> Clause| {
        if !holds {
            failing.push(clause());
        }
    };
    if let Some(selector) = &entity.namespace_selector {
        need(namespace_selected(selector, labels), &|| Clause::NamespaceSelector(text(Some(selector))));
    } else if !namespace.is_empty() {
        let own = labels.get(NAMESPACE_LABEL).is_some_and(|own| own == namespace);
        need(own, &|| Clause::Namespace(namespace.to_owned()));
    }
    if let Some(accounts) = &entity.service_accounts {
        if !accounts.names.is_empty() {
            let account = labels.get(SERVICE_ACCOUNT_LABEL);
            let named = account.is_some_and(|account| accounts.names.contains(account));
            need(named, &|| Clause::ServiceAccountNames(accounts.names.clone()));
        }
        if let Some(selector) = &accounts.selector {
            let selected = service_account_selected(selector, labels);
            need(selected, &|| Clause::ServiceAccountSelector(text(Some(selector))));
        }
    }
    if let Some(selector) = &entity.nodes {
        need(selector.matches(labels), &|| Clause::Nodes(text(Some(selector))));
    }
    if let Some(selector) = &entity.selector {
        need(selector.matches(labels), &|| Clause::Selector(text(Some(selector))));
    }
    if let Some(selector) = &entity.not_selector {
        need(!selector.matches(labels), &|| Clause::NotSelector(text(Some(selector))));
    }
    failing
}

fn text(selector: Option<&Selector>) -> String {
    selector.map(|s| s.source().to_owned()).unwrap_or_default()
}

/// ICMP by name is IPv4's, ICMPv6 IPv6's; by number only if the rule looks at types, which differ.
fn implied_version(rule: &Rule) -> Option<IpVersion> {
    let looks_at_type = rule.icmp.is_some() || rule.not_icmp.is_some();
    match rule.protocol? {
        Protocol::Icmp => Some(IpVersion::V4),
        Protocol::IcmpV6 => Some(IpVersion::V6),
        Protocol::Number(ICMP) if looks_at_type => Some(IpVersion::V4),
        Protocol::Number(ICMP_V6) if looks_at_type => Some(IpVersion::V6),
        _ => None,
    }
}

/// A code without a type says nothing.
fn type_and_code(icmp: Icmp) -> Option<(u8, Option<u8>)> {
    icmp.icmp_type.map(|icmp_type| (icmp_type, icmp.code))
}

fn is_icmp(have: Option<(u8, u8)>, icmp_type: u8, code: Option<u8>) -> bool {
    have.is_some_and(|have| have.0 == icmp_type && code.is_none_or(|code| have.1 == code))
}
