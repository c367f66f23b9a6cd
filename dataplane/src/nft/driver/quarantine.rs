//! Chains and sets that the kernel refuses.
//!
//! A refused chain is written closed; so is each that looks into a refused set. They are tried again when they change,
//! and after the table was read again.

use std::collections::BTreeMap;
use std::fmt;

/// A part of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    /// A chain, by its name in the kernel.
    Chain(String),
    /// A set or map.
    Set(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Set(name) => write!(f, "set {name}"),
        }
    }
}

/// What is closed, and why.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    faults: BTreeMap<Thing, String>,
    sets: usize,
}

impl Quarantine {
    /// Whether it is refused.
    pub(super) fn has(&self, thing: &Thing) -> bool {
        !self.faults.is_empty() && self.faults.contains_key(thing)
    }

    /// Whether any set is refused.
    pub(super) const fn has_sets(&self) -> bool {
        self.sets > 0
    }

    /// Notes a refusal. `false` if it was noted already.
    pub(super) fn close(&mut self, thing: Thing, error: String) -> bool {
        let is_set = matches!(thing, Thing::Set(_));
        let is_new = self.faults.insert(thing, error).is_none();
        if is_new && is_set {
            self.sets += 1;
        }
        is_new
    }

    /// It was changed, or is not wanted any more: it is tried again.
    pub(super) fn release(&mut self, thing: &Thing) -> bool {
        let was_there = self.faults.remove(thing).is_some();
        if was_there && matches!(thing, Thing::Set(_)) {
            self.sets -= 1;
        }
        was_there
    }

    /// Takes all out, to try them again.
    pub(super) fn release_all(&mut self) -> Vec<Thing> {
        self.sets = 0;
        std::mem::take(&mut self.faults).into_keys().collect()
    }

    /// All that are refused, with what the kernel said.
    pub(super) fn faults(&self) -> impl Iterator<Item = (&Thing, &str)> {
        self.faults.iter().map(|(thing, error)| (thing, error.as_str()))
    }
}
