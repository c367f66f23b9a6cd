//! The `local` backend: a directory tree of manifests, as a person lays out a GitOps folder.
//!
//! Files named `.yaml`, `.yml` or `.json`, in subfolders too, hold one or many documents each. Hidden files and
//! folders and editors' working copies are skipped; symbolic links to files are followed, to folders not.
//! The folder is watched; people, git and Tortie's own processes may change it at the same time. Tortie's
//! writers lock `.tortie.lock` in it and replace files in one step.
//!
//! | module | its part |
//! |---|---|
//! | `tree` `pending` `scanner` | what happened in the folder, and when to read which file |
//! | `document` `folder` | what the files say, which version of each object is in force |
//! | `feed` `shared` | history, watches, threads |
//! | `edit` `layout` `files` `write` | changing a document where it is |

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::Value;
use tortie_api::kind::{Key, Kind};

use self::scanner::Scanner;
use self::shared::Shared;
use crate::{Datastore, Error, List, Problem, Revision, Sink, Stored, WatchHandle};

mod document;
mod edit;
mod feed;
mod files;
mod folder;
mod layout;
mod pending;
mod scanner;
mod shared;
mod tree;
mod write;

/// A folder of manifests.
#[derive(Debug)]
pub struct LocalStore {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl LocalStore {
    /// Opens a folder, which must exist, and reads all of it. Documents that cannot be used are
    /// [problems](Datastore::problems), not errors.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, Error> {
        let root = root.as_ref();
        Self::start(root).map_err(|source| Error::File { action: "open", path: root.to_path_buf(), source })
    }

    fn start(root: &Path) -> io::Result<Self> {
        let root: PathBuf = std::path::absolute(root)?;
        let mut scanner = Scanner::open(&root)?;
        let (waker, wakeups) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        wakeups.set_nonblocking(true)?;
        let shared = Arc::new(Shared::new(root, waker));
        shared.commit(scanner.poll(Instant::now(), true, Vec::new()), &scanner);

        let mut store = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        let ours = Arc::clone(&shared);
        let scan = thread::Builder::new().name("store-scanner".to_owned());
        store.threads.push(scan.spawn(move || ours.run_scanner(scanner, &wakeups))?);
        let deliver = thread::Builder::new().name("store-deliverer".to_owned());
        store.threads.push(deliver.spawn(move || shared.run_deliverer())?);
        Ok(store)
    }

    /// The folder, as an absolute path.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A sink may hold the last reference to the store: its thread cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                // A panic in it has been printed already.
                let _ = thread.join();
            }
        }
    }
}

impl Datastore for LocalStore {
    fn get(&self, key: &Key) -> Result<Stored, Error> {
        let state = self.shared.state();
        let object = state.folder.get(key).ok_or_else(|| Error::NotFound { key: key.clone() })?;
        Ok(object.stored.clone())
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<List, Error> {
        let state = self.shared.state();
        let items = state.folder.list(kind, namespace).cloned().collect();
        Ok(List { items, revision: state.feed.revision() })
    }

    fn watch(&self, kind: Kind, from: &Revision, sink: Sink) -> Result<WatchHandle, Error> {
        let id = self.shared.state().feed.subscribe(kind, from, sink)?;
        self.shared.notify();
        let shared = Arc::downgrade(&self.shared);
        Ok(WatchHandle::new(move || {
            if let Some(shared) = shared.upgrade() {
                // The sink is dropped outside of the lock: what it holds may call the store.
                let sink = shared.state().feed.unsubscribe(id);
                drop(sink);
                shared.notify();
            }
        }))
    }

    fn create(&self, value: &Value) -> Result<Stored, Error> {
        write::create(&self.shared, value)
    }

    fn update(&self, value: &Value) -> Result<Stored, Error> {
        write::update(&self.shared, value)
    }

    fn delete(&self, key: &Key, resource_version: Option<&str>) -> Result<(), Error> {
        write::delete(&self.shared, key, resource_version)
    }

    fn sync(&self) -> Result<(), Error> {
        self.shared.refresh()?;
        self.shared.wait_for_delivery()
    }

    fn origin(&self, key: &Key) -> Option<String> {
        let state = self.shared.state();
        let object = state.folder.get(key)?;
        let file = self.shared.root.join(&object.path);
        let line = object.line.map(|line| format!(":{line}")).unwrap_or_default();
        Some(format!("{}{line}", file.display()))
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.shared.state().folder.problems();
        for problem in &mut problems {
            problem.file = problem.file.take().map(|file| {
                // Joined to the empty path of the folder itself, the root would get a slash at its end.
                if file.as_os_str().is_empty() {
                    self.shared.root.clone()
                } else {
                    self.shared.root.join(file)
                }
            });
        }
        problems
    }
}

/// An error of a file operation.
fn file_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { action, path: path.to_path_buf(), source }
}

/// The file that a path leads to, through symbolic links.
fn real_path(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|error| file_error("find", path, error))
}
