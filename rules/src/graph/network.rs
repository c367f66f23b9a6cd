//! What nodes, pools and BGP settings mean for this node beside policy: which tunnels there are and to whom, and the
//! addresses of services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::bgp::BgpConfigurationSpec;
use tortie_api::ippool::{EncapMode, IPPoolSpec};
use tortie_api::net::IpVersion;
use tortie_api::node::{NodeAddressType, NodeSpec};
use tortie_api::resource::Resource;
use tortie_api::{Key, Kind, convert};

use super::model::{ClusterNetwork, Event};

/// The `BGPConfiguration` whose addresses of services count, on every node.
const DEFAULT: &str = "default";

/// What of a node matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NodeFacts {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    has_ipip: bool,
    has_vxlan_v4: bool,
    has_vxlan_v6: bool,
}

/// What of a pool matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PoolFacts {
    version: IpVersion,
    is_ipip: bool,
    is_vxlan: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Network {
    node: String,
    pools: BTreeMap<String, PoolFacts>,
    /// By name; a `Node` of Calico counts more than one of Kubernetes.
    nodes: BTreeMap<(String, NodeSource), NodeFacts>,
    services: BTreeSet<IpNet>,
    dirty: bool,
    published: Option<Arc<ClusterNetwork>>,
}

/// Where a node is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NodeSource {
    Calico,
    Kubernetes,
}

impl Network {
    /// Of the node of this name. The first flush tells, even if there is nothing.
    pub(crate) fn new(node: String) -> Self {
        Self {
            node,
            pools: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services: BTreeSet::new(),
            dirty: true,
            published: None,
        }
    }

    /// Takes a new or changed resource, if it is of a kind that matters.
    pub(crate) fn set(&mut self, resource: &Resource) {
        match resource {
            Resource::IPPool(o) => {
                let facts = pool_facts(&o.spec);
                self.dirty |= self.pools.insert(o.metadata.name.clone(), facts) != Some(facts);
            }
            Resource::Node(o) => self.set_node(&o.metadata.name, NodeSource::Calico, &o.spec),
            Resource::KubeNode(o) => {
                let (node, _) = convert::node(o);
                self.set_node(&o.metadata.name, NodeSource::Kubernetes, &node.spec);
            }
            Resource::BGPConfiguration(o) if o.metadata.name == DEFAULT => self.set_services(&o.spec),
            _ => {}
        }
    }

    /// Takes the removal of a resource.
    pub(crate) fn remove(&mut self, key: &Key) {
        let name = || key.name.clone();
        match key.kind {
            Kind::IPPool => self.dirty |= self.pools.remove(&key.name).is_some(),
            Kind::Node => self.dirty |= self.nodes.remove(&(name(), NodeSource::Calico)).is_some(),
            Kind::KubeNode => self.dirty |= self.nodes.remove(&(name(), NodeSource::Kubernetes)).is_some(),
            Kind::BGPConfiguration if key.name == DEFAULT => {
                self.set_services(&BgpConfigurationSpec::default());
            }
            _ => {}
        }
    }

    fn set_node(&mut self, name: &str, source: NodeSource, spec: &NodeSpec) {
        let facts = node_facts(spec);
        self.dirty |= self.nodes.insert((name.to_owned(), source), facts) != Some(facts);
    }

    fn set_services(&mut self, spec: &BgpConfigurationSpec) {
        let services = spec.service_nets().collect();
        self.dirty |= self.services != services;
        self.services = services;
    }

    /// What changed since the last flush.
    pub(crate) fn flush(&mut self) -> Option<Event> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let network = Arc::new(self.network());
        if self.published.as_ref() == Some(&network) {
            return None;
        }
        self.published = Some(network.clone());
        Some(Event::Network(network))
    }

    fn network(&self) -> ClusterNetwork {
        let of_version = |wanted| self.pools.values().any(|p| p.is_vxlan && p.version == wanted);
        let mut network = ClusterNetwork {
            ipip: self.pools.values().any(|pool| pool.is_ipip),
            vxlan: IpVersion::BOTH.into_iter().filter(|version| of_version(*version)).collect(),
            services: self.services.iter().copied().collect(),
            ..ClusterNetwork::default()
        };
        let (mut nodes, mut peers) = (BTreeSet::new(), BTreeSet::new());
        let mut last = None;
        // Calico's own come before Kubernetes' of the same name, which then do not count.
        for ((name, _), facts) in &self.nodes {
            if last.replace(name) == Some(name) {
                continue;
            }
            let v4 = facts.v4.map(IpAddr::V4);
            let v6 = facts.v6.map(IpAddr::V6);
            nodes.extend(v4.into_iter().chain(v6));
            let vxlan = v4.filter(|_| facts.has_vxlan_v4).into_iter();
            let vxlan: Vec<IpAddr> = vxlan.chain(v6.filter(|_| facts.has_vxlan_v6)).collect();
            if *name == self.node {
                network.has_ipip_address = facts.has_ipip;
                network.vxlan_addresses = vxlan.iter().map(IpVersion::of_addr).collect();
            } else {
                peers.extend(vxlan);
            }
        }
        network.nodes = nodes.into_iter().collect();
        network.vxlan_peers = peers.into_iter().collect();
        network
    }
}

