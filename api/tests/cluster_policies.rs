//! Cluster-wide policies of Kubernetes: what is taken and what is refused where.

use serde_json::{Value, json};
use tortie_api::kube::{AdminPortNumber, ClusterAction, ClusterTier};
use tortie_api::net::Protocol;
use tortie_api::resource::{FieldError, Resource};

fn read(api: &str, kind: &str, name: &str, spec: &Value) -> Result<Resource, FieldError> {
    Resource::from_value(&json!({
        "apiVersion": format!("policy.networking.k8s.io/{api}"),
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
        "status": {"conditions": []},
    }))
}

fn cluster(spec: &Value) -> Result<Resource, FieldError> {
    read("v1alpha2", "ClusterNetworkPolicy", "a", spec)
}

fn admin(spec: &Value) -> Result<Resource, FieldError> {
    read("v1alpha1", "AdminNetworkPolicy", "a", spec)
}

fn baseline(spec: &Value) -> Result<Resource, FieldError> {
    read("v1alpha1", "BaselineAdminNetworkPolicy", "default", spec)
}

/// A whole specification with one direction's rules.
fn with(direction: &str, rules: &Value) -> Value {
    json!({"tier": "Admin", "priority": 5, "subject": {"namespaces": {}}, direction: rules})
}

fn admin_with(direction: &str, rules: &Value) -> Value {
    json!({"priority": 5, "subject": {"namespaces": {}}, direction: rules})
}

#[track_caller]
fn refused(outcome: Result<Resource, FieldError>) -> String {
    outcome.expect_err("it was taken").to_string()
}

#[track_caller]
fn cluster_refused(direction: &str, rule: &Value) -> String {
    let error = refused(cluster(&with(direction, &json!([rule]))));
    error.strip_prefix(&format!("spec.{direction}[0]")).unwrap_or(&error).trim_start_matches('.').to_owned()
}

#[test]
fn a_whole_policy_is_read() {
    let spec = json!({
        "tier": "Baseline",
        "priority": 1000,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"a": "1"}}, "podSelector": {}}},
        "ingress": [{
            "name": "x".repeat(100),
            "action": "Accept",
            "from": [{"namespaces": {}}, {"pods": {"podSelector": {"matchLabels": {"b": "2"}}}}],
            "protocols": [
                {"tcp": {"destinationPort": {"number": 65535}}},
                {"sctp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}},
                {"destinationNamedPort": "web"},
            ],
        }],
        "egress": [{
            "action": "Pass",
            "to": [
                {"nodes": {}},
                {"networks": ["0.0.0.0/0", "::/0"]},
                {"domainNames": ["example.com", "*.example.com.", "a_b.c-d.1e"]},
            ],
            "protocols": [{"udp": {"destinationPort": {"number": 1}}}],
        }],
    });
    let Resource::ClusterNetworkPolicy(policy) = cluster(&spec).unwrap() else { panic!("another kind") };
    assert_eq!((policy.spec.tier, policy.spec.priority), (ClusterTier::Baseline, 1000));
    assert_eq!(policy.spec.ingress[0].action, ClusterAction::Accept);
    assert_eq!(serde_json::to_value(&policy.spec).unwrap(), spec);
}

#[test]
fn a_whole_policy_of_the_older_kinds_is_read() {
    let rules = json!([{
        "name": "r",
        "action": "Deny",
        "to": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}],
        "ports": [
            {"portNumber": {"port": 80}},
            {"portRange": {"protocol": "SCTP", "start": 80, "end": 80}},
            {"namedPort": "web"},
        ],
    }]);
    let Resource::AdminNetworkPolicy(policy) = admin(&admin_with("egress", &rules)).unwrap() else {
        panic!("another kind")
    };
    let ports = policy.spec.egress[0].ports.as_ref().unwrap();
    assert_eq!(ports[0].port_number, Some(AdminPortNumber { protocol: Protocol::Tcp, port: 80 }));
    let spec = json!({"subject": {"namespaces": {}}, "egress": rules});
    let Resource::BaselineAdminNetworkPolicy(policy) = baseline(&spec).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(policy.spec.egress[0].ports.as_ref().unwrap().len(), 3);
}

#[test]
fn the_required_fields_are_required() {
    for (field, spec) in [
        ("tier", json!({"priority": 1, "subject": {"namespaces": {}}})),
        ("priority", json!({"tier": "Admin", "subject": {"namespaces": {}}})),
        ("subject", json!({"tier": "Admin", "priority": 1})),
    ] {
        assert_eq!(refused(cluster(&spec)), format!("spec: missing field `{field}`"));
    }
    let peer = json!([{"namespaces": {}}]);
    assert_eq!(cluster_refused("ingress", &json!({"from": peer})), ": missing field `action`");
    assert_eq!(cluster_refused("ingress", &json!({"action": "Deny"})), ": missing field `from`");
    assert_eq!(cluster_refused("egress", &json!({"action": "Deny", "to": null})), ": missing field `to`");
    let pods = json!({"action": "Deny", "from": [{"pods": {"namespaceSelector": {}}}]});
    assert_eq!(cluster_refused("ingress", &pods), "from[0].pods: missing field `podSelector`");
}

