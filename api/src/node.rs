//! `Node` of `projectcalico.org/v3`: addresses of the cluster's nodes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::net::{IntOrString, parse_cidr};

/// Specification of a `Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeSpec {
    /// The node's BGP speaker and the addresses that it announces from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,
    /// Address of its VXLAN device.
    #[serde(rename = "ipv4VXLANTunnelAddr", skip_serializing_if = "Option::is_none")]
    pub ipv4_vxlan_tunnel_addr: Option<Ipv4Addr>,
    /// Address of its IPv6 VXLAN device.
    #[serde(rename = "ipv6VXLANTunnelAddr", skip_serializing_if = "Option::is_none")]
    pub ipv6_vxlan_tunnel_addr: Option<Ipv6Addr>,
    /// MAC address of its VXLAN device.
    #[serde(rename = "vxlanTunnelMACAddr", skip_serializing_if = "String::is_empty")]
    pub vxlan_tunnel_mac_addr: String,
    /// MAC address of its IPv6 VXLAN device.
    #[serde(rename = "vxlanTunnelMACAddrV6", skip_serializing_if = "String::is_empty")]
    pub vxlan_tunnel_mac_addr_v6: String,
    /// What orchestrators call the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orch_refs: Vec<OrchRef>,
    /// Its WireGuard devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<NodeWireguard>,
    /// All addresses that are known to be its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Its interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<NodeInterface>,
}

/// `spec.bgp` of a `Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeBgp {
    /// The node's autonomous system; the cluster's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// Its IPv4 address with the prefix length of its subnet.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "address_v4")]
    pub ipv4_address: Option<Ipv4Net>,
    /// Its IPv6 address with the prefix length of its subnet.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "address_v6")]
    pub ipv6_address: Option<Ipv6Net>,
    /// Address of its IPIP device.
    #[serde(rename = "ipv4IPIPTunnelAddr", skip_serializing_if = "Option::is_none")]
    pub ipv4_ipip_tunnel_addr: Option<Ipv4Addr>,
    /// The cluster id that it reflects routes under, as an IPv4 address.
    #[serde(rename = "routeReflectorClusterID", skip_serializing_if = "Option::is_none")]
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
}

/// What an orchestrator calls a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OrchRef {
    /// The name.
    pub node_name: String,
    /// The orchestrator, `k8s`.
    pub orchestrator: String,
}

/// `spec.wireguard` of a `Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeWireguard {
    /// Address of its WireGuard device.
    #[serde(rename = "interfaceIPv4Address", skip_serializing_if = "Option::is_none")]
    pub interface_ipv4_address: Option<Ipv4Addr>,
    /// Address of its IPv6 WireGuard device.
    #[serde(rename = "interfaceIPv6Address", skip_serializing_if = "Option::is_none")]
    pub interface_ipv6_address: Option<Ipv6Addr>,
}

/// Where an address of a node is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeAddressType {
    /// `spec.bgp`.
    CalicoNodeIP,
    /// Kubernetes, inside the cluster.
    InternalIP,
    /// Kubernetes, from outside.
    ExternalIP,
}

/// An address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAddress {
    /// The address, with or without a prefix length when written.
    #[serde(deserialize_with = "address")]
    pub address: IpAddr,
    /// Where it is known from.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub address_type: Option<NodeAddressType>,
}

/// An interface of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeInterface {
    /// Its name.
    pub name: String,
    /// Its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// A number of an autonomous system (RFC 6793), written as a number or as `high.low`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(pub u32);

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no number of an autonomous system.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no AS number: use 0 to 4294967295, or high.low with both up to 65535")]
pub struct AsNumberError(String);

impl FromStr for AsNumber {
    type Err = AsNumberError;

    fn from_str(text: &str) -> Result<Self, AsNumberError> {
        let refuse = || AsNumberError(text.to_owned());
        if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(refuse());
        }
        match text.split_once('.') {
            Some((high, low)) => {
                let half = |s: &str| s.parse::<u16>().map(u32::from).map_err(|_| refuse());
                Ok(Self(half(high)? << 16 | half(low)?))
            }
            None => text.parse().map(Self).map_err(|_| refuse()),
        }
    }
}

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(n) => u32::try_from(n).map(Self).map_err(|_| AsNumberError(n.to_string())),
            IntOrString::String(text) => text.parse(),
        }
        .map_err(serde::de::Error::custom)
    }
}

/// An address with a prefix length; alone it is a subnet of one.
pub(crate) fn parse_interface_address(text: &str) -> Option<IpNet> {
    parse_cidr(text).ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(String, IpNet)>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match parse_interface_address(&text) {
        Some(net) => Ok(Some((text, net))),
        None => {
            Err(serde::de::Error::custom(format!("{text:?} is no address like 10.0.0.1/24 or fd00::1/64")))
        }
    }
}

fn address_v4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Net>, D::Error> {
    match optional_address(deserializer)? {
        None => Ok(None),
        Some((_, IpNet::V4(net))) => Ok(Some(net)),
        Some((text, IpNet::V6(_))) => Err(serde::de::Error::custom(format!("{text:?} is no IPv4 address"))),
    }
}

fn address_v6<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv6Net>, D::Error> {
    match optional_address(deserializer)? {
        None => Ok(None),
        Some((_, IpNet::V6(net))) => Ok(Some(net)),
        Some((text, IpNet::V4(_))) => Err(serde::de::Error::custom(format!("{text:?} is no IPv6 address"))),
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    match optional_address(deserializer)? {
        Some((_, net)) => Ok(net.addr()),
        None => Err(serde::de::Error::custom("the address is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_as_number_is_a_number_or_two_halves() {
        assert_eq!("64512".parse(), Ok(AsNumber(64512)));
        assert_eq!("1.10".parse(), Ok(AsNumber(65546)));
        for bad in ["", "4294967296", "1.65536", "1.2.3", "-1", "x", "."] {
            assert!(bad.parse::<AsNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_address_keeps_its_prefix_length_and_its_host_bits() {
        let spec: NodeSpec =
            serde_json::from_str(r#"{"bgp": {"ipv4Address": "172.18.0.2/24", "ipv6Address": "fd00::2"}}"#)
                .unwrap();
        let bgp = spec.bgp.unwrap();
        assert_eq!(bgp.ipv4_address.unwrap().to_string(), "172.18.0.2/24");
        assert_eq!(bgp.ipv6_address.unwrap().to_string(), "fd00::2/128");
    }

    #[test]
    fn an_address_of_the_other_family_is_refused() {
        let error =
            serde_json::from_str::<NodeSpec>(r#"{"bgp": {"ipv4Address": "fd00::2/64"}}"#).unwrap_err();
        assert!(error.to_string().contains("is no IPv4 address"), "{error}");
    }
}
