//! Packets at one node, each with the flow that it is the first of.

use std::net::IpAddr;

use tortie_api::net::IpVersion;
use tortie_api::resource::Resource;

use super::cluster::{NODE, SIDE_LINK, UPLINK, interfaces};
use super::dice::Dice;
use super::landmarks::Landmarks;
use crate::eval::ruleset::{ConnectionState, Packet};
use crate::eval::{Cluster, Flow, Party};

/// Protocols whose packets have ports that ip sets know.
const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];

/// A flow through node [`NODE`], and its first packet there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// For policy.
    pub flow: Flow,
    /// For rules.
    pub packet: Packet,
}

/// A workload of the node.
#[derive(Clone, Debug)]
struct Local {
    namespace: String,
    name: String,
    interface: String,
    addresses: Vec<IpAddr>,
}

/// Makes probes for a cluster.
#[derive(Debug)]
pub struct Probes {
    dice: Dice,
    landmarks: Landmarks,
    locals: Vec<Local>,
    /// Whether destinations may be translated: a packet that is not tracked never is, and a flow does not tell.
    translates: bool,
}

/// Somebody at an end of a flow.
struct End {
    party: Party,
    /// By which interface it is reached from the node; none if it is the node.
    interface: Option<String>,
}

impl Probes {
    /// Probes of a cluster with these landmarks. There are none if no workload is on the node.
    pub fn new(seed: u64, cluster: &Cluster, landmarks: Landmarks) -> Self {
        let here = cluster.workloads().filter(|w| w.node == NODE && !w.interface.is_empty());
        let locals = here.map(|workload| Local {
            namespace: workload.namespace.to_owned(),
            name: workload.name.to_owned(),
            interface: workload.interface.to_owned(),
            addresses: workload.addresses.to_vec(),
        });
        let locals = locals.collect();
        let is_untracked =
            |r: &Resource| matches!(r, Resource::GlobalNetworkPolicy(policy) if policy.spec.do_not_track);
        let translates = !cluster.resources().values().any(is_untracked);
        Self { dice: Dice::new(seed), landmarks, locals, translates }
    }

    /// Another probe between addresses of a version: to or from a workload of the node, or both.
    pub fn probe(&mut self, version: IpVersion) -> Option<Probe> {
        if self.locals.is_empty() {
            return None;
        }
        let (source, destination) = match self.dice.below(100) {
            0..30 => (self.local(version), self.local(version)),
            30..50 => (self.local(version), self.other(version)),
            50..72 => (self.other(version), self.local(version)),
            72..74 => (self.host(version), self.local(version)),
            74..77 => (self.local(version), self.host(version)),
            77..84 => (self.host(version), self.other(version)),
            84..93 => (self.other(version), self.host(version)),
            _ => (self.other(version), self.other(version)),
        };
        let mut probe = self.between(source, destination);
        if self.translates && self.dice.chance(15) {
            self.translate(&mut probe);
        }
        Some(probe)
    }

    /// Lets the probe be sent to another address than it arrives at.
    fn translate(&mut self, probe: &mut Probe) {
        let (flow, packet) = (&mut probe.flow, &mut probe.packet);
        let version = flow.version();
        let sent_to = *self.dice.pick(self.landmarks.addresses(version));
        let port = flow.destination_port.map(|_| *self.dice.pick(&self.landmarks.ports));
        flow.before_dnat = Some((sent_to, port));
        packet.dnat = Some((flow.destination.address, flow.destination_port));
        (packet.destination, packet.destination_port) = (sent_to, port);
    }

    fn between(&mut self, source: End, destination: End) -> Probe {
        let dice = &mut self.dice;
        let protocol = match dice.below(10) {
            0..=4 => 6,
            5 | 6 => 17,
            7 => {
                if source.party.address.is_ipv4() {
                    1
                } else {
                    58
                }
            }
            _ => *dice.pick(&self.landmarks.protocols),
        };
        let flow = if WITH_PORTS.contains(&protocol) {
            let ports = &self.landmarks.ports;
            let (from, to) = (*dice.pick(ports), *dice.pick(ports));
            Flow::with_ports(source.party, destination.party, protocol, from, to)
        } else {
            let icmp = matches!(protocol, 1 | 58).then(|| *dice.pick(&self.landmarks.icmp));
            Flow { icmp, ..Flow::of_protocol(source.party, destination.party, protocol) }
        };
        let packet = Packet {
            source: flow.source.address,
            destination: flow.destination.address,
            protocol,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            icmp: flow.icmp,
            in_interface: source.interface,
            out_interface: destination.interface,
            conntrack: ConnectionState::New,
            dnat: None,
            mark: 0,
            reverse_path_is_good: true,
        };
        Probe { flow, packet }
    }

    /// A workload, mostly with an address of its own: policy is applied to interfaces, whatever the address.
    fn local(&mut self, version: IpVersion) -> End {
        let local = self.locals[self.dice.below(self.locals.len())].clone();
        let own: Vec<IpAddr> =
            local.addresses.iter().copied().filter(|a| IpVersion::of_addr(a) == version).collect();
        let address =
            if own.is_empty() || self.dice.chance(8) { self.address(version) } else { *self.dice.pick(&own) };
        End {
            party: Party::workload(&local.namespace, &local.name, address),
            interface: Some(local.interface),
        }
    }

    /// Anybody who is reached by an interface that is no workload's.
    fn other(&mut self, version: IpVersion) -> End {
        let interface = if self.dice.chance(70) { UPLINK } else { SIDE_LINK };
        let party = Party::outside(self.address(version)).through(NODE, interface);
        End { party, interface: Some(interface.to_owned()) }
    }

    /// A process of the node itself.
    fn host(&mut self, version: IpVersion) -> End {
        let (_, addresses) = interfaces()[self.dice.below(2)];
        let own = addresses.into_iter().find(|address| IpVersion::of_addr(address) == version);
        let address = own.unwrap_or_else(|| self.address(version));
        End { party: Party::host(NODE, address), interface: None }
    }

    fn address(&mut self, version: IpVersion) -> IpAddr {
        *self.dice.pick(self.landmarks.addresses(version))
    }
}
