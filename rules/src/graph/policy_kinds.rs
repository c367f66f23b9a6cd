//! All kinds of policy as the one kind that the rest of the graph knows.

use std::sync::{Arc, LazyLock};

use tortie_api::policy::{GlobalNetworkPolicySpec, NetworkPolicySpec, PerformanceHint, PolicyType, Rule};
use tortie_api::resource::Resource;
use tortie_api::selector::{Selector, SelectorError};
use tortie_api::staged::StagedAction;
use tortie_api::{Key, Kind, convert as api_convert, policy};

use super::model::{PolicyKey, PolicyKind};
use super::packed_rules::PackedRules;
use super::policies::{Flavour, Policy};
use super::{Graph, convert};

/// A specification in Calico's terms, and notes about what of the original it does not hold.
type Converted<S> = (S, Vec<String>);

impl Graph {
    /// Takes a policy of any kind.
    pub(super) fn set_policy_resource(&mut self, key: &Key, resource: &Resource) {
        if !is_listed(resource) {
            self.policies.remove_policy(&policy_key(key), &mut self.sets);
            return;
        }
        match resource {
            Resource::NetworkPolicy(o) => self.set_network_policy(key, &o.spec, false),
            Resource::GlobalNetworkPolicy(o) => self.set_global_policy(key, &o.spec, false),
            Resource::KubeNetworkPolicy(o) => {
                self.set_kube_policy(key, api_convert::network_policy(o), false);
            }
            Resource::StagedNetworkPolicy(o) => self.set_network_policy(key, &o.spec.policy, true),
            Resource::StagedGlobalNetworkPolicy(o) => self.set_global_policy(key, &o.spec.policy, true),
            Resource::StagedKubernetesNetworkPolicy(o) => {
                self.set_kube_policy(key, api_convert::staged_network_policy(o), true);
            }
            Resource::ClusterNetworkPolicy(o) => {
                self.set_cluster_policy(key, api_convert::cluster_network_policy(o));
            }
            Resource::AdminNetworkPolicy(o) => {
                self.set_cluster_policy(key, api_convert::admin_network_policy(o));
            }
            Resource::BaselineAdminNetworkPolicy(o) => {
                self.set_cluster_policy(key, api_convert::baseline_admin_network_policy(o));
            }
            _ => {}
        }
    }

    fn set_network_policy(&mut self, key: &Key, spec: &NetworkPolicySpec, staged: bool) {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let selector = convert::namespaced_policy_selector(
            spec.selector.as_ref(),
            spec.service_account_selector.as_ref(),
            namespace,
        );
        self.set_policy(key, selector, |own| Policy {
            tier: spec.tier.as_str().into(),
            order: spec.order,
            rules: PackedRules::new(
                own.canonical(),
                rules_of(&spec.types, PolicyType::Ingress, &spec.ingress),
                rules_of(&spec.types, PolicyType::Egress, &spec.egress),
            ),
            flavour: Flavour::Normal,
            everywhere: spec.performance_hints.contains(&PerformanceHint::AssumeNeededOnEveryNode),
            staged,
            notes: Vec::new(),
        });
    }

    fn set_global_policy(&mut self, key: &Key, spec: &GlobalNetworkPolicySpec, staged: bool) {
        self.set_policy(key, global_selector(spec), |own| Policy {
            tier: spec.tier.as_str().into(),
            order: spec.order,
            rules: PackedRules::new(
                own.canonical(),
                rules_of(&spec.types, PolicyType::Ingress, &spec.ingress),
                rules_of(&spec.types, PolicyType::Egress, &spec.egress),
            ),
            flavour: Flavour::of(spec),
            everywhere: spec.performance_hints.contains(&PerformanceHint::AssumeNeededOnEveryNode),
            staged,
            notes: Vec::new(),
        });
    }

    fn set_kube_policy(&mut self, key: &Key, converted: Converted<NetworkPolicySpec>, staged: bool) {
        let (spec, notes) = converted;
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let selector = convert::namespaced_policy_selector(spec.selector.as_ref(), None, namespace);
        self.set_policy(key, selector, |own| Policy {
            tier: policy::DEFAULT_TIER.into(),
            order: spec.order,
            rules: PackedRules::new(
                own.canonical(),
                rules_of(&spec.types, PolicyType::Ingress, &spec.ingress),
                rules_of(&spec.types, PolicyType::Egress, &spec.egress),
            ),
            flavour: Flavour::Normal,
            everywhere: false,
            staged,
            notes: by_field(notes),
        });
    }