fn pool_facts(spec: &IPPoolSpec) -> PoolFacts {
    PoolFacts {
        version: IpVersion::of(&spec.cidr),
        is_ipip: spec.ipip_mode != EncapMode::Never,
        is_vxlan: spec.vxlan_mode != EncapMode::Never,
    }
}

/// A node's addresses are those of its BGP speaker; if it has none, those by which the cluster knows it.
fn node_facts(spec: &NodeSpec) -> NodeFacts {
    let bgp = spec.bgp.as_ref();
    let v4 = bgp.and_then(|bgp| bgp.ipv4_address).map(|net| net.addr());
    let v6 = bgp.and_then(|bgp| bgp.ipv6_address).map(|net| net.addr());
    let is_internal = |kind: Option<NodeAddressType>| kind == Some(NodeAddressType::InternalIP);
    let internal = || spec.addresses.iter().filter(|a| is_internal(a.address_type)).map(|a| a.address);
    let has_none = v4.is_none() && v6.is_none();
    let first_v4 = || {
        internal().find_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    };
    let first_v6 = || {
        internal().find_map(|address| match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    };
    NodeFacts {
        v4: if has_none { first_v4() } else { v4 },
        v6: if has_none { first_v6() } else { v6 },
        has_ipip: bgp.is_some_and(|bgp| bgp.ipv4_ipip_tunnel_addr.is_some()),
        has_vxlan_v4: spec.ipv4_vxlan_tunnel_addr.is_some(),
        has_vxlan_v6: spec.ipv6_vxlan_tunnel_addr.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(network: &mut Network, text: &str) {
        for document in tortie_api::manifest::parse_documents(text.as_bytes()) {
            network.set(&document.outcome.expect("a good resource").resource);
        }
    }

    fn calico(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    }

    fn kube_node(name: &str, address: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{}}\n\
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n"
        )
    }

    fn flush(network: &mut Network) -> Arc<ClusterNetwork> {
        match network.flush() {
            Some(Event::Network(network)) => network,
            other => panic!("{other:?}"),
        }
    }

    fn texts<T: ToString>(list: &[T]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_are_known_by_their_addresses_and_tunnels() {
        let mut network = Network::new("a".to_owned());
        set(
            &mut network,
            &calico("Node", "a", "{bgp: {ipv4Address: 10.0.0.1/24, ipv4IPIPTunnelAddr: 10.65.0.1}}"),
        );
        set(
            &mut network,
            &calico("Node", "b", "{bgp: {ipv4Address: 10.0.0.2/24}, ipv4VXLANTunnelAddr: 10.65.1.0}"),
        );
        set(&mut network, &calico("Node", "c", "{bgp: {ipv4Address: 10.0.0.3/24}}"));
        // The document counts, where there are both; without one, what Kubernetes knows.
        set(&mut network, &kube_node("b", "10.0.0.99"));
        set(&mut network, &kube_node("d", "10.0.0.4"));
        let told = flush(&mut network);
        assert_eq!(texts(&told.nodes), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        assert_eq!(texts(&told.vxlan_peers), ["10.0.0.2"]);
        assert!(told.has_ipip_address && told.vxlan_addresses.is_empty());
        network.remove(&Key::new(Kind::Node, None, "b"));
        assert_eq!(texts(&flush(&mut network).nodes)[2], "10.0.0.4");
    }

    #[test]
    fn pools_say_which_tunnels_there_are() {
        let mut network = Network::new("a".to_owned());
        assert_eq!(*flush(&mut network), ClusterNetwork::default());
        set(&mut network, &calico("IPPool", "p", "{cidr: 10.65.0.0/16, ipipMode: CrossSubnet}"));
        set(&mut network, &calico("IPPool", "q", "{cidr: 'fd00:65::/112', vxlanMode: Always}"));
        let told = flush(&mut network);
        assert!(told.ipip);
        assert_eq!(told.vxlan, [IpVersion::V6]);
        network.remove(&Key::new(Kind::IPPool, None, "q"));
        assert!(flush(&mut network).vxlan.is_empty());
    }

    #[test]
    fn only_the_default_configuration_has_addresses_of_services() {
        let mut network = Network::new("a".to_owned());
        let services = |cidr: &str| format!("{{serviceClusterIPs: [{{cidr: {cidr}}}]}}");
        set(&mut network, &calico("BGPConfiguration", "node.a", &services("10.98.0.0/16")));
        set(&mut network, &calico("BGPConfiguration", "default", &services("10.96.0.0/12")));
        assert_eq!(texts(&flush(&mut network).services), ["10.96.0.0/12"]);
        set(&mut network, &calico("BGPConfiguration", "default", &services("10.96.0.0/12")));
        assert_eq!(network.flush(), None);
        network.remove(&Key::new(Kind::BGPConfiguration, None, "default"));
        assert!(flush(&mut network).services.is_empty());
    }
}
