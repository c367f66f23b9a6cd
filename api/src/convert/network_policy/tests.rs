use serde_json::{Value, json};

use super::*;
use crate::kube::{LabelSelector, NetworkPolicySpec as KubeSpec, Requirement};
use crate::meta::Metadata;

fn convert(spec: Value) -> (NetworkPolicySpec, Vec<String>) {
    let spec: KubeSpec = serde_json::from_value(spec).unwrap();
    network_policy(&Object { metadata: Metadata::named("a", Some("shop")), spec })
}

/// The conversion as JSON, without problems.
fn converted(spec: Value) -> Value {
    let (spec, problems) = convert(spec);
    assert_eq!(problems, [""; 0]);
    serde_json::to_value(spec).unwrap()
}

fn ingress(rules: &Value) -> Value {
    converted(json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules}))["ingress"].clone()
}

#[test]
fn a_default_deny_selects_all_pods_and_has_no_rules() {
    assert_eq!(
        converted(json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        json!({
            "tier": "default",
            "order": 1000.0,
            "selector": "projectcalico.org/orchestrator == 'k8s'",
            "types": ["Ingress"],
        })
    );
}

#[test]
fn types_are_those_that_are_named_or_else_ingress() {
    assert_eq!(converted(json!({"podSelector": {}}))["types"], json!(["Ingress"]));
    let both = json!({"podSelector": {}, "policyTypes": ["Egress", "Ingress", "Egress"]});
    assert_eq!(converted(both)["types"], json!(["Ingress", "Egress"]));
}

#[test]
fn label_selectors_become_clauses_in_order() {
    let selector = json!({
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [
            {"key": "z", "operator": "NotIn", "values": ["x", "w"]},
            {"key": "y", "operator": "In", "values": ["v"]},
            {"key": "x", "operator": "Exists"},
            {"key": "w", "operator": "DoesNotExist"},
        ],
    });
    assert_eq!(
        converted(json!({"podSelector": selector}))["selector"],
        "projectcalico.org/orchestrator == 'k8s' && a == '1' && b == '2' && z not in { 'x', 'w' } && y in { 'v' } && \
         has(x) && ! has(w)"
    );
}

#[test]
fn a_peer_is_pods_of_its_own_or_of_selected_namespaces() {
    let rules = ingress(&json!([{"from": [
        {"podSelector": {"matchLabels": {"a": "1"}}},
        {"namespaceSelector": {}},
        {"namespaceSelector": {"matchLabels": {"n": "1"}}, "podSelector": {"matchLabels": {"a": "1"}}},
    ]}]));
    let own = "projectcalico.org/orchestrator == 'k8s' && a == '1'";
    assert_eq!(
        rules,
        json!([
            {"action": "Allow", "source": {"selector": own}},
            {"action": "Allow", "source": {"selector": "projectcalico.org/orchestrator == 'k8s'", "namespaceSelector": "all()"}},
            {"action": "Allow", "source": {"selector": own, "namespaceSelector": "n == '1'"}},
        ])
    );
}

#[test]
fn a_block_is_masked() {
    assert_eq!(
        ingress(&json!([{"from": [{"ipBlock": {"cidr": "10.65.1.33/24", "except": ["10.65.1.9/30"]}}]}])),
        json!([{"action": "Allow", "source": {"nets": ["10.65.1.0/24"], "notNets": ["10.65.1.8/30"]}}])
    );
}

#[test]
fn there_is_a_rule_for_every_protocol_and_peer() {
    let spec = json!({
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [{
            "ports": [
                {"protocol": "UDP", "port": 53},
                {"port": 80},
                {"port": 90, "endPort": 95},
                {"protocol": "SCTP"},
                {"protocol": "SCTP", "port": 7},
                {"port": 81},
                {"port": "http"},
            ],
            "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"ipBlock": {"cidr": "fd00::/8"}}],
        }],
    });
    let rule = |protocol: &str, net: &str, ports: Value| {
        let mut rule = json!({"action": "Allow", "protocol": protocol, "destination": {"nets": [net]}});
        if ports != json!([]) {
            rule["destination"]["ports"] = ports;
        }
        rule
    };
    assert_eq!(
        converted(spec)["egress"],
        json!([
            rule("SCTP", "10.0.0.0/8", json!([])),
            rule("SCTP", "fd00::/8", json!([])),
            rule("TCP", "10.0.0.0/8", json!(["http", "80:81", "90:95"])),
            rule("TCP", "fd00::/8", json!(["http", "80:81", "90:95"])),
            rule("UDP", "10.0.0.0/8", json!([53])),
            rule("UDP", "fd00::/8", json!([53])),
        ])
    );
}

#[test]
fn ports_are_those_of_the_destination_in_both_directions() {
    let rules = ingress(&json!([{"ports": [{"port": 80}], "from": [{"podSelector": {}}]}]));
    assert_eq!(rules[0]["destination"], json!({"ports": [80]}));
    assert_eq!(rules[0]["source"], json!({"selector": "projectcalico.org/orchestrator == 'k8s'"}));
}

#[test]
fn an_open_rule_allows_everything_and_an_empty_port_all_of_tcp() {
    assert_eq!(ingress(&json!([{}])), json!([{"action": "Allow"}]));
    assert_eq!(ingress(&json!([{"ports": [{}]}])), json!([{"action": "Allow", "protocol": "TCP"}]));
}

#[test]
fn egress_rules_of_a_policy_for_ingress_are_not_applied() {
    let (spec, problems) = convert(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}));
    assert_eq!((spec.egress.len(), spec.types), (0, vec![PolicyType::Ingress]));
    assert_eq!(problems, ["spec.egress: not applied, since policyTypes does not name Egress"]);
}

#[test]
fn a_rule_that_cannot_be_converted_allows_nothing() {
    let (spec, problems) = convert(json!({"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": "not a block"}}]},
        {"from": [{}]},
        {"ports": [{"port": 0}]},
        {"ports": [{"port": 80, "endPort": 79}]},
        {"ports": [{"port": "http", "endPort": 79}]},
        {"from": [{"podSelector": {"matchLabels": {"a": "x' || all() || a == 'x"}}}]},
        {"from": [{"podSelector": {"matchLabels": {"a": "1"}}}]},
    ]}));
    assert_eq!(spec.ingress.len(), 1);
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert_eq!(
        problems[0],
        "spec.ingress[0]: \"not a block\" is no IP address and no CIDR like 10.0.0.0/8 or fd00::/8; the rule is left out"
    );
}

#[test]
fn a_policy_whose_pods_cannot_be_told_is_for_all_pods() {
    let requirement =
        Requirement { key: "no label".into(), operator: crate::kube::Operator::Exists, values: vec![] };
    let pod_selector = LabelSelector { match_expressions: vec![requirement], ..LabelSelector::default() };
    let spec = KubeSpec { pod_selector, ..KubeSpec::default() };
    let (spec, problems) = network_policy(&Object { metadata: Metadata::named("a", Some("shop")), spec });
    assert_eq!(spec.selector.unwrap().source(), "projectcalico.org/orchestrator == 'k8s'");
    assert_eq!(problems.len(), 1);
}
