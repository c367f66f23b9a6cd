//! The datastore trait: the Kubernetes API's semantics as blocking calls.
//!
//! A list has a revision; a watch starts from one and delivers every later event in order; a revision that is
//! no longer known means *list again*. Changes are compare-and-swap on `metadata.resourceVersion`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tortie_api::kind::{Key, Kind};
use tortie_api::resource::Resource;

use crate::Error;

/// A place in the history of one datastore. Opaque: it is compared and ordered by that datastore only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision(Arc<str>);

impl Revision {
    /// A revision from the backend's text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The backend's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One version of an object.
///
/// The parsed form is shared; the object as written is kept as compact JSON text, about a fifth of the memory
/// of a [`Value`], and parsed again on demand: few consumers want it. It cannot be read again from the backend
/// instead, because the last good version of a broken document exists nowhere else. Cloning copies the key.
#[derive(Clone)]
pub struct Stored {
    /// What identifies the object.
    pub key: Key,
    /// The version to compare in [`Datastore::update`] and [`Datastore::delete`]; equal for equal content.
    pub resource_version: Arc<str>,
    /// The object, checked, with its defaults.
    pub resource: Arc<Resource>,
    text: Arc<str>,
}

impl Stored {
    /// A version of an object as a backend read it. `value` is the object as written; a
    /// `metadata.resourceVersion` in it is not kept.
    pub fn new(key: Key, resource_version: &str, resource: Arc<Resource>, mut value: Value) -> Self {
        take_resource_version(&mut value);
        Self { key, resource_version: resource_version.into(), resource, text: value.to_string().into() }
    }

    /// The object as written, without defaults, with `metadata.resourceVersion` set.
    pub fn value(&self) -> Value {
        let mut value: Value = serde_json::from_str(&self.text).unwrap_or_default();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::String(self.resource_version.to_string()));
        }
        value
    }
}

impl PartialEq for Stored {
    /// Equal key, version and content.
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.resource_version == other.resource_version && self.text == other.text
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.resource_version)
    }
}

/// Removes `metadata.resourceVersion`; returns it if it was a text that is not empty.
pub(crate) fn take_resource_version(value: &mut Value) -> Option<String> {
    let metadata = value.get_mut("metadata")?.as_object_mut()?;
    match metadata.remove("resourceVersion") {
        Some(Value::String(version)) if !version.is_empty() => Some(version),
        _ => None,
    }
}

/// The objects of a kind at one moment.
#[derive(Clone, Debug)]
pub struct List {
    /// In the order of their keys.
    pub items: Vec<Stored>,
    /// That moment: a watch from here misses nothing.
    pub revision: Revision,
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// An object came into being.
    Added(Stored),
    /// An object changed.
    Modified(Stored),
    /// An object is gone; this was its last version.
    Deleted(Stored),
    /// Everything up to this revision has been delivered: a later watch may go on from here. A backend in which one
    /// write can change several objects, of any kinds, sends it after all of them, so that a consumer can wait for
    /// what belongs together.
    Bookmark(Revision),
    /// Events have been lost and the watch is over: list again. Always the last event.
    Expired,
}

/// Where a watch delivers to. `false` ends the watch. Called from a thread of the datastore, one event at a
/// time: it may call the datastore, except [`Datastore::sync`], and should be quick.
pub type Sink = Box<dyn FnMut(WatchEvent) -> bool + Send>;

/// A running watch. Dropping it ends the watch; a delivery in progress on another thread may still finish.
#[must_use = "a watch ends when its handle is dropped"]
pub struct WatchHandle(Option<Box<dyn FnOnce() + Send>>);

impl WatchHandle {
    /// A handle that calls `stop` when it is dropped.
    pub fn new(stop: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(stop)))
    }
}

impl fmt::Debug for WatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchHandle").finish_non_exhaustive()
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        if let Some(stop) = self.0.take() {
            stop();
        }
    }
}

/// Something in the datastore that could not be used as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, for backends that have files.
    pub file: Option<PathBuf>,
    /// The line in it, from 1.
    pub line: Option<usize>,
    /// The object, where it could be told.
    pub key: Option<Key>,
    /// Path of the field, where one is to blame.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// Whether an earlier version, or another document, of the object stays in force.
    pub is_covered: bool,
}

impl Problem {
    /// Where it is: `file:line`, or `file`; nothing for backends without files.
    pub fn place(&self) -> Option<String> {
        let file = self.file.as_ref()?.display();
        Some(self.line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}")))
    }

    /// What it is, without the place: `key: field: message (the last good version stays in force)`.
    pub fn words(&self) -> String {
        let key = self.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
        let field = self.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
        let cover = if self.is_covered { " (the last good version stays in force)" } else { "" };
        format!("{key}{field}{}{cover}", self.message)
    }
}

impl fmt::Display for Problem {
    /// `file:line: key: field: message (the last good version stays in force)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.words())
    }
}

/// A datastore. Calls block; they may come from any thread.
pub trait Datastore: Send + Sync {
    /// One object. [`Error::NotFound`] if there is none.
    fn get(&self, key: &Key) -> Result<Stored, Error>;

    /// The objects of a kind, of one namespace or of all, with the revision to watch from.
    fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<List, Error>;

    /// Delivers every event of a kind after `from`, in order, until the handle is dropped, the sink returns
    /// `false`, or [`WatchEvent::Expired`]. [`Error::Expired`] if `from` is not known, or no longer.
    fn watch(&self, kind: Kind, from: &Revision, sink: Sink) -> Result<WatchHandle, Error>;

    /// Creates an object and returns it as stored. [`Error::AlreadyExists`] if there is one of this key;
    /// [`Error::Invalid`] if it breaks a rule, or has a `metadata.resourceVersion`.
    fn create(&self, value: &Value) -> Result<Stored, Error>;

    /// Replaces an object and returns it as stored. With a `metadata.resourceVersion` in `value`, only if the
    /// object is still at that version, else [`Error::Conflict`]; without, always.
    fn update(&self, value: &Value) -> Result<Stored, Error>;

    /// Deletes an object, if a version is given only at that version.
    fn delete(&self, key: &Key, resource_version: Option<&str>) -> Result<(), Error>;

    /// Returns once every event of every write that was complete before this call, by whomever, has been
    /// handed to the sinks of this store's watches. Not to be called from a sink.
    fn sync(&self) -> Result<(), Error>;

    /// What could not be used as written, now.
    fn problems(&self) -> Vec<Problem>;

    /// Where a person finds an object, e.g. `policies/db.yaml:12`; `None` where a backend has no such place.
    fn origin(&self, _key: &Key) -> Option<String> {
        None
    }
}
