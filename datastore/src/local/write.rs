//! Creating, changing and deleting objects, which is changing documents in files.
//!
//! Each change is made under the lock of the folder, after everything that happened in it has been read, so it
//! is a compare-and-swap between processes. People's editors do not take the lock: a file that changed since it
//! was read is read again. The new text is parsed before it is put in place: a change never harms another
//! document of the file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tortie_api::kind::Key;
use tortie_api::manifest;
use tortie_api::resource::Resource;

use super::files::{self, FolderLock, Stamp};
use super::folder::Reading;
use super::shared::Shared;
use super::{document, edit, file_error, layout, real_path};
use crate::store::take_resource_version;
use crate::{Error, Stored, to_yaml};

/// How often a change is tried again because somebody without the lock changed the file at the same moment.
const ATTEMPTS: usize = 16;

/// An object to be written, and the version that it has to replace.
struct Request {
    new: Stored,
    value: Value,
    expected: Option<String>,
}

impl Request {
    fn new(value: &Value) -> Result<Self, Error> {
        let mut value = value.clone();
        let expected = take_resource_version(&mut value);
        let resource = Resource::from_value(&value).map_err(|error| Error::Invalid {
            key: None,
            field: error.field,
            message: error.message,
        })?;
        let new = document::stored(resource.key(), Arc::new(resource), value.clone());
        Ok(Self { new, value, expected })
    }
}

/// A document's text, in the language of the file.
fn text_of(value: &Value, path: &Path) -> String {
    if path.extension().is_some_and(|extension| extension == "json") {
        format!("{value:#}\n")
    } else {
        to_yaml(value)
    }
}

/// What to do with a document.
#[derive(Clone, Copy)]
enum Edit<'a> {
    Replace(&'a Request),
    Remove,
}

/// How an attempt to change a file ended.
enum Outcome {
    /// The document is changed.
    Done,
    /// The document is removed, and the file with it.
    Removed,
    /// The file is not as it was when it was read.
    Changed,
}

/// [`crate::Datastore::create`].
pub(super) fn create(shared: &Shared, value: &Value) -> Result<Stored, Error> {
    let request = Request::new(value)?;
    let key = &request.new.key;
    if request.expected.is_some() {
        return Err(Error::Invalid {
            key: Some(key.clone()),
            field: "metadata.resourceVersion".to_owned(),
            message: "must not be set on an object that is to be created".to_owned(),
        });
    }
    let _lock = lock(shared)?;
    shared.refresh()?;
    {
        let state = shared.state();
        if state.folder.get(key).is_some() {
            return Err(Error::AlreadyExists { key: key.clone() });
        }
        if let Some((file, line)) = state.folder.places(key).into_iter().next() {
            let message = format!("it has a broken document there, in line {line}");
            return Err(Error::NotEditable { key: key.clone(), file: shared.root.join(file), message });
        }
    }
    write_new_file(&shared.root, &request)?;
    shared.refresh()?;
    Ok(request.new)
}

/// [`crate::Datastore::update`].
pub(super) fn update(shared: &Shared, value: &Value) -> Result<Stored, Error> {
    let request = Request::new(value)?;
    let key = &request.new.key;
    let _lock = lock(shared)?;
    for _ in 0..ATTEMPTS {
        shared.refresh()?;
        let (path, line) = {
            let state = shared.state();
            let object = state.folder.get(key).ok_or_else(|| Error::NotFound { key: key.clone() })?;
            check_version(&object.stored, request.expected.as_deref())?;
            match object.line {
                Some(_) if object.stored.resource_version == request.new.resource_version => {
                    return Ok(request.new);
                }
                Some(line) => (object.path.clone(), line),
                None => {
                    let mut places = state.folder.places(key).into_iter();
                    let broken = places.find(|(path, _)| *path == object.path);
                    broken.ok_or_else(|| unrecognizable(shared, key, &object.path))?
                }
            }
        };
        if let Outcome::Done | Outcome::Removed = change(shared, key, &path, line, Edit::Replace(&request))? {
            shared.refresh()?;
            return Ok(request.new);
        }
    }
    Err(Error::Unavailable(format!("the file of {key} is changing all the time")))
}

