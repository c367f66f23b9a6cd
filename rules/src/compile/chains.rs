//! The chains of one table: which are wanted, which are reachable, which changed.
//!
//! A chain is programmed when a programmed chain or one of the kernel's own refers to it, or when it is pinned.
//! Others are kept and cost nothing.
//!
//! A chain that would let more through because the kernel lacks members of a set is closed until it has them.

mod broken;
mod idle;
mod maps;

use std::collections::{BTreeMap, BTreeSet};

pub use self::broken::BrokenSets;
use self::broken::{close, decides, opens_by_missing_members, set_match};
use self::maps::MapEntry;
use super::config::Marks;
use crate::render::{InsertMode, TableChange, iptables};
use crate::ruleset::{Action, Chain, Hook, Key, Map, MapType, Rule, Verdict};

#[derive(Debug, Default)]
struct Entry {
    chain: Option<Chain>,
    /// References from programmed chains, maps and hooks, plus one if pinned.
    references: usize,
    pinned: bool,
    /// It stands for its content, and is forgotten with its last reference.
    is_interned: bool,
}

/// A change of one table, typed: for drivers that do not speak text.
///
/// All changes of a table are one transaction. What is new comes before what refers to it, what goes away behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The map shall hold exactly these elements. It may be there already, with others.
    Map(Map),
    /// The chain shall hold exactly these rules.
    Chain(Chain),
    /// Elements of a map that is there. A key that is in both changes its verdict.
    Elements {
        /// Which map.
        map: String,
        /// These go, before the others come.
        removed: Vec<Key>,
        /// These come.
        added: Vec<(Key, Verdict)>,
    },
    /// Our rules in the kernel's chains, all of them.
    Hooks(Vec<Hook>),
    /// The chain of this name shall not exist.
    NoChain(String),
    /// The map of this name shall not exist.
    NoMap(String),
}

/// What a rule or an element refers to.
enum Node {
    Chain(String),
    Map(String),
    Set(String),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    entries: BTreeMap<String, Entry>,
    hooks: Vec<Hook>,
    hooks_changed: bool,
    /// Whether chains that do nothing are left out.
    trims: bool,
    /// Those that do nothing, if they are left out.
    idle: BTreeSet<String>,
    /// Those that only hooks lead to which are left out.
    unhooked: BTreeSet<String>,
    /// Our rules in the kernel's chains, as they were told last.
    told_hooks: Vec<Hook>,
    /// Chains whose content changed.
    dirty: BTreeSet<String>,
    /// Chains that came into use or went out of it.
    moved: BTreeSet<String>,
    programmed: BTreeSet<String>,
    /// Sets that the kernel does not hold as wanted.
    broken_sets: BrokenSets,
    maps: BTreeMap<String, MapEntry>,
    dirty_maps: BTreeSet<String>,
    programmed_maps: BTreeSet<String>,
    /// Interned chains and maps that may have lost their last reference.
    loose: BTreeSet<String>,
    /// Sets that rules of programmed chains look into, with the number of rules.
    sets: BTreeMap<String, usize>,
    /// Sets of which some were used and are not, or the other way.
    dirty_sets: BTreeSet<String>,
}

impl Chains {
    /// Sets our rules in the kernel's chains.
    pub(crate) fn set_hooks(&mut self, hooks: Vec<Hook>) {
        let nodes = |hooks: &[Hook]| -> Vec<Node> {
            hooks.iter().flat_map(|h| h.inserted.iter().chain(&h.appended)).flat_map(nodes_of_rule).collect()
        };
        let (old, new) = (nodes(&self.hooks), nodes(&hooks));
        self.hooks = hooks;
        self.hooks_changed = true;
        self.refer(new);
        self.unrefer(old);
    }

    /// Adds or changes a chain.
    pub(crate) fn set(&mut self, chain: Chain) {
        let entry = self.entries.entry(chain.name.clone()).or_default();
        if entry.chain.as_ref() == Some(&chain) {
            return;
        }
        let live = entry.references > 0;
        let new = nodes(Some(&chain));
        let name = chain.name.clone();
        let old = nodes(entry.chain.replace(chain).as_ref());
        if live || self.programmed.contains(&name) {
            self.dirty.insert(name);
        }
        if live {
            self.refer(new);
            self.unrefer(old);
        }
    }

    /// Adds a chain that is named by its content, and forgotten when nothing refers to it any more.
    pub(crate) fn intern(&mut self, name: &str, rules: impl FnOnce() -> Vec<Rule>) {
        if !self.has(name) {
            self.set(Chain { name: name.to_owned(), rules: rules() });
            self.loose.insert(name.to_owned());
            if let Some(entry) = self.entries.get_mut(name) {
                entry.is_interned = true;
            }
        }
    }

