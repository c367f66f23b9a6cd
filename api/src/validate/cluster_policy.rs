//! Cluster-wide policies of Kubernetes, checked as their CRDs do.
//!
//! The limits are those of the CRDs, the larger ones where releases differ: an agent that refused what an API server
//! has stored would leave a policy unenforced.

use super::kube::{label_selector, port_name, port_number};
use super::{Result, at_most, ensure};
use crate::kube::{
    AdminNetworkPolicySpec, AdminPort, BaselineAdminNetworkPolicySpec, ClusterNetworkPolicySpec, ClusterPeer,
    ClusterPortMatch, ClusterProtocol, ClusterRule, ClusterSubject, NamespacedPods, RulePorts,
};
use crate::policy::{Action, PolicyType};
use crate::resource::FieldError;

/// The highest priority.
const PRIORITY_MAX: i32 = 1000;
/// The most rules of one direction. (v1alpha2 began with 100 and went to 25 in October 2025.)
const RULES_MAX: usize = 100;
/// The most peers of a rule.
const PEERS_MAX: usize = 100;
/// The most ports or protocols of a rule.
const PORTS_MAX: usize = 100;
/// The most networks or domain names of a peer.
const NETWORKS_MAX: usize = 25;
/// The longest name of a rule, in characters.
const NAME_MAX: usize = 100;

/// Where the API versions differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1Alpha1,
    V1Alpha2,
}

pub(super) fn cluster_network_policy(spec: &ClusterNetworkPolicySpec) -> Result {
    priority(spec.priority)?;
    subject(&spec.subject, Version::V1Alpha2)?;
    rules(spec.ingress.iter().map(Into::into), spec.ingress.len(), "ingress", Version::V1Alpha2)?;
    rules(spec.egress.iter().map(Into::into), spec.egress.len(), "egress", Version::V1Alpha2)
}

pub(super) fn admin_network_policy(spec: &AdminNetworkPolicySpec) -> Result {
    priority(spec.priority)?;
    subject(&spec.subject, Version::V1Alpha1)?;
    rules(spec.ingress.iter().map(Into::into), spec.ingress.len(), "ingress", Version::V1Alpha1)?;
    rules(spec.egress.iter().map(Into::into), spec.egress.len(), "egress", Version::V1Alpha1)
}

pub(super) fn baseline_admin_network_policy(spec: &BaselineAdminNetworkPolicySpec) -> Result {
    subject(&spec.subject, Version::V1Alpha1)?;
    rules(spec.ingress.iter().map(Into::into), spec.ingress.len(), "ingress", Version::V1Alpha1)?;
    rules(spec.egress.iter().map(Into::into), spec.egress.len(), "egress", Version::V1Alpha1)?;
    baseline_rules(spec.ingress.iter().map(Into::into), "ingress")?;
    baseline_rules(spec.egress.iter().map(Into::into), "egress")
}

fn priority(priority: i32) -> Result {
    ensure((0..=PRIORITY_MAX).contains(&priority), "priority", || {
        format!("{priority} is outside 0 to {PRIORITY_MAX}")
    })
}

fn subject(subject: &ClusterSubject, version: Version) -> Result {
    let check = || {
        exactly_one(&[("namespaces", subject.namespaces.is_some()), ("pods", subject.pods.is_some())])?;
        selected(subject.namespaces.as_ref(), "namespaces")?;
        pods(subject.pods.as_ref(), version)
    };
    check().map_err(|error| error.within("subject"))
}

fn rules<'a>(
    rules: impl Iterator<Item = ClusterRule<'a>>,
    count: usize,
    field: &str,
    version: Version,
) -> Result {
    ensure(count <= RULES_MAX, field, || format!("has {count} entries, at most {RULES_MAX} are allowed"))?;
    for (index, entry) in rules.enumerate() {
        rule(entry, version).map_err(|error| error.within_item(field, index))?;
    }
    Ok(())
}

/// What a baseline policy lacks, for there is no tier after it and its CRD came before domain names.
fn baseline_rules<'a>(rules: impl Iterator<Item = ClusterRule<'a>>, field: &str) -> Result {
    for (index, rule) in rules.enumerate() {
        let check = || {
            ensure(rule.action != Action::Pass, "action", || {
                "a BaselineAdminNetworkPolicy cannot pass: use Allow or Deny".to_owned()
            })?;
            for (at, peer) in rule.peers.iter().enumerate() {
                ensure(peer.domain_names.is_none(), "domainNames", || {
                    "is not possible in a BaselineAdminNetworkPolicy".to_owned()
                })
                .map_err(|error| error.within_item(rule.peers_field(), at))?;
            }
            Ok(())
        };
        check().map_err(|error: FieldError| error.within_item(field, index))?;
    }
    Ok(())
}

fn rule(rule: ClusterRule<'_>, version: Version) -> Result {
    ensure(rule.name.chars().count() <= NAME_MAX, "name", || {
        format!("is longer than {NAME_MAX} characters")
    })?;
    let field = rule.peers_field();
    some(rule.peers, PEERS_MAX, field)?;
    for (index, entry) in rule.peers.iter().enumerate() {
        peer(entry, rule.direction, version).map_err(|error| error.within_item(field, index))?;
        let has_ports = entry.namespaces.is_some() || entry.pods.is_some();
        ensure(has_ports || !rule.ports.has_named(), "", || {
            "has no named ports: only pods have, so no port of the rule may be given by name".to_owned()
        })
        .map_err(|error| error.within_item(field, index))?;
    }
    match rule.ports {
        RulePorts::Protocols(list) => each(list, "protocols", protocol),
        RulePorts::Ports(list) => each(list, "ports", port),
    }
}

