//! The lab itself: what is in it, and making it larger and smaller while it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};
use std::{fs, thread};

use tempfile::TempDir;

use super::wiring::{self, Leaf, Uplink};
use super::{
    Addresses, Agent, Endpoint, Host, LabBuilder, LabError, LocalRoutes, Netns, PodSpec, host_interface,
};

/// Where labs keep their sockets, logs and whatever their user puts there: private and gone with the process.
const ROOM: &str = "/run/tortie-lab";
/// `ip` processes that run at the same time.
const PARALLEL: usize = 4;
/// How long the kernel may take to notice that an interface works.
const LINK_DEADLINE: Duration = Duration::from_secs(20);

/// A running cluster of namespaces. Dropping it ends its agents; the kernel then takes the namespaces down.
#[derive(Debug)]
pub struct Lab {
    pub(super) hosts: BTreeMap<Endpoint, Host>,
    /// The hosts as they were asked for, for people.
    pub(super) order: Vec<Endpoint>,
    pub(super) agents: BTreeMap<String, Agent>,
    /// Numbers probes, so that none is taken for another and no flow for an older one.
    pub(super) probe_ids: AtomicU32,
    fabric: Netns,
    local_routes: LocalRoutes,
    dir: TempDir,
}

impl Lab {
    /// Begins to describe a lab.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    pub(super) fn new(wanted: &LabBuilder) -> Result<Self, LabError> {
        fs::create_dir_all(ROOM).map_err(LabError::io(format!("make {ROOM} (was lab::enter called?)")))?;
        let dir = TempDir::new_in(ROOM).map_err(LabError::io(format!("make a directory in {ROOM}")))?;
        let mut lab = Self {
            hosts: BTreeMap::new(),
            order: Vec::new(),
            agents: BTreeMap::new(),
            probe_ids: AtomicU32::new(0),
            fabric: Netns::new("the fabric", &wiring::ROUTER_SYSCTLS)?,
            local_routes: wanted.local_routes,
            dir,
        };
        lab.make_hosts(wanted)?;
        lab.wire(wanted)?;
        Ok(lab)
    }

    /// A directory of this lab's own, on a tmpfs; removed with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A host by name.
    ///
    /// # Errors
    /// When the lab has none of that name.
    pub fn host(&self, endpoint: &Endpoint) -> Result<&Host, LabError> {
        self.hosts.get(endpoint).ok_or_else(|| LabError::UnknownEndpoint(endpoint.to_string()))
    }

    /// A node by name.
    ///
    /// # Errors
    /// When the lab has none of that name.
    pub fn node(&self, name: &str) -> Result<&Host, LabError> {
        self.host(&Endpoint::Node(name.to_owned()))
    }

    /// A pod by namespace and name.
    ///
    /// # Errors
    /// When the lab has none of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<&Host, LabError> {
        self.host(&Endpoint::pod(namespace, name))
    }

    /// All hosts in the order in which they were added.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.order.iter().filter_map(|name| self.hosts.get(name))
    }

    /// The names of all nodes, in the order in which they were added.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().filter_map(|name| match name {
            Endpoint::Node(name) => Some(name.as_str()),
            Endpoint::Pod { .. } | Endpoint::External(_) => None,
        })
    }

    /// Adds a pod to the running lab.
    ///
    /// # Errors
    /// When there is a pod of that name, or no such node.
    pub fn add_pod(&mut self, pod: &PodSpec) -> Result<(), LabError> {
        let endpoint = Endpoint::pod(&pod.namespace, &pod.name);
        self.make_host(endpoint.clone(), pod.addresses, Some(pod.node.clone()))?;
        let host = self.host(&endpoint)?;
        let (interface, netns) =
            (host_interface(&pod.namespace, &pod.name), host.netns.path().display().to_string());
        let leaf = Leaf { interface: &interface, addresses: pod.addresses, netns: &netns };
        let node = &self.node(&pod.node)?.netns;
        node.ip_batch(&wiring::pod_cable(&leaf, self.local_routes))?;
        host.netns.ip_batch(&wiring::pod_end(pod.addresses))?;
        self.route("replace", pod.addresses, &pod.node)?;
        wait_for_links(node)
    }

    /// Takes a pod and its interface away.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) -> Result<(), LabError> {
        let endpoint = Endpoint::pod(namespace, name);
        let (addresses, node) = match self.host(&endpoint)? {
            Host { addresses, node: Some(node), .. } => (*addresses, node.clone()),
            Host { .. } => return Err(LabError::UnknownEndpoint(endpoint.to_string())),
        };
        self.route("del", addresses, &node)?;
        self.node(&node)?.netns.ip_batch(&[format!("link del {}", host_interface(namespace, name))])?;
        self.order.retain(|other| *other != endpoint);
        self.hosts.remove(&endpoint);
        Ok(())
    }

    /// Programs the routes to local pods now, as a lab with [`LocalRoutes::Lab`] does from the start.
    ///
    /// # Errors
    /// What `ip` refused.
    pub fn add_local_routes(&mut self) -> Result<(), LabError> {
        self.local_routes = LocalRoutes::Lab;
        for node in self.node_names() {
            let pods = self.hosts().filter(|h| h.node() == Some(node));
            let lines: Vec<String> = pods
                .filter_map(|pod| pod.interface().map(|dev| (pod, dev)))
                .flat_map(|(pod, dev)| pod.addresses.iter().map(move |ip| wiring::local_route(ip, &dev)))
                .collect();
            self.node(node)?.netns.ip_batch(&lines)?;
        }
        Ok(())
    }

    /// Has pods and their nodes find each other by IPv6 neighbour discovery from now on, as in real use, instead of
    /// knowing each other: to test that the agent lets it through. Such a lab needs room in the machine's table of
    /// neighbours; without it, packets are lost and sending fails with "Invalid argument".
    ///
    /// # Errors
    /// What `ip` refused.
    pub fn discover_neighbours(&self) -> Result<(), LabError> {
        for pod in self.hosts() {
            let (Some(node), Some(interface)) = (pod.node(), pod.interface()) else { continue };
            let Some([on_node, in_pod]) = wiring::unfixed(pod.addresses, &interface) else { continue };
            self.node(node)?.netns.ip_batch(&[on_node])?;
            pod.netns.ip_batch(&[in_pod])?;
        }
        Ok(())
    }

    fn make_hosts(&mut self, wanted: &LabBuilder) -> Result<(), LabError> {
        for (name, addresses) in &wanted.nodes {
            wiring::check_node(name, *addresses)?;
            self.make_host(Endpoint::Node(name.clone()), *addresses, None)?;
        }
        for pod in &wanted.pods {
            self.make_host(Endpoint::pod(&pod.namespace, &pod.name), pod.addresses, Some(pod.node.clone()))?;
        }
        for (name, addresses) in &wanted.externals {
            self.make_host(Endpoint::External(name.clone()), *addresses, None)?;
        }
        Ok(())
    }

    fn make_host(
        &mut self,
        endpoint: Endpoint,
        addresses: Addresses,
        node: Option<String>,
    ) -> Result<(), LabError> {
        if self.hosts.contains_key(&endpoint) {
            return Err(LabError::Topology(format!("{endpoint} is there twice")));
        }
        if let Some(name) = &node {
            self.node(name)
                .map_err(|_| LabError::Topology(format!("{endpoint}: there is no node {name}")))?;
        }
        let sysctls: &[_] = if matches!(endpoint, Endpoint::Node(_)) {
            &wiring::ROUTER_SYSCTLS
        } else {
            &wiring::LEAF_SYSCTLS
        };
        let netns = Netns::new(&endpoint.to_string(), sysctls)?;
        self.order.push(endpoint.clone());
        self.hosts.insert(endpoint.clone(), Host { endpoint, addresses, netns, node });
        Ok(())
    }

    /// Connects everything: a cable's two ends are wired one after the other, all else at the same time.
    fn wire(&self, wanted: &LabBuilder) -> Result<(), LabError> {
        let paths: BTreeMap<&Endpoint, String> =
            self.hosts.iter().map(|(name, host)| (name, host.netns.path().display().to_string())).collect();
        let nodes: Vec<Uplink<'_>> = self
            .hosts()
            .filter(|host| matches!(host.endpoint, Endpoint::Node(_)))
            .enumerate()
            .map(|(position, host)| Uplink {
                position,
                addresses: host.addresses,
                netns: &paths[&host.endpoint],
            })
            .collect();
        let mut fabric = wiring::fabric(&nodes);
        let mut near: Vec<Job<'_>> = Vec::new();
        let mut far: Vec<Job<'_>> = Vec::new();
        for ((name, _), uplink) in wanted.nodes.iter().zip(&nodes) {
            let mut lines = wiring::node(uplink, &nodes);
            for pod in &wanted.pods {
                if pod.node == *name {
                    let interface = host_interface(&pod.namespace, &pod.name);
                    let netns = &paths[&Endpoint::pod(&pod.namespace, &pod.name)];
                    let leaf = Leaf { interface: &interface, addresses: pod.addresses, netns };
                    lines.extend(wiring::pod_cable(&leaf, self.local_routes));
                } else {
                    lines.extend(wiring::remote_routes(
                        "replace",
                        pod.addresses,
                        self.node(&pod.node)?.addresses,
                    ));
                }
            }
            near.push((&self.node(name)?.netns, lines));
        }
        for (position, host) in
            self.hosts().filter(|h| matches!(h.endpoint, Endpoint::External(_))).enumerate()
        {
            let interface = format!("fe{position}");
            let leaf =
                Leaf { interface: &interface, addresses: host.addresses, netns: &paths[&host.endpoint] };
            fabric.extend(wiring::external_cable(&leaf));
        }
        for pod in &wanted.pods {
            fabric.extend(wiring::remote_routes("replace", pod.addresses, self.node(&pod.node)?.addresses));
        }
        for host in self.hosts().filter(|host| !matches!(host.endpoint, Endpoint::Node(_))) {
            let end = if host.node.is_some() { wiring::pod_end } else { wiring::external_end };
            far.push((&host.netns, end(host.addresses)));
        }
        run_all(&[(&self.fabric, fabric)])?;
        run_all(&near)?;
        run_all(&far)?;
        near.iter().map(|(netns, _)| *netns).chain([&self.fabric]).try_for_each(wait_for_links)
    }

    /// Sets or deletes the routes to a pod everywhere but on its own node.
    fn route(&self, verb: &str, pod: Addresses, node: &str) -> Result<(), LabError> {
        let lines = wiring::remote_routes(verb, pod, self.node(node)?.addresses);
        let mut jobs: Vec<Job<'_>> = vec![(&self.fabric, lines.clone())];
        for other in self.node_names().filter(|other| *other != node) {
            jobs.push((&self.node(other)?.netns, lines.clone()));
        }
        run_all(&jobs)
    }
}

