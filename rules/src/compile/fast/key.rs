//! What makes two endpoints have the same list of policies.

use std::fmt::Write as _;
use std::sync::Arc;

use tortie_api::policy::DefaultAction;

use super::outcome::digest_name;
use crate::compile::names::Direction;
use crate::graph::model::{LocalEndpoint, PolicyKey, TierPolicies};

/// What makes two lists the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListKey {
    pub(super) direction: Direction,
    pub(super) tiers: Vec<Tier>,
    pub(super) profiles: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tier {
    pub(super) name: Arc<str>,
    /// What none of its policies decides is denied.
    pub(super) denies: bool,
    /// Those that are enforced.
    pub(super) policies: Vec<PolicyKey>,
}

impl ListKey {
    /// The list of an endpoint. What no packet comes to is no part of it, so that endpoints of many namespaces, which
    /// differ in their profiles only, share the policies before these. `may_pass` says whether a policy passes packets
    /// on; of one that is not known it is said, too.
    pub(super) fn new(
        endpoint: &LocalEndpoint,
        direction: Direction,
        may_pass: impl Fn(&PolicyKey) -> bool,
    ) -> Self {
        let tier = |tier: &TierPolicies| {
            let all = match direction {
                Direction::Ingress => &tier.ingress,
                Direction::Egress => &tier.egress,
            };
            let policies: Vec<PolicyKey> = all.iter().filter(|p| !p.staged).map(|p| p.key.clone()).collect();
            let denies = tier.default_action == DefaultAction::Deny;
            (!all.is_empty()).then(|| Tier { name: tier.name.clone(), denies, policies })
        };
        let is_last =
            |tier: &Tier| tier.denies && !tier.policies.is_empty() && !tier.policies.iter().any(&may_pass);
        let mut tiers: Vec<Tier> = endpoint.tiers.iter().filter_map(tier).collect();
        let mut profiles = endpoint.profiles.clone();
        if let Some(last) = tiers.iter().position(is_last) {
            tiers.truncate(last + 1);
            profiles.clear();
        }
        Self { direction, tiers, profiles }
    }

    /// The name of the list's chain. It stays while the content of policies changes.
    pub(super) fn name(&self) -> String {
        let mut text = String::from(self.direction.word());
        for tier in &self.tiers {
            let _ = write!(text, "\n{} {}", tier.name, tier.denies); // Writing to a String cannot fail.
            for policy in &tier.policies {
                let _ = write!(text, "\n {policy}");
            }
        }
        for profile in &self.profiles {
            let _ = write!(text, "\n{profile}");
        }
        digest_name("cali-pl-", &text)
    }

    /// Whether what the policies of a policy's tier do not decide is denied.
    pub(super) fn denies_behind(&self, policy: &PolicyKey) -> bool {
        self.tiers.iter().any(|tier| tier.denies && tier.policies.contains(policy))
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = &PolicyKey> {
        self.tiers.iter().flat_map(|tier| &tier.policies)
    }

    /// For people: tiers with their policies, and profiles.
    pub(super) fn title(&self) -> String {
        let tier = |t: &Tier| {
            let policies: Vec<String> = t.policies.iter().map(PolicyKey::id).collect();
            format!("{}: {}", t.name, policies.join(" "))
        };
        let tiers = self.tiers.iter().map(tier);
        let profiles = self.profiles.iter().map(|profile| format!("profile {profile}"));
        let parts: Vec<String> = tiers.chain(profiles).collect();
        format!("{} {}", self.direction.word(), parts.join(", "))
    }
}
