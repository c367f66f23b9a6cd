//! The objects of a cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};
use tortie_api::net::IpVersion;

use super::dice::Dice;
use super::rule::{Place, Services, rules};
use super::{policy, words};

/// The node whose rules are compiled.
pub const NODE: &str = "node-a";
/// Another node.
pub const OTHER_NODE: &str = "node-b";
/// The interface by which nodes reach each other and most of the outside.
pub const UPLINK: &str = "eth0";
/// Another interface of [`NODE`].
pub const SIDE_LINK: &str = "eth1";

/// The interfaces of [`NODE`] that are no workload's, with their addresses.
pub fn interfaces() -> [(&'static str, [IpAddr; 2]); 2] {
    let v6 = |net, last| Ipv6Addr::new(net, 0, 0, 0, 0, 0, 0, last).into();
    [
        (UPLINK, [Ipv4Addr::new(192, 168, 0, 1).into(), v6(0xfd01, 1)]),
        (SIDE_LINK, [Ipv4Addr::new(172, 16, 0, 1).into(), v6(0xfd02, 1)]),
    ]
}

const CALICO: &str = "projectcalico.org/v3";

/// The manifests of a random cluster: no two of the same key.
pub fn cluster(seed: u64) -> Vec<Value> {
    let mut dice = Dice::new(seed);
    let dice = &mut dice;
    let mut all =
        vec![node(dice, NODE, 1), node(dice, OTHER_NODE, 2), pool("10.65.0.0/16"), pool("fd00::/64")];
    for name in words::NAMESPACES {
        // A namespace that is not known closes its pods.
        if dice.chance(95) {
            all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": words::labels(dice)}}));
        }
        for account in ["default", words::ACCOUNTS[0]] {
            let metadata = json!({"name": account, "namespace": name, "labels": words::labels(dice)});
            all.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
        }
    }
    let count = dice.within(3, 7);
    all.extend((0..count).map(|number| pod(dice, number)));
    let count = dice.below(3);
    all.extend((0..count).map(|number| workload(dice, number)));
    for name in words::PROFILES {
        if dice.chance(50) {
            all.push(profile(dice, name));
        }
    }
    all.extend((0..dice.below(3)).map(|number| network_set(dice, number)).collect::<Vec<_>>());
    all.extend(dice.chance(30).then(|| far_host_endpoint(dice)));
    if dice.chance(45) {
        let count = dice.within(1, 3);
        all.extend((0..count).map(|number| host_endpoint(dice, number)));
    }
    all.extend((0..dice.below(3)).map(|number| slice(dice, number)).collect::<Vec<_>>());
    // The last of the tiers is one that policies name and nobody makes.
    for name in &words::TIERS[..2] {
        if dice.chance(85) {
            all.push(tier(dice, name));
        }
    }
    let count = dice.within(1, 9);
    all.extend((0..count).map(|_| policy::policy(dice)));
    without_repetition(all)
}

/// The first of each key.
fn without_repetition(manifests: Vec<Value>) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    let key = |m: &Value| {
        let text = |pointer| m.pointer(pointer).map(ToString::to_string).unwrap_or_default();
        [text("/apiVersion"), text("/kind"), text("/metadata/namespace"), text("/metadata/name")]
    };
    manifests.into_iter().filter(|manifest| seen.insert(key(manifest))).collect()
}

fn node(dice: &mut Dice, name: &str, last: u8) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": words::labels(dice)},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.168.0.{last}")},
            {"type": "InternalIP", "address": format!("fd01::{last}")},
        ]},
    })
}

fn pool(cidr: &str) -> Value {
    let name = if cidr.contains(':') { "v6" } else { "v4" };
    json!({"apiVersion": CALICO, "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr}})
}

/// Addresses of one or both families, at times several of one.
fn addresses(dice: &mut Dice) -> Vec<String> {
    let versions: &[IpVersion] = match dice.below(10) {
        0..=2 => &[IpVersion::V4],
        3 => &[IpVersion::V6],
        4 => &[IpVersion::V4, IpVersion::V4, IpVersion::V6],
        _ => &[IpVersion::V4, IpVersion::V6],
    };
    versions.iter().map(|version| words::pod_address(dice, *version).to_string()).collect()
}

fn pod(dice: &mut Dice, number: usize) -> Value {
    let namespace = *dice.pick(&words::NAMESPACES);
    let ips: Vec<Value> = addresses(dice).into_iter().map(|ip| json!({"ip": ip})).collect();
    let count = dice.below(4);
    let ports = dice.list(count, |d| {
        let name = *d.pick(&words::PORT_NAMES[..2]);
        json!({"name": name, "protocol": words::port_protocol(d), "containerPort": words::real_port(d)})
    });
    let mut metadata =
        json!({"name": format!("pod-{number}"), "namespace": namespace, "labels": words::labels(dice)});
    let mut phase = "Running";
    match dice.below(30) {
        0 => phase = "Succeeded",
        1 => metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        2 => {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            metadata["annotations"] = json!({"cni.projectcalico.org/podIP": ""});
        }
        3 => metadata["labels"]["pcns.env"] = json!("db"),
        _ => {}
    }
    let account = if dice.chance(50) { "default" } else { *dice.pick(&words::ACCOUNTS) };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": if dice.chance(70) { NODE } else { OTHER_NODE },
            "serviceAccountName": account,
            "hostNetwork": dice.chance(3),
            "containers": [{"name": "c", "image": "none", "ports": ports}],
        },
        "status": {"phase": phase, "podIPs": ips},
    })
}

