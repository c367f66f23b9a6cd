use serde_json::{Value, json};

use crate::resource::{FieldError, Resource};

fn object(api_version: &str, kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, "spec": spec})
}

fn read(kind: &str, spec: &Value) -> Result<Resource, FieldError> {
    Resource::from_value(&object("projectcalico.org/v3", kind, spec))
}

fn read_kube(spec: &Value) -> Result<Resource, FieldError> {
    Resource::from_value(&object("networking.k8s.io/v1", "NetworkPolicy", spec))
}

fn named(kind: &str, name: &str) -> Result<Resource, FieldError> {
    let mut value = object("projectcalico.org/v3", kind, &json!({}));
    value["metadata"]["name"] = name.into();
    Resource::from_value(&value)
}

#[track_caller]
fn assert_refused(outcome: Result<Resource, FieldError>, field: &str, message: &str) {
    let error = outcome.expect_err("it was taken");
    assert_eq!((error.field.as_str(), error.message.as_str()), (field, message));
}

/// A network policy with this ingress rule is refused at this field of the rule.
#[track_caller]
fn assert_rule_refused(rule: &Value, field: &str, message: &str) {
    let separator = if field.is_empty() { "" } else { "." };
    let field = format!("spec.ingress[0]{separator}{field}");
    assert_refused(read("NetworkPolicy", &json!({"ingress": [rule]})), &field, message);
}

#[track_caller]
fn assert_rule_taken(rule: &Value) {
    if let Err(error) = read("NetworkPolicy", &json!({"ingress": [rule]})) {
        panic!("{error}");
    }
}

#[test]
fn names_have_the_form_of_their_kind() {
    for (kind, good, bad) in [
        ("NetworkPolicy", &["a", "tier.a", "knp.default.a.b.c"][..], &["", "A", "a.b.c", "a_b", "-a"][..]),
        ("GlobalNetworkPolicy", &["a", "tier.a"], &["a.b.c", "knp.default.a.b"]),
        ("Tier", &["a-b"], &["a.b"]),
        ("NetworkSet", &["a.b.c"], &["a/b", "a..b"]),
        ("FelixConfiguration", &["default", "node.a", "node.a.example.com"], &["a", "node.", "node"]),
    ] {
        for name in good {
            assert!(named(kind, name).is_ok(), "{kind} {name}");
        }
        for name in bad {
            assert_eq!(named(kind, name).unwrap_err().field, "metadata.name", "{kind} {name}");
        }
    }
    assert!(named("NetworkSet", &"a".repeat(253)).is_ok() && named("NetworkSet", &"a".repeat(254)).is_err());
    assert!(named("Tier", &"a".repeat(63)).is_ok() && named("Tier", &"a".repeat(64)).is_err());
}

#[test]
fn labels_and_annotations_are_checked() {
    for (field, metadata) in [
        ("metadata.labels.a b", json!({"name": "a", "labels": {"a b": "c"}})),
        ("metadata.labels.a", json!({"name": "a", "labels": {"a": "-"}})),
        (
            "metadata.labels.projectcalico.org/namespace",
            json!({"name": "a", "labels": {"projectcalico.org/namespace": "a"}}),
        ),
        ("metadata.annotations.a b", json!({"name": "a", "annotations": {"a b": "c"}})),
        ("metadata.annotations", json!({"name": "a", "annotations": {"a": "x".repeat(262_144)}})),
        ("metadata.namespace", json!({"name": "a", "namespace": "a.b"})),
    ] {
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet", "metadata": metadata});
        assert_eq!(Resource::from_value(&value).unwrap_err().field, field);
    }
    let metadata =
        json!({"name": "a", "annotations": {"Example.com/A": "x".repeat(262_131)}, "labels": {"a": ""}});
    let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet", "metadata": metadata});
    assert!(Resource::from_value(&value).is_ok());
}

