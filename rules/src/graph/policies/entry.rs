//! What is kept of a policy.

use std::sync::Arc;

use tortie_api::policy::GlobalNetworkPolicySpec;

use super::{PackedRules, PolicyKey, PolicyRules, Problem, SelectorId, SetId, SharedSelectors, TierKind};

/// Which traffic a policy is for. All but the first two are for host endpoints only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// What ends or begins at an endpoint.
    #[default]
    Normal,
    /// The same, and what is forwarded through a host endpoint.
    ApplyOnForward,
    /// What comes in at a host endpoint, before its destination is translated.
    PreDnat,
    /// What comes in or goes out at a host endpoint, before connections are tracked.
    DoNotTrack,
}

impl Flavour {
    /// Of what a `GlobalNetworkPolicy` asks for.
    pub(crate) fn of(spec: &GlobalNetworkPolicySpec) -> Self {
        if spec.do_not_track {
            Self::DoNotTrack
        } else if spec.pre_dnat {
            Self::PreDnat
        } else if spec.apply_on_forward {
            Self::ApplyOnForward
        } else {
            Self::Normal
        }
    }

    pub(super) fn is_in(self, kind: TierKind) -> bool {
        match kind {
            TierKind::Normal => matches!(self, Self::Normal | Self::ApplyOnForward),
            TierKind::Forward => self == Self::ApplyOnForward,
            TierKind::PreDnat => self == Self::PreDnat,
            TierKind::Untracked => self == Self::DoNotTrack,
        }
    }
}

/// A policy of any kind, in the terms of Calico's API.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    pub(crate) tier: Arc<str>,
    pub(crate) order: Option<f64>,
    /// Packed with the policy's selector.
    pub(crate) rules: PackedRules,
    pub(crate) flavour: Flavour,
    /// Program it even where it selects nothing.
    pub(crate) everywhere: bool,
    /// It is listed, but decides nothing.
    pub(crate) staged: bool,
    /// Messages about parts that were left out, each behind its field.
    pub(crate) notes: Vec<(String, String)>,
}

/// A policy in few bytes. Almost all policies of a large cluster select nothing on this node.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) rules: PackedRules,
    /// Infinite if there is none.
    pub(super) order: f64,
    /// What few policies have.
    pub(super) extra: Option<Box<Extra>>,
    /// Which endpoints, namespace included.
    pub(super) selector: SelectorId,
    pub(super) tier: TierName,
    pub(super) flavour: Flavour,
    pub(super) everywhere: bool,
    pub(super) staged: bool,
}

/// The name of a tier, in the names of tiers that policies have.
pub(super) type TierName = u32;

#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) notes: Vec<(String, String)>,
    pub(super) active: Option<Active>,
    pub(super) problems: Vec<Problem>,
}

impl Entry {
    pub(super) fn active(&self) -> Option<&Active> {
        self.extra.as_ref()?.active.as_ref()
    }

    pub(super) fn notes(&self) -> &[(String, String)] {
        self.extra.as_ref().map_or(&[], |extra| &extra.notes)
    }

    pub(super) fn problems(&self) -> &[Problem] {
        self.extra.as_ref().map_or(&[], |extra| &extra.problems)
    }

    pub(super) fn set_extra(&mut self, extra: Extra) {
        let is_empty = extra.notes.is_empty() && extra.active.is_none() && extra.problems.is_empty();
        self.extra = (!is_empty).then(|| Box::new(extra));
    }

    /// Whether it says what `policy` says, but for the tier and the order.
    pub(super) fn has_same_rules(&self, policy: &Policy) -> bool {
        self.rules == policy.rules
            && (self.flavour, self.everywhere, self.staged)
                == (policy.flavour, policy.everywhere, policy.staged)
            && self.notes() == policy.notes
    }
}

pub(super) fn order_of(policy: &Policy) -> f64 {
    policy.order.unwrap_or(f64::INFINITY)
}

#[derive(Debug)]
pub(super) struct Active {
    /// Shared by all that is put out about the policy, as is the next one.
    pub(super) key: PolicyKey,
    /// The canonical text of the selector.
    pub(super) selector: Arc<str>,
    /// Until they are put out.
    pub(super) rules: Option<Arc<PolicyRules>>,
    pub(super) sets: Box<[SetId]>,
}

/// Whether a policy says anything to an endpoint of this node. Workloads know normal traffic only.
pub(super) fn is_needed(selectors: &SharedSelectors, entry: &Entry) -> bool {
    entry.everywhere
        || if entry.flavour.is_in(TierKind::Normal) {
            selectors.is_matched(entry.selector)
        } else {
            selectors.is_matched_by_host(entry.selector)
        }
}
