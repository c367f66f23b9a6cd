//! From resources to this node's desired state, change by change.
//!
//! ```text
//!  Namespace, ServiceAccount, Profile ─► profiles ──labels──┐
//!  Pod, WorkloadEndpoint ─► endpoints ──(all)──► sets ──────┼──► SetAdded, SetChanged, SetGone
//!  NetworkSet ──────────────────────────────────► sets      │
//!  HostEndpoint ──(all)──► sets; with the host's interfaces ├──► HostEndpoint
//!  EndpointSlice ───────────────────────────────► sets      │
//!  policies, Tier ─► policies ◄──(this node's)── endpoints  ├──► Policy, Profile, Endpoint, …
//!  IPPool ─► pools ─────────────────────────────────────────┘──► Pools
//! ```
//!
//! [`Graph::set`] and [`Graph::remove`] take resources in any order, as often as wanted; work is in proportion
//! to what changes. [`Graph::flush`] puts out what changed since the last flush, in an order that can be
//! applied one by one. Nothing is computed anew from scratch.

mod contributors;
mod convert;
mod counted;
mod cover;
mod endpoints;
mod host_endpoints;
mod id_set;
mod intern;
mod label_index;
mod labels;
pub mod model;
mod network;
mod number_table;
mod packed_expr;
mod packed_rules;
mod policies;
mod policy_kinds;
mod policy_table;
mod pool;
mod profiles;
mod sets;
mod shared_selectors;
mod slab;
mod small_set;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::labels::NAMESPACE_LABEL;
use tortie_api::qos::{self, Qos};
use tortie_api::resource::{Object, Resource};
use tortie_api::selector::Selector;
use tortie_api::{FieldError, Key, Kind, convert as api_convert, kube, policy};

use self::contributors::Contributor;
use self::convert::{SetDefinition, SetNeed};
use self::endpoints::Endpoints;
use self::host_endpoints::HostEndpoints;
use self::label_index::{ItemLabels, Label};
use self::model::{Event, Problem};
use self::network::Network;
use self::policies::{Policies, Tier};
use self::policy_kinds::policy_key;
use self::profiles::{Inherited, Profiles};
use self::sets::{IpSets, ServiceBackends};

/// Workloads of an ambient mesh: labels of Istio, of which those of a pod count more than its namespace's.
const MESH_SELECTOR: &str = "pcns.istio.io/dataplane-mode == 'ambient' && istio.io/dataplane-mode != 'none' \
                             || istio.io/dataplane-mode == 'ambient'";

/// What the graph must know beside the resources.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of this node, as `spec.nodeName` of its pods has it.
    pub node: String,
    /// Prefixes of workload interfaces. The first is that of the names derived for pods: `cali`.
    pub interface_prefixes: Vec<String>,
    /// Leave members of sets out that lie inside another member's network.
    pub suppress_covered: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Graph {
    options: Options,
    sets: IpSets,
    policies: Policies,
    profiles: Profiles,
    endpoints: Endpoints,
    hosts: HostEndpoints,
    /// Items of the label index that are no endpoints.
    items: BTreeMap<Key, u32>,
    slices: BTreeMap<Key, sets::ServiceKey>,
    pools: BTreeMap<String, (IpNet, bool)>,
    pools_dirty: bool,
    network: Network,
    /// Counts resources that were taken.
    revision: u64,
    /// Resources that cannot be followed to the letter.
    notes: BTreeMap<Key, Vec<Problem>>,
}

impl Graph {
    /// An empty graph. Its first flush puts out the pools, even if there are none.
    pub fn new(options: Options) -> Self {
        Self {
            sets: IpSets::new(options.suppress_covered),
            policies: Policies::new(),
            profiles: Profiles::default(),
            endpoints: Endpoints::new(options.node.clone(), options.interface_prefixes.clone()),
            hosts: HostEndpoints::new(options.node.clone(), options.interface_prefixes.clone()),
            items: BTreeMap::new(),
            slices: BTreeMap::new(),
            pools: BTreeMap::new(),
            pools_dirty: true,
            network: Network::new(options.node.clone()),
            revision: 0,
            notes: BTreeMap::new(),
            options,
        }
    }

    /// Takes a new or changed resource.
    pub fn set(&mut self, resource: &Resource) {
        self.revision += 1;
        if !self.notes.is_empty() {
            self.notes.remove(&resource.key());
        }
        match resource {
            Resource::Pod(o) => self.set_pod(resource, o),
            Resource::WorkloadEndpoint(o) => self.set_workload(resource, None, o),
            _ => self.set_with_key(&resource.key(), resource),
        }
    }

