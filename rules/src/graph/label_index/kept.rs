//! What is kept once: sets of labels, families, parents and lists of selectors, as long as they have users.

use super::{FamilyId, ItemId, Label, LabelIndex, LabelsId, LabelsOf, ListId, ParentId, SelectorId};
use crate::graph::id_set::IdSet;
use crate::graph::labels;

#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) labels: LabelsId,
    pub(super) family: FamilyId,
    pub(super) matched: ListId,
}

/// Labels of items, of families, of parents.
#[derive(Debug)]
pub(super) struct LabelSet {
    pub(super) bytes: Box<[u8]>,
    /// Numbers of [`User`]s.
    pub(super) users: IdSet,
}

/// What has a set of labels.
#[derive(Clone, Copy, Debug)]
pub(super) enum User {
    Item(ItemId),
    Family(FamilyId),
    Parent(ParentId),
}

impl User {
    /// Kinds of users.
    const KINDS: u32 = 3;

    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Item(id) => id * Self::KINDS,
            Self::Family(id) => id * Self::KINDS + 1,
            Self::Parent(id) => id * Self::KINDS + 2,
        }
    }

    pub(super) const fn of(number: u32) -> Self {
        let id = number / Self::KINDS;
        match number % Self::KINDS {
            0 => Self::Item(id),
            1 => Self::Family(id),
            _ => Self::Parent(id),
        }
    }
}

impl std::borrow::Borrow<[u8]> for LabelSet {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

/// What items inherit.
#[derive(Debug)]
pub(super) struct Family {
    /// The labels that are given to all, then the parents in order.
    pub(super) form: Box<[u32]>,
    pub(super) items: IdSet,
}

impl Family {
    pub(super) fn given(&self) -> LabelsId {
        self.form[0]
    }

    pub(super) fn parents(&self) -> &[ParentId] {
        &self.form[1..]
    }
}

impl std::borrow::Borrow<[u32]> for Family {
    fn borrow(&self) -> &[u32] {
        &self.form
    }
}

#[derive(Debug)]
pub(super) struct Parent {
    pub(super) name: Box<str>,
    pub(super) labels: LabelsId,
    pub(super) families: IdSet,
}

impl std::borrow::Borrow<str> for Parent {
    fn borrow(&self) -> &str {
        &self.name
    }
}

impl LabelIndex {
    pub(super) fn acquire_labels<'a>(&mut self, list: impl Iterator<Item = Label<'a>>) -> LabelsId {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        list.for_each(|(key, value)| labels::push(&mut buffer, self.keys.intern(key), value));
        let (id, is_new) = self
            .labels
            .acquire(&buffer[..], || LabelSet { bytes: buffer.as_slice().into(), users: IdSet::default() });
        if is_new {
            for (key, value) in labels::iter(&buffer) {
                self.keys.acquire(key);
                self.anchors.add_holder(key, value, id);
            }
        }
        self.buffer = buffer;
        id
    }

    pub(super) fn release_labels(&mut self, id: LabelsId) {
        let Some(gone) = self.labels.release::<[u8]>(id) else { return };
        for (key, value) in labels::iter(&gone.bytes) {
            self.anchors.remove_holder(key, value, id);
            if self.keys.release(key) {
                self.anchors.forget(key);
            }
        }
    }

    pub(super) fn acquire_family<'a>(
        &mut self,
        given: impl Iterator<Item = Label<'a>>,
        parents: impl Iterator<Item = &'a str>,
        labels_of: LabelsOf<'_>,
    ) -> FamilyId {
        let mut form = std::mem::take(&mut self.form);
        form.clear();
        form.push(self.acquire_labels(given));
        parents.for_each(|name| form.push(self.acquire_parent(name, labels_of)));
        let (id, is_new) = self
            .families
            .acquire(&form[..], || Family { form: form.as_slice().into(), items: IdSet::default() });
        if is_new {
            self.labels[form[0]].users.insert(User::Family(id).number());
            form[1..].iter().for_each(|parent| self.parents[*parent].families.insert(id));
        } else {
            self.release_labels(form[0]);
            form[1..].iter().for_each(|parent| self.release_parent(*parent));
        }
        self.form = form;
        id
    }

    pub(super) fn release_family(&mut self, id: FamilyId) {
        let Some(gone) = self.families.release::<[u32]>(id) else { return };
        self.labels[gone.given()].users.remove(User::Family(id).number());
        self.release_labels(gone.given());
        for parent in gone.parents() {
            self.parents[*parent].families.remove(id);
            self.release_parent(*parent);
        }
    }

    pub(super) fn acquire_parent(&mut self, name: &str, labels_of: LabelsOf<'_>) -> ParentId {
        if let Some(id) = self.parents.find(name) {
            return self.parents.share(id);
        }
        let known = labels_of(name);
        let labels = self.acquire_labels(known.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let make = || Parent { name: name.into(), labels, families: IdSet::default() };
        let (id, _) = self.parents.acquire(name, make);
        self.labels[labels].users.insert(User::Parent(id).number());
        id
    }

    pub(super) fn release_parent(&mut self, id: ParentId) {
        if let Some(gone) = self.parents.release::<str>(id) {
            self.labels[gone.labels].users.remove(User::Parent(id).number());
            self.release_labels(gone.labels);
        }
    }

    pub(super) fn acquire_list(&mut self, list: &[SelectorId]) -> ListId {
        self.lists.acquire(list, || list.into()).0
    }

    pub(super) fn release_list(&mut self, id: ListId) {
        self.lists.release::<[SelectorId]>(id);
    }
}