fn each<T>(list: Option<&[T]>, field: &str, check: fn(&T) -> Result) -> Result {
    let Some(list) = list else { return Ok(()) };
    some(list, PORTS_MAX, field)?;
    for (index, entry) in list.iter().enumerate() {
        check(entry).map_err(|error| error.within_item(field, index))?;
    }
    Ok(())
}

fn peer(peer: &ClusterPeer, direction: PolicyType, version: Version) -> Result {
    exactly_one(&[
        ("namespaces", peer.namespaces.is_some()),
        ("pods", peer.pods.is_some()),
        ("nodes", peer.nodes.is_some()),
        ("networks", peer.networks.is_some()),
        ("domainNames", peer.domain_names.is_some()),
    ])?;
    if direction == PolicyType::Ingress {
        for (field, is_set) in [
            ("nodes", peer.nodes.is_some()),
            ("networks", peer.networks.is_some()),
            ("domainNames", peer.domain_names.is_some()),
        ] {
            ensure(!is_set, field, || "is not possible in ingress rules: use namespaces or pods".to_owned())?;
        }
    }
    selected(peer.namespaces.as_ref(), "namespaces")?;
    pods(peer.pods.as_ref(), version)?;
    selected(peer.nodes.as_ref(), "nodes")?;
    if let Some(networks) = &peer.networks {
        some(networks, NETWORKS_MAX, "networks")?;
    }
    let Some(names) = &peer.domain_names else { return Ok(()) };
    some(names, NETWORKS_MAX, "domainNames")?;
    for (index, name) in names.iter().enumerate() {
        ensure(is_domain_name(name), "", || {
            format!("{name:?} is no domain name like example.com or *.example.com")
        })
        .map_err(|error| error.within_item("domainNames", index))?;
    }
    Ok(())
}

fn selected(selector: Option<&crate::kube::LabelSelector>, field: &str) -> Result {
    selector.map_or(Ok(()), label_selector).map_err(|error| error.within(field))
}

fn pods(pods: Option<&NamespacedPods>, version: Version) -> Result {
    let Some(pods) = pods else { return Ok(()) };
    let check = || {
        ensure(
            version == Version::V1Alpha2 || pods.namespace_selector.is_some(),
            "namespaceSelector",
            || "is required; an empty one selects all namespaces".to_owned(),
        )?;
        selected(pods.namespace_selector.as_ref(), "namespaceSelector")?;
        selected(Some(&pods.pod_selector), "podSelector")
    };
    check().map_err(|error| error.within("pods"))
}

fn protocol(entry: &ClusterProtocol) -> Result {
    exactly_one(&[
        ("tcp", entry.tcp.is_some()),
        ("udp", entry.udp.is_some()),
        ("sctp", entry.sctp.is_some()),
        ("destinationNamedPort", entry.destination_named_port.is_some()),
    ])?;
    for (field, ports) in [("tcp", &entry.tcp), ("udp", &entry.udp), ("sctp", &entry.sctp)] {
        ports.as_ref().map_or(Ok(()), destination).map_err(|error| error.within(field))?;
    }
    entry.destination_named_port.as_deref().map_or(Ok(()), |name| port_name("destinationNamedPort", name))
}

fn destination(ports: &ClusterPortMatch) -> Result {
    let port = ports.destination_port.ok_or_else(|| FieldError::new("destinationPort", "is required"))?;
    let check = || {
        exactly_one(&[("number", port.number.is_some()), ("range", port.range.is_some())])?;
        if let Some(number) = port.number {
            port_number("number", number)?;
        }
        let Some(range) = port.range else { return Ok(()) };
        bounds(range.start, range.end).map_err(|error| error.within("range"))?;
        ensure(range.start < range.end, "range", || {
            format!("ends at {}, which is not above its start {}", range.end, range.start)
        })
    };
    check().map_err(|error| error.within("destinationPort"))
}

fn port(entry: &AdminPort) -> Result {
    exactly_one(&[
        ("portNumber", entry.port_number.is_some()),
        ("namedPort", entry.named_port.is_some()),
        ("portRange", entry.port_range.is_some()),
    ])?;
    if let Some(number) = &entry.port_number {
        port_number("port", number.port).map_err(|error| error.within("portNumber"))?;
    }
    if let Some(range) = &entry.port_range {
        bounds(range.start, range.end).map_err(|error| error.within("portRange"))?;
        ensure(range.start <= range.end, "portRange", || {
            format!("ends at {}, which is below its start {}", range.end, range.start)
        })?;
    }
    entry.named_port.as_deref().map_or(Ok(()), |name| port_name("namedPort", name))
}

fn bounds(start: i64, end: i64) -> Result {
    port_number("start", start)?;
    port_number("end", end)
}

/// Checks a list that is there: it has an entry, and not too many.
fn some<T>(list: &[T], max: usize, field: &str) -> Result {
    ensure(!list.is_empty(), field, || "needs at least one entry".to_owned())?;
    at_most(list, max, field)
}

/// Checks that of fields that exclude each other one is set.
fn exactly_one(fields: &[(&str, bool)]) -> Result {
    let mut set = fields.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name);
    match (set.next(), set.next()) {
        (Some(_), None) => Ok(()),
        (Some(first), Some(second)) => {
            Err(FieldError::new("", format!("has both {first} and {second}, which exclude each other")))
        }
        (None, _) => {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            let (last, rest) = names.split_last().expect("some field is asked for");
            Err(FieldError::new("", format!("needs one of {} and {last}", rest.join(", "))))
        }
    }
}

/// Labels of letters, digits, `-` and `_` joined by dots, at least two; `*` for those before them.
fn is_domain_name(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && label.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    name.contains('.') && name.split('.').all(is_label)
}