    fn set_pod(&mut self, resource: &Resource, pod: &Object<kube::PodSpec>) {
        let prefix = self.options.interface_prefixes.first().map_or("", String::as_str);
        let Some(endpoint) = api_convert::pod_endpoint(pod, prefix) else {
            return self.remove_workload(&resource.key());
        };
        if pod.spec.node_name == self.options.node {
            for problem in api_convert::pod_problems(pod) {
                self.note(&resource.key(), &problem.field, &problem.message);
            }
        }
        self.set_workload(resource, Some(&pod.metadata.name), &endpoint);
    }

    /// Takes what there are fewer of than endpoints.
    fn set_with_key(&mut self, key: &Key, resource: &Resource) {
        self.network.set(resource);
        match resource {
            Resource::NetworkPolicy(_)
            | Resource::GlobalNetworkPolicy(_)
            | Resource::StagedNetworkPolicy(_)
            | Resource::StagedGlobalNetworkPolicy(_)
            | Resource::StagedKubernetesNetworkPolicy(_)
            | Resource::KubeNetworkPolicy(_)
            | Resource::ClusterNetworkPolicy(_)
            | Resource::AdminNetworkPolicy(_)
            | Resource::BaselineAdminNetworkPolicy(_) => self.set_policy_resource(key, resource),
            Resource::Tier(o) => {
                let order = o.spec.order.unwrap_or(policy::DEFAULT_TIER_ORDER);
                self.policies
                    .set_tier(&key.name, Some(Tier { order, default_action: o.spec.default_action }));
            }
            Resource::Profile(o) => self.set_profile(key, o),
            Resource::Namespace(o) => self.set_profile(key, &api_convert::namespace_profile(o)),
            Resource::ServiceAccount(o) => self.set_profile(key, &api_convert::service_account_profile(o)),
            Resource::NetworkSet(o) | Resource::GlobalNetworkSet(o) => {
                self.set_network_set(key, &o.metadata.labels, &o.spec.nets);
            }
            Resource::HostEndpoint(o) => self.set_host_endpoint(key, o),
            Resource::EndpointSlice(o) => self.set_slice(key, o),
            Resource::IPPool(o) => {
                let pool = (o.spec.cidr, o.spec.nat_outgoing);
                self.pools_dirty |= self.pools.insert(key.name.clone(), pool) != Some(pool);
            }
            Resource::KubeNode(o) => self.set_node(key, o),
            Resource::Pod(_)
            | Resource::WorkloadEndpoint(_)
            | Resource::FelixConfiguration(_)
            | Resource::BGPConfiguration(_)
            | Resource::Node(_)
            | Resource::Service(_) => {}
        }
    }

    /// Takes the removal of a resource. Unknown ones are ignored.
    pub fn remove(&mut self, key: &Key) {
        self.revision += 1;
        self.notes.remove(key);
        self.network.remove(key);
        match key.kind {
            Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::KubeNetworkPolicy
            | Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => {
                self.policies.remove_policy(&policy_key(key), &mut self.sets);
            }
            Kind::Tier => self.policies.set_tier(&key.name, None),
            Kind::Profile => self.define_profile(key, &key.name, None),
            Kind::Namespace => {
                self.define_profile(key, &api_convert::namespace_profile_name(&key.name), None);
            }
            Kind::ServiceAccount => {
                let namespace = key.namespace.as_deref().unwrap_or_default();
                let name = api_convert::service_account_profile_name(namespace, &key.name);
                self.define_profile(key, &name, None);
            }
            Kind::NetworkSet | Kind::GlobalNetworkSet | Kind::HostEndpoint | Kind::KubeNode => {
                if key.kind == Kind::HostEndpoint {
                    let Self { hosts, sets, policies, profiles, .. } = self;
                    hosts.remove(&key.name, sets, policies, profiles);
                }
                if let Some(item) = self.items.remove(key) {
                    self.sets.remove_item(item);
                    self.endpoints.give_back_item(item);
                }
            }
            Kind::Pod | Kind::WorkloadEndpoint => self.remove_workload(key),
            Kind::EndpointSlice => {
                if let Some(service) = self.slices.remove(key) {
                    self.sets.set_slice(&service, &key.name.as_str().into(), None);
                }
            }
            Kind::IPPool => self.pools_dirty |= self.pools.remove(&key.name).is_some(),
            Kind::FelixConfiguration | Kind::BGPConfiguration | Kind::Node | Kind::Service => {}
        }
    }

