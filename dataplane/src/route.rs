//! Routes to local workloads, one driver for each IP version, and their permanent neighbour entries.
//!
//! ```text
//!   set_interface ─► wanted ┐                          neighbours, new routes ─► old routes
//!   handle_link ───► links  ├─► steps per interface ──►  (a new route is there before the old one goes)
//!   observe ───────► actual ┘
//! ```
//!
//! Only interfaces of workloads are looked at. On those with a prefix of the configuration every unicast route
//! of the main table is judged, but for the kernel's own and a BGP daemon's; on others for which routes were
//! wanted, only routes with our protocol numbers. What is unknown on an interface is left alone for a while after the interface appeared: a CNI
//! plugin makes routes before the workload is known here.

mod apply;
mod state;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tortie_api::net::IpVersion;

use crate::link::{self, LinkEvent, MacAddr};
use crate::netlink::{Channel, NetlinkError, Protocol};
use crate::reconcile::{Driver, DriverError, Phase, Plan, Report};

use state::{Contents, Interface, Ownership, Steps, Wanted};

/// The protocol number of routes that are exclusively ours.
pub const PROTOCOL: u8 = 80;
/// The metric of workload routes.
pub const METRIC: u32 = 1024;

/// A wanted route through an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The destination; host bits are cleared.
    pub dest: IpNet,
    /// Lower is preferred. 0 means 1024 for IPv6, as in the kernel.
    pub metric: u32,
    /// `RTPROT_*`: who made the route.
    pub protocol: u8,
    /// The source address of packets that the node itself sends there.
    pub src: Option<IpAddr>,
}

impl RouteSpec {
    /// A route with the usual metric and protocol.
    pub fn to(dest: IpNet) -> Self {
        Self { dest, metric: METRIC, protocol: PROTOCOL, src: None }
    }
}

/// Which routes are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesConfig {
    /// Interfaces whose names begin so are workloads'.
    pub workload_prefixes: Vec<String>,
    /// On workload interfaces, routes that others made go too when they are not wanted.
    pub remove_external_routes: bool,
    /// Protocol numbers that are ours: 80, and the one that routes are made with when it is another.
    pub protocols: Vec<u8>,
    /// How long unknown routes stay after their interface appeared.
    pub grace: Duration,
}

/// Tells the time; the driver's only clock.
pub type Clock = Box<dyn Fn() -> Instant + Send>;

/// The driver of one IP version's workload routes.
pub struct Routes {
    version: IpVersion,
    config: RoutesConfig,
    clock: Clock,
    channel: Channel,
    wanted: BTreeMap<String, Wanted>,
    /// Interfaces on which something has been wanted: what is ours there has to go one day.
    adopted: BTreeSet<String>,
    interfaces: BTreeMap<String, Interface>,
    /// Interfaces that may be out of step, or will be when their grace ends. The others cost nothing.
    dirty: BTreeSet<String>,
    observed: bool,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("version", &self.version)
            .field("wanted", &self.wanted)
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

impl Routes {
    /// A driver for the network namespace of the thread that first uses it. No kernel call is made here.
    pub fn new(version: IpVersion, config: RoutesConfig, clock: Clock) -> Self {
        Self {
            version,
            config,
            clock,
            channel: Channel::new(Protocol::Route),
            wanted: BTreeMap::new(),
            adopted: BTreeSet::new(),
            interfaces: BTreeMap::new(),
            dirty: BTreeSet::new(),
            observed: false,
        }
    }

    /// Wants exactly these routes and neighbours on an interface. What is of the other IP version is left
    /// out, so that both drivers can be given the same.
    pub fn set_interface(&mut self, name: &str, routes: Vec<RouteSpec>, neighbours: Vec<(IpAddr, MacAddr)>) {
        let wanted = Wanted::new(self.version, routes, neighbours);
        if self.wanted.get(name) != Some(&wanted) {
            self.adopted.insert(name.to_owned());
            self.wanted.insert(name.to_owned(), wanted);
            self.dirty.insert(name.to_owned());
        }
    }

    /// No longer wants anything on an interface.
    pub fn remove_interface(&mut self, name: &str) {
        if self.wanted.remove(name).is_some() {
            self.dirty.insert(name.to_owned());
        }
    }

    /// Takes in what [`link::Links`] saw.
    pub fn handle_link(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Changed(link) => {
                self.note_link(&link.name, link.index, link.running);
            }
            LinkEvent::Removed { index, name } => {
                if self.interfaces.get(name).is_some_and(|interface| interface.index == *index) {
                    self.interfaces.remove(name);
                    if !self.wanted.contains_key(name) {
                        self.adopted.remove(name);
                    }
                }
            }
            LinkEvent::Resynced => {
                for (name, interface) in &mut self.interfaces {
                    interface.contents = None;
                    self.dirty.insert(name.clone());
                }
            }
        }
    }

    /// Interfaces on which something is wanted and which are not there or not running.
    pub fn pending(&self) -> Vec<String> {
        let is_pending = |name: &&String| !self.interfaces.get(*name).is_some_and(|found| found.running);
        self.wanted.keys().filter(is_pending).cloned().collect()
    }

