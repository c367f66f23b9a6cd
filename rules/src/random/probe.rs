//! Packets at one node, each with the flow that it is the first of.

use std::net::IpAddr;

use tortie_api::net::IpVersion;

use super::cluster::{NODE, UPLINK};
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
        Self { dice: Dice::new(seed), landmarks, locals }
    }

    /// Another probe between addresses of a version: to or from a workload of the node, or both.
    pub fn probe(&mut self, version: IpVersion) -> Option<Probe> {
        if self.locals.is_empty() {
            return None;
        }
        let (source, destination) = match self.dice.below(100) {
            0..35 => (self.local(version), self.local(version)),
            35..62 => (self.local(version), self.other(version)),
            62..92 => (self.other(version), self.local(version)),
            92..96 => (Self::host(version), self.local(version)),
            _ => (self.local(version), Self::host(version)),
        };
        Some(self.between(source, destination))
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

    /// Anybody who is reached by the uplink.
    fn other(&mut self, version: IpVersion) -> End {
        let party = Party::outside(self.address(version)).through(NODE, UPLINK);
        End { party, interface: Some(UPLINK.to_owned()) }
    }

    /// A process of the node itself.
    fn host(version: IpVersion) -> End {
        let address = match version {
            IpVersion::V4 => [192, 168, 0, 1].into(),
            IpVersion::V6 => [0xfd01, 0, 0, 0, 0, 0, 0, 1].into(),
        };
        End { party: Party::host(NODE, address), interface: None }
    }

    fn address(&mut self, version: IpVersion) -> IpAddr {
        *self.dice.pick(self.landmarks.addresses(version))
    }
}
