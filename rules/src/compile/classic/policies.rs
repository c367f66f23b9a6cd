//! Chains of policies and profiles.
//!
//! `filter` is offered all of them if workloads have their chains here, the others only those that a host endpoint has used there: few, and a
//! policy need not be compiled three times for nothing.

use std::sync::Arc;

use super::Classic;
use crate::compile::config::Config;
use crate::compile::endpoint::EndpointChain;
use crate::compile::flowlog::Place;
use crate::compile::names::{self, Direction};
use crate::compile::rule::{self, Owner};
use crate::graph::model::{PolicyKey, PolicyRules, ProfileRules, RuleSpec};
use crate::render::Table;
use crate::ruleset::{Action, Chain, Rule};
use tortie_api::net::IpVersion;
use tortie_api::policy::Action as PolicyAction;

/// The short kind of profiles.
const PROFILE: &str = "pro";

/// The tables with policy.
const TABLES: [Table; 3] = [Table::Raw, Table::Mangle, Table::Filter];

impl Classic {
    pub(super) fn handle_policy(&mut self, policy: &Arc<PolicyRules>) {
        if policy.staged {
            self.drop_policy(&policy.key);
            return;
        }
        for direction in Direction::BOTH {
            let name = names::policy_chain(direction, &policy.key);
            for table in TABLES {
                if self.is_offered(table, &name) {
                    self.set_policy(table, direction, policy);
                }
            }
            if self.has_workloads {
                self.each(Table::Filter).for_each(|chains| chains.pin(&name, policy.everywhere));
            }
        }
        self.policies.insert(policy.key.clone(), policy.clone());
    }

    pub(super) fn drop_policy(&mut self, key: &PolicyKey) {
        if self.policies.remove(key).is_none() {
            return;
        }
        for name in Direction::BOTH.map(|d| names::policy_chain(d, key)) {
            self.each(Table::Filter).for_each(|chains| chains.pin(&name, false));
            self.remove_chain(&name);
        }
    }

    pub(super) fn handle_profile(&mut self, profile: &Arc<ProfileRules>) {
        for direction in Direction::BOTH {
            let name = names::profile_chain(direction, &profile.name);
            for table in TABLES {
                if self.is_offered(table, &name) {
                    self.set_profile(table, direction, profile);
                }
            }
        }
        self.profiles.insert(profile.name.clone(), profile.clone());
    }

    pub(super) fn drop_profile(&mut self, name: &str) {
        self.profiles.remove(name);
        for name in Direction::BOTH.map(|d| names::profile_chain(d, name)) {
            self.remove_chain(&name);
        }
    }

    /// Puts the policy's chain into the filter table, if it is not there.
    pub(super) fn offer_policy(&mut self, direction: Direction, key: &PolicyKey) {
        if !self.has_chain(Table::Filter, &names::policy_chain(direction, key))
            && let Some(policy) = self.policies.get(key).cloned()
        {
            self.set_policy(Table::Filter, direction, &policy);
        }
    }

    /// Puts the profile's chain into the filter table, if it is not there.
    pub(super) fn offer_profile_chain(&mut self, direction: Direction, name: &str) {
        if !self.has_chain(Table::Filter, &names::profile_chain(direction, name))
            && let Some(profile) = self.profiles.get(name).cloned()
        {
            self.set_profile(Table::Filter, direction, &profile);
        }
    }

    /// Puts the policies and profiles of an endpoint's chain into its table, if they are not there.
    pub(super) fn offer_rules(&mut self, chain: &EndpointChain<'_>) {
        let (table, direction) = (chain.table, chain.direction);
        for policy in chain.policies() {
            if !self.has_chain(table, &names::policy_chain(direction, &policy.key))
                && let Some(policy) = self.policies.get(&policy.key).cloned()
            {
                self.set_policy(table, direction, &policy);
            }
        }
        for profile in chain.profiles {
            if !self.has_chain(table, &names::profile_chain(direction, profile))
                && let Some(profile) = self.profiles.get(profile).cloned()
            {
                self.set_profile(table, direction, &profile);
            }
        }
    }

    fn is_offered(&mut self, table: Table, name: &str) -> bool {
        (table == Table::Filter && self.has_workloads) || self.each(table).any(|chains| chains.knows(name))
    }

    fn has_chain(&mut self, table: Table, name: &str) -> bool {
        self.each(table).all(|chains| chains.has(name))
    }

    fn remove_chain(&mut self, name: &str) {
        for table in TABLES {
            self.each(table).for_each(|chains| chains.remove(name));
        }
    }

    fn set_policy(&mut self, table: Table, direction: Direction, policy: &PolicyRules) {
        let qualified_name = policy.key.qualified_name();
        let owner = Owner {
            tier: &policy.tier,
            kind: policy.key.kind.short(),
            name: &policy.key.name,
            qualified_name: &qualified_name,
            id: &policy.key.id(),
            is_profile: false,
        };
        let name = names::policy_chain(direction, &policy.key);
        let rules = pick(direction, &policy.ingress, &policy.egress);
        let title = format!("{} {}", policy.key, direction.word());
        self.set_rule_chain(table, direction, &name, rules, &title, owner);
    }

    fn set_profile(&mut self, table: Table, direction: Direction, profile: &ProfileRules) {
        let owner = Owner {
            tier: "",
            kind: PROFILE,
            name: &profile.name,
            qualified_name: &profile.name,
            id: &profile.name,
            is_profile: true,
        };
        let name = names::profile_chain(direction, &profile.name);
        let rules = pick(direction, &profile.ingress, &profile.egress);
        let title = format!("Profile {} {}", profile.name, direction.word());
        self.set_rule_chain(table, direction, &name, rules, &title, owner);
    }

    fn set_rule_chain(
        &mut self,
        table: Table,
        direction: Direction,
        name: &str,
        rules: &[RuleSpec],
        title: &str,
        owner: Owner<'_>,
    ) {
        let config = match table {
            Table::Filter => &self.config,
            Table::Raw => &self.in_raw,
            Table::Mangle | Table::Nat => &self.outside_filter,
        };
        for ruleset in &mut self.rulesets {
            let rules = rule_chain(rules, direction, owner, title, ruleset.version, config);
            ruleset.table(table).set(Chain { name: name.to_owned(), rules });
        }
    }
}

/// The rules of a policy or profile. The first says whose they are; a trailing RETURN says nothing.
fn rule_chain(
    rules: &[RuleSpec],
    direction: Direction,
    owner: Owner<'_>,
    title: &str,
    version: IpVersion,
    config: &Config,
) -> Vec<Rule> {
    let mut compiled = Vec::new();
    // A profile comes behind the tiers, where the pass bit may be set already: it must not look like this
    // profile's own. Felix leaves it, so that the first Pass rule of a profile ends the profile for such packets.
    if owner.is_profile && rules.iter().any(|r| r.action == PolicyAction::Pass) {
        compiled.push(Rule::always(Action::ClearMark(config.marks.pass)));
    }
    for (index, spec) in rules.iter().enumerate() {
        compiled.extend(rule::compile(spec, Place { direction, index }, version, owner, config));
    }
    while compiled.last().is_some_and(|r| r.action == Some(Action::Return)) {
        compiled.pop();
    }
    if compiled.is_empty() {
        compiled.push(Rule::default());
    }
    compiled[0].comments.push(title.to_owned());
    compiled
}

fn pick<'a, T>(direction: Direction, ingress: &'a [T], egress: &'a [T]) -> &'a [T] {
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}