/// [`crate::Datastore::delete`]. Every document of the object goes: if only the one in force went, another one
/// would take over, and the object would still be there.
pub(super) fn delete(shared: &Shared, key: &Key, expected: Option<&str>) -> Result<(), Error> {
    let _lock = lock(shared)?;
    shared.refresh()?;
    let mut attempts = {
        let state = shared.state();
        let places = state.folder.places(key).len();
        match state.folder.get(key) {
            Some(object) => {
                check_version(&object.stored, expected)?;
                if places == 0 {
                    return Err(unrecognizable(shared, key, &object.path));
                }
            }
            None if places == 0 => return Err(Error::NotFound { key: key.clone() }),
            None => {}
        }
        places + ATTEMPTS
    };
    loop {
        let place = shared.state().folder.places(key).into_iter().next();
        let Some((path, line)) = place else { return Ok(()) };
        if attempts == 0 {
            return Err(Error::Unavailable(format!("the file of {key} is changing all the time")));
        }
        attempts -= 1;
        let outcome = change(shared, key, &path, line, Edit::Remove)?;
        shared.refresh_after_removing(matches!(outcome, Outcome::Removed).then_some(path))?;
    }
}

fn lock(shared: &Shared) -> Result<FolderLock, Error> {
    FolderLock::take(&shared.root).map_err(|error| file_error("lock", &shared.root, error))
}

fn check_version(found: &Stored, expected: Option<&str>) -> Result<(), Error> {
    match expected {
        Some(expected) if *expected != *found.resource_version => Err(Error::Conflict {
            key: found.key.clone(),
            expected: expected.to_owned(),
            found: found.resource_version.to_string(),
        }),
        _ => Ok(()),
    }
}

fn unrecognizable(shared: &Shared, key: &Key, path: &Path) -> Error {
    let message = "its document is broken so that it cannot be told from others".to_owned();
    Error::NotEditable { key: key.clone(), file: shared.root.join(path), message }
}

fn write_new_file(root: &Path, request: &Request) -> Result<(), Error> {
    let key = &request.new.key;
    for attempt in 0.. {
        let path = root.join(layout::path_for(key, attempt));
        let text = text_of(&request.value, &path);
        let reading = document::read(text.as_bytes());
        if outline(&reading) != (Outline { documents: vec![id(&request.new)], faults: Vec::new() }) {
            return Err(unwritable(key, &path));
        }
        let parent = path.parent().unwrap_or(root);
        create_directories(root, parent).map_err(|error| file_error("create", parent, error))?;
        match files::create(&path, text.as_bytes()) {
            Ok(()) => return Ok(()),
            // Somebody keeps something else in a file of this name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error("write", &path, error)),
        }
    }
    Ok(())
}

/// Makes the directories from `root` down to `path`, so that they survive a crash.
fn create_directories(root: &Path, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    for directory in path.ancestors().skip(1) {
        File::open(directory)?.sync_all()?;
        if directory == root {
            break;
        }
    }
    Ok(())
}

/// Changes the document of `key` at `line` of a file, if it is still there.
fn change(shared: &Shared, key: &Key, path: &Path, line: usize, edit: Edit<'_>) -> Result<Outcome, Error> {
    let path: PathBuf = match real_path(&shared.root.join(path)) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Outcome::Changed);
        }
        other => other?,
    };
    let content = files::read(&path).map_err(|error| file_error("read", &path, error))?;
    let old = document::read(&content.bytes);
    let is_document = old.documents.iter().any(|d| d.line == line && d.stored.key == *key);
    let is_fault = old.faults.iter().any(|f| f.line == Some(line) && f.key.as_ref() == Some(key));
    if !is_document && !is_fault {
        return Ok(Outcome::Changed);
    }
    let Some(text) = edited(&content.bytes, &old, key, line, edit, &path) else {
        return Err(unwritable(key, &path));
    };
    put(&path, content.stamp, text.as_deref()).map_err(|error| file_error("write", &path, error))
}

