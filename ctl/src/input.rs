//! The manifests that `-f` names.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tortie_api::kind::Key;
use tortie_api::manifest::{DocumentError, parse_documents};
use tortie_api::resource::Resource;

use crate::cli::{Files, Shared};
use crate::console::Console;
use crate::{object, reason, target};

/// File name extensions of manifests in a directory. Files named one by one may have any.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// An object of a manifest.
#[derive(Debug)]
pub(crate) struct Document {
    /// `FILE:LINE`, for messages.
    pub(crate) place: String,
    /// The object's key; its namespace is settled.
    pub(crate) key: Key,
    /// As written, with the namespace written out.
    pub(crate) value: Value,
}

/// Reads everything that `-f` names. What cannot be read is reported, and hurts nothing else.
pub(crate) fn read(files: &Files, shared: &Shared, console: &mut Console) -> Vec<Document> {
    let errors_before = console.errors();
    let mut documents = Vec::new();
    for path in &files.files {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            match io::stdin().lock().read_to_end(&mut bytes) {
                Ok(_) => take(&bytes, "-", shared, &mut documents, console),
                Err(error) => console.error(&format!("cannot read standard input: {}", reason(&error))),
            }
        } else {
            for file in manifests_at(path, files.recursive, console) {
                match fs::read(&file) {
                    Ok(bytes) => take(&bytes, &file.display().to_string(), shared, &mut documents, console),
                    Err(error) => report(&file, &error, console),
                }
            }
        }
    }
    if documents.is_empty() && console.errors() == errors_before {
        console.error("the manifests hold no objects");
    }
    documents
}

fn report(path: &Path, error: &io::Error, console: &mut Console) {
    console.error(&format!("cannot read {}: {}", path.display(), reason(error)));
}

/// The file itself, or the manifests of a directory, in order.
fn manifests_at(path: &Path, recursive: bool, console: &mut Console) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_path_buf()];
    }
    let mut files = Vec::new();
    let errors_before = console.errors();
    walk(path, recursive, &mut files, console);
    if files.is_empty() && console.errors() == errors_before {
        console.error(&format!("{} holds no .yaml, .yml or .json files", path.display()));
    }
    files
}

/// Hidden entries are skipped, and links to directories are not followed, as the local datastore does it.
fn walk(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>, console: &mut Console) {
    let mut entries = match fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(error) => return report(directory, &error, console),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
            if recursive {
                walk(&path, recursive, files, console);
            }
        } else if is_manifest(&path) && !path.is_dir() {
            files.push(path);
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn take(bytes: &[u8], file: &str, shared: &Shared, documents: &mut Vec<Document>, console: &mut Console) {
    for document in parse_documents(bytes) {
        let manifest = match document.outcome {
            Ok(manifest) => manifest,
            Err(error) => {
                console.error(&fault(file, &error));
                continue;
            }
        };
        let place = format!("{file}:{}", document.first_line);
        match in_namespace(manifest.key, manifest.value, shared) {
            Ok((key, value)) => documents.push(Document { place, key, value }),
            Err(message) => console.error(&format!("{place}: {message}")),
        }
    }
}

/// `FILE:LINE: KEY: FIELD: MESSAGE`
fn fault(file: &str, error: &DocumentError) -> String {
    let key = error.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
    let field = if error.field.is_empty() { String::new() } else { format!("{}: ", error.field) };
    format!("{file}:{}: {key}{field}{}", error.line, error.message)
}

/// The object with the namespace that it names, or else the one of `-n`.
fn in_namespace(key: Key, mut value: Value, shared: &Shared) -> Result<(Key, Value), String> {
    let named = value.pointer("/metadata/namespace").and_then(Value::as_str).filter(|text| !text.is_empty());
    let key = match (named, &shared.namespace) {
        (Some(named), Some(asked)) if key.kind.is_namespaced() && named != asked => {
            return Err(format!(
                "{key}: metadata.namespace: is {named:?}, which is not the namespace of -n, {asked:?}"
            ));
        }
        (Some(_), _) => key,
        (None, _) => Key::new(key.kind, Some(target::namespace(shared)), key.name),
    };
    object::set_namespace(&mut value, &key);
    // The namespace of -n was not there to be checked when the manifest was read.
    Resource::from_value(&value).map_err(|error| format!("{key}: {error}"))?;
    Ok((key, value))
}
