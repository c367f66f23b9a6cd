//! What can go wrong with the shop, in words for the person who runs the demo.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::LabError;

/// Why the shop cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file could not be read, written or renamed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A manifest that does not say what the lab has to know.
    #[error("{}: {message}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The README's table cannot be read.
    #[error("the table of the README: {0}")]
    Readme(String),
    /// The clock would measure nothing: what a change is to let through passes already.
    #[error("UDP port {0} of the frontend is open before the policy allows it")]
    OpenBefore(u16),
    /// A change did not come into force.
    #[error("{} is not in force {within:?} after its file changed", path.display())]
    NotEnforced {
        /// The changed file.
        path: PathBuf,
        /// How long was waited.
        within: Duration,
    },
    /// A packet could not be sent or received.
    #[error("cannot {action}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
}

impl DemoError {
    /// For `map_err`: an operation on a file that failed.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// For `map_err`: the same for a socket.
    pub(super) fn socket(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { action, source }
    }
}
