//! What can go wrong with a datastore, in the Kubernetes API's terms.

use std::io;
use std::path::PathBuf;

use tortie_api::kind::Key;

/// Why a call of a datastore failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such object (HTTP 404).
    #[error("{key} not found")]
    NotFound {
        /// What was asked for.
        key: Key,
    },
    /// An object of this key exists already (HTTP 409, reason `AlreadyExists`).
    #[error("{key} already exists")]
    AlreadyExists {
        /// What was to be created.
        key: Key,
    },
    /// The object was changed by somebody else since it was read (HTTP 409, reason `Conflict`): read it
    /// again, apply the change to what was read, try again.
    #[error("{key} was changed meanwhile: it is at version {found}, the change was made to {expected}")]
    Conflict {
        /// What was to be changed.
        key: Key,
        /// The version that the change was made to.
        expected: String,
        /// The version that is in the datastore.
        found: String,
    },
    /// The object breaks a rule of its type (HTTP 422).
    #[error("{}{field}: {message}", prefix(key.as_ref()))]
    Invalid {
        /// The object, where it could be told.
        key: Option<Key>,
        /// Path of the field, as in `spec.ingress[0].protocol`.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The revision is not known, or no longer (HTTP 410): list again.
    #[error("this revision is no longer known; list again")]
    Expired,
    /// The object's document cannot be changed where it is; a person has to.
    #[error("{key} cannot be changed in {}: {message}", file.display())]
    NotEditable {
        /// What was to be changed.
        key: Key,
        /// The file that holds it.
        file: PathBuf,
        /// Why not.
        message: String,
    },
    /// A file of the backend could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The backend is out of reach now; the call may be tried again.
    #[error("the datastore is unavailable: {0}")]
    Unavailable(String),
}

fn prefix(key: Option<&Key>) -> String {
    key.map(|key| format!("{key}: ")).unwrap_or_default()
}
