//! Small numbers by digests of values.
//!
//! Most values of a large cluster belong to one thing only: such a number takes no set of its own.

use rustc_hash::FxHashMap;

use crate::graph::id_set::IdSet;
use crate::graph::number_table::{Digest, NumberTable};

/// Numbers by value. A value is told from another by its digest only.
#[derive(Debug, Default)]
pub(super) struct Postings {
    single: NumberTable,
    /// Where there are at least two.
    several: FxHashMap<Digest, IdSet>,
}

/// The numbers of one value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Posting<'a> {
    Single(u32),
    Several(&'a IdSet),
}

impl Posting<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Single(_) => 1,
            Self::Several(ids) => ids.len(),
        }
    }
}

impl<'a> Posting<'a> {
    /// In order.
    pub(super) fn iter(self) -> impl Iterator<Item = u32> + 'a {
        let (single, several) = match self {
            Self::Single(id) => (Some(id), None),
            Self::Several(ids) => (None, Some(ids)),
        };
        single.into_iter().chain(several.into_iter().flat_map(IdSet::iter))
    }
}

impl Postings {
    pub(super) fn is_empty(&self) -> bool {
        self.single.is_empty() && self.several.is_empty()
    }

    pub(super) fn get(&self, digest: Digest) -> Option<Posting<'_>> {
        match self.single.find(digest, |_| true) {
            Some(id) => Some(Posting::Single(id)),
            None => self.several.get(&digest).map(Posting::Several),
        }
    }

    pub(super) fn insert(&mut self, digest: Digest, id: u32) {
        match self.single.find(digest, |_| true) {
            Some(other) if other == id => {}
            Some(other) => {
                self.single.remove(digest, other);
                let ids = self.several.entry(digest).or_default();
                ids.insert(other);
                ids.insert(id);
            }
            None => match self.several.get_mut(&digest) {
                Some(ids) => ids.insert(id),
                None => self.single.insert(digest, id),
            },
        }
    }

    pub(super) fn remove(&mut self, digest: Digest, id: u32) {
        let Some(ids) = self.several.get_mut(&digest) else { return self.single.remove(digest, id) };
        ids.remove(id);
        if let IdSet::One(last) = *ids {
            self.several.remove(&digest);
            self.single.insert(digest, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_found_by_their_value_however_many_there_are() {
        let (mut postings, mut plain, mut seed) = (Postings::default(), BTreeSet::new(), 1_u64);
        for _ in 0..5_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pair = (u8::try_from((seed >> 33) % 5).unwrap(), u32::try_from((seed >> 40) % 4).unwrap());
            if (seed >> 50).is_multiple_of(2) {
                postings.insert(Digest::of(&pair.0), pair.1);
                plain.insert(pair);
            } else {
                postings.remove(Digest::of(&pair.0), pair.1);
                plain.remove(&pair);
            }
            for value in 0..5 {
                let wanted: Vec<u32> = plain.iter().filter(|p| p.0 == value).map(|p| p.1).collect();
                let found = postings.get(Digest::of(&value));
                assert_eq!(found.map_or(0, Posting::len), wanted.len());
                assert_eq!(found.into_iter().flat_map(Posting::iter).collect::<Vec<_>>(), wanted);
            }
            assert_eq!(postings.is_empty(), plain.is_empty());
        }
    }
}
