//! One rule of a policy or profile.

use super::metadata::SUBDOMAIN_FORM;
use super::names::is_dns_subdomain;
use super::policy::no_global;
use super::{Result, at_most, ensure};
use crate::net::{IpNet, IpVersion, Port, Protocol};
use crate::policy::{Action, EntityRule, HttpMatch, Icmp, Rule, ServiceAccountMatch};
use crate::resource::FieldError;

/// The most networks of one list.
const NETS_MAX: usize = 256;
/// The most ports of one list.
const PORTS_MAX: usize = 50;
/// The longest name of a service or namespace.
const NAME_MAX: usize = 253;
/// The most HTTP methods and the most HTTP paths.
const HTTP_MAX: usize = 20;
/// The longest HTTP path, in characters.
const HTTP_PATH_MAX: usize = 1024;

/// Which list of a policy a rule stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

pub(super) fn check(rule: &Rule, direction: Direction) -> Result {
    icmp(rule)?;
    if let Some(http_match) = &rule.http {
        http(rule, http_match, direction).map_err(|error| error.within("http"))?;
    }
    for (side, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        check_entity(entity, side == "destination")
            .and_then(|()| ports(rule.protocol, entity))
            .map_err(|error| error.within(side))?;
    }
    families(rule)
}

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

fn icmp(rule: &Rule) -> Result {
    for (field, icmp) in [("icmp", &rule.icmp), ("notICMP", &rule.not_icmp)] {
        let Some(icmp) = icmp else { continue };
        let is_icmp = rule.protocol.is_some_and(|p| matches!(p.number(), ICMP | ICMP_V6));
        ensure(is_icmp, field, || "needs protocol ICMP or ICMPv6".to_owned())?;
        icmp_numbers(*icmp).map_err(|error| error.within(field))?;
    }
    for protocol in [rule.protocol, rule.not_protocol] {
        let needed = match protocol {
            Some(Protocol::Icmp) => IpVersion::V4,
            Some(Protocol::IcmpV6) => IpVersion::V6,
            _ => continue,
        };
        ensure(rule.ip_version.is_none_or(|version| version == needed), "ipVersion", || {
            format!("{} is a protocol of {needed}", if needed == IpVersion::V4 { "ICMP" } else { "ICMPv6" })
        })?;
    }
    Ok(())
}

fn icmp_numbers(icmp: Icmp) -> Result {
    ensure(icmp.icmp_type != Some(255), "type", || "is a number from 0 to 254".to_owned())?;
    ensure(icmp.code.is_none() || icmp.icmp_type.is_some(), "code", || "needs a type".to_owned())
}

fn http(rule: &Rule, http: &HttpMatch, direction: Direction) -> Result {
    const TCP: u8 = 6;
    ensure(rule.action == Action::Allow, "", || "needs action Allow".to_owned())?;
    ensure(rule.protocol.is_none_or(|p| p.number() == TCP), "", || "needs protocol TCP".to_owned())?;
    ensure(direction == Direction::Ingress, "", || "is not possible in an egress rule".to_owned())?;
    at_most(&http.methods, HTTP_MAX, "methods")?;
    at_most(&http.paths, HTTP_MAX, "paths")?;
    for (index, path) in http.paths.iter().enumerate() {
        let path = match (&path.exact, &path.prefix) {
            (Some(text), None) | (None, Some(text)) => Ok(text),
            _ => Err(FieldError::new("", "has either exact or prefix")),
        };
        path.and_then(|text| {
            ensure(text.chars().count() <= HTTP_PATH_MAX, "", || {
                format!("is longer than {HTTP_PATH_MAX} characters")
            })
        })
        .map_err(|error| error.within_item("paths", index))?;
    }
    Ok(())
}

