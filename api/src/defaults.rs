//! Defaults of the API: what an API server fills in before it stores an object.
//!
//! `types` of a policy is filled in as Calico's library does, by rules that are there: an empty list
//! (`egress: []`) counts as none.
//!
//! | ingress rules | egress rules | types |
//! |---|---|---|
//! | any | none | Ingress |
//! | none | some | Egress |
//! | some | some | Ingress, Egress |
//!
//! A staged policy that stands for a deletion has no rules, and so gets no types.

use ipnet::IpNet;

use crate::ippool::{IPPoolSpec, PoolUse};
use crate::kube::pod::annotation;
use crate::kube::{self, PodSpec};
use crate::labels::KUBE_NAMESPACE_NAME_LABEL;
use crate::meta::Metadata;
use crate::policy::{DEFAULT_TIER, PolicyType, Rule};
use crate::resource::{Object, Resource};
use crate::selector::Selector;
use crate::staged::StagedAction;

/// Prefix length of the blocks of an IPv4 pool that names none.
pub const BLOCK_SIZE_V4: u8 = 26;

/// Prefix length of the blocks of an IPv6 pool that names none.
pub const BLOCK_SIZE_V6: u8 = 122;

/// The service account of a pod that names none.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// Fills in what the object leaves open. Doing it twice changes nothing more.
pub fn apply(resource: &mut Resource) {
    match resource {
        Resource::NetworkPolicy(policy) => {
            let spec = &mut policy.spec;
            policy_defaults(&mut spec.tier, &mut spec.types, &spec.ingress, &spec.egress);
        }
        Resource::GlobalNetworkPolicy(policy) => {
            let spec = &mut policy.spec;
            policy_defaults(&mut spec.tier, &mut spec.types, &spec.ingress, &spec.egress);
        }
        Resource::StagedNetworkPolicy(Object { spec, .. }) if spec.staged_action != StagedAction::Delete => {
            let spec = &mut spec.policy;
            policy_defaults(&mut spec.tier, &mut spec.types, &spec.ingress, &spec.egress);
        }
        Resource::StagedGlobalNetworkPolicy(Object { spec, .. })
            if spec.staged_action != StagedAction::Delete =>
        {
            let spec = &mut spec.policy;
            policy_defaults(&mut spec.tier, &mut spec.types, &spec.ingress, &spec.egress);
        }
        Resource::StagedKubernetesNetworkPolicy(Object { spec, .. })
            if spec.staged_action != StagedAction::Delete =>
        {
            kube_policy_types(&mut spec.policy);
        }
        Resource::KubeNetworkPolicy(policy) => kube_policy_types(&mut policy.spec),
        Resource::IPPool(pool) => pool_defaults(&mut pool.spec),
        Resource::Namespace(namespace) => namespace_name_label(&mut namespace.metadata),
        Resource::Pod(pod) => pod_service_account(pod),
        _ => {}
    }
}

/// The label with the namespace's own name, by which policies select it. What a manifest says there is
/// overridden, as in an API server: no namespace can pass for another.
fn namespace_name_label(metadata: &mut Metadata) {
    if !metadata.name.is_empty() {
        metadata.labels.insert(KUBE_NAMESPACE_NAME_LABEL.to_owned(), metadata.name.clone());
    }
}

/// What the ServiceAccount admission of an API server does. Mirrors of pods that a kubelet runs from its own
/// files are let through as they are: they run as no service account.
fn pod_service_account(pod: &mut Object<PodSpec>) {
    let is_mirror = pod.metadata.annotations.contains_key(annotation::MIRROR);
    if pod.spec.service_account_name.is_empty() && !is_mirror {
        DEFAULT_SERVICE_ACCOUNT.clone_into(&mut pod.spec.service_account_name);
    }
}

