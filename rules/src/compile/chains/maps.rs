//! Verdict maps beside the chains that look into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ruleset::{Key, Map, MapType, Verdict};

/// A map, and how it differs from what was polled last.
#[derive(Debug)]
pub(super) struct MapEntry {
    pub(super) holds: MapType,
    pub(super) all: Option<Verdict>,
    pub(super) elements: BTreeMap<Key, Verdict>,
    /// Lookups of programmed chains.
    pub(super) references: usize,
    /// It stands for its content, and is forgotten with its last reference.
    pub(super) is_interned: bool,
    /// The chains that elements lead to, with their number.
    targets: BTreeMap<Arc<str>, usize>,
    /// It came into use, or into use again: all of it is to be told.
    pub(super) is_whole: bool,
    /// Elements that changed, as they were before.
    before: BTreeMap<Key, Option<Verdict>>,
}

/// A chain that gained its first element of a map, and one that lost its last.
pub(super) type TargetChange = (Option<Arc<str>>, Option<Arc<str>>);

impl MapEntry {
    pub(super) fn new(holds: MapType, all: Option<Verdict>, is_interned: bool) -> Self {
        Self {
            holds,
            all,
            elements: BTreeMap::new(),
            references: 0,
            is_interned,
            is_whole: true,
            targets: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    /// The chains that it leads to, each once.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Arc<str>> {
        self.targets.keys()
    }

    /// Whether an element leads to this chain.
    pub(super) fn leads_to(&self, chain: &str) -> bool {
        self.targets.contains_key(chain)
    }

    /// Sets or removes an element.
    pub(super) fn set(&mut self, key: Key, verdict: Option<Verdict>) -> TargetChange {
        let old = self.elements.get(&key);
        if old == verdict.as_ref() {
            return (None, None);
        }
        let gained = verdict.as_ref().and_then(Verdict::target).and_then(|target| {
            let count = self.targets.entry(target.clone()).or_insert(0);
            *count += 1;
            (*count == 1).then(|| target.clone())
        });
        let lost = old.and_then(Verdict::target).cloned().filter(|target| {
            let count = self.targets.get_mut(target).expect("an element's target is counted");
            *count -= 1;
            *count == 0
        });
        if let Some(lost) = &lost {
            self.targets.remove(lost);
        }
        let old = match verdict {
            Some(verdict) => self.elements.insert(key.clone(), verdict),
            None => self.elements.remove(&key),
        };
        // Nobody asks for the difference of a map that is told as a whole.
        if !self.is_whole {
            self.before.entry(key).or_insert(old);
        }
        (gained, lost)
    }

    /// Elements that left and that came since the last call. One with another verdict does both.
    pub(super) fn take_changes(&mut self) -> (Vec<Key>, Vec<(Key, Verdict)>) {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (key, before) in std::mem::take(&mut self.before) {
            let now = self.elements.get(&key);
            if now == before.as_ref() {
                continue;
            }
            added.extend(now.map(|verdict| (key.clone(), verdict.clone())));
            if before.is_some() {
                removed.push(key);
            }
        }
        (removed, added)
    }

    /// From now on only changes are told.
    pub(super) fn tell_whole(&mut self) {
        self.is_whole = false;
        self.before.clear();
    }

    /// All of it, as it is.
    pub(super) fn content(&self, name: &str) -> Map {
        Map {
            name: name.to_owned(),
            holds: self.holds,
            all: self.all.clone(),
            elements: self.elements.clone(),
        }
    }
}
