//! What follows from the resources, worked out once: who has which address and labels, which policies there are
//! in which order.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use tortie_api::endpoint::{EndpointPort, HostEndpointSpec, WorkloadEndpointSpec};
use tortie_api::labels::{
    KUBERNETES, NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL,
    SERVICE_ACCOUNT_LABEL_PREFIX,
};
use tortie_api::meta::Metadata;
use tortie_api::policy::{
    Action, BUILT_IN_TIERS, DEFAULT_TIER_ORDER, DefaultAction, NetworkSetSpec, ProfileSpec, Rule,
};
use tortie_api::resource::{Object, Resource};
use tortie_api::staged::StagedAction;
use tortie_api::{Key, Kind, convert, kube};

use super::explain::Point;
use super::policy::{Policy, RuleEntry};
use super::settings::Settings;

/// Labels by key.
pub(super) type LabelMap = BTreeMap<String, String>;

/// The profile that allows everything and exists in every cluster.
const ALLOW_PROFILE: &str = "projectcalico-default-allow";

/// Something with labels and addresses that selectors of rules can select.
#[derive(Debug)]
pub(super) struct Item {
    /// For people: `Pod shop/db`.
    pub(super) name: String,
    /// Its own labels and those that it inherits.
    pub(super) labels: LabelMap,
    pub(super) nets: Vec<IpNet>,
    /// Its named ports.
    pub(super) ports: Vec<EndpointPort>,
    /// A node of the cluster: only what asks for nodes selects it, and that selects nothing else.
    pub(super) is_node: bool,
}

/// A workload endpoint or host endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) point: Point,
    pub(super) node: String,
    /// On the node; `*` or empty for some host endpoints.
    pub(super) interface: String,
    pub(super) profiles: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// Of a workload: its full name, and what decides between claims to one interface.
    pub(super) full_name: String,
    claim: (String, String, String),
    pub(super) item: usize,
    policies: OnceLock<Vec<usize>>,
}

/// A profile.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) ingress: Vec<RuleEntry>,
    pub(super) egress: Vec<RuleEntry>,
    labels: LabelMap,
}

