//! What becomes of the flows between two sites.

use tortie_api::net::IpVersion;
use tortie_api::policy::PolicyType;

use super::super::cluster::Cluster;
use super::super::derived::{Derived, Endpoint};
use super::super::flow::{Flow, Interface, Party};
use super::super::matching::{Misses, Packet, Question};
use super::super::path::{IPIP, NEIGHBOUR_TYPES};
use super::super::policy::RuleEntry;
use super::super::term::{Miss, Side};
use super::cells::{Cuts, Difference, difference};
use super::pairs::Sample;
use super::sites::{Both, Census, Site, Who};

const UDP: u8 = 17;

impl Sample {
    pub(super) fn evaluate(
        &self,
        version: IpVersion,
        census: &Census<'_>,
        clusters: &Both<Cluster>,
    ) -> Difference {
        let ends = [self.source, self.destination].map(|site| &census.sites[site]);
        let mut cuts = Cuts::default();
        let mut asked = [0, 1].map(|at| {
            let flow = Flow::of_protocol(
                party(ends[0], at, self.interfaces.source.as_ref()),
                party(ends[1], at, self.interfaces.destination.as_ref()),
                u8::MAX,
            );
            let packet = Packet::new(clusters[at].derived(), &flow, (flow.destination.address, None));
            Cutter { cluster: &clusters[at], packet: &packet, version, cuts: &mut cuts }.cut(at, ends);
            (flow, (packet, None))
        });
        tunnels(ends, clusters, &mut cuts);
        if version == IpVersion::V6 && ends[1].node().is_some() {
            cuts.do_not_ask_types(NEIGHBOUR_TYPES);
        }
        difference(&cuts.classes(version), |header| {
            let [before, after] = [0, 1].map(|at| {
                let (flow, packets) = &mut asked[at];
                let packet: &mut Packet = &mut packets.0;
                (flow.protocol, flow.icmp) = (header.protocol, header.icmp);
                (packet.protocol, packet.icmp) = (header.protocol, header.icmp);
                let ports = header.ports.unzip();
                (flow.source_port, flow.destination_port) = ports;
                (packet.source.port, packet.destination.port) = ports;
                clusters[at].verdict_of_packets(flow, packets)
            });
            (before != after).then_some(after)
        })
    }
}

fn party(site: &Site<'_>, at: usize, interface: Option<&String>) -> Party {
    let mut party = site.party(at);
    if let (Some(name), Some(node)) = (interface, site.node()) {
        party.interface = Some(Interface { node: node.to_owned(), name: name.clone() });
    }
    party
}

/// Tunnel packets of workloads are denied whatever policies say, so they are not told of, unless that changes.
fn tunnels(ends: [&Site<'_>; 2], clusters: &Both<Cluster>, cuts: &mut Cuts) {
    let Some(Who::Workload(Endpoint { node, .. })) = ends[0].owner() else { return };
    let [before, after] = [0, 1].map(|at| clusters[at].settings(node));
    let ports = [before, after].map(|settings| settings.vxlan_port);
    if before.allow_vxlan_from_workloads != after.allow_vxlan_from_workloads || ports[0] != ports[1] {
        ports.iter().for_each(|port| cuts.ports(UDP, Side::Destination, (*port, *port)));
    } else if !before.allow_vxlan_from_workloads {
        cuts.do_not_ask_port(ports[0]);
    }
    if before.allow_ipip_from_workloads != after.allow_ipip_from_workloads {
        cuts.protocol(IPIP);
    }
}

/// Takes the cuts of rules that may match between two ends.
struct Cutter<'c> {
    cluster: &'c Cluster,
    packet: &'c Packet,
    version: IpVersion,
    cuts: &'c mut Cuts,
}

impl<'c> Cutter<'c> {
    fn cut(&mut self, at: usize, ends: [&Site<'_>; 2]) {
        let derived: &'c Derived = self.cluster.derived();
        for (end, direction) in ends.iter().zip([PolicyType::Egress, PolicyType::Ingress]) {
            if let Some(Who::Workload(endpoint)) = end.who[at] {
                let (namespace, _) = endpoint.point.workload();
                if let Some(own) = derived.workload_named(namespace, &endpoint.full_name) {
                    self.endpoint(derived.in_force(own), direction);
                }
            }
            let node = end.who[at].map(Who::node);
            for host in derived.hosts.iter().filter(|host| Some(host.node.as_str()) == node) {
                self.endpoint(host, PolicyType::Ingress);
                self.endpoint(host, PolicyType::Egress);
                let settings = self.cluster.settings(&host.node);
                for failsafe in settings.failsafe_inbound.iter().chain(&settings.failsafe_outbound) {
                    let (protocol, port) = (failsafe.protocol.number(), failsafe.port);
                    self.cuts.ports(protocol, Side::Source, (port, port));
                    self.cuts.ports(protocol, Side::Destination, (port, port));
                }
            }
        }
    }

    fn endpoint(&mut self, endpoint: &'c Endpoint, direction: PolicyType) {
        let derived = self.cluster.derived();
        for policy in derived.policies_of(endpoint).filter(|policy| policy.staged.is_none()) {
            self.rules(policy.rules(direction).unwrap_or_default(), policy.namespace());
        }
        for profile in endpoint.profiles.iter().filter_map(|name| derived.profiles.get(name)) {
            self.rules(if direction == PolicyType::Ingress { &profile.ingress } else { &profile.egress }, "");
        }
    }

    fn rules(&mut self, rules: &'c [RuleEntry], namespace: &str) {
        let (derived, packet) = (self.cluster.derived(), self.packet);
        for entry in rules {
            let mut ends = Ends::default();
            Question { derived, packet, namespace, entry }.ask(&mut ends);
            if ends.are_missed {
                continue;
            }
            let named = |side: Side, name: &str| {
                let end = if side == Side::Source { &packet.source } else { &packet.destination };
                let ports = end.items.iter().flat_map(|item| &derived.items[*item].ports);
                ports.filter(|port| port.name == name).map(|p| (p.protocol.number(), p.port)).collect()
            };
            self.cuts.take(&entry.rule, self.version, named);
            if let Some(service) = &entry.rule.destination.services {
                let named = service.namespace.as_deref().filter(|namespace| !namespace.is_empty());
                let key = (named.unwrap_or(namespace).to_owned(), service.name.clone());
                for (_, ports) in derived.services.get(&key).into_iter().flatten() {
                    for (protocol, port) in ports {
                        self.cuts.ports(*protocol, Side::Destination, (*port, *port));
                    }
                }
            }
        }
    }
}

/// Whether a term fails that is about who the ends are, whatever the packet.
#[derive(Debug, Default)]
struct Ends {
    are_missed: bool,
}

impl Misses for Ends {
    fn take(&mut self, miss: impl FnOnce() -> Miss) -> bool {
        self.are_missed = match miss() {
            Miss::Protocol { .. }
            | Miss::NotProtocol { .. }
            | Miss::Icmp { .. }
            | Miss::NotIcmp { .. }
            | Miss::Ports { .. }
            | Miss::NotPorts { .. }
            | Miss::Service { side: Side::Destination, .. } => false,
            Miss::IpVersion { .. }
            | Miss::Http
            | Miss::Nets { .. }
            | Miss::NotNets { .. }
            | Miss::Unknown { .. }
            | Miss::Selection { .. }
            | Miss::NotSelector { .. }
            | Miss::Service { side: Side::Source, .. } => true,
        };
        !self.are_missed
    }
}
