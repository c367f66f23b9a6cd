//! What is kept once: sets of labels, families, parents and lists of selectors, as long as they have users.

use super::{FamilyId, Label, LabelIndex, LabelsId, LabelsOf, ListId, ParentId, SelectorId};
use crate::graph::labels::{self, push_number, take_number};
use crate::graph::small_set::SmallSet;

#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) labels: LabelsId,
    pub(super) family: FamilyId,
    pub(super) matched: ListId,
}

/// Own labels of items.
#[derive(Debug)]
pub(super) struct LabelSet {
    pub(super) bytes: Box<[u8]>,
    pub(super) items: SmallSet,
}

impl std::borrow::Borrow<[u8]> for LabelSet {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

/// What items inherit.
#[derive(Debug)]
pub(super) struct Family {
    /// How many parents, the parents in order, then the labels that are given to all.
    form: Box<[u8]>,
    pub(super) items: SmallSet,
}

impl Family {
    /// The parents, and what stands behind them.
    fn parts(&self) -> (impl Iterator<Item = ParentId> + '_, &[u8]) {
        let mut rest = &*self.form;
        let count = take_number(&mut rest).unwrap_or_default();
        let mut from = rest;
        (0..count).for_each(|_| {
            take_number(&mut rest);
        });
        let parent = move |_| ParentId::try_from(take_number(&mut from)?).ok();
        ((0..count).map_while(parent), rest)
    }

    /// Labels.
    pub(super) fn given(&self) -> &[u8] {
        self.parts().1
    }

    pub(super) fn parents(&self) -> impl Iterator<Item = ParentId> + '_ {
        self.parts().0
    }
}

impl std::borrow::Borrow<[u8]> for Family {
    fn borrow(&self) -> &[u8] {
        &self.form
    }
}

#[derive(Debug)]
pub(super) struct Parent {
    /// The name, then the labels.
    text: Box<[u8]>,
    name_end: u32,
    pub(super) families: SmallSet,
}

impl Parent {
    fn new(name: &str, labels: &[u8], families: SmallSet) -> Self {
        let name_end = u32::try_from(name.len()).expect("names have at most some hundred bytes");
        Self { text: [name.as_bytes(), labels].concat().into(), name_end, families }
    }

    pub(super) fn name(&self) -> &str {
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    fn name_bytes(&self) -> &[u8] {
        &self.text[..self.name_end as usize]
    }

    pub(super) fn labels(&self) -> &[u8] {
        &self.text[self.name_end as usize..]
    }
}

impl std::borrow::Borrow<[u8]> for Parent {
    fn borrow(&self) -> &[u8] {
        self.name_bytes()
    }
}

/// What has labels, for the items that are under it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder {
    Labels(LabelsId),
    Family(FamilyId),
    Parent(ParentId),
}

impl Holder {
    /// Kinds of holders.
    const KINDS: u32 = 3;

    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Labels(id) => id * Self::KINDS,
            Self::Family(id) => id * Self::KINDS + 1,
            Self::Parent(id) => id * Self::KINDS + 2,
        }
    }

    pub(super) const fn of(number: u32) -> Self {
        let id = number / Self::KINDS;
        match number % Self::KINDS {
            0 => Self::Labels(id),
            1 => Self::Family(id),
            _ => Self::Parent(id),
        }
    }
}

impl LabelIndex {
    /// Takes over the labels of a new holder.
    pub(super) fn hold(&mut self, holder: Holder, bytes: &[u8]) {
        for (key, value) in labels::iter(bytes) {
            self.keys.acquire(key);
            self.anchors.add_holder(key, value, holder.number());
        }
    }

    /// Gives up the labels that a holder had.
    pub(super) fn let_go(&mut self, holder: Holder, bytes: &[u8]) {
        for (key, value) in labels::iter(bytes) {
            self.anchors.remove_holder(key, value, holder.number());
            if self.keys.release(key) {
                self.anchors.forget(key);
            }
        }
    }