    /// The same with a map.
    pub(crate) fn intern_map(&mut self, name: &str, holds: MapType, elements: Vec<(Key, Verdict)>) {
        if !self.maps.contains_key(name) {
            self.add_map(name, holds, None, true);
            self.loose.insert(name.to_owned());
            elements.into_iter().for_each(|(key, verdict)| self.set_element(name, key, Some(verdict)));
        }
    }

    /// Adds an empty map, if there is none of this name.
    pub(crate) fn want_map(&mut self, name: &str, holds: MapType) {
        if !self.maps.contains_key(name) {
            self.add_map(name, holds, None, false);
        }
    }

    /// The same with a map all of whose elements say this.
    pub(crate) fn want_uniform_map(&mut self, name: &str, holds: MapType, all: Verdict) {
        if !self.maps.contains_key(name) {
            self.add_map(name, holds, Some(all), false);
        }
    }

    fn add_map(&mut self, name: &str, holds: MapType, all: Option<Verdict>, is_interned: bool) {
        self.maps.insert(name.to_owned(), MapEntry::new(holds, all, is_interned));
    }

    /// Sets an element of a map that is there, or removes it.
    pub(crate) fn set_element(&mut self, map: &str, key: Key, verdict: Option<Verdict>) {
        let Some(entry) = self.maps.get_mut(map) else { return };
        let (gained, lost) = entry.set(key, verdict);
        if entry.references > 0 {
            self.dirty_maps.insert(map.to_owned());
            self.dirty
                .extend(gained.iter().filter(|name| self.idle.contains(&***name)).map(ToString::to_string));
            self.refer(gained.map(|name| Node::Chain(name.to_string())).into_iter().collect());
            self.unrefer(lost.map(|name| Node::Chain(name.to_string())).into_iter().collect());
        }
    }

    /// Makes these the elements of a map that is there. Those that are already so are no change.
    pub(crate) fn set_elements(&mut self, map: &str, elements: BTreeMap<Key, Verdict>) {
        let Some(entry) = self.maps.get(map) else { return };
        let gone: Vec<Key> =
            entry.elements.keys().filter(|key| !elements.contains_key(*key)).cloned().collect();
        for (key, verdict) in elements {
            self.set_element(map, key, Some(verdict));
        }
        for key in gone {
            self.set_element(map, key, None);
        }
    }

    /// Removes a map that nothing refers to.
    pub(crate) fn remove_map(&mut self, name: &str) {
        if self.maps.get(name).is_some_and(|entry| entry.references == 0) {
            self.maps.remove(name);
        }
    }

    /// The map of this name.
    #[cfg(test)]
    pub(crate) fn map(&self, name: &str) -> Option<Map> {
        self.maps.get(name).map(|entry| entry.content(name))
    }

    /// The keys of a map from one to another, both included.
    pub(crate) fn keys_in(&self, map: &str, first: Key, last: Key) -> Vec<Key> {
        let range = self.maps.get(map).map(|entry| entry.elements.range(first..=last));
        range.into_iter().flatten().map(|(key, _)| key.clone()).collect()
    }

    /// The number of elements of a map.
    pub(crate) fn map_len(&self, name: &str) -> usize {
        self.maps.get(name).map_or(0, |entry| entry.elements.len())
    }

    /// The number of elements of all maps.
    pub(crate) fn elements(&self) -> usize {
        self.maps.values().map(|entry| entry.elements.len()).sum()
    }

    /// The number of maps that programmed chains look into, and of sets.
    pub(crate) fn lookups(&self) -> usize {
        self.maps.values().filter(|entry| entry.references > 0).count() + self.sets.len()
    }

    /// Whether a rule of a programmed chain looks into this set.
    pub(crate) fn uses_set(&self, name: &str) -> bool {
        self.sets.contains_key(name)
    }

