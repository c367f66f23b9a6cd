//! The report, as data. [`super::words`] puts it into sentences.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use tortie_api::net::{IpVersion, Protocol};
use tortie_api::policy::PolicyType;

use super::super::explain::{Point, PolicyId, Verdict};

/// What a change would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Objects that come, go or change.
    pub objects: Vec<ObjectChange>,
    /// Policies in force that come, go or change.
    pub policies: Vec<PolicyChange>,
    /// Endpoints that come, go, or get another list of policies.
    pub endpoints: Vec<EndpointChange>,
    /// What passes that did not, and the other way.
    pub verdicts: Vec<VerdictChange>,
    /// How many pairs of groups of endpoints were not looked at, since there are too many: `verdicts` is then not
    /// complete.
    #[serde(skip_serializing_if = "is_zero")]
    pub pairs_left_out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// It was not there before.
    Added,
    /// It is not there after.
    Removed,
    /// It differs.
    Changed,
}

impl Change {
    pub(super) fn of<T: PartialEq>(before: Option<&T>, after: Option<&T>) -> Option<Self> {
        match (before, after) {
            (None, Some(_)) => Some(Self::Added),
            (Some(_), None) => Some(Self::Removed),
            (before, after) => (before != after).then_some(Self::Changed),
        }
    }
}

/// An object that comes, goes or changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// Its kind as in manifests.
    pub kind: &'static str,
    /// Its API, `projectcalico.org/v3`.
    pub api_version: &'static str,
    /// Its namespace, if its kind has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// Its labels, and the fields of a tier or network set, that differ; those of policies are told in
    /// [`PolicyChange`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// As it was; none if it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// As it becomes; none if it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A policy in force that comes, goes or changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyChange {
    /// Which.
    pub policy: PolicyId,
    /// Its tier, after the change if it is there then.
    pub tier: String,
    /// What becomes of it.
    pub change: Change,
    /// What differs beside the rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// Its rules that come, go or change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleChange>,
}

/// A rule that comes, goes or changes. One that only moves because of others is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleChange {
    /// The list that it is in.
    pub direction: PolicyType,
    /// As it was; none if it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<RuleAt>,
    /// As it becomes; none if it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<RuleAt>,
}

/// A rule in one line, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleAt {
    /// Its place in the list, counted from 0.
    pub index: usize,
    /// `Allow TCP from app == 'web' to port 80`
    pub rule: String,
}

/// Endpoints that come, go, or get another list of policies; those with the same change together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointChange {
    /// Which.
    pub endpoints: Vec<Point>,
    /// What becomes of them.
    pub change: Change,
    /// Policies for traffic to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<ListChange>,
    /// Policies for traffic from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<ListChange>,
}

/// A list of policies that changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListChange {
    /// Policies that begin to apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub begin: Vec<ListedPolicy>,
    /// Policies that cease to apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cease: Vec<ListedPolicy>,
    /// Whether policies that are in both lists are in another order, or in another tier.
    pub is_reordered: bool,
    /// The whole list as it becomes, in order.
    pub after: Vec<ListedPolicy>,
}

/// A policy in the list of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedPolicy {
    /// Its tier.
    pub tier: String,
    /// Which.
    pub policy: PolicyId,
}

/// Flows whose verdict changes: from each of the sources to each of the destinations, but for a workload to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictChange {
    /// The verdict after the change.
    pub becomes: Verdict,
    /// Only over this IP version; over both if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<IpVersion>,
    /// Who sends.
    pub sources: Vec<Peer>,
    /// Who receives.
    pub destinations: Vec<Peer>,
    /// What of the traffic.
    pub traffic: Vec<Traffic>,
    /// Only if both are on the same node (true), or on different ones (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_node: Option<bool>,
    /// Only if it goes by these interfaces of nodes with several host endpoints: of the source's node, and of the
    /// destination's; `other` is any without a host endpoint of its own.
    #[serde(skip_serializing_if = "Interfaces::is_any")]
    pub interfaces: Interfaces,
}

/// Interfaces that a flow takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interfaces {
    /// Of the source's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of the destination's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

impl Interfaces {
    /// Whether nothing is said.
    pub const fn is_any(&self) -> bool {
        self.source.is_none() && self.destination.is_none()
    }
}

/// Who is at an end of flows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    /// A workload.
    Workload {
        /// Its namespace.
        namespace: String,
        /// The name of its pod, or of the WorkloadEndpoint where there is no pod.
        name: String,
        /// Only with this address, if it has or had several of a version.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
    /// A node itself.
    Node {
        /// Its name.
        node: String,
        /// Only with this address, if it has or had several of a version.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
    /// Addresses that no workload and no node has.
    Outside {
        /// Those in these networks,
        nets: Vec<IpNet>,
        /// but for these inside them. Of nets and exceptions around an address the smallest counts.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        except: Vec<IpNet>,
    },
}

/// A part of what two ends may exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The protocol; any if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Any but these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_protocols: Vec<Protocol>,
    /// Only from these ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<Span>,
    /// Only to these ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Span>,
    /// Only ICMP messages of these types.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmp_types: Vec<Span>,
    /// Only ICMP messages with these codes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmp_codes: Vec<Span>,
}

/// Numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Span {
    pub(super) const fn one(number: u16) -> Self {
        Self { first: number, last: number }
    }

    /// Whether a number is in it.
    pub const fn contains(&self, number: u16) -> bool {
        self.first <= number && number <= self.last
    }
}
