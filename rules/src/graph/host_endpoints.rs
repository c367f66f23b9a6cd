//! Host endpoints of this node: which of them is in force on which of the host's interfaces.
//!
//! ```text
//!  HostEndpoint (name, interfaceName or expectedIPs) ─┐
//!                                                     ├─► interface ─► the smallest name that fits it
//!  interface, addresses ──────────────────────────────┘
//! ```
//!
//! One that is for all interfaces is in force wherever none of the others is. Policies follow labels alone: a
//! host endpoint without an interface keeps them at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_api::endpoint::{ANY_INTERFACE, HostEndpointSpec};
use tortie_api::resource::Object;
use tortie_api::{Key, Kind, qos};

use super::endpoints::own_labels;
use super::label_index::{ItemId, ItemLabels};
use super::model::{Event, HostEndpoint, HostInterface, Problem, TierKind, TierPolicies};
use super::policies::Policies;
use super::profiles::Profiles;
use super::sets::IpSets;

/// Where a host endpoint wants to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// On the interface of this name.
    Interface(Arc<str>),
    /// Wherever one of its expected addresses is.
    Addresses,
    /// Wherever no other is.
    Anywhere,
}

#[derive(Debug)]
struct Local {
    item: ItemId,
    place: Place,
    expected: Vec<IpAddr>,
    profiles: Vec<Arc<str>>,
    dscp: Option<u8>,
}

