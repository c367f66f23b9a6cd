//! The stages that a flow comes to, node by node.
//!
//! ```text
//!             comes in by                    goes out by
//!  workload   its egress                     its ingress
//!  interface  untracked, pre-DNAT,           of the host itself: untracked, host
//!             then host or forward           forwarded: forward
//!  nowhere    (a process of the host)        (a process of the host)
//! ```

use std::net::IpAddr;

use tortie_api::endpoint::ANY_INTERFACE;
use tortie_api::net::IpVersion;
use tortie_api::policy::PolicyType;

use super::cluster::Cluster;
use super::derived::{Derived, Endpoint};
use super::explain::{Decision, Stage, StageKind, Verdict};
use super::flow::{Flow, ICMP_V6, Interface, Party, Place};
use super::matching::Packet;
use super::policy::Flavour;
use super::settings::{Failsafe, HostAction};
use super::walk::{Decided, Trace, Walk};

/// ICMPv6 types that a workload may always send to its host: multicast listener messages, router solicitation,
/// neighbour solicitation and advertisement.
pub(super) const NEIGHBOUR_TYPES: [u8; 6] = [130, 131, 132, 133, 135, 136];
/// The protocol number of IP in IP.
pub(super) const IPIP: u8 = 4;
const UDP: u8 = 17;

/// Where a packet comes from or goes to, as seen from a node.
#[derive(Clone, Copy, Debug)]
enum Link<'a> {
    Workload(&'a Endpoint),
    /// An interface, with the host endpoint on it.
    Interface(Option<&'a Endpoint>),
    /// The node's own network.
    Host,
}

/// A node on the way.
#[derive(Debug)]
struct Hop<'a> {
    node: &'a str,
    from: Link<'a>,
    to: Link<'a>,
}

/// Where a party is, with what is known of it.
#[derive(Clone, Copy, Debug)]
enum Seat<'a> {
    Workload(&'a Endpoint),
    Host(&'a str),
    Outside,
}

impl<'a> Seat<'a> {
    fn node(self) -> Option<&'a str> {
        match self {
            Self::Workload(endpoint) => Some(&endpoint.node),
            Self::Host(node) => Some(node),
            Self::Outside => None,
        }
    }
}

/// Takes a flow through its stages.
#[derive(Debug)]
pub(super) struct Journey<'a> {
    derived: &'a Derived,
    cluster: &'a Cluster,
    flow: &'a Flow,
    packet: &'a Packet,
    /// The packet before the destination was translated.
    before_dnat: &'a Packet,
    /// Stages so far, for those who want to know.
    pub(super) stages: Option<Vec<Stage>>,
    /// Whether a stage has denied.
    pub(super) is_denied: bool,
}

