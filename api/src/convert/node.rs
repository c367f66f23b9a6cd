//! Kubernetes' Node, with Calico's annotations on it, as a Node of Calico.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::kube::KubeNodeSpec;
use crate::labels::KUBERNETES;
use crate::meta::Metadata;
use crate::node::{
    NodeAddress, NodeAddressType, NodeBgp, NodeInterface, NodeSpec, NodeWireguard, OrchRef,
    parse_interface_address,
};
use crate::resource::Object;

/// What Calico's annotations begin with.
const PREFIX: &str = "projectcalico.org/";

/// Converts a node. Annotations that cannot be read are left out; the second value says which and why.
pub fn node(node: &Object<KubeNodeSpec>) -> (Object<NodeSpec>, Vec<String>) {
    let mut notes = Annotations { of: &node.metadata.annotations, problems: Vec::new() };
    let bgp = bgp(&mut notes);
    let wireguard = NodeWireguard {
        interface_ipv4_address: notes.read("IPv4WireguardInterfaceAddr"),
        interface_ipv6_address: notes.read("IPv6WireguardInterfaceAddr"),
    };
    let spec = NodeSpec {
        addresses: addresses(bgp.as_ref(), &node.spec.addresses),
        bgp,
        ipv4_vxlan_tunnel_addr: notes.read("IPv4VXLANTunnelAddr"),
        ipv6_vxlan_tunnel_addr: notes.read("IPv6VXLANTunnelAddr"),
        vxlan_tunnel_mac_addr: notes.text("VXLANTunnelMACAddr").unwrap_or_default().to_owned(),
        vxlan_tunnel_mac_addr_v6: notes.text("VXLANTunnelMACAddrV6").unwrap_or_default().to_owned(),
        orch_refs: vec![OrchRef {
            node_name: node.metadata.name.clone(),
            orchestrator: KUBERNETES.to_owned(),
        }],
        wireguard: (wireguard != NodeWireguard::default()).then_some(wireguard),
        interfaces: notes.json::<Vec<NodeInterface>>("Interfaces").unwrap_or_default(),
    };
    let metadata = metadata(&node.metadata, &mut notes);
    (Object { metadata, spec }, notes.problems)
}

fn bgp(notes: &mut Annotations<'_>) -> Option<NodeBgp> {
    let bgp = NodeBgp {
        as_number: notes.read("ASNumber"),
        ipv4_address: notes.interface_address("IPv4Address").and_then(|net| match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        }),
        ipv6_address: notes.interface_address("IPv6Address").and_then(|net| match net {
            IpNet::V6(net) => Some(net),
            IpNet::V4(_) => None,
        }),
        ipv4_ipip_tunnel_addr: notes.read("IPv4IPIPTunnelAddr"),
        route_reflector_cluster_id: notes.read("RouteReflectorClusterID"),
    };
    (bgp != NodeBgp::default()).then_some(bgp)
}

/// The addresses of BGP, then those that Kubernetes knows.
fn addresses(bgp: Option<&NodeBgp>, known: &[NodeAddress]) -> Vec<NodeAddress> {
    let v4 = bgp.and_then(|bgp| bgp.ipv4_address).map(|net| IpAddr::V4(net.addr()));
    let v6 = bgp.and_then(|bgp| bgp.ipv6_address).map(|net| IpAddr::V6(net.addr()));
    let calico = |address| NodeAddress { address, address_type: Some(NodeAddressType::CalicoNodeIP) };
    v4.into_iter().chain(v6).map(calico).chain(known.iter().copied()).collect()
}

/// Kubernetes' labels, and those that users gave the node through Calico's API.
fn metadata(of: &Metadata, notes: &mut Annotations<'_>) -> Metadata {
    let mut labels = of.labels.clone();
    labels.extend(notes.json::<BTreeMap<String, String>>("labels").unwrap_or_default());
    Metadata {
        labels,
        annotations: notes.json("annotations").unwrap_or_default(),
        uid: of.uid.clone(),
        resource_version: of.resource_version.clone(),
        creation_timestamp: of.creation_timestamp.clone(),
        ..Metadata::named(of.name.as_str(), None)
    }
}