#[test]
fn only_the_newer_kind_may_leave_the_namespaces_of_pods_open() {
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"pods": {"podSelector": {}}}});
    assert!(cluster(&spec).is_ok());
    assert_eq!(
        refused(admin(&json!({"priority": 1, "subject": {"pods": {"podSelector": {}}}}))),
        "spec.subject.pods.namespaceSelector: is required; an empty one selects all namespaces"
    );
}

#[test]
fn priorities_are_from_0_to_1000() {
    for (priority, is_good) in [(0, true), (1000, true), (-1, false), (1001, false)] {
        let spec = json!({"tier": "Admin", "priority": priority, "subject": {"namespaces": {}}});
        let error = cluster(&spec).err().map(|error| error.to_string());
        let expected = format!("spec.priority: {priority} is outside 0 to 1000");
        assert_eq!(error, (!is_good).then_some(expected));
        let spec = json!({"priority": priority, "subject": {"namespaces": {}}});
        assert_eq!(admin(&spec).is_ok(), is_good);
    }
}

#[test]
fn unknown_fields_and_words_are_refused_where_they_stand() {
    let peer = json!([{"namespaces": {}}]);
    for (rule, message) in [
        (
            json!({"action": "Allow", "from": peer}),
            "action: unknown variant `Allow`, expected one of `Accept`",
        ),
        (json!({"action": "Deny", "from": peer, "ports": []}), "ports: unknown field `ports`"),
        (
            json!({"action": "Deny", "from": [{"namespace": {}}]}),
            "from[0].namespace: unknown field `namespace`",
        ),
        (
            json!({"action": "Deny", "from": peer, "protocols": [{"icmp": {}}]}),
            "protocols[0].icmp: unknown field `icmp`",
        ),
    ] {
        let error = cluster_refused("ingress", &rule);
        assert!(error.starts_with(message), "{error}");
    }
    let error = refused(cluster(&json!({"tier": "admin", "priority": 1, "subject": {"namespaces": {}}})));
    assert_eq!(error, "spec.tier: unknown variant `admin`, expected `Admin` or `Baseline`");
    let rule = json!([{"action": "Accept", "from": peer}]);
    assert!(
        refused(admin(&admin_with("ingress", &rule))).starts_with("spec.ingress[0].action: unknown variant")
    );
    let rule =
        json!([{"action": "Allow", "from": peer, "ports": [{"portNumber": {"protocol": "tcp", "port": 1}}]}]);
    assert_eq!(
        refused(admin(&admin_with("ingress", &rule))),
        "spec.ingress[0].ports[0].portNumber.protocol: \"tcp\" is no protocol: use TCP, UDP or SCTP"
    );
    assert!(
        refused(baseline(&json!({"priority": 1, "subject": {"namespaces": {}}}))).contains("unknown field")
    );
}

#[test]
fn of_fields_that_exclude_each_other_one_is_set() {
    let pods = json!({"namespaceSelector": {}, "podSelector": {}});
    for (subject, message) in [
        (json!({}), "needs one of namespaces and pods"),
        (json!({"namespaces": {}, "pods": pods}), "has both namespaces and pods, which exclude each other"),
    ] {
        let spec = json!({"tier": "Admin", "priority": 1, "subject": subject});
        assert_eq!(refused(cluster(&spec)), format!("spec.subject: {message}"));
    }
    for (rule, message) in [
        (
            json!({"action": "Deny", "to": [{}]}),
            "to[0]: needs one of namespaces, pods, nodes, networks and domainNames",
        ),
        (
            json!({"action": "Deny", "to": [{"nodes": {}, "networks": ["10.0.0.0/8"]}]}),
            "to[0]: has both nodes and networks, which exclude each other",
        ),
        (
            json!({"action": "Deny", "to": [{"nodes": {}}], "protocols": [{}]}),
            "protocols[0]: needs one of tcp, udp, sctp and destinationNamedPort",
        ),
        (
            json!({"action": "Deny", "to": [{"nodes": {}}], "protocols": [{"tcp": {}}]}),
            "protocols[0].tcp.destinationPort: is required",
        ),
        (
            json!({"action": "Deny", "to": [{"nodes": {}}], "protocols": [{"tcp": {"destinationPort": {}}}]}),
            "protocols[0].tcp.destinationPort: needs one of number and range",
        ),
    ] {
        assert_eq!(cluster_refused("egress", &rule), message);
    }
    let rule = json!([{"action": "Deny", "to": [{"nodes": {}}], "ports": [{}]}]);
    assert_eq!(
        refused(admin(&admin_with("egress", &rule))),
        "spec.egress[0].ports[0]: needs one of portNumber, namedPort and portRange"
    );
}