impl<'a> Journey<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        flow: &'a Flow,
        packets: &'a (Packet, Option<Packet>),
        trace: bool,
    ) -> Self {
        let (packet, before) = packets;
        let before_dnat = before.as_ref().unwrap_or(packet);
        let stages = trace.then(Vec::new);
        Self { derived: cluster.derived(), cluster, flow, packet, before_dnat, stages, is_denied: false }
    }

    /// Goes all the way, or only over one node.
    pub(super) fn travel(&mut self, only_on: Option<&str>) {
        for hop in self.hops().into_iter().flatten() {
            if only_on.is_none_or(|node| node == hop.node) && !self.is_over() {
                self.cross(&hop);
            }
        }
    }

    /// Nobody wants to know what stages behind a denial would say.
    fn is_over(&self) -> bool {
        self.is_denied && self.stages.is_none()
    }

    fn hops(&self) -> [Option<Hop<'a>>; 2] {
        let (source, destination) = (&self.flow.source, &self.flow.destination);
        let (from, to) = (self.seat(source), self.seat(destination));
        let arrival = |node| self.interface(node, source, destination);
        let departure = |node| self.interface(node, destination, source);
        match (from.node(), to.node()) {
            (Some(a), Some(b)) if a == b => match (from, to) {
                // A host talks to itself over an interface of its own.
                (Seat::Host(_), Seat::Host(_)) => {
                    let lo = self.host_endpoint(a, Some(LOOPBACK), None);
                    [
                        Some(Hop { node: a, from: Link::Host, to: Link::Interface(lo) }),
                        Some(Hop { node: a, from: Link::Interface(lo), to: Link::Host }),
                    ]
                }
                _ => [Some(Hop { node: a, from: link(from), to: link(to) }), None],
            },
            (Some(a), Some(b)) => [
                Some(Hop { node: a, from: link(from), to: departure(a) }),
                Some(Hop { node: b, from: arrival(b), to: link(to) }),
            ],
            (Some(a), None) => [Some(Hop { node: a, from: link(from), to: departure(a) }), None],
            (None, Some(b)) => [Some(Hop { node: b, from: arrival(b), to: link(to) }), None],
            (None, None) => {
                let via = source.interface.as_ref().or(destination.interface.as_ref());
                let node = via.map(|interface| interface.node.as_str());
                [node.map(|node| Hop { node, from: arrival(node), to: departure(node) }), None]
            }
        }
    }

    fn seat(&self, party: &'a Party) -> Seat<'a> {
        let derived = self.derived;
        match &party.place {
            Place::Workload { namespace, name } => match derived.workload_named(namespace, name) {
                Some(workload) => Seat::Workload(derived.in_force(workload)),
                None => Seat::Outside,
            },
            Place::Host { node } => Seat::Host(node),
            Place::Outside => Seat::Outside,
            Place::ByAddress => {
                let has = |e: &&Endpoint| e.addresses.contains(&party.address);
                match derived.workloads.iter().find(has) {
                    Some(workload) => Seat::Workload(derived.in_force(workload)),
                    None => derived.node_at(party.address).map_or(Seat::Outside, Seat::Host),
                }
            }
        }
    }

    /// The interface of a node on the way to or from `near`.
    fn interface(&self, node: &str, near: &Party, far: &Party) -> Link<'a> {
        let of_node = |party: &Party| {
            party.interface.as_ref().filter(|i| i.node == node).map(|i: &Interface| i.name.clone())
        };
        let name = of_node(near).or_else(|| of_node(far));
        let own = [near, far].into_iter().find(|p| matches!(&p.place, Place::Host { node: n } if n == node));
        Link::Interface(self.host_endpoint(node, name.as_deref(), own.map(|p| p.address)))
    }

    /// The host endpoint of an interface: the first by name of those that name it or expect an address of the
    /// node on it, else the one for all interfaces. If the interface is not known, any of the node may be it.
    fn host_endpoint(&self, node: &str, name: Option<&str>, own: Option<IpAddr>) -> Option<&'a Endpoint> {
        let of_node = || self.derived.hosts.iter().filter(|host| host.node == node);
        let known = name.and_then(|name| self.cluster.interfaces().get(&(node.to_owned(), name.to_owned())));
        let expects = |host: &Endpoint| {
            let is_there = |address: &IpAddr| host.addresses.contains(address);
            known.map_or_else(
                || self.derived.addresses_of(node).chain(own).any(|address| is_there(&address)),
                |known| known.iter().any(is_there),
            )
        };
        let is_on_it = |host: &&Endpoint| match host.interface.as_str() {
            ANY_INTERFACE => false,
            "" => name != Some(LOOPBACK) && expects(host),
            interface => name.is_none_or(|name| name == interface),
        };
        of_node().find(is_on_it).or_else(|| self.host_endpoint_of_all(node))
    }

    /// The host endpoint of all interfaces that have none of their own: those of workloads among them.
    fn host_endpoint_of_all(&self, node: &str) -> Option<&'a Endpoint> {
        self.derived.hosts.iter().find(|host| host.node == node && host.interface == ANY_INTERFACE)
    }

    fn cross(&mut self, hop: &Hop<'a>) {
        match (hop.from, hop.to) {
            (Link::Workload(workload), Link::Host) => {
                if let Some(any) = self.host_endpoint_of_all(hop.node) {
                    self.early(any, StageKind::PreDnat, |flavour| flavour == Flavour::PreDnat);
                }
                if !self.is_over() {
                    self.workload_to_host(workload);
                }
            }
            (Link::Host, Link::Workload(workload)) => {
                self.settle(workload, StageKind::WorkloadIngress, Verdict::Allow, &Decision::FromOwnHost);
            }
            (Link::Host, Link::Interface(Some(host))) => self.leave(host),
            (Link::Interface(Some(host)), Link::Host) => self.enter(host, true),
            (Link::Host, Link::Host | Link::Interface(None)) | (Link::Interface(None), Link::Host) => {}
            (from, to) => self.pass_on(from, to, hop.node),
        }
    }

    /// Forwards: all policy of what it comes in by, then that of the workloads, then of what it goes out by.
    fn pass_on(&mut self, from: Link<'a>, to: Link<'a>, node: &str) {
        let host_of = |link| match link {
            Link::Workload(_) => self.host_endpoint_of_all(node),
            Link::Interface(host) => host,
            Link::Host => None,
        };
        let (host_in, host_out) = (host_of(from), host_of(to));
        if let Some(host) = host_in {
            self.enter(host, false);
        }
        for (link, kind) in [(from, StageKind::WorkloadEgress), (to, StageKind::WorkloadIngress)] {
            if let Link::Workload(workload) = link
                && !self.is_over()
            {
                self.workload(workload, kind);
            }
        }
        if let Some(host) = host_out.filter(|_| !self.is_over()) {
            self.forward(host, StageKind::ForwardEgress);
        }
    }

    fn workload_to_host(&mut self, workload: &'a Endpoint) {
        let kind = StageKind::WorkloadEgress;
        let is_neighbour_discovery = self.packet.version == IpVersion::V6
            && self.packet.protocol == ICMP_V6
            && self.packet.icmp.is_some_and(|(icmp_type, _)| NEIGHBOUR_TYPES.contains(&icmp_type));
        if is_neighbour_discovery {
            self.settle(workload, kind, Verdict::Allow, &Decision::NeighbourDiscovery);
            return;
        }
        self.workload(workload, kind);
        if self.cluster.settings(&workload.node).endpoint_to_host == HostAction::Deny && !self.is_over() {
            self.settle(workload, kind, Verdict::Deny, &Decision::EndpointToHost);
        }
    }

    fn workload(&mut self, workload: &'a Endpoint, kind: StageKind) {
        if kind == StageKind::WorkloadEgress && self.is_encapsulated(&workload.node) {
            self.settle(workload, kind, Verdict::Deny, &Decision::Encapsulated);
            return;
        }
        let mut walk = self.walk(workload, kind);
        let tiers = walk.tiers(|flavour| matches!(flavour, Flavour::Normal | Flavour::ApplyOnForward), true);
        let (verdict, decided) = tiers.unwrap_or_else(|| walk.profiles());
        self.finish(walk, kind, verdict, decided);
    }

    fn is_encapsulated(&self, node: &str) -> bool {
        let (packet, settings) = (self.packet, self.cluster.settings(node));
        let vxlan = packet.protocol == UDP && packet.destination.port == Some(settings.vxlan_port);
        vxlan && !settings.allow_vxlan_from_workloads
            || packet.protocol == IPIP && !settings.allow_ipip_from_workloads
    }

    /// Comes in by a host endpoint, for the host itself or to be forwarded.
    fn enter(&mut self, host: &'a Endpoint, is_for_host: bool) {
        let (untracked, pre_dnat) = (StageKind::UntrackedIngress, StageKind::PreDnat);
        let is_in = self.early(host, untracked, |flavour| flavour == Flavour::Untracked)
            || (!self.is_over() && self.early(host, pre_dnat, |flavour| flavour == Flavour::PreDnat));
        let kind = if is_for_host { StageKind::HostIngress } else { StageKind::ForwardIngress };
        if self.is_over() {
        } else if is_in {
            self.settle(host, kind, Verdict::Allow, &Decision::AllowedBefore);
        } else if is_for_host {
            self.host(host, kind);
        } else {
            self.forward(host, kind);
        }
    }

    /// Goes out by a host endpoint, from the host itself.
    fn leave(&mut self, host: &'a Endpoint) {
        let is_out = self.early(host, StageKind::UntrackedEgress, |f| f == Flavour::Untracked);
        if self.is_over() {
        } else if is_out {
            self.settle(host, StageKind::HostEgress, Verdict::Allow, &Decision::AllowedBefore);
        } else {
            self.host(host, StageKind::HostEgress);
        }
    }

    /// Untracked policy and policy before DNAT: no tier ends in a denial. Returns whether a rule allowed.
    fn early(&mut self, host: &'a Endpoint, kind: StageKind, applies: fn(Flavour) -> bool) -> bool {
        let is_untracked = kind != StageKind::PreDnat;
        // The endpoint of all interfaces knows no untracked policy.
        if is_untracked && host.interface == ANY_INTERFACE {
            return false;
        }
        let direction = direction(kind);
        let has_any = |p: &super::policy::Policy| applies(p.flavour) && p.rules(direction).is_some();
        if !self.derived.policies_of(host).any(has_any) {
            return false;
        }
        if self.is_failsafe(host, kind) {
            self.settle(host, kind, Verdict::Allow, &Decision::Failsafe);
            return false;
        }
        let mut walk = self.walk(host, kind);
        let found = walk.tiers(applies, false);
        let (verdict, decided) = found.unwrap_or((Verdict::Allow, Decided::Other(&Decision::NoPolicy)));
        self.finish(walk, kind, verdict, decided);
        found.is_some() && verdict == Verdict::Allow
    }

    /// To or from the host itself.
    fn host(&mut self, host: &'a Endpoint, kind: StageKind) {
        if self.is_failsafe(host, kind) {
            self.settle(host, kind, Verdict::Allow, &Decision::Failsafe);
            return;
        }
        let mut walk = self.walk(host, kind);
        let tiers = walk.tiers(|flavour| matches!(flavour, Flavour::Normal | Flavour::ApplyOnForward), true);
        let (verdict, decided) = tiers.unwrap_or_else(|| walk.profiles());
        self.finish(walk, kind, verdict, decided);
    }

    /// Forwarded through a host endpoint: allowed unless policy for forwarded traffic denies.
    fn forward(&mut self, host: &'a Endpoint, kind: StageKind) {
        let mut walk = self.walk(host, kind);
        let found = walk.tiers(|flavour| flavour == Flavour::ApplyOnForward, true);
        let (verdict, decided) = found.unwrap_or((Verdict::Allow, Decided::Other(&Decision::NoPolicy)));
        self.finish(walk, kind, verdict, decided);
    }

    /// Before connection tracking the answers to failsafe traffic must be let through as well.
    fn is_failsafe(&self, host: &Endpoint, kind: StageKind) -> bool {
        let packet = self.packet_at(kind);
        let settings = self.cluster.settings(&host.node);
        let (inbound, outbound) = (&settings.failsafe_inbound, &settings.failsafe_outbound);
        let (requests, answers, other) = match direction(kind) {
            PolicyType::Ingress => (inbound, outbound, packet.source.address),
            PolicyType::Egress => (outbound, inbound, packet.destination.address),
        };
        let is_in = |list: &[Failsafe], port: Option<u16>| {
            list.iter().any(|entry| {
                entry.protocol.number() == packet.protocol
                    && Some(entry.port) == port
                    && entry.net.is_none_or(|net| net.contains(&other))
            })
        };
        let is_untracked = matches!(kind, StageKind::UntrackedIngress | StageKind::UntrackedEgress);
        is_in(requests, packet.destination.port) || is_untracked && is_in(answers, packet.source.port)
    }

    fn packet_at(&self, kind: StageKind) -> &'a Packet {
        match kind {
            StageKind::UntrackedIngress | StageKind::UntrackedEgress | StageKind::PreDnat => self.before_dnat,
            _ => self.packet,
        }
    }

    fn walk(&self, endpoint: &'a Endpoint, kind: StageKind) -> Walk<'a> {
        Walk {
            derived: self.derived,
            packet: self.packet_at(kind),
            endpoint,
            direction: direction(kind),
            trace: self.stages.is_some().then(Trace::default),
        }
    }

    /// A stage that was decided without policy.
    fn settle(&mut self, at: &'a Endpoint, kind: StageKind, verdict: Verdict, decision: &'a Decision) {
        self.finish(self.walk(at, kind), kind, verdict, Decided::Other(decision));
    }

    fn finish(&mut self, walk: Walk<'a>, kind: StageKind, verdict: Verdict, decided: Decided<'a>) {
        self.is_denied |= verdict == Verdict::Deny;
        if let Some(stages) = &mut self.stages {
            let Trace { tiers, profiles } = walk.trace.unwrap_or_default();
            stages.push(Stage {
                node: walk.endpoint.node.clone(),
                point: walk.endpoint.point.clone(),
                kind,
                verdict,
                decision: decided.decision(),
                tiers,
                profiles,
            });
        }
    }
}

/// The interface by which a host talks to itself.
const LOOPBACK: &str = "lo";

fn link(seat: Seat<'_>) -> Link<'_> {
    match seat {
        Seat::Workload(endpoint) => Link::Workload(endpoint),
        Seat::Host(_) => Link::Host,
        Seat::Outside => Link::Interface(None),
    }
}

const fn direction(kind: StageKind) -> PolicyType {
    match kind {
        StageKind::WorkloadIngress
        | StageKind::UntrackedIngress
        | StageKind::PreDnat
        | StageKind::HostIngress
        | StageKind::ForwardIngress => PolicyType::Ingress,
        StageKind::WorkloadEgress
        | StageKind::UntrackedEgress
        | StageKind::HostEgress
        | StageKind::ForwardEgress => PolicyType::Egress,
    }
}
