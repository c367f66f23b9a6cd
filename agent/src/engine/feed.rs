//! From the graph's events to what the kernel drivers are told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use tortie_api::net::IpVersion;
use tortie_dataplane::link::{Link, MacAddr};
use tortie_dataplane::reconcile::Problem;
use tortie_dataplane::route::RouteSpec;
use tortie_rules::compile::Config;
use tortie_rules::compile::classic::BrokenSets;
use tortie_rules::graph::Graph;
use tortie_rules::graph::model::{Event, LocalEndpoint};

use super::compiler::Compiler;
use super::kernel::Kernel;
use crate::config::Settings;

/// There while kube-proxy uses IPVS: it holds the addresses of services.
pub(super) const IPVS_INTERFACE: &str = "kube-ipvs0";

/// The compiler, and the routes of this node's endpoints.
pub(super) struct Feed {
    compiler: Compiler,
    settings: Settings,
    /// Wanted routes that the driver has not been told yet; `None` to remove.
    routes: BTreeMap<Arc<str>, Option<Arc<LocalEndpoint>>>,
    /// Addresses by the interface that owns them.
    owned: BTreeMap<Arc<str>, BTreeSet<Owned>>,
    /// Addresses that lost their owner.
    lost: BTreeSet<Owned>,
    host_addresses: Vec<IpNet>,
    /// Names of the host's interfaces.
    host_interfaces: BTreeSet<String>,
}

/// An address of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owned {
    Own(IpAddr),
    Floating(IpAddr),
}

impl Owned {
    fn address(self) -> IpAddr {
        match self {
            Self::Own(address) | Self::Floating(address) => address,
        }
    }
}

impl Feed {
    pub(super) fn new(settings: &Settings, kernel: &Kernel) -> Self {
        let flow_offload = kernel.has_offload();
        let mut config = Config { versions: kernel.versions(), flow_offload, ..settings.compile.clone() };
        if !kernel.has_revocation() {
            // Nothing would tell what is known.
            config.marks.known = 0;
        }
        Self {
            compiler: Compiler::new(kernel.form(), config, kernel.features()),
            settings: settings.clone(),
            routes: BTreeMap::new(),
            owned: BTreeMap::new(),
            lost: BTreeSet::new(),
            host_addresses: Vec::new(),
            host_interfaces: BTreeSet::new(),
        }
    }

    /// Takes an event of the graph.
    pub(super) fn handle(&mut self, event: &Event) {
        self.compiler.handle(event);
        match event {
            Event::Endpoint(endpoint) => {
                self.own(&endpoint.interface, &self.addresses(endpoint));
                self.routes.insert(endpoint.interface.clone(), Some(endpoint.clone()));
            }
            Event::EndpointGone(interface) => {
                self.own(interface, &BTreeSet::new());
                self.routes.insert(interface.clone(), None);
            }
            _ => {}
        }
    }

    /// Notes whose addresses are whose. An address that is no longer its interface's has lost its owner, and what
    /// the kernel remembers of its connections must not open the way to the next one.
    fn own(&mut self, interface: &Arc<str>, addresses: &BTreeSet<Owned>) {
        let old = if addresses.is_empty() {
            self.owned.remove(interface)
        } else {
            self.owned.insert(interface.clone(), addresses.clone())
        };
        self.lost.extend(old.into_iter().flatten().filter(|address| !addresses.contains(address)));
    }