fn policy_defaults(tier: &mut String, types: &mut Vec<PolicyType>, ingress: &[Rule], egress: &[Rule]) {
    if tier.is_empty() {
        DEFAULT_TIER.clone_into(tier);
    }
    if types.is_empty() {
        *types = match (ingress.is_empty(), egress.is_empty()) {
            (_, true) => vec![PolicyType::Ingress],
            (true, false) => vec![PolicyType::Egress],
            (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
        };
    }
}

/// Kubernetes' own default: always Ingress, and Egress if there are egress rules.
fn kube_policy_types(spec: &mut kube::NetworkPolicySpec) {
    if spec.policy_types.is_empty() {
        spec.policy_types.push(PolicyType::Ingress);
        if !spec.egress.is_empty() {
            spec.policy_types.push(PolicyType::Egress);
        }
    }
}

fn pool_defaults(spec: &mut IPPoolSpec) {
    if spec.block_size == 0 {
        spec.block_size = match spec.cidr {
            IpNet::V4(_) => BLOCK_SIZE_V4,
            IpNet::V6(_) => BLOCK_SIZE_V6,
        };
    }
    spec.node_selector.get_or_insert_with(Selector::all);
    if spec.allowed_uses.is_empty() {
        spec.allowed_uses.push(PoolUse::Workload);
        // A tunnel is in no namespace, so it cannot be served by a pool that is for some of them.
        if spec.namespace_selector.is_none() {
            spec.allowed_uses.push(PoolUse::Tunnel);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn namespace_labels(metadata: &Value) -> Value {
        let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        serde_json::to_value(&Resource::from_value(&value).unwrap().metadata().labels).unwrap()
    }

    #[test]
    fn a_namespace_has_its_name_as_a_label() {
        assert_eq!(
            namespace_labels(&json!({"name": "shop", "labels": {"env": "prod"}})),
            json!({"env": "prod", "kubernetes.io/metadata.name": "shop"})
        );
        assert_eq!(
            namespace_labels(&json!({"name": "shop"})),
            json!({"kubernetes.io/metadata.name": "shop"})
        );
    }

    #[test]
    fn a_namespace_cannot_pass_for_another_by_its_name_label() {
        for wrong in ["kube-system", "", "no label value!"] {
            let metadata = json!({"name": "shop", "labels": {"kubernetes.io/metadata.name": wrong}});
            assert_eq!(
                namespace_labels(&metadata),
                json!({"kubernetes.io/metadata.name": "shop"}),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn defaults_may_be_filled_in_twice() {
        for (api_version, kind) in
            [("v1", "Namespace"), ("v1", "Pod"), ("projectcalico.org/v3", "NetworkPolicy")]
        {
            let value = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
            let once = Resource::from_value(&value).unwrap();
            let mut twice = once.clone();
            apply(&mut twice);
            assert_eq!(twice, once);
        }
    }

    fn service_account_of(metadata: &Value, spec: &Value) -> String {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        match Resource::from_value(&value).unwrap() {
            Resource::Pod(pod) => pod.spec.service_account_name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_that_names_no_service_account_runs_as_the_default_one() {
        let metadata = json!({"name": "p"});
        for spec in
            [json!({}), json!({"serviceAccountName": ""}), json!({"serviceAccountName": null}), json!(null)]
        {
            assert_eq!(service_account_of(&metadata, &spec), "default", "{spec}");
        }
        assert_eq!(service_account_of(&metadata, &json!({"serviceAccountName": "robot"})), "robot");
    }

    #[test]
    fn the_former_field_of_the_service_account_is_taken_if_the_present_one_is_empty() {
        let metadata = json!({"name": "p"});
        assert_eq!(service_account_of(&metadata, &json!({"serviceAccount": "robot"})), "robot");
        let both = json!({"serviceAccount": "old", "serviceAccountName": "robot"});
        assert_eq!(service_account_of(&metadata, &both), "robot");
    }

    #[test]
    fn a_mirror_pod_runs_as_no_service_account() {
        let metadata = json!({"name": "p", "annotations": {"kubernetes.io/config.mirror": "5ab1"}});
        assert_eq!(service_account_of(&metadata, &json!({})), "");
    }

    fn types_of(spec: &Value) -> Vec<PolicyType> {
        let value = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "NetworkPolicy",
            "metadata": {"name": "p"},
            "spec": spec,
        });
        match Resource::from_value(&value).unwrap() {
            Resource::NetworkPolicy(policy) => policy.spec.types,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn types_follow_from_the_rules_that_are_there() {
        use PolicyType::{Egress, Ingress};
        let rules = json!([{"action": "Allow"}]);
        assert_eq!(types_of(&json!({})), [Ingress]);
        assert_eq!(types_of(&json!({"ingress": rules})), [Ingress]);
        assert_eq!(types_of(&json!({"egress": rules})), [Egress]);
        assert_eq!(types_of(&json!({"ingress": rules, "egress": rules})), [Ingress, Egress]);
        assert_eq!(types_of(&json!({"ingress": rules, "egress": []})), [Ingress]);
        assert_eq!(types_of(&json!({"ingress": [], "egress": rules})), [Egress]);
        assert_eq!(types_of(&json!({"types": ["Egress"]})), [Egress]);
    }

    #[test]
    fn a_kubernetes_policy_with_egress_rules_and_no_types_has_both() {
        use PolicyType::{Egress, Ingress};
        for (spec, types) in [
            (json!({"podSelector": {}}), vec![Ingress]),
            (json!({"podSelector": {}, "egress": [{}]}), vec![Ingress, Egress]),
            (json!({"podSelector": {}, "egress": []}), vec![Ingress]),
            (json!({"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]}), vec![Egress]),
        ] {
            let value = json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "p"},
                "spec": spec,
            });
            let Resource::KubeNetworkPolicy(policy) = Resource::from_value(&value).unwrap() else { panic!() };
            assert_eq!(policy.spec.policy_types, types, "{spec}");
        }
    }

    #[test]
    fn a_pool_gets_block_size_uses_and_node_selector() {
        for (cidr, size) in [("10.65.0.0/16", 26), ("fd00::/64", 122)] {
            let value = json!({
                "apiVersion": "projectcalico.org/v3",
                "kind": "IPPool",
                "metadata": {"name": "p"},
                "spec": {"cidr": cidr},
            });
            let Resource::IPPool(pool) = Resource::from_value(&value).unwrap() else { panic!() };
            assert_eq!(pool.spec.block_size, size);
            assert_eq!(pool.spec.allowed_uses, [PoolUse::Workload, PoolUse::Tunnel]);
            assert_eq!(pool.spec.node_selector.unwrap().canonical(), "all()");
        }
    }
}