    fn push_labels<'a>(&mut self, to: &mut Vec<u8>, list: impl Iterator<Item = Label<'a>>) {
        list.for_each(|(key, value)| labels::push(to, self.keys.intern(key), value));
    }

    pub(super) fn acquire_labels<'a>(&mut self, list: impl Iterator<Item = Label<'a>>) -> LabelsId {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.push_labels(&mut buffer, list);
        let make = || LabelSet { bytes: buffer.as_slice().into(), items: SmallSet::default() };
        let (id, is_new) = self.labels.acquire(&buffer[..], make);
        if is_new {
            self.hold(Holder::Labels(id), &buffer);
        }
        self.buffer = buffer;
        id
    }

    pub(super) fn release_labels(&mut self, id: LabelsId) {
        if let Some(gone) = self.labels.release::<[u8]>(id) {
            self.let_go(Holder::Labels(id), &gone.bytes);
        }
    }

    pub(super) fn acquire_family<'a>(
        &mut self,
        given: impl Iterator<Item = Label<'a>>,
        parents: impl Iterator<Item = &'a str>,
        labels_of: LabelsOf<'_>,
    ) -> FamilyId {
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        parents.for_each(|name| ids.push(self.acquire_parent(name, labels_of)));
        let mut form = std::mem::take(&mut self.buffer);
        form.clear();
        push_number(&mut form, ids.len());
        ids.iter().for_each(|id| push_number(&mut form, *id as usize));
        let start = form.len();
        self.push_labels(&mut form, given);
        let make = || Family { form: form.as_slice().into(), items: SmallSet::default() };
        let (id, is_new) = self.families.acquire(&form[..], make);
        if is_new {
            self.hold(Holder::Family(id), &form[start..]);
            ids.iter().for_each(|parent| self.small.insert(&mut self.parents[*parent].families, id));
        } else {
            ids.iter().for_each(|parent| self.release_parent(*parent));
        }
        self.buffer = form;
        self.ids = ids;
        id
    }

    pub(super) fn release_family(&mut self, id: FamilyId) {
        let Some(gone) = self.families.release::<[u8]>(id) else { return };
        self.let_go(Holder::Family(id), gone.given());
        for parent in gone.parents() {
            self.small.remove(&mut self.parents[parent].families, id);
            self.release_parent(parent);
        }
    }

    pub(super) fn acquire_parent(&mut self, name: &str, labels_of: LabelsOf<'_>) -> ParentId {
        if let Some(id) = self.parents.find(name.as_bytes()) {
            return self.parents.share(id);
        }
        let known = labels_of(name);
        let mut bytes = Vec::new();
        self.push_labels(&mut bytes, known.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let make = || Parent::new(name, &bytes, SmallSet::default());
        let (id, _) = self.parents.acquire(name.as_bytes(), make);
        self.hold(Holder::Parent(id), &bytes);
        id
    }

    pub(super) fn release_parent(&mut self, id: ParentId) {
        if let Some(gone) = self.parents.release::<[u8]>(id) {
            self.let_go(Holder::Parent(id), gone.labels());
        }
    }

    /// Gives a parent other labels, if they are others. Those that it had.
    pub(super) fn replace_labels<'a>(
        &mut self,
        id: ParentId,
        list: impl Iterator<Item = Label<'a>>,
    ) -> Option<Parent> {
        let mut bytes = Vec::new();
        self.push_labels(&mut bytes, list);
        let parent = &mut self.parents[id];
        if parent.labels() == bytes {
            return None;
        }
        let families = std::mem::take(&mut parent.families);
        let new = Parent::new(parent.name(), &bytes, families);
        let old = std::mem::replace(parent, new);
        // A key that both have must neither be forgotten in between nor lose its holder.
        labels::iter(&bytes).for_each(|(key, _)| self.keys.acquire(key));
        self.let_go(Holder::Parent(id), old.labels());
        self.hold(Holder::Parent(id), &bytes);
        labels::iter(&bytes).for_each(|(key, _)| {
            self.keys.release(key);
        });
        Some(old)
    }

    pub(super) fn acquire_list(&mut self, list: &[SelectorId]) -> ListId {
        self.lists.acquire(list, || list.into()).0
    }

    pub(super) fn release_list(&mut self, id: ListId) {
        self.lists.release::<[SelectorId]>(id);
    }
}
