//! `AdminNetworkPolicy` and `BaselineAdminNetworkPolicy` of `policy.networking.k8s.io/v1alpha1`, the forerunners of
//! [`ClusterNetworkPolicy`](super::ClusterNetworkPolicySpec).

use serde::{Deserialize, Serialize};

use super::{ClusterPeer, ClusterSubject, protocol, tcp};
use crate::net::Protocol;

/// Specification of an `AdminNetworkPolicy`: before the policies of namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminNetworkPolicySpec {
    /// Position among its kind, 0 to 1000, ascending.
    pub priority: i32,
    /// The pods that it applies to.
    pub subject: ClusterSubject,
    /// Rules for traffic to those pods, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AdminIngressRule>,
    /// Rules for traffic from those pods, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AdminEgressRule>,
}

/// Specification of the `BaselineAdminNetworkPolicy`, of which there is one: after the policies of namespaces, for pods
/// that none of them selects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineAdminNetworkPolicySpec {
    /// The pods that it applies to.
    pub subject: ClusterSubject,
    /// Rules for traffic to those pods; none of them passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<AdminIngressRule>,
    /// Rules for traffic from those pods; none of them passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<AdminEgressRule>,
}

/// A rule for traffic to the subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminIngressRule {
    /// For people; at most 100 characters. Carried to rule comments.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What happens to matching traffic.
    pub action: AdminAction,
    /// Where it comes from: any of these; at least one.
    pub from: Vec<ClusterPeer>,
    /// Any of these ports of the subject; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<AdminPort>>,
}

/// A rule for traffic from the subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminEgressRule {
    /// For people; at most 100 characters. Carried to rule comments.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What happens to matching traffic.
    pub action: AdminAction,
    /// Where it goes: any of these; at least one.
    pub to: Vec<ClusterPeer>,
    /// Any of these ports of the destination; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<AdminPort>>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AdminAction {
    /// Let it through, whatever later tiers say.
    Allow,
    /// Drop it.
    Deny,
    /// Go on with the policies of namespaces; not in a baseline policy.
    Pass,
}

/// A port of a rule. Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdminPort {
    /// One port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_number: Option<AdminPortNumber>,
    /// Port and protocol that a container of the destination calls so (experimental).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_port: Option<String>,
    /// Some in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_range: Option<AdminPortRange>,
}

/// A port of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminPortNumber {
    /// TCP, UDP or SCTP; TCP if absent.
    #[serde(default = "tcp", deserialize_with = "protocol")]
    pub protocol: Protocol,
    /// 1 to 65535.
    pub port: i64,
}

/// Ports in a row of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminPortRange {
    /// TCP, UDP or SCTP; TCP if absent.
    #[serde(default = "tcp", deserialize_with = "protocol")]
    pub protocol: Protocol,
    /// The first, 1 to 65535.
    pub start: i64,
    /// The last, not below the first.
    pub end: i64,
}