    /// When [`Driver::apply`] will have something to do though nothing has happened: a grace has ended.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.dirty.iter().filter_map(|name| self.steps(name)?.not_before).min()
    }

    /// Remembers a link. Its routes are read again when it was made anew, or went down or up: the kernel
    /// removes routes of an interface that goes down.
    fn note_link(&mut self, name: &str, index: u32, running: bool) {
        let now = (self.clock)();
        let interface = self.interfaces.entry(name.to_owned()).or_insert(Interface {
            index,
            running: !running,
            first_seen: now,
            contents: None,
        });
        if interface.index != index {
            interface.index = index;
            interface.first_seen = now;
            interface.contents = None;
            interface.running = !running;
        }
        if interface.running != running {
            interface.running = running;
            interface.contents = None;
            self.dirty.insert(name.to_owned());
        }
    }

    fn is_workload(&self, name: &str) -> bool {
        self.adopted.contains(name) || self.has_prefix(name)
    }

    fn has_prefix(&self, name: &str) -> bool {
        self.config.workload_prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    fn ownership(&self, name: &str) -> Ownership<'_> {
        Ownership { config: &self.config, has_prefix: self.has_prefix(name) }
    }

    /// What is to be done on an interface; `None` when it is not running or has to be read first.
    fn steps(&self, name: &str) -> Option<Steps> {
        let nothing = Wanted::default();
        let interface = self.interfaces.get(name).filter(|interface| interface.running)?;
        let wanted = self.wanted.get(name).unwrap_or(&nothing);
        let contents = interface.contents.as_ref()?;
        let is_known = |dest: &IpNet| self.wanted.values().any(|wanted| wanted.has(dest));
        Some(state::steps(
            wanted,
            contents,
            interface.first_seen,
            (self.clock)(),
            &self.ownership(name),
            &is_known,
        ))
    }

    /// Workload interfaces that run and have not been read.
    fn unread(&self) -> Vec<String> {
        let is_unread = |name: &&String| {
            let interface = self.interfaces.get(*name);
            interface.is_some_and(|found| found.running && found.contents.is_none()) && self.is_workload(name)
        };
        self.dirty.iter().filter(is_unread).cloned().collect()
    }

    /// Reads links, and the routes and neighbours of all workload interfaces.
    fn read_all(&mut self) -> Result<(), NetlinkError> {
        let links = link::read(&mut self.channel)?;
        let names: BTreeSet<&String> = links.values().map(|link| &link.name).collect();
        self.interfaces.retain(|name, _| names.contains(name));
        for link in links.values() {
            self.note_link(&link.name, link.index, link.running);
        }
        let workloads: Vec<String> =
            self.interfaces.keys().filter(|name| self.is_workload(name)).cloned().collect();
        self.read_contents(&workloads)?;
        self.dirty.extend(workloads);
        Ok(())
    }

    /// Reads these interfaces with one dump of everything.
    fn read_contents(&mut self, names: &[String]) -> Result<(), NetlinkError> {
        let mut contents: BTreeMap<u32, Contents> = BTreeMap::new();
        for (ifindex, route) in wire::list(&mut self.channel, self.version, None)? {
            contents.entry(ifindex).or_default().routes.insert(route);
        }
        if self.version == IpVersion::V4 {
            for found in crate::neigh::list(&mut self.channel, self.version, None)? {
                contents.entry(found.ifindex).or_default().neighbours.insert(found.addr, found.mac);
            }
        }
        for name in names {
            if let Some(interface) = self.interfaces.get_mut(name) {
                interface.contents = Some(contents.remove(&interface.index).unwrap_or_default());
            }
        }
        Ok(())
    }
}

impl Driver for Routes {
    fn name(&self) -> String {
        format!("route {}", self.version)
    }

    fn observe(&mut self) -> Result<(), DriverError> {
        self.observed = false;
        self.read_all().map_err(|error| DriverError::Netlink {
            what: format!("list {} routes", self.version),
            source: io::Error::other(error),
        })?;
        self.observed = true;
        self.settle();
        Ok(())
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        let mut lines = Vec::new();
        if phase == Phase::Connect {
            lines.extend(self.unread().iter().map(|name| format!("read routes of {name}")));
            for name in &self.dirty {
                if let Some(steps) = self.steps(name) {
                    describe(name, &steps, &mut lines);
                }
            }
        }
        Box::new(RoutesPlan(lines))
    }

    fn apply(&mut self, phase: Phase) -> Report {
        if phase == Phase::Connect { self.connect() } else { Report::default() }
    }
}

fn describe(name: &str, steps: &Steps, lines: &mut Vec<String>) {
    for (addr, mac) in &steps.set_neighbours {
        lines.push(format!("set neighbour {addr} dev {name} lladdr {mac}"));
    }
    for (route, replace) in &steps.add {
        let verb = if *replace { "replace" } else { "add" };
        lines.push(format!("{verb} route {} dev {name} metric {}", route.dest, route.metric));
    }
    for route in &steps.delete {
        lines.push(format!("delete route {} dev {name} metric {}", route.dest, route.metric));
    }
    for (addr, _) in &steps.delete_neighbours {
        lines.push(format!("delete neighbour {addr} dev {name}"));
    }
}

struct RoutesPlan(Vec<String>);

impl Plan for RoutesPlan {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for RoutesPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

#[cfg(test)]
mod tests;
