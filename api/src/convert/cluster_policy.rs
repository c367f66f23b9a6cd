//! Kubernetes' cluster-wide policies as GlobalNetworkPolicies of Calico.
//!
//! | kind | tier | order |
//! |---|---|---|
//! | ClusterNetworkPolicy of tier Admin | `kube-admin` | its priority |
//! | ClusterNetworkPolicy of tier Baseline | `kube-baseline` | its priority |
//! | AdminNetworkPolicy | `adminnetworkpolicy` | its priority |
//! | BaselineAdminNetworkPolicy | `baselineadminnetworkpolicy` | none |
//!
//! Peers and subjects are pods, never host endpoints or network sets: both are asked for by orchestrator. (Calico
//! leaves that out of peers that are given by namespaces alone, so that network sets of those namespaces match too.
//! The API says pods.)

use super::label_selector::{namespaces, nodes, pods};
use super::port::of_cluster_rule;
use crate::kube::{
    AdminNetworkPolicySpec, BaselineAdminNetworkPolicySpec, ClusterNetworkPolicySpec, ClusterPeer,
    ClusterRule, ClusterSubject, ClusterTier, LabelSelector, NamespacedPods,
};
use crate::policy::{
    ADMIN_NETWORK_POLICY_TIER, ADMIN_TIER, Action, BASELINE_ADMIN_NETWORK_POLICY_TIER, BASELINE_TIER,
    EntityRule, GlobalNetworkPolicySpec, PolicyType, Rule, RuleMetadata,
};
use crate::resource::Object;
use crate::selector::Selector;

/// The annotation of a rule that holds the name it has in a policy of Kubernetes.
pub const RULE_NAME_ANNOTATION: &str = "name";

/// Converts a policy; the name stays the same.
///
/// A rule that cannot be followed fails closed, as the API asks: one that lets traffic through is left out, one that
/// denies or passes denies everything. A policy whose pods cannot be told has no rules. The second value says which and why. `types` names the directions that there are
/// rules for; a policy without rules has none and says nothing of any traffic.
pub fn cluster_network_policy(
    policy: &Object<ClusterNetworkPolicySpec>,
) -> (GlobalNetworkPolicySpec, Vec<String>) {
    let spec = &policy.spec;
    let tier = match spec.tier {
        ClusterTier::Admin => ADMIN_TIER,
        ClusterTier::Baseline => BASELINE_TIER,
    };
    let (ingress, egress) = (spec.ingress.iter().map(Into::into), spec.egress.iter().map(Into::into));
    convert(tier, Some(spec.priority), &spec.subject, ingress, egress)
}

/// Converts an AdminNetworkPolicy (see [`cluster_network_policy`]).
pub fn admin_network_policy(
    policy: &Object<AdminNetworkPolicySpec>,
) -> (GlobalNetworkPolicySpec, Vec<String>) {
    let spec = &policy.spec;
    let (ingress, egress) = (spec.ingress.iter().map(Into::into), spec.egress.iter().map(Into::into));
    convert(ADMIN_NETWORK_POLICY_TIER, Some(spec.priority), &spec.subject, ingress, egress)
}

/// Converts a BaselineAdminNetworkPolicy (see [`cluster_network_policy`]).
pub fn baseline_admin_network_policy(
    policy: &Object<BaselineAdminNetworkPolicySpec>,
) -> (GlobalNetworkPolicySpec, Vec<String>) {
    let spec = &policy.spec;
    let (ingress, egress) = (spec.ingress.iter().map(Into::into), spec.egress.iter().map(Into::into));
    convert(BASELINE_ADMIN_NETWORK_POLICY_TIER, None, &spec.subject, ingress, egress)
}

fn convert<'a>(
    tier: &str,
    priority: Option<i32>,
    subject: &ClusterSubject,
    ingress: impl Iterator<Item = ClusterRule<'a>>,
    egress: impl Iterator<Item = ClusterRule<'a>>,
) -> (GlobalNetworkPolicySpec, Vec<String>) {
    let mut notes = Vec::new();
    let (selectors, ingress, egress) = match subject_of(subject) {
        Ok(selectors) => {
            (Some(selectors), rules(ingress, "ingress", &mut notes), rules(egress, "egress", &mut notes))
        }
        Err(error) => {
            notes.push(format!("spec.subject: {error}; the policy is not applied"));
            (None, Vec::new(), Vec::new())
        }
    };
    let (selector, namespace_selector) = selectors.unzip();
    let types = [(PolicyType::Ingress, &ingress), (PolicyType::Egress, &egress)];
    let types = types.into_iter().filter(|(_, rules)| !rules.is_empty()).map(|(direction, _)| direction);
    let converted = GlobalNetworkPolicySpec {
        tier: tier.to_owned(),
        order: priority.map(f64::from),
        types: types.collect(),
        ingress,
        egress,
        selector,
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
        service_account_selector: None,
        namespace_selector,
        performance_hints: Vec::new(),
    };
    (converted, notes)
}

