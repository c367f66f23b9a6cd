//! Sorted things with a count, most of them counted once.

use std::ops::Bound;

use rustc_hash::FxHashMap;

/// The most things of a chunk.
const CHUNK: usize = 512;

/// A sorted list that can be changed anywhere: chunks of a bounded length.
#[derive(Debug)]
pub(crate) struct SortedList<T> {
    /// None is empty.
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for SortedList<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Ord + Copy> SortedList<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains(&self, value: T) -> bool {
        let at = self.chunk_of(value);
        self.chunks.get(at).is_some_and(|chunk| chunk.binary_search(&value).is_ok())
    }

    /// Whether it was not there before.
    pub(crate) fn insert(&mut self, value: T) -> bool {
        if self.chunks.last().and_then(|chunk| chunk.last()).is_none_or(|last| *last < value) {
            self.push(value);
            return true;
        }
        let at = self.chunk_of(value);
        let chunk = &mut self.chunks[at];
        let Err(place) = chunk.binary_search(&value) else { return false };
        chunk.insert(place, value);
        if chunk.len() > CHUNK {
            let upper = chunk.split_off(CHUNK / 2);
            self.chunks.insert(at + 1, upper);
        }
        self.len += 1;
        true
    }

    /// In a row, chunks get full.
    fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(value),
            _ => self.chunks.push(vec![value]),
        }
        self.len += 1;
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, value: T) -> bool {
        let at = self.chunk_of(value);
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let Ok(place) = chunk.binary_search(&value) else { return false };
        chunk.remove(place);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() < CHUNK / 4 {
            self.join(at);
        }
        true
    }

    /// Joins a small chunk with the next one, if both fit well into one.
    fn join(&mut self, at: usize) {
        if self.chunks.get(at + 1).is_some_and(|next| self.chunks[at].len() + next.len() <= CHUNK / 2) {
            let next = self.chunks.remove(at + 1);
            self.chunks[at].extend(next);
        }
    }

    /// Gives back memory that is not used.
    pub(crate) fn shrink(&mut self) {
        self.chunks.iter_mut().for_each(Vec::shrink_to_fit);
        self.chunks.shrink_to_fit();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.chunks.iter().flatten().copied()
    }

    /// From a bound on, in order.
    pub(crate) fn from(&self, start: Bound<T>) -> impl Iterator<Item = T> + '_ {
        let first = match start {
            Bound::Unbounded => 0,
            Bound::Included(value) | Bound::Excluded(value) => self.chunk_of(value),
        };
        let is_before = move |value: &T| match start {
            Bound::Unbounded => false,
            Bound::Included(start) => *value < start,
            Bound::Excluded(start) => *value <= start,
        };
        let skipped = self.chunks.get(first).map_or(0, |chunk| chunk.partition_point(is_before));
        self.chunks[first.min(self.chunks.len())..].iter().flatten().skip(skipped).copied()
    }

    /// The first chunk whose last element is not less.
    fn chunk_of(&self, value: T) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| *last < value))
    }
}

/// A sorted list in which things have counts.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    once: SortedList<T>,
    /// How often beyond the first time.
    more: FxHashMap<T, u32>,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self { once: SortedList::default(), more: FxHashMap::default() }
    }
}

impl<T: Ord + Copy + std::hash::Hash> Counted<T> {
    /// Counts once more. Whether it was the first time.
    pub(crate) fn add(&mut self, value: T) -> bool {
        let is_first = self.once.insert(value);
        if !is_first {
            *self.more.entry(value).or_insert(0) += 1;
        }
        is_first
    }

    /// Counts once less. Whether it was the last time.
    pub(crate) fn remove(&mut self, value: T) -> bool {
        if let Some(more) = self.more.get_mut(&value) {
            *more -= 1;
            if *more == 0 {
                self.more.remove(&value);
            }
            return false;
        }
        self.once.remove(value)
    }

    /// What was counted, in order, each once.
    pub(crate) fn values(&self) -> &SortedList<T> {
        &self.once
    }

    /// Gives back memory that is not used.
    pub(crate) fn shrink(&mut self) {
        self.once.shrink();
        self.more.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_counts_as_a_plain_map_does() {
        let (mut counted, mut plain, mut seed) = (Counted::default(), BTreeMap::new(), 5_u64);
        for step in 0..40_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = (seed >> 33) % 4_000;
            if (seed >> 20) % 4 < if step < 20_000 { 3 } else { 1 } {
                *plain.entry(value).or_insert(0) += 1;
                assert_eq!(counted.add(value), plain[&value] == 1);
            } else {
                let value = plain.range(value..).next().map_or(value, |(value, _)| *value);
                let count = plain.get_mut(&value).map(|count| {
                    *count -= 1;
                    *count
                });
                if count == Some(0) {
                    plain.remove(&value);
                }
                assert_eq!(counted.remove(value), count == Some(0));
            }
            if step % 97 == 0 {
                assert!(counted.values().iter().eq(plain.keys().copied()));
                assert!(
                    counted
                        .values()
                        .from(Bound::Excluded(value))
                        .eq(plain.range(value + 1..).map(|(v, _)| *v))
                );
                assert!(
                    counted.values().from(Bound::Included(value)).eq(plain.range(value..).map(|(v, _)| *v))
                );
                assert_eq!(counted.values().contains(value), plain.contains_key(&value));
                assert_eq!(counted.values().len(), plain.len());
            }
        }
    }
}