/// Reads annotations and notes what cannot be read.
struct Annotations<'a> {
    of: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl<'a> Annotations<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.of.get(&format!("{PREFIX}{name}")).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn read<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let result = self.text(name)?.parse();
        self.noted(name, result)
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let result = serde_json::from_str(self.text(name)?);
        self.noted(name, result)
    }

    fn interface_address(&mut self, name: &str) -> Option<IpNet> {
        let text = self.text(name)?;
        let result = parse_interface_address(text).ok_or_else(|| format!("{text:?} is no address"));
        self.noted(name, result)
    }

    fn noted<T, E: std::fmt::Display>(&mut self, name: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problems.push(format!("annotation {PREFIX}{name}: {error}"))).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Resource;

    fn convert(annotations: &Value) -> (Object<NodeSpec>, Vec<String>) {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "a", "labels": {"zone": "1"}, "annotations": annotations},
            "spec": {"podCIDR": "10.65.0.0/24", "podCIDRs": ["10.65.0.0/24", "fd00::/64"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "172.18.0.2"},
                {"type": "Hostname", "address": "a"},
            ]},
        });
        let Resource::KubeNode(kube_node) = Resource::from_value(&value).unwrap() else { panic!() };
        assert_eq!(kube_node.spec.pod_cidrs.len(), 2);
        node(&kube_node)
    }

    #[test]
    fn annotations_are_fields_of_the_node() {
        let (node, problems) = convert(&json!({
            "projectcalico.org/IPv4Address": "172.18.0.2/24",
            "projectcalico.org/IPv6Address": "fd01::2/64",
            "projectcalico.org/ASNumber": "64513",
            "projectcalico.org/IPv4IPIPTunnelAddr": "10.65.0.1",
            "projectcalico.org/IPv4VXLANTunnelAddr": "10.65.0.2",
            "projectcalico.org/VXLANTunnelMACAddr": "66:01:02:03:04:05",
            "projectcalico.org/IPv4WireguardInterfaceAddr": "10.65.0.3",
            "projectcalico.org/Interfaces": "[{\"name\":\"eth0\",\"addresses\":[\"172.18.0.2\"]}]",
            "projectcalico.org/labels": "{\"rack\":\"7\"}",
        }));
        assert_eq!(problems, [""; 0]);
        assert_eq!(serde_json::to_value(&node.metadata.labels).unwrap(), json!({"rack": "7", "zone": "1"}));
        assert_eq!(
            serde_json::to_value(&node.spec).unwrap(),
            json!({
                "bgp": {
                    "asNumber": 64513,
                    "ipv4Address": "172.18.0.2/24",
                    "ipv6Address": "fd01::2/64",
                    "ipv4IPIPTunnelAddr": "10.65.0.1",
                },
                "ipv4VXLANTunnelAddr": "10.65.0.2",
                "vxlanTunnelMACAddr": "66:01:02:03:04:05",
                "orchRefs": [{"nodeName": "a", "orchestrator": "k8s"}],
                "wireguard": {"interfaceIPv4Address": "10.65.0.3"},
                "addresses": [
                    {"address": "172.18.0.2", "type": "CalicoNodeIP"},
                    {"address": "fd01::2", "type": "CalicoNodeIP"},
                    {"address": "172.18.0.2", "type": "InternalIP"},
                ],
                "interfaces": [{"name": "eth0", "addresses": ["172.18.0.2"]}],
            })
        );
    }

    #[test]
    fn a_node_without_annotations_has_the_addresses_that_kubernetes_knows() {
        let (node, problems) = convert(&json!({}));
        assert_eq!((node.spec.bgp, node.spec.addresses.len(), problems.len()), (None, 1, 0));
    }

    #[test]
    fn an_annotation_that_cannot_be_read_is_reported_and_hurts_no_other() {
        let (node, problems) = convert(&json!({
            "projectcalico.org/IPv4Address": "172.18.0.300/24",
            "projectcalico.org/ASNumber": "64513",
        }));
        assert_eq!(node.spec.bgp.unwrap().ipv4_address, None);
        assert_eq!(problems, ["annotation projectcalico.org/IPv4Address: \"172.18.0.300/24\" is no address"]);
    }
}
