use serde_json::{Value, json};

use super::*;
use crate::Resource;

fn pod(change: impl FnOnce(&mut Value)) -> Object<PodSpec> {
    let mut value = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "annotations": {}},
        "spec": {"nodeName": "node-a", "serviceAccountName": "robot", "containers": []},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    });
    change(&mut value);
    match Resource::from_value(&value).unwrap_or_else(|error| panic!("{error}")) {
        Resource::Pod(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn endpoint(change: impl FnOnce(&mut Value)) -> Option<Object<WorkloadEndpointSpec>> {
    pod_endpoint(&pod(change), "cali")
}

fn addresses_of(change: impl FnOnce(&mut Value)) -> Vec<String> {
    endpoint(change).map(|e| e.spec.ip_networks.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

#[test]
fn an_interface_is_named_by_the_hash_of_namespace_and_pod() {
    assert_eq!(workload_interface("cali", "default", "podA"), "cali7f94ce7c295");
    assert_eq!(workload_interface("cali,tap", "default", "nginx"), "calic440f455693");
    assert_eq!(workload_interface("eni", "namespace", "podname"), "eni82111e10a96");
}

#[test]
fn a_running_pod_is_an_endpoint_with_labels_and_profiles() {
    let endpoint = endpoint(|_| {}).unwrap();
    assert_eq!(endpoint.metadata.name, "node--a-k8s-web--0-eth0");
    assert_eq!(endpoint.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(
        serde_json::to_value(&endpoint.metadata.labels).unwrap(),
        json!({
            "app": "web",
            "projectcalico.org/namespace": "shop",
            "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": "robot",
        })
    );
    assert_eq!(endpoint.spec.profiles, ["kns.shop", "ksa.shop.robot"]);
    assert_eq!(endpoint.spec.interface_name, workload_interface("cali", "shop", "web-0"));
    let addresses: Vec<_> = endpoint.spec.ip_networks.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1/32", "fd00::1/128"]);
}

#[test]
fn a_pod_cannot_choose_the_labels_of_its_namespace() {
    let endpoint = endpoint(|pod| {
        pod["metadata"]["labels"] = json!({
            "pcns.env": "prod",
            "pcsa.role": "admin",
            "projectcalico.org/namespace": "other",
            "projectcalico.org/serviceaccount": "other",
        });
    })
    .unwrap();
    assert_eq!(
        serde_json::to_value(&endpoint.metadata.labels).unwrap(),
        json!({
            "projectcalico.org/namespace": "shop",
            "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": "robot",
        })
    );
}

#[test]
fn a_pod_that_names_no_service_account_has_label_and_profile_of_the_default_one() {
    let endpoint = endpoint(|pod| pod["spec"]["serviceAccountName"] = json!("")).unwrap();
    assert_eq!(endpoint.metadata.labels["projectcalico.org/serviceaccount"], "default");
    assert_eq!(endpoint.spec.service_account_name, "default");
    assert_eq!(endpoint.spec.profiles, ["kns.shop", "ksa.shop.default"]);
}

#[test]
fn a_mirror_pod_has_no_service_account_and_cannot_choose_one_by_label() {
    let endpoint = endpoint(|pod| {
        pod["spec"]["serviceAccountName"] = json!("");
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "5ab1"});
        pod["metadata"]["labels"] = json!({"projectcalico.org/serviceaccount": "other"});
    })
    .unwrap();
    assert_eq!(
        serde_json::to_value(&endpoint.metadata.labels).unwrap(),
        json!({"projectcalico.org/namespace": "shop", "projectcalico.org/orchestrator": "k8s"})
    );
    assert_eq!(endpoint.spec.profiles, ["kns.shop"]);
    assert!(endpoint.metadata.annotations.is_empty());
}

#[test]
fn pods_without_a_network_of_their_own_are_no_endpoints() {
    assert_eq!(endpoint(|pod| pod["spec"]["hostNetwork"] = json!(true)), None);
    assert_eq!(endpoint(|pod| pod["spec"]["nodeName"] = json!(null)), None);
    assert_eq!(endpoint(|pod| pod["status"] = json!({"phase": "Pending"})), None);
}

#[test]
fn a_pod_that_has_ended_is_no_endpoint() {
    for phase in ["Succeeded", "Failed", "Completed"] {
        assert_eq!(endpoint(|pod| pod["status"]["phase"] = json!(phase)), None, "{phase}");
    }
}

#[test]
fn a_terminating_pod_keeps_its_endpoint_until_its_address_is_taken_away() {
    let terminating = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(endpoint(terminating).is_some());
    for key in ["cni.projectcalico.org/podIP", "vpc.amazonaws.com/pod-ips"] {
        let taken = |pod: &mut Value| pod["metadata"]["annotations"][key] = json!("");
        assert!(endpoint(taken).is_some(), "{key} alone says nothing");
        assert_eq!(
            endpoint(|pod| {
                terminating(pod);
                taken(pod);
            }),
            None,
            "{key}"
        );
    }
}

#[test]
fn addresses_come_from_the_status_or_else_from_annotations() {
    let with = |annotations: Value| {
        addresses_of(|pod| {
            pod["status"] = json!({"phase": "Running"});
            pod["metadata"]["annotations"] = annotations;
        })
    };
    assert_eq!(addresses_of(|pod| pod["status"]["podIPs"] = json!([])), ["10.0.0.1/32"]);
    assert_eq!(
        with(
            json!({"cni.projectcalico.org/podIPs": "10.0.0.3/32,fd00::3/128", "cni.projectcalico.org/podIP": "10.0.0.4/32"})
        ),
        ["10.0.0.3/32", "fd00::3/128"]
    );
    assert_eq!(with(json!({"cni.projectcalico.org/podIP": "10.0.0.4/32"})), ["10.0.0.4/32"]);
    assert_eq!(
        with(json!({"vpc.amazonaws.com/pod-ips": "10.0.0.5, 10.0.0.6"})),
        ["10.0.0.5/32", "10.0.0.6/32"]
    );
}

#[test]
fn ports_floating_addresses_and_allowed_sources_are_carried_over() {
    let endpoint = endpoint(|pod| {
        pod["metadata"]["annotations"] = json!({
            "cni.projectcalico.org/containerID": "abc",
            "cni.projectcalico.org/floatingIPs": "[\"192.0.2.1\", \"2001:db8::1\", \"x\"]",
            "cni.projectcalico.org/allowedSourcePrefixes": "[\"10.9.1.1/16\", \"fd09::1\"]",
            "k8s.v1.cni.cncf.io/network-status": "[]",
        });
        pod["spec"]["containers"] = json!([{"ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"},
        ]}]);
    })
    .unwrap();
    assert_eq!(endpoint.metadata.annotations.len(), 1);
    assert_eq!(
        serde_json::to_value(&endpoint.spec).unwrap(),
        json!({
            "orchestrator": "k8s",
            "node": "node-a",
            "containerID": "abc",
            "pod": "web-0",
            "endpoint": "eth0",
            "serviceAccountName": "robot",
            "ipNetworks": ["10.0.0.1/32", "fd00::1/128"],
            "ipNATs": [
                {"internalIP": "10.0.0.1", "externalIP": "192.0.2.1"},
                {"internalIP": "fd00::1", "externalIP": "2001:db8::1"},
            ],
            "profiles": ["kns.shop", "ksa.shop.robot"],
            "interfaceName": workload_interface("cali", "shop", "web-0"),
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53},
                {"protocol": "TCP", "port": 80, "hostPort": 8080, "hostIP": "127.0.0.1"},
            ],
            "allowSpoofedSourcePrefixes": ["10.9.0.0/16", "fd09::1/128"],
        })
    );
}

