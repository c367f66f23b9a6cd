//! One node with pods that policies select, a datastore that says so, and an agent.
//!
//! A tenth of the pods is in each of ten namespaces; each pod is selected by one policy, which lets clients of all
//! namespaces in to one port (one large ip set) and everybody to another. The pods' interfaces are real; their other ends share
//! one namespace, since nothing is sent.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::Backend;
use super::by_hand::Tools;
use super::control::Control;
use crate::lab::{AgentOptions, Lab, Netns, host_interface};
use crate::manifests::ManifestDir;

const NODE: &str = "node-1";
const NODE_ADDRESS: &str = "172.18.0.11,fd00::ac12:b";
/// Namespaces of pods, and policies of each app.
const NAMESPACES: usize = 10;
/// Pods that one policy selects at most, as long as there are no more than [`MAX_APPS`] apps.
const PODS_PER_POLICY: usize = 20;
const MAX_APPS: usize = 5;
/// The kernel's time to get round to calling an interface up.
const LINKS: Duration = Duration::from_mins(1);
/// Interfaces that have not changed for so long are taken to be ready.
const SETTLE: Duration = Duration::from_millis(100);
/// The pods' interfaces are in this group of links, so that they can be deleted at once.
const GROUP: &str = "7";
const SYSCTLS: [(&str, &str); 2] =
    [("net/ipv6/conf/all/accept_dad", "0"), ("net/ipv6/conf/default/accept_dad", "0")];

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) backend: Backend,
    /// Pods with an endpoint on the node.
    pub(super) size: usize,
    pub(super) manifests: ManifestDir,
    pub(super) tools: Tools,
    /// More of the agent's environment.
    pub(super) env: Vec<(String, String)>,
    lab: Lab,
    /// Where the other ends of the pods' interfaces are.
    pods: Netns,
}

/// A pod's place: its number gives everything else.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodId(pub(super) usize);

impl PodId {
    pub(super) fn namespace(self) -> String {
        format!("ns-{}", self.0 % NAMESPACES)
    }

    pub(super) fn name(self) -> String {
        format!("pod-{}", self.0)
    }

    pub(super) fn interface(self) -> String {
        host_interface(&self.namespace(), &self.name())
    }

    /// Of 10.65.0.0/16, from 10.65.1.0 on.
    pub(super) fn address(self) -> Ipv4Addr {
        let offset = u32::try_from(256 + self.0).unwrap_or(u32::MAX);
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 65, 0, 0).to_bits().saturating_add(offset))
    }

    /// The manifest; `app` decides which policy selects it.
    pub(super) fn manifest(self, node: &str, app: usize) -> Value {
        let role = if self.0.is_multiple_of(2) { "client" } else { "server" };
        let ip = self.address().to_string();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.name(), "namespace": self.namespace(),
                "labels": {"app": format!("app-{app}"), "role": role, "pod-template-hash": "5d8c7f9b6d"},
            },
            "spec": {
                "nodeName": node, "serviceAccountName": "default",
                "containers": [{"name": "main", "image": "registry.example/main:1",
                    "ports": [{"name": "http", "containerPort": 8080}]}],
            },
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        })
    }
}

/// The policy of app `app` in namespace number `namespace`, which lets everybody in to `port`.
pub(super) fn policy(namespace: usize, app: usize, port: u16) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"name": format!("allow-{app}"), "namespace": format!("ns-{namespace}")},
        "spec": {
            "selector": format!("app == 'app-{app}'"),
            "types": ["Ingress", "Egress"],
            "ingress": [
                {"action": "Allow", "protocol": "TCP", "destination": {"ports": [8080]},
                 "source": {"selector": "role == 'client'", "namespaceSelector": "all()"}},
                {"action": "Allow", "protocol": "TCP", "destination": {"ports": [port]}},
            ],
            "egress": [{"action": "Allow"}],
        },
    })
}

/// How many apps, and so tens of policies, a scene of this size has.
pub(super) fn apps(size: usize) -> usize {
    (size / NAMESPACES / PODS_PER_POLICY).clamp(1, MAX_APPS)
}

/// Of which app pod number `pod` is.
pub(super) fn app_of(pod: usize, size: usize) -> usize {
    pod / NAMESPACES % apps(size)
}

impl Scene {
    /// Makes the node, the interfaces (one more than there are pods) and the datastore; starts no agent.
    pub(super) fn build(backend: Backend, size: usize) -> anyhow::Result<Self> {
        let mut scene = Self::bare(backend, size)?;
        scene.add_interfaces()?;
        scene.write_cluster()?;
        for pod in 0..size {
            scene.write_pod(PodId(pod), app_of(pod, size))?;
        }
        for (namespace, app) in (0..NAMESPACES).flat_map(|ns| (0..apps(size)).map(move |app| (ns, app))) {
            scene.manifests.apply(&policy(namespace, app, 9000))?;
        }
        Ok(scene)
    }

    /// A node without pods and an empty datastore.
    pub(super) fn bare(backend: Backend, size: usize) -> anyhow::Result<Self> {
        let lab = Lab::builder().node(NODE, NODE_ADDRESS).build()?;
        let manifests = ManifestDir::create(&lab.dir().join("datastore"))?;
        // The lock file that the lab gives the node's agent.
        let lock = lab.dir().join(format!("{NODE}.xtables.lock"));
        let tools = Tools::new(backend, lab.node(NODE)?.netns(), lock);
        let env = Vec::new();
        Ok(Self { backend, size, manifests, tools, env, pods: Netns::new("the pods", &SYSCTLS)?, lab })
    }

