//! Where selectors are looked up: the labels that they cannot match without.
//!
//! A value is told from another by a digest: two that share one only make a selector be evaluated in vain.

use super::postings::{Posting, Postings};
use super::{KeyId, SelectorId};

use crate::graph::id_set::IdSet;
use crate::graph::number_table::Digest;
use crate::graph::packed_expr::Demand;

/// The number of a [`Holder`](super::kept::Holder).
type HolderNumber = u32;

/// Where a selector is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// For items with this key.
    Key(KeyId),
    /// For items with this label.
    Value(KeyId, Digest),
    /// For items with this key and one of these values.
    Values(Box<Values>),
    /// For every item.
    Everywhere,
}

/// A key with some of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values {
    key: KeyId,
    digests: Box<[Digest]>,
}

impl Anchor {
    pub(super) fn of(demand: &Demand<'_>) -> Self {
        match demand.values.as_deref() {
            None => Self::Key(demand.key),
            Some([one]) => Self::Value(demand.key, digest(one)),
            Some(many) => {
                let mut digests: Vec<Digest> = many.iter().map(|value| digest(value)).collect();
                digests.sort_unstable();
                digests.dedup();
                Self::Values(Box::new(Values { key: demand.key, digests: digests.into() }))
            }
        }
    }
}

fn digest(value: &[u8]) -> Digest {
    Digest::of(value)
}

/// What is known of a key.
#[derive(Debug, Default)]
struct Key {
    /// How often selectors ask for it.
    asked: usize,
    /// What has it.
    holders: IdSet,
    /// Selectors that are anchored here, whatever the value.
    selectors: IdSet,
    /// The same by value: holders once a selector asked for a value, selectors while there are any.
    holders_by_value: Option<Box<Postings>>,
    selectors_by_value: Option<Box<Postings>>,
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

    pub(super) fn add_holder(&mut self, key: KeyId, value: &[u8], holder: HolderNumber) {
        let key = self.key(key);
        key.holders.insert(holder);
        if let Some(values) = &mut key.holders_by_value {
            values.insert(digest(value), holder);
        }
    }

    pub(super) fn remove_holder(&mut self, key: KeyId, value: &[u8], holder: HolderNumber) {
        let key = self.key(key);
        key.holders.remove(holder);
        if let Some(values) = &mut key.holders_by_value {
            values.remove(digest(value), holder);
        }
    }

    /// Makes sure that the holders of a key are known by value; `labels` gives the labels of a holder.
    pub(super) fn index_values<'a>(&mut self, id: KeyId, labels: impl Fn(HolderNumber) -> &'a [u8]) {
        let key = self.key(id);
        if key.holders_by_value.is_some() {
            return;
        }
        let mut values = Box::<Postings>::default();
        for holder in key.holders.iter() {
            if let Some(value) = crate::graph::labels::find(labels(holder), id) {
                values.insert(digest(value), holder);
            }
        }
        key.holders_by_value = Some(values);
    }

    pub(super) fn add(&mut self, anchor: &Anchor, selector: SelectorId) {
        match anchor {
            Anchor::Everywhere => self.everywhere.insert(selector),
            Anchor::Key(key) => self.key(*key).selectors.insert(selector),
            Anchor::Value(key, digest) => self.add_at(*key, &[*digest], selector),
            Anchor::Values(values) => self.add_at(values.key, &values.digests, selector),
        }
    }

    fn add_at(&mut self, key: KeyId, digests: &[Digest], selector: SelectorId) {
        let values = self.key(key).selectors_by_value.get_or_insert_default();
        digests.iter().for_each(|digest| values.insert(*digest, selector));
    }

    pub(super) fn remove(&mut self, anchor: &Anchor, selector: SelectorId) {
        match anchor {
            Anchor::Everywhere => self.everywhere.remove(selector),
            Anchor::Key(key) => self.key(*key).selectors.remove(selector),
            Anchor::Value(key, digest) => self.remove_at(*key, &[*digest], selector),
            Anchor::Values(values) => self.remove_at(values.key, &values.digests, selector),
        }
    }

    fn remove_at(&mut self, key: KeyId, digests: &[Digest], selector: SelectorId) {
        let key = self.key(key);
        if let Some(values) = &mut key.selectors_by_value {
            digests.iter().for_each(|digest| values.remove(*digest, selector));
            if values.is_empty() {
                key.selectors_by_value = None;
            }
        }
    }

    /// Selectors at a place.
    pub(super) fn load(&self, anchor: &Anchor) -> usize {
        let at = |key: KeyId, digests: &[Digest]| {
            let values = self.keys.get(key.0 as usize).and_then(|key| key.selectors_by_value.as_ref());
            let postings = digests.iter().filter_map(|digest| values?.get(*digest));
            postings.map(Posting::len).sum()
        };
        match anchor {
            Anchor::Everywhere => self.everywhere.len(),
            Anchor::Key(key) => self.keys.get(key.0 as usize).map_or(0, |key| key.selectors.len()),
            Anchor::Value(key, digest) => at(*key, &[*digest]),
            Anchor::Values(values) => at(values.key, &values.digests),
        }
    }

    /// Holders of labels at a place. `None` for all that there are.
    pub(super) fn holders(&self, anchor: &Anchor) -> Option<Vec<Posting<'_>>> {
        let at = |key: KeyId, digests: &[Digest]| {
            let values = self.keys.get(key.0 as usize).and_then(|key| key.holders_by_value.as_ref());
            digests.iter().filter_map(|digest| values?.get(*digest)).collect()
        };
        match anchor {
            Anchor::Everywhere => None,
            Anchor::Key(key) => {
                let key = self.keys.get(key.0 as usize);
                Some(key.map(|key| Posting::Several(&key.holders)).into_iter().collect())
            }
            Anchor::Value(key, digest) => Some(at(*key, &[*digest])),
            Anchor::Values(values) => Some(at(values.key, &values.digests)),
        }
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
            if let Some(values) = &key.selectors_by_value
                && let Some(selectors) = values.get(digest(value))
            {
                out.extend(selectors.iter());
            }
        }
    }
}