#[test]
fn lists_of_a_policy_have_a_limit() {
    let rules = |n: usize| vec![json!({"action": "Allow"}); n];
    let nets = |n: usize| (0..n).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).collect::<Vec<_>>();
    assert!(read("NetworkPolicy", &json!({"ingress": rules(1024)})).is_ok());
    assert_refused(
        read("NetworkPolicy", &json!({"egress": rules(1025)})),
        "spec.egress",
        "has 1025 entries, at most 1024 are allowed",
    );
    assert_rule_taken(&json!({"action": "Allow", "source": {"nets": nets(256)}}));
    let message = "has 257 entries, at most 256 are allowed";
    assert_rule_refused(&json!({"action": "Allow", "source": {"nets": nets(257)}}), "source.nets", message);
    assert_rule_refused(
        &json!({"action": "Allow", "source": {"notNets": nets(257)}}),
        "source.notNets",
        message,
    );
    let ports: Vec<u16> = (1..=51).collect();
    let rule = json!({"action": "Allow", "protocol": "TCP", "destination": {"notPorts": ports}});
    assert_rule_refused(&rule, "destination.notPorts", "has 51 entries, at most 50 are allowed");
}

#[test]
fn a_selector_has_at_most_1024_characters() {
    let of_length = |n: usize| format!("a == '{}'", "x".repeat(n - 7));
    assert!(read("NetworkPolicy", &json!({"selector": of_length(1024)})).is_ok());
    assert_refused(
        read("NetworkPolicy", &json!({"selector": of_length(1025)})),
        "spec.selector",
        "a selector has at most 1024 characters, not 1025",
    );
}

#[test]
fn an_empty_selector_is_an_absent_one() {
    let rule = json!({"action": "Allow", "source": {"selector": "", "namespaceSelector": "", "nets": ["10.0.0.0/8"]}});
    let resource = read("NetworkPolicy", &json!({"selector": "", "ingress": [rule]})).unwrap();
    let Resource::NetworkPolicy(policy) = resource else { panic!("{resource:?}") };
    assert_eq!(policy.spec.selector, None);
    assert_eq!(policy.spec.ingress[0].source.namespace_selector, None);
}

#[test]
fn global_stands_alone_in_the_namespace_selector_of_a_rule() {
    let only = "global() may stand in the namespaceSelector of a rule only";
    assert_rule_taken(&json!({"action": "Allow", "source": {"namespaceSelector": " global() "}}));
    assert_rule_refused(
        &json!({"action": "Allow", "source": {"namespaceSelector": "global() || a == 'b'"}}),
        "source.namespaceSelector",
        "global() may only stand alone",
    );
    for field in ["selector", "notSelector"] {
        assert_rule_refused(
            &json!({"action": "Allow", "source": {field: "global()"}}),
            &format!("source.{field}"),
            only,
        );
    }
    for field in ["selector", "serviceAccountSelector"] {
        let spec = json!({field: "!global()"});
        assert_refused(read("NetworkPolicy", &spec), &format!("spec.{field}"), only);
        assert_refused(read("GlobalNetworkPolicy", &spec), &format!("spec.{field}"), only);
    }
    assert_refused(
        read("GlobalNetworkPolicy", &json!({"namespaceSelector": "global()"})),
        "spec.namespaceSelector",
        only,
    );
}

#[test]
fn port_numbers_need_a_protocol_with_ports() {
    let message = "a port number needs protocol TCP, UDP or SCTP";
    assert_rule_refused(
        &json!({"action": "Allow", "destination": {"ports": ["http", 80]}}),
        "destination.ports[1]",
        message,
    );
    assert_rule_refused(
        &json!({"action": "Allow", "source": {"notPorts": ["1:2"]}}),
        "source.notPorts[0]",
        message,
    );
    assert_rule_refused(
        &json!({"action": "Allow", "protocol": "ICMP", "destination": {"ports": ["http"]}}),
        "destination.ports",
        "protocol ICMP has no ports: use TCP, UDP or SCTP",
    );
    assert_rule_refused(
        &json!({"action": "Allow", "protocol": "UDPLite", "destination": {"ports": [1]}}),
        "destination.ports",
        "protocol UDPLite has no ports: use TCP, UDP or SCTP",
    );
    assert_rule_taken(&json!({"action": "Allow", "destination": {"ports": ["http"]}}));
    for protocol in [json!("tcp"), json!("SCTP"), json!(17)] {
        assert_rule_taken(
            &json!({"action": "Allow", "protocol": protocol, "destination": {"ports": [80, "1:2"]}}),
        );
    }
}

