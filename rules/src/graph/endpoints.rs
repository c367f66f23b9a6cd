//! Workload endpoints: those of the whole cluster as members of sets, those of this node to be enforced.
//!
//! A pod makes an endpoint; a `WorkloadEndpoint` document of the same name overrides it. Of two endpoints that
//! claim one interface of this node, the one with the lower id is in force and the other waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tortie_api::endpoint::{EndpointPort, WorkloadEndpointSpec};
use tortie_api::labels::{
    KUBERNETES, NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL,
    SERVICE_ACCOUNT_LABEL_PREFIX,
};
use tortie_api::resource::Object;
use tortie_api::{Key, Kind};

use super::label_index::ItemId;
use super::model::{Event, LocalEndpoint, Problem, TierKind};
use super::policies::Policies;
use super::profiles::Profiles;
use super::sets::{Contributor, IpSets, NamedPort};

/// `namespace/name` of a WorkloadEndpoint.
type EndpointId = Arc<str>;
/// Orchestrator, workload, endpoint: what decides between claims to one interface.
type Claim = (String, String, String);

#[derive(Debug, Default)]
struct Sources {
    pod: Option<Box<(Key, Object<WorkloadEndpointSpec>)>>,
    document: Option<Box<Object<WorkloadEndpointSpec>>>,
}

impl Sources {
    fn in_force(&self) -> Option<&Object<WorkloadEndpointSpec>> {
        self.document.as_deref().or(self.pod.as_ref().map(|pod| &pod.1))
    }
}

/// What of a local endpoint does not depend on policy.
#[derive(Debug)]
struct Local {
    endpoint: LocalEndpoint,
    claim: Claim,
}

/// All workload endpoints.
#[derive(Debug)]
pub(crate) struct Endpoints {
    node: String,
    prefixes: Vec<String>,
    next_item: ItemId,
    sources: BTreeMap<EndpointId, Sources>,
    of_pod: BTreeMap<Key, EndpointId>,
    items: FxHashMap<EndpointId, ItemId>,
    local: BTreeMap<ItemId, Local>,
    /// Endpoints of this node that no rule could be applied to, with their interfaces.
    unconnectable: BTreeMap<ItemId, (EndpointId, String)>,
    claims: BTreeMap<Arc<str>, BTreeSet<(Claim, ItemId)>>,
    dirty_interfaces: BTreeSet<Arc<str>>,
    published: BTreeMap<Arc<str>, Arc<LocalEndpoint>>,
}

impl Endpoints {
    pub(crate) fn new(node: String, prefixes: Vec<String>) -> Self {
        Self {
            node,
            prefixes,
            unconnectable: BTreeMap::new(),
            next_item: 0,
            sources: BTreeMap::new(),
            of_pod: BTreeMap::new(),
            items: FxHashMap::default(),
            local: BTreeMap::new(),
            claims: BTreeMap::new(),
            dirty_interfaces: BTreeSet::new(),
            published: BTreeMap::new(),
        }
    }

    /// A number for an item of the label index that no other item has.
    pub(crate) fn next_item(&mut self) -> ItemId {
        self.next_item += 1;
        self.next_item
    }

    /// Takes a new or changed endpoint; `key` is that of the pod or of the document.
    pub(crate) fn set(
        &mut self,
        key: &Key,
        object: &Object<WorkloadEndpointSpec>,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let id: EndpointId = format!("{namespace}/{}", object.metadata.name).into();
        if key.kind == Kind::Pod {
            if self.of_pod.get(key).is_some_and(|old| *old != id) {
                self.remove(key, sets, policies, profiles);
            }
            self.of_pod.insert(key.clone(), id.clone());
            self.sources.entry(id.clone()).or_default().pod = Some(Box::new((key.clone(), object.clone())));
        } else {
            self.sources.entry(id.clone()).or_default().document = Some(Box::new(object.clone()));
        }
        self.update(&id, sets, policies, profiles);
    }

