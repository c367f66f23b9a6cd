//! Selectors that several policies or sets have in common, each indexed once.

use std::borrow::Borrow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::label_index::SelectorId;
use super::pool::Pool;

#[derive(Debug)]
struct Shared<U> {
    text: Arc<str>,
    /// Sorted.
    users: SmallVec<[U; 1]>,
    matched: u32,
}

impl<U> Borrow<str> for Shared<U> {
    fn borrow(&self) -> &str {
        &self.text
    }
}

/// Selectors by their canonical text, with their users.
#[derive(Debug)]
pub(crate) struct SharedSelectors<U> {
    selectors: Pool<Shared<U>>,
}

impl<U> Default for SharedSelectors<U> {
    fn default() -> Self {
        Self { selectors: Pool::default() }
    }
}

impl<U: Ord> SharedSelectors<U> {
    /// Adds a user. Whether the selector is new.
    pub(crate) fn acquire(&mut self, text: &str, user: U) -> (SelectorId, bool) {
        let make = || Shared { text: text.into(), users: SmallVec::new(), matched: 0 };
        let (id, is_new) = self.selectors.acquire(text, make);
        let users = &mut self.selectors[id].users;
        if let Err(at) = users.binary_search(&user) {
            users.insert(at, user);
        }
        (id, is_new)
    }

    /// Takes a user away. Whether the selector is gone.
    pub(crate) fn release(&mut self, id: SelectorId, user: &U) -> bool {
        let users = &mut self.selectors[id].users;
        if let Ok(at) = users.binary_search(user) {
            users.remove(at);
        }
        self.selectors.release::<str>(id).is_some()
    }

    /// Sorted.
    pub(crate) fn users(&self, id: SelectorId) -> &[U] {
        &self.selectors[id].users
    }

    /// The canonical text.
    pub(crate) fn text(&self, id: SelectorId) -> &Arc<str> {
        &self.selectors[id].text
    }

    /// Something began or ceased to match. Whether it was the first or the last.
    pub(crate) fn count(&mut self, id: SelectorId, matched: bool) -> bool {
        let count = &mut self.selectors[id].matched;
        *count = if matched { *count + 1 } else { *count - 1 };
        *count == u32::from(matched)
    }

    /// Things that matched when the selector was new.
    pub(crate) fn start_count(&mut self, id: SelectorId, matched: usize) {
        self.selectors[id].matched = u32::try_from(matched).unwrap_or(u32::MAX);
    }

    /// Whether something matches.
    pub(crate) fn is_matched(&self, id: SelectorId) -> bool {
        self.selectors[id].matched > 0
    }
}