#[test]
fn lists_have_limits() {
    let peer = json!({"namespaces": {}});
    let rule = json!({"action": "Deny", "from": [peer]});
    assert!(cluster(&with("ingress", &json!(vec![rule.clone(); 100]))).is_ok());
    assert_eq!(
        refused(cluster(&with("ingress", &json!(vec![rule.clone(); 101])))),
        "spec.ingress: has 101 entries, at most 100 are allowed"
    );
    assert!(refused(admin(&admin_with("ingress", &json!(vec![rule; 101])))).contains("101 entries"));
    let rule = |peers: usize| json!({"action": "Deny", "from": vec![peer.clone(); peers]});
    assert_eq!(cluster_refused("ingress", &rule(0)), "from: needs at least one entry");
    assert!(cluster(&with("ingress", &json!([rule(100)]))).is_ok());
    assert_eq!(cluster_refused("ingress", &rule(101)), "from: has 101 entries, at most 100 are allowed");
    let entry = json!({"tcp": {"destinationPort": {"number": 1}}});
    let rule =
        |entries: usize| json!({"action": "Deny", "from": [peer], "protocols": vec![entry.clone(); entries]});
    assert_eq!(cluster_refused("ingress", &rule(0)), "protocols: needs at least one entry");
    assert_eq!(cluster_refused("ingress", &rule(101)), "protocols: has 101 entries, at most 100 are allowed");
    let entry = json!({"portNumber": {"port": 1}});
    let rule = |entries: usize| {
        let rule = json!({"action": "Deny", "from": [peer], "ports": vec![entry.clone(); entries]});
        admin(&admin_with("ingress", &json!([rule])))
    };
    assert_eq!(refused(rule(0)), "spec.ingress[0].ports: needs at least one entry");
    assert!(rule(100).is_ok());
    assert_eq!(refused(rule(101)), "spec.ingress[0].ports: has 101 entries, at most 100 are allowed");
    let networks = |n: usize| json!({"action": "Deny", "to": [{"networks": vec!["10.0.0.0/8"; n]}]});
    assert_eq!(cluster_refused("egress", &networks(0)), "to[0].networks: needs at least one entry");
    assert!(cluster(&with("egress", &json!([networks(25)]))).is_ok());
    assert_eq!(
        cluster_refused("egress", &networks(26)),
        "to[0].networks: has 26 entries, at most 25 are allowed"
    );
    let rule = json!({"action": "Deny", "name": "ä".repeat(101), "from": [peer]});
    assert_eq!(cluster_refused("ingress", &rule), "name: is longer than 100 characters");
}

#[test]
fn ports_are_numbers_in_order_or_names() {
    let rule = |entry: Value| json!({"action": "Deny", "from": [{"namespaces": {}}], "protocols": [entry]});
    let port = |port: Value| cluster_refused("ingress", &rule(json!({"udp": {"destinationPort": port}})));
    let at = "protocols[0].udp.destinationPort";
    assert_eq!(port(json!({"number": 0})), format!("{at}.number: 0 is outside 1 to 65535"));
    assert_eq!(port(json!({"number": 65536})), format!("{at}.number: 65536 is outside 1 to 65535"));
    assert_eq!(
        port(json!({"range": {"start": 1, "end": 70000}})),
        format!("{at}.range.end: 70000 is outside 1 to 65535")
    );
    assert_eq!(
        port(json!({"range": {"start": 80, "end": 80}})),
        format!("{at}.range: ends at 80, which is not above its start 80")
    );
    let named = cluster_refused("ingress", &rule(json!({"destinationNamedPort": "80"})));
    assert!(named.starts_with("protocols[0].destinationNamedPort: \"80\" is no name of a port"), "{named}");
    let rule = |entry: Value| {
        let rule = json!({"action": "Deny", "from": [{"namespaces": {}}], "ports": [entry]});
        refused(admin(&admin_with("ingress", &json!([rule]))))
    };
    assert_eq!(
        rule(json!({"portRange": {"start": 2, "end": 1}})),
        "spec.ingress[0].ports[0].portRange: ends at 1, which is below its start 2"
    );
    assert_eq!(
        rule(json!({"portNumber": {"port": -1}})),
        "spec.ingress[0].ports[0].portNumber.port: -1 is outside 1 to 65535"
    );
}

