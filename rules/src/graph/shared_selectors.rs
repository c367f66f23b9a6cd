//! Who asks with which selector, where several policies or sets may ask with one.

use super::label_index::SelectorId;
use super::slab::Pages;
use super::small_set::{SmallSet, SmallSets};

#[derive(Debug, Default)]
struct Shared {
    users: SmallSet,
    matched: u32,
    /// Host endpoints among them.
    matched_hosts: u32,
}

/// The users of selectors, and how many things match them.
#[derive(Debug, Default)]
pub(crate) struct SharedSelectors {
    selectors: Pages<Shared>,
    sets: SmallSets,
}

impl SharedSelectors {
    fn get(&self, id: SelectorId) -> &Shared {
        self.selectors.get(id).expect("only selectors with users are asked for")
    }

    fn get_mut(&mut self, id: SelectorId) -> &mut Shared {
        self.selectors.get_mut(id).expect("only selectors with users are asked for")
    }

    /// Adds a user.
    pub(crate) fn add(&mut self, id: SelectorId, user: u32) {
        if self.selectors.get(id).is_none() {
            self.selectors.insert(id, Shared::default());
        }
        let shared = self.selectors.get_mut(id).expect("inserted above");
        self.sets.insert(&mut shared.users, user);
    }

    /// Takes a user away.
    pub(crate) fn remove(&mut self, id: SelectorId, user: u32) {
        let Some(shared) = self.selectors.get_mut(id) else { return };
        self.sets.remove(&mut shared.users, user);
        if self.sets.len(&shared.users) == 0 {
            self.selectors.remove(id);
        }
    }

    /// In order.
    pub(crate) fn users(&self, id: SelectorId) -> impl Iterator<Item = u32> + '_ {
        self.sets.iter(&self.get(id).users)
    }

    /// Something began or ceased to match. Whether it was the first or the last, of all or of host endpoints.
    pub(crate) fn count(&mut self, id: SelectorId, matched: bool, is_host: bool) -> bool {
        let step = |count: &mut u32| {
            *count = if matched { *count + 1 } else { *count - 1 };
            *count == u32::from(matched)
        };
        let selector = self.get_mut(id);
        let is_turn = step(&mut selector.matched);
        is_host && step(&mut selector.matched_hosts) || is_turn
    }

    /// Things that matched when the selector was new, and host endpoints among them.
    pub(crate) fn start_count(&mut self, id: SelectorId, matched: usize, hosts: usize) {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let selector = self.get_mut(id);
        (selector.matched, selector.matched_hosts) = (number(matched), number(hosts));
    }

    /// Whether something matches.
    pub(crate) fn is_matched(&self, id: SelectorId) -> bool {
        self.get(id).matched > 0
    }

    /// Whether a host endpoint matches.
    pub(crate) fn is_matched_by_host(&self, id: SelectorId) -> bool {
        self.get(id).matched_hosts > 0
    }
}