fn check_entity(entity: &EntityRule, is_destination: bool) -> Result {
    at_most(&entity.nets, NETS_MAX, "nets")?;
    at_most(&entity.not_nets, NETS_MAX, "notNets")?;
    at_most(&entity.ports, PORTS_MAX, "ports")?;
    at_most(&entity.not_ports, PORTS_MAX, "notPorts")?;
    for (index, net) in entity.not_nets.iter().enumerate() {
        ensure(net.prefix_len() != 0, "", || format!("{net} is every address: the rule could match nothing"))
            .map_err(|error| error.within_item("notNets", index))?;
    }
    no_global("selector", entity.selector.as_ref())?;
    no_global("notSelector", entity.not_selector.as_ref())?;
    if let Some(accounts) = &entity.service_accounts {
        service_accounts(accounts).map_err(|error| error.within("serviceAccounts"))?;
    }
    let is_mixed = |s: &crate::selector::Selector| s.contains_global() && s.canonical() != "global()";
    ensure(!entity.namespace_selector.as_ref().is_some_and(is_mixed), "namespaceSelector", || {
        "global() may only stand alone".to_owned()
    })?;
    services(entity, is_destination)
}

/// Names become a part of a selector's text, so nothing that could end it may be in one.
fn service_accounts(accounts: &ServiceAccountMatch) -> Result {
    no_global("selector", accounts.selector.as_ref())?;
    for (index, name) in accounts.names.iter().enumerate() {
        ensure(is_dns_subdomain(name), "", || {
            format!("{name:?} is no name of a ServiceAccount: {SUBDOMAIN_FORM}")
        })
        .map_err(|error| error.within_item("names", index))?;
    }
    Ok(())
}

fn services(entity: &EntityRule, is_destination: bool) -> Result {
    let Some(service) = &entity.services else { return Ok(()) };
    let length_is_good = |text: &str| text.chars().count() <= NAME_MAX;
    ensure(!service.name.is_empty(), "services.name", || "is required".to_owned())?;
    ensure(length_is_good(&service.name), "services.name", || {
        format!("is longer than {NAME_MAX} characters")
    })?;
    ensure(service.namespace.as_deref().is_none_or(length_is_good), "services.namespace", || {
        format!("is longer than {NAME_MAX} characters")
    })?;
    let others = [
        ("selector", entity.selector.is_some()),
        ("notSelector", entity.not_selector.is_some()),
        ("namespaceSelector", entity.namespace_selector.is_some()),
        ("nets", !entity.nets.is_empty()),
        ("notNets", !entity.not_nets.is_empty()),
        ("serviceAccounts", entity.service_accounts.is_some()),
        ("ports", is_destination && !entity.ports.is_empty()),
        ("notPorts", is_destination && !entity.not_ports.is_empty()),
    ];
    match others.into_iter().find(|(_, is_there)| *is_there) {
        Some((field, _)) => Err(FieldError::new("services", format!("cannot stand beside {field}"))),
        None => Ok(()),
    }
}

/// Numeric ports need a protocol that has ports. Named ports bring their own, so they may stand alone.
fn ports(protocol: Option<Protocol>, entity: &EntityRule) -> Result {
    for (field, list) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
        match protocol {
            None => {
                let number = list.iter().position(|port| matches!(port, Port::Range(_)));
                if let Some(index) = number {
                    let message = "a port number needs protocol TCP, UDP or SCTP";
                    return Err(FieldError::new("", message).within_item(field, index));
                }
            }
            Some(protocol) => ensure(list.is_empty() || protocol.has_ports(), field, || {
                format!("protocol {protocol} has no ports: use TCP, UDP or SCTP")
            })?,
        }
    }
    Ok(())
}

/// All networks of a rule are of one family, the one of `ipVersion` if that is there.
fn families(rule: &Rule) -> Result {
    let mut family = rule.ip_version;
    let lists: [(&str, &[IpNet]); 4] = [
        ("source.nets", &rule.source.nets),
        ("source.notNets", &rule.source.not_nets),
        ("destination.nets", &rule.destination.nets),
        ("destination.notNets", &rule.destination.not_nets),
    ];
    for (field, nets) in lists {
        for (index, net) in nets.iter().enumerate() {
            let version = IpVersion::of(net);
            let expected = *family.get_or_insert(version);
            ensure(version == expected, "", || match rule.ip_version {
                Some(_) => format!("{net} is {version}, but ipVersion is {}", expected.number()),
                None => format!(
                    "{net} is {version}, but a network before it is {expected}; use one rule for each"
                ),
            })
            .map_err(|error| error.within_item(field, index))?;
        }
    }
    Ok(())
}
