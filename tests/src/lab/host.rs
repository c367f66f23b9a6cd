//! One namespace of the lab with its name and addresses.

use std::process::Output;

use super::{Addresses, Endpoint, LabError, Netns, host_interface};

/// A node, pod or outside host.
#[derive(Debug)]
pub struct Host {
    pub(super) endpoint: Endpoint,
    pub(super) addresses: Addresses,
    pub(super) netns: Netns,
    /// The node that a pod is on; `None` for a node or an outside host.
    pub(super) node: Option<String>,
}

impl Host {
    /// Its name.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its addresses.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The node that a pod is on; `None` for a node or an outside host.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The pod's interface on its node; `None` for a node or an outside host.
    pub fn interface(&self) -> Option<String> {
        match &self.endpoint {
            Endpoint::Pod { namespace, name } => Some(host_interface(namespace, name)),
            Endpoint::Node(_) | Endpoint::External(_) => None,
        }
    }

    /// Runs a command here to its end. A failure of the command is in the output's status, not an error.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output, LabError> {
        self.netns.run(program, args, "")
    }

    /// Runs a command here, with `input` as its standard input, that must succeed; returns its standard output.
    ///
    /// # Errors
    /// [`LabError::Command`] with what it printed, when it fails.
    pub fn check(&self, program: &str, args: &[&str], input: &str) -> Result<String, LabError> {
        self.netns.check(program, args, input)
    }
}
