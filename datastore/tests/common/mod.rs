//! What the tests of stores share: a folder, texts of objects, and a watch that collects what it gets.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tortie_api::kind::{Key, Kind};
use tortie_datastore::{Datastore, LocalStore, Revision, WatchEvent, WatchHandle};

/// How long to wait for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A folder that is removed at the end.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn open(&self) -> LocalStore {
        LocalStore::open(self.0.path()).unwrap()
    }

    /// The files of the folder that are not hidden, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut directories = vec![self.root()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                } else if !entry.file_name().to_str().unwrap().starts_with('.') {
                    files
                        .push(entry.path().strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

/// A network set as a document.
pub(crate) fn set(name: &str, net: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: {name}\nspec:\n  nets:\n  - {net}\n"
    )
}

/// A network set as a value.
pub(crate) fn set_value(name: &str, net: &str) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": name}, "spec": {"nets": [net]},
    })
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(Kind::GlobalNetworkSet, None, name)
}

/// The set's net, if there is the set.
pub(crate) fn net(store: &dyn Datastore, name: &str) -> Option<String> {
    let stored = store.get(&key(name)).ok()?;
    Some(stored.value()["spec"]["nets"][0].as_str()?.to_owned())
}

/// Name and net of each set.
pub(crate) fn sets(store: &dyn Datastore) -> Vec<String> {
    let list = store.list(Kind::GlobalNetworkSet, None).unwrap();
    list.items.iter().map(|item| item.key.name.clone()).collect()
}

pub(crate) fn problems(store: &dyn Datastore) -> Vec<String> {
    store.problems().iter().map(ToString::to_string).collect()
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A watch of network sets that collects `+name net`, `~name net`, `-name`.
pub(crate) struct Watched {
    pub(crate) events: Receiver<WatchEvent>,
    pub(crate) handle: WatchHandle,
}

impl Watched {
    pub(crate) fn start(store: &dyn Datastore, from: &Revision) -> Self {
        let (send, events) = mpsc::channel();
        let sink = Box::new(move |event| send.send(event).is_ok());
        let handle = store.watch(Kind::GlobalNetworkSet, from, sink).unwrap();
        Self { events, handle }
    }

    /// From now on.
    pub(crate) fn now(store: &dyn Datastore) -> Self {
        Self::start(store, &store.list(Kind::GlobalNetworkSet, None).unwrap().revision)
    }

    /// What has been delivered after a `sync`.
    pub(crate) fn after_sync(&self, store: &dyn Datastore) -> Vec<String> {
        store.sync().unwrap();
        self.events.try_iter().filter_map(|event| shown(&event)).collect()
    }

    /// The next event, when it comes.
    pub(crate) fn next(&self) -> String {
        loop {
            let event = self.events.recv_timeout(DEADLINE).unwrap();
            if let Some(shown) = shown(&event) {
                return shown;
            }
        }
    }
}

/// An event in short; bookmarks are left out.
pub(crate) fn shown(event: &WatchEvent) -> Option<String> {
    let net = |value: &Value| value["spec"]["nets"][0].as_str().unwrap().to_owned();
    match event {
        WatchEvent::Added(stored) => Some(format!("+{} {}", stored.key.name, net(&stored.value()))),
        WatchEvent::Modified(stored) => Some(format!("~{} {}", stored.key.name, net(&stored.value()))),
        WatchEvent::Deleted(stored) => Some(format!("-{}", stored.key.name)),
        WatchEvent::Bookmark(_) => None,
        WatchEvent::Expired => Some("expired".to_owned()),
    }
}
