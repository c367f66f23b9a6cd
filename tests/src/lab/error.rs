//! What can go wrong in the lab, in words for the person who runs it.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Why the lab cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program that the lab calls is not installed.
    #[error("the program `{program}` is missing; on Debian: apt install {package}")]
    MissingProgram {
        /// The program's name.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// A program of this repository is not built.
    #[error("{name} is not at {}: run `cargo build --workspace`, or set {variable} to its path", looked.display())]
    NotBuilt {
        /// The program's name.
        name: &'static str,
        /// The environment variable that overrides its path.
        variable: &'static str,
        /// Where it was looked for.
        looked: PathBuf,
    },
    /// The kernel refuses namespaces, or a mount in them.
    #[error("cannot {action} ({source}): {hint}")]
    Rights {
        /// What was tried.
        action: &'static str,
        /// What the reader can do about it.
        hint: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// A system call or file operation failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A command in a namespace returned an error.
    #[error("`{command}` failed in {place}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// The namespace's label.
        place: String,
        /// What it printed to standard error.
        stderr: String,
    },
    /// Text that is not `NAMESPACE/POD`, `node:NAME` or `ext:NAME`.
    #[error("`{0}` is no endpoint: expected NAMESPACE/POD, node:NAME or ext:NAME")]
    BadEndpoint(String),
    /// Text that names no traffic, such as `TCP/80` does.
    #[error("`{text}` names no traffic: {reason}")]
    BadTraffic {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Text that is no IP address.
    #[error("`{0}` is not an IP address")]
    BadAddress(String),
    /// A matrix whose rows do not fit its columns, or with an unknown sign.
    #[error("bad matrix row for {row}: {reason}")]
    BadMatrix {
        /// The row's endpoint.
        row: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The lab has no such endpoint.
    #[error("the lab has no {0}")]
    UnknownEndpoint(String),
    /// The topology contradicts itself.
    #[error("{0}")]
    Topology(String),
    /// Source and destination have no address family in common, or the traffic belongs to the other one.
    #[error("no probe of {traffic} from {from} to {to}: they have no fitting address family in common")]
    NoCommonFamily {
        /// The source.
        from: String,
        /// The destination.
        to: String,
        /// The traffic.
        traffic: String,
    },
    /// An agent ended, or did not apply what the datastore holds.
    #[error("agent on {node}: {reason}\n{log}")]
    Agent {
        /// The node.
        node: String,
        /// What happened.
        reason: String,
        /// The end of its log.
        log: String,
    },
}

impl LabError {
    /// For `map_err`: an operation of the standard library that failed while doing `action`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action: action.into(), source }
    }

    /// For `map_err`: the same for a call through `nix`.
    pub(crate) fn sys(action: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Io { action: action.into(), source: errno.into() }
    }
}
