//! Blocking netlink sockets: writing messages, sending many at once, reading what comes back.
//!
//! ```text
//!   Batch ──send──► kernel ──► Reply::Refused (one for each message that failed)
//!                          ──► Reply::Data    (answers to queries)
//!                          ──► an ack of the last message: everything before it has been done
//! ```
//!
//! Only the last message of a send asks for an acknowledgement. One for every message would fill the
//! receive buffer (`ENOBUFS`) and say nothing more: a request that fails is always answered.
//! What the messages mean is not known here; see [`crate::ipset`] and [`crate::rtnl`].

mod atomic;
mod channel;
mod wire;

use std::io;

use nix::errno::Errno;

pub use channel::{Channel, DumpEnd, DumpSink, Protocol, Reply};
pub use wire::{Attribute, Attributes, Batch, Message, Messages, Writer, be16, be32, be64};

/// Why the kernel did not do what one message asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive. Subsystems have numbers of their own above 4095.
    pub errno: i32,
    /// The kernel's explanation (extended acknowledgement), where it gave one.
    pub explanation: Option<String>,
}

impl Refusal {
    /// Whether the error is this one.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno == errno as i32
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.explanation {
            Some(text) => write!(f, "{text} ({})", io::Error::from_raw_os_error(self.errno)),
            None => write!(f, "{}", io::Error::from_raw_os_error(self.errno)),
        }
    }
}

impl std::error::Error for Refusal {}

/// A request could not be carried out, or its outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket, or one without the options that are needed.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The messages were not taken.
    #[error("cannot send")]
    Send(#[source] io::Error),
    /// The answer could not be read.
    #[error("cannot receive")]
    Receive(#[source] io::Error),
    /// Answers were lost because the receive buffer was full (`ENOBUFS`); what the requests did is not known.
    #[error("answers were lost: the receive buffer was full")]
    Overrun,
    /// A dump was disturbed by changes every time it was tried.
    #[error("the kernel's state kept changing while it was read")]
    Unsteady,
    /// A message that does not follow the format.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A query or dump was refused.
    #[error("refused")]
    Refused(#[source] Refusal),
}

impl NetlinkError {
    /// The refusal, when the kernel answered with one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The error with its causes, for a [`crate::reconcile::Problem`].
    pub fn words(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

#[cfg(test)]
mod tests;
