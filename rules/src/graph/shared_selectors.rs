//! Selectors that several policies or sets have in common, each indexed once.

use std::borrow::Borrow;

use super::id_set::IdSet;
use super::label_index::SelectorId;
use super::pool::Pool;

#[derive(Debug)]
struct Shared {
    text: Box<str>,
    users: IdSet,
    matched: u32,
    /// Host endpoints among them.
    matched_hosts: u32,
}

impl Borrow<str> for Shared {
    fn borrow(&self) -> &str {
        &self.text
    }
}

/// Selectors by their canonical text, with the numbers of their users.
#[derive(Debug, Default)]
pub(crate) struct SharedSelectors {
    selectors: Pool<Shared>,
}

impl SharedSelectors {
    /// Adds a user. Whether the selector is new.
    pub(crate) fn acquire(&mut self, text: &str, user: u32) -> (SelectorId, bool) {
        let make = || Shared { text: text.into(), users: IdSet::default(), matched: 0, matched_hosts: 0 };
        let (id, is_new) = self.selectors.acquire(text, make);
        self.selectors[id].users.insert(user);
        (id, is_new)
    }

    /// Takes a user away. Whether the selector is gone.
    pub(crate) fn release(&mut self, id: SelectorId, user: u32) -> bool {
        self.selectors[id].users.remove(user);
        self.selectors.release::<str>(id).is_some()
    }

    /// In order.
    pub(crate) fn users(&self, id: SelectorId) -> impl Iterator<Item = u32> + '_ {
        self.selectors[id].users.iter()
    }

    /// The canonical text.
    pub(crate) fn text(&self, id: SelectorId) -> &str {
        &self.selectors[id].text
    }

    /// Something began or ceased to match. Whether it was the first or the last, of all or of host endpoints.
    pub(crate) fn count(&mut self, id: SelectorId, matched: bool, is_host: bool) -> bool {
        let step = |count: &mut u32| {
            *count = if matched { *count + 1 } else { *count - 1 };
            *count == u32::from(matched)
        };
        let selector = &mut self.selectors[id];
        let is_turn = step(&mut selector.matched);
        is_host && step(&mut selector.matched_hosts) || is_turn
    }

    /// Things that matched when the selector was new, and host endpoints among them.
    pub(crate) fn start_count(&mut self, id: SelectorId, matched: usize, hosts: usize) {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let selector = &mut self.selectors[id];
        (selector.matched, selector.matched_hosts) = (number(matched), number(hosts));
    }

    /// Whether something matches.
    pub(crate) fn is_matched(&self, id: SelectorId) -> bool {
        self.selectors[id].matched > 0
    }

    /// Whether a host endpoint matches.
    pub(crate) fn is_matched_by_host(&self, id: SelectorId) -> bool {
        self.selectors[id].matched_hosts > 0
    }
}
