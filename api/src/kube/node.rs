//! `Node` of Kubernetes' core group: the addresses and address ranges of a node.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::node::{NodeAddress, NodeAddressType};

/// What we read of a Node, out of its `spec` and `status`. Calico's own facts about the node are in the
/// annotations of its metadata; [`crate::convert::node`] reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeNodeSpec {
    /// Ranges that the node's pods get their addresses from, where the cluster hands them out by node.
    pub pod_cidrs: Vec<IpNet>,
    /// Its internal and external addresses; host names are left out.
    pub addresses: Vec<NodeAddress>,
}

/// `spec` as written.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<IpNet>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<IpNet>,
}

/// `status` as written.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Status {
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl KubeNodeSpec {
    pub(crate) fn new(spec: Spec, status: &Status) -> Self {
        let pod_cidrs =
            if spec.pod_cidrs.is_empty() { spec.pod_cidr.into_iter().collect() } else { spec.pod_cidrs };
        let addresses = status.addresses.iter().filter_map(Address::known).collect();
        Self { pod_cidrs, addresses }
    }
}

impl Address {
    fn known(&self) -> Option<NodeAddress> {
        let address_type = match self.kind.as_str() {
            "InternalIP" => NodeAddressType::InternalIP,
            "ExternalIP" => NodeAddressType::ExternalIP,
            _ => return None,
        };
        let address: IpAddr = self.address.parse().ok()?;
        Some(NodeAddress { address, address_type: Some(address_type) })
    }
}
