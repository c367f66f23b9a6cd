//! Saying what a lab is to hold.

use super::{Addresses, Lab, LabError};

/// Who programs the route to a pod on the pod's own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalRoutes {
    /// The agent, as in real use: without one, nothing reaches a pod.
    #[default]
    Agent,
    /// The lab, as a CNI plugin does; for a lab that has no agents, or none yet.
    Lab,
}

/// A pod to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// Its addresses.
    pub addresses: Addresses,
}

/// Collects what a lab is to hold; made by [`Lab::builder`].
///
/// Addresses are given as text (one, or an IPv4 and an IPv6 one separated by a comma), as `IpAddr`, or as a pair.
/// Node addresses lie in 172.18.0.0/16 (without .0.1) and fd00::ac12:0/112 (without :1); all others are free.
/// A mistake in a call is reported by [`build`](Self::build).
#[derive(Debug, Default)]
pub struct LabBuilder {
    pub(super) nodes: Vec<(String, Addresses)>,
    pub(super) pods: Vec<PodSpec>,
    pub(super) externals: Vec<(String, Addresses)>,
    pub(super) local_routes: LocalRoutes,
    mistake: Option<LabError>,
}

impl LabBuilder {
    /// Adds a node; its uplink is called `eth0`.
    #[must_use]
    pub fn node<A>(mut self, name: &str, addresses: A) -> Self
    where
        A: TryInto<Addresses, Error: Into<LabError>>,
    {
        if let Some(addresses) = self.addresses(addresses) {
            self.nodes.push((name.to_owned(), addresses));
        }
        self
    }

    /// Adds a pod on `node`.
    #[must_use]
    pub fn pod<A>(mut self, namespace: &str, name: &str, node: &str, addresses: A) -> Self
    where
        A: TryInto<Addresses, Error: Into<LabError>>,
    {
        if let Some(addresses) = self.addresses(addresses) {
            let (namespace, name, node) = (namespace.to_owned(), name.to_owned(), node.to_owned());
            self.pods.push(PodSpec { namespace, name, node, addresses });
        }
        self
    }

    /// Adds a host outside the cluster.
    #[must_use]
    pub fn external<A>(mut self, name: &str, addresses: A) -> Self
    where
        A: TryInto<Addresses, Error: Into<LabError>>,
    {
        if let Some(addresses) = self.addresses(addresses) {
            self.externals.push((name.to_owned(), addresses));
        }
        self
    }

    /// Says who programs the routes to local pods; the agent, if this is not called.
    #[must_use]
    pub fn local_routes(mut self, who: LocalRoutes) -> Self {
        self.local_routes = who;
        self
    }

    /// Makes the namespaces and wires them.
    ///
    /// # Errors
    /// A mistake in what was asked for, or what the kernel or `ip` refused.
    pub fn build(mut self) -> Result<Lab, LabError> {
        match self.mistake.take() {
            Some(mistake) => Err(mistake),
            None => Lab::new(&self),
        }
    }

    fn addresses<A>(&mut self, given: A) -> Option<Addresses>
    where
        A: TryInto<Addresses, Error: Into<LabError>>,
    {
        match given.try_into() {
            Ok(addresses) => Some(addresses),
            Err(mistake) => {
                self.mistake.get_or_insert(mistake.into());
                None
            }
        }
    }
}
