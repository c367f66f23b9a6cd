//! `Pod` of Kubernetes' core group, cut down to what makes a workload endpoint: a node holds thousands.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{protocol, tcp};
use crate::net::Protocol;

/// What we read of a Pod, out of its `spec` and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// The node that it runs on; empty until it is scheduled.
    pub node_name: String,
    /// The service account that it runs as, `default` if it names none. Empty for mirror pods only.
    pub service_account_name: String,
    /// Whether it uses the network of its node, and so is no endpoint of its own.
    pub host_network: bool,
    /// Ports of its containers, then of its init containers, that have a name or a host port.
    pub ports: Box<[ContainerPort]>,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// Its addresses: `status.podIPs`, or else `status.podIP`.
    pub pod_ips: Box<[IpAddr]>,
}

/// Where a Pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodPhase {
    /// Not yet started.
    #[default]
    Pending,
    /// Started.
    Running,
    /// All containers ended well (`Completed` is read as this).
    #[serde(alias = "Completed")]
    Succeeded,
    /// All containers ended, one badly.
    Failed,
    /// The node cannot be asked.
    #[serde(other)]
    Unknown,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name; may be empty.
    #[serde(default)]
    pub name: Box<str>,
    /// The port that the container listens on. 0 is never kept.
    #[serde(default)]
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    #[serde(default = "tcp", deserialize_with = "protocol")]
    pub protocol: Protocol,
    /// The port of the host that leads to it.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// The host's address that `host_port` is opened on.
    #[serde(default, rename = "hostIP")]
    pub host_ip: Option<Box<str>>,
}

/// `spec` as written.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    node_name: String,
    service_account_name: String,
    /// The former name of `serviceAccountName`, still taken where that is empty.
    service_account: String,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Container {
    ports: Vec<ContainerPort>,
}

/// `status` as written.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Status {
    phase: PodPhase,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// Annotations of pods that [`crate::convert::pod_endpoint`] and [`crate::defaults`] read.
pub(crate) mod annotation {
    /// The container's id.
    pub(crate) const CONTAINER_ID: &str = "cni.projectcalico.org/containerID";
    /// The pod's address as the CNI plugin wrote it; empty once the plugin has taken it away.
    pub(crate) const POD_IP: &str = "cni.projectcalico.org/podIP";
    /// The pod's addresses, separated by commas.
    pub(crate) const POD_IPS: &str = "cni.projectcalico.org/podIPs";
    /// The pod's addresses as Amazon's CNI plugin writes them; empty once they are taken away.
    pub(crate) const AWS_POD_IPS: &str = "vpc.amazonaws.com/pod-ips";
    /// Floating addresses, a JSON list.
    pub(crate) const FLOATING_IPS: &str = "cni.projectcalico.org/floatingIPs";
    /// Networks that the pod may send from although they are not its own, a JSON list.
    pub(crate) const ALLOWED_SOURCE_PREFIXES: &str = "cni.projectcalico.org/allowedSourcePrefixes";
    /// Set on the mirror of a pod that the kubelet runs from a file of its own.
    pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
    /// Interfaces of the pod as Multus writes them.
    pub(crate) const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
}

/// Whether an annotation is kept in memory.
pub(crate) fn is_useful_annotation(key: &str) -> bool {
    use annotation::{
        ALLOWED_SOURCE_PREFIXES, AWS_POD_IPS, CONTAINER_ID, FLOATING_IPS, MIRROR, NETWORK_STATUS, POD_IP,
        POD_IPS,
    };
    [
        ALLOWED_SOURCE_PREFIXES,
        AWS_POD_IPS,
        CONTAINER_ID,
        FLOATING_IPS,
        MIRROR,
        NETWORK_STATUS,
        POD_IP,
        POD_IPS,
    ]
    .contains(&key)
        || crate::qos::control_of(key).is_some()
}

impl PodSpec {
    pub(crate) fn new(spec: Spec, status: &Status) -> Self {
        let service_account_name = if spec.service_account_name.is_empty() {
            spec.service_account
        } else {
            spec.service_account_name
        };
        let ports = spec.containers.into_iter().chain(spec.init_containers).flat_map(|c| c.ports);
        Self {
            node_name: spec.node_name,
            service_account_name,
            host_network: spec.host_network,
            ports: ports.filter(ContainerPort::is_useful).collect(),
            phase: status.phase,
            pod_ips: status.addresses(),
        }
    }
}

impl ContainerPort {
    fn is_useful(&self) -> bool {
        let is_reachable = !self.name.is_empty() || self.host_port.is_some_and(|port| port != 0);
        self.container_port != 0 && is_reachable
    }
}

impl Status {
    fn addresses(&self) -> Box<[IpAddr]> {
        let all: Box<[IpAddr]> = self.pod_ips.iter().filter_map(|entry| entry.ip.parse().ok()).collect();
        if all.is_empty() { self.pod_ip.parse().into_iter().collect() } else { all }
    }
}