    /// Takes the interfaces as they are now. Those that are no workload's and not excluded are the host's: the graph
    /// looks for their host endpoints, and their addresses are the host's own.
    pub(super) fn set_links(&mut self, links: &[Link], graph: &mut Graph) {
        self.compiler.set_ipvs(links.iter().any(|link| link.name == IPVS_INTERFACE));
        let settings = &self.settings;
        let is_workload =
            |name: &str| settings.compile.interface_prefixes.iter().any(|p| name.starts_with(p.as_str()));
        let is_hosts =
            |link: &&Link| !is_workload(&link.name) && !settings.excluded_interfaces.holds(&link.name);
        let hosts: Vec<&Link> = links.iter().filter(is_hosts).collect();
        let names: BTreeSet<String> = hosts.iter().map(|link| link.name.clone()).collect();
        self.host_interfaces.difference(&names).for_each(|gone| graph.set_host_interface(gone, None));
        for link in &hosts {
            let addresses: Vec<IpAddr> = link.addresses.iter().map(IpNet::addr).collect();
            graph.set_host_interface(&link.name, Some(&addresses));
        }
        self.host_interfaces = names;
        let mut addresses: Vec<IpNet> =
            hosts.iter().flat_map(|l| l.addresses.iter().flat_map(own_addresses)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses != self.host_addresses {
            self.compiler.set_host_addresses(&addresses);
            self.host_addresses = addresses;
        }
    }

    /// What the rules cannot do for endpoints of this node.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let unmarked = self.compiler.unmarked_endpoints();
        if unmarked.is_empty() {
            return Vec::new();
        }
        let error = format!(
            "IptablesMarkMask has too few bits for a mark of each endpoint, which IPVS needs; what these send to              services is denied: {}",
            unmarked.join(", ")
        );
        vec![Problem { object: "endpoint marks".to_owned(), error }]
    }

    /// Tells the drivers what changed of sets.
    pub(super) fn deliver_sets(&mut self, kernel: &mut Kernel) {
        self.compiler.deliver_sets(kernel);
    }

    /// Tells the drivers what changed of the rest, given the sets that are not as wanted.
    pub(super) fn deliver_rest(&mut self, broken: &BrokenSets, kernel: &mut Kernel) {
        self.compiler.deliver_rules(broken, kernel);
        for lost in std::mem::take(&mut self.lost) {
            match lost {
                Owned::Own(address) => kernel.forget_connections(address),
                Owned::Floating(address) => kernel.forget_floating(address),
            }
        }
        for (interface, endpoint) in std::mem::take(&mut self.routes) {
            if let Some(endpoint) = endpoint {
                let addresses: BTreeSet<IpAddr> =
                    self.addresses(&endpoint).into_iter().map(Owned::address).collect();
                let routes: Vec<RouteSpec> = addresses.iter().map(|a| self.route((*a).into())).collect();
                kernel.want_interface(&interface, &routes, &neighbours(&endpoint, &addresses));
                kernel.allow_spoofing(&interface, self.may_spoof(&endpoint));
            } else {
                kernel.forget_interface(&interface);
                kernel.allow_spoofing(&interface, false);
            }
        }
    }

    /// Addresses by which an endpoint is reached: its own and those of its floating addresses that are in force.
    fn addresses(&self, endpoint: &LocalEndpoint) -> BTreeSet<Owned> {
        let floating = endpoint.floating(self.settings.compile.floating_ips);
        let own = endpoint.addresses.iter().map(|net| Owned::Own(net.addr()));
        own.chain(floating.iter().map(|nat| Owned::Floating(nat.external_ip))).collect()
    }

    fn may_spoof(&self, endpoint: &LocalEndpoint) -> bool {
        self.settings.compile.source_spoofing && !endpoint.spoofed_sources.is_empty()
    }

    fn route(&self, dest: IpNet) -> RouteSpec {
        let settings = &self.settings;
        let (metric, src) = match IpVersion::of(&dest) {
            IpVersion::V4 => (settings.route_metric_v4, settings.route_source_v4),
            IpVersion::V6 => (settings.route_metric_v6, settings.route_source_v6),
        };
        RouteSpec { dest, metric, protocol: settings.route_protocol, src }
    }
}

/// An interface's address; for the loopback network its first address as well, as Felix counts it.
fn own_addresses(net: &IpNet) -> Vec<IpNet> {
    let mut own = vec![IpNet::from(net.addr())];
    if let IpNet::V4(v4) = net
        && v4.addr().is_loopback()
    {
        own.push(Ipv4Net::from(Ipv4Addr::new(127, 0, 0, 0)).into());
    }
    own
}

/// Permanent neighbour entries: of IPv4 addresses, where the workload's MAC address is known.
fn neighbours(endpoint: &LocalEndpoint, addresses: &BTreeSet<IpAddr>) -> Vec<(IpAddr, MacAddr)> {
    let mac: Option<MacAddr> = endpoint.mac.as_deref().and_then(|m| m.parse().ok());
    let v4 = addresses.iter().copied().filter(IpAddr::is_ipv4);
    mac.map(|mac| v4.map(|addr| (addr, mac)).collect()).unwrap_or_default()
}