impl Local {
    fn fits(&self, interface: &str, addresses: &BTreeSet<IpAddr>) -> bool {
        match &self.place {
            Place::Interface(name) => &**name == interface,
            Place::Addresses => self.expected.iter().any(|address| addresses.contains(address)),
            Place::Anywhere => false,
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct HostEndpoints {
    node: String,
    prefixes: Vec<String>,
    /// Host endpoints of this node by name.
    local: BTreeMap<Arc<str>, Local>,
    names: BTreeMap<ItemId, Arc<str>>,
    /// The host's interfaces with their addresses.
    interfaces: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// Which host endpoint is in force where.
    resolved: BTreeMap<HostInterface, Arc<str>>,
    /// Where to look again.
    dirty: BTreeSet<HostInterface>,
    published: BTreeMap<HostInterface, Arc<HostEndpoint>>,
    /// Untracked policies that the endpoint for all interfaces cannot have.
    left_out: Vec<String>,
}

impl HostEndpoints {
    /// Of this node. Interfaces with one of the prefixes are workloads'.
    pub(crate) fn new(node: String, prefixes: Vec<String>) -> Self {
        Self { node, prefixes, ..Self::default() }
    }

    /// Takes a new or changed host endpoint of any node.
    pub(crate) fn set(
        &mut self,
        item: ItemId,
        object: &Object<HostEndpointSpec>,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        let spec = &object.spec;
        let name: Arc<str> = object.metadata.name.as_str().into();
        if spec.node != self.node {
            self.remove(&name, sets, policies, profiles);
            return;
        }
        let place = match spec.interface_name.as_str() {
            "" => Place::Addresses,
            ANY_INTERFACE => Place::Anywhere,
            interface => Place::Interface(interface.into()),
        };
        let mut expected = spec.expected_ips.clone();
        expected.sort_unstable();
        expected.dedup();
        let listed: Vec<Arc<str>> = spec.profiles.iter().map(|p| p.as_str().into()).collect();
        listed.iter().for_each(|p| profiles.acquire(p));
        let (dscp, _) = qos::host_dscp(&object.metadata.annotations);
        let new = Local { item, place, expected, profiles: listed, dscp };
        if let Some(old) = self.local.insert(name.clone(), new) {
            old.profiles.iter().for_each(|p| profiles.release(p));
        }
        self.names.insert(item, name);
        self.look_everywhere();
        let own = own_labels(&object.metadata.labels);
        let labels = ItemLabels { own, given: std::iter::empty() };
        policies.set_host_endpoint(item, labels, spec.profiles.iter().map(String::as_str), sets);
    }

    /// Takes the removal of a host endpoint of any node.
    pub(crate) fn remove(
        &mut self,
        name: &str,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        let Some(old) = self.local.remove(name) else { return };
        self.names.remove(&old.item);
        old.profiles.iter().for_each(|p| profiles.release(p));
        policies.remove_host_endpoint(old.item, sets);
        self.look_everywhere();
    }

    /// Takes an interface of the host with all its addresses, or its end. Returns whether that is new.
    pub(crate) fn set_interface(&mut self, name: &str, addresses: Option<&[IpAddr]>) -> bool {
        let addresses = addresses.filter(|_| !self.is_workload(name));
        let addresses: Option<BTreeSet<IpAddr>> = addresses.map(|list| list.iter().copied().collect());
        if self.interfaces.get(name) == addresses.as_ref() {
            return false;
        }
        let name: Arc<str> = name.into();
        match addresses {
            Some(addresses) => self.interfaces.insert(name.clone(), addresses),
            None => self.interfaces.remove(&name),
        };
        self.dirty.insert(HostInterface::Named(name));
        true
    }

    fn is_workload(&self, interface: &str) -> bool {
        self.prefixes.iter().any(|prefix| interface.starts_with(prefix.as_str()))
    }

    fn look_everywhere(&mut self) {
        self.dirty.extend(self.interfaces.keys().cloned().map(HostInterface::Named));
        self.dirty.insert(HostInterface::Any);
    }

    /// Puts out the host endpoints that changed; `dirty` are items whose policy list may have.
    pub(crate) fn flush(
        &mut self,
        dirty: &BTreeSet<ItemId>,
        policies: &Policies,
        added: &mut Vec<Event>,
        gone: &mut Vec<Event>,
    ) {
        let names: BTreeSet<&Arc<str>> = dirty.iter().filter_map(|item| self.names.get(item)).collect();
        let relisted = self.resolved.iter().filter(|(_, name)| names.contains(name));
        let relisted: Vec<HostInterface> = relisted.map(|(interface, _)| interface.clone()).collect();
        let mut interfaces = std::mem::take(&mut self.dirty);
        for interface in &interfaces {
            match self.resolve(interface) {
                Some(name) => self.resolved.insert(interface.clone(), name),
                None => self.resolved.remove(interface),
            };
        }
        interfaces.extend(relisted);
        for interface in interfaces {
            let Some(endpoint) = self.endpoint_of(&interface, policies) else {
                if self.published.remove(&interface).is_some() {
                    gone.push(Event::HostEndpointGone(interface));
                }
                continue;
            };
            if self.published.get(&interface).is_none_or(|old| **old != endpoint) {
                let endpoint = Arc::new(endpoint);
                self.published.insert(interface, endpoint.clone());
                added.push(Event::HostEndpoint(endpoint));
            }
        }
    }

    /// The name of the host endpoint that is to be in force on an interface. That it names the interface gives it no
    /// precedence before one that expects its address.
    fn resolve(&self, interface: &HostInterface) -> Option<Arc<str>> {
        let mut candidates = self.local.iter();
        let found = match interface {
            HostInterface::Any => candidates.find(|(_, hep)| hep.place == Place::Anywhere),
            HostInterface::Named(interface) => {
                let addresses = self.interfaces.get(interface)?;
                candidates.find(|(_, hep)| hep.fits(interface, addresses))
            }
        };
        found.map(|(name, _)| name.clone())
    }

    fn endpoint_of(&mut self, interface: &HostInterface, policies: &Policies) -> Option<HostEndpoint> {
        let is_any = *interface == HostInterface::Any;
        if is_any {
            self.left_out.clear();
        }
        let name = self.resolved.get(interface)?.clone();
        let hep = &self.local[&name];
        let own = match interface {
            HostInterface::Named(interface) => self.interfaces.get(interface),
            HostInterface::Any => None,
        };
        let addresses: BTreeSet<IpAddr> =
            hep.expected.iter().chain(own.into_iter().flatten()).copied().collect();
        let tiers = |kind| policies.tiers_of(hep.item, kind);
        let mut endpoint = HostEndpoint {
            name,
            interface: interface.clone(),
            addresses: addresses.into_iter().collect(),
            profiles: hep.profiles.clone(),
            normal: tiers(TierKind::Normal),
            forward: tiers(TierKind::Forward),
            pre_dnat: tiers(TierKind::PreDnat),
            untracked: tiers(TierKind::Untracked),
            dscp: hep.dscp.map(|value| (value, hep.expected.clone())),
        };
        if is_any {
            self.left_out = policy_names(&std::mem::take(&mut endpoint.untracked));
        }
        Some(endpoint)
    }

    /// Interfaces on which a host endpoint is in force; all that have none of their own count as one.
    pub(crate) fn count(&self) -> usize {
        self.published.len()
    }

    /// What of this node's host endpoints is not in force, as of the last flush.
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let in_force: BTreeSet<&Arc<str>> = self.resolved.values().collect();
        let idle = self.local.iter().filter(move |(name, _)| !in_force.contains(name));
        let idle = idle.map(|(name, hep)| problem(name, hep.place.field(), self.why_idle(hep)));
        let any = self.resolved.get(&HostInterface::Any).filter(|_| !self.left_out.is_empty());
        let untracked = any.map(|name| {
            let policies = self.left_out.join(", ");
            let message =
                format!("doNotTrack cannot be had for all interfaces at once; not in force here: {policies}");
            problem(name, "spec.interfaceName", message)
        });
        idle.chain(untracked)
    }

    fn why_idle(&self, hep: &Local) -> String {
        let rival = |interface: HostInterface| {
            let name = self.resolved.get(&interface).map_or("another", |name| &**name);
            format!("HostEndpoint {name} is in force there")
        };
        match &hep.place {
            Place::Anywhere => rival(HostInterface::Any),
            Place::Interface(name) if self.is_workload(name) => {
                format!("{name:?} is a workload's by its name; the host endpoint is not in force")
            }
            Place::Interface(name) if self.interfaces.contains_key(name) => {
                rival(HostInterface::Named(name.clone()))
            }
            Place::Interface(name) => {
                format!("this node has no interface {name:?}; the host endpoint is not in force")
            }
            Place::Addresses => {
                let fitting = self.interfaces.iter().find(|(name, addresses)| hep.fits(name, addresses));
                match fitting {
                    Some((name, _)) => rival(HostInterface::Named(name.clone())),
                    None => "no interface of this node has one of these addresses; the host endpoint is not in force"
                        .to_owned(),
                }
            }
        }
    }
}

impl Place {
    /// The field that says it.
    fn field(&self) -> &'static str {
        match self {
            Self::Addresses => "spec.expectedIPs",
            Self::Interface(_) | Self::Anywhere => "spec.interfaceName",
        }
    }
}

fn problem(name: &str, field: &str, message: String) -> Problem {
    Problem {
        object: format!("HostEndpoint {name}"),
        key: Some(Key::new(Kind::HostEndpoint, None, name)),
        field: field.to_owned(),
        message,
    }
}

/// The policies of a list, each once.
fn policy_names(tiers: &[TierPolicies]) -> Vec<String> {
    let policies = tiers.iter().flat_map(|tier| tier.ingress.iter().chain(&tier.egress));
    policies.map(|policy| policy.key.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}
