//! Clusters of the shapes of the measurements of packet rates, and of a production node.

use serde_json::{Value, json};
use tortie_api::net::Protocol;
use tortie_api::resource::Resource;

use crate::{Case, shapes};

fn resource(manifest: &Value) -> Resource {
    Resource::from_value(manifest).expect("a valid manifest")
}

/// The n-th address of 10.0.0.0/8.
fn address(n: usize) -> String {
    format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256)
}

fn pod(n: usize, app: usize, node: &str) -> Resource {
    resource(&json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "WorkloadEndpoint",
        "metadata": {
            "name": format!("{node}-k8s-pod{n}-eth0"),
            "namespace": "default",
            "labels": {"app": format!("app-{app}"), "all": "yes"},
        },
        "spec": {
            "node": node, "orchestrator": "k8s", "pod": format!("pod{n}"), "endpoint": "eth0",
            "interfaceName": format!("cali{n}"), "ipNetworks": [format!("{}/32", address(n))],
            "profiles": ["open"],
        },
    }))
}

/// A policy for all pods with ten rules, each for the pods of an app and two ports.
fn policy(n: usize, apps: usize, first_port: usize) -> Resource {
    let rule = |rule: usize| {
        json!({
            "action": "Allow",
            "protocol": if rule.is_multiple_of(2) { "TCP" } else { "UDP" },
            "source": {"selector": format!("app == 'app-{}'", (n * 10 + rule) % apps)},
            "destination": {"ports": [first_port + rule, 9000 + n]},
        })
    };
    resource(&json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": format!("policy-{n}")},
        "spec": {"order": n, "selector": "has(all)", "types": ["Ingress"],
            "ingress": (0..10).map(rule).collect::<Vec<_>>()},
    }))
}

fn profile() -> Resource {
    resource(&json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "Profile",
        "metadata": {"name": "open"},
        "spec": {"egress": [{"action": "Allow"}]},
    }))
}

/// 30 pods of this node and ten of others for each rule.
pub(crate) fn policies(count: usize) -> Case {
    let apps = count * 10;
    let mut resources = vec![profile()];
    resources.extend((0..30).map(|n| pod(n, n % apps, shapes::LOCAL)));
    resources.extend((30..apps * 10).map(|n| pod(n, n % apps, shapes::REMOTE)));
    resources.extend((0..count).map(|n| policy(n, apps, 80)));
    Case {
        name: format!("{count} policies x 10 rules"),
        resources,
        relabelled: Some(pod(31, (31 + 1) % apps, shapes::REMOTE)),
        edited: Some(policy(count / 2, apps, 180)),
    }
}

/// Ten policies that concern 100,000 pods.
pub(crate) fn large_sets() -> Case {
    const APPS: usize = 100;
    let mut resources = vec![profile()];
    resources.extend((0..30).map(|n| pod(n, n % APPS, shapes::LOCAL)));
    resources.extend((30..100_000).map(|n| pod(n, n % APPS, shapes::REMOTE)));
    resources.extend((0..10).map(|n| policy(n, APPS, 80)));
    Case {
        name: "10 policies, 100,000 pods".to_owned(),
        resources,
        relabelled: Some(pod(31, 32, shapes::REMOTE)),
        edited: Some(policy(5, APPS, 180)),
    }
}

/// 294 policies of 68 rules over 3,708 sets of 70 members. A policy gets one more rule, a pod another app.
pub(crate) fn production() -> Case {
    let resources = shapes::production();
    let edited = resources.iter().find_map(|resource| match resource {
        Resource::GlobalNetworkPolicy(policy) if policy.metadata.name == "policy-150" => {
            let mut policy = policy.clone();
            let mut rule = policy.spec.ingress[3].clone();
            rule.protocol = Some(Protocol::Sctp);
            policy.spec.ingress.insert(10, rule);
            Some(Resource::GlobalNetworkPolicy(policy))
        }
        _ => None,
    });
    let relabelled = resources.iter().find_map(|resource| match resource {
        Resource::WorkloadEndpoint(endpoint) if endpoint.spec.node == shapes::REMOTE => {
            let mut endpoint = endpoint.clone();
            endpoint.metadata.labels.insert("app".to_owned(), "app-7".to_owned());
            Some(Resource::WorkloadEndpoint(endpoint))
        }
        _ => None,
    });
    Case { name: "production node".to_owned(), relabelled, edited, resources }
}
