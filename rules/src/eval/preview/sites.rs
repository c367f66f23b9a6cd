//! Everybody who may be at an end of a flow, and who of them are alike.
//!
//! A *site* is an address of one IP version with who has it before and after: a workload, a node, or nobody, which
//! is outside of the cluster. Sites about which everything that can matter is the same are one *group*.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustc_hash::FxHashMap;
use tortie_api::net::{IpNet, IpVersion};

use super::super::derived::Endpoint;
use super::super::explain::Point;
use super::super::flow::{Party, Place};
use super::Peer;
use super::nets::Cells;
use super::view::{Common, Numbers, View};

/// Before and after.
pub(super) type Both<T> = [T; 2];

/// Who has an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who<'a> {
    Workload(&'a Endpoint),
    Host(&'a str),
}

impl<'a> Who<'a> {
    pub(super) fn node(self) -> &'a str {
        match self {
            Who::Workload(endpoint) => &endpoint.node,
            Who::Host(node) => node,
        }
    }

    /// What it is called in the report.
    pub(super) fn peer(self, address: Option<IpAddr>) -> Peer {
        match self {
            Who::Workload(endpoint) => {
                let (namespace, name) = endpoint.point.workload();
                Peer::Workload { namespace: namespace.to_owned(), name: name.to_owned(), address }
            }
            Who::Host(node) => Peer::Node { node: node.to_owned(), address },
        }
    }

    /// Sorts, and tells whether two are the same one in the two clusters.
    fn name(self) -> (bool, &'a str, &'a str) {
        match self {
            Who::Workload(endpoint) => (false, endpoint.point.workload().0, &endpoint.full_name),
            Who::Host(node) => (true, node, ""),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) address: IpAddr,
    pub(super) who: Both<Option<Who<'a>>>,
    /// Of one that is outside: the part of the address space that it stands for.
    pub(super) cell: Option<usize>,
}

impl<'a> Site<'a> {
    /// Who it is called after.
    pub(super) fn owner(&self) -> Option<Who<'a>> {
        self.who[1].or(self.who[0])
    }

    pub(super) fn node(&self) -> Option<&'a str> {
        self.owner().map(Who::node)
    }

    /// The party of a flow in one of the clusters.
    pub(super) fn party(&self, at: usize) -> Party {
        let place = match self.who[at] {
            Some(Who::Workload(endpoint)) => Place::Workload {
                namespace: endpoint.point.workload().0.to_owned(),
                name: endpoint.full_name.clone(),
            },
            Some(Who::Host(node)) => Place::Host { node: node.to_owned() },
            None => Place::Outside,
        };
        Party { address: self.address, place, interface: None }
    }
}

impl Point {
    /// Namespace and name; of a host endpoint, no namespace.
    pub(super) fn workload(&self) -> (&str, &str) {
        match self {
            Self::Workload { namespace, name } => (namespace, name),
            Self::Host { name } => ("", name),
        }
    }
}

/// Sites that are alike.
#[derive(Debug)]
pub(super) struct Group {
    /// Places in the list of sites.
    pub(super) sites: Vec<usize>,
    /// Whether anything about them differs before and after.
    pub(super) is_affected: bool,
    pub(super) is_host: bool,
    pub(super) is_outside: bool,
    /// Whether they have no place of their own before, or after.
    pub(super) is_nobody: Both<bool>,
    /// The first two sites on each node.
    pub(super) by_node: BTreeMap<String, (usize, Option<usize>)>,
}

impl Group {
    fn new(sites: Vec<usize>, is_affected: bool, all: &[Site<'_>]) -> Self {
        let first = &all[sites[0]];
        let mut by_node = BTreeMap::new();
        for at in &sites {
            if let Some(node) = all[*at].node() {
                let two = by_node.entry(node.to_owned()).or_insert((*at, None));
                if two.0 != *at && two.1.is_none() {
                    two.1 = Some(*at);
                }
            }
        }
        Self {
            is_affected,
            is_host: matches!(first.owner(), Some(Who::Host(_))),
            is_outside: first.cell.is_some(),
            is_nobody: first.who.map(|who| who.is_none()),
            by_node,
            sites,
        }
    }
}

/// Everybody of one IP version.
#[derive(Debug)]
pub(super) struct Census<'a> {
    pub(super) sites: Vec<Site<'a>>,
    pub(super) groups: Vec<Group>,
    pub(super) cells: Cells,
    /// The cells that a site stands for.
    pub(super) has_free: BTreeSet<usize>,
    /// How many addresses somebody has.
    addresses: BTreeMap<(bool, &'a str, &'a str), usize>,
    /// Everybody with an address.
    named: BTreeSet<Peer>,
}

