//! Policy evaluated by reading it: what happens to a flow, and why.
//!
//! This is the reference that compiled rules are measured against, so it is written for plainness, and shares
//! nothing with [`crate::graph`] and [`crate::compile`]: no ip sets, no marks, no chains.
//!
//! ```text
//!  resources ──► Cluster ──(items, endpoints, policies in order)──┐
//!  Flow ──► the nodes it crosses ──► stages at each node ─────────┴─► tier by tier, policy by policy,
//!                                                                     rule by rule, term by term ──► Verdict
//! ```
//!
//! A *stage* is a place where policy decides: the egress of a workload, the ingress of another, and for a host
//! endpoint untracked policy, policy before DNAT, policy for the host itself and for what it forwards. A flow
//! passes if every stage lets it pass. Only the first packet of a flow is decided here; the others follow it.
//!
//! [`ruleset`] evaluates the compiled rules instead, as the kernel would.

mod cluster;
mod derived;
mod explain;
mod felix;
mod flow;
mod matching;
mod path;
mod policy;
pub mod preview;
pub mod ruleset;
mod settings;
mod term;
mod walk;
mod words;

pub use cluster::{Cluster, Workload};
pub use explain::{
    Decision, Explanation, NearMiss, Point, PolicyId, PolicyOutcome, PolicyTrace, ProfileTrace, Stage,
    StageKind, TierTrace, Verdict,
};
pub use felix::BadSetting;
pub use flow::{Flow, Interface, Party, Place};
pub use settings::{Failsafe, HostAction, Settings};
pub use term::{Clause, Miss, Side};

#[cfg(test)]
mod tests;
