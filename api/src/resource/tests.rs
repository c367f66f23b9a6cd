use serde_json::json;

use super::*;

fn read(value: &Value) -> Resource {
    Resource::from_value(value).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn an_object_of_each_kind_knows_its_key() {
    for kind in Kind::ALL {
        let mut value = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": {"name": "a", "creationTimestamp": null},
        });
        if matches!(kind, Kind::FelixConfiguration | Kind::BaselineAdminNetworkPolicy) {
            value["metadata"]["name"] = json!("default");
        }
        match kind {
            Kind::IPPool => value["spec"] = json!({"cidr": "10.0.0.0/16"}),
            Kind::HostEndpoint => value["spec"] = json!({"node": "n", "interfaceName": "eth0"}),
            Kind::WorkloadEndpoint => {
                value["spec"] = json!({"node": "n", "orchestrator": "k8s", "endpoint": "eth0"});
            }
            Kind::ClusterNetworkPolicy => {
                value["spec"] = json!({"tier": "Admin", "priority": 0, "subject": {"namespaces": {}}});
            }
            Kind::AdminNetworkPolicy => {
                value["spec"] = json!({"priority": 0, "subject": {"namespaces": {}}});
            }
            Kind::BaselineAdminNetworkPolicy => value["spec"] = json!({"subject": {"namespaces": {}}}),
            Kind::EndpointSlice => value["addressType"] = json!("IPv4"),
            _ => {}
        }
        let resource = read(&value);
        assert_eq!(resource.kind(), kind);
        assert_eq!(Some(resource.key()), key_of(&value));
        assert_eq!(resource.metadata().namespace.as_deref(), kind.is_namespaced().then_some("default"));
    }
}

#[test]
fn all_standard_metadata_is_accepted_and_the_needless_is_dropped() {
    let resource = read(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "a",
            "generateName": "a-",
            "uid": "5ab1",
            "resourceVersion": "17",
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z",
            "deletionGracePeriodSeconds": 30,
            "selfLink": "/x",
            "finalizers": ["kubernetes"],
            "ownerReferences": [{"kind": "X"}],
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept"},
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Terminating"},
    }));
    let metadata = resource.metadata();
    assert_eq!(metadata.annotations.keys().collect::<Vec<_>>(), ["note"]);
    assert_eq!(metadata.resource_version.as_deref(), Some("17"));
    assert!(metadata.is_terminating());
}

#[test]
fn of_a_pod_only_what_makes_an_endpoint_is_kept() {
    let resource = read(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "annotations": {"note": "x", "cni.projectcalico.org/podIP": "10.0.0.1/32"}},
        "spec": {
            "nodeName": "n",
            "volumes": [{"name": "v", "secret": {"defaultMode": 420}}],
            "containers": [
                {"name": "c", "image": "i", "ports": [
                    {"name": "http", "containerPort": 80},
                    {"containerPort": 81},
                    {"containerPort": 82, "protocol": "UDP", "hostPort": 8082, "hostIP": "127.0.0.1"},
                ]},
            ],
            "initContainers": [{"name": "i", "ports": [{"name": "init", "containerPort": 83, "protocol": "SCTP"}]}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}], "qosClass": "x"},
    }));
    let Resource::Pod(pod) = resource else { panic!("{resource:?}") };
    assert_eq!(pod.metadata.annotations.len(), 1);
    assert_eq!(pod.spec.ports.iter().map(|port| port.container_port).collect::<Vec<_>>(), [80, 82, 83]);
    assert_eq!(pod.spec.pod_ips.len(), 2);
    assert_eq!(pod.spec.phase, kube::PodPhase::Running);
}

#[test]
fn kubernetes_objects_may_have_fields_that_nobody_here_reads_inside_but_not_beside() {
    let mut value = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"clusterIP": "None", "sessionAffinity": "None", "ports": [{"port": 80, "targetPort": "http", "appProtocol": "x"}]},
        "status": {"loadBalancer": {}},
    });
    assert!(Resource::from_value(&value).is_ok());
    value["data"] = json!({});
    assert_eq!(Resource::from_value(&value).unwrap_err().field, "data");
}

#[test]
fn the_own_top_level_fields_of_a_kind_are_known() {
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "a"},
        "secrets": [{"name": "s"}],
        "imagePullSecrets": [],
        "automountServiceAccountToken": false,
    });
    assert!(Resource::from_value(&account).is_ok());
    let slice = read(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "nodeName": "n"}],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}, {"name": "all"}],
    }));
    let Resource::EndpointSlice(slice) = slice else { panic!("{slice:?}") };
    assert_eq!(slice.spec.endpoints[0].addresses.len(), 1);
    assert_eq!(slice.spec.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [Some(80), None]);
}

#[test]
fn a_path_grows_from_the_inside() {
    let error =
        FieldError::new("", "is wrong").within_item("ports", 1).within("source").within_item("ingress", 0);
    assert_eq!(error.within("spec").to_string(), "spec.ingress[0].source.ports[1]: is wrong");
    assert_eq!(FieldError::new("", "is wrong").to_string(), "is wrong");
}
