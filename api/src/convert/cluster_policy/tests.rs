use serde_json::{Value, json};

use super::*;
use crate::resource::Resource;

fn read(api: &str, kind: &str, spec: &Value) -> Resource {
    let name = if kind == "BaselineAdminNetworkPolicy" { "default" } else { "a" };
    let value = json!({
        "apiVersion": format!("policy.networking.k8s.io/{api}"),
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    Resource::from_value(&value).unwrap_or_else(|error| panic!("{error}"))
}

/// The conversion as JSON, and what was noted.
fn convert(api: &str, kind: &str, spec: &Value) -> (Value, Vec<String>) {
    let (spec, notes) = match read(api, kind, spec) {
        Resource::ClusterNetworkPolicy(policy) => cluster_network_policy(&policy),
        Resource::AdminNetworkPolicy(policy) => admin_network_policy(&policy),
        Resource::BaselineAdminNetworkPolicy(policy) => baseline_admin_network_policy(&policy),
        other => panic!("{other:?}"),
    };
    (serde_json::to_value(spec).unwrap(), notes)
}

/// The rules that a ClusterNetworkPolicy with these rules converts to.
fn rules(direction: &str, rules: &Value) -> (Value, Vec<String>) {
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, direction: rules});
    let (converted, notes) = convert("v1alpha2", "ClusterNetworkPolicy", &spec);
    (converted[direction].clone(), notes)
}

const ALL_PODS: &str = "projectcalico.org/orchestrator == 'k8s'";

#[test]
fn each_kind_has_its_tier_and_its_priority_as_order() {
    let subject = json!({"namespaces": {"matchLabels": {"env": "prod"}}});
    let expected = |tier: &str, order: Option<f64>| {
        let mut spec = json!({"tier": tier, "selector": ALL_PODS, "namespaceSelector": "env == 'prod'"});
        if let Some(order) = order {
            spec["order"] = json!(order);
        }
        (spec, Vec::<String>::new())
    };
    for (tier, name) in [("Admin", "kube-admin"), ("Baseline", "kube-baseline")] {
        let spec = json!({"tier": tier, "priority": 7, "subject": subject});
        assert_eq!(convert("v1alpha2", "ClusterNetworkPolicy", &spec), expected(name, Some(7.0)));
    }
    let spec = json!({"priority": 0, "subject": subject});
    assert_eq!(convert("v1alpha1", "AdminNetworkPolicy", &spec), expected("adminnetworkpolicy", Some(0.0)));
    let spec = json!({"subject": subject});
    assert_eq!(
        convert("v1alpha1", "BaselineAdminNetworkPolicy", &spec),
        expected("baselineadminnetworkpolicy", None)
    );
}

#[test]
fn the_subject_is_pods_of_namespaces() {
    let selectors = |subject: Value| {
        let spec = json!({"tier": "Admin", "priority": 1, "subject": subject});
        let (spec, notes) = convert("v1alpha2", "ClusterNetworkPolicy", &spec);
        assert_eq!(notes, [""; 0]);
        (spec["selector"].clone(), spec["namespaceSelector"].clone())
    };
    assert_eq!(selectors(json!({"namespaces": {}})), (json!(ALL_PODS), json!("all()")));
    assert_eq!(
        selectors(json!({"pods": {"namespaceSelector": {}, "podSelector": {}}})),
        (json!(ALL_PODS), json!("all()"))
    );
    let labels = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]});
    assert_eq!(
        selectors(json!({"pods": {"podSelector": labels}})),
        (json!(format!("{ALL_PODS} && app in {{ 'a', 'b' }}")), json!("all()"))
    );
    assert_eq!(
        selectors(json!({"pods": {"namespaceSelector": labels, "podSelector": {}}})),
        (json!(ALL_PODS), json!("app in { 'a', 'b' }"))
    );
}

