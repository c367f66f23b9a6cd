//! `WorkloadEndpoint` and `HostEndpoint` of `projectcalico.org/v3`: the interfaces that policy is applied to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::{Protocol, net_list};

/// A named port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPort {
    /// What rules call it. Empty for a port that is only listed for its `host_port`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port that the workload listens on, 1 to 65535.
    pub port: u16,
    /// The port of the host that leads to it. Workloads only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The host's address that `host_port` is opened on; any if absent. Workloads only.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// A floating address of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpNat {
    /// The workload's own address.
    #[serde(rename = "internalIP")]
    pub internal_ip: IpAddr,
    /// The address by which it is also reached.
    #[serde(rename = "externalIP")]
    pub external_ip: IpAddr,
}

/// Specification of a `WorkloadEndpoint`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadEndpointSpec {
    /// Who started the workload: `k8s`, `cni`, `libnetwork`, `openstack`.
    pub orchestrator: String,
    /// The workload's name where the orchestrator has no pods.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// The node that it runs on.
    pub node: String,
    /// The container's id.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The pod's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The interface's name inside the workload.
    pub endpoint: String,
    /// The service account that the workload runs as.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Its addresses, as /32 and /128 networks.
    #[serde(with = "net_list", skip_serializing_if = "Vec::is_empty")]
    pub ip_networks: Vec<IpNet>,
    /// Its floating addresses.
    #[serde(rename = "ipNATs", skip_serializing_if = "Vec::is_empty")]
    pub ip_nats: Vec<IpNat>,
    /// Its gateway for IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// Its gateway for IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// Names of its profiles, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Name of the host's end of its interface.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// Its MAC address, six bytes as `aa:bb:cc:dd:ee:ff`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its named ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    /// Networks that it may send from although they are not its own.
    #[serde(with = "net_list", skip_serializing_if = "Vec::is_empty")]
    pub allow_spoofed_source_prefixes: Vec<IpNet>,
    /// Quality of service, by control. Kept as written; [`Qos::read`](crate::qos::Qos::read) makes sense of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub qos_controls: BTreeMap<String, serde_json::Value>,
}

/// The `interfaceName` that stands for all interfaces of a host.
pub const ANY_INTERFACE: &str = "*";

/// Specification of a `HostEndpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostEndpointSpec {
    /// The node that the interface belongs to.
    pub node: String,
    /// The interface, or [`ANY_INTERFACE`]. If it is empty, `expected_ips` find it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// Its addresses: what selectors of rules resolve to.
    #[serde(rename = "expectedIPs", skip_serializing_if = "Vec::is_empty")]
    pub expected_ips: Vec<IpAddr>,
    /// Names of its profiles, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Its named ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
}
