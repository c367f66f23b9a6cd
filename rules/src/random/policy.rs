//! Policies of all kinds.

use serde_json::{Map, Value, json};
use tortie_api::net::IpVersion;

use super::dice::Dice;
use super::rule::{Place, Services, rules};
use super::words;

const CALICO: &str = "projectcalico.org/v3";

pub(super) fn policy(dice: &mut Dice) -> Value {
    match dice.below(22) {
        20 => cluster_wide(dice),
        21 => admin(dice),
        0..=7 => calico(dice, "NetworkPolicy"),
        8..=13 => calico(dice, "GlobalNetworkPolicy"),
        14..=17 => kubernetes(dice, "networking.k8s.io/v1", "NetworkPolicy"),
        18 => {
            let kind = *dice.pick(&["StagedNetworkPolicy", "StagedGlobalNetworkPolicy"]);
            calico(dice, kind)
        }
        _ => kubernetes(dice, CALICO, "StagedKubernetesNetworkPolicy"),
    }
}

fn metadata(dice: &mut Dice, is_global: bool) -> Value {
    let name = *dice.pick(&words::POLICIES);
    if is_global {
        json!({"name": name})
    } else {
        json!({"name": name, "namespace": dice.pick(&words::NAMESPACES)})
    }
}

fn calico(dice: &mut Dice, kind: &str) -> Value {
    let is_global = kind.contains("Global");
    let metadata = metadata(dice, is_global);
    let mut spec = Map::new();
    let mut put = |key: &str, value: Value| spec.insert(key.to_owned(), value);
    if dice.chance(50) {
        let tier =
            dice.weighed(&[(6, "default"), (6, "early"), (4, "late"), (1, "nowhere"), (1, "kube-admin")]);
        put("tier", json!(tier));
    }
    if dice.chance(60) {
        put("order", json!(*dice.pick(&[1.0, 1.5, 1000.0, -3.0])));
    }
    if dice.chance(60) {
        put("selector", json!(words::selector(dice)));
    }
    if dice.chance(10) {
        put("serviceAccountSelector", json!(words::selector(dice)));
    }
    if is_global && dice.chance(20) {
        put("namespaceSelector", json!(words::selector(dice)));
    }
    let services = if is_global { Services::WithNamespace } else { Services::Any };
    for (key, is_ingress) in [("ingress", true), ("egress", false)] {
        if dice.chance(70) {
            put(key, json!(rules(dice, Place { is_ingress, services })));
        }
    }
    if dice.chance(50) {
        put("types", json!(dice.pick(&[&["Ingress"][..], &["Egress"], &["Egress", "Ingress"]])));
    }
    if is_global {
        host_flags(dice, &mut spec);
    }
    json!({"apiVersion": CALICO, "kind": kind, "metadata": metadata, "spec": spec})
}

/// Which traffic of host endpoints the policy is for.
fn host_flags(dice: &mut Dice, spec: &mut Map<String, Value>) {
    match dice.below(8) {
        0 | 1 => {}
        2 if spec.get("types").is_none_or(|types| types == &json!(["Ingress"])) => {
            spec.remove("egress");
            spec.insert("preDNAT".to_owned(), json!(true));
        }
        3 => {
            spec.insert("doNotTrack".to_owned(), json!(true));
        }
        _ => return,
    }
    spec.insert("applyOnForward".to_owned(), json!(true));
}

fn kubernetes(dice: &mut Dice, api_version: &str, kind: &str) -> Value {
    let metadata = metadata(dice, false);
    let mut spec = Map::from_iter([("podSelector".to_owned(), words::label_selector(dice))]);
    for (key, peers) in [("ingress", "from"), ("egress", "to")] {
        if dice.chance(65) {
            let count = dice.below(3);
            let rules = dice.list(count, |d| kube_rule(d, peers));
            spec.insert(key.to_owned(), json!(rules));
        }
    }
    if dice.chance(60) {
        let types = *dice.pick(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]);
        spec.insert("policyTypes".to_owned(), json!(types));
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn kube_rule(dice: &mut Dice, peers_key: &str) -> Value {
    let mut rule = Map::new();
    if dice.chance(70) {
        let count = dice.within(1, 3);
        rule.insert(peers_key.to_owned(), json!(dice.list(count, peer)));
    }
    if dice.chance(60) {
        let count = *dice.pick(&[1, 2, 4, 20]);
        rule.insert("ports".to_owned(), json!(dice.list(count, kube_port)));
    }
    Value::Object(rule)
}

fn peer(dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => json!({"podSelector": words::label_selector(dice)}),
        1 => json!({"namespaceSelector": words::label_selector(dice)}),
        2 => json!({
            "podSelector": words::label_selector(dice),
            "namespaceSelector": words::label_selector(dice),
        }),
        _ => ip_block(dice),
    }
}

