//! `Service` of Kubernetes' core group and `EndpointSlice` of `discovery.k8s.io/v1`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{protocol, tcp};
use crate::net::{IntOrString, Protocol};

/// What we read of a Service's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means `ClusterIP`.
    #[serde(rename = "type")]
    pub service_type: String,
    /// The address inside the cluster; `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// The addresses inside the cluster, by family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Further addresses that lead to it.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind it.
    pub selector: BTreeMap<String, String>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name; may be empty for a single port.
    #[serde(default)]
    pub name: String,
    /// TCP, UDP or SCTP.
    #[serde(default = "tcp", deserialize_with = "protocol")]
    pub protocol: Protocol,
    /// The port of the service.
    pub port: u16,
    /// The port of the pods; the same as `port` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// The port of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// What we read of an EndpointSlice: its own top-level fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSliceSpec {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Who answers for the service.
    pub endpoints: Vec<EndpointSpec>,
    /// The ports that they answer on.
    pub ports: Vec<EndpointPortSpec>,
}

/// One that answers for a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// Its addresses. Names (address type `FQDN`) are left out.
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<IpAddr>,
}

/// A port that the endpoints of a slice answer on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EndpointPortSpec {
    /// Its name; may be empty.
    #[serde(default)]
    pub name: String,
    /// TCP, UDP or SCTP.
    #[serde(default = "tcp", deserialize_with = "protocol")]
    pub protocol: Protocol,
    /// The port; absent means all ports.
    #[serde(default)]
    pub port: Option<u16>,
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}