#[test]
fn what_is_no_pod_is_no_source_and_has_no_named_ports() {
    for (field, value) in
        [("nodes", json!({})), ("networks", json!(["10.0.0.0/8"])), ("domainNames", json!(["a.b"]))]
    {
        let ingress = json!({"action": "Deny", "from": [{field: value}]});
        assert_eq!(
            cluster_refused("ingress", &ingress),
            format!("from[0].{field}: is not possible in ingress rules: use namespaces or pods")
        );
        let named = "has no named ports: only pods have, so no port of the rule may be given by name";
        let peers = json!([{"namespaces": {}}, {field: value}]);
        let egress = json!({"action": "Deny", "to": peers, "protocols": [{"destinationNamedPort": "web"}]});
        assert_eq!(cluster_refused("egress", &egress), format!("to[1]: {named}"));
        let egress = json!([{"action": "Deny", "to": peers, "ports": [{"namedPort": "web"}]}]);
        assert_eq!(refused(admin(&admin_with("egress", &egress))), format!("spec.egress[0].to[1]: {named}"));
    }
}

#[test]
fn networks_and_domain_names_are_checked() {
    let networks = |text: &str| json!({"action": "Deny", "to": [{"networks": ["10.0.0.0/8", text]}]});
    for bad in ["10.0.0.0", "10.0.0.0/33", "010.0.0.0/8", "x"] {
        let error = cluster_refused("egress", &networks(bad));
        assert!(error.starts_with("to[0].networks[1]: "), "{error}");
    }
    let names = |text: &str| json!({"action": "Accept", "to": [{"domainNames": [text]}]});
    for bad in ["example", "*.com.*", "a..b", "-a.b", "a.b-", "*", ""] {
        let error = cluster_refused("egress", &names(bad));
        assert_eq!(
            error,
            format!("to[0].domainNames[0]: {bad:?} is no domain name like example.com or *.example.com")
        );
    }
}

#[test]
fn selectors_are_checked() {
    let bad = json!({"matchLabels": {"a": "b c"}});
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": bad}});
    assert!(refused(cluster(&spec)).starts_with("spec.subject.namespaces.matchLabels.a: "));
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"pods": {"podSelector": bad}}});
    assert!(refused(cluster(&spec)).starts_with("spec.subject.pods.podSelector.matchLabels.a: "));
    let error = cluster_refused("egress", &json!({"action": "Deny", "to": [{"nodes": bad}]}));
    assert!(error.starts_with("to[0].nodes.matchLabels.a: "), "{error}");
}

#[test]
fn the_baseline_policy_is_called_default_and_cannot_pass() {
    let spec = json!({"subject": {"namespaces": {}}});
    assert_eq!(
        refused(read("v1alpha1", "BaselineAdminNetworkPolicy", "a", &spec)),
        "metadata.name: \"a\" is no name of a BaselineAdminNetworkPolicy: there is one in a cluster, which is called \
         default"
    );
    let rule = json!([{"action": "Pass", "from": [{"namespaces": {}}]}]);
    assert_eq!(
        refused(baseline(&json!({"subject": {"namespaces": {}}, "ingress": rule}))),
        "spec.ingress[0].action: a BaselineAdminNetworkPolicy cannot pass: use Allow or Deny"
    );
    let rule = json!([{"action": "Allow", "to": [{"domainNames": ["a.b"]}]}]);
    assert_eq!(
        refused(baseline(&json!({"subject": {"namespaces": {}}, "egress": rule}))),
        "spec.egress[0].to[0].domainNames: is not possible in a BaselineAdminNetworkPolicy"
    );
}

#[test]
fn a_kind_of_another_version_says_which_to_use() {
    let error = refused(read("v1alpha1", "ClusterNetworkPolicy", "a", &json!({})));
    assert!(error.ends_with("use policy.networking.k8s.io/v1alpha2"), "{error}");
}

#[test]
fn tiers_of_these_kinds_cannot_be_changed() {
    let tier = |name: &str, order: f64| {
        Resource::from_value(&json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "Tier",
            "metadata": {"name": name},
            "spec": {"order": order, "defaultAction": "Pass"},
        }))
    };
    for (name, order) in [
        ("kube-admin", 1000.0),
        ("adminnetworkpolicy", 1000.0),
        ("kube-baseline", 10_000_000.0),
        ("baselineadminnetworkpolicy", 10_000_000.0),
    ] {
        assert!(tier(name, order).is_ok(), "{name}");
        assert_eq!(
            refused(tier(name, 1.0)),
            format!("spec.order: the built-in tier {name} has order {order}")
        );
    }
}
