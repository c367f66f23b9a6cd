use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};
use tortie_api::resource::Resource;

use super::*;
use crate::{List, Problem, Revision, Sink};

/// A store that does what it is told: lists can fail, watches can expire.
#[derive(Default)]
struct Fake {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<Key, Stored>,
    sinks: Vec<Sink>,
    failing_lists: usize,
    failing_watches: usize,
    lists: usize,
}

impl Fake {
    fn edit(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap());
    }

    fn send(&self, event: &WatchEvent) {
        self.edit(|inner| inner.sinks.retain_mut(|sink| sink(event.clone())));
    }
}

impl Datastore for Fake {
    fn list(&self, kind: Kind, _: Option<&str>) -> Result<List, Error> {
        let mut inner = self.inner.lock().unwrap();
        inner.lists += 1;
        if inner.failing_lists > 0 {
            inner.failing_lists -= 1;
            return Err(Error::Unavailable("told so".to_owned()));
        }
        let items = inner.objects.values().filter(|stored| stored.key.kind == kind).cloned().collect();
        Ok(List { items, revision: Revision::new("1") })
    }

    fn watch(&self, _: Kind, _: &Revision, sink: Sink) -> Result<WatchHandle, Error> {
        let mut inner = self.inner.lock().unwrap();
        if inner.failing_watches > 0 {
            inner.failing_watches -= 1;
            return Err(Error::Expired);
        }
        inner.sinks.push(sink);
        Ok(WatchHandle::new(|| {}))
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Stored, Error> {
        Err(Error::NotFound { key: key.clone() })
    }

    fn create(&self, _: &Value) -> Result<Stored, Error> {
        Err(Error::Expired)
    }

    fn update(&self, _: &Value) -> Result<Stored, Error> {
        Err(Error::Expired)
    }

    fn delete(&self, key: &Key, _: Option<&str>) -> Result<(), Error> {
        Err(Error::NotFound { key: key.clone() })
    }

    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

fn tier(name: &str, version: &str) -> Stored {
    let value = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name}, "spec": {"order": 5},
    });
    let resource = Resource::from_value(&value).unwrap();
    Stored::new(resource.key(), version, Arc::new(resource), value)
}

struct Harness {
    store: Arc<Fake>,
    mirror: Mirror,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Harness {
    fn start(objects: &[Stored], prepare: impl FnOnce(&mut Inner)) -> Self {
        let store = Arc::new(Fake::default());
        store.edit(|inner| {
            inner.objects.extend(objects.iter().map(|o| (o.key.clone(), o.clone())));
            prepare(inner);
        });
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&seen);
        let consumer = move |event| {
            if event == MirrorEvent::Settled {
                return true;
            }
            log.lock().unwrap().push(match event {
                MirrorEvent::Set(stored) => format!("{}@{}", stored.key.name, stored.resource_version),
                MirrorEvent::Remove(key) => format!("-{}", key.name),
                MirrorEvent::InSync => "in-sync".to_owned(),
                MirrorEvent::Settled => unreachable!("left out above"),
            });
            true
        };
        let mirror = Mirror::start(store.clone(), &[Kind::Tier], consumer).unwrap();
        Self { store, mirror, seen }
    }

    fn after_sync(&self) -> Vec<String> {
        self.mirror.sync().unwrap();
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

#[test]
fn after_an_expired_watch_the_consumer_gets_the_difference() {
    let harness = Harness::start(&[tier("a", "1"), tier("b", "1"), tier("c", "1")], |_| {});
    assert_eq!(harness.after_sync(), ["a@1", "b@1", "c@1", "in-sync"]);
    harness.store.edit(|inner| {
        inner.objects.remove(&tier("a", "1").key);
        inner.objects.insert(tier("b", "2").key, tier("b", "2"));
        inner.objects.insert(tier("d", "1").key, tier("d", "1"));
    });
    harness.store.send(&WatchEvent::Expired);
    assert_eq!(harness.after_sync(), ["b@2", "d@1", "-a"]);
}

#[test]
fn events_of_a_watch_that_was_replaced_are_not_delivered() {
    let harness = Harness::start(&[], |_| {});
    assert_eq!(harness.after_sync(), ["in-sync"]);
    harness.store.send(&WatchEvent::Expired);
    assert!(harness.after_sync().is_empty());
    // Of the two sinks that there are now the first is of the old watch.
    harness.store.edit(|inner| {
        assert_eq!(inner.sinks.len(), 2);
        (inner.sinks[0])(WatchEvent::Added(tier("old", "1")));
        (inner.sinks[1])(WatchEvent::Added(tier("new", "1")));
        (inner.sinks[1])(WatchEvent::Bookmark(Revision::new("2")));
        (inner.sinks[1])(WatchEvent::Modified(tier("new", "2")));
        (inner.sinks[1])(WatchEvent::Deleted(tier("new", "2")));
    });
    assert_eq!(harness.after_sync(), ["new@1", "new@2", "-new"]);
}

#[test]
fn a_list_that_fails_is_tried_again_and_nothing_is_in_sync_before() {
    let harness = Harness::start(&[tier("a", "1")], |inner| inner.failing_lists = 2);
    assert_eq!(harness.after_sync(), ["a@1", "in-sync"]);
    harness.store.edit(|inner| assert_eq!(inner.lists, 3));
}

#[test]
fn a_revision_that_expires_before_the_watch_starts_is_listed_again() {
    let harness = Harness::start(&[tier("a", "1")], |inner| inner.failing_watches = 1);
    assert_eq!(harness.after_sync(), ["a@1", "in-sync"]);
}

#[test]
fn a_consumer_that_has_enough_stops_the_mirror() {
    let store = Arc::new(Fake::default());
    let mirror = Mirror::start(store, &[Kind::Tier], |_| false).unwrap();
    assert!(matches!(mirror.sync(), Err(Error::Unavailable(_))));
}
