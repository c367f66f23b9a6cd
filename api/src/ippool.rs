//! `IPPool` of `projectcalico.org/v3`: address ranges of workloads and how their traffic travels.

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::net::parse_net;
use crate::policy::optional_selector;
use crate::selector::Selector;

/// When traffic between nodes is wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EncapMode {
    /// Never.
    #[default]
    Never,
    /// Between all nodes.
    Always,
    /// Between nodes of different subnets.
    CrossSubnet,
}

/// What addresses of a pool may be given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PoolUse {
    /// Workloads.
    Workload,
    /// Tunnel devices of nodes.
    Tunnel,
    /// Services of type LoadBalancer.
    LoadBalancer,
}

/// Whether a pool serves workloads that do not ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AssignmentMode {
    /// It does.
    #[default]
    Automatic,
    /// Only by explicit request.
    Manual,
}

/// Specification of an `IPPool`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IPPoolSpec {
    /// The range, without host bits.
    #[serde(deserialize_with = "cidr")]
    pub cidr: IpNet,
    /// IPIP encapsulation; IPv4 only.
    #[serde(default)]
    pub ipip_mode: EncapMode,
    /// VXLAN encapsulation.
    #[serde(default)]
    pub vxlan_mode: EncapMode,
    /// Whether traffic of its workloads to the outside gets the node's address.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// Whether no new addresses are given out.
    #[serde(default)]
    pub disabled: bool,
    /// Whether its routes stay out of BGP.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
    /// Prefix length of the blocks that nodes take. Defaulting fills in 26 or 122 when it is 0.
    #[serde(default)]
    pub block_size: u8,
    /// Nodes that take blocks; all if absent.
    #[serde(default, deserialize_with = "optional_selector", skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// Namespaces whose pods get addresses; all if absent.
    #[serde(default, deserialize_with = "optional_selector", skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// What its addresses are for. Defaulting fills in workloads and tunnels when it is empty; workloads
    /// alone for a pool with a namespace selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_uses: Vec<PoolUse>,
    /// Whether it serves workloads that do not ask for it.
    #[serde(default)]
    pub assignment_mode: AssignmentMode,
}

/// A CIDR with its prefix length written out.
fn cidr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.contains('/') {
        parse_net(&text).map_err(serde::de::Error::custom)
    } else {
        Err(serde::de::Error::custom(format!("{text:?} is no CIDR: the prefix length is missing")))
    }
}
