//! Who is meant at the ends of a flow.

use std::net::IpAddr;

use tortie_api::endpoint::{ANY_INTERFACE, HostEndpointSpec, WorkloadEndpointSpec};
use tortie_api::kind::Kind;
use tortie_api::kube::{PodPhase, PodSpec};
use tortie_api::net::{IpNet, IpVersion};
use tortie_api::resource::{Object, Resource};
use tortie_api::{Key, convert};
use tortie_rules::eval::Party;

use super::near::near;
use crate::world::World;

/// An end of a flow: one party for each of its addresses, in the order in which it has them.
#[derive(Debug)]
pub(super) struct End {
    /// As typed.
    word: String,
    parties: Vec<Party>,
}

impl End {
    /// The party to use over a version.
    pub(super) fn over(&self, version: IpVersion) -> Option<Party> {
        self.parties.iter().find(|party| IpVersion::of_addr(&party.address) == version).cloned()
    }

    fn versions(&self) -> String {
        let has: Vec<String> =
            IpVersion::BOTH.into_iter().filter(|v| self.over(*v).is_some()).map(|v| v.to_string()).collect();
        has.join(" and ")
    }
}

/// Why two ends cannot speak.
pub(super) fn no_common_version(source: &End, destination: &End, asked: Option<IpVersion>) -> String {
    let has = |end: &End| format!("{} has {}", end.word, end.versions());
    let both = format!("{}, {}", has(source), has(destination));
    match asked {
        Some(version) => format!("not both ends have an {version} address: {both}"),
        None => format!("the ends have no IP version in common: {both}"),
    }
}

/// Finds parties by what a user calls them.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    world: &'a World,
    namespace: &'a str,
}

impl<'a> Resolver<'a> {
    /// `namespace` is where pods are that are named without one.
    pub(super) fn new(world: &'a World, namespace: &'a str) -> Self {
        Self { world, namespace }
    }

