//! Kubernetes policies, checked as the Kubernetes API server does.
//!
//! Blocks of addresses with host bits (`10.0.0.1/8`) pass, since API servers before 1.36 stored them; they
//! mean the masked block.

use super::names::is_service_port_name;
use super::{Result, at_most, ensure, metadata};
use crate::kube::{IpBlock, LabelSelector, NetworkPolicySpec, Operator, Peer, PolicyPort, Requirement};
use crate::net::{IntOrString, parse_lenient_net};
use crate::resource::FieldError;

pub(super) fn network_policy(spec: &NetworkPolicySpec) -> Result {
    label_selector(&spec.pod_selector).map_err(|error| error.within("podSelector"))?;
    at_most(&spec.policy_types, 2, "policyTypes")?;
    for (index, rule) in spec.ingress.iter().enumerate() {
        peers_and_ports("from", &rule.from, &rule.ports)
            .map_err(|error| error.within_item("ingress", index))?;
    }
    for (index, rule) in spec.egress.iter().enumerate() {
        peers_and_ports("to", &rule.to, &rule.ports).map_err(|error| error.within_item("egress", index))?;
    }
    Ok(())
}

fn peers_and_ports(field: &str, peers: &[Peer], ports: &[PolicyPort]) -> Result {
    for (index, port) in ports.iter().enumerate() {
        policy_port(port).map_err(|error| error.within_item("ports", index))?;
    }
    for (index, entry) in peers.iter().enumerate() {
        peer(entry).map_err(|error| error.within_item(field, index))?;
    }
    Ok(())
}

fn policy_port(port: &PolicyPort) -> Result {
    match &port.port {
        None => ensure(port.end_port.is_none(), "endPort", || "needs a port".to_owned()),
        Some(IntOrString::Int(number)) => {
            port_number("port", *number)?;
            let Some(end) = port.end_port.map(i64::from) else { return Ok(()) };
            port_number("endPort", end)?;
            ensure(end >= *number, "endPort", || format!("{end} is below port {number}"))
        }
        Some(IntOrString::String(name)) => {
            ensure(port.end_port.is_none(), "endPort", || "needs a port number, not a name".to_owned())?;
            port_name("port", name)
        }
    }
}

pub(super) fn port_name(field: &str, name: &str) -> Result {
    ensure(is_service_port_name(name), field, || {
        format!(
            "{name:?} is no name of a port: use at most 15 lower-case letters, digits and '-', at least one letter \
             among them, no '-' at the ends or doubled"
        )
    })
}

pub(super) fn port_number(field: &str, number: i64) -> Result {
    ensure((1..=65535).contains(&number), field, || format!("{number} is outside 1 to 65535"))
}

fn peer(peer: &Peer) -> Result {
    let Some(block) = &peer.ip_block else {
        let is_empty = peer.pod_selector.is_none() && peer.namespace_selector.is_none();
        ensure(!is_empty, "", || "needs podSelector, namespaceSelector or ipBlock".to_owned())?;
        for (field, selector) in
            [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)]
        {
            if let Some(selector) = selector {
                label_selector(selector).map_err(|error| error.within(field))?;
            }
        }
        return Ok(());
    };
    ensure(peer.pod_selector.is_none() && peer.namespace_selector.is_none(), "ipBlock", || {
        "cannot stand beside podSelector or namespaceSelector".to_owned()
    })?;
    ip_block(block).map_err(|error| error.within("ipBlock"))
}

fn ip_block(block: &IpBlock) -> Result {
    let net = |text: &str| parse_lenient_net(text).map_err(|error| FieldError::new("", error.to_string()));
    let cidr = net(&block.cidr).map_err(|error| error.within("cidr"))?;
    for (index, text) in block.except.iter().enumerate() {
        let except = net(text).map_err(|error| error.within_item("except", index))?;
        let is_inside = cidr.contains(&except) && except.prefix_len() > cidr.prefix_len();
        ensure(is_inside, "", || format!("{text} is not a part of {}", block.cidr))
            .map_err(|error| error.within_item("except", index))?;
    }
    Ok(())
}

pub(super) fn label_selector(selector: &LabelSelector) -> Result {
    metadata::labels(selector.match_labels.iter()).map_err(|error| error.within("matchLabels"))?;
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        check_requirement(requirement).map_err(|error| error.within_item("matchExpressions", index))?;
    }
    Ok(())
}

fn check_requirement(requirement: &Requirement) -> Result {
    let takes_values = matches!(requirement.operator, Operator::In | Operator::NotIn);
    ensure(takes_values || requirement.values.is_empty(), "values", || {
        format!("must be empty for operator {:?}", requirement.operator)
    })?;
    ensure(!takes_values || !requirement.values.is_empty(), "values", || {
        format!("is required for operator {:?}", requirement.operator)
    })?;
    metadata::label_key(&requirement.key).map_err(|error| error.within("key"))?;
    for (index, value) in requirement.values.iter().enumerate() {
        metadata::label_value(value).map_err(|error| error.within_item("values", index))?;
    }
    Ok(())
}