impl<'a> Census<'a> {
    pub(super) fn new(version: IpVersion, views: &mut Both<View<'a>>, common: &mut Common) -> Self {
        let mut sites = owned(version, views);
        let cells = Cells::new(version, mentioned(views, common));
        let taken: BTreeSet<IpAddr> = sites.iter().map(|site| site.address).collect();
        for (cell, address) in cells.free_addresses(&taken).into_iter().enumerate() {
            sites.extend(address.map(|address| Site { address, who: [None; 2], cell: Some(cell) }));
        }
        let groups = Facts::new(&cells, views, common).groups(&sites, views, common);
        let has_free = sites.iter().filter_map(|site| site.cell).collect();
        let mut addresses = BTreeMap::new();
        for who in sites.iter().filter_map(Site::owner) {
            *addresses.entry(who.name()).or_default() += 1;
        }
        let named = sites.iter().filter_map(Site::owner).map(|who| who.peer(None)).collect();
        Self { sites, groups, cells, has_free, addresses, named }
    }

    /// Whether somebody by that name has or had an address; nobody outside has.
    pub(super) fn has(&self, peer: &Peer) -> bool {
        self.named.contains(peer)
    }

    /// How many addresses somebody has or had.
    pub(super) fn addresses_of(&self, who: Who<'_>) -> usize {
        self.addresses.get(&who.name()).copied().unwrap_or_default()
    }
}

/// The addresses of workloads and nodes.
fn owned<'a>(version: IpVersion, views: &Both<View<'a>>) -> Vec<Site<'a>> {
    let mut owners: BTreeMap<IpAddr, Both<Vec<Who<'a>>>> = BTreeMap::new();
    for (at, view) in views.iter().enumerate() {
        let workloads = view.derived.workloads.iter();
        let of_workloads = workloads.flat_map(|w| w.addresses.iter().map(move |a| (*a, Who::Workload(w))));
        let of_nodes = view.derived.node_of.iter().map(|(address, node)| (*address, Who::Host(node)));
        for (address, who) in of_workloads.chain(of_nodes) {
            if IpVersion::of_addr(&address) == version {
                owners.entry(address).or_default()[at].push(who);
            }
        }
    }
    let mut sites = Vec::new();
    for (address, mut owners) in owners {
        owners.iter_mut().for_each(|list| list.sort_by_key(|who| who.name()));
        let [before, mut after] = owners;
        let mut alone = Vec::new();
        for who in before {
            match after.iter().position(|other| other.name() == who.name()) {
                Some(at) => {
                    sites.push(Site { address, who: [Some(who), Some(after.remove(at))], cell: None });
                }
                None => alone.push(who),
            }
        }
        // An address that changes hands.
        let mut after = after.into_iter();
        for who in alone {
            sites.push(Site { address, who: [Some(who), after.next()], cell: None });
        }
        sites.extend(after.map(|who| Site { address, who: [None, Some(who)], cell: None }));
    }
    sites
}

/// Every network that can make a difference.
fn mentioned(views: &Both<View<'_>>, common: &Common) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = common.nets.iter().flatten().copied().collect();
    for view in views {
        nets.extend(view.derived.items.iter().flat_map(|item| &item.nets));
        let services = common.services.iter().filter_map(|key| view.derived.services.get(key));
        nets.extend(services.flatten().flat_map(|(addresses, _)| addresses).map(|a| IpNet::from(*a)));
        for host in &view.derived.hosts {
            let settings = view.cluster.settings(&host.node);
            let lists = settings.failsafe_inbound.iter().chain(&settings.failsafe_outbound);
            nets.extend(lists.filter_map(|failsafe| failsafe.net));
        }
    }
    nets
}

/// Everything about a site that can matter, in one of the clusters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fact {
    seat: Seat,
    /// What rules see of the items that have the address.
    items: Vec<u32>,
    /// The lists of networks that it is in.
    nets: u32,
    /// The services that it is behind, and with which ports.
    services: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Seat {
    Workload { policing: u32, settings: u32, hosting: u32 },
    Host { settings: u32, hosting: u32 },
    Nobody,
}

/// What makes sites alike: the facts, and if somebody moves, the node.
type Likeness<'a> = (Both<Fact>, Option<Both<Option<&'a str>>>);

/// Finds [`Fact`]s.
struct Facts<'c> {
    cells: &'c Cells,
    /// By cell: the number of the set of lists of networks that it is in.
    nets: Vec<u32>,
    /// By cluster: the services behind which an address is.
    services: Both<FxHashMap<IpAddr, Vec<u32>>>,
}

