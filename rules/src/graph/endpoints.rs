//! Workload endpoints: those of the whole cluster as members of sets, those of this node to be enforced.
//!
//! A pod makes an endpoint; a `WorkloadEndpoint` document of the same name overrides it. Of two endpoints that
//! claim one interface of this node, the one with the lower id is in force and the other waits.

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use tortie_api::endpoint::{EndpointPort, WorkloadEndpointSpec};
use tortie_api::labels::{
    KUBERNETES, NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL,
    SERVICE_ACCOUNT_LABEL_PREFIX,
};
use tortie_api::qos::Qos;
use tortie_api::resource::Object;
use tortie_api::{Key, Kind};

use self::records::{Records, Rival};
use super::contributors::{Contributor, NamedPort};
use super::label_index::{ItemId, ItemLabels, Label, SelectorId};
use super::model::{Event, LocalEndpoint, Problem, TierKind, Tiers};
use super::policies::Policies;
use super::profiles::Profiles;
use super::sets::{Description, IpSets};
use super::slab::Numbers;

/// The orchestrator of OpenStack's workloads.
const OPENSTACK: &str = "openstack";

/// `namespace/name` of a WorkloadEndpoint.
type EndpointId = Arc<str>;
/// Orchestrator, workload, endpoint and id: what decides between claims to one interface.
type Claim = (String, String, String, EndpointId);

/// What of a local endpoint does not depend on policy.
#[derive(Clone, Debug)]
struct Local {
    endpoint: LocalEndpoint,
    claim: Claim,
}

/// Where an endpoint is.
#[derive(Clone, Debug)]
enum Place {
    Elsewhere,
    Here(Box<Local>),
    /// On this node, at an interface that no rule could be applied to.
    Unconnectable(String),
}

/// All workload endpoints.
#[derive(Debug)]
pub(crate) struct Endpoints {
    node: String,
    prefixes: Vec<String>,
    numbers: Numbers,
    records: Records,
    local: BTreeMap<ItemId, Local>,
    /// Endpoints of this node that no rule could be applied to, with their interfaces.
    unconnectable: BTreeMap<ItemId, String>,
    claims: BTreeMap<Arc<str>, BTreeSet<(Claim, ItemId)>>,
    dirty_interfaces: BTreeSet<Arc<str>>,
    published: BTreeMap<Arc<str>, Arc<LocalEndpoint>>,
}

impl Endpoints {
    pub(crate) fn new(node: String, prefixes: Vec<String>) -> Self {
        Self {
            node,
            prefixes,
            numbers: Numbers::default(),
            records: Records::default(),
            local: BTreeMap::new(),
            unconnectable: BTreeMap::new(),
            claims: BTreeMap::new(),
            dirty_interfaces: BTreeSet::new(),
            published: BTreeMap::new(),
        }
    }

    /// A number for an item of the label index that no other item has.
    pub(crate) fn next_item(&mut self) -> ItemId {
        self.numbers.take()
    }

    /// An item of the label index is gone.
    pub(crate) fn give_back_item(&mut self, item: ItemId) {
        self.numbers.give_back(item);
    }

    /// Takes a new or changed endpoint, of a document or of the `pod` that makes it, in the same namespace.
    pub(crate) fn set(
        &mut self,
        pod: Option<&str>,
        object: &Object<WorkloadEndpointSpec>,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        let (namespace, name) = (object.metadata.namespace_text(), object.metadata.name.as_str());
        if let Some(pod) = pod
            && let Some(item) = self.records.of_pod(namespace, pod)
            // The endpoint's name has the node's name in it: a pod that comes again may be elsewhere.
            && !self.records.is_named(item, namespace, name)
        {
            self.remove_pod(item, sets, policies, profiles);
        }
        let item = match self.records.find(namespace, name) {
            Some(item) => item,
            None => self.records.add(self.numbers.take(), namespace, name),
        };
        if let Some(pod) = pod {
            self.records.set_pod(item, pod);
            if self.records.get(item).has_document {
                self.records.set_rival(item, Some(self.rival_of(item, object)));
                return;
            }
        } else if !self.records.get(item).has_document {
            // What the pod said comes back when the document goes.
            let pod = self.records.has_pod(item).then(|| self.rival_in_force(item, sets)).flatten();
            self.records.get_mut(item).has_document = true;
            self.records.set_rival(item, pod);
        }
        let nets = &object.spec.ip_networks;
        let ports = named_ports(&object.spec.ports);
        let contributor = Contributor { nets, ports: &ports, is_node: false };
        let place = self.place(item, object);
        let parents = object.spec.profiles.iter().map(String::as_str);
        self.put(item, contributor, labels(object), parents, place, (sets, policies, profiles));
    }

