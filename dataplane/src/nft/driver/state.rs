//! A table's desired and actual content side by side. Pure: no kernel call, no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tortie_api::net::IpVersion;
use tortie_rules::render::nft::{self as lower, Content};
use tortie_rules::ruleset::nft::{BaseChain, Expression, Verdict};

use super::offload::Offload;
use super::plan::{Step, Steps};
use super::quarantine::{Quarantine, Thing};
use super::set::{Actual, Set};

/// What the kernel has under a chain's name.
#[derive(Clone, Debug, Default)]
pub(super) enum Held {
    /// Nothing.
    #[default]
    Absent,
    /// This chain with these rules.
    Content(Arc<Content>),
    /// A chain with other rules.
    Other(Option<BaseChain>),
    /// A chain that we could not have made.
    Foreign,
}

impl Held {
    pub(super) const fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Whether the kernel enters it where it shall. If not, only another chain can take its place.
    pub(super) fn is_placed_like(&self, content: &Content) -> bool {
        let wanted = content.chain.base.as_ref();
        match self {
            Self::Absent | Self::Foreign => false,
            Self::Content(content) => content.chain.base.as_ref() == wanted,
            Self::Other(base) => base.as_ref() == wanted,
        }
    }

    fn is(&self, wanted: &Arc<Content>) -> bool {
        matches!(self, Self::Content(content) if Arc::ptr_eq(content, wanted) || content == wanted)
    }
}

/// A chain under a name of ours.
#[derive(Debug, Default)]
pub(super) struct ChainState {
    pub(super) wanted: Option<Arc<Content>>,
    pub(super) held: Held,
}

/// What is wanted of a table, what is there, and what could not be brought together.
#[derive(Debug)]
pub(super) struct State {
    pub(super) version: IpVersion,
    workloads: Vec<String>,
    pub(super) chains: BTreeMap<String, ChainState>,
    pub(super) sets: BTreeMap<String, Set>,
    /// Chains and sets that may differ. Everything else is known to be as wanted.
    pub(super) dirty_chains: BTreeSet<String>,
    pub(super) dirty_sets: BTreeSet<String>,
    /// Whether the table itself is there.
    pub(super) has_table: bool,
    /// Whether anything of this is known.
    pub(super) is_known: bool,
    pub(super) quarantine: Quarantine,
    /// Connections that skip the rules.
    pub(super) offload: Offload,
}

impl State {
    /// Nothing wanted, nothing known.
    pub(super) fn new(version: IpVersion, workloads: Vec<String>) -> Self {
        Self {
            version,
            workloads,
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            dirty_chains: BTreeSet::new(),
            dirty_sets: BTreeSet::new(),
            has_table: false,
            is_known: false,
            quarantine: Quarantine::default(),
            offload: Offload::default(),
        }
    }

    /// Wants a chain with exactly these rules.
    pub(super) fn want_chain(&mut self, content: Content) {
        let name = content.chain.name.clone();
        let state = self.chains.entry(name.clone()).or_default();
        if state.wanted.as_deref() == Some(&content) {
            return;
        }
        state.wanted = Some(content.into());
        self.quarantine.release(&Thing::Chain(name.clone()));
        self.dirty_chains.insert(name);
    }

    /// No longer wants a chain.
    pub(super) fn unwant_chain(&mut self, name: &str) {
        if let Some(state) = self.chains.get_mut(name)
            && state.wanted.take().is_some()
        {
            self.quarantine.release(&Thing::Chain(name.to_owned()));
            self.dirty_chains.insert(name.to_owned());
        }
    }

    /// The set of this name, to be changed.
    pub(super) fn set_mut(&mut self, name: &str) -> &mut Set {
        if self.quarantine.release(&Thing::Set(name.to_owned())) {
            // They were closed for it.
            let users = self.users_of(&BTreeSet::from([name.to_owned()]));
            self.dirty_chains.extend(users);
        }
        self.dirty_sets.insert(name.to_owned());
        self.sets.entry(name.to_owned()).or_insert_with(|| Set::new(Actual::Absent))
    }

    /// The same, if there is one.
    pub(super) fn known_set_mut(&mut self, name: &str) -> Option<&mut Set> {
        self.sets.contains_key(name).then(|| self.set_mut(name))
    }

    /// What a chain shall hold now, with the quarantine considered.
    pub(super) fn content(&self, name: &str) -> Option<Arc<Content>> {
        let wanted = self.chains.get(name)?.wanted.as_ref()?;
        let is_closed = self.quarantine.has(&Thing::Chain(name.to_owned()))
            || (self.quarantine.has_sets()
                && sets_of(wanted).any(|set| self.quarantine.has(&Thing::Set(set.to_owned()))));
        Some(if is_closed { Arc::new(self.closed(wanted)) } else { Arc::clone(wanted) })
    }

    /// The stand-in for a chain. One at a hook goes on to lead where it did.
    fn closed(&self, wanted: &Content) -> Content {
        let name = &wanted.chain.name;
        let Some(base) = &wanted.chain.base else { return self.stand_in(name) };
        let mut content = Content { chain: wanted.chain.clone(), rules: Vec::new() };
        let is_jump = |e: &Expression| matches!(e, Expression::Verdict(Verdict::Jump(_)));
        let jumps = wanted.rules.iter().filter(|rule| rule.expressions.iter().all(is_jump));
        content.rules.extend(jumps.cloned());
        content.chain.base = Some(base.clone());
        content
    }