/// Waits until every interface that is switched on also works: a cable's near end does when its far end is there and
/// the kernel has got round to noticing it, and drops all packets until then.
fn wait_for_links(netns: &Netns) -> Result<(), LabError> {
    let deadline = Instant::now() + LINK_DEADLINE;
    loop {
        let links = netns.check("ip", &["-o", "link", "show", "up"], "")?;
        let waiting = links.lines().find(|line| !line.contains("LOOPBACK") && !line.contains(" state UP "));
        match waiting {
            None => return Ok(()),
            Some(line) if Instant::now() >= deadline => {
                let label = netns.label();
                return Err(LabError::Topology(format!("an interface of {label} does not come up: {line}")));
            }
            Some(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A namespace and the lines for `ip` in it.
type Job<'a> = (&'a Netns, Vec<String>);

/// Runs all jobs, some at the same time; reports the first failure.
fn run_all(jobs: &[Job<'_>]) -> Result<(), LabError> {
    let share = jobs.len().div_ceil(PARALLEL).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = jobs
            .chunks(share)
            .map(|part| scope.spawn(|| part.iter().try_for_each(|(netns, lines)| netns.ip_batch(lines))))
            .collect();
        parts.into_iter().try_for_each(|part| match part.join() {
            Ok(result) => result,
            Err(cause) => std::panic::resume_unwind(cause),
        })
    })
}