#[test]
fn icmp_needs_its_protocol_and_ip_version() {
    let needs = "needs protocol ICMP or ICMPv6";
    assert_rule_refused(&json!({"action": "Allow", "icmp": {"type": 8}}), "icmp", needs);
    assert_rule_refused(
        &json!({"action": "Allow", "protocol": "TCP", "notICMP": {"type": 8}}),
        "notICMP",
        needs,
    );
    assert_rule_refused(
        &json!({"action": "Allow", "protocol": 58, "icmp": {"code": 0}}),
        "icmp.code",
        "needs a type",
    );
    assert_rule_refused(
        &json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 255}}),
        "icmp.type",
        "is a number from 0 to 254",
    );
    let v4 = "ICMP is a protocol of IPv4";
    assert_rule_refused(&json!({"action": "Allow", "protocol": "ICMP", "ipVersion": 6}), "ipVersion", v4);
    assert_rule_refused(&json!({"action": "Allow", "notProtocol": "ICMP", "ipVersion": 6}), "ipVersion", v4);
    assert_rule_refused(
        &json!({"action": "Allow", "protocol": "ICMPv6", "ipVersion": 4}),
        "ipVersion",
        "ICMPv6 is a protocol of IPv6",
    );
    assert_rule_taken(
        &json!({"action": "Allow", "protocol": "ICMP", "ipVersion": 4, "icmp": {"type": 254, "code": 255}}),
    );
}

#[test]
fn networks_of_a_rule_are_of_one_family() {
    assert_rule_refused(
        &json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}, "destination": {"notNets": ["fd00::/8"]}}),
        "destination.notNets[0]",
        "fd00::/8 is IPv6, but a network before it is IPv4; use one rule for each",
    );
    assert_rule_refused(
        &json!({"action": "Allow", "ipVersion": 4, "source": {"nets": ["fd00::/8"]}}),
        "source.nets[0]",
        "fd00::/8 is IPv6, but ipVersion is 4",
    );
    assert_rule_refused(
        &json!({"action": "Allow", "source": {"notNets": ["10.0.0.0/8", "0.0.0.0/0"]}}),
        "source.notNets[1]",
        "0.0.0.0/0 is every address: the rule could match nothing",
    );
    assert_rule_taken(&json!({"action": "Allow", "ipVersion": 6, "source": {"nets": ["::/0", "fd00::1"]}}));
}

#[test]
fn a_service_excludes_other_ways_to_say_who() {
    let service = json!({"name": "db", "namespace": "shop"});
    for (field, value) in [
        ("selector", json!("all()")),
        ("notSelector", json!("a == 'b'")),
        ("namespaceSelector", json!("all()")),
        ("nets", json!(["10.0.0.0/8"])),
        ("notNets", json!(["10.0.0.0/8"])),
        ("serviceAccounts", json!({"names": ["a"]})),
    ] {
        let rule = json!({"action": "Allow", "source": {"services": service, field: value}});
        assert_rule_refused(&rule, "source.services", &format!("cannot stand beside {field}"));
    }
    let egress = |rule: Value| read("NetworkPolicy", &json!({"egress": [rule]}));
    assert_refused(
        egress(
            json!({"action": "Allow", "protocol": "TCP", "destination": {"services": service, "ports": [1]}}),
        ),
        "spec.egress[0].destination.services",
        "cannot stand beside ports",
    );
    assert_rule_taken(
        &json!({"action": "Allow", "protocol": "TCP", "source": {"services": service, "ports": [1]}}),
    );
    assert_rule_refused(
        &json!({"action": "Allow", "source": {"services": {"name": ""}}}),
        "source.services.name",
        "is required",
    );
    assert_rule_refused(
        &json!({"action": "Allow", "destination": {"services": service}}),
        "destination.services",
        "services cannot be the destination of an ingress rule",
    );
    assert_refused(
        egress(json!({"action": "Allow", "source": {"services": service}})),
        "spec.egress[0].source.services",
        "services cannot be the source of an egress rule",
    );
    assert_refused(
        read(
            "GlobalNetworkPolicy",
            &json!({"ingress": [{"action": "Allow", "source": {"services": {"name": "db"}}}]}),
        ),
        "spec.ingress[0].source.services.namespace",
        "is required in a GlobalNetworkPolicy",
    );
}

