//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`.
//!
//! The types that it shares with the kinds it came from (see [`super::admin_policy`]) are here too. An object is read
//! strictly; which fields go together is checked in [`crate::validate`].

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::LabelSelector;
use crate::net::parse_cidr;

/// Specification of a `ClusterNetworkPolicy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNetworkPolicySpec {
    /// Before or after the policies of namespaces.
    pub tier: ClusterTier,
    /// Position in the tier, 0 to 1000, ascending.
    pub priority: i32,
    /// The pods that it applies to.
    pub subject: ClusterSubject,
    /// Rules for traffic to those pods, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ClusterIngressRule>,
    /// Rules for traffic from those pods, the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ClusterEgressRule>,
}

/// The tier of a `ClusterNetworkPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClusterTier {
    /// Before the policies of namespaces, which cannot override it.
    Admin,
    /// After the policies of namespaces, for pods that none of them selects.
    Baseline,
}

/// The pods that a policy applies to. Exactly one field is set. Pods in the network of their node are never meant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSubject {
    /// All pods of these namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
}

/// Pods by their labels and those of their namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespacedPods {
    /// The namespaces; all if empty. Only v1alpha2 lets it be absent, which means the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The pods of those namespaces; all if empty.
    pub pod_selector: LabelSelector,
}

/// A rule for traffic to the subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterIngressRule {
    /// For people; at most 100 characters. Carried to rule comments.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What happens to matching traffic.
    pub action: ClusterAction,
    /// Where it comes from: any of these; at least one.
    pub from: Vec<ClusterPeer>,
    /// Any of these protocols; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// A rule for traffic from the subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterEgressRule {
    /// For people; at most 100 characters. Carried to rule comments.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What happens to matching traffic.
    pub action: ClusterAction,
    /// Where it goes: any of these; at least one.
    pub to: Vec<ClusterPeer>,
    /// Any of these protocols; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// What a rule of a `ClusterNetworkPolicy` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClusterAction {
    /// Let it through, whatever later tiers say.
    Accept,
    /// Drop it.
    Deny,
    /// Go on with the next tier.
    Pass,
}

/// The other side of a rule. Exactly one field is set; in an ingress rule it is one of the first two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterPeer {
    /// All pods of these namespaces, but for those in the network of their node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces, but for those in the network of their node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
    /// Addresses of these nodes (experimental).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Networks; host bits are cleared.
    #[serde(deserialize_with = "masked", skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<IpNet>>,
    /// Domain names, for rules that let traffic through (experimental).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_names: Option<Vec<String>>,
}

/// A protocol of a rule of a `ClusterNetworkPolicy`. Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterProtocol {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ClusterPortMatch>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<ClusterPortMatch>,
    /// SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ClusterPortMatch>,
    /// Port and protocol that a container of the destination calls so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// What of a protocol is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterPortMatch {
    /// The port that traffic goes to; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ClusterPort>,
}

/// A port or a range of ports. Exactly one field is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterPort {
    /// One port, 1 to 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Some in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<ClusterPortRange>,
}

/// Ports in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterPortRange {
    /// The first, 1 to 65535.
    pub start: i64,
    /// The last, above the first.
    pub end: i64,
}

/// Reads networks with their host bits cleared: the API takes them so.
fn masked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    struct Masked(IpNet);

    impl<'de> Deserialize<'de> for Masked {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            parse_cidr(&text).map(|net| Self(net.trunc())).map_err(serde::de::Error::custom)
        }
    }

    let nets = Option::<Vec<Masked>>::deserialize(deserializer)?;
    Ok(nets.map(|nets| nets.into_iter().map(|net| net.0).collect()))
}
