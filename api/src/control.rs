//! What is spoken over the agent's unix socket: one JSON request a line, one JSON reply a line.
//!
//! The agent serves it, `tortiectl` and the CNI plugin ask. Nothing here does I/O.

use serde::{Deserialize, Serialize};

/// Where the agent's socket lies unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tortie/agent.sock";

/// A question to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    /// How it stands. Answered by [`Reply::Status`].
    Status,
    /// Wait until the kernel holds everything that is in the datastore now. Answered by [`Reply::Applied`], or
    /// after the timeout by [`Reply::NotApplied`].
    Wait {
        /// Milliseconds.
        timeout_millis: u64,
    },
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reply {
    /// How it stands.
    Status(Box<Status>),
    /// The kernel holds everything.
    Applied {
        /// Worth knowing, e.g. interfaces that do not exist yet.
        notes: Vec<String>,
    },
    /// The time is up.
    NotApplied {
        /// What is missing, in words.
        missing: Vec<String>,
    },
    /// The request was not understood, or could not be answered.
    Error {
        /// Why.
        message: String,
    },
}

/// How an agent stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// Where the resources come from.
    pub datastore: String,
    /// `legacy` or `nft`, once it is known.
    pub iptables_backend: String,
    /// Whether everything in the datastore has been read.
    pub in_sync: bool,
    /// Whether the kernel holds all that follows from it.
    pub applied: bool,
    /// Workload endpoints of this node.
    pub endpoints: usize,
    /// Policies that select one of them.
    pub policies: usize,
    /// IP sets that those policies use.
    pub ip_sets: usize,
    /// Interfaces of endpoints that do not exist or are down; their routes follow when they come.
    pub pending_interfaces: Vec<String>,
    /// What the last pass that changed something did.
    pub last_apply: Apply,
    /// Passes that changed something since the agent started.
    pub applies: u64,
    /// What was done to the kernel and met there.
    pub counters: Counters,
    /// What is not as it should be.
    pub problems: Vec<StatusProblem>,
}

/// Counted since the agent began, or began anew because settings changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Runs of `iptables-restore`, those that failed too.
    pub restores: u64,
    /// Those that failed.
    pub restore_errors: u64,
    /// IP sets kept in the kernel, of IPv4 and of IPv6.
    pub ip_sets: [usize; 2],
    /// How often others have changed our tables, by what the kernel told (nft back end only).
    pub foreign_changes: u64,
    /// Kernel objects that are not as wanted now; what they guard is closed.
    pub quarantined: u64,
}

/// One pass of bringing the kernel in line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Apply {
    /// How long it took, in milliseconds.
    pub millis: f64,
    /// Kernel calls and programs started.
    pub calls: usize,
    /// Runs of `iptables-restore`.
    pub restores: usize,
    /// Kernel objects changed.
    pub changed: usize,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Area {
    /// A document could not be read.
    Datastore,
    /// A resource cannot be followed to the letter.
    Policy,
    /// A setting has a bad value.
    Setting,
    /// Something could not be programmed.
    Kernel,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusProblem {
    /// Of what kind.
    pub area: Area,
    /// The file, object or kernel object.
    pub object: String,
    /// What is wrong.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_are_one_line_each() {
        let wait = serde_json::to_string(&Request::Wait { timeout_millis: 20_000 }).unwrap();
        assert_eq!(wait, r#"{"request":"wait","timeoutMillis":20000}"#);
        let status = Reply::Status(Box::new(Status { node: "n\n".to_owned(), ..Status::default() }));
        let text = serde_json::to_string(&status).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), status);
    }
}
