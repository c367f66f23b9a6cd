//! `NetworkPolicy` and `GlobalNetworkPolicy` of `projectcalico.org/v3`, and the rules they are made of.
//!
//! Kubernetes policies become the same types (see [`crate::convert`]), so that everything behind this
//! module knows one shape of policy.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::net::{IpVersion, Port, Protocol, net_list};
use crate::selector::Selector;

/// The longest selector that a field takes, in characters as written.
pub const SELECTOR_MAX_CHARS: usize = 1024;

/// Reads a selector field. The empty text is the same as an absent field, which is not the same as
/// `all()`: `namespaceSelector: all()` leaves out what has no namespace, an absent one does not.
pub(crate) fn optional_selector<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Selector>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let chars = text.chars().count();
    if chars > SELECTOR_MAX_CHARS {
        return Err(D::Error::custom(format!(
            "a selector has at most {SELECTOR_MAX_CHARS} characters, not {chars}"
        )));
    }
    Selector::parse(&text).map(Some).map_err(D::Error::custom)
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Accept and stop.
    Allow,
    /// Drop and stop.
    Deny,
    /// Write a kernel log line and go on with the next rule.
    Log,
    /// Leave the tier and go on with the next one.
    Pass,
}

/// A direction that a policy applies to, seen from the endpoint it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyType {
    /// Traffic to the endpoint.
    Ingress,
    /// Traffic from the endpoint.
    Egress,
}

/// One rule of a policy or profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// What happens to a matching packet.
    pub action: Action,
    /// Only packets of this IP version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<IpVersion>,
    /// Only packets of this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Only ICMP messages of this type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// Only packets of another protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<Protocol>,
    /// Only packets that are not ICMP messages of this type and code.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<Icmp>,
    /// Who sent the packet.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub source: EntityRule,
    /// Who the packet is for.
    #[serde(default, skip_serializing_if = "EntityRule::is_empty")]
    pub destination: EntityRule,
    /// HTTP match; this dataplane cannot honour it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMatch>,
    /// Annotations, carried to rule comments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RuleMetadata>,
}

impl Rule {
    /// A rule that matches every packet.
    pub fn new(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            icmp: None,
            not_protocol: None,
            not_icmp: None,
            source: EntityRule::default(),
            destination: EntityRule::default(),
            http: None,
            metadata: None,
        }
    }
}

/// ICMP type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Icmp {
    /// Type, 0 to 254. Required if there is a code.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Code, 0 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// Annotations of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleMetadata {
    /// Carried to rule comments as `key=value`, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Application layer match. Parsed and kept; a packet filter cannot evaluate it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpMatch {
    /// HTTP methods, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<HttpPath>,
}

/// An HTTP path, exact or by prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpPath {
    /// The whole path, at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Its beginning, at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// One side of a rule. All fields that are present must match; entries of a list are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EntityRule {
    /// Any of these networks, at most 256.
    #[serde(with = "net_list", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<IpNet>,
    /// Endpoints and network sets that this selects.
    #[serde(deserialize_with = "optional_selector", skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Namespaces of those endpoints and network sets; `global()` for things without a namespace.
    #[serde(deserialize_with = "optional_selector", skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// A service instead of a selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
    /// Ports, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// None of these networks, at most 256.
    #[serde(with = "net_list", skip_serializing_if = "Vec::is_empty")]
    pub not_nets: Vec<IpNet>,
    /// Not what this selects.
    #[serde(deserialize_with = "optional_selector", skip_serializing_if = "Option::is_none")]
    pub not_selector: Option<Selector>,
    /// None of these ports, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<Port>,
    /// Service accounts of the endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// Addresses of the cluster's nodes with these labels, and of nothing else. Not a field of the API: rules of
    /// Kubernetes' cluster-wide policies convert to it.
    #[serde(skip)]
    pub nodes: Option<Selector>,
}

impl EntityRule {
    /// Whether nothing is asked, so that anything matches.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reference to a Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceMatch {
    /// Name of the service.
    pub name: String,
    /// Its namespace; the policy's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Service accounts by name, by selector, or both (then both must hold).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountMatch {
    /// Any of these names; each is a DNS subdomain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels of the service account.
    #[serde(deserialize_with = "optional_selector", default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// `performanceHints` of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PerformanceHint {
    /// Program the policy on every node, whether or not an endpoint of that node needs it.
    AssumeNeededOnEveryNode,
}

/// The name of the tier that policies without one belong to.
pub const DEFAULT_TIER: &str = "default";