    /// Takes an interface of this host with all its addresses; `None` when it is gone. Workloads' interfaces are ignored.
    pub fn set_host_interface(&mut self, name: &str, addresses: Option<&[IpAddr]>) {
        if self.hosts.set_interface(name, addresses) {
            self.revision += 1;
        }
    }

    /// Wants the set of all workloads of an ambient mesh, [`model::MESH_WORKLOADS`], from now on.
    pub fn want_mesh(&mut self) {
        if let Ok(selector) = Selector::parse(MESH_SELECTOR) {
            let id = model::SetId(model::MESH_WORKLOADS.into());
            self.sets.acquire(&SetNeed { id, definition: SetDefinition::Selected(selector) });
        }
    }

    /// What changed since the last flush: sets, policies, profiles, endpoints; then removals the other way.
    pub fn flush(&mut self) -> Vec<Event> {
        let (mut endpoints, mut endpoints_gone) = (Vec::new(), Vec::new());
        let dirty = std::mem::take(&mut self.policies.dirty_endpoints);
        self.endpoints.flush(&dirty, &self.policies, &mut endpoints, &mut endpoints_gone);
        self.hosts.flush(&dirty, &self.policies, &mut endpoints, &mut endpoints_gone);
        let (mut profiles, mut profiles_gone) = (Vec::new(), Vec::new());
        self.profiles.prepare(&mut self.sets, &mut profiles, &mut profiles_gone);
        let (mut policies, mut policies_gone) = (Vec::new(), Vec::new());
        self.policies.flush(&mut policies, &mut policies_gone);
        let (mut events, mut sets_gone) = (Vec::new(), Vec::new());
        events.extend(self.network.flush());
        if std::mem::take(&mut self.pools_dirty) {
            events.push(self.pools_event());
        }
        self.sets.flush(&mut events, &mut sets_gone);
        for part in [policies, profiles, endpoints, endpoints_gone, profiles_gone, policies_gone, sets_gone] {
            events.extend(part);
        }
        events
    }