    /// Takes the removal of a pod or document.
    pub(crate) fn remove(
        &mut self,
        key: &Key,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        if key.kind == Kind::Pod {
            if let Some(item) = self.records.of_pod(namespace, &key.name) {
                self.remove_pod(item, sets, policies, profiles);
            }
            return;
        }
        let Some(item) = self.records.find(namespace, &key.name) else { return };
        if !std::mem::take(&mut self.records.get_mut(item).has_document) {
            return;
        }
        let Some(Rival { description, place }) = self.records.take_rival(item) else {
            self.drop_item(item, sets, policies, profiles);
            self.forget(item);
            return;
        };
        let Description { labels, parents, nets, ports } = description;
        let labels = ItemLabels { own: as_labels(&labels.own), given: as_labels(&labels.given) };
        let contributor = Contributor { nets: &nets, ports: &ports, is_node: false };
        let parents = parents.iter().map(String::as_str);
        self.put(item, contributor, labels, parents, place, (sets, policies, profiles));
    }

    fn remove_pod(
        &mut self,
        item: ItemId,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        self.records.remove_pod(item);
        if self.records.get(item).has_document {
            self.records.set_rival(item, None);
            return;
        }
        self.drop_item(item, sets, policies, profiles);
        self.forget(item);
    }

    /// Brings an endpoint into force.
    fn put<'a>(
        &mut self,
        item: ItemId,
        contributor: Contributor<'_>,
        labels: ItemLabels<impl Iterator<Item = Label<'a>> + Clone, impl Iterator<Item = Label<'a>> + Clone>,
        parents: impl Iterator<Item = &'a str> + Clone,
        place: Place,
        (sets, policies, profiles): (&mut IpSets, &mut Policies, &mut Profiles),
    ) {
        // Without an address an endpoint can neither be reached nor be a member of anything.
        if contributor.nets.is_empty() {
            self.drop_item(item, sets, policies, profiles);
            return;
        }
        self.records.get_mut(item).is_item = true;
        sets.set_item(item, contributor, labels.clone(), parents.clone());
        self.unconnectable.remove(&item);
        let local = match place {
            Place::Here(local) => local,
            Place::Elsewhere => return self.drop_local(item, sets, policies, profiles),
            Place::Unconnectable(interface) => {
                self.unconnectable.insert(item, interface);
                return self.drop_local(item, sets, policies, profiles);
            }
        };
        local.endpoint.profiles.iter().for_each(|p| profiles.acquire(p));
        self.release_local(item, profiles);
        let interface = local.endpoint.interface.clone();
        self.claims.entry(interface.clone()).or_default().insert((local.claim.clone(), item));
        self.dirty_interfaces.insert(interface);
        self.local.insert(item, *local);
        policies.set_endpoint(item, labels, parents, sets);
    }

    fn place(&self, item: ItemId, object: &Object<WorkloadEndpointSpec>) -> Place {
        let interface = &object.spec.interface_name;
        if object.spec.node != self.node || interface.is_empty() {
            Place::Elsewhere
        } else if self.prefixes.iter().any(|p| interface.starts_with(p.as_str())) {
            Place::Here(Box::new(local_endpoint(&self.records.get(item).id().into(), object)))
        } else {
            Place::Unconnectable(interface.clone())
        }
    }

    /// A pod's endpoint, to be kept while a document overrides it.
    fn rival_of(&self, item: ItemId, object: &Object<WorkloadEndpointSpec>) -> Rival {
        let texts = |label: Label<'_>| (label.0.to_owned(), label.1.to_owned());
        let all = labels(object);
        let description = Description {
            labels: ItemLabels { own: all.own.map(texts).collect(), given: all.given.map(texts).collect() },
            parents: object.spec.profiles.clone(),
            nets: object.spec.ip_networks.clone(),
            ports: named_ports(&object.spec.ports),
        };
        Rival { description, place: self.place(item, object) }
    }

    /// The endpoint that is in force now, to be kept while another overrides it.
    fn rival_in_force(&self, item: ItemId, sets: &IpSets) -> Option<Rival> {
        let place = match (self.local.get(&item), self.unconnectable.get(&item)) {
            (Some(local), _) => Place::Here(Box::new(local.clone())),
            (None, Some(interface)) => Place::Unconnectable(interface.clone()),
            (None, None) => Place::Elsewhere,
        };
        Some(Rival { description: sets.describe(item)?, place })
    }

    /// Takes an endpoint out of force.
    fn drop_item(
        &mut self,
        item: ItemId,
        sets: &mut IpSets,
        policies: &mut Policies,
        profiles: &mut Profiles,
    ) {
        if std::mem::take(&mut self.records.get_mut(item).is_item) {
            sets.remove_item(item);
            self.unconnectable.remove(&item);
            self.drop_local(item, sets, policies, profiles);
        }
    }

    /// Forgets an endpoint that neither a pod nor a document makes.
    fn forget(&mut self, item: ItemId) {
        self.records.remove(item);
        self.numbers.give_back(item);
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
        // Many endpoints of a node have the same policies.
        let mut lists: FxHashMap<&[SelectorId], Tiers> = FxHashMap::default();
        for interface in interfaces {
            let winner = self.claims.get(&interface).and_then(|c| c.first()).map(|(_, item)| *item);
            match winner {
                Some(item) => {
                    let mut endpoint = self.local[&item].endpoint.clone();
                    let list = lists.entry(policies.selectors_of(item));
                    endpoint.tiers =
                        list.or_insert_with(|| policies.tiers_of(item, TierKind::Normal)).clone();
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
        let problem = |id: &str, message| Problem {
            object: format!("WorkloadEndpoint {id}"),
            key: None,
            field: "spec.interfaceName".to_owned(),
            message,
        };
        let unconnectable = self.unconnectable.iter().map(move |(item, interface)| {
            let prefixes = self.prefixes.join(", ");
            problem(
                self.records.get(*item).id(),
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
pub(crate) fn own_labels(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Label<'_>> + Clone {
    let reserved = [NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL];
    let inherited = [NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL_PREFIX];
    // All of them begin with the same letter, and few others do.
    let is_own = move |key: &str| {
        !key.starts_with('p') || !reserved.contains(&key) && !inherited.iter().any(|p| key.starts_with(p))
    };
    labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).filter(move |(key, _)| is_own(key))
}

/// The labels that policy sees: the object's own and what Calico adds to every workload.
fn labels(
    object: &Object<WorkloadEndpointSpec>,
) -> ItemLabels<impl Iterator<Item = Label<'_>> + Clone, impl Iterator<Item = Label<'_>> + Clone> {
    let spec = &object.spec;
    let account = spec.service_account_name.as_str();
    let given = [
        (NAMESPACE_LABEL, object.metadata.namespace_text()),
        (ORCHESTRATOR_LABEL, orchestrator(spec)),
        (SERVICE_ACCOUNT_LABEL, account),
    ];
    let given = given.into_iter().take(if account.is_empty() { 2 } else { 3 });
    ItemLabels { own: own_labels(&object.metadata.labels), given }
}

fn as_labels(texts: &[(String, String)]) -> impl Iterator<Item = Label<'_>> + Clone {
    texts.iter().map(|(key, value)| (key.as_str(), value.as_str()))
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
            tiers: Tiers::default(),
            qos: Qos::read(&spec.qos_controls).0,
            spoofed_sources: spec.allow_spoofed_source_prefixes.iter().map(IpNet::trunc).collect(),
            nats: spec.ip_nats.as_slice().into(),
            is_openstack: orchestrator(spec) == OPENSTACK,
        },
        claim: (orchestrator(spec).to_owned(), workload, spec.endpoint.clone(), id.clone()),
    }
}

/// Ports that a rule can name.
pub(crate) fn named_ports(ports: &[EndpointPort]) -> Vec<NamedPort> {
    let named = ports.iter().filter(|p| !p.name.is_empty());
    named.map(|p| NamedPort { name: p.name.as_str().into(), protocol: p.protocol, port: p.port }).collect()
}
