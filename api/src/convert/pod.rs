//! Pods as workload endpoints.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use sha1::{Digest, Sha1};

use super::profile::{namespace_profile_name, service_account_profile_name};
use crate::endpoint::{EndpointPort, IpNat, WorkloadEndpointSpec};
use crate::kube::pod::annotation;
use crate::kube::{ContainerPort, PodPhase, PodSpec};
use crate::labels::{
    KUBERNETES, NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL,
    SERVICE_ACCOUNT_LABEL_PREFIX,
};
use crate::meta::Metadata;
use crate::net::parse_cidr;
use crate::qos;
use crate::resource::{FieldError, Object};

/// The interface of a pod inside its namespace.
const POD_INTERFACE: &str = "eth0";

/// The endpoint of a pod on its node.
///
/// There is none if the pod uses the host's network, is not scheduled, has ended, or has no address (yet or any
/// more). A pod that is being deleted keeps its endpoint, and so its policy, until its address is gone or it has
/// ended: it may still be serving its last requests.
///
/// Annotations that cannot be read (floating addresses, allowed source prefixes) are left out; [`pod_problems`] tells.
pub fn pod_endpoint(pod: &Object<PodSpec>, interface_prefix: &str) -> Option<Object<WorkloadEndpointSpec>> {
    let spec = &pod.spec;
    if spec.host_network || spec.node_name.is_empty() || has_ended(pod) {
        return None;
    }
    let addresses = addresses(pod);
    if addresses.is_empty() {
        return None;
    }
    let namespace = pod.metadata.namespace_text();
    let name = &pod.metadata.name;
    let annotations = &pod.metadata.annotations;
    let endpoint = WorkloadEndpointSpec {
        orchestrator: KUBERNETES.to_owned(),
        node: spec.node_name.clone(),
        container_id: annotations.get(annotation::CONTAINER_ID).cloned().unwrap_or_default(),
        pod: name.clone(),
        endpoint: POD_INTERFACE.to_owned(),
        service_account_name: spec.service_account_name.clone(),
        ip_nats: floating_addresses(annotations, &addresses),
        ip_networks: addresses.into_iter().map(IpNet::from).collect(),
        profiles: profiles(namespace, &spec.service_account_name),
        interface_name: workload_interface(interface_prefix, namespace, name),
        ports: spec.ports.iter().map(endpoint_port).collect(),
        allow_spoofed_source_prefixes: allowed_prefixes(annotations),
        qos_controls: qos::of_annotations(annotations),
        ..WorkloadEndpointSpec::default()
    };
    Some(Object { metadata: metadata(pod), spec: endpoint })
}

/// Name of the host's end of a pod's interface: the prefix (the first of a list with commas) and 11
/// hexadecimal digits of the SHA-1 of `NAMESPACE.POD`.
pub fn workload_interface(prefix: &str, namespace: &str, pod: &str) -> String {
    const BYTES: usize = 6;
    const DIGITS: usize = 11;
    let digest = Sha1::digest(format!("{namespace}.{pod}"));
    let mut hex = String::new();
    for byte in digest.iter().take(BYTES) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(DIGITS);
    format!("{}{hex}", prefix.split(',').next().unwrap_or_default())
}

/// The phase says so, or the CNI plugin has taken the address away from a pod that is being deleted. The
/// address in the status stays longer than that, so it proves nothing.
fn has_ended(pod: &Object<PodSpec>) -> bool {
    let is_gone = |key| pod.metadata.annotations.get(key).is_some_and(String::is_empty);
    matches!(pod.spec.phase, PodPhase::Succeeded | PodPhase::Failed)
        || pod.metadata.is_terminating() && (is_gone(annotation::POD_IP) || is_gone(annotation::AWS_POD_IPS))
}

/// The first of these that is there: addresses of the status, of the CNI plugin, of Amazon's CNI plugin.
fn addresses(pod: &Object<PodSpec>) -> Vec<IpAddr> {
    if !pod.spec.pod_ips.is_empty() {
        return pod.spec.pod_ips.to_vec();
    }
    let lists = [annotation::POD_IPS, annotation::POD_IP, annotation::AWS_POD_IPS];
    let lists = lists.into_iter().filter_map(|key| pod.metadata.annotations.get(key));
    lists
        .map(|list| list.split(',').filter_map(address).collect::<Vec<_>>())
        .find(|list| !list.is_empty())
        .unwrap_or_default()
}

/// An address, alone or as a network of one.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| parse_cidr(text).ok().map(|net| net.addr()))
}

