//! `tortiectl apply`: the objects of manifests replace those of the datastore.
//!
//! The manifest is the whole truth about an object, except for what a cluster writes into it: `status` and the
//! identity in `metadata` stay as they are where the manifest has none.

use serde_json::Value;
use tortie_datastore::{Datastore, Error as StoreError};

use crate::cli::{ApplyArgs, Shared};
use crate::console::Console;
use crate::input::Document;
use crate::{Error, chain, datastore, input, object};

/// How often a change is tried again because somebody else changed the object at the same moment.
const ATTEMPTS: usize = 16;

/// Fields of `metadata` that belong to the cluster.
const CLUSTER_METADATA: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "generation", "managedFields", "selfLink"];

/// Runs the command.
pub(crate) fn run(args: &ApplyArgs, shared: &Shared, console: &mut Console) -> Result<(), Error> {
    if args.input.files.is_empty() {
        return Err(Error::Usage("name the manifests with -f".to_owned()));
    }
    let store = datastore::open(shared)?;
    for document in input::read(&args.input, shared.namespace.as_deref(), console) {
        match apply(&store, &document) {
            Ok(done) => console.say(&format!("{} {}\n", object::full_name(&document.key), done.word())),
            Err(error) => console.error(&format!("{}: {}", document.place, chain(&error))),
        }
    }
    Ok(())
}

/// What was done.
#[derive(Clone, Copy)]
enum Done {
    Created,
    Configured,
    Unchanged,
}

impl Done {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

fn apply(store: &dyn Datastore, document: &Document) -> Result<Done, StoreError> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let error = match try_to_apply(store, document) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let has_changed = matches!(
            error,
            StoreError::Conflict { .. } | StoreError::AlreadyExists { .. } | StoreError::NotFound { .. }
        );
        // A version in the manifest says that no other may be replaced.
        if !has_changed || attempts == 0 || resource_version(&document.value).is_some() {
            return Err(error);
        }
    }
}

fn try_to_apply(store: &dyn Datastore, document: &Document) -> Result<Done, StoreError> {
    let live = match store.get(&document.key) {
        Ok(live) => live,
        Err(StoreError::NotFound { .. }) => return store.create(&document.value).map(|_| Done::Created),
        Err(error) => return Err(error),
    };
    let mut old = object::value(&live);
    let mut new = with_cluster_fields(&document.value, &old);
    let version = take_resource_version(&mut new);
    take_resource_version(&mut old);
    if new == old {
        return Ok(Done::Unchanged);
    }
    set_resource_version(&mut new, version.unwrap_or_else(|| Value::from(&*live.resource_version)));
    store.update(&new).map(|_| Done::Configured)
}

/// The object that a manifest makes of one, version and all.
pub(crate) fn applied(manifest: &Value, live: &Value) -> Value {
    let mut new = with_cluster_fields(manifest, live);
    take_resource_version(&mut new);
    if let Some(version) = live.pointer("/metadata/resourceVersion") {
        set_resource_version(&mut new, version.clone());
    }
    new
}

/// The manifest, with what the cluster wrote into the object.
fn with_cluster_fields(manifest: &Value, live: &Value) -> Value {
    let mut new = manifest.clone();
    if let (Some(Value::Object(metadata)), Some(Value::Object(old))) =
        (new.get_mut("metadata"), live.get("metadata"))
    {
        for field in CLUSTER_METADATA {
            if metadata.get(field).is_none_or(Value::is_null) {
                metadata.remove(field);
                if let Some(value) = old.get(field) {
                    metadata.insert(field.to_owned(), value.clone());
                }
            }
        }
    }
    // Generators write `status: {}` into manifests.
    let has_status = match new.get("status") {
        Some(Value::Object(status)) => !status.is_empty(),
        status => status.is_some_and(|status| !status.is_null()),
    };
    if let (false, Value::Object(new), Some(status)) = (has_status, &mut new, live.get("status")) {
        new.insert("status".to_owned(), status.clone());
    }
    new
}

fn resource_version(value: &Value) -> Option<&str> {
    value.pointer("/metadata/resourceVersion").and_then(Value::as_str).filter(|version| !version.is_empty())
}

/// The version that the manifest has to replace, if it names one.
fn take_resource_version(value: &mut Value) -> Option<Value> {
    let named = resource_version(value).is_some();
    let taken = value.get_mut("metadata")?.as_object_mut()?.remove("resourceVersion");
    taken.filter(|_| named)
}

fn set_resource_version(value: &mut Value, version: Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), version);
    }
}

#[cfg(test)]
mod tests;
