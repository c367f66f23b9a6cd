//! Policies of all kinds.

use serde_json::{Map, Value, json};
use tortie_api::net::IpVersion;

use super::dice::Dice;
use super::rule::{Place, Services, rules};
use super::words;

const CALICO: &str = "projectcalico.org/v3";

pub(super) fn policy(dice: &mut Dice) -> Value {
    match dice.below(20) {
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