    /// The node's namespace.
    pub(super) fn netns(&self) -> anyhow::Result<&Netns> {
        Ok(self.lab.node(NODE)?.netns())
    }

    /// The pod that has an interface and no manifest.
    pub(super) fn spare(&self) -> PodId {
        PodId(self.size)
    }

    /// Writes a local pod's manifest.
    pub(super) fn write_pod(&mut self, pod: PodId, app: usize) -> anyhow::Result<()> {
        Ok(self.manifests.apply(&pod.manifest(NODE, app))?)
    }

    /// Starts the agent and waits until it has applied everything.
    pub(super) fn start_agent(&mut self) -> anyhow::Result<Control> {
        self.spawn_agent()?;
        let mut control = self.control()?;
        self.explain(control.wait())?;
        Ok(control)
    }

    /// Only starts the agent.
    pub(super) fn spawn_agent(&mut self) -> anyhow::Result<()> {
        let options = AgentOptions {
            datastore: self.manifests.path().to_owned(),
            env: [vec![("FELIX_IPTABLESBACKEND".to_owned(), self.backend.to_string())], self.env.clone()]
                .concat(),
            ..AgentOptions::default()
        };
        Ok(self.lab.start_agent_with(NODE, &options)?)
    }

    /// Ends the agent; the kernel keeps what it has.
    pub(super) fn stop_agent(&mut self) -> anyhow::Result<()> {
        let status = self.lab.stop_agent(NODE)?;
        if status.success() { Ok(()) } else { bail!("the agent ended with {status}") }
    }

    /// A connection to the agent.
    pub(super) fn control(&self) -> anyhow::Result<Control> {
        self.explain(Control::connect(self.lab.agent(NODE)?.socket()))
    }

    /// The agent's process.
    pub(super) fn agent_pid(&self) -> anyhow::Result<u32> {
        Ok(self.lab.agent(NODE)?.pid())
    }

    /// Bytes of all manifests.
    pub(super) fn manifest_bytes(&self) -> anyhow::Result<u64> {
        directory_bytes(self.manifests.path())
    }

    /// An error with the end of the agent's log.
    pub(super) fn explain<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        outcome.with_context(|| {
            let log = self.lab.agent(NODE).map(crate::lab::Agent::log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("the agent's log ends with: {}", lines[lines.len().saturating_sub(5)..].join(" | "))
        })
    }

    /// What is there whatever the pods are.
    pub(super) fn write_cluster(&mut self) -> anyhow::Result<()> {
        self.manifests.apply(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.11"}]},
        }))?;
        self.manifests.apply(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
            "spec": {"cidr": "10.65.0.0/16", "natOutgoing": true},
        }))?;
        for namespace in (0..NAMESPACES).map(|ns| format!("ns-{ns}")) {
            let labels = json!({"kubernetes.io/metadata.name": namespace});
            self.manifests.apply(
                &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
            )?;
        }
        Ok(())
    }

    /// Makes the interfaces anew, as they are before an agent has seen them. Their routes are gone.
    pub(super) fn renew_interfaces(&self) -> anyhow::Result<()> {
        self.netns()?.check("ip", &["link", "delete", "group", GROUP], "")?;
        self.add_interfaces()
    }

    pub(super) fn add_interfaces(&self) -> anyhow::Result<()> {
        let (mut near, mut far) = (String::new(), String::new());
        let peers = self.pods.path().display().to_string();
        for pod in (0..=self.size).map(PodId) {
            let (dev, id) = (pod.interface(), pod.0);
            writeln!(
                near,
                "link add {dev} address ee:ee:ee:ee:ee:ee type veth peer name p{id} netns {peers}"
            )?;
            writeln!(near, "link set {dev} up group {GROUP}")?;
            writeln!(far, "link set p{id} up")?;
        }
        self.netns()?.check("ip", &["-batch", "-"], &near)?;
        self.pods.check("ip", &["-batch", "-"], &far)?;
        self.wait_for_interfaces()
    }

    /// Waits until all are up and the kernel has given them their link-local addresses. An agent that starts before
    /// that sees its interfaces change, which is not what is measured.
    fn wait_for_interfaces(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LINKS;
        let mut before = String::new();
        loop {
            let links = self.netns()?.check("ip", &["-o", "link", "show", "type", "veth"], "")?;
            let addresses = self.netns()?.check("ip", &["-o", "address", "show"], "")?;
            let is_up = links.lines().filter(|l| l.contains(" cali")).all(|l| l.contains(" state UP "));
            if is_up && addresses == before {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the pods' interfaces do not come up");
            }
            before = addresses;
            thread::sleep(SETTLE);
        }
    }
}

fn directory_bytes(path: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in path.read_dir()? {
        total += entry?.metadata()?.len();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pod_is_selected_by_one_of_the_policies() {
        for (size, policies) in [(10, 10), (1000, 50)] {
            assert_eq!(apps(size) * NAMESPACES, policies);
            let used: BTreeSet<(usize, usize)> =
                (0..size).map(|pod| (pod % NAMESPACES, app_of(pod, size))).collect();
            assert_eq!(used.len(), policies);
        }
    }

    #[test]
    fn pods_have_addresses_of_their_own() {
        let all: BTreeSet<Ipv4Addr> = (0..20_000).map(|pod| PodId(pod).address()).collect();
        assert_eq!(all.len(), 20_000);
        assert_eq!(PodId(0).address(), Ipv4Addr::new(10, 65, 1, 0));
    }
}
