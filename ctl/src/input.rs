//! The manifests that `-f` names.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tortie_api::kind::Key;
use tortie_api::manifest::{DocumentError, parse_documents};
use tortie_api::resource::Resource;

use crate::cli::Files;
use crate::console::Console;
use crate::{object, reason};

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
    /// What it says.
    pub(crate) resource: Resource,
}

/// Reads everything that `-f` names; objects that name no namespace are in that of `-n`. What cannot be read is
/// reported, and hurts nothing else.
pub(crate) fn read(files: &Files, namespace: Option<&str>, console: &mut Console) -> Vec<Document> {
    Reader { namespace, is_lenient: false, documents: Vec::new(), console }.read(files)
}

/// Reads manifests in place of a datastore: as with one, broken documents are left out with a warning.
pub(crate) fn read_as_datastore(files: &Files, console: &mut Console) -> Vec<Document> {
    Reader { namespace: None, is_lenient: true, documents: Vec::new(), console }.read(files)
}

struct Reader<'a> {
    namespace: Option<&'a str>,
    /// Whether broken documents are no errors.
    is_lenient: bool,
    documents: Vec<Document>,
    console: &'a mut Console,
}

impl Reader<'_> {
    fn read(mut self, files: &Files) -> Vec<Document> {
        let errors_before = self.console.errors();
        for path in &files.files {
            if path.as_os_str() == "-" {
                let mut bytes = Vec::new();
                match io::stdin().lock().read_to_end(&mut bytes) {
                    Ok(_) => self.take(&bytes, "-"),
                    Err(error) => {
                        self.console.error(&format!("cannot read standard input: {}", reason(&error)));
                    }
                }
            } else {
                for file in manifests_at(path, files.recursive, self.console) {
                    match fs::read(&file) {
                        Ok(bytes) => self.take(&bytes, &file.display().to_string()),
                        Err(error) => report(&file, &error, self.console),
                    }
                }
            }
        }
        if self.documents.is_empty() && self.console.errors() == errors_before {
            self.console.error("the manifests hold no objects");
        }
        self.documents
    }

    fn take(&mut self, bytes: &[u8], file: &str) {
        for document in parse_documents(bytes) {
            let manifest = match document.outcome {
                Ok(manifest) => manifest,
                Err(error) => {
                    self.blame(&fault(file, &error));
                    continue;
                }
            };
            let place = format!("{file}:{}", document.first_line);
            match in_namespace(manifest.key, manifest.value, self.namespace) {
                Ok((key, value, resource)) => self.documents.push(Document { place, key, value, resource }),
                Err(message) => self.blame(&format!("{place}: {message}")),
            }
        }
    }

    fn blame(&mut self, message: &str) {
        if self.is_lenient {
            self.console.note(&format!("warning: {message}"));
        } else {
            self.console.error(message);
        }
    }
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

/// `FILE:LINE: KEY: FIELD: MESSAGE`
fn fault(file: &str, error: &DocumentError) -> String {
    let key = error.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
    let field = if error.field.is_empty() { String::new() } else { format!("{}: ", error.field) };
    format!("{file}:{}: {key}{field}{}", error.line, error.message)
}

/// The object with the namespace that it names, or else the one of `-n`.
fn in_namespace(
    key: Key,
    mut value: Value,
    namespace: Option<&str>,
) -> Result<(Key, Value, Resource), String> {
    let named = value.pointer("/metadata/namespace").and_then(Value::as_str).filter(|text| !text.is_empty());
    let key = match (named, namespace) {
        (Some(named), Some(asked)) if key.kind.is_namespaced() && named != asked => {
            return Err(format!(
                "{key}: metadata.namespace: is {named:?}, which is not the namespace of -n, {asked:?}"
            ));
        }
        (Some(_), _) => key,
        (None, _) => Key::new(key.kind, namespace, key.name),
    };
    object::set_namespace(&mut value, &key);
    // The namespace of -n was not there to be checked when the manifest was read.
    let resource = Resource::from_value(&value).map_err(|error| format!("{key}: {error}"))?;
    Ok((key, value, resource))
}