#[test]
fn types_name_the_directions_that_have_rules() {
    let rule = |field: &str| json!([{"action": "Deny", field: [{"namespaces": {}}]}]);
    let types = |ingress: Value, egress: Value| {
        let subject = json!({"namespaces": {}});
        let spec =
            json!({"tier": "Admin", "priority": 1, "subject": subject, "ingress": ingress, "egress": egress});
        convert("v1alpha2", "ClusterNetworkPolicy", &spec).0["types"].clone()
    };
    assert_eq!(types(rule("from"), json!([])), json!(["Ingress"]));
    assert_eq!(types(json!([]), rule("to")), json!(["Egress"]));
    assert_eq!(types(rule("from"), rule("to")), json!(["Ingress", "Egress"]));
    assert_eq!(types(json!([]), json!([])), Value::Null);
}

#[test]
fn a_peer_is_pods_and_never_a_network_set() {
    let (ingress, notes) = rules(
        "ingress",
        &json!([{"action": "Accept", "from": [
            {"namespaces": {"matchLabels": {"n": "1"}}},
            {"pods": {"namespaceSelector": {"matchLabels": {"n": "1"}}, "podSelector": {"matchLabels": {"a": "1"}}}},
        ]}]),
    );
    assert_eq!(notes, [""; 0]);
    assert_eq!(
        ingress,
        json!([
            {"action": "Allow", "source": {"selector": ALL_PODS, "namespaceSelector": "n == '1'"}},
            {"action": "Allow", "source": {"selector": format!("{ALL_PODS} && a == '1'"), "namespaceSelector": "n == '1'"}},
        ])
    );
}

#[test]
fn networks_are_masked_and_stand_on_the_destination() {
    let (egress, notes) = rules(
        "egress",
        &json!([{"action": "Deny", "to": [{"networks": ["10.1.2.3/8", "fd00::1/64", "0.0.0.0/0"]}]}]),
    );
    assert_eq!(notes, [""; 0]);
    assert_eq!(
        egress,
        json!([{"action": "Deny", "destination": {"nets": ["10.0.0.0/8", "fd00::/64", "0.0.0.0/0"]}}])
    );
}

#[test]
fn nodes_are_selected_by_their_labels() {
    let rule = json!([{"action": "Deny", "to": [{"nodes": {}}, {"nodes": {"matchLabels": {"role": "db"}}}]}]);
    let spec = json!({"priority": 1, "subject": {"namespaces": {}}, "egress": rule});
    let Resource::AdminNetworkPolicy(policy) = read("v1alpha1", "AdminNetworkPolicy", &spec) else {
        panic!("another kind")
    };
    let (spec, notes) = admin_network_policy(&policy);
    assert_eq!(notes, [""; 0]);
    let nodes: Vec<EntityRule> = ["all()", "role == 'db'"]
        .map(|text| EntityRule { nodes: Selector::parse(text).ok(), ..EntityRule::default() })
        .into();
    assert_eq!(spec.egress.into_iter().map(|rule| rule.destination).collect::<Vec<_>>(), nodes);
}

#[test]
fn there_is_a_rule_for_each_protocol_by_name_and_each_peer_with_ports_merged() {
    let (ingress, _) = rules(
        "ingress",
        &json!([{"action": "Pass", "name": "some", "from": [{"namespaces": {}}, {"pods": {"podSelector": {}}}], "protocols": [
            {"udp": {"destinationPort": {"number": 53}}},
            {"tcp": {"destinationPort": {"number": 82}}},
            {"tcp": {"destinationPort": {"range": {"start": 80, "end": 81}}}},
            {"destinationNamedPort": "web"},
            {"sctp": {"destinationPort": {"number": 7}}},
        ]}]),
    );
    let source = json!({"selector": ALL_PODS, "namespaceSelector": "all()"});
    let mut expected = Vec::new();
    for (protocol, ports) in [
        (None, json!(["web"])),
        (Some("SCTP"), json!([7])),
        (Some("TCP"), json!(["80:82"])),
        (Some("UDP"), json!([53])),
    ] {
        let mut rule = json!({"action": "Pass", "source": source, "destination": {"ports": ports}});
        rule["metadata"] = json!({"annotations": {"name": "some"}});
        if let Some(protocol) = protocol {
            rule["protocol"] = json!(protocol);
        }
        expected.extend([rule.clone(), rule]);
    }
    assert_eq!(ingress, json!(expected));
}