    /// Grows with every resource and interface that is taken: while it is the same, so are [`Graph::problems`].
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Endpoints of this node, policies that select them, and sets that those use, as of the last flush.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.endpoints.count() + self.hosts.count(), self.policies.count(), self.sets.len())
    }

    /// Resources that cannot be followed to the letter, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        let policies = self.policies.problems().chain(self.profiles.problems(&self.sets));
        let rest = self
            .endpoints
            .problems()
            .chain(self.hosts.problems())
            .chain(self.notes.values().flatten().cloned());
        let mut problems: Vec<Problem> = policies.chain(rest).collect();
        problems.sort();
        problems
    }

    /// How many things of each kind are kept for items: of all, of this node's.
    #[cfg(test)]
    fn sizes(&self) -> Vec<usize> {
        [self.sets.sizes(), self.policies.sizes()].concat()
    }

    fn pools_event(&self) -> Event {
        let collect = |nat_only: bool| -> Vec<IpNet> {
            let nets: BTreeSet<IpNet> =
                self.pools.values().filter(|(_, nat)| *nat || !nat_only).map(|(n, _)| *n).collect();
            nets.into_iter().collect()
        };
        Event::Pools { all: collect(false), nat_outgoing: collect(true) }
    }

    /// Notes that a resource cannot be followed to the letter, until it changes or goes.
    fn note(&mut self, key: &Key, field: &str, message: &str) {
        let problem = Problem {
            object: key.to_string(),
            key: Some(key.clone()),
            field: field.to_owned(),
            message: message.to_owned(),
        };
        self.notes.entry(key.clone()).or_default().push(problem);
    }

    fn set_profile(&mut self, key: &Key, profile: &Object<policy::ProfileSpec>) {
        self.define_profile(key, &profile.metadata.name, Some(&profile.spec));
    }

    fn define_profile(&mut self, key: &Key, name: &str, spec: Option<&policy::ProfileSpec>) {
        match (self.profiles.define(name, key.kind, spec, &mut self.sets), spec) {
            (Inherited::Own, Some(spec)) => {
                let labels = spec.labels_to_apply.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                self.set_profile_labels(name, labels);
            }
            (Inherited::Other(labels), _) => {
                self.set_profile_labels(name, labels.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            }
            (Inherited::Own | Inherited::Same, _) => {}
        }
    }

    fn set_profile_labels<'a>(&mut self, name: &str, labels: impl Iterator<Item = Label<'a>> + Clone) {
        self.sets.set_profile_labels(name, labels.clone());
        self.policies.set_profile_labels(name, labels, &mut self.sets);
    }

    fn set_network_set(&mut self, key: &Key, labels: &BTreeMap<String, String>, nets: &[IpNet]) {
        let contributor = Contributor { nets, ports: &[], is_node: false };
        let item = self.item(key);
        // A namespaced set is like an endpoint of its namespace.
        let namespace = key.namespace.as_deref();
        let given = namespace.map(|n| (NAMESPACE_LABEL, n)).into_iter();
        let labels = ItemLabels { own: endpoints::own_labels(labels), given };
        let profile = namespace.map(api_convert::namespace_profile_name);
        self.sets.set_item(item, contributor, labels, profile.as_deref().into_iter());
    }

    fn set_host_endpoint(&mut self, key: &Key, object: &Object<tortie_api::endpoint::HostEndpointSpec>) {
        let spec = &object.spec;
        if spec.node == self.options.node {
            self.note_qos(key, qos::host_dscp(&object.metadata.annotations).1);
        }
        // Only what it expects: all nodes must see the same members, and no node knows the addresses of others.
        let nets: Vec<IpNet> = spec.expected_ips.iter().map(|a| (*a).into()).collect();
        let ports = endpoints::named_ports(&spec.ports);
        let item = self.item(key);
        let listed = spec.profiles.iter().map(String::as_str);
        let own = endpoints::own_labels(&object.metadata.labels);
        let labels = ItemLabels { own, given: std::iter::empty() };
        let contributor = Contributor { nets: &nets, ports: &ports, is_node: false };
        self.sets.set_item(item, contributor, labels, listed);
        let Self { hosts, sets, policies, profiles, .. } = self;
        hosts.set(item, object, sets, policies, profiles);
    }

    fn set_node(&mut self, key: &Key, object: &Object<kube::KubeNodeSpec>) {
        let nets: Vec<IpNet> = object.spec.addresses.iter().map(|a| a.address.into()).collect();
        let own = object.metadata.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let labels = ItemLabels { own, given: std::iter::empty() };
        let contributor = Contributor { nets: &nets, ports: &[], is_node: true };
        let item = self.item(key);
        self.sets.set_item(item, contributor, labels, std::iter::empty());
    }

    fn set_workload(
        &mut self,
        resource: &Resource,
        pod: Option<&str>,
        object: &Object<tortie_api::endpoint::WorkloadEndpointSpec>,
    ) {
        if object.spec.node == self.options.node {
            let errors = Qos::read(&object.spec.qos_controls).1;
            if !errors.is_empty() {
                self.note_qos(&resource.key(), errors);
            }
        }
        self.endpoints.set(pod, object, &mut self.sets, &mut self.policies, &mut self.profiles);
    }

    /// Notes what is wrong with controls, where they were written.
    fn note_qos(&mut self, key: &Key, errors: Vec<FieldError>) {
        for error in errors {
            let field = if key.kind == Kind::WorkloadEndpoint {
                format!("spec.qosControls.{}", error.field)
            } else {
                format!("metadata.annotations[{}{}]", qos::ANNOTATION_PREFIX, error.field)
            };
            self.note(key, &field, &error.message);
        }
    }

    fn remove_workload(&mut self, key: &Key) {
        self.endpoints.remove(key, &mut self.sets, &mut self.policies, &mut self.profiles);
    }

    fn set_slice(&mut self, key: &Key, object: &Object<kube::EndpointSliceSpec>) {
        let slice: Arc<str> = key.name.as_str().into();
        let service = object.metadata.labels.get(kube::SERVICE_NAME_LABEL).map(|name| {
            let namespace: Arc<str> = key.namespace.as_deref().unwrap_or_default().into();
            (namespace, Arc::from(name.as_str()))
        });
        let old = match &service {
            Some(service) => self.slices.insert(key.clone(), service.clone()),
            None => self.slices.remove(key),
        };
        if let Some(old) = old.filter(|old| service.as_ref() != Some(old)) {
            self.sets.set_slice(&old, &slice, None);
        }
        if let Some(service) = service {
            self.sets.set_slice(&service, &slice, Some(&backends(&object.spec)));
        }
    }

    fn item(&mut self, key: &Key) -> u32 {
        let endpoints = &mut self.endpoints;
        *self.items.entry(key.clone()).or_insert_with(|| endpoints.next_item())
    }
}

fn backends(slice: &kube::EndpointSliceSpec) -> ServiceBackends {
    let addresses = slice.endpoints.iter().flat_map(|e| e.addresses.iter().copied()).collect();
    let ports = slice.ports.iter().filter_map(|p| Some((p.protocol, p.port?))).collect();
    ServiceBackends { addresses, ports }
}

#[cfg(test)]
mod tests;