fn metadata(pod: &Object<PodSpec>) -> Metadata {
    let double = |text: &str| text.replace('-', "--");
    let name = format!(
        "{}-{KUBERNETES}-{}-{POD_INTERFACE}",
        double(&pod.spec.node_name),
        double(&pod.metadata.name)
    );
    let status = pod.metadata.annotations.get_key_value(annotation::NETWORK_STATUS);
    Metadata {
        labels: labels(pod),
        annotations: status.map(|(key, value)| (key.clone(), value.clone())).into_iter().collect(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        generate_name: pod.metadata.generate_name.clone(),
        creation_timestamp: pod.metadata.creation_timestamp.clone(),
        ..Metadata::named(name, Some(pod.metadata.namespace_text()))
    }
}

/// The pod's own labels and those that the system sets. Whoever writes a pod must not choose the labels of its
/// namespace or service account, so labels with those prefixes are dropped.
fn labels(pod: &Object<PodSpec>) -> BTreeMap<String, String> {
    let is_own = |key: &str| {
        !key.starts_with(NAMESPACE_LABEL_PREFIX) && !key.starts_with(SERVICE_ACCOUNT_LABEL_PREFIX)
    };
    let own = pod.metadata.labels.iter().filter(|(key, _)| is_own(key));
    let mut labels: BTreeMap<_, _> = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.insert(NAMESPACE_LABEL.to_owned(), pod.metadata.namespace_text().to_owned());
    labels.insert(ORCHESTRATOR_LABEL.to_owned(), KUBERNETES.to_owned());
    if pod.spec.service_account_name.is_empty() {
        labels.remove(SERVICE_ACCOUNT_LABEL);
    } else {
        labels.insert(SERVICE_ACCOUNT_LABEL.to_owned(), pod.spec.service_account_name.clone());
    }
    labels
}

fn profiles(namespace: &str, account: &str) -> Vec<String> {
    let account = (!account.is_empty()).then(|| service_account_profile_name(namespace, account));
    std::iter::once(namespace_profile_name(namespace)).chain(account).collect()
}

fn endpoint_port(port: &ContainerPort) -> EndpointPort {
    EndpointPort {
        name: port.name.to_string(),
        protocol: port.protocol,
        port: port.container_port,
        host_port: port.host_port.filter(|port| *port != 0),
        host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
    }
}

/// What [`pod_endpoint`] leaves out of annotations, since it cannot be read.
pub fn pod_problems(pod: &Object<PodSpec>) -> Vec<FieldError> {
    let annotations = &pod.metadata.annotations;
    let addresses = addresses(pod);
    let floating =
        list_problems(annotations, annotation::FLOATING_IPS, |text| match text.parse::<IpAddr>() {
            Err(_) => Some(format!("{text:?} is no address")),
            Ok(external) if same_family(&addresses, external).is_none() => {
                Some(format!("the pod has no address of the family of {external}"))
            }
            Ok(_) => None,
        });
    let sources = list_problems(annotations, annotation::ALLOWED_SOURCE_PREFIXES, |text| {
        allowed_prefix(text).is_none().then(|| format!("{text:?} is no network"))
    });
    floating.into_iter().chain(sources).collect()
}

fn list_problems(
    annotations: &BTreeMap<String, String>,
    key: &str,
    problem: impl Fn(&str) -> Option<String>,
) -> Vec<FieldError> {
    let error = |message: String| {
        FieldError::new(format!("metadata.annotations[{key}]"), message + "; it is left out")
    };
    match json_list(annotations, key) {
        None => vec![error("not a JSON list of texts".to_owned())],
        Some(texts) => texts.iter().filter_map(|text| problem(text)).map(error).collect(),
    }
}

/// The entries of an annotation that is a JSON list of texts. None if it is something else.
fn json_list(annotations: &BTreeMap<String, String>, key: &str) -> Option<Vec<String>> {
    match annotations.get(key).map_or("", String::as_str) {
        "" => Some(Vec::new()),
        text => serde_json::from_str(text).ok(),
    }
}

fn same_family(addresses: &[IpAddr], other: IpAddr) -> Option<IpAddr> {
    addresses.iter().find(|own| own.is_ipv4() == other.is_ipv4()).copied()
}

/// Floating addresses, each with the pod's address of its family.
fn floating_addresses(annotations: &BTreeMap<String, String>, addresses: &[IpAddr]) -> Vec<IpNat> {
    let external = json_list(annotations, annotation::FLOATING_IPS).unwrap_or_default();
    let pairs = external.iter().filter_map(|text| text.parse::<IpAddr>().ok()).filter_map(|external_ip| {
        Some(IpNat { internal_ip: same_family(addresses, external_ip)?, external_ip })
    });
    pairs.collect()
}

fn allowed_prefixes(annotations: &BTreeMap<String, String>) -> Vec<IpNet> {
    let prefixes = json_list(annotations, annotation::ALLOWED_SOURCE_PREFIXES).unwrap_or_default();
    prefixes.iter().filter_map(|text| allowed_prefix(text)).collect()
}

fn allowed_prefix(text: &str) -> Option<IpNet> {
    let net = parse_cidr(text).ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| net.trunc())
}

#[cfg(test)]
mod tests;
