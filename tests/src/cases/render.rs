//! A case's state as an API server would hold it: the manifests that the agents read.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::format::Pod;
use super::state::State;
use crate::manifests::ObjectKey;

/// The group of AdminNetworkPolicy and BaselineAdminNetworkPolicy.
const ADMIN_GROUP: &str = "policy.networking.k8s.io";
/// Orders of the tiers that those two kinds live in (Calico's choice).
const ADMIN_TIERS: [(&str, &str, u32); 2] = [
    ("AdminNetworkPolicy", "adminnetworkpolicy", 1_000),
    ("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicy", 10_000_000),
];

/// All objects of the state: nodes, namespaces, service accounts, pods, the IP pools that the addresses come from,
/// tiers that a kind needs, and what the case applied.
pub fn objects(state: &State) -> Vec<Value> {
    let mut all: Vec<Value> = state.nodes.iter().map(|n| node(&n.name, &n.labels, n.ip)).collect();
    all.extend(
        state.namespaces.iter().map(|(name, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        }),
    );
    all.extend(state.accounts.iter().map(|((namespace, name), labels)| {
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    }));
    all.extend(state.pods.values().map(|p| pod(state, p)));
    all.extend(pool(state, "pool-v4", "10.65.0.0/16", 26, IpAddr::is_ipv4));
    all.extend(pool(state, "pool-v6", "fd00::a41:0/112", 122, IpAddr::is_ipv6));
    all.extend(admin_tiers(state));
    all.extend(state.objects.values().cloned());
    all
}

fn node(name: &str, labels: &super::format::Labels, ip: IpAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDRs": []},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]},
    })
}

fn pod(state: &State, pod: &Pod) -> Value {
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|p| json!({"name": p.name, "protocol": p.protocol, "containerPort": p.port}))
        .collect();
    let host = state.nodes.iter().find(|node| node.name == pod.node).map(|node| node.ip);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": pod.labels,
            "annotations": {"cni.projectcalico.org/ipAddrs": format!("[\"{}\"]", pod.ip)},
        },
        "spec": {
            "nodeName": pod.node,
            "serviceAccountName": pod.serviceaccount,
            "containers": [{"name": "serve", "image": "none", "ports": ports}],
        },
        "status": {"phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}], "hostIP": host},
    })
}

/// The pool of one family, if a pod has an address of it.
fn pool(state: &State, name: &str, cidr: &str, block: u8, family: fn(&IpAddr) -> bool) -> Option<Value> {
    let used = state.pods.values().any(|pod| family(&pod.ip));
    used.then(|| {
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": {
                "cidr": cidr,
                "natOutgoing": false,
                "ipipMode": "Never",
                "vxlanMode": "Never",
                "blockSize": block,
            },
        })
    })
}

/// The tiers of kinds that are applied and whose tier does not exist by itself.
fn admin_tiers(state: &State) -> impl Iterator<Item = Value> {
    let needed =
        |kind: &str| state.objects.keys().any(|k: &ObjectKey| k.group == ADMIN_GROUP && k.kind == kind);
    ADMIN_TIERS.into_iter().filter(move |(kind, _, _)| needed(kind)).map(|(_, name, order)| {
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "Tier",
            "metadata": {"name": name},
            "spec": {"order": order, "defaultAction": "Pass"},
        })
    })
}
