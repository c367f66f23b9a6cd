//! Staged policies of `projectcalico.org/v3`: policies on trial. They are computed and reported, never enforced.

use serde::{Deserialize, Serialize};

/// Specification of a `StagedNetworkPolicy`, `StagedGlobalNetworkPolicy` or `StagedKubernetesNetworkPolicy`: that of
/// its enforced twin, and what is to become of that.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Staged<S> {
    /// What enforcing it would do.
    pub staged_action: StagedAction,
    /// The policy on trial. With [`StagedAction::Delete`] nothing but its tier is set.
    #[serde(flatten)]
    pub policy: S,
}

/// What enforcing a staged policy would do to the enforced policy of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StagedAction {
    /// Create or replace it.
    #[default]
    Set,
    /// Delete it.
    Delete,
    /// Nothing yet: tools that learn policies from traffic keep their work so.
    Learn,
    /// Nothing: it is not considered.
    Ignore,
}