    /// Takes the removal of a pod or document.
    pub(crate) fn remove(
        &mut self,
        key: &Key,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        let id: EndpointId = if key.kind == Kind::Pod {
            let Some(id) = self.of_pod.remove(key) else { return };
            if let Some(sources) = self.sources.get_mut(&id)
                && sources.pod.as_ref().is_some_and(|pod| pod.0 == *key)
            {
                sources.pod = None;
            }
            id
        } else {
            let id = format!("{}/{}", key.namespace.as_deref().unwrap_or_default(), key.name).into();
            if let Some(sources) = self.sources.get_mut(&id) {
                sources.document = None;
            }
            id
        };
        self.update(&id, sets, policies, profiles);
    }

    fn update(
        &mut self,
        id: &EndpointId,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        let object = self.sources.get(id).and_then(|s| s.in_force()).cloned();
        // Without an address an endpoint can neither be reached nor be a member of anything.
        let Some(object) = object.filter(|o| !o.spec.ip_networks.is_empty()) else {
            if self.sources.get(id).is_some_and(|s| s.in_force().is_none()) {
                self.sources.remove(id);
            }
            if let Some(item) = self.items.remove(id) {
                sets.remove_item(item);
                self.unconnectable.remove(&item);
                self.drop_local(item, sets, policies, profiles);
            }
            return;
        };
        let item = match self.items.get(id) {
            Some(item) => *item,
            None => self.next_item(),
        };
        self.items.insert(id.clone(), item);
        let labels = labels(&object);
        let pairs = || labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let parents = || object.spec.profiles.iter().map(String::as_str);
        let contributor =
            Contributor { nets: object.spec.ip_networks.clone(), ports: named_ports(&object.spec.ports) };
        sets.set_item(item, contributor, pairs(), parents());
        self.unconnectable.remove(&item);
        let interface = &object.spec.interface_name;
        let is_local = object.spec.node == self.node && !interface.is_empty();
        let is_connectable = self.prefixes.iter().any(|p| interface.starts_with(p.as_str()));
        if is_local && !is_connectable {
            self.unconnectable.insert(item, (id.clone(), interface.clone()));
        }
        if !is_local || !is_connectable {
            self.drop_local(item, sets, policies, profiles);
            return;
        }
        let local = local_endpoint(id, &object);
        local.endpoint.profiles.iter().for_each(|p| profiles.acquire(p));
        self.release_local(item, profiles);
        let interface = local.endpoint.interface.clone();
        self.claims.entry(interface.clone()).or_default().insert((local.claim.clone(), item));
        self.dirty_interfaces.insert(interface);
        self.local.insert(item, local);
        policies.set_endpoint(item, pairs(), parents(), sets);
    }

    fn drop_local(
        &mut self,
        item: ItemId,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        if self.local.contains_key(&item) {
            self.release_local(item, profiles);
            policies.remove_endpoint(item, sets);
        }
    }

    /// Forgets what is known of a local endpoint, its claim and its profiles.
    fn release_local(&mut self, item: ItemId, profiles: &mut Profiles) {
        let Some(old) = self.local.remove(&item) else { return };
        let interface = &old.endpoint.interface;
        if let Some(claims) = self.claims.get_mut(interface) {
            claims.remove(&(old.claim, item));
            if claims.is_empty() {
                self.claims.remove(interface);
            }
        }
        self.dirty_interfaces.insert(interface.clone());
        old.endpoint.profiles.iter().for_each(|p| profiles.release(p));
    }

    /// Puts out the endpoints that changed; `dirty` are those whose policy list may have.
    pub(crate) fn flush(
        &mut self,
        dirty: &BTreeSet<ItemId>,
        policies: &Policies,
        added: &mut Vec<Event>,
        gone: &mut Vec<Event>,
    ) {
        let mut interfaces = std::mem::take(&mut self.dirty_interfaces);
        interfaces
            .extend(dirty.iter().filter_map(|item| Some(self.local.get(item)?.endpoint.interface.clone())));
        for interface in interfaces {
            let winner = self.claims.get(&interface).and_then(|c| c.first()).map(|(_, item)| *item);
            match winner {
                Some(item) => {
                    let mut endpoint = self.local[&item].endpoint.clone();
                    endpoint.tiers = policies.tiers_of(item, TierKind::Normal);
                    if self.published.get(&interface).is_none_or(|old| **old != endpoint) {
                        let endpoint = Arc::new(endpoint);
                        self.published.insert(interface, endpoint.clone());
                        added.push(Event::Endpoint(endpoint));
                    }
                }
                None if self.published.remove(&interface).is_some() => {
                    gone.push(Event::EndpointGone(interface));
                }
                None => {}
            }
        }
    }