#[test]
fn names_of_service_accounts_are_dns_subdomains() {
    let form = "use at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends";
    let too_long = "a".repeat(254);
    for bad in ["", "Robot", "a b", "a_b", "-a", "a..b", "a\"} || all() || has(x", "'", &too_long] {
        let message = format!("{bad:?} is no name of a ServiceAccount: {form}");
        for side in ["source", "destination"] {
            assert_rule_refused(
                &json!({"action": "Allow", side: {"serviceAccounts": {"names": ["robot", bad]}}}),
                &format!("{side}.serviceAccounts.names[1]"),
                &message,
            );
        }
    }
    let bad = json!([{"action": "Allow", "source": {"serviceAccounts": {"names": ["'"]}}}]);
    for kind in ["GlobalNetworkPolicy", "Profile"] {
        let error = read(kind, &json!({"egress": bad})).unwrap_err();
        assert_eq!(error.field, "spec.egress[0].source.serviceAccounts.names[0]", "{kind}");
    }
    let longest = "a".repeat(253);
    let names = ["default", "0", "a-b.c", &longest];
    assert_rule_taken(&json!({"action": "Allow", "source": {"serviceAccounts": {"names": names}}}));
}

#[test]
fn http_is_for_allowing_ingress_of_tcp() {
    let http = json!({"methods": ["GET"], "paths": [{"exact": "/a"}, {"prefix": "/b"}]});
    assert_rule_taken(&json!({"action": "Allow", "http": http}));
    assert_rule_refused(&json!({"action": "Deny", "http": http}), "http", "needs action Allow");
    assert_rule_refused(
        &json!({"action": "Allow", "protocol": "UDP", "http": http}),
        "http",
        "needs protocol TCP",
    );
    assert_refused(
        read("NetworkPolicy", &json!({"egress": [{"action": "Allow", "http": http}]})),
        "spec.egress[0].http",
        "is not possible in an egress rule",
    );
    let both =
        json!({"action": "Allow", "http": {"paths": [{"exact": "/a"}, {"exact": "/a", "prefix": "/a"}]}});
    assert_rule_refused(&both, "http.paths[1]", "has either exact or prefix");
    let methods = json!({"action": "Allow", "http": {"methods": vec!["GET"; 21]}});
    assert_rule_refused(&methods, "http.methods", "has 21 entries, at most 20 are allowed");
    let long = json!({"action": "Allow", "http": {"paths": [{"exact": "x".repeat(1025)}]}});
    assert_rule_refused(&long, "http.paths[0]", "is longer than 1024 characters");
}

#[test]
fn types_and_hints_are_there_once() {
    assert_refused(
        read("NetworkPolicy", &json!({"types": ["Egress", "Egress"]})),
        "spec.types",
        "Egress is there twice",
    );
    let hints = json!({"performanceHints": ["AssumeNeededOnEveryNode", "AssumeNeededOnEveryNode"]});
    assert_refused(read("NetworkPolicy", &hints), "spec.performanceHints", "the same hint is there twice");
    assert_refused(read("NetworkPolicy", &json!({"tier": "A"})), "spec.tier", "\"A\" is no name of a tier");
}