/// The file's new text, checked; the inner `None` if nothing is left in it.
#[expect(clippy::option_option, reason = "the outer one is failure, the inner one a file without documents")]
fn edited(
    bytes: &[u8],
    old: &Reading,
    key: &Key,
    line: usize,
    edit: Edit<'_>,
    path: &Path,
) -> Option<Option<String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let new = match (edit, edited_list(text, key, line, edit)) {
        (_, Some(list)) => edit::replace(text, line, &text_of(&list, path))?,
        (Edit::Replace(request), None) => edit::replace(text, line, &text_of(&request.value, path))?,
        (Edit::Remove, None) => edit::remove(text, line)?,
    };
    let reading = document::read(new.as_bytes());
    if outline(&reading) != expected_outline(old, key, line, edit) {
        return None;
    }
    let is_empty = reading.documents.is_empty() && reading.faults.is_empty();
    Some((!is_empty).then_some(new))
}

/// The new value of the document at `line` if it is a list of several objects, which all can be read.
fn edited_list(text: &str, key: &Key, line: usize, edit: Edit<'_>) -> Option<Value> {
    let (document, first_line) = edit::document_at(text, line)?;
    let parsed = manifest::parse_documents(document.as_bytes());
    if parsed.len() < 2 {
        return None;
    }
    let mut items = Vec::new();
    for item in parsed {
        let manifest = item.outcome.ok()?;
        let is_target = manifest.key == *key && first_line - 1 + item.first_line == line;
        match edit {
            Edit::Replace(request) if is_target => items.push(request.value.clone()),
            Edit::Remove if is_target => {}
            Edit::Replace(_) | Edit::Remove => items.push(manifest.value),
        }
    }
    Some(json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

/// Puts new content in place of what was read, unless the file has changed since.
fn put(path: &Path, read: Stamp, text: Option<&str>) -> io::Result<Outcome> {
    let has_changed = || fs::metadata(path).map(|metadata| Stamp::of(&metadata) != read);
    let Some(text) = text else {
        if has_changed()? {
            return Ok(Outcome::Changed);
        }
        return files::remove(path).map(|()| Outcome::Removed);
    };
    let mut is_late = false;
    let result = files::replace(path, text.as_bytes(), || {
        is_late = has_changed()?;
        if is_late { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    if is_late { Ok(Outcome::Changed) } else { result.map(|()| Outcome::Done) }
}

/// What a file says, without the places: for checking that a change changes only what it should.
#[derive(PartialEq, Eq)]
struct Outline {
    documents: Vec<(Key, Arc<str>)>,
    faults: Vec<(Option<Key>, Option<String>)>,
}

fn id(stored: &Stored) -> (Key, Arc<str>) {
    (stored.key.clone(), Arc::clone(&stored.resource_version))
}

fn outline(reading: &Reading) -> Outline {
    let mut documents: Vec<_> = reading.documents.iter().map(|document| id(&document.stored)).collect();
    documents.sort();
    let mut faults: Vec<_> = reading.faults.iter().map(|f| (f.key.clone(), f.field.clone())).collect();
    faults.sort();
    Outline { documents, faults }
}

fn expected_outline(old: &Reading, key: &Key, line: usize, edit: Edit<'_>) -> Outline {
    let mut reading = Reading {
        documents: old.documents.iter().filter(|d| d.line != line || d.stored.key != *key).cloned().collect(),
        faults: old
            .faults
            .iter()
            .filter(|f| f.line != Some(line) || f.key.as_ref() != Some(key))
            .cloned()
            .collect(),
    };
    if let Edit::Replace(request) = edit {
        let stored = request.new.clone();
        reading.documents.push(super::folder::Document { stored, line });
    }
    outline(&reading)
}

fn unwritable(key: &Key, file: &Path) -> Error {
    let message = "the change would harm another document of the file, or not read back as it was written";
    Error::NotEditable { key: key.clone(), file: file.to_path_buf(), message: message.to_owned() }
}