fn default_tier() -> String {
    DEFAULT_TIER.to_owned()
}

/// Specification of a `NetworkPolicy` (namespaced).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicySpec {
    /// The tier; `default` if absent.
    #[serde(default = "default_tier")]
    pub tier: String,
    /// Position in the tier, ascending; absent comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Rules for traffic to the selected endpoints, at most 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the selected endpoints, at most 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Which endpoints of the namespace; absent or empty means all.
    #[serde(deserialize_with = "optional_selector", default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Directions. Defaulting fills this in when it is empty (see [`crate::defaults`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<PolicyType>,
    /// Service accounts of the selected endpoints.
    #[serde(deserialize_with = "optional_selector", default, skip_serializing_if = "Option::is_none")]
    pub service_account_selector: Option<Selector>,
    /// Hints for the dataplane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}

/// Specification of a `GlobalNetworkPolicy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GlobalNetworkPolicySpec {
    /// The tier; `default` if absent.
    #[serde(default = "default_tier")]
    pub tier: String,
    /// Position in the tier, ascending; absent comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Rules for traffic to the selected endpoints, at most 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the selected endpoints, at most 1024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Which endpoints of the cluster; absent or empty means all workloads and host endpoints.
    #[serde(deserialize_with = "optional_selector", default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Directions. Defaulting fills this in when it is empty (see [`crate::defaults`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<PolicyType>,
    /// Untracked policy of host endpoints.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub do_not_track: bool,
    /// Policy of host endpoints before DNAT.
    #[serde(default, rename = "preDNAT", skip_serializing_if = "std::ops::Not::not")]
    pub pre_dnat: bool,
    /// Also for traffic that is forwarded through a host endpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apply_on_forward: bool,
    /// Service accounts of the selected endpoints.
    #[serde(deserialize_with = "optional_selector", default, skip_serializing_if = "Option::is_none")]
    pub service_account_selector: Option<Selector>,
    /// Namespaces of the selected endpoints.
    #[serde(deserialize_with = "optional_selector", default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Hints for the dataplane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance_hints: Vec<PerformanceHint>,
}

/// What a tier does with a packet that its policies select but do not decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DefaultAction {
    /// Drop it.
    #[default]
    Deny,
    /// Go on with the next tier.
    Pass,
}

/// The order of a tier that gives none, and of the tier [`DEFAULT_TIER`].
pub const DEFAULT_TIER_ORDER: f64 = 1_000_000.0;

/// The tier of ClusterNetworkPolicies that come before those of namespaces.
pub const ADMIN_TIER: &str = "kube-admin";

/// The tier of ClusterNetworkPolicies that come after those of namespaces.
pub const BASELINE_TIER: &str = "kube-baseline";

/// The tier of AdminNetworkPolicies.
pub const ADMIN_NETWORK_POLICY_TIER: &str = "adminnetworkpolicy";

/// The tier of the BaselineAdminNetworkPolicy.
pub const BASELINE_ADMIN_NETWORK_POLICY_TIER: &str = "baselineadminnetworkpolicy";

/// Tiers that exist whether or not somebody wrote them down (Calico creates them at start; those of the two
/// older kinds only its older releases): name, order and default action. None of them can be changed.
pub const BUILT_IN_TIERS: [(&str, f64, DefaultAction); 5] = [
    (ADMIN_NETWORK_POLICY_TIER, 1000.0, DefaultAction::Pass),
    (ADMIN_TIER, 1000.0, DefaultAction::Pass),
    (DEFAULT_TIER, DEFAULT_TIER_ORDER, DefaultAction::Deny),
    (BASELINE_ADMIN_NETWORK_POLICY_TIER, 10_000_000.0, DefaultAction::Pass),
    (BASELINE_TIER, 10_000_000.0, DefaultAction::Pass),
];

/// Specification of a `Tier`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierSpec {
    /// Position among the tiers, ascending; absent means [`DEFAULT_TIER_ORDER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What happens at the end of the tier; `Deny` if absent.
    #[serde(default)]
    pub default_action: DefaultAction,
}

/// Specification of a `Profile`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProfileSpec {
    /// Rules for traffic to endpoints with this profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// Rules for traffic from endpoints with this profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Labels that endpoints with this profile inherit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels_to_apply: BTreeMap<String, String>,
}

/// Specification of a `NetworkSet` or `GlobalNetworkSet`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSetSpec {
    /// Networks and single addresses.
    #[serde(with = "net_list", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<IpNet>,
}