    /// Names of sets that may have come into use, or gone out of it, since the last call.
    pub(crate) fn take_dirty_sets(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty_sets)
    }

    /// Whether the chain is there or something refers to it.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the chain is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.chain.is_some())
    }

    /// Removes a chain. Whoever still refers to it finds it closed (see [`Chains::changes`]).
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let live = entry.references > 0;
        let old = nodes(entry.chain.take().as_ref());
        if live || self.programmed.contains(name) {
            self.dirty.insert(name.to_owned());
        }
        if live {
            self.unrefer(old);
        } else {
            self.entries.remove(name);
        }
    }

    /// Programs a chain whether or not anything refers to it.
    pub(crate) fn pin(&mut self, name: &str, pinned: bool) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        if entry.pinned == pinned {
            return;
        }
        entry.pinned = pinned;
        let node = vec![Node::Chain(name.to_owned())];
        if pinned { self.refer(node) } else { self.unrefer(node) }
    }

    /// Notes which sets the kernel does not hold as wanted.
    pub(crate) fn set_broken_sets(&mut self, broken: &BrokenSets) {
        if self.broken_sets == *broken {
            return;
        }
        let changed: BTreeSet<&String> = [
            self.broken_sets.incomplete.symmetric_difference(&broken.incomplete),
            self.broken_sets.strange.symmetric_difference(&broken.strange),
        ]
        .into_iter()
        .flatten()
        .collect();
        let refers =
            |rule: &Rule| rule.matches.iter().filter_map(set_match).any(|(name, _)| changed.contains(name));
        let live = self.entries.iter().filter(|(n, e)| e.references > 0 || self.programmed.contains(*n));
        let touched = live.filter(|(_, e)| e.chain.as_ref().is_some_and(|c| c.rules.iter().any(refers)));
        self.dirty.extend(touched.map(|(name, _)| name.clone()));
        self.broken_sets.clone_from(broken);
    }

    /// What changed since the last call, rendered.
    pub(crate) fn changes(
        &mut self,
        mode: InsertMode,
        features: iptables::Features,
        marks: &Marks,
    ) -> Vec<TableChange> {
        self.dirty_sets.clear();
        let mut changes = Vec::new();
        for (name, chain) in self.dirty_chains(marks) {
            changes.push(match chain {
                Some(chain) => TableChange::Chain(iptables::chain(&chain, features).into()),
                None => TableChange::NoChain(name),
            });
        }
        if std::mem::take(&mut self.hooks_changed) {
            let hooks = self.hooks.iter().map(|h| iptables::hook(h, features)).collect();
            changes.push(TableChange::Hooks(hooks, mode));
        }
        changes
    }

    /// What changed since the last call, typed. See [`Change`].
    pub(crate) fn typed_changes(&mut self, marks: &Marks) -> Vec<Change> {
        self.forget_loose();
        self.find_idle();
        let (mut new, mut elements, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.dirty_maps) {
            match self.maps.get_mut(&name).filter(|entry| entry.references > 0) {
                Some(entry) if !entry.is_whole => {
                    let (removed, added) = entry.take_changes();
                    if !removed.is_empty() || !added.is_empty() {
                        elements.push(Change::Elements { map: name, removed, added });
                    }
                }
                Some(entry) => {
                    entry.tell_whole();
                    new.push(Change::Map(entry.content(&name)));
                    self.programmed_maps.insert(name);
                }
                None if self.programmed_maps.remove(&name) => gone.push(Change::NoMap(name)),
                None => {}
            }
        }
        let (chains, no_chains): (Vec<_>, Vec<_>) =
            self.dirty_chains(marks).into_iter().partition(|(_, chain)| chain.is_some());
        let chains = chains.into_iter().filter_map(|(_, chain)| chain).map(Change::Chain);
        new.extend(chains.chain(elements));
        if std::mem::take(&mut self.hooks_changed) {
            self.told_hooks = self.trimmed_hooks();
            new.push(Change::Hooks(self.told_hooks.clone()));
        }
        new.extend(no_chains.into_iter().map(|(name, _)| Change::NoChain(name)).chain(gone));
        new
    }

    /// Chains that changed since the last call, as they are now; none for those that are to go.
    fn dirty_chains(&mut self, marks: &Marks) -> Vec<(String, Option<Chain>)> {
        let mut changes = Vec::new();
        let dirty = std::mem::take(&mut self.dirty);
        let mut names = std::mem::take(&mut self.moved);
        names.extend(dirty.iter().cloned());
        for name in names {
            let live = self.entries.get(&name).filter(|e| e.references > 0);
            match live.filter(|_| !self.is_left_out(&name)) {
                Some(_) if !dirty.contains(&name) && self.programmed.contains(&name) => {}
                Some(entry) => {
                    let chain = self.programmed_content(&name, entry, marks);
                    self.programmed.insert(name.clone());
                    changes.push((name, Some(chain)));
                }
                None if self.programmed.remove(&name) => changes.push((name, None)),
                None => {}
            }
        }
        changes
    }

    /// Forgets what stands for its content only and is not referred to.
    fn forget_loose(&mut self) {
        for name in std::mem::take(&mut self.loose) {
            if self.entries.get(&name).is_some_and(|e| e.is_interned && e.references == 0) {
                self.entries.remove(&name);
            }
            if self.maps.get(&name).is_some_and(|e| e.is_interned && e.references == 0) {
                self.maps.remove(&name);
            }
        }
    }

    /// What is to be programmed: our rules in the kernel's chains, and our chains by name.
    pub(crate) fn content(&self, marks: &Marks) -> (Vec<Hook>, Vec<Chain>) {
        let live = self.entries.iter().filter(|(_, entry)| entry.references > 0);
        let live = live.filter(|(name, _)| !self.is_left_out(name));
        let chains = live.map(|(name, entry)| self.programmed_content(name, entry, marks));
        (self.trimmed_hooks(), chains.collect())
    }

    fn programmed_content(&self, name: &str, entry: &Entry, marks: &Marks) -> Chain {
        let closed = self.closed(name, entry.chain.as_ref(), marks);
        let trimmed = |chain: &Chain| {
            let Chain { name, rules } = chain;
            if self.trims {
                Chain { name: name.clone(), rules: idle::trimmed(rules, &self.idle) }
            } else {
                chain.clone()
            }
        };
        let chain = closed.or_else(|| entry.chain.as_ref().map(trimmed));
        chain.unwrap_or_else(|| close(name, "not there yet"))
    }

    /// The maps that programmed chains look into.
    pub(crate) fn map_content(&self) -> Vec<Map> {
        let live = self.maps.iter().filter(|(_, entry)| entry.references > 0);
        live.map(|(name, entry)| entry.content(name)).collect()
    }

    /// The chain's stand-in, if a broken set would make it let more through.
    fn closed(&self, name: &str, chain: Option<&Chain>, marks: &Marks) -> Option<Chain> {
        let BrokenSets { incomplete, strange } = &self.broken_sets;
        if incomplete.is_empty() && strange.is_empty() {
            return None;
        }
        chain.into_iter().flat_map(|c| &c.rules).find_map(|rule| {
            rule.matches.iter().filter_map(set_match).find_map(|(set, negate)| {
                if strange.contains(set) && decides(rule, marks) {
                    Some(close(name, &format!("set {set} is not ours")))
                } else if incomplete.contains(set) && opens_by_missing_members(rule, negate, marks) {
                    Some(close(name, &format!("set {set} is incomplete")))
                } else {
                    None
                }
            })
        })
    }

    /// Counts references; with the first, what is referred to becomes live, and so does what that refers to.
    fn refer(&mut self, mut open: Vec<Node>) {
        while let Some(node) = open.pop() {
            match node {
                Node::Chain(name) => {
                    let entry = self.entries.entry(name.clone()).or_default();
                    entry.references += 1;
                    if entry.references == 1 {
                        open.extend(nodes(entry.chain.as_ref()));
                        self.moved.insert(name);
                    }
                }
                Node::Map(name) => {
                    let Some(entry) = self.maps.get_mut(&name) else { continue };
                    entry.references += 1;
                    if entry.references == 1 {
                        entry.is_whole = true;
                        open.extend(entry.targets().map(|chain| Node::Chain(chain.to_string())));
                        self.dirty_maps.insert(name);
                    }
                }
                Node::Set(name) => {
                    *self.sets.entry(name.clone()).or_insert(0) += 1;
                    self.dirty_sets.insert(name);
                }
            }
        }
    }

    fn unrefer(&mut self, mut open: Vec<Node>) {
        while let Some(node) = open.pop() {
            match node {
                Node::Chain(name) => {
                    let entry = self.entries.get_mut(&name).expect("a referenced chain has an entry");
                    entry.references -= 1;
                    if entry.references == 0 {
                        open.extend(nodes(entry.chain.as_ref()));
                        if entry.is_interned {
                            self.loose.insert(name.clone());
                        }
                        if entry.chain.is_none() {
                            self.entries.remove(&name);
                        }
                        self.moved.insert(name);
                    }
                }
                Node::Map(name) => {
                    let Some(entry) = self.maps.get_mut(&name) else { continue };
                    entry.references -= 1;
                    if entry.references == 0 {
                        open.extend(entry.targets().map(|chain| Node::Chain(chain.to_string())));
                        if entry.is_interned {
                            self.loose.insert(name.clone());
                        }
                        self.dirty_maps.insert(name);
                    }
                }
                Node::Set(name) => {
                    let uses = self.sets.get_mut(&name).expect("a used set is counted");
                    *uses -= 1;
                    if *uses == 0 {
                        self.sets.remove(&name);
                    }
                    self.dirty_sets.insert(name);
                }
            }
        }
    }
}

fn nodes_of_rule(rule: &Rule) -> impl Iterator<Item = Node> {
    let target = rule.action.as_ref().and_then(|action| match action {
        Action::Lookup { map, .. } => Some(Node::Map(map.clone())),
        action => action.target().map(|chain| Node::Chain(chain.to_owned())),
    });
    target.into_iter().chain(rule.matches.iter().filter_map(set_match).map(|(set, _)| Node::Set(set.clone())))
}

fn nodes(chain: Option<&Chain>) -> Vec<Node> {
    chain.into_iter().flat_map(|c| &c.rules).flat_map(nodes_of_rule).collect()
}

#[cfg(test)]
mod tests;
