//! Kubernetes' cluster-wide policies in the graph: their place in lists, and what their peers are.

use super::*;

/// The policies of the endpoint of a pod `db`, for traffic to it and from it, by tier.
fn policies_of_db(dataplane: &Dataplane) -> Vec<String> {
    let db = dataplane.endpoints.values().find(|e| &*e.id == "shop/n1-k8s-db-eth0").expect("db is local");
    let ids = |list: &[super::super::model::PolicyRef]| -> String {
        list.iter().map(|p| p.key.id()).collect::<Vec<_>>().join(" ")
    };
    db.tiers.iter().map(|t| format!("{}: {} | {}", t.name, ids(&t.ingress), ids(&t.egress))).collect()
}

#[test]
fn each_kind_has_its_tier() {
    assert_eq!(
        policies_of_db(&from_scratch(&resources(CLUSTER)))
            .iter()
            .filter(|t| t.contains("kcnp") || t.contains("anp"))
            .collect::<Vec<_>>(),
        [
            "adminnetworkpolicy:  | kanp/guard",
            "kube-admin: kcnp/guard | ",
            "baselineadminnetworkpolicy: kbanp/default | ",
            "kube-baseline:  | kcnp/base",
        ]
    );
}

#[test]
fn policies_of_equal_priority_are_ordered_by_name() {
    let policy = |name: &str, priority: u32| {
        format!(
            "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: {name}}}
spec:
  tier: Admin
  priority: {priority}
  subject: {{namespaces: {{}}}}
  ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}]
---"
        )
    };
    let text = [policy("z", 0), policy("c", 7), policy("a", 1000), policy("b", 7)].concat();
    let mut all = resources(&text);
    all.extend(resources(CLUSTER).into_iter().filter(|r| !r.kind().is_policy()));
    assert_eq!(policies_of_db(&from_scratch(&all)), ["kube-admin: kcnp/z kcnp/b kcnp/c kcnp/a | "]);
}

#[test]
fn a_policy_without_rules_is_in_no_list() {
    let text = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: empty}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}
";
    let mut all = resources(text);
    all.extend(resources(CLUSTER).into_iter().filter(|r| !r.kind().is_policy()));
    assert_eq!(policies_of_db(&from_scratch(&all)), ["kube-admin:  | "]);
}

#[test]
fn namespaces_as_a_peer_are_their_pods_and_not_their_network_sets() {
    let dataplane = from_scratch(&resources(CLUSTER));
    let policy = dataplane.policies.values().find(|p| p.key.id() == "kcnp/guard").expect("it is active");
    let denied = &policy.ingress[1].source.sets[0];
    let members: Vec<String> = dataplane.sets[denied]
        .iter()
        .map(|member| match member {
            Member::Net(net) => net.to_string(),
            Member::AddressPort(..) => panic!("a set of addresses"),
        })
        .collect();
    assert_eq!(members, ["10.65.0.2/32", "10.65.0.3/32", "fd00::2/128"]);
    assert_eq!(policy.ingress[0].annotations, ["name=from shop"]);
}

#[test]
fn rules_that_fail_closed_are_reported_with_their_field() {
    let mut graph = graph();
    resources(CLUSTER).iter().for_each(|r| graph.set(r));
    graph.flush();
    let problems: Vec<String> = graph
        .problems()
        .into_iter()
        .filter(|p| p.object.contains("Admin"))
        .map(|p| format!("{}: {}: {}", p.key.expect("a resource"), p.field, p.message))
        .collect();
    assert_eq!(
        problems,
        [
            "AdminNetworkPolicy/guard: spec.egress[0]: domain names cannot be selected in this release; the rule denies \
             everything",
            "AdminNetworkPolicy/guard: spec.egress[1]: domain names cannot be selected in this release; the rule is left \
             out",
        ]
    );
}