impl<'c> Facts<'c> {
    fn new(cells: &'c Cells, views: &Both<View<'_>>, common: &mut Common) -> Self {
        let mut lists: Vec<Vec<usize>> = vec![Vec::new(); cells.len()];
        let failsafes = views.iter().flat_map(|view| {
            let nodes = view.derived.hosts.iter().map(|host| view.cluster.settings(&host.node));
            nodes.flat_map(|s| s.failsafe_inbound.iter().chain(&s.failsafe_outbound)).filter_map(|f| f.net)
        });
        let failsafes: BTreeSet<Vec<IpNet>> = failsafes.map(|net| vec![net]).collect();
        for (at, list) in common.nets.iter().chain(&failsafes).enumerate() {
            for cell in list.iter().filter_map(|net| cells.of_net(net)) {
                lists[cell].push(at);
            }
        }
        let mut numbers: Numbers<Vec<usize>> = Numbers::default();
        let mut nets = Vec::with_capacity(cells.len());
        for cell in 0..cells.len() {
            // A cell is in all networks that the one around it is in.
            if let Some(parent) = cells.parent(cell) {
                let inherited = lists[parent].clone();
                lists[cell].extend(inherited);
            }
            lists[cell].sort_unstable();
            lists[cell].dedup();
            nets.push(numbers.of(lists[cell].clone()));
        }
        let services = [0, 1].map(|at| services(&views[at], common));
        Self { cells, nets, services }
    }

    fn groups<'a>(&self, sites: &[Site<'a>], views: &mut Both<View<'a>>, common: &mut Common) -> Vec<Group> {
        let node = |who: Option<Who<'a>>| who.map(Who::node);
        let moves =
            |site: &Site<'a>| site.who.iter().all(Option::is_some) && node(site.who[0]) != node(site.who[1]);
        // Then who is on whose node differs before and after.
        let is_fine = sites.iter().any(moves);
        let mut places: FxHashMap<Likeness<'_>, usize> = FxHashMap::default();
        let mut groups: Vec<(Vec<usize>, bool)> = Vec::new();
        for (at, site) in sites.iter().enumerate() {
            let [before, after] = views;
            let facts = [self.fact(0, site, before, common), self.fact(1, site, after, common)];
            let is_affected = facts[0] != facts[1] || moves(site);
            let nodes = is_fine.then(|| site.who.map(node));
            let place = *places.entry((facts, nodes)).or_insert(groups.len());
            if place == groups.len() {
                groups.push((Vec::new(), is_affected));
            }
            groups[place].0.push(at);
        }
        groups.into_iter().map(|(members, is_affected)| Group::new(members, is_affected, sites)).collect()
    }

    fn fact<'a>(&self, at: usize, site: &Site<'a>, view: &mut View<'a>, common: &mut Common) -> Fact {
        let items = view.derived.items_at(site.address);
        let mut items: Vec<u32> = items.into_iter().map(|item| view.appearance(item)).collect();
        items.sort_unstable();
        items.dedup();
        let seat = match site.who[at] {
            Some(Who::Workload(endpoint)) => {
                let in_force = view.in_force(endpoint);
                let node = &in_force.node;
                let hosting = if view.filters_forwarded { view.hosting(node, common) } else { 0 };
                let settings = view.workload_settings(node, common);
                Seat::Workload { policing: view.policing(in_force, common), settings, hosting }
            }
            Some(Who::Host(node)) => Seat::Host {
                settings: view.workload_settings(node, common),
                hosting: view.hosting(node, common),
            },
            None => Seat::Nobody,
        };
        let nets = self.nets[self.cells.of_address(site.address)];
        let services = self.services[at].get(&site.address).cloned().unwrap_or_default();
        Fact { seat, items, nets, services }
    }
}

fn services(view: &View<'_>, common: &mut Common) -> FxHashMap<IpAddr, Vec<u32>> {
    let mut by_address: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for key in &common.services {
        for (addresses, ports) in view.derived.services.get(key).into_iter().flatten() {
            let mut ports = ports.clone();
            ports.sort_unstable();
            for address in addresses {
                by_address.entry(*address).or_default().insert(format!("service {key:?} {ports:?}"));
            }
        }
    }
    let number = |(address, texts): (IpAddr, BTreeSet<String>)| {
        (address, texts.into_iter().map(|text| common.text(text)).collect())
    };
    by_address.into_iter().map(number).collect()
}
