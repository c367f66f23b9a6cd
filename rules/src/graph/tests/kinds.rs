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

fn members(dataplane: &Dataplane, set: &SetId) -> Vec<String> {
    let text = |member: &Member| match member {
        Member::Net(net) => net.to_string(),
        Member::AddressPort(..) => panic!("a set of addresses"),
    };
    dataplane.sets[set].iter().map(text).collect()
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
            "kube-baseline:  | kcnp/base kcnp/nodes",
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
    assert_eq!(members(&dataplane, denied), ["10.65.0.2/32", "10.65.0.3/32", "fd00::2/128"]);
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

#[test]
fn nodes_are_members_of_sets_of_nodes_only() {
    let mut graph = graph();
    let mut dataplane = Dataplane::default();
    let all = resources(CLUSTER);
    all.iter().for_each(|r| graph.set(r));
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    let sets_of = |dataplane: &Dataplane| -> Vec<SetId> {
        let policy = dataplane.policies.values().find(|p| p.key.id() == "kcnp/nodes").expect("it is active");
        policy.egress.iter().map(|rule| rule.destination.sets[0].clone()).collect()
    };
    let sets = sets_of(&dataplane);
    assert_eq!(members(&dataplane, &sets[0]), ["172.18.0.3/32", "203.0.113.3/32"]);
    let nodes = ["172.18.0.3/32", "172.18.0.21/32", "203.0.113.3/32", "fd00:18::21/128"];
    assert_eq!(members(&dataplane, &sets[1]), nodes);
    let other = dataplane.sets.iter().filter(|(id, _)| !sets.contains(id));
    let found: Vec<_> = other
        .flat_map(|(_, members)| members)
        .filter(|m| matches!(m, Member::Net(n) if n.to_string() == nodes[1]))
        .collect();
    assert_eq!(found, Vec::<&Member>::new(), "no other set has a node, whatever its labels");
    let moved = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {rack: b}}
status: {addresses: [{type: InternalIP, address: 172.18.0.9}]}
";
    graph.set(&resources(moved)[0]);
    graph.remove(&Key::new(Kind::KubeNode, None, "n2"));
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    assert_eq!(members(&dataplane, &sets[0]), ["172.18.0.9/32"]);
    assert_eq!(members(&dataplane, &sets[1]), ["172.18.0.9/32"]);
}