    /// Reads `NAMESPACE/POD`, `POD`, an address, `hep/NAME` or `node/NAME`.
    pub(super) fn party(&self, word: &str) -> Result<End, String> {
        let parties = if let Ok(address) = word.parse::<IpAddr>() {
            vec![Party::at(address)]
        } else {
            match word.split_once('/') {
                Some(("hep", name)) => self.host_endpoint(name)?,
                Some(("node", name)) => self.node(name)?,
                Some((namespace, pod)) => self.pod(namespace, pod)?,
                None => self.pod(self.namespace, word)?,
            }
        };
        Ok(End { word: word.to_owned(), parties })
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Vec<Party>, String> {
        if let Some(Resource::Pod(pod)) = self.world.resource(&Key::new(Kind::Pod, Some(namespace), name)) {
            return self.parties_of_pod(pod);
        }
        let is_it = |o: &Object<WorkloadEndpointSpec>| {
            o.metadata.namespace_text() == namespace && (o.metadata.name == name || o.spec.pod == name)
        };
        for resource in self.world.resources() {
            if let Resource::WorkloadEndpoint(object) = resource
                && is_it(object)
            {
                let addresses = object.spec.ip_networks.iter().map(IpNet::addr);
                return some(
                    addresses.map(|a| Party::workload(namespace, name, a)).collect(),
                    &format!("workload endpoint {namespace}/{name}"),
                );
            }
        }
        Err(self.unknown_pod(namespace, name))
    }

    fn parties_of_pod(&self, pod: &Object<PodSpec>) -> Result<Vec<Party>, String> {
        let (namespace, name) = (pod.metadata.namespace_text(), pod.metadata.name.as_str());
        if let Some(endpoint) = convert::pod_endpoint(pod, "cali") {
            // A WorkloadEndpoint that is written down comes before what the pod says.
            let key = Key::new(Kind::WorkloadEndpoint, Some(namespace), endpoint.metadata.name.as_str());
            let written = match self.world.resource(&key) {
                Some(Resource::WorkloadEndpoint(object)) => Some(&object.spec.ip_networks),
                _ => None,
            };
            let nets = written.unwrap_or(&endpoint.spec.ip_networks);
            let parties = nets.iter().map(|net| Party::workload(namespace, name, net.addr())).collect();
            return some(parties, &format!("pod {namespace}/{name}"));
        }
        let spec = &pod.spec;
        let reason = if spec.host_network && !spec.node_name.is_empty() {
            return self.node(&spec.node_name).map_err(|error| {
                format!("pod {namespace}/{name} is in the network of its node, and {error}")
            });
        } else if spec.node_name.is_empty() {
            "is not on a node yet"
        } else if matches!(spec.phase, PodPhase::Succeeded | PodPhase::Failed) {
            "has ended"
        } else {
            "has no address"
        };
        Err(format!("pod {namespace}/{name} {reason}"))
    }

    fn unknown_pod(&self, namespace: &str, name: &str) -> String {
        let pods = || {
            self.world
                .0
                .keys()
                .filter(|k| matches!(k.kind, Kind::Pod | Kind::WorkloadEndpoint))
                .filter_map(|key| Some((key.namespace.as_deref()?, key.name.as_str())))
        };
        let beside = near(name, pods().filter(|(of, _)| *of == namespace).map(|(_, pod)| pod));
        let elsewhere = pods().filter(|(of, pod)| *of != namespace && *pod == name).map(|(of, _)| of);
        let spaces = near(namespace, pods().filter(|(_, pod)| *pod == name).map(|(of, _)| of));
        let candidates: Vec<String> = beside
            .iter()
            .map(|pod| format!("{namespace}/{pod}"))
            .chain(spaces.into_iter().chain(elsewhere).take(3).map(|of| format!("{of}/{name}")))
            .collect();
        unknown(&format!("pod {namespace}/{name}"), candidates)
    }

    /// A host at the interface of its host endpoint.
    fn host_endpoint(&self, name: &str) -> Result<Vec<Party>, String> {
        let Some(Resource::HostEndpoint(object)) =
            self.world.resource(&Key::new(Kind::HostEndpoint, None, name))
        else {
            return Err(unknown(
                &format!("host endpoint {name}"),
                self.similar("hep", Kind::HostEndpoint, name),
            ));
        };
        let HostEndpointSpec { node, interface_name, expected_ips, .. } = &object.spec;
        let mut addresses = expected_ips.clone();
        addresses.extend(self.node_addresses(node).unwrap_or_default());
        let party = |address| match interface_name.as_str() {
            "" | ANY_INTERFACE => Party::host(node, address),
            interface => Party::host(node, address).through(node, interface),
        };
        some(addresses.into_iter().map(party).collect(), &format!("host endpoint {name}"))
    }

    fn node(&self, name: &str) -> Result<Vec<Party>, String> {
        let mut addresses = self.node_addresses(name);
        // A host without a Node may be known by its host endpoints.
        for resource in self.world.resources() {
            if let Resource::HostEndpoint(object) = resource
                && object.spec.node == name
            {
                addresses.get_or_insert_default().extend(&object.spec.expected_ips);
            }
        }
        let Some(addresses) = addresses else {
            let mut candidates = self.similar("node", Kind::KubeNode, name);
            candidates.extend(self.similar("node", Kind::Node, name));
            candidates.dedup();
            return Err(unknown(&format!("node {name}"), candidates));
        };
        let parties = addresses.into_iter().map(|address| Party::host(name, address)).collect();
        some(parties, &format!("node {name}"))
    }

    /// `None` if there is no such node.
    fn node_addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let of = |kind| self.world.resource(&Key::new(kind, None, name));
        let mut addresses = None;
        if let Some(Resource::Node(object)) = of(Kind::Node) {
            addresses.get_or_insert_with(Vec::new).extend(object.spec.addresses.iter().map(|a| a.address));
        }
        if let Some(Resource::KubeNode(object)) = of(Kind::KubeNode) {
            let (node, _) = convert::node(object);
            addresses.get_or_insert_with(Vec::new).extend(node.spec.addresses.iter().map(|a| a.address));
        }
        addresses
    }

    fn similar(&self, word: &str, kind: Kind, name: &str) -> Vec<String> {
        let names = self.world.0.keys().filter(|key| key.kind == kind).map(|key| key.name.as_str());
        near(name, names).into_iter().map(|name| format!("{word}/{name}")).collect()
    }
}

fn some(parties: Vec<Party>, what: &str) -> Result<Vec<Party>, String> {
    if parties.is_empty() { Err(format!("{what} has no address")) } else { Ok(parties) }
}

fn unknown(what: &str, mut candidates: Vec<String>) -> String {
    let mut seen = Vec::new();
    candidates.retain(|candidate| {
        let is_new = !seen.contains(candidate);
        seen.push(candidate.clone());
        is_new
    });
    match candidates[..] {
        [] => format!("there is no {what}"),
        _ => format!("there is no {what}; did you mean {}?", candidates.join(" or ")),
    }
}
