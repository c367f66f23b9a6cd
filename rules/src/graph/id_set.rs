//! Sets of small numbers: one number takes no memory of its own, few are a sorted list, many are a bitmap.

/// A set of numbers, in order.
#[derive(Debug, Default)]
pub(crate) enum IdSet {
    #[default]
    Empty,
    One(u32),
    Many(Box<Many>),
}

#[derive(Debug)]
pub(crate) enum Many {
    Sorted(Vec<u32>),
    Bits { words: Vec<u64>, len: usize },
}

/// A list of numbers takes 32 times the bits of a number in a bitmap: from here on the bitmap is smaller.
const BITS_PER_ENTRY: usize = 32;
/// Lists up to this length stay lists.
const SHORT: usize = 64;

const fn bit(id: u32) -> (usize, u64) {
    (id as usize / 64, 1 << (id % 64))
}

impl IdSet {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Many(many) => match &**many {
                Many::Sorted(ids) => ids.len(),
                Many::Bits { len, .. } => *len,
            },
        }
    }

    pub(crate) fn insert(&mut self, id: u32) {
        match self {
            Self::Empty => *self = Self::One(id),
            Self::One(old) if *old == id => {}
            Self::One(old) => {
                let ids = vec![id.min(*old), id.max(*old)];
                *self = Self::Many(Box::new(Many::Sorted(ids)));
            }
            Self::Many(many) => many.insert(id),
        }
    }

    pub(crate) fn remove(&mut self, id: u32) {
        match self {
            Self::One(old) if *old == id => *self = Self::Empty,
            Self::Empty | Self::One(_) => {}
            Self::Many(many) => {
                many.remove(id);
                match self.len() {
                    0 => *self = Self::Empty,
                    1 => {
                        let last = self.iter().next();
                        *self = last.map_or(Self::Empty, Self::One);
                    }
                    _ => {}
                }
            }
        }
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (one, sorted, words) = match self {
            Self::Empty => (None, &[][..], &[][..]),
            Self::One(id) => (Some(*id), &[][..], &[][..]),
            Self::Many(many) => match &**many {
                Many::Sorted(ids) => (None, ids.as_slice(), &[][..]),
                Many::Bits { words, .. } => (None, &[][..], words.as_slice()),
            },
        };
        one.into_iter().chain(sorted.iter().copied()).chain(bits(words))
    }
}

fn bits(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    words.iter().zip((0_u32..).step_by(64)).flat_map(|(word, base)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let at = rest.trailing_zeros();
            rest &= rest.checked_sub(1)?;
            Some(base + at)
        })
    })
}

impl Many {
    fn insert(&mut self, id: u32) {
        match self {
            Self::Sorted(ids) => {
                match ids.last() {
                    Some(last) if *last < id => ids.push(id),
                    _ => match ids.binary_search(&id) {
                        Ok(_) => return,
                        Err(at) => ids.insert(at, id),
                    },
                }
                let highest = ids.last().map_or(0, |last| *last as usize);
                if ids.len() > SHORT && ids.len() * BITS_PER_ENTRY > highest {
                    let mut words = vec![0; highest / 64 + 1];
                    for id in ids.iter() {
                        let (word, bit) = bit(*id);
                        words[word] |= bit;
                    }
                    *self = Self::Bits { words, len: ids.len() };
                }
            }
            Self::Bits { words, len } => {
                let (word, bit) = bit(id);
                if words.len() <= word {
                    words.resize(word + 1, 0);
                }
                *len += usize::from(words[word] & bit == 0);
                words[word] |= bit;
                self.thin_out();
            }
        }
    }

    fn remove(&mut self, id: u32) {
        match self {
            Self::Sorted(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
            }
            Self::Bits { words, len } => {
                let (word, bit) = bit(id);
                if words.get(word).is_some_and(|word| word & bit != 0) {
                    words[word] &= !bit;
                    *len -= 1;
                    self.thin_out();
                }
            }
        }
    }

    /// Goes back to a list where a bitmap is four times as large.
    fn thin_out(&mut self) {
        if let Self::Bits { words, len } = self
            && words.len() * 64 > 4 * BITS_PER_ENTRY * (*len).max(SHORT / 2)
        {
            *self = Self::Sorted(bits(words).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_holds_what_a_plain_set_holds_whatever_its_form() {
        for range in [3, 100, 5_000, 1_000_000] {
            let (mut set, mut plain, mut seed) = (IdSet::default(), BTreeSet::new(), 1_u64);
            for step in 0..6_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let id = u32::try_from((seed >> 33) % range).unwrap();
                // Grows, then shrinks to nothing.
                if (seed >> 20) % 4 < if step < 3_000 { 3 } else { 1 } {
                    set.insert(id);
                    plain.insert(id);
                } else {
                    let id = plain.range(id..).next().copied().unwrap_or(id);
                    set.remove(id);
                    plain.remove(&id);
                }
                assert_eq!((set.len(), matches!(set, IdSet::Empty)), (plain.len(), plain.is_empty()));
            }
            assert!(set.iter().eq(plain.iter().copied()));
            for id in plain {
                set.remove(id);
            }
            assert!(matches!(set, IdSet::Empty));
        }
    }
}
