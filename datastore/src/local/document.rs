//! From a file's bytes to objects, and the version that an object's content has.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tortie_api::kind::Key;
use tortie_api::manifest;
use tortie_api::resource::Resource;

use super::folder::{Document, Fault, Reading};
use crate::Stored;
use crate::store::take_resource_version;

/// Reads a file of manifests.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    for document in manifest::parse_documents(bytes) {
        match document.outcome {
            Ok(manifest) => reading.documents.push(Document {
                stored: stored(manifest.key, Arc::new(manifest.resource), manifest.value),
                line: document.first_line,
            }),
            Err(error) => reading.faults.push(Fault {
                line: Some(error.line),
                key: error.key,
                field: Some(error.field).filter(|field| !field.is_empty()),
                message: error.message,
            }),
        }
    }
    reading
}

/// An object with the version of its content.
pub(super) fn stored(key: Key, resource: Arc<Resource>, mut value: Value) -> Stored {
    take_resource_version(&mut value);
    let version = version(&value);
    Stored::new(key, &version, resource, value)
}

/// The version of an object: a hash of its content, which is the same in every process, needs no place in the
/// files, and counts a change that a person made with an editor like any other. 128 bits, in hexadecimal.
fn version(value: &Value) -> String {
    // serde_json keeps maps sorted, so equal objects have equal texts.
    let digest = Sha256::digest(value.to_string().as_bytes());
    digest.iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