    /// The stand-in for a chain of this name that is no hook's.
    pub(super) fn stand_in(&self, name: &str) -> Content {
        lower::closed(name, self.version, &self.workloads)
    }

    /// Whether the kernel has the chain as wanted.
    pub(super) fn is_chain_settled(&self, name: &str) -> bool {
        let Some(state) = self.chains.get(name) else { return true };
        match self.content(name) {
            Some(content) => state.held.is(&content),
            None => !state.held.is_there(),
        }
    }

    /// Puts a chain on the worklist, or takes it off.
    pub(super) fn settle_chain(&mut self, name: &str) {
        if !self.is_chain_settled(name) {
            self.dirty_chains.insert(name.to_owned());
            return;
        }
        self.dirty_chains.remove(name);
        let is_gone = |state: &ChainState| state.wanted.is_none() && !state.held.is_there();
        if self.chains.get(name).is_some_and(is_gone) {
            self.chains.remove(name);
        }
    }

    /// The same for a set.
    pub(super) fn settle_set(&mut self, name: &str) {
        let Some(set) = self.sets.get(name) else { return };
        if !set.is_settled() {
            self.dirty_sets.insert(name.to_owned());
            return;
        }
        self.dirty_sets.remove(name);
        if !set.is_wanted() {
            self.sets.remove(name);
        }
    }

    /// Chains that shall be there and look into one of these sets.
    pub(super) fn users_of(&self, sets: &BTreeSet<String>) -> Vec<String> {
        if sets.is_empty() {
            return Vec::new();
        }
        let uses = |state: &ChainState| {
            let held = match &state.held {
                Held::Content(content) => Some(content),
                Held::Absent | Held::Other(_) | Held::Foreign => None,
            };
            let contents = state.wanted.iter().chain(held);
            contents.into_iter().any(|content| sets_of(content).any(|set| sets.contains(set)))
        };
        self.chains.iter().filter(|(_, state)| uses(state)).map(|(name, _)| name.clone()).collect()
    }

    /// How many jumps away from a hook the wanted chains are; those that rules lead to.
    pub(super) fn depths(&self) -> BTreeMap<String, usize> {
        let wanted = |name: &str| self.chains.get(name).and_then(|state| state.wanted.as_ref());
        let is_base = |name: &&String| wanted(name).is_some_and(|content| content.chain.base.is_some());
        let mut queue: VecDeque<(String, usize)> =
            self.chains.keys().filter(is_base).map(|name| (name.clone(), 0)).collect();
        let mut depths = BTreeMap::new();
        while let Some((name, depth)) = queue.pop_front() {
            if depths.contains_key(&name) {
                continue;
            }
            let targets = wanted(&name).into_iter().flat_map(|content| targets_of(content));
            queue.extend(targets.map(|target| (target.to_owned(), depth + 1)));
            depths.insert(name, depth);
        }
        depths
    }

    /// The kernel's table is gone with all that was in it.
    pub(super) fn forget_all(&mut self) {
        self.has_table = false;
        self.offload.absent();
        for state in self.chains.values_mut() {
            state.held = Held::Absent;
        }
        for set in self.sets.values_mut() {
            set.actual = Actual::Absent;
        }
    }

    /// Works out what is to do after a reading.
    pub(super) fn settle_all(&mut self) {
        let chains: Vec<String> = self.chains.keys().cloned().collect();
        chains.iter().for_each(|name| self.settle_chain(name));
        let sets: Vec<String> = self.sets.keys().cloned().collect();
        sets.iter().for_each(|name| self.settle_set(name));
    }

    /// The steps of a phase are done.
    pub(super) fn believe(&mut self, steps: &Steps) {
        for step in steps.iter() {
            match step {
                Step::AddTable(_) => self.has_table = true,
                Step::DeleteTable => self.forget_all(),
                Step::AddFlowtable => self.offload.created(),
                Step::DeleteFlowtable(name) => self.offload.deleted(name),
                _ => {}
            }
        }
        for name in &steps.chains {
            let content = self.content(name);
            if let Some(state) = self.chains.get_mut(name) {
                state.held = content.map_or(Held::Absent, Held::Content);
            }
            self.settle_chain(name);
        }
        for name in &steps.sets {
            if let Some(set) = self.sets.get_mut(name) {
                set.done();
            }
            self.settle_set(name);
        }
    }

    /// Whether anything is wanted of the table.
    pub(super) fn is_wanted(&self) -> bool {
        self.chains.values().any(|state| state.wanted.is_some()) || self.sets.values().any(Set::is_wanted)
    }
}

/// The chains that rules of a chain lead to.
fn targets_of(content: &Content) -> impl Iterator<Item = &str> {
    content.rules.iter().flat_map(|rule| &rule.expressions).filter_map(|expression| match expression {
        Expression::Verdict(verdict) => verdict.target(),
        _ => None,
    })
}

/// The sets that a chain looks into.
pub(super) fn sets_of(content: &Content) -> impl Iterator<Item = &str> {
    content.rules.iter().flat_map(|rule| &rule.expressions).filter_map(|expression| match expression {
        Expression::Lookup { set, .. } => Some(set.as_str()),
        Expression::Map { map, .. } | Expression::VerdictMap { map, .. } => Some(map.as_str()),
        Expression::DynamicSet(dynamic) => Some(dynamic.set.as_str()),
        _ => None,
    })
}
