//! The answer: verdict and path, as data. [`super::words`] puts it into sentences.

use std::fmt;

use serde::Serialize;
use tortie_api::policy::{Action, DefaultAction};

use super::flow::Flow;
use super::term::Miss;

/// Whether a flow passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
}

/// What happens to a flow, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What was asked.
    pub flow: Flow,
    /// The verdict over all stages.
    pub verdict: Verdict,
    /// The stages in the order in which the flow comes to them. Those behind a denial are there as well: what
    /// they would say.
    pub stages: Vec<Stage>,
}

/// One place where policy decides.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The node that it is on.
    pub node: String,
    /// What is protected.
    pub point: Point,
    /// Which kind of policy.
    pub kind: StageKind,
    /// What it says.
    pub verdict: Verdict,
    /// What decided.
    pub decision: Decision,
    /// The tiers with policies for this stage, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierTrace>,
    /// The profiles that were asked, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileTrace>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Point {
    /// A workload endpoint.
    Workload {
        /// Its namespace.
        namespace: String,
        /// The name of its pod, or of the WorkloadEndpoint where there is no pod.
        name: String,
    },
    /// A host endpoint.
    Host {
        /// Its name.
        name: String,
    },
}

/// Kinds of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StageKind {
    /// Traffic from a workload.
    WorkloadEgress,
    /// Traffic to a workload.
    WorkloadIngress,
    /// Before connection tracking, traffic that comes in by a host endpoint.
    UntrackedIngress,
    /// Before connection tracking, traffic of the host that goes out by a host endpoint.
    UntrackedEgress,
    /// Before DNAT, traffic that comes in by a host endpoint.
    PreDnat,
    /// Traffic to the host itself.
    HostIngress,
    /// Traffic from the host itself.
    HostEgress,
    /// Forwarded traffic that comes in by a host endpoint.
    ForwardIngress,
    /// Forwarded traffic that goes out by a host endpoint.
    ForwardEgress,
}

/// What decided a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// A rule of a policy.
    Rule {
        /// Its tier.
        tier: String,
        /// The policy.
        policy: PolicyId,
        /// Its place in the policy's list, counted from 0.
        index: usize,
    },
    /// No rule of the tier's policies matched, and the tier denies what is left.
    EndOfTier {
        /// The tier.
        tier: String,
    },
    /// A rule of a profile.
    Profile {
        /// The profile.
        profile: String,
        /// Its place in the profile's list, counted from 0.
        index: usize,
    },
    /// The endpoint lists a profile that does not exist, which denies everything.
    MissingProfile {
        /// The profile.
        profile: String,
    },
    /// No tier and no profile decided, which denies.
    NoProfileMatched,
    /// No policy of this kind decided, which lets the flow go on.
    NoPolicy,
    /// A failsafe port.
    Failsafe,
    /// Untracked policy or policy before DNAT has let the flow in already.
    AllowedBefore,
    /// A host always reaches its own workloads.
    FromOwnHost,
    /// The setting for traffic from workloads to their own host, behind the workload's policy.
    EndpointToHost,
    /// Neighbour discovery between a workload and its host.
    NeighbourDiscovery,
    /// Workloads may not make tunnel packets.
    Encapsulated,
}

/// Which policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyId {
    /// `NetworkPolicy`, `KubernetesNetworkPolicy`, `StagedNetworkPolicy`, …
    pub kind: &'static str,
    /// Its namespace; none for a global policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PolicyId {
    /// `NetworkPolicy shop/db`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// One tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TierTrace {
    /// Its name.
    pub name: String,
    /// Whether the tier exists; policies of one that does not are enforced last.
    pub exists: bool,
    /// What it does with what its policies leave undecided.
    pub default_action: DefaultAction,
    /// Its policies for this stage in order, staged ones among them.
    pub policies: Vec<PolicyTrace>,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTrace {
    /// Which.
    pub policy: PolicyId,
    /// Whether it is only staged: its outcome is what it would be.
    pub staged: bool,
    /// What it says.
    pub outcome: PolicyOutcome,
    /// Rules before the decision of which all terms but one hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<NearMiss>,
    /// Rules before the decision that write a log line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logged_by: Vec<usize>,
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyOutcome {
    /// A rule matches and decides.
    Matched {
        /// Its place in the policy's list, counted from 0.
        index: usize,
        /// What it does: `Allow`, `Deny` or `Pass`.
        action: Action,
    },
    /// No rule matches.
    NoMatch,
    /// A policy, tier or stage before it has decided.
    NotReached,
}

/// A rule that nearly matched.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearMiss {
    /// Its place in the policy's list, counted from 0.
    pub index: usize,
    /// What it would have done.
    pub action: Action,
    /// The one term that does not hold.
    pub miss: Miss,
}

/// One profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileTrace {
    /// Its name.
    pub name: String,
    /// Whether it exists.
    pub exists: bool,
    /// What it says.
    pub outcome: PolicyOutcome,
}
