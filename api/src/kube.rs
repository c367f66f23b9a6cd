//! The Kubernetes types that Tortie reads.
//!
//! They are our own and minimal: generated bindings of the whole API would multiply the build time, and a
//! decoded Pod of theirs is some kilobytes of fields that nobody here looks at.
//! Policies are read strictly, since an overlooked field would change what traffic may pass. Of the
//! other kinds only the fields that matter here are read and kept, and unknown ones inside `spec` and
//! `status` are skipped.

mod admin_policy;
mod cluster_policy;
mod cluster_rule;
mod label_selector;
mod network_policy;
pub(crate) mod node;
pub(crate) mod pod;
mod service;

pub use admin_policy::{
    AdminAction, AdminEgressRule, AdminIngressRule, AdminNetworkPolicySpec, AdminPort, AdminPortNumber,
    AdminPortRange, BaselineAdminNetworkPolicySpec,
};
pub use cluster_policy::{
    ClusterAction, ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort,
    ClusterPortMatch, ClusterPortRange, ClusterProtocol, ClusterSubject, ClusterTier, NamespacedPods,
};
pub(crate) use cluster_rule::{ClusterRule, RulePorts};
pub use label_selector::{LabelSelector, Operator, Requirement};
pub use network_policy::{EgressRule, IngressRule, IpBlock, NetworkPolicySpec, Peer, PolicyPort};
pub use node::KubeNodeSpec;
pub use pod::{ContainerPort, PodPhase, PodSpec};
pub use service::{
    EndpointPortSpec, EndpointSliceSpec, EndpointSpec, SERVICE_NAME_LABEL, ServicePort, ServiceSpec,
};

use serde::{Deserialize, Deserializer, Serialize};

use crate::net::Protocol;

/// A Namespace has nothing beside its metadata that we read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSpec {}

/// A ServiceAccount has nothing beside its metadata that we read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAccountSpec {}

/// Reads a protocol as Kubernetes writes it: `TCP`, `UDP` or `SCTP`, in upper case.
fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Protocol, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        _ => Err(serde::de::Error::custom(format!("{text:?} is no protocol: use TCP, UDP or SCTP"))),
    }
}

/// The protocol of a port that names none.
fn tcp() -> Protocol {
    Protocol::Tcp
}