/// An endpoint that no pod stands for, with profiles of its own.
fn workload(dice: &mut Dice, number: usize) -> Value {
    let namespace = *dice.pick(&words::NAMESPACES);
    let own = format!("kns.{namespace}");
    let mut profiles: Vec<&str> = Vec::new();
    for name in
        [words::PROFILES[0], words::PROFILES[1], own.as_str(), "projectcalico-default-allow", "missing"]
    {
        if dice.chance(if name == "missing" { 5 } else { 45 }) {
            profiles.push(name);
        }
    }
    let count = dice.below(3);
    let ports = dice.list(count, |d| {
        json!({"name": d.pick(&words::PORT_NAMES), "protocol": words::port_protocol(d), "port": words::real_port(d)})
    });
    json!({
        "apiVersion": CALICO,
        "kind": "WorkloadEndpoint",
        "metadata": {"name": format!("own-{number}"), "namespace": namespace, "labels": words::labels(dice)},
        "spec": {
            "orchestrator": "cni",
            "node": if dice.chance(80) { NODE } else { OTHER_NODE },
            "workload": format!("w{number}"),
            "endpoint": "eth0",
            "interfaceName": format!("cali{number:04}"),
            "ipNetworks": addresses(dice),
            "profiles": profiles,
            "ports": ports,
        },
    })
}

fn profile(dice: &mut Dice, name: &str) -> Value {
    let place = |is_ingress| Place { is_ingress, services: Services::None };
    json!({
        "apiVersion": CALICO,
        "kind": "Profile",
        "metadata": {"name": name},
        "spec": {
            "ingress": rules(dice, place(true)),
            "egress": rules(dice, place(false)),
            "labelsToApply": words::labels(dice),
        },
    })
}

fn network_set(dice: &mut Dice, number: usize) -> Value {
    let mut metadata = json!({"name": format!("set-{number}"), "labels": words::labels(dice)});
    let kind = if dice.chance(50) {
        metadata["namespace"] = json!(dice.pick(&words::NAMESPACES));
        "NetworkSet"
    } else {
        "GlobalNetworkSet"
    };
    let count = dice.within(1, 5);
    let nets = dice.list(count, |d| {
        let version = words::version(d);
        words::net(d, version, true).to_string()
    });
    json!({"apiVersion": CALICO, "kind": kind, "metadata": metadata, "spec": {"nets": nets}})
}

/// Of this node: of one interface by name or address, or of all.
fn host_endpoint(dice: &mut Dice, number: usize) -> Value {
    let interface = *dice.pick(&[UPLINK, SIDE_LINK, "*", ""]);
    let own = interfaces()[dice.below(2)].1;
    let mut expected = Vec::new();
    if interface.is_empty() || dice.chance(50) {
        expected.push(dice.pick(&own).to_string());
    }
    let mut profiles = Vec::new();
    for profile in [words::PROFILES[0], "projectcalico-default-allow"] {
        if dice.chance(40) {
            profiles.push(profile);
        }
    }
    json!({
        "apiVersion": CALICO,
        "kind": "HostEndpoint",
        "metadata": {"name": format!("host-{number}"), "labels": words::labels(dice)},
        "spec": {
            "node": NODE,
            "interfaceName": interface,
            "expectedIPs": expected,
            "profiles": profiles,
            "ports": [{"name": "http", "protocol": "TCP", "port": words::real_port(dice)}],
        },
    })
}

/// Of the other node: here it only counts in selectors.
fn far_host_endpoint(dice: &mut Dice) -> Value {
    let addresses = addresses(dice);
    json!({
        "apiVersion": CALICO,
        "kind": "HostEndpoint",
        "metadata": {"name": "far-host", "labels": words::labels(dice)},
        "spec": {
            "node": OTHER_NODE,
            "interfaceName": UPLINK,
            "expectedIPs": addresses,
            "profiles": [words::PROFILES[0]],
            "ports": [{"name": "http", "protocol": "TCP", "port": words::real_port(dice)}],
        },
    })
}

fn slice(dice: &mut Dice, number: usize) -> Value {
    let version = words::version(dice);
    let count = dice.within(1, 3);
    let endpoints = dice.list(count, |d| {
        json!({"addresses": [words::address(d, version).to_string()], "conditions": {"ready": d.chance(50)}})
    });
    let count = dice.within(0, 3);
    let ports: Vec<Value> = (0..count)
        .map(|port| {
            json!({"name": format!("p{port}"), "protocol": words::port_protocol(dice), "port": words::real_port(dice)})
        })
        .collect();
    let service = *dice.pick(&words::SERVICES);
    let labels = Map::from_iter([("kubernetes.io/service-name".to_owned(), json!(service))]);
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": format!("slice-{number}"), "namespace": dice.pick(&words::NAMESPACES), "labels": labels},
        "addressType": if version == IpVersion::V4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn tier(dice: &mut Dice, name: &str) -> Value {
    let mut spec = Map::new();
    if dice.chance(75) {
        spec.insert("order".to_owned(), json!(*dice.pick(&[1.0, 1000.0, 1_000_000.0, 2_000_000.0])));
    }
    if dice.chance(60) {
        spec.insert("defaultAction".to_owned(), json!(*dice.pick(&["Pass", "Deny"])));
    }
    json!({"apiVersion": CALICO, "kind": "Tier", "metadata": {"name": name}, "spec": spec})
}