#[test]
fn policies_before_dnat_and_connection_tracking_have_their_own_rules() {
    let read = |spec: Value| read("GlobalNetworkPolicy", &spec);
    let egress = json!([{"action": "Allow"}]);
    assert_refused(
        read(json!({"preDNAT": true, "doNotTrack": true, "applyOnForward": true})),
        "spec.preDNAT",
        "preDNAT and doNotTrack cannot both be true",
    );
    assert_refused(
        read(json!({"preDNAT": true, "applyOnForward": true, "egress": egress})),
        "spec.egress",
        "a policy with preDNAT cannot have egress rules",
    );
    assert_refused(
        read(json!({"preDNAT": true, "applyOnForward": true, "types": ["Ingress", "Egress"]})),
        "spec.types",
        "a policy with preDNAT cannot have the type Egress",
    );
    let forward = "must be true for a policy with preDNAT or doNotTrack";
    assert_refused(read(json!({"preDNAT": true})), "spec.applyOnForward", forward);
    assert_refused(read(json!({"doNotTrack": true})), "spec.applyOnForward", forward);
    assert!(read(json!({"doNotTrack": true, "applyOnForward": true, "egress": egress})).is_ok());
    assert!(read(json!({"preDNAT": true, "applyOnForward": true})).is_ok());
}

#[test]
fn built_in_tiers_cannot_be_changed() {
    let tier = |name: &str, spec: Value| {
        let mut value = object("projectcalico.org/v3", "Tier", &spec);
        value["metadata"]["name"] = name.into();
        Resource::from_value(&value)
    };
    for (name, order, action) in
        [("default", 1_000_000, "Deny"), ("kube-admin", 1000, "Pass"), ("kube-baseline", 10_000_000, "Pass")]
    {
        assert!(tier(name, json!({"order": order, "defaultAction": action})).is_ok());
        assert_refused(
            tier(name, json!({"order": 5, "defaultAction": action})),
            "spec.order",
            &format!("the built-in tier {name} has order {order}"),
        );
        let other = if action == "Deny" { "Pass" } else { "Deny" };
        assert_refused(
            tier(name, json!({"order": order, "defaultAction": other})),
            "spec.defaultAction",
            &format!("the built-in tier {name} has default action {action}"),
        );
    }
    assert!(tier("default", json!({})).is_ok());
    assert!(tier("mine", json!({"order": -5.5, "defaultAction": "Pass"})).is_ok());
}

#[test]
fn a_pool_has_room_for_a_block_and_one_encapsulation() {
    let refused = |spec: Value, field: &str, message: &str| {
        assert_refused(read("IPPool", &spec), field, message);
    };
    refused(
        json!({"cidr": "10.0.0.0"}),
        "spec.cidr",
        "\"10.0.0.0\" is no CIDR: the prefix length is missing",
    );
    refused(json!({"cidr": "10.0.0.0/27"}), "spec.cidr", "10.0.0.0/27 is smaller than one block of /26");
    assert!(read("IPPool", &json!({"cidr": "10.0.0.0/27", "disabled": true})).is_ok());
    assert!(read("IPPool", &json!({"cidr": "10.0.0.0/27", "blockSize": 27})).is_ok());
    refused(json!({"cidr": "10.0.0.0/8", "blockSize": 19}), "spec.blockSize", "19 is outside 20 to 32");
    refused(json!({"cidr": "fd00::/64", "blockSize": 26}), "spec.blockSize", "26 is outside 116 to 128");
    for cidr in ["169.254.1.0/24", "169.0.0.0/8"] {
        let message = format!("{cidr} overlaps 169.254.0.0/16, the link-local addresses");
        refused(json!({"cidr": cidr}), "spec.cidr", &message);
    }
    refused(
        json!({"cidr": "10.0.0.0/8", "ipipMode": "Always", "vxlanMode": "CrossSubnet"}),
        "spec.vxlanMode",
        "IPIP and VXLAN cannot both be used",
    );
    refused(json!({"cidr": "fd00::/64", "ipipMode": "Always"}), "spec.ipipMode", "IPIP is for IPv4 only");
    refused(
        json!({"cidr": "10.0.0.0/8", "allowedUses": ["Workload", "LoadBalancer"]}),
        "spec.allowedUses",
        "LoadBalancer cannot be combined with other uses",
    );
    refused(
        json!({"cidr": "10.0.0.0/8", "allowedUses": ["LoadBalancer"], "vxlanMode": "Always"}),
        "spec.vxlanMode",
        "must be Never for the use LoadBalancer",
    );
    refused(
        json!({"cidr": "10.0.0.0/8", "allowedUses": ["LoadBalancer"], "nodeSelector": "has(a)"}),
        "spec.nodeSelector",
        "must be all() for the use LoadBalancer",
    );
    refused(
        json!({"cidr": "10.0.0.0/8", "allowedUses": ["Tunnel"], "namespaceSelector": "has(a)"}),
        "spec.namespaceSelector",
        "is not possible with the use Tunnel",
    );
    assert!(read("IPPool", &json!({"cidr": "10.0.0.0/8", "namespaceSelector": "has(a)"})).is_ok());
}