/// A block and parts of it that are not meant.
fn ip_block(dice: &mut Dice) -> Value {
    let version = words::version(dice);
    let block = words::net(dice, version, true);
    let longest = if version == IpVersion::V4 { 32 } else { 128 };
    let count = dice.below(3);
    let except = dice.list(count, |d| words::net(d, version, false));
    let except: Vec<String> = except
        .iter()
        .filter(|net| block.contains(*net) && **net != block && block.prefix_len() < longest)
        .map(ToString::to_string)
        .collect();
    json!({"ipBlock": {"cidr": block.to_string(), "except": except}})
}

fn kube_port(dice: &mut Dice) -> Value {
    let protocol = words::port_protocol(dice);
    match dice.below(8) {
        0 => json!({"protocol": protocol}),
        1 => json!({"protocol": protocol, "port": "http"}),
        2 | 3 => {
            let first = words::real_port(dice);
            let last = first.saturating_add(u16::try_from(dice.below(4)).unwrap_or(0));
            json!({"protocol": protocol, "port": first, "endPort": last})
        }
        4 => json!({"port": words::real_port(dice)}),
        _ => json!({"protocol": protocol, "port": words::real_port(dice)}),
    }
}

fn named(dice: &mut Dice) -> Value {
    json!({"name": dice.pick(&words::POLICIES)})
}

fn cluster_wide(dice: &mut Dice) -> Value {
    let (ingress, egress) = (dice.below(3), dice.below(3));
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": named(dice),
        "spec": {
            "tier": dice.pick(&["Admin", "Baseline"]),
            "priority": dice.below(3),
            "subject": pods_or_namespaces(dice),
            "ingress": dice.list(ingress, |d| cluster_wide_rule(d, "from")),
            "egress": dice.list(egress, |d| cluster_wide_rule(d, "to")),
        },
    })
}

fn cluster_wide_rule(dice: &mut Dice, peers_key: &str) -> Value {
    let action = *dice.pick(&["Accept", "Deny", "Pass"]);
    let mut rule = json!({"action": action, peers_key: cluster_wide_peers(dice, peers_key == "to")});
    if dice.chance(60) {
        let count = dice.within(1, 3);
        rule["protocols"] = json!(dice.list(count, |d| {
            let protocol = words::port_protocol(d).to_lowercase();
            let first = words::real_port(d);
            match d.below(5) {
                // Networks, which egress rules may name, have no named ports.
                0 if peers_key == "from" => json!({"destinationNamedPort": "http"}),
                1 => {
                    let range = json!({"start": first.min(65000), "end": first.min(65000) + 3});
                    json!({protocol: {"destinationPort": {"range": range}}})
                }
                _ => json!({protocol: {"destinationPort": {"number": first}}}),
            }
        }));
    }
    rule
}

fn pods_or_namespaces(dice: &mut Dice) -> Value {
    if dice.chance(50) {
        json!({"namespaces": words::label_selector(dice)})
    } else {
        let (namespaces, pods) = (words::label_selector(dice), words::label_selector(dice));
        json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}})
    }
}

/// Networks of both families may stand in one list.
fn cluster_wide_peers(dice: &mut Dice, may_be_networks: bool) -> Vec<Value> {
    let count = dice.within(1, 2);
    dice.list(count, |d| {
        if may_be_networks && d.chance(40) {
            let count = d.within(1, 3);
            let networks = d.list(count, |d| {
                let version = words::version(d);
                words::net(d, version, true).to_string()
            });
            json!({"networks": networks})
        } else if may_be_networks && d.chance(20) {
            json!({"nodes": words::label_selector(d)})
        } else {
            pods_or_namespaces(d)
        }
    })
}

fn admin(dice: &mut Dice) -> Value {
    let (ingress, egress) = (dice.below(3), dice.below(3));
    let is_baseline = dice.chance(40);
    let mut spec = json!({
        "subject": pods_or_namespaces(dice),
        "ingress": dice.list(ingress, |d| admin_rule(d, "from", is_baseline)),
        "egress": dice.list(egress, |d| admin_rule(d, "to", is_baseline)),
    });
    let (kind, metadata) = if is_baseline {
        ("BaselineAdminNetworkPolicy", json!({"name": "default"}))
    } else {
        spec["priority"] = json!(dice.below(3));
        ("AdminNetworkPolicy", named(dice))
    };
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn admin_rule(dice: &mut Dice, peers_key: &str, is_baseline: bool) -> Value {
    let action = *dice.pick(if is_baseline { &["Allow", "Deny"][..] } else { &["Allow", "Deny", "Pass"] });
    let mut rule = json!({"action": action, peers_key: cluster_wide_peers(dice, peers_key == "to")});
    if dice.chance(60) {
        let count = dice.within(1, 3);
        rule["ports"] = json!(dice.list(count, |d| {
            let (protocol, first) = (words::port_protocol(d), words::real_port(d));
            match d.below(5) {
                // Networks, which egress rules may name, have no named ports.
                0 if peers_key == "from" => json!({"namedPort": "http"}),
                1 => {
                    let first = first.min(65000);
                    json!({"portRange": {"protocol": protocol, "start": first, "end": first + 3}})
                }
                _ => json!({"portNumber": {"protocol": protocol, "port": first}}),
            }
        }));
    }
    rule
}