#[test]
fn ports_of_the_older_kinds_default_to_tcp() {
    let rule = json!({"action": "Allow", "name": "r", "to": [{"namespaces": {}}], "ports": [
        {"portNumber": {"port": 80}},
        {"portRange": {"start": 90, "end": 90}},
        {"portNumber": {"protocol": "UDP", "port": 53}},
        {"namedPort": "dns"},
    ]});
    let spec = json!({"priority": 3, "subject": {"namespaces": {}}, "egress": [rule]});
    let (spec, notes) = convert("v1alpha1", "AdminNetworkPolicy", &spec);
    assert_eq!(notes, [""; 0]);
    let peer = |ports: Value| json!({"selector": ALL_PODS, "namespaceSelector": "all()", "ports": ports});
    let metadata = json!({"annotations": {"name": "r"}});
    assert_eq!(
        spec["egress"],
        json!([
            {"action": "Allow", "destination": peer(json!(["dns"])), "metadata": metadata},
            {"action": "Allow", "protocol": "TCP", "destination": peer(json!([80, 90])), "metadata": metadata},
            {"action": "Allow", "protocol": "UDP", "destination": peer(json!([53])), "metadata": metadata},
        ])
    );
}

#[test]
fn a_rule_that_cannot_be_followed_fails_closed() {
    let peers = json!([{"namespaces": {}}, {"domainNames": ["example.com"]}]);
    let rule = |action: &str| json!({"action": action, "name": "r", "to": peers});
    let good = json!({"action": "Accept", "to": [{"networks": ["10.0.0.0/8"]}]});
    let (egress, notes) = rules("egress", &json!([rule("Accept"), rule("Deny"), rule("Pass"), good]));
    assert_eq!(
        egress,
        json!([
            {"action": "Deny"},
            {"action": "Deny"},
            {"action": "Allow", "destination": {"nets": ["10.0.0.0/8"]}},
        ])
    );
    assert_eq!(
        notes,
        [
            "spec.egress[0]: domain names cannot be selected in this release; the rule is left out",
            "spec.egress[1]: domain names cannot be selected in this release; the rule denies everything",
            "spec.egress[2]: domain names cannot be selected in this release; the rule denies everything",
        ]
    );
}

#[test]
fn what_validation_keeps_out_fails_closed_too() {
    let peer = |peer: ClusterPeer| entity(&peer).unwrap_err();
    assert_eq!(peer(ClusterPeer::default()), "a peer names nothing that is known");
    assert_eq!(
        peer(ClusterPeer { networks: Some(Vec::new()), ..ClusterPeer::default() }),
        "a peer names nothing that is known"
    );
    let spec = ClusterNetworkPolicySpec {
        tier: ClusterTier::Admin,
        priority: 1,
        subject: ClusterSubject::default(),
        ingress: vec![crate::kube::ClusterIngressRule {
            name: String::new(),
            action: crate::kube::ClusterAction::Accept,
            from: vec![ClusterPeer { namespaces: Some(LabelSelector::default()), ..ClusterPeer::default() }],
            protocols: None,
        }],
        egress: Vec::new(),
    };
    let (converted, notes) =
        cluster_network_policy(&Object { metadata: crate::Metadata::named("a", None), spec });
    assert!(converted.ingress.is_empty() && converted.types.is_empty());
    assert_eq!(notes, ["spec.subject: does not name either namespaces or pods; the policy is not applied"]);
}