/// Selectors of pods and of their namespaces.
type Pods = (Selector, Selector);

fn subject_of(subject: &ClusterSubject) -> Result<Pods, String> {
    match (&subject.namespaces, &subject.pods) {
        (Some(selector), None) => pods_of_namespaces(selector),
        (None, Some(selected)) => some_pods(selected),
        _ => Err("does not name either namespaces or pods".to_owned()),
    }
}

fn pods_of_namespaces(selector: &LabelSelector) -> Result<Pods, String> {
    Ok((pods(None)?, namespaces(selector)?))
}

fn some_pods(selected: &NamespacedPods) -> Result<Pods, String> {
    let of = selected.namespace_selector.as_ref().map_or_else(|| Ok(Selector::all()), namespaces)?;
    Ok((pods(Some(&selected.pod_selector))?, of))
}

fn rules<'a>(
    rules: impl Iterator<Item = ClusterRule<'a>>,
    field: &str,
    notes: &mut Vec<String>,
) -> Vec<Rule> {
    let mut converted = Vec::new();
    for (index, rule) in rules.enumerate() {
        match one_rule(rule) {
            Ok(rules) => converted.extend(rules),
            Err(error) if rule.action == Action::Allow => {
                notes.push(format!("spec.{field}[{index}]: {error}; the rule is left out"));
            }
            Err(error) => {
                notes.push(format!("spec.{field}[{index}]: {error}; the rule denies everything"));
                converted.push(Rule::new(Action::Deny));
            }
        }
    }
    converted
}

/// One rule for every protocol and every peer, in that order.
fn one_rule(rule: ClusterRule<'_>) -> Result<Vec<Rule>, String> {
    let peers: Vec<EntityRule> = rule.peers.iter().map(entity).collect::<Result<_, _>>()?;
    if peers.is_empty() {
        return Err("names no peer".to_owned());
    }
    let mut rules = Vec::new();
    for (protocol, ports) in of_cluster_rule(rule.ports)? {
        for peer in &peers {
            let mut converted = Rule { protocol, metadata: metadata(rule.name), ..Rule::new(rule.action) };
            match rule.direction {
                PolicyType::Ingress => converted.source = peer.clone(),
                PolicyType::Egress => converted.destination = peer.clone(),
            }
            converted.destination.ports.clone_from(&ports);
            rules.push(converted);
        }
    }
    Ok(rules)
}

fn metadata(name: &str) -> Option<RuleMetadata> {
    let annotation = (RULE_NAME_ANNOTATION.to_owned(), name.to_owned());
    (!name.is_empty()).then(|| RuleMetadata { annotations: [annotation].into() })
}

fn entity(peer: &ClusterPeer) -> Result<EntityRule, String> {
    let of_pods = |(selector, namespaces): Pods| EntityRule {
        selector: Some(selector),
        namespace_selector: Some(namespaces),
        ..EntityRule::default()
    };
    match peer {
        ClusterPeer { namespaces: Some(selector), .. } => pods_of_namespaces(selector).map(of_pods),
        ClusterPeer { pods: Some(selected), .. } => some_pods(selected).map(of_pods),
        ClusterPeer { networks: Some(nets), .. } if !nets.is_empty() => {
            Ok(EntityRule { nets: nets.clone(), ..EntityRule::default() })
        }
        ClusterPeer { nodes: Some(selector), .. } => {
            Ok(EntityRule { nodes: Some(nodes(selector)?), ..EntityRule::default() })
        }
        ClusterPeer { domain_names: Some(_), .. } => {
            Err("domain names cannot be selected in this release".to_owned())
        }
        _ => Err("a peer names nothing that is known".to_owned()),
    }
}

#[cfg(test)]
mod tests;
