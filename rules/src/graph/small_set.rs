//! Sets of small numbers that mostly hold one: four bytes each, and more elsewhere for those that hold more.

use super::id_set::IdSet;
use super::slab::Slab;

/// Nothing, a number, or where in [`SmallSets`] the numbers are. To be emptied before it is dropped.
#[derive(Debug)]
pub(crate) struct SmallSet(u32);

/// What sets of more than one number hold.
#[derive(Debug, Default)]
pub(crate) struct SmallSets(Slab<IdSet>);

const NOTHING: u32 = u32::MAX;
const ELSEWHERE: u32 = 1 << 31;

impl Default for SmallSet {
    fn default() -> Self {
        Self(NOTHING)
    }
}

impl SmallSet {
    const fn one(id: u32) -> Self {
        assert!(id < ELSEWHERE, "fewer than 2^31 things of a kind");
        Self(id)
    }

    /// Where its numbers are, if there is more than one.
    const fn place(&self) -> Option<u32> {
        if self.0 == NOTHING || self.0 < ELSEWHERE { None } else { Some(self.0 - ELSEWHERE) }
    }

    const fn single(&self) -> Option<u32> {
        if self.0 < ELSEWHERE { Some(self.0) } else { None }
    }
}

impl SmallSets {
    pub(crate) fn insert(&mut self, set: &mut SmallSet, id: u32) {
        if let Some(place) = set.place() {
            return self.0[place].insert(id);
        }
        match set.single() {
            None => *set = SmallSet::one(id),
            Some(old) if old == id => {}
            Some(old) => {
                let mut both = IdSet::default();
                both.insert(old);
                both.insert(id);
                *set = SmallSet(ELSEWHERE | self.0.add(both));
            }
        }
    }

    pub(crate) fn remove(&mut self, set: &mut SmallSet, id: u32) {
        let Some(place) = set.place() else {
            if set.single() == Some(id) {
                *set = SmallSet::default();
            }
            return;
        };
        self.0[place].remove(id);
        if let IdSet::One(last) = self.0[place] {
            self.0.remove(place);
            *set = SmallSet::one(last);
        }
    }

    pub(crate) fn len(&self, set: &SmallSet) -> usize {
        set.place().map_or_else(|| usize::from(set.single().is_some()), |place| self.0[place].len())
    }

    /// In order.
    pub(crate) fn iter(&self, set: &SmallSet) -> impl Iterator<Item = u32> + '_ {
        let many = set.place().map(|place| &self.0[place]);
        set.single().into_iter().chain(many.into_iter().flat_map(IdSet::iter))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_set_holds_what_a_plain_set_holds() {
        let mut sets = SmallSets::default();
        let mut all: [(SmallSet, BTreeSet<u32>); 3] = Default::default();
        let mut seed = 1_u64;
        for _ in 0..5_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let id = u32::try_from((seed >> 33) % 4).unwrap();
            let (set, plain) = &mut all[usize::try_from((seed >> 50) % 3).unwrap()];
            if (seed >> 40).is_multiple_of(2) {
                sets.insert(set, id);
                plain.insert(id);
            } else {
                sets.remove(set, id);
                plain.remove(&id);
            }
            for (set, plain) in &all {
                assert!(sets.iter(set).eq(plain.iter().copied()));
                assert_eq!(sets.len(set), plain.len());
            }
            assert_eq!(sets.0.len(), all.iter().filter(|(_, plain)| plain.len() > 1).count());
        }
    }
}
