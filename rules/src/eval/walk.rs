//! One stage: tiers in order, policies in order, rules in order, then profiles.

use tortie_api::policy::{Action, DefaultAction, PolicyType};

use super::derived::{Derived, Endpoint};
use super::explain::{Decision, NearMiss, PolicyOutcome, PolicyTrace, ProfileTrace, TierTrace, Verdict};
use super::matching::{FirstTwo, Found, Packet, Question};
use super::policy::{Flavour, Policy, RuleEntry, effective_action};

/// What decided, by reference: [`Decision`] for those who want to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decided<'a> {
    Rule(&'a Policy, usize),
    EndOfTier(&'a str),
    Profile(&'a str, usize),
    MissingProfile(&'a str),
    Other(&'a Decision),
}

impl Decided<'_> {
    pub(super) fn decision(self) -> Decision {
        match self {
            Self::Rule(policy, index) => {
                Decision::Rule { tier: policy.tier.clone(), policy: policy.id.clone(), index }
            }
            Self::EndOfTier(tier) => Decision::EndOfTier { tier: tier.to_owned() },
            Self::Profile(profile, index) => Decision::Profile { profile: profile.to_owned(), index },
            Self::MissingProfile(profile) => Decision::MissingProfile { profile: profile.to_owned() },
            Self::Other(decision) => decision.clone(),
        }
    }
}

/// The path through one stage, for those who want to know.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) tiers: Vec<TierTrace>,
    pub(super) profiles: Vec<ProfileTrace>,
}

/// A packet at one endpoint, in one direction.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) derived: &'a Derived,
    pub(super) packet: &'a Packet,
    pub(super) endpoint: &'a Endpoint,
    pub(super) direction: PolicyType,
    pub(super) trace: Option<Trace>,
}

/// What the policies of an endpoint say; `None` if they leave it open.
type Outcome<'a> = Option<(Verdict, Decided<'a>)>;

impl<'a> Walk<'a> {
    /// Goes through the tiers. `ends` says whether a tier's default action counts at its end.
    pub(super) fn tiers(&mut self, applies: fn(Flavour) -> bool, ends: bool) -> Outcome<'a> {
        let (derived, direction) = (self.derived, self.direction);
        let policies: Vec<&'a Policy> = derived
            .policies_of(self.endpoint)
            .filter(|p| applies(p.flavour) && p.rules(direction).is_some())
            .collect();
        let mut decided = None;
        for policies in policies.chunk_by(|a, b| a.tier == b.tier) {
            if decided.is_some() && self.trace.is_none() {
                break;
            }
            decided = self.tier(policies, ends, decided);
        }
        decided
    }

    /// Goes through one tier, unless one before it has decided.
    fn tier(&mut self, policies: &[&'a Policy], ends: bool, before: Outcome<'a>) -> Outcome<'a> {
        let name = policies[0].tier.as_str();
        let (default_action, exists) = self.derived.tier(name);
        let (mut decided, mut is_left, mut is_enforced) = (before, before.is_some(), false);
        let mut traces = Vec::new();
        for policy in policies {
            let is_staged = policy.staged.is_some();
            if is_staged && self.trace.is_none() {
                continue;
            }
            let (outcome, near, logged_by) = if is_left {
                (PolicyOutcome::NotReached, Vec::new(), Vec::new())
            } else {
                self.rules(policy.rules(self.direction).unwrap_or_default(), policy.namespace())
            };
            if self.trace.is_some() {
                let policy = policy.id.clone();
                traces.push(PolicyTrace { policy, staged: is_staged, outcome, near, logged_by });
            }
            if is_staged {
                continue;
            }
            is_enforced = true;
            if let PolicyOutcome::Matched { index, action } = outcome {
                is_left = true;
                decided = verdict_of(action).map(|verdict| (verdict, Decided::Rule(policy, index)));
            }
        }
        if !is_left && is_enforced && ends && default_action == DefaultAction::Deny {
            decided = Some((Verdict::Deny, Decided::EndOfTier(name)));
        }
        if let Some(trace) = &mut self.trace {
            trace.tiers.push(TierTrace { name: name.to_owned(), exists, default_action, policies: traces });
        }
        decided
    }

    /// Goes through the profiles, and denies at their end.
    pub(super) fn profiles(&mut self) -> (Verdict, Decided<'a>) {
        let (endpoint, derived) = (self.endpoint, self.derived);
        for name in &endpoint.profiles {
            let Some(profile) = derived.profiles.get(name) else {
                self.trace_profile(name, false, PolicyOutcome::NoMatch);
                return (Verdict::Deny, Decided::MissingProfile(name));
            };
            let rules = match self.direction {
                PolicyType::Ingress => &profile.ingress,
                PolicyType::Egress => &profile.egress,
            };
            let (outcome, ..) = self.rules(rules, "");
            self.trace_profile(name, true, outcome);
            // There is no further tier that a profile could pass on to, so Pass leaves just the profile.
            if let PolicyOutcome::Matched { index, action } = outcome
                && let Some(verdict) = verdict_of(action)
            {
                return (verdict, Decided::Profile(name, index));
            }
        }
        (Verdict::Deny, Decided::Other(&Decision::NoProfileMatched))
    }

    fn trace_profile(&mut self, name: &str, exists: bool, outcome: PolicyOutcome) {
        if let Some(trace) = &mut self.trace {
            trace.profiles.push(ProfileTrace { name: name.to_owned(), exists, outcome });
        }
    }

    /// The first rule that decides, and for a trace those before it that nearly did or that log.
    fn rules(&self, rules: &[RuleEntry], namespace: &str) -> (PolicyOutcome, Vec<NearMiss>, Vec<usize>) {
        let (mut near, mut logged_by) = (Vec::new(), Vec::new());
        for (index, entry) in rules.iter().enumerate() {
            let question = Question { derived: self.derived, packet: self.packet, namespace, entry };
            let action = effective_action(&entry.rule);
            let is_match = if self.trace.is_some() {
                let mut misses = FirstTwo::default();
                question.ask(&mut misses);
                if let [_] = misses.0.as_slice() {
                    near.extend(misses.0.pop().map(|miss| NearMiss { index, action, miss }));
                    false
                } else {
                    misses.0.is_empty()
                }
            } else {
                let mut found = Found::default();
                question.ask(&mut found);
                !found.0
            };
            match action {
                Action::Log if is_match => logged_by.push(index),
                _ if is_match => return (PolicyOutcome::Matched { index, action }, near, logged_by),
                _ => {}
            }
        }
        (PolicyOutcome::NoMatch, near, logged_by)
    }
}

/// `Pass` is none.
fn verdict_of(action: Action) -> Option<Verdict> {
    match action {
        Action::Allow => Some(Verdict::Allow),
        Action::Deny => Some(Verdict::Deny),
        Action::Pass | Action::Log => None,
    }
}