/// One slice of a service: its addresses, and the protocols and ports that they answer on.
pub(super) type Backends = (Vec<IpAddr>, Vec<(u8, u16)>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Derived {
    pub(super) items: Vec<Item>,
    by_address: FxHashMap<IpAddr, Vec<usize>>,
    wide: Vec<(IpNet, usize)>,
    pub(super) workloads: Vec<Endpoint>,
    pub(super) hosts: Vec<Endpoint>,
    pub(super) profiles: BTreeMap<String, Profile>,
    pub(super) services: BTreeMap<(String, String), Vec<Backends>>,
    tiers: BTreeMap<String, (f64, DefaultAction)>,
    /// In the order in which they apply.
    pub(super) policies: Vec<Policy>,
    pub(super) node_of: BTreeMap<IpAddr, String>,
    /// Places in `policies`, by namespace; those of global policies by the empty one.
    by_namespace: FxHashMap<String, Vec<usize>>,
}

impl Derived {
    pub(super) fn new(resources: &BTreeMap<Key, Resource>, settings: &Settings) -> Self {
        let mut derived = Self::default();
        derived.tiers.extend(BUILT_IN_TIERS.map(|(name, order, action)| (name.to_owned(), (order, action))));
        for resource in resources.values() {
            derived.take_definitions(resource);
        }
        derived.profiles.entry(ALLOW_PROFILE.to_owned()).or_insert_with(|| {
            let allow = || RuleEntry::all(&[Rule::new(Action::Allow)]);
            Profile { ingress: allow(), egress: allow(), labels: LabelMap::new() }
        });
        for workload in workloads(resources).values() {
            derived.take_workload(workload);
        }
        for resource in resources.values() {
            match resource {
                Resource::HostEndpoint(o) => derived.take_host(o),
                Resource::KubeNode(o) => derived.take_node(o),
                Resource::NetworkSet(o) | Resource::GlobalNetworkSet(o) => derived.take_network_set(o),
                _ => {}
            }
        }
        derived.policies = policies(resources, settings);
        let mut policies = std::mem::take(&mut derived.policies);
        policies.sort_by(|a, b| derived.compare(a, b));
        for (index, policy) in policies.iter().enumerate() {
            derived.by_namespace.entry(policy.namespace().to_owned()).or_default().push(index);
        }
        derived.policies = policies;
        derived
    }

    /// Profiles, services, tiers and nodes.
    fn take_definitions(&mut self, resource: &Resource) {
        match resource {
            // A profile that is written down comes before what a namespace or service account implies; keys are
            // sorted so that it is met first.
            Resource::Profile(o) => self.take_profile(&o.metadata.name, &o.spec),
            Resource::Namespace(o) => {
                let profile = convert::namespace_profile(o);
                self.take_profile(&profile.metadata.name, &profile.spec);
            }
            Resource::ServiceAccount(o) => {
                let profile = convert::service_account_profile(o);
                self.take_profile(&profile.metadata.name, &profile.spec);
            }
            Resource::EndpointSlice(o) => self.take_slice(o),
            Resource::Tier(o) => {
                let order = o.spec.order.unwrap_or(DEFAULT_TIER_ORDER);
                self.tiers.insert(o.metadata.name.clone(), (order, o.spec.default_action));
            }
            Resource::KubeNode(o) => {
                let (node, _) = convert::node(o);
                self.take_node_addresses(&o.metadata.name, &node.spec);
            }
            Resource::Node(o) => self.take_node_addresses(&o.metadata.name, &o.spec),
            _ => {}
        }
    }

    fn take_profile(&mut self, name: &str, spec: &ProfileSpec) {
        self.profiles.entry(name.to_owned()).or_insert_with(|| Profile {
            ingress: RuleEntry::all(&spec.ingress),
            egress: RuleEntry::all(&spec.egress),
            labels: spec.labels_to_apply.clone(),
        });
    }

    fn take_node_addresses(&mut self, name: &str, spec: &tortie_api::node::NodeSpec) {
        for entry in &spec.addresses {
            self.node_of.insert(entry.address, name.to_owned());
        }
    }

    fn take_slice(&mut self, slice: &Object<kube::EndpointSliceSpec>) {
        let Some(service) = slice.metadata.labels.get(kube::SERVICE_NAME_LABEL) else { return };
        let key = (slice.metadata.namespace_text().to_owned(), service.clone());
        let addresses = slice.spec.endpoints.iter().flat_map(|e| e.addresses.iter().copied()).collect();
        let ports = slice.spec.ports.iter().filter_map(|p| Some((p.protocol.number(), p.port?))).collect();
        self.services.entry(key).or_default().push((addresses, ports));
    }

    fn take_workload(&mut self, object: &Object<WorkloadEndpointSpec>) {
        let spec = &object.spec;
        let namespace = object.metadata.namespace_text().to_owned();
        let name = if spec.pod.is_empty() { &object.metadata.name } else { &spec.pod };
        let kind = if spec.pod.is_empty() { "WorkloadEndpoint" } else { "Pod" };
        let orchestrator = if spec.orchestrator.is_empty() { KUBERNETES } else { &spec.orchestrator };
        let mut labels = own_labels(&object.metadata);
        labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
        labels.insert(ORCHESTRATOR_LABEL.to_owned(), orchestrator.to_owned());
        if !spec.service_account_name.is_empty() {
            labels.insert(SERVICE_ACCOUNT_LABEL.to_owned(), spec.service_account_name.clone());
        }
        let workload = match spec.pod.as_str() {
            "" => spec.workload.clone(),
            pod => format!("{namespace}/{pod}"),
        };
        let item = Item {
            name: format!("{kind} {namespace}/{name}"),
            labels,
            nets: spec.ip_networks.clone(),
            ports: spec.ports.clone(),
            is_node: false,
        };
        let item = self.add_item(item, &spec.profiles);
        self.workloads.push(Endpoint {
            point: Point::Workload { namespace, name: name.clone() },
            node: spec.node.clone(),
            interface: spec.interface_name.clone(),
            profiles: spec.profiles.clone(),
            addresses: spec.ip_networks.iter().map(IpNet::addr).collect(),
            full_name: object.metadata.name.clone(),
            claim: (orchestrator.to_owned(), workload, spec.endpoint.clone()),
            item,
            policies: OnceLock::new(),
        });
    }

    fn take_host(&mut self, object: &Object<HostEndpointSpec>) {
        let spec = &object.spec;
        let item = Item {
            name: format!("HostEndpoint {}", object.metadata.name),
            labels: own_labels(&object.metadata),
            nets: spec.expected_ips.iter().map(|a| IpNet::from(*a)).collect(),
            ports: spec.ports.clone(),
            is_node: false,
        };
        let item = self.add_item(item, &spec.profiles);
        for address in &spec.expected_ips {
            self.node_of.entry(*address).or_insert_with(|| spec.node.clone());
        }
        self.hosts.push(Endpoint {
            point: Point::Host { name: object.metadata.name.clone() },
            node: spec.node.clone(),
            interface: spec.interface_name.clone(),
            profiles: spec.profiles.clone(),
            addresses: spec.expected_ips.clone(),
            full_name: object.metadata.name.clone(),
            claim: Default::default(),
            item,
            policies: OnceLock::new(),
        });
    }

    fn take_node(&mut self, object: &Object<kube::KubeNodeSpec>) {
        let item = Item {
            name: format!("Node {}", object.metadata.name),
            labels: object.metadata.labels.clone(),
            nets: object.spec.addresses.iter().map(|a| a.address.into()).collect(),
            ports: Vec::new(),
            is_node: true,
        };
        self.add_item(item, &[]);
    }

    /// A network set of a namespace is labelled like an endpoint of it.
    fn take_network_set(&mut self, object: &Object<NetworkSetSpec>) {
        let mut labels = own_labels(&object.metadata);
        let mut profiles = Vec::new();
        let name = match &object.metadata.namespace {
            Some(namespace) => {
                labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
                profiles.push(convert::namespace_profile_name(namespace));
                format!("NetworkSet {namespace}/{}", object.metadata.name)
            }
            None => format!("GlobalNetworkSet {}", object.metadata.name),
        };
        let item = Item { name, labels, nets: object.spec.nets.clone(), ports: Vec::new(), is_node: false };
        self.add_item(item, &profiles);
    }

    /// An item's own labels come before those of its profiles, and those in the order of the profiles.
    fn add_item(&mut self, mut item: Item, profiles: &[String]) -> usize {
        for profile in profiles.iter().filter_map(|name| self.profiles.get(name)) {
            for (key, value) in &profile.labels {
                item.labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let index = self.items.len();
        for net in &item.nets {
            if net.prefix_len() == net.max_prefix_len() {
                let there = self.by_address.entry(net.addr()).or_default();
                if there.last() != Some(&index) {
                    there.push(index);
                }
            } else {
                self.wide.push((*net, index));
            }
        }
        self.items.push(item);
        index
    }

    /// What has an address, sorted.
    pub(super) fn items_at(&self, address: IpAddr) -> Vec<usize> {
        let mut found = self.by_address.get(&address).cloned().unwrap_or_default();
        found.extend(self.wide.iter().filter(|(net, _)| net.contains(&address)).map(|(_, item)| *item));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The node whose own address this is.
    pub(super) fn node_at(&self, address: IpAddr) -> Option<&str> {
        self.node_of.get(&address).map(String::as_str)
    }

    /// The addresses of a node.
    pub(super) fn addresses_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        self.node_of.iter().filter(move |(_, of)| *of == node).map(|(address, _)| *address)
    }

    /// A workload by the name of its pod or by its own.
    pub(super) fn workload_named(&self, namespace: &str, wanted: &str) -> Option<&Endpoint> {
        let is_it = |e: &&Endpoint| match &e.point {
            Point::Workload { namespace: own, name } => {
                own == namespace && (name == wanted || e.full_name == wanted)
            }
            Point::Host { .. } => false,
        };
        self.workloads.iter().find(is_it)
    }

    /// The workload whose policy is in force on the interface of this one: if several claim it, one of them.
    pub(super) fn in_force<'a>(&'a self, workload: &'a Endpoint) -> &'a Endpoint {
        let same = |e: &&Endpoint| e.node == workload.node && e.interface == workload.interface;
        self.workloads.iter().filter(same).min_by(|a, b| a.claim.cmp(&b.claim)).unwrap_or(workload)
    }

    /// The policies that select an endpoint, in order.
    pub(super) fn policies_of<'a>(&'a self, endpoint: &'a Endpoint) -> impl Iterator<Item = &'a Policy> {
        let indices = endpoint.policies.get_or_init(|| {
            let labels = &self.items[endpoint.item].labels;
            self.candidates(labels).filter(|index| self.policies[*index].selects(labels)).collect()
        });
        indices.iter().map(|index| &self.policies[*index])
    }

    /// The policies that may select something with these labels, in order: global ones and those of its namespace.
    pub(super) fn candidates(&self, labels: &LabelMap) -> impl Iterator<Item = usize> + '_ {
        let of = |namespace: &str| self.by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
        let own = labels.get(NAMESPACE_LABEL).map_or(&[][..], |namespace| of(namespace));
        let mut both: Vec<usize> = of("").iter().chain(own).copied().collect();
        both.sort_unstable();
        both.into_iter()
    }

    /// What a tier does at its end, and whether it exists.
    pub(super) fn tier(&self, name: &str) -> (DefaultAction, bool) {
        self.tiers.get(name).map_or((DefaultAction::Deny, false), |(_, action)| (*action, true))
    }

    /// Tiers that exist come first, in their order, then by name; in a tier the order of the policy, and then
    /// the text `name/namespace/kind`. What has no order comes last.
    fn compare(&self, a: &Policy, b: &Policy) -> Ordering {
        let is_missing = |p: &Policy| !self.tiers.contains_key(&p.tier);
        let tier_order = |p: &Policy| self.tiers.get(&p.tier).map_or(f64::INFINITY, |(order, _)| *order);
        let order = |p: &Policy| p.order.unwrap_or(f64::INFINITY);
        let tie = |p: &Policy| format!("{}/{}/{}", p.id.name, p.namespace(), p.id.kind);
        is_missing(a)
            .cmp(&is_missing(b))
            .then_with(|| tier_order(a).total_cmp(&tier_order(b)))
            .then_with(|| a.tier.cmp(&b.tier))
            .then_with(|| order(a).total_cmp(&order(b)))
            .then_with(|| tie(a).cmp(&tie(b)))
    }
}

/// The workload endpoints by namespace and name. One that is written down comes before one that a pod implies;
/// without an address it is none.
fn workloads(
    resources: &BTreeMap<Key, Resource>,
) -> BTreeMap<(String, String), Object<WorkloadEndpointSpec>> {
    let mut all = BTreeMap::new();
    for resource in resources.values() {
        let object = match resource {
            Resource::WorkloadEndpoint(object) => object.clone(),
            Resource::Pod(pod) => match convert::pod_endpoint(pod, "cali") {
                Some(object) => object,
                None => continue,
            },
            _ => continue,
        };
        let key = (object.metadata.namespace_text().to_owned(), object.metadata.name.clone());
        if resource.kind() == Kind::WorkloadEndpoint {
            all.insert(key, object);
        } else {
            all.entry(key).or_insert(object);
        }
    }
    all.retain(|_, object| !object.spec.ip_networks.is_empty());
    all
}

fn policies(resources: &BTreeMap<Key, Resource>, settings: &Settings) -> Vec<Policy> {
    let mut all: Vec<Policy> = resources.values().filter_map(Policy::of).collect();
    if settings.enforce_staged {
        let staged: Vec<_> = all.iter().filter(|p| p.staged.is_some()).map(|p| p.id.clone()).collect();
        all.retain(|policy| !staged.iter().any(|id| policy.is_counterpart(id)));
        all.retain(|policy| policy.staged != Some(StagedAction::Delete));
        all.iter_mut().filter(|policy| policy.staged.is_some()).for_each(Policy::put_in_force);
    }
    all
}

/// Labels that nobody but the system may give are not an object's own: with them it could pass for another.
fn own_labels(metadata: &Metadata) -> LabelMap {
    let is_own = |key: &str| {
        ![NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL].contains(&key)
            && !key.starts_with(NAMESPACE_LABEL_PREFIX)
            && !key.starts_with(SERVICE_ACCOUNT_LABEL_PREFIX)
    };
    metadata.labels.iter().filter(|(key, _)| is_own(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}
