//! The cluster that flows are evaluated in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;

use tortie_api::Key;
use tortie_api::resource::Resource;

use super::derived::Derived;
use super::explain::{Explanation, Point, Verdict};
use super::felix::{self, BadSetting};
use super::flow::Flow;
use super::matching::Packet;
use super::path::Journey;
use super::settings::Settings;

/// The resources of a cluster, and what follows from them.
///
/// A change makes the next question work everything out anew: cheap enough for clusters of thousands, and not
/// meant for an agent.
#[derive(Debug, Default)]
pub struct Cluster {
    resources: BTreeMap<Key, Resource>,
    settings: Settings,
    /// Of nodes that have their own.
    node_settings: BTreeMap<String, Settings>,
    interfaces: Interfaces,
    derived: OnceLock<Derived>,
}

/// Addresses of interfaces by node and name.
pub(super) type Interfaces = BTreeMap<(String, String), Vec<IpAddr>>;

impl Cluster {
    /// A cluster of these resources. Of two with the same key the later one counts.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        let resources = resources.into_iter().map(|resource| (resource.key(), resource)).collect();
        Self { resources, ..Self::default() }
    }

    /// The same with other settings, on all nodes.
    pub fn with_settings(self, settings: Settings) -> Self {
        Self { settings, node_settings: BTreeMap::new(), derived: OnceLock::new(), ..self }
    }

    /// The same with the settings that its `FelixConfiguration` objects give on top of those that it has, and
    /// those of them that cannot be used.
    pub fn configured(self) -> (Self, Vec<BadSetting>) {
        let (settings, node_settings, bad) = felix::read(&self.resources, self.settings);
        (Self { settings, node_settings, derived: OnceLock::new(), ..self }, bad)
    }

    /// The same as if its staged policies were in force.
    pub fn with_staged_in_force(mut self) -> Self {
        self.settings.enforce_staged = true;
        self.derived = OnceLock::new();
        self
    }

    /// Adds or changes a resource.
    pub fn set(&mut self, resource: Resource) {
        self.resources.insert(resource.key(), resource);
        self.derived = OnceLock::new();
    }

    /// Removes a resource; unknown ones are ignored.
    pub fn remove(&mut self, key: &Key) {
        self.resources.remove(key);
        self.derived = OnceLock::new();
    }

    /// Tells of an interface of a node that is no workload's. It is only needed for host endpoints that name no
    /// interface, on nodes with several.
    pub fn set_interface(&mut self, node: &str, name: &str, addresses: &[IpAddr]) {
        self.interfaces.insert((node.to_owned(), name.to_owned()), addresses.to_vec());
    }

    /// What was told of interfaces.
    pub(super) const fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// The settings of a node.
    pub fn settings(&self, node: &str) -> &Settings {
        self.node_settings.get(node).unwrap_or(&self.settings)
    }

    /// The resources by key.
    pub const fn resources(&self) -> &BTreeMap<Key, Resource> {
        &self.resources
    }

    /// The workload endpoints that policy is in force on, by namespace and name.
    pub fn workloads(&self) -> impl Iterator<Item = Workload<'_>> {
        let derived = self.derived();
        let in_force = derived.workloads.iter().filter(|e| std::ptr::eq(derived.in_force(e), *e));
        in_force.filter_map(|endpoint| match &endpoint.point {
            Point::Workload { namespace, name } => Some(Workload {
                namespace,
                name,
                node: &endpoint.node,
                interface: &endpoint.interface,
                addresses: &endpoint.addresses,
            }),
            Point::Host { .. } => None,
        })
    }

    /// Whether a flow passes.
    pub fn verdict(&self, flow: &Flow) -> Verdict {
        self.decide(flow, None)
    }

    /// Whether a flow passes on one node, whatever the others say.
    pub fn verdict_on(&self, node: &str, flow: &Flow) -> Verdict {
        self.decide(flow, Some(node))
    }

    /// Whether a flow passes, and why.
    pub fn explain(&self, flow: &Flow) -> Explanation {
        let packets = self.packets(flow);
        let mut journey = Journey::new(self, flow, &packets, true);
        journey.travel(None);
        let verdict = verdict(&journey);
        Explanation { flow: flow.clone(), verdict, stages: journey.stages.unwrap_or_default() }
    }

    fn decide(&self, flow: &Flow, only_on: Option<&str>) -> Verdict {
        let packets = self.packets(flow);
        let mut journey = Journey::new(self, flow, &packets, false);
        journey.travel(only_on);
        verdict(&journey)
    }

    /// Whether a flow passes whose packets have been worked out.
    pub(super) fn verdict_of_packets(&self, flow: &Flow, packets: &(Packet, Option<Packet>)) -> Verdict {
        let mut journey = Journey::new(self, flow, packets, false);
        journey.travel(None);
        verdict(&journey)
    }

    /// The same with only some of its resources.
    pub(super) fn only(&self, is_wanted: impl Fn(&Resource) -> bool) -> Self {
        let wanted = self.resources.iter().filter(|(_, resource)| is_wanted(resource));
        Self {
            resources: wanted.map(|(key, resource)| (key.clone(), resource.clone())).collect(),
            settings: self.settings.clone(),
            node_settings: self.node_settings.clone(),
            interfaces: self.interfaces.clone(),
            derived: OnceLock::new(),
        }
    }

    /// The flow's first packet, and the same before its destination was translated.
    fn packets(&self, flow: &Flow) -> (Packet, Option<Packet>) {
        let derived = self.derived();
        let packet = Packet::new(derived, flow, (flow.destination.address, flow.destination_port));
        (packet, flow.before_dnat.map(|to| Packet::new(derived, flow, to)))
    }

    pub(super) fn derived(&self) -> &Derived {
        self.derived.get_or_init(|| Derived::new(&self.resources, &self.settings))
    }
}

/// A workload endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The name of its pod, or its own where there is no pod.
    pub name: &'a str,
    /// Its node.
    pub node: &'a str,
    /// Its interface on the node; may be unknown, then empty.
    pub interface: &'a str,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

fn verdict(journey: &Journey<'_>) -> Verdict {
    if journey.is_denied { Verdict::Deny } else { Verdict::Allow }
}
