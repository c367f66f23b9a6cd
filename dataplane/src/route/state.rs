//! What is wanted on an interface, what is there, and the steps between. No kernel calls here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tortie_api::net::IpVersion;

use super::wire::Found;
use super::{RouteSpec, RoutesConfig};
use crate::link::MacAddr;

/// `RTPROT_KERNEL`: made by the kernel for an address of the interface.
const PROTOCOL_KERNEL: u8 = 2;
/// `RTPROT_BIRD`: a BGP daemon's.
const PROTOCOL_BIRD: u8 = 12;
/// `RT_SCOPE_UNIVERSE` and `RT_SCOPE_LINK`.
const SCOPES: (u8, u8) = (0, 253);

/// What is wanted on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) routes: BTreeSet<Found>,
    pub(super) neighbours: BTreeMap<IpAddr, MacAddr>,
}

impl Wanted {
    /// Leaves out what is of the other family.
    pub(super) fn new(
        version: IpVersion,
        routes: Vec<RouteSpec>,
        neighbours: Vec<(IpAddr, MacAddr)>,
    ) -> Self {
        let routes = routes.into_iter().filter(|route| IpVersion::of(&route.dest) == version);
        // Permanent entries are for ARP only; IPv6 workloads are found by neighbour discovery.
        let neighbours =
            neighbours.into_iter().filter(|(addr, _)| version == IpVersion::V4 && addr.is_ipv4());
        Self {
            routes: routes.map(|route| found(version, &route)).collect(),
            neighbours: neighbours.collect(),
        }
    }

    /// Whether there is a route to this destination.
    pub(super) fn has(&self, dest: &IpNet) -> bool {
        self.routes.iter().any(|route| route.dest == *dest)
    }
}

/// The form in which the kernel reports the route once it is there.
fn found(version: IpVersion, route: &RouteSpec) -> Found {
    let metric = match (version, route.metric) {
        // The kernel's own default (`IP6_RT_PRIO_USER`).
        (IpVersion::V6, 0) => 1024,
        (_, metric) => metric,
    };
    Found {
        dest: route.dest.trunc(),
        metric,
        tos: 0,
        protocol: route.protocol,
        scope: if version == IpVersion::V4 { SCOPES.1 } else { SCOPES.0 },
        gateway: None,
        src: route.src.filter(|src| IpVersion::of_addr(src) == version),
    }
}

/// An interface of the kernel.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) running: bool,
    pub(super) first_seen: Instant,
    /// `None` until it is read.
    pub(super) contents: Option<Contents>,
}

/// What an interface has.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) routes: BTreeSet<Found>,
    pub(super) neighbours: BTreeMap<IpAddr, MacAddr>,
}

/// What has to be done on an interface, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) set_neighbours: BTreeMap<IpAddr, MacAddr>,
    /// Routes to add, and whether one in the same slot has to give way.
    pub(super) add: Vec<(Found, bool)>,
    pub(super) delete: Vec<Found>,
    pub(super) delete_neighbours: Vec<(IpAddr, MacAddr)>,
    /// When there will be more to do: something unknown is left alone until then.
    pub(super) not_before: Option<Instant>,
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.set_neighbours.is_empty()
            && self.add.is_empty()
            && self.delete.is_empty()
            && self.delete_neighbours.is_empty()
    }
}

/// The way from what is there to what is wanted. `is_known` says whether a destination is wanted on any interface.
pub(super) fn steps(
    wanted: &Wanted,
    contents: &Contents,
    first_seen: Instant,
    now: Instant,
    ownership: &Ownership<'_>,
    is_known: &dyn Fn(&IpNet) -> bool,
) -> Steps {
    let mut steps = Steps::default();
    let grace_end = first_seen + ownership.config.grace;
    let in_grace = now < grace_end;
    for route in wanted.routes.difference(&contents.routes) {
        let replace = contents.routes.iter().any(|other| other.is_same_slot(route));
        steps.add.push((route.clone(), replace));
    }
    for route in contents.routes.difference(&wanted.routes) {
        // The kernel takes it away when its successor comes.
        let is_replaced = steps.add.iter().any(|(new, replace)| *replace && new.is_same_slot(route));
        if is_replaced || !ownership.covers(route) {
            continue;
        }
        // A destination that is wanted is known: the grace is for what may become wanted in a moment.
        if !in_grace || is_known(&route.dest) {
            steps.delete.push(route.clone());
        } else {
            steps.not_before = Some(grace_end);
        }
    }
    for (addr, mac) in &wanted.neighbours {
        if contents.neighbours.get(addr) != Some(mac) {
            steps.set_neighbours.insert(*addr, *mac);
        }
    }
    for (addr, mac) in &contents.neighbours {
        if wanted.neighbours.contains_key(addr) || !ownership.has_prefix {
            continue;
        }
        if in_grace {
            steps.not_before = Some(grace_end);
        } else {
            steps.delete_neighbours.push((*addr, *mac));
        }
    }
    steps
}

/// Which routes of an interface are ours to delete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ownership<'a> {
    pub(super) config: &'a RoutesConfig,
    /// The interface's name says that it is a workload's. Otherwise someone has only said that it is one, and
    /// routes and neighbours that others made there are no business of ours.
    pub(super) has_prefix: bool,
}

impl Ownership<'_> {
    pub(super) fn covers(&self, route: &Found) -> bool {
        match route.protocol {
            PROTOCOL_KERNEL | PROTOCOL_BIRD => false,
            protocol => {
                self.has_prefix && self.config.remove_external_routes
                    || self.config.protocols.contains(&protocol)
            }
        }
    }
}

impl Default for RoutesConfig {
    fn default() -> Self {
        Self {
            workload_prefixes: vec!["cali".to_owned()],
            remove_external_routes: true,
            protocols: vec![super::PROTOCOL],
            grace: Duration::from_secs(10),
        }
    }
}
