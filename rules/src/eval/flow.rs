//! What is asked about: the first packet of a flow and who is at its ends.

use std::net::IpAddr;

use serde::Serialize;
use tortie_api::net::IpVersion;

/// ICMP's protocol number.
pub(super) const ICMP: u8 = 1;
/// ICMPv6's protocol number.
pub(super) const ICMP_V6: u8 = 58;

/// The first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Who sends it.
    pub source: Party,
    /// Who it is for, after any translation of the destination.
    pub destination: Party,
    /// IP protocol number.
    pub protocol: u8,
    /// Only for protocols with ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Only for protocols with ports; after any translation of the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Type and code, for ICMP and ICMPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// Where it was sent to, if the node that it enters first translates the destination: what policy before
    /// DNAT and untracked policy see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_dnat: Option<(IpAddr, Option<u16>)>,
}

impl Flow {
    /// A flow of a protocol with ports.
    pub fn with_ports(source: Party, destination: Party, protocol: u8, from: u16, to: u16) -> Self {
        let (source_port, destination_port) = (Some(from), Some(to));
        Self { source_port, destination_port, ..Self::of_protocol(source, destination, protocol) }
    }

    /// An ICMP message (ICMPv6 between IPv6 addresses).
    pub fn icmp(source: Party, destination: Party, icmp_type: u8, code: u8) -> Self {
        let protocol = if source.address.is_ipv4() { ICMP } else { ICMP_V6 };
        Self { icmp: Some((icmp_type, code)), ..Self::of_protocol(source, destination, protocol) }
    }

    /// A flow of a protocol without ports.
    pub fn of_protocol(source: Party, destination: Party, protocol: u8) -> Self {
        let (source_port, destination_port, icmp, before_dnat) = (None, None, None, None);
        Self { source, destination, protocol, source_port, destination_port, icmp, before_dnat }
    }

    /// The version of its addresses; both ends are of one family.
    pub fn version(&self) -> IpVersion {
        IpVersion::of_addr(&self.source.address)
    }
}

/// One end of a flow: its address decides what selectors say of it, its place which policy is applied to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Its address.
    pub address: IpAddr,
    /// Where it is.
    pub place: Place,
    /// The interface of a node between this party and the other one, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
}

impl Party {
    /// Whoever has this address.
    pub const fn at(address: IpAddr) -> Self {
        Self { address, place: Place::ByAddress, interface: None }
    }

    /// A workload that uses this address.
    pub fn workload(namespace: &str, name: &str, address: IpAddr) -> Self {
        let place = Place::Workload { namespace: namespace.to_owned(), name: name.to_owned() };
        Self { address, place, interface: None }
    }

    /// A process in the network of a node itself.
    pub fn host(node: &str, address: IpAddr) -> Self {
        Self { address, place: Place::Host { node: node.to_owned() }, interface: None }
    }

    /// Somebody outside of the cluster, whatever the address.
    pub const fn outside(address: IpAddr) -> Self {
        Self { address, place: Place::Outside, interface: None }
    }

    /// The same, connected through an interface of a node.
    pub fn through(mut self, node: &str, interface: &str) -> Self {
        self.interface = Some(Interface { node: node.to_owned(), name: interface.to_owned() });
        self
    }
}

/// Where a party is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// Where its address says: a workload's, else a node's, else outside.
    ByAddress,
    /// A workload, by the name of its pod or of its WorkloadEndpoint.
    Workload {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A node's own network.
    Host {
        /// The node's name.
        node: String,
    },
    /// Outside of the cluster.
    Outside,
}

/// An interface of a node that is no workload's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// The node.
    pub node: String,
    /// The interface's name.
    pub name: String,
}
