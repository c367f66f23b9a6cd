//! A hash table of small numbers that stand for things kept elsewhere.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// Numbers by digests of the things. The digests are kept, so that growing does not look at the things again.
#[derive(Debug, Default)]
pub(crate) struct NumberTable(HashTable<Entry>);

#[derive(Debug)]
struct Entry {
    digest: u32,
    number: u32,
}

/// What the table is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest(u32);

impl Digest {
    pub(crate) fn of(thing: &(impl Hash + ?Sized)) -> Self {
        let hash = FxBuildHasher.hash_one(thing);
        Self(u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).expect("32 bits"))
    }

    /// Spread over all bits: the table looks at the highest ones, too.
    const fn spread(self) -> u64 {
        (self.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl NumberTable {
    /// The number with this digest for which `is_it` holds.
    pub(crate) fn find(&self, digest: Digest, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let entry = self.0.find(digest.spread(), |e| e.digest == digest.0 && is_it(e.number))?;
        Some(entry.number)
    }

    /// Adds a number that is not there.
    pub(crate) fn insert(&mut self, digest: Digest, number: u32) {
        let entry = Entry { digest: digest.0, number };
        self.0.insert_unique(digest.spread(), entry, |entry| Digest(entry.digest).spread());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a number away, if it is there with this digest.
    pub(crate) fn remove(&mut self, digest: Digest, number: u32) {
        if let Ok(found) = self.0.find_entry(digest.spread(), |e| e.digest == digest.0 && e.number == number)
        {
            found.remove();
        }
        if self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to_fit(|entry| Digest(entry.digest).spread());
        }
    }
}