#[test]
fn annotations_that_cannot_be_read_are_left_out() {
    let endpoint = endpoint(|pod| {
        pod["metadata"]["annotations"] = json!({
            "cni.projectcalico.org/floatingIPs": "192.0.2.1",
            "cni.projectcalico.org/allowedSourcePrefixes": "{}",
        });
    })
    .unwrap();
    assert!(endpoint.spec.ip_nats.is_empty() && endpoint.spec.allow_spoofed_source_prefixes.is_empty());
}

#[test]
fn quality_of_service_comes_from_annotations() {
    let endpoint = endpoint(|pod| {
        pod["metadata"]["annotations"] = json!({
            "qos.projectcalico.org/ingressPacketRate": "1k",
            "qos.projectcalico.org/dscp": "EF",
            "kubernetes.io/egress-bandwidth": "1M",
        });
    });
    let controls = serde_json::to_value(endpoint.unwrap().spec.qos_controls).unwrap();
    assert_eq!(controls, json!({"ingressPacketRate": "1k", "dscp": "EF", "egressBandwidth": "1M"}));
}

#[test]
fn what_annotations_have_that_cannot_be_read_is_told() {
    let problems = |annotations: Value| {
        let pod = pod(|pod| {
            pod["metadata"]["annotations"] = annotations;
            pod["status"] = json!({"phase": "Running", "podIP": "10.0.0.1"});
        });
        pod_problems(&pod).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let floating = "metadata.annotations[cni.projectcalico.org/floatingIPs]";
    let sources = "metadata.annotations[cni.projectcalico.org/allowedSourcePrefixes]";
    let good = json!({
        "cni.projectcalico.org/floatingIPs": r#"["192.0.2.1"]"#,
        "cni.projectcalico.org/allowedSourcePrefixes": r#"["192.0.2.0/24", "fd00::/8"]"#,
    });
    assert_eq!(problems(good), [] as [String; 0]);
    let bad = json!({
        "cni.projectcalico.org/floatingIPs": r#"["192.0.2.1", "fd00::9", "x"]"#,
        "cni.projectcalico.org/allowedSourcePrefixes": "192.0.2.0/24",
    });
    assert_eq!(
        problems(bad),
        [
            format!("{floating}: the pod has no address of the family of fd00::9; it is left out"),
            format!("{floating}: \"x\" is no address; it is left out"),
            format!("{sources}: not a JSON list of texts; it is left out"),
        ]
    );
}
