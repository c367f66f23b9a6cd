//! Lists, watches and revisions: the semantics that consumers build on.

#[cfg(test)]
mod common;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use common::{DEADLINE, Folder, Watched, key, net, set, set_value, shown};
use tortie_api::kind::Kind;
use tortie_datastore::{Datastore, Error, Mirror, MirrorEvent, Revision, WatchEvent};

#[test]
fn a_watch_misses_nothing_after_the_list_it_starts_from() {
    let folder = Folder::new();
    folder.write("a.yaml", set("a", "10.0.0.0/8"));
    let store = folder.open();
    let list = store.list(Kind::GlobalNetworkSet, None).unwrap();
    for n in 0..20 {
        folder.write("a.yaml", set("a", &format!("10.{n}.0.0/16")));
        store.sync().unwrap();
    }
    let watch = Watched::start(&store, &list.revision);
    let events = watch.after_sync(&store);
    assert_eq!(events.len(), 20);
    assert_eq!(events[19], "~a 10.19.0.0/16");
}

#[test]
fn a_watch_goes_on_from_a_bookmark() {
    let folder = Folder::new();
    let store = folder.open();
    let watch = Watched::now(&store);
    store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    let mut bookmark = None;
    while bookmark.is_none() {
        if let WatchEvent::Bookmark(revision) = watch.events.recv_timeout(DEADLINE).unwrap() {
            bookmark = Some(revision);
        }
    }
    drop(watch);
    store.create(&set_value("b", "10.0.0.0/8")).unwrap();
    store.delete(&key("a"), None).unwrap();
    let watch = Watched::start(&store, &bookmark.unwrap());
    assert_eq!(watch.after_sync(&store), ["+b 10.0.0.0/8", "-a"]);
}

#[test]
fn a_foreign_a_future_and_a_senseless_revision_are_expired() {
    let folder = Folder::new();
    let (store, other) = (folder.open(), folder.open());
    let foreign = other.list(Kind::Pod, None).unwrap().revision;
    let own = store.list(Kind::Pod, None).unwrap().revision;
    let future = own.as_str().replace("-0", "-7");
    for revision in [foreign.as_str(), &future, "", "0", "x-y", "-"] {
        let result = store.watch(Kind::Pod, &Revision::new(revision), Box::new(|_| true));
        assert!(matches!(result, Err(Error::Expired)), "{revision:?}");
    }
    assert!(store.watch(Kind::Pod, &own, Box::new(|_| true)).is_ok());
}

#[test]
fn a_revision_that_is_too_old_is_expired() {
    let folder = Folder::new();
    let store = folder.open();
    let old = store.list(Kind::GlobalNetworkSet, None).unwrap().revision;
    let all = |net: &str| (0..600).map(|n| set(&format!("s{n}"), net)).collect::<Vec<_>>().join("---\n");
    for net in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"] {
        folder.write("all.yaml", all(net));
        store.sync().unwrap();
    }
    assert!(matches!(store.watch(Kind::GlobalNetworkSet, &old, Box::new(|_| true)), Err(Error::Expired)));
}

#[test]
fn a_watch_gets_its_kind_only() {
    let folder = Folder::new();
    let store = folder.open();
    let watch = Watched::now(&store);
    folder.write("ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n");
    folder.write("set.yaml", set("a", "10.0.0.0/8"));
    assert_eq!(watch.after_sync(&store), ["+a 10.0.0.0/8"]);
}

#[test]
fn a_watch_ends_with_its_handle_or_when_its_sink_has_enough_or_panics() {
    let folder = Folder::new();
    let store = folder.open();
    let revision = store.list(Kind::GlobalNetworkSet, None).unwrap().revision;
    let (send, enough) = mpsc::channel();
    let once = Box::new(move |event| {
        send.send(event).unwrap();
        false
    });
    let _once = store.watch(Kind::GlobalNetworkSet, &revision, once).unwrap();
    let _panics = store.watch(Kind::GlobalNetworkSet, &revision, Box::new(|_| panic!("on purpose"))).unwrap();
    let Watched { events, handle } = Watched::start(&store, &revision);
    drop(handle);
    let lives = Watched::start(&store, &revision);

    store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    store.create(&set_value("b", "10.0.0.0/8")).unwrap();
    assert_eq!(lives.after_sync(&store), ["+a 10.0.0.0/8", "+b 10.0.0.0/8"]);
    // The channels are closed: the store has let go of the sinks.
    assert_eq!(enough.iter().filter_map(|event| shown(&event)).collect::<Vec<_>>(), ["+a 10.0.0.0/8"]);
    assert_eq!(events.iter().count(), 0);
}

#[test]
fn a_sink_may_call_the_store_and_hold_the_last_of_it() {
    let folder = Folder::new();
    let store = Arc::new(folder.open());
    let revision = store.list(Kind::GlobalNetworkSet, None).unwrap().revision;
    let (send, answers) = mpsc::channel();
    let inner = Arc::clone(&store);
    let sink = move |event| {
        if let WatchEvent::Added(stored) = event
            && stored.key.name == "a"
        {
            inner.create(&set_value("b", "10.1.0.0/16")).unwrap();
            send.send(net(&*inner, "b")).unwrap();
        }
        true
    };
    let handle = store.watch(Kind::GlobalNetworkSet, &revision, Box::new(sink)).unwrap();
    store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap().as_deref(), Some("10.1.0.0/16"));
    drop(store);
    drop(handle);
    assert!(answers.recv_timeout(DEADLINE).is_err());
}

#[test]
fn after_a_sync_the_writes_of_another_store_have_been_delivered() {
    let folder = Folder::new();
    let (store, other) = (folder.open(), folder.open());
    let watch = Watched::now(&store);
    for n in 0..20 {
        let name = format!("s{n}");
        other.create(&set_value(&name, "10.0.0.0/8")).unwrap();
        assert_eq!(watch.after_sync(&store), [format!("+{name} 10.0.0.0/8")]);
        other.delete(&key(&name), None).unwrap();
        assert_eq!(watch.after_sync(&store), [format!("-{name}")]);
    }
}

#[test]
fn a_mirror_delivers_what_is_there_then_in_sync_then_changes() {
    let folder = Folder::new();
    folder.write("a.yaml", [set("a", "10.0.0.0/8"), set("b", "10.0.0.0/8")].join("---\n"));
    folder.write("ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n");
    let store = Arc::new(folder.open());
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    let consumer = move |event| {
        if event == MirrorEvent::Settled {
            return true;
        }
        log.lock().unwrap().push(match event {
            MirrorEvent::Set(stored) => format!("={}", stored.key),
            MirrorEvent::Remove(key) => format!("-{key}"),
            MirrorEvent::InSync => "in-sync".to_owned(),
            MirrorEvent::Settled => unreachable!("left out above"),
        });
        true
    };
    let mirror = Mirror::start(store, &[Kind::Namespace, Kind::GlobalNetworkSet], consumer).unwrap();
    let after_sync = || {
        mirror.sync().unwrap();
        std::mem::take(&mut *seen.lock().unwrap())
    };
    assert_eq!(after_sync(), ["=Namespace/n", "=GlobalNetworkSet/a", "=GlobalNetworkSet/b", "in-sync"]);
    folder.write("a.yaml", [set("b", "10.1.0.0/16"), set("c", "10.0.0.0/8")].join("---\n"));
    // What is new comes before what is gone, so that nothing is missing in between.
    assert_eq!(after_sync(), ["=GlobalNetworkSet/b", "=GlobalNetworkSet/c", "-GlobalNetworkSet/a"]);
    assert!(after_sync().is_empty());
}