    /// Workload endpoints of this node in force.
    pub(crate) fn count(&self) -> usize {
        self.published.len()
    }

    /// Endpoints of this node that are not connected, and why.
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let problem = |id: &EndpointId, message| Problem {
            object: format!("WorkloadEndpoint {id}"),
            key: None,
            field: "spec.interfaceName".to_owned(),
            message,
        };
        let unconnectable = self.unconnectable.values().map(move |(id, interface)| {
            let prefixes = self.prefixes.join(", ");
            problem(
                id,
                format!("{interface:?} begins with none of {prefixes}; the endpoint is not connected"),
            )
        });
        let shadowed = self.claims.iter().flat_map(move |(interface, claims)| {
            let id = |item: &ItemId| &self.local[item].endpoint.id;
            let winner = claims.first().map(|(_, item)| id(item));
            let others = claims.iter().skip(1).map(move |(_, item)| id(item));
            others.zip(winner.into_iter().cycle()).map(move |(loser, winner)| {
                problem(loser, format!("{interface:?} is claimed by {winner} as well, which is in force"))
            })
        });
        unconnectable.chain(shadowed)
    }
}

/// An object's own labels, without those that only profiles or we may give: whoever could write them could pass
/// for another namespace or service account.
pub(crate) fn own_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let reserved = [NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL];
    let inherited = [NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL_PREFIX];
    let is_own = |key: &str| !reserved.contains(&key) && !inherited.iter().any(|p| key.starts_with(p));
    labels.iter().filter(|(key, _)| is_own(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The labels that policy sees: the object's own and what Calico adds to every workload.
fn labels(object: &Object<WorkloadEndpointSpec>) -> BTreeMap<String, String> {
    let mut labels = own_labels(&object.metadata.labels);
    let spec = &object.spec;
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    labels.insert(NAMESPACE_LABEL.to_owned(), namespace);
    labels.insert(ORCHESTRATOR_LABEL.to_owned(), orchestrator(spec).to_owned());
    if !spec.service_account_name.is_empty() {
        labels.insert(SERVICE_ACCOUNT_LABEL.to_owned(), spec.service_account_name.clone());
    }
    labels
}

fn orchestrator(spec: &WorkloadEndpointSpec) -> &str {
    if spec.orchestrator.is_empty() { KUBERNETES } else { &spec.orchestrator }
}

fn local_endpoint(id: &EndpointId, object: &Object<WorkloadEndpointSpec>) -> Local {
    let spec = &object.spec;
    let workload = match (spec.pod.as_str(), spec.workload.as_str()) {
        ("", workload) => workload.to_owned(),
        (pod, _) => format!("{}/{pod}", object.metadata.namespace.as_deref().unwrap_or_default()),
    };
    Local {
        endpoint: LocalEndpoint {
            id: id.clone(),
            interface: spec.interface_name.as_str().into(),
            mac: (!spec.mac.is_empty()).then(|| spec.mac.as_str().into()),
            addresses: spec.ip_networks.clone(),
            profiles: spec.profiles.iter().map(|p| p.as_str().into()).collect(),
            tiers: Vec::new(),
        },
        claim: (orchestrator(spec).to_owned(), workload, spec.endpoint.clone()),
    }
}

/// Ports that a rule can name.
pub(crate) fn named_ports(ports: &[EndpointPort]) -> Vec<NamedPort> {
    let named = ports.iter().filter(|p| !p.name.is_empty());
    named.map(|p| NamedPort { name: p.name.as_str().into(), protocol: p.protocol, port: p.port }).collect()
}
