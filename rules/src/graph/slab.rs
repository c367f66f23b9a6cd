//! Things by small numbers, without gaps between them in memory: pages that grow without being copied.

/// Things of one page.
const PAGE: usize = 64;

/// Things by numbers that the caller chooses. Costs little where whole ranges of numbers are unused.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Option<Page<T>>>,
    len: usize,
}

#[derive(Debug)]
struct Page<T> {
    used: usize,
    slots: Box<[Option<T>]>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

const fn place(id: u32) -> (usize, usize) {
    (id as usize / PAGE, id as usize % PAGE)
}

impl<T> Pages<T> {
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        let (page, slot) = place(id);
        self.pages.get(page)?.as_ref()?.slots[slot].as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let (page, slot) = place(id);
        self.pages.get_mut(page)?.as_mut()?.slots[slot].as_mut()
    }

    pub(crate) fn insert(&mut self, id: u32, value: T) -> Option<T> {
        let (page, slot) = place(id);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Page {
            used: 0,
            slots: std::iter::repeat_with(|| None).take(PAGE).collect(),
        });
        let old = page.slots[slot].replace(value);
        if old.is_none() {
            page.used += 1;
            self.len += 1;
        }
        old
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let (at, slot) = place(id);
        let page = self.pages.get_mut(at)?.as_mut()?;
        let old = page.slots[slot].take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages[at] = None;
            while self.pages.last().is_some_and(Option::is_none) {
                self.pages.pop();
            }
        }
        Some(old)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// In order of the numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = self.pages.iter().enumerate();
        let slots = numbered.filter_map(|(at, page)| Some((at, page.as_ref()?)));
        slots.flat_map(|(at, page)| {
            page.slots.iter().enumerate().filter_map(move |(slot, value)| {
                let id = u32::try_from(at * PAGE + slot).expect("numbers have 32 bits");
                Some((id, value.as_ref()?))
            })
        })
    }
}

/// Numbers that are handed out, the lowest free ones of those that were given back first.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    next: u32,
    free: Vec<u32>,
}

impl Numbers {
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let number = self.next;
            self.next = number.checked_add(1).expect("fewer than 2^32 things of a kind");
            number
        })
    }

    pub(crate) fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }
}

/// Things that get their numbers here.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    pages: Pages<T>,
    numbers: Numbers,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pages: Pages::default(), numbers: Numbers::default() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn add(&mut self, value: T) -> u32 {
        let id = self.numbers.take();
        self.pages.insert(id, value);
        id
    }

    pub(crate) fn remove(&mut self, id: u32) -> T {
        let value = self.pages.remove(id).expect("only what is there is removed");
        self.numbers.give_back(id);
        value
    }

    /// In order of the numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.pages.iter()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        self.pages.get(id).expect("only numbers that were handed out are used")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.pages.get_mut(id).expect("only numbers that were handed out are used")
    }
}
