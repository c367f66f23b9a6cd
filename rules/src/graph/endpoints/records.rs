//! Which endpoints there are, by name and by pod.

use std::collections::BTreeMap;

use super::{ItemId, Place};
use crate::graph::number_table::{Digest, NumberTable};
use crate::graph::sets::Description;
use crate::graph::slab::Pages;

/// An endpoint that waits for the one that overrides it to go.
#[derive(Debug)]
pub(super) struct Rival {
    pub(super) description: Description,
    pub(super) place: Place,
}

/// One endpoint of the cluster.
#[derive(Debug)]
pub(super) struct Record {
    /// `namespace/name`, then the pod's name if a pod makes it. The pod's namespace is the endpoint's.
    text: Box<str>,
    namespace_end: u16,
    name_end: u16,
    /// A document makes it, alone or over a pod.
    pub(super) has_document: bool,
    /// It is in force.
    pub(super) is_item: bool,
}

impl Record {
    /// `namespace/name`.
    pub(super) fn id(&self) -> &str {
        &self.text[..usize::from(self.name_end)]
    }

    fn namespace(&self) -> &str {
        &self.text[..usize::from(self.namespace_end)]
    }

    fn name(&self) -> &str {
        &self.text[usize::from(self.namespace_end) + 1..usize::from(self.name_end)]
    }

    fn pod(&self) -> &str {
        &self.text[usize::from(self.name_end)..]
    }
}

/// All endpoints.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: Pages<Record>,
    by_name: NumberTable,
    by_pod: NumberTable,
    /// What pods say whose endpoints a document overrides.
    rivals: BTreeMap<ItemId, Rival>,
}

fn digest(namespace: &str, name: &str) -> Digest {
    Digest::of(&(namespace, name))
}

fn length(text: &str) -> u16 {
    u16::try_from(text.len()).expect("names have at most some hundred bytes")
}

impl Records {
    pub(super) fn get(&self, item: ItemId) -> &Record {
        self.all.get(item).expect("only known endpoints are asked for")
    }

    pub(super) fn get_mut(&mut self, item: ItemId) -> &mut Record {
        self.all.get_mut(item).expect("only known endpoints are asked for")
    }

    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<ItemId> {
        self.by_name.find(digest(namespace, name), |item| self.is_named(item, namespace, name))
    }

    pub(super) fn is_named(&self, item: ItemId, namespace: &str, name: &str) -> bool {
        let record = self.get(item);
        record.namespace() == namespace && record.name() == name
    }

    /// Keeps what the pod of an endpoint says, or forgets it.
    pub(super) fn set_rival(&mut self, item: ItemId, rival: Option<Rival>) {
        match rival {
            Some(rival) => self.rivals.insert(item, rival),
            None => self.rivals.remove(&item),
        };
    }

    pub(super) fn take_rival(&mut self, item: ItemId) -> Option<Rival> {
        self.rivals.remove(&item)
    }

    /// A record with the number `item`, of which nothing is known yet but its name.
    pub(super) fn add(&mut self, item: ItemId, namespace: &str, name: &str) -> ItemId {
        let text: Box<str> = [namespace, "/", name].concat().into();
        let (namespace_end, name_end) = (length(namespace), length(&text));
        let record = Record { text, namespace_end, name_end, has_document: false, is_item: false };
        self.all.insert(item, record);
        self.by_name.insert(digest(namespace, name), item);
        item
    }

    pub(super) fn remove(&mut self, item: ItemId) {
        self.remove_pod(item);
        if let Some(record) = self.all.remove(item) {
            self.by_name.remove(digest(record.namespace(), record.name()), item);
        }
    }

    pub(super) fn of_pod(&self, namespace: &str, pod: &str) -> Option<ItemId> {
        self.by_pod.find(digest(namespace, pod), |item| {
            let record = self.get(item);
            record.namespace() == namespace && record.pod() == pod
        })
    }

    pub(super) fn has_pod(&self, item: ItemId) -> bool {
        !self.get(item).pod().is_empty()
    }

    /// Notes the pod that makes an endpoint.
    pub(super) fn set_pod(&mut self, item: ItemId, pod: &str) {
        if self.get(item).pod() == pod {
            return;
        }
        self.remove_pod(item);
        let record = self.get_mut(item);
        record.text = [record.id(), pod].concat().into();
        let digest = digest(record.namespace(), pod);
        self.by_pod.insert(digest, item);
    }

    /// Notes that no pod makes an endpoint any more.
    pub(super) fn remove_pod(&mut self, item: ItemId) {
        let record = self.get(item);
        if record.pod().is_empty() {
            return;
        }
        let digest = digest(record.namespace(), record.pod());
        self.by_pod.remove(digest, item);
        let record = self.get_mut(item);
        record.text = record.id().into();
    }
}
