//! Where selectors are looked up: the labels that they cannot match without.
//!
//! A value is told from another by a digest: two that share one only make a selector be evaluated in vain.

use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{KeyId, LabelsId, SelectorId};
use crate::graph::id_set::IdSet;
use crate::graph::matcher::Demand;

/// Where a selector is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// For items with this key.
    Key(KeyId),
    /// For items with this label.
    Value(KeyId, u64),
    /// For items with this key and one of these values.
    Values(KeyId, Box<[u64]>),
    /// For every item.
    Everywhere,
}

impl Anchor {
    pub(super) fn of(demand: &Demand<'_>) -> Self {
        match demand.values.as_deref() {
            None => Self::Key(demand.key),
            Some([one]) => Self::Value(demand.key, digest(one.as_bytes())),
            Some(many) => {
                let mut digests: Vec<u64> = many.iter().map(|value| digest(value.as_bytes())).collect();
                digests.sort_unstable();
                digests.dedup();
                Self::Values(demand.key, digests.into())
            }
        }
    }
}

fn digest(value: &[u8]) -> u64 {
    FxBuildHasher.hash_one(value)
}

/// What is known of a key.
#[derive(Debug, Default)]
struct Key {
    /// How often selectors ask for it.
    asked: usize,
    /// Sets of labels that have it.
    holders: IdSet,
    /// Selectors that are anchored here, whatever the value.
    selectors: IdSet,
    /// Selectors that are anchored at one value or more, counted by value.
    by_value: usize,
    /// The same by value, once a selector asked for one.
    values: Option<FxHashMap<u64, Value>>,
}

#[derive(Debug, Default)]
struct Value {
    holders: IdSet,
    selectors: IdSet,
}

impl Value {
    fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.selectors.is_empty()
    }
}

/// Holders of labels and selectors by label.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    keys: Vec<Key>,
    everywhere: IdSet,
}

impl Anchors {
    fn key(&mut self, key: KeyId) -> &mut Key {
        let at = key.0 as usize;
        if self.keys.len() <= at {
            self.keys.resize_with(at + 1, Key::default);
        }
        &mut self.keys[at]
    }

    /// A selector begins to ask for a key.
    pub(super) fn ask(&mut self, key: KeyId) {
        self.key(key).asked += 1;
    }

    /// A selector ceases to ask for a key.
    pub(super) fn cease(&mut self, key: KeyId) {
        self.key(key).asked -= 1;
    }

    pub(super) fn is_asked(&self, key: KeyId) -> bool {
        self.keys.get(key.0 as usize).is_some_and(|key| key.asked > 0)
    }

    /// The number of a key is free for another.
    pub(super) fn forget(&mut self, key: KeyId) {
        *self.key(key) = Key::default();
    }

    pub(super) fn add_holder(&mut self, key: KeyId, value: &[u8], holder: LabelsId) {
        let key = self.key(key);
        key.holders.insert(holder);
        if let Some(values) = &mut key.values {
            values.entry(digest(value)).or_default().holders.insert(holder);
        }
    }

    pub(super) fn remove_holder(&mut self, key: KeyId, value: &[u8], holder: LabelsId) {
        let key = self.key(key);
        key.holders.remove(holder);
        let digest = digest(value);
        if let Some(values) = &mut key.values
            && let Some(value) = values.get_mut(&digest)
        {
            value.holders.remove(holder);
            if value.is_empty() {
                values.remove(&digest);
            }
        }
    }

    /// Makes sure that the holders of a key are known by value; `labels` gives the labels of a holder.
    pub(super) fn index_values<'a>(&mut self, id: KeyId, labels: impl Fn(LabelsId) -> &'a [u8]) {
        let key = self.key(id);
        if key.values.is_some() {
            return;
        }
        let mut values: FxHashMap<u64, Value> = FxHashMap::default();
        for holder in key.holders.iter() {
            if let Some(value) = crate::graph::labels::find(labels(holder), id) {
                values.entry(digest(value)).or_default().holders.insert(holder);
            }
        }
        key.values = Some(values);
    }

    pub(super) fn add(&mut self, anchor: &Anchor, selector: SelectorId) {
        self.each_list(anchor, &mut |list| list.insert(selector));
    }

    pub(super) fn remove(&mut self, anchor: &Anchor, selector: SelectorId) {
        self.each_list(anchor, &mut |list| list.remove(selector));
    }

    fn each_list(&mut self, anchor: &Anchor, change: &mut dyn FnMut(&mut IdSet)) {
        let (key, digests) = match anchor {
            Anchor::Everywhere => return change(&mut self.everywhere),
            Anchor::Key(key) => return change(&mut self.key(*key).selectors),
            Anchor::Value(key, digest) => (*key, std::slice::from_ref(digest)),
            Anchor::Values(key, digests) => (*key, &**digests),
        };
        let key = self.key(key);
        let values = key.values.get_or_insert_default();
        for digest in digests {
            let value = values.entry(*digest).or_default();
            key.by_value -= value.selectors.len();
            change(&mut value.selectors);
            key.by_value += value.selectors.len();
            if value.is_empty() {
                values.remove(digest);
            }
        }
    }

    /// Selectors at a place.
    pub(super) fn load(&self, anchor: &Anchor) -> usize {
        match anchor {
            Anchor::Everywhere => self.everywhere.len(),
            Anchor::Key(key) => self.keys.get(key.0 as usize).map_or(0, |key| key.selectors.len()),
            Anchor::Value(key, digest) => self.value(*key, *digest).map_or(0, |v| v.selectors.len()),
            Anchor::Values(key, digests) => {
                digests.iter().filter_map(|d| self.value(*key, *d)).map(|v| v.selectors.len()).sum()
            }
        }
    }

    /// Sets of labels at a place. `None` for all that there are.
    pub(super) fn holders(&self, anchor: &Anchor) -> Option<Vec<&IdSet>> {
        let of = |key: KeyId, digests: &[u64]| {
            digests.iter().filter_map(|d| self.value(key, *d)).map(|v| &v.holders).collect()
        };
        match anchor {
            Anchor::Everywhere => None,
            Anchor::Key(key) => {
                Some(self.keys.get(key.0 as usize).map(|key| &key.holders).into_iter().collect())
            }
            Anchor::Value(key, digest) => Some(of(*key, &[*digest])),
            Anchor::Values(key, digests) => Some(of(*key, digests)),
        }
    }

    fn value(&self, key: KeyId, digest: u64) -> Option<&Value> {
        self.keys.get(key.0 as usize)?.values.as_ref()?.get(&digest)
    }

    /// Selectors that something with these labels may match, some of them more than once.
    pub(super) fn candidates<'a>(
        &self,
        labels: impl Iterator<Item = (KeyId, &'a [u8])>,
        out: &mut Vec<SelectorId>,
    ) {
        out.extend(self.everywhere.iter());
        for (key, value) in labels {
            let Some(key) = self.keys.get(key.0 as usize) else { continue };
            out.extend(key.selectors.iter());
            if key.by_value > 0
                && let Some(value) = key.values.as_ref().and_then(|values| values.get(&digest(value)))
            {
                out.extend(value.selectors.iter());
            }
        }
    }
}
