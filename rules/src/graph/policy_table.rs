//! Policies by small numbers, each with its key in as few bytes as it needs.
//!
//! Almost all policies of a large cluster select nothing on this node: nobody asks for their keys but those who
//! change them.

use std::sync::Arc;

use super::model::{PolicyKey, PolicyKind};
use super::number_table::{Digest, NumberTable};
use super::slab::Slab;

/// A policy, as long as it is there.
pub(crate) type PolicyNumber = u32;

#[derive(Debug)]
struct Row<T> {
    /// The namespace, then the name.
    text: Box<str>,
    namespace_end: u16,
    kind: PolicyKind,
    value: T,
}

impl<T> Row<T> {
    fn parts(&self) -> (PolicyKind, &str, &str) {
        let (namespace, name) = self.text.split_at(self.namespace_end.into());
        (self.kind, namespace, name)
    }
}

fn parts(key: &PolicyKey) -> (PolicyKind, &str, &str) {
    (key.kind, &key.namespace, &key.name)
}

/// What is known of each policy.
#[derive(Debug)]
pub(crate) struct PolicyTable<T> {
    rows: Slab<Row<T>>,
    by_key: NumberTable,
}

impl<T> Default for PolicyTable<T> {
    fn default() -> Self {
        Self { rows: Slab::default(), by_key: NumberTable::default() }
    }
}

impl<T> PolicyTable<T> {
    /// The number of a policy that is there.
    pub(crate) fn find(&self, key: &PolicyKey) -> Option<PolicyNumber> {
        self.by_key.find(Digest::of(&parts(key)), |number| self.rows[number].parts() == parts(key))
    }

    /// Adds a policy that is not there.
    pub(crate) fn add(&mut self, key: &PolicyKey, value: T) -> PolicyNumber {
        let text: Box<str> = [&*key.namespace, &*key.name].concat().into();
        let namespace_end =
            u16::try_from(key.namespace.len()).expect("names have at most some hundred bytes");
        let number = self.rows.add(Row { text, namespace_end, kind: key.kind, value });
        self.by_key.insert(Digest::of(&parts(key)), number);
        number
    }

    /// Takes a policy away.
    pub(crate) fn remove(&mut self, number: PolicyNumber) -> T {
        let row = self.rows.remove(number);
        self.by_key.remove(Digest::of(&row.parts()), number);
        row.value
    }

    /// The key of a policy.
    pub(crate) fn key(&self, number: PolicyNumber) -> PolicyKey {
        let (kind, namespace, name) = self.rows[number].parts();
        PolicyKey { kind, namespace: Arc::from(namespace), name: Arc::from(name) }
    }

    /// All of them, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PolicyNumber, &T)> {
        self.rows.iter().map(|(number, row)| (number, &row.value))
    }
}

impl<T> std::ops::Index<PolicyNumber> for PolicyTable<T> {
    type Output = T;

    fn index(&self, number: PolicyNumber) -> &T {
        &self.rows[number].value
    }
}

impl<T> std::ops::IndexMut<PolicyNumber> for PolicyTable<T> {
    fn index_mut(&mut self, number: PolicyNumber) -> &mut T {
        &mut self.rows[number].value
    }
}