    /// A direction without rules is left alone: the tiers of these policies pass what nobody decides.
    fn set_cluster_policy(&mut self, key: &Key, converted: Converted<GlobalNetworkPolicySpec>) {
        let (spec, notes) = converted;
        let some = |rules| Some(rules).filter(|rules: &&[Rule]| !rules.is_empty());
        self.set_policy(key, global_selector(&spec), |own| Policy {
            tier: spec.tier.as_str().into(),
            order: spec.order,
            rules: PackedRules::new(own.canonical(), some(&spec.ingress), some(&spec.egress)),
            flavour: Flavour::Normal,
            everywhere: false,
            staged: false,
            notes: by_field(notes),
        });
    }

    fn set_policy(
        &mut self,
        key: &Key,
        selector: Result<Selector, SelectorError>,
        policy: impl FnOnce(&Selector) -> Policy,
    ) {
        match selector {
            Ok(selector) => {
                let policy = policy(&selector);
                self.policies.set_policy(&policy_key(key), &selector, policy, &mut self.sets);
            }
            // The parts were parsed at the edge; only their sum can be too deep or a label too long. What is in
            // force stays in force.
            Err(error) => {
                let message = format!("the selector cannot be confined to its namespace: {error}");
                self.note(key, "spec.selector", &message);
            }
        }
    }
}

/// Whether the policy has a place in lists of policies. Of staged ones those have that are to be set.
fn is_listed(resource: &Resource) -> bool {
    let action = match resource {
        Resource::StagedNetworkPolicy(o) => o.spec.staged_action,
        Resource::StagedGlobalNetworkPolicy(o) => o.spec.staged_action,
        Resource::StagedKubernetesNetworkPolicy(o) => o.spec.staged_action,
        _ => return true,
    };
    action == StagedAction::Set
}

fn global_selector(spec: &GlobalNetworkPolicySpec) -> Result<Selector, SelectorError> {
    convert::global_policy_selector(
        spec.selector.as_ref(),
        spec.namespace_selector.as_ref(),
        spec.service_account_selector.as_ref(),
    )
}

/// The rules of one direction, if the policy applies to it. Without types it applies to both.
fn rules_of<'a>(types: &[PolicyType], direction: PolicyType, rules: &'a [Rule]) -> Option<&'a [Rule]> {
    (types.is_empty() || types.contains(&direction)).then_some(rules)
}

/// Notes of a conversion: they begin with the field that they are about.
fn by_field(notes: Vec<String>) -> Vec<(String, String)> {
    let split = |note: String| match note.split_once(": ") {
        Some((field, message)) => (field.to_owned(), message.to_owned()),
        None => ("spec".to_owned(), note),
    };
    notes.into_iter().map(split).collect()
}

/// The namespace of global policies, kept once.
static NO_NAMESPACE: LazyLock<Arc<str>> = LazyLock::new(Arc::default);

/// The policy that a resource is.
pub(super) fn policy_key(key: &Key) -> PolicyKey {
    let kind = match key.kind {
        Kind::GlobalNetworkPolicy => PolicyKind::GlobalNetworkPolicy,
        Kind::AdminNetworkPolicy => PolicyKind::KubernetesAdminNetworkPolicy,
        Kind::BaselineAdminNetworkPolicy => PolicyKind::KubernetesBaselineAdminNetworkPolicy,
        Kind::ClusterNetworkPolicy => PolicyKind::KubernetesClusterNetworkPolicy,
        Kind::KubeNetworkPolicy => PolicyKind::KubernetesNetworkPolicy,
        Kind::StagedGlobalNetworkPolicy => PolicyKind::StagedGlobalNetworkPolicy,
        Kind::StagedKubernetesNetworkPolicy => PolicyKind::StagedKubernetesNetworkPolicy,
        Kind::StagedNetworkPolicy => PolicyKind::StagedNetworkPolicy,
        _ => PolicyKind::NetworkPolicy,
    };
    PolicyKey {
        kind,
        namespace: key.namespace.as_deref().map_or_else(|| NO_NAMESPACE.clone(), Arc::from),
        name: key.name.as_str().into(),
    }
}