#[test]
fn a_host_endpoint_can_be_found_on_its_node() {
    let refused = |spec: Value, field: &str, message: &str| {
        assert_refused(read("HostEndpoint", &spec), field, message);
    };
    refused(json!({"interfaceName": "eth0"}), "spec.node", "is required");
    refused(json!({"node": "a"}), "spec", "needs interfaceName or expectedIPs");
    refused(
        json!({"node": "a", "interfaceName": "a-name-too-long-"}),
        "spec.interfaceName",
        "\"a-name-too-long-\" is no name of an interface: use 1 to 15 characters from a-z A-Z 0-9 _ . -",
    );
    let port = |port: Value| json!({"node": "a", "interfaceName": "*", "ports": [port]});
    refused(port(json!({"protocol": "TCP", "port": 1})), "spec.ports[0].name", "is required");
    refused(
        port(json!({"name": "a", "protocol": "TCP", "port": 0})),
        "spec.ports[0].port",
        "is a number from 1 to 65535",
    );
    refused(
        port(json!({"name": "a", "protocol": "ICMP", "port": 1})),
        "spec.ports[0].protocol",
        "protocol ICMP has no ports: use TCP, UDP or SCTP",
    );
    refused(
        port(json!({"name": "a", "protocol": "TCP", "port": 1, "hostPort": 1})),
        "spec.ports[0].hostPort",
        "is for workload endpoints only",
    );
    assert!(read("HostEndpoint", &port(json!({"name": "a", "protocol": "UDP", "port": 1}))).is_ok());
    assert!(read("HostEndpoint", &json!({"node": "a", "expectedIPs": ["10.0.0.1", "fd00::1"]})).is_ok());
}

#[test]
fn a_workload_endpoint_has_single_addresses_and_a_sound_interface() {
    let refused = |field: &str, value: Value, path: &str, message: &str| {
        let mut spec =
            json!({"node": "n", "orchestrator": "k8s", "endpoint": "eth0", "ipNetworks": ["10.0.0.1"]});
        spec[field] = value;
        assert_refused(read("WorkloadEndpoint", &spec), path, message);
    };
    refused("node", json!(""), "spec.node", "is required");
    refused(
        "ipNetworks",
        json!(["10.0.0.1", "10.0.0.0/24"]),
        "spec.ipNetworks[1]",
        "10.0.0.0/24 is not a single address",
    );
    refused(
        "mac",
        json!("aa:bb:cc:dd:ee"),
        "spec.mac",
        "\"aa:bb:cc:dd:ee\" is no MAC address like aa:bb:cc:dd:ee:ff",
    );
    refused(
        "ipNATs",
        json!([{"internalIP": "10.0.0.2", "externalIP": "192.0.2.1"}]),
        "spec.ipNATs[0].internalIP",
        "10.0.0.2 is not in ipNetworks",
    );
    refused(
        "ipNATs",
        json!([{"internalIP": "10.0.0.1", "externalIP": "fd00::1"}]),
        "spec.ipNATs[0].externalIP",
        "fd00::1 is of another family than 10.0.0.1",
    );
    refused(
        "ports",
        json!([{"protocol": "TCP", "port": 80}]),
        "spec.ports[0].name",
        "is required for a port without hostPort",
    );
}

