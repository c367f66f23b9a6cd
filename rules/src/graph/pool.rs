//! Equal things kept once, as long as somebody uses them.

use std::borrow::Borrow;
use std::hash::Hash;

use super::number_table::{Digest, NumberTable};
use super::slab::Slab;

/// Equality that does not look at what an empty slice points to. There is nothing there, and where `memcmp` loads
/// under a mask it takes the processor as long as a miss of the cache to find that out.
pub(crate) fn is_same<Q: Eq + ?Sized>(a: &Q, b: &Q) -> bool {
    let (size_a, size_b) = (size_of_val(a), size_of_val(b));
    size_a == size_b && (size_a == 0 || a == b)
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    users: u32,
}

/// Gives equal things one number.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    numbers: NumberTable,
    entries: Slab<Entry<T>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { numbers: NumberTable::default(), entries: Slab::default() }
    }
}

impl<T> Pool<T> {
    /// The number of the thing that is `form`, with one more user; `make` makes it if it is new. Whether it is.
    pub(crate) fn acquire<Q>(&mut self, form: &Q, make: impl FnOnce() -> T) -> (u32, bool)
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let digest = Digest::of(form);
        if let Some(number) = self.position(digest, form) {
            self.entries[number].users += 1;
            return (number, false);
        }
        let number = self.entries.add(Entry { value: make(), users: 1 });
        self.numbers.insert(digest, number);
        (number, true)
    }

    /// The number of the thing that is `form`.
    pub(crate) fn find<Q>(&self, form: &Q) -> Option<u32>
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.position(Digest::of(form), form)
    }

    fn position<Q>(&self, digest: Digest, form: &Q) -> Option<u32>
    where
        T: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.numbers.find(digest, |n| is_same(Borrow::<Q>::borrow(&self.entries[n].value), form))
    }

    /// One more user of a thing that has some.
    pub(crate) fn share(&mut self, number: u32) -> u32 {
        self.entries[number].users += 1;
        number
    }

    /// Whether a thing has more than one user.
    pub(crate) fn is_shared(&self, number: u32) -> bool {
        self.entries[number].users > 1
    }

    /// Users of one thing use another from now on; at least one of the former stays.
    pub(crate) fn pass_on(&mut self, from: u32, to: u32, users: usize) {
        let users = u32::try_from(users).expect("fewer than 2^32 users");
        self.entries[from].users -= users;
        self.entries[to].users += users;
    }

    /// One user less. The thing, if that was the last.
    pub(crate) fn release<Q>(&mut self, number: u32) -> Option<T>
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let entry = &mut self.entries[number];
        entry.users -= 1;
        if entry.users > 0 {
            return None;
        }
        let gone = self.entries.remove(number).value;
        self.numbers.remove(Digest::of(Borrow::<Q>::borrow(&gone)), number);
        Some(gone)
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().map(|(number, entry)| (number, &entry.value))
    }

    /// Things in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<T> std::ops::Index<u32> for Pool<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.entries[number].value
    }
}

impl<T> std::ops::IndexMut<u32> for Pool<T> {
    /// The parts that make things equal must stay as they are.
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.entries[number].value
    }
}
