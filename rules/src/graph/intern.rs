//! Keys of labels as small numbers. A cluster has few, and each is kept once, as long as somebody uses it.

use super::number_table::{Digest, NumberTable};
use super::slab::Slab;

/// A key of the interner that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(pub(crate) u32);

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    users: u32,
}

/// Gives each distinct key a number.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    numbers: NumberTable,
    entries: Slab<Entry>,
}

impl Interner {
    /// The number of a key, new if need be. A new one is to be acquired, or it stays for ever.
    pub(crate) fn intern(&mut self, text: &str) -> KeyId {
        let digest = Digest::of(text);
        if let Some(number) = self.numbers.find(digest, |number| *self.entries[number].text == *text) {
            return KeyId(number);
        }
        let number = self.entries.add(Entry { text: text.into(), users: 0 });
        self.numbers.insert(digest, number);
        KeyId(number)
    }

    /// Somebody began to use a key.
    pub(crate) fn acquire(&mut self, key: KeyId) {
        self.entries[key.0].users += 1;
    }

    /// Somebody ceased to use a key. Whether it was the last.
    pub(crate) fn release(&mut self, key: KeyId) -> bool {
        let entry = &mut self.entries[key.0];
        entry.users -= 1;
        if entry.users > 0 {
            return false;
        }
        let gone = self.entries.remove(key.0);
        self.numbers.remove(Digest::of(&*gone.text), key.0);
        true
    }

    /// The text of a key.
    pub(crate) fn text(&self, key: KeyId) -> &str {
        &self.entries[key.0].text
    }

    /// Keys in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
