//! Kubernetes' NetworkPolicy as a NetworkPolicy of Calico.

use super::label_selector::{namespaces, pods};
use super::port::by_protocol;
use crate::kube::{self, IpBlock, Peer, PolicyPort};
use crate::net::parse_lenient_net;
use crate::policy::{Action, DEFAULT_TIER, EntityRule, NetworkPolicySpec, PolicyType, Rule};
use crate::resource::Object;
use crate::staged::Staged;

/// The order of every Kubernetes policy.
pub const KUBE_POLICY_ORDER: f64 = 1000.0;

/// Converts a policy; name and namespace stay the same.
///
/// A rule that cannot be converted is left out, so that it allows nothing; the second value says which and
/// why. If the pods that the policy is for cannot be told, it is for all pods of its namespace.
pub fn network_policy(policy: &Object<kube::NetworkPolicySpec>) -> (NetworkPolicySpec, Vec<String>) {
    convert(&policy.spec)
}

/// Converts a staged Kubernetes policy as if it were enforced (see [`network_policy`]).
pub fn staged_network_policy(
    policy: &Object<Staged<kube::NetworkPolicySpec>>,
) -> (NetworkPolicySpec, Vec<String>) {
    convert(&policy.spec.policy)
}

fn convert(spec: &kube::NetworkPolicySpec) -> (NetworkPolicySpec, Vec<String>) {
    let mut problems = Vec::new();
    let selector = pods(Some(&spec.pod_selector)).or_else(|error| {
        problems
            .push(format!("spec.podSelector: {error}; the policy is applied to all pods of the namespace"));
        pods(None)
    });
    let ingress = spec.ingress.iter().map(|rule| (rule.from.as_slice(), rule.ports.as_slice()));
    let ingress = rules(ingress, PolicyType::Ingress, &mut problems);
    let types = types(&spec.policy_types);
    let egress = if types.contains(&PolicyType::Egress) {
        let egress = spec.egress.iter().map(|rule| (rule.to.as_slice(), rule.ports.as_slice()));
        rules(egress, PolicyType::Egress, &mut problems)
    } else {
        if !spec.egress.is_empty() {
            problems.push("spec.egress: not applied, since policyTypes does not name Egress".to_owned());
        }
        Vec::new()
    };
    let converted = NetworkPolicySpec {
        tier: DEFAULT_TIER.to_owned(),
        order: Some(KUBE_POLICY_ORDER),
        ingress,
        egress,
        selector: selector.ok(),
        types,
        service_account_selector: None,
        performance_hints: Vec::new(),
    };
    (converted, problems)
}

fn types(types: &[PolicyType]) -> Vec<PolicyType> {
    let found: Vec<_> =
        [PolicyType::Ingress, PolicyType::Egress].into_iter().filter(|one| types.contains(one)).collect();
    if found.is_empty() { vec![PolicyType::Ingress] } else { found }
}

fn rules<'a>(
    rules: impl Iterator<Item = (&'a [Peer], &'a [PolicyPort])>,
    direction: PolicyType,
    problems: &mut Vec<String>,
) -> Vec<Rule> {
    let mut converted = Vec::new();
    for (index, (peers, ports)) in rules.enumerate() {
        match one_rule(peers, ports, direction) {
            Ok(rules) => converted.extend(rules),
            Err(error) => {
                let list = if direction == PolicyType::Ingress { "ingress" } else { "egress" };
                problems.push(format!("spec.{list}[{index}]: {error}; the rule is left out"));
            }
        }
    }
    converted
}

/// One rule for every protocol and every peer, in that order.
fn one_rule(peers: &[Peer], ports: &[PolicyPort], direction: PolicyType) -> Result<Vec<Rule>, String> {
    let peers = match peers {
        [] => vec![EntityRule::default()],
        peers => peers.iter().map(entity).collect::<Result<_, _>>()?,
    };
    let mut rules = Vec::new();
    for (protocol, ports) in by_protocol(ports)? {
        for peer in &peers {
            let mut rule = Rule { protocol, ..Rule::new(Action::Allow) };
            match direction {
                PolicyType::Ingress => rule.source = peer.clone(),
                PolicyType::Egress => rule.destination = peer.clone(),
            }
            rule.destination.ports.clone_from(&ports);
            rules.push(rule);
        }
    }
    Ok(rules)
}

fn entity(peer: &Peer) -> Result<EntityRule, String> {
    if let Some(block) = &peer.ip_block {
        return addresses(block);
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return Err("a peer names neither pods, namespaces nor addresses".to_owned());
    }
    Ok(EntityRule {
        selector: Some(pods(peer.pod_selector.as_ref())?),
        namespace_selector: peer.namespace_selector.as_ref().map(namespaces).transpose()?,
        ..EntityRule::default()
    })
}

fn addresses(block: &IpBlock) -> Result<EntityRule, String> {
    let net = |text: &String| parse_lenient_net(text).map_err(|error| error.to_string());
    Ok(EntityRule {
        nets: vec![net(&block.cidr)?],
        not_nets: block.except.iter().map(net).collect::<Result<_, _>>()?,
        ..EntityRule::default()
    })
}

#[cfg(test)]
mod tests;