#[test]
fn kubernetes_ports_are_checked_as_by_the_api_server() {
    let refused = |port: Value, field: &str, message: &str| {
        let spec = json!({"podSelector": {}, "ingress": [{"ports": [port]}]});
        let separator = if field.is_empty() { "" } else { "." };
        assert_refused(read_kube(&spec), &format!("spec.ingress[0].ports[0]{separator}{field}"), message);
    };
    refused(json!({"port": 0}), "port", "0 is outside 1 to 65535");
    refused(json!({"port": 65536}), "port", "65536 is outside 1 to 65535");
    refused(json!({"port": 80, "endPort": 79}), "endPort", "79 is below port 80");
    refused(json!({"port": 80, "endPort": 65536}), "endPort", "65536 is outside 1 to 65535");
    refused(json!({"endPort": 80}), "endPort", "needs a port");
    refused(json!({"port": "http", "endPort": 80}), "endPort", "needs a port number, not a name");
    refused(json!({"protocol": "tcp"}), "protocol", "\"tcp\" is no protocol: use TCP, UDP or SCTP");
    refused(json!({"protocol": "ICMP"}), "protocol", "\"ICMP\" is no protocol: use TCP, UDP or SCTP");
    let error = read_kube(&json!({"podSelector": {}, "egress": [{"ports": [{"port": "80"}]}]})).unwrap_err();
    assert_eq!(error.field, "spec.egress[0].ports[0].port");
}

#[test]
fn kubernetes_peers_are_checked_as_by_the_api_server() {
    let refused = |peer: Value, field: &str, message: &str| {
        let spec = json!({"podSelector": {}, "egress": [{"to": [peer]}]});
        let separator = if field.is_empty() { "" } else { "." };
        assert_refused(read_kube(&spec), &format!("spec.egress[0].to[0]{separator}{field}"), message);
    };
    refused(json!({}), "", "needs podSelector, namespaceSelector or ipBlock");
    refused(
        json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
        "ipBlock",
        "cannot stand beside podSelector or namespaceSelector",
    );
    refused(
        json!({"ipBlock": {"cidr": "10.0.0.0"}}),
        "ipBlock.cidr",
        "\"10.0.0.0\" is no IP address and no CIDR like 10.0.0.0/8 or fd00::/8",
    );
    for except in ["11.0.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "fd00::/16"] {
        refused(
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", except]}}),
            "ipBlock.except[1]",
            &format!("{except} is not a part of 10.0.0.0/8"),
        );
    }
    let host_bits = json!({"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.65.1.33/24", "except": ["10.65.1.9/30"]}}]}]});
    assert!(read_kube(&host_bits).is_ok());
}

#[test]
fn kubernetes_selectors_are_checked_as_by_the_api_server() {
    let refused = |selector: Value, field: &str, message: &str| {
        assert_refused(
            read_kube(&json!({"podSelector": selector})),
            &format!("spec.podSelector.{field}"),
            message,
        );
    };
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    refused(expression("a", "In", &[]), "matchExpressions[0].values", "is required for operator In");
    refused(
        expression("a", "Exists", &["b"]),
        "matchExpressions[0].values",
        "must be empty for operator Exists",
    );
    refused(
        expression("a", "Has", &[]),
        "matchExpressions[0].operator",
        "unknown variant `Has`, expected one of `In`, `NotIn`, `Exists`, `DoesNotExist`",
    );
    let error = read_kube(&json!({"podSelector": expression("a b", "Exists", &[])})).unwrap_err();
    assert_eq!(error.field, "spec.podSelector.matchExpressions[0].key");
    let error = read_kube(&json!({"podSelector": expression("a", "In", &["b", "'"])})).unwrap_err();
    assert_eq!(error.field, "spec.podSelector.matchExpressions[0].values[1]");
    let error = read_kube(&json!({"podSelector": {"matchLabels": {"a": "b c"}}})).unwrap_err();
    assert_eq!(error.field, "spec.podSelector.matchLabels.a");
}
