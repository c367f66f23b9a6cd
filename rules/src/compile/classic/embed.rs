//! The part of this compiler that another one builds on: everything but the chains of workloads.
//!
//! The other one sees to sets of the graph as well, of which it needs those only that rules look into.

use std::sync::Arc;

use tortie_api::net::IpVersion;

use super::{Classic, SetChange, TableContent};
use crate::compile::chains::{Chains, Change};
use crate::compile::config::Config;
use crate::compile::names::Direction;
use crate::graph::model::{PolicyKey, PolicyRules, ProfileRules};
use crate::render::Table;
use crate::render::iptables::Features;

impl Classic {
    /// Without chains for workloads, and without chains that do nothing. Chains of policies are made where something asks
    /// for them.
    pub(in crate::compile) fn without_workloads(config: Config) -> Self {
        let mut classic = Self { has_workloads: false, ..Self::new(config, Features::default()) };
        classic.all_chains().for_each(Chains::trim);
        classic
    }

    fn all_chains(&mut self) -> impl Iterator<Item = &mut Chains> {
        self.rulesets.iter_mut().flat_map(|ruleset| ruleset.tables.values_mut())
    }

    /// Finds out which chains do nothing.
    pub(in crate::compile) fn find_idle(&mut self) {
        self.all_chains().for_each(Chains::find_idle);
    }

    pub(in crate::compile) const fn config(&self) -> &Config {
        &self.config
    }

    pub(in crate::compile) fn policy(&self, key: &PolicyKey) -> Option<&Arc<PolicyRules>> {
        self.policies.get(key)
    }

    pub(in crate::compile) fn profile(&self, name: &str) -> Option<&Arc<ProfileRules>> {
        self.profiles.get(name)
    }

    /// The chains of the filter table of a version that is compiled for.
    pub(in crate::compile) fn filter(&mut self, version: IpVersion) -> &mut Chains {
        let at = self.rulesets.iter().position(|ruleset| ruleset.version == version);
        self.rulesets[at.expect("a version of the configuration")].table(Table::Filter)
    }

    /// Sees to it that the chain of a policy is there to jump to.
    pub(in crate::compile) fn offer(&mut self, direction: Direction, policy: &PolicyKey) {
        self.offer_policy(direction, policy);
    }

    /// The same for a profile.
    pub(in crate::compile) fn offer_profile(&mut self, direction: Direction, profile: &str) {
        self.offer_profile_chain(direction, profile);
    }

    /// Lets packets of known connections of everybody pass before they are looked at, or not.
    pub(in crate::compile) fn set_known_first(&mut self, is_on: bool) {
        if self.surroundings.known_first != is_on {
            self.surroundings.known_first = is_on;
            self.compile_statics();
        }
    }

    /// Brings up to date what many endpoints share.
    pub(in crate::compile) fn settle(&mut self) {
        self.compile_what_all_share();
    }

    /// Names of sets of a version that may have come into use, or gone out of it.
    pub(in crate::compile) fn take_dirty_sets(&mut self, version: IpVersion) -> Vec<String> {
        let tables = self.rulesets.iter_mut().filter(|ruleset| ruleset.version == version);
        let chains = tables.flat_map(|ruleset| ruleset.tables.values_mut());
        let mut names: Vec<String> = chains.flat_map(Chains::take_dirty_sets).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether a rule of any table looks into the set.
    pub(in crate::compile) fn uses_set(&self, version: IpVersion, name: &str) -> bool {
        let tables = self.rulesets.iter().filter(|ruleset| ruleset.version == version);
        tables.flat_map(|ruleset| ruleset.tables.values()).any(|chains| chains.uses_set(name))
    }

    /// Changes of sets that are not the graph's.
    pub(in crate::compile) fn take_own_sets(&mut self) -> Vec<SetChange> {
        std::mem::take(&mut self.sets)
    }

    /// What changed in the tables, typed.
    pub(in crate::compile) fn take_changes(&mut self) -> Vec<(IpVersion, Table, Change)> {
        let marks = self.config.marks;
        let mut changes = Vec::new();
        for ruleset in &mut self.rulesets {
            let version = ruleset.version;
            for (table, chains) in &mut ruleset.tables {
                changes.extend(chains.typed_changes(&marks).into_iter().map(|c| (version, *table, c)));
            }
        }
        changes
    }

    /// What is to be programmed.
    pub(in crate::compile) fn content(&self, version: IpVersion) -> Vec<TableContent> {
        let ruleset = self.rulesets.iter().filter(|ruleset| ruleset.version == version);
        let tables = ruleset.flat_map(|ruleset| &ruleset.tables);
        let content = tables.map(|(table, chains)| {
            let (hooks, content) = chains.content(&self.config.marks);
            TableContent { table: *table, hooks, chains: content, maps: chains.map_content() }
        });
        content.collect()
    }
}
