//! The lists of one IP version, compiled.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use tortie_api::net::IpVersion;

use super::Budget;
use super::block::{Block, Limits, TooComplex};
use super::key::ListKey;
use super::list::{self, Level, Planner};
use super::members::{Members, SetNumber, Touched};
use super::outcome::Palette;
use super::sets::NamedSets;
use crate::compile::classic::{Classic, SetChange, type_of};
use crate::compile::config::Config;
use crate::compile::names::Direction;
use crate::graph::model::{Member, PolicyKey, SetId, SetKind};
use crate::ruleset::Side;

/// A compiled list.
#[derive(Debug)]
struct Built {
    level: Level,
    blocks: Vec<Block>,
    /// Its chains: its own, those of blocks, those of barriers.
    chains: BTreeSet<String>,
    /// Policies that can be edited in their block: its number, the section, the place in that.
    places: BTreeMap<PolicyKey, (usize, usize, usize)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Version {
    ip: IpVersion,
    palette: Palette,
    members: Members,
    named_sets: NamedSets,
    built: BTreeMap<String, Built>,
    /// Lists with blocks that ask for a set.
    askers: FxHashMap<SetNumber, BTreeSet<String>>,
    touched: BTreeMap<SetNumber, Touched>,
    /// Members of sets that are gone since lists were compiled last.
    gone: BTreeMap<SetNumber, Touched>,
}

impl Version {
    pub(super) fn new(version: IpVersion, config: &Config, budget: &Budget) -> Self {
        Self {
            ip: version,
            palette: Palette::new(config, budget.lookups),
            members: Members::new(version),
            named_sets: NamedSets::new(version),
            built: BTreeMap::new(),
            askers: FxHashMap::default(),
            touched: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    pub(super) const fn number(&self) -> IpVersion {
        self.ip
    }

    pub(super) fn sets_in_use(&self) -> usize {
        self.named_sets.len()
    }

    pub(super) fn linear_lists(&self) -> usize {
        self.built.values().filter(|built| built.level == Level::Linear).count()
    }

    pub(super) fn add_set(&mut self, id: &SetId, kind: SetKind, members: &[Member]) {
        // Lists that ask for it come with it or behind it.
        let holds = type_of(id, kind);
        if let Some(set) = self.members.number(id).and_then(|number| self.members.get(number)) {
            let wanted: BTreeSet<&Member> = members.iter().collect();
            let mut removed = set.all(self.ip);
            removed.retain(|member| !wanted.contains(member));
            self.change_set(id, members, &removed);
            return;
        }
        let number = self.members.add(id, holds);
        self.named_sets.add(id);
        self.members.change(number, members, &[]);
    }

    pub(super) fn change_set(&mut self, id: &SetId, added: &[Member], removed: &[Member]) {
        let Some(number) = self.members.number(id) else { return };
        let Touched { hosts, ranges } = self.members.change(number, added, removed);
        if self.askers.contains_key(&number) {
            let touched = self.touched.entry(number).or_default();
            touched.extend(Touched { hosts, ranges });
        }
        self.named_sets.change(id, added, removed);
    }

    pub(super) fn remove_set(&mut self, id: &SetId) {
        if let Some((number, mut members)) = self.members.remove(id) {
            members.extend(self.touched.remove(&number).unwrap_or_default());
            self.gone.insert(number, members);
        }
        self.named_sets.remove(id);
    }

    /// Compiles a list, as well as it goes.
    pub(super) fn build(&mut self, name: &str, key: &ListKey, classic: &mut Classic, budget: &Budget) {
        let mut tried = BTreeSet::new();
        for level in [Level::Pieces, Level::Whole, Level::Linear] {
            let has_room = classic.filter(self.ip).elements() <= budget.elements
                || self.built.get(name).is_some_and(|built| built.level >= level);
            if level > Level::Linear && !has_room {
                continue;
            }
            if let Ok(built) = self.try_build((name, key), level, classic, budget.block, &mut tried) {
                self.replace(name, built, &tried, classic);
                return;
            }
        }
    }

    /// Edits policies of a list in their blocks. Returns whether that is all: if not, the list must be compiled anew.
    pub(super) fn edit(
        &mut self,
        (name, key): (&str, &ListKey),
        policies: &BTreeSet<PolicyKey>,
        classic: &mut Classic,
    ) -> bool {
        policies.iter().all(|policy| self.edit_policy((name, key), policy, classic).is_some())
    }

    fn edit_policy(
        &mut self,
        (name, key): (&str, &ListKey),
        policy: &PolicyKey,
        classic: &mut Classic,
    ) -> Option<()> {
        let rules = classic.policy(policy)?.clone();
        let steps = list::steps_of(&rules, key.direction, self.ip, classic.config())?;
        let built = self.built.get_mut(name)?;
        let (block, section, owner) = *built.places.get(policy)?;
        // A tier that can change nothing has no section.
        if steps.is_empty() && !key.denies_behind(policy) {
            return None;
        }
        let left = |set: SetNumber| {
            let mut left = self.gone.get(&set).cloned().unwrap_or_default();
            left.extend(self.touched.get(&set).cloned().unwrap_or_default());
            left
        };
        let chains = classic.filter(self.ip);
        let block = built.blocks.get_mut(block)?;
        let change = block.edit((section, owner), steps, &left, &self.members, chains).ok()?;
        for set in change.came {
            self.askers.entry(set).or_default().insert(name.to_owned());
        }
        for set in change.went.into_iter().filter(|set| !built.blocks.iter().any(|b| b.asks_for(*set))) {
            if let Some(lists) = self.askers.get_mut(&set) {
                lists.remove(name);
            }
        }
        Some(())
    }

    /// Notes the names of blocks that it made, also where it fails then.
    fn try_build(
        &mut self,
        (name, key): (&str, &ListKey),
        level: Level,
        classic: &mut Classic,
        limits: Limits,
        tried: &mut BTreeSet<String>,
    ) -> Result<Built, TooComplex> {
        let plan = Planner::new(key, classic, self.ip, level).plan();
        let side = match key.direction {
            Direction::Ingress => Side::Source,
            Direction::Egress => Side::Destination,
        };
        for policy in &plan.policies {
            classic.offer(key.direction, policy);
        }
        for profile in &plan.profiles {
            classic.offer_profile(key.direction, profile);
        }
        let chains = classic.filter(self.ip);
        let chain_names = BTreeSet::from([name.to_owned()]);
        let mut built = Built { level, blocks: Vec::new(), chains: chain_names, places: plan.places };
        for (name, spec) in plan.blocks {
            built.chains.insert(name.clone());
            tried.insert(name.clone());
            let at = (self.ip, side);
            let by = (&self.palette, limits);
            built.blocks.push(Block::build(name, at, spec, by, &self.members, chains)?);
        }
        for chain in plan.barriers.into_iter().chain(plan.chain) {
            built.chains.insert(chain.name.clone());
            chains.set(chain);
        }
        Ok(built)
    }

    /// Puts a compiled list in the place of the one before, and takes away what is not needed any more.
    fn replace(&mut self, name: &str, built: Built, tried: &BTreeSet<String>, classic: &mut Classic) {
        let old = self.built.remove(name);
        self.unlink(name, old.as_ref());
        for set in built.blocks.iter().flat_map(Block::atoms) {
            self.askers.entry(set).or_default().insert(name.to_owned());
        }
        let kept: BTreeSet<&str> = built.blocks.iter().map(Block::name).collect();
        let chains = classic.filter(self.ip);
        let old_chains = old.iter().flat_map(|old| &old.chains);
        for chain in old_chains.chain(tried).filter(|chain| !built.chains.contains(*chain)) {
            chains.remove(chain);
        }
        let old_blocks = old.iter().flat_map(|old| &old.blocks).map(Block::name);
        let blocks = old_blocks.chain(tried.iter().map(String::as_str));
        for block in blocks.filter(|block| !kept.contains(block)) {
            Block::maps_of(block).iter().for_each(|map| chains.remove_map(map));
        }
        self.built.insert(name.to_owned(), built);
    }

    fn unlink(&mut self, name: &str, old: Option<&Built>) {
        for set in old.into_iter().flat_map(|old| &old.blocks).flat_map(Block::atoms) {
            if let Some(lists) = self.askers.get_mut(&set) {
                lists.remove(name);
                if lists.is_empty() {
                    self.askers.remove(&set);
                }
            }
        }
    }

    /// Takes a list away.
    pub(super) fn remove(&mut self, name: &str, classic: &mut Classic) {
        let Some(old) = self.built.remove(name) else { return };
        self.unlink(name, Some(&old));
        let chains = classic.filter(self.ip);
        old.chains.iter().for_each(|chain| chains.remove(chain));
        for block in &old.blocks {
            Block::maps_of(block.name()).iter().for_each(|map| chains.remove_map(map));
        }
    }

    /// Takes changes of members to the blocks that ask for them. Returns lists that must be compiled anew.
    pub(super) fn take_touched(&mut self, classic: &mut Classic) -> Vec<String> {
        self.gone.clear();
        let mut by_list: BTreeMap<&String, Vec<SetNumber>> = BTreeMap::new();
        let touched = std::mem::take(&mut self.touched);
        for number in touched.keys() {
            for list in self.askers.get(number).into_iter().flatten() {
                by_list.entry(list).or_default().push(*number);
            }
        }
        let mut failed = Vec::new();
        let chains = classic.filter(self.ip);
        for (name, numbers) in by_list {
            let blocks = self.built.get_mut(name).into_iter().flat_map(|built| &mut built.blocks);
            for block in blocks {
                let mut all = Touched::default();
                for number in numbers.iter().filter(|number| block.asks_for(**number)) {
                    all.extend(touched[number].clone());
                }
                let is_touched = !all.is_empty();
                if is_touched && block.touch(&all, &self.members, chains).is_err() {
                    failed.push(name.clone());
                    break;
                }
            }
        }
        failed
    }

    /// Changes of named sets: of those that rules look into.
    pub(super) fn take_set_changes(&mut self, classic: &mut Classic) -> Vec<SetChange> {
        self.named_sets.take_changes(&self.members, classic)
    }
}
