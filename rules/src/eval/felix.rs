//! [`Settings`] out of `FelixConfiguration` objects: `default` for all nodes, `node.NAME` on top of it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use tortie_api::Key;
use tortie_api::felix::FelixConfigurationSpec;
use tortie_api::net::{Protocol, parse_cidr, parse_net};
use tortie_api::resource::Resource;

use super::settings::{Failsafe, HostAction, Settings};

/// The configuration of all nodes.
const DEFAULT: &str = "default";
/// What the names of configurations of one node begin with.
const OF_NODE: &str = "node.";

/// A setting that cannot be used; the one below it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSetting {
    /// The name of the `FelixConfiguration`.
    pub configuration: String,
    /// The field.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for BadSetting {
    /// `FelixConfiguration default: spec.vxlanPort: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FelixConfiguration {}: spec.{}: {}", self.configuration, self.field, self.message)
    }
}

/// What the configurations make of these settings: for nodes in general, and for those with their own.
pub(super) fn read(
    resources: &BTreeMap<Key, Resource>,
    base: Settings,
) -> (Settings, BTreeMap<String, Settings>, Vec<BadSetting>) {
    let mut bad = Vec::new();
    let configurations = resources.values().filter_map(|resource| match resource {
        Resource::FelixConfiguration(object) => Some((object.metadata.name.as_str(), &object.spec)),
        _ => None,
    });
    let configurations: BTreeMap<&str, &FelixConfigurationSpec> = configurations.collect();
    let mut general = base;
    if let Some(spec) = configurations.get(DEFAULT) {
        overlay(&mut general, DEFAULT, spec, &mut bad);
    }
    let mut by_node = BTreeMap::new();
    for (name, spec) in &configurations {
        if let Some(node) = name.strip_prefix(OF_NODE) {
            let mut own = general.clone();
            overlay(&mut own, name, spec, &mut bad);
            by_node.insert(node.to_owned(), own);
        }
    }
    (general, by_node, bad)
}

fn overlay(settings: &mut Settings, name: &str, spec: &FelixConfigurationSpec, bad: &mut Vec<BadSetting>) {
    for (field, value) in &spec.settings {
        let result = match field.as_str() {
            "failsafeInboundHostPorts" => put(&mut settings.failsafe_inbound, failsafes(value)),
            "failsafeOutboundHostPorts" => put(&mut settings.failsafe_outbound, failsafes(value)),
            "defaultEndpointToHostAction" => put(&mut settings.endpoint_to_host, host_action(value)),
            "allowVXLANPacketsFromWorkloads" => put(&mut settings.allow_vxlan_from_workloads, boolean(value)),
            "allowIPIPPacketsFromWorkloads" => put(&mut settings.allow_ipip_from_workloads, boolean(value)),
            "vxlanPort" => put(&mut settings.vxlan_port, port(value)),
            _ => Ok(()),
        };
        if let Err(message) = result {
            bad.push(BadSetting { configuration: name.to_owned(), field: field.clone(), message });
        }
    }
}

fn put<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{value} is not true or false"))
}

fn port(value: &Value) -> Result<u16, String> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let port = number.and_then(|number| u16::try_from(number).ok());
    port.ok_or_else(|| format!("{value} is not a port"))
}

/// `Return` leaves it to rules that are not Calico's, of which nothing is known here.
fn host_action(value: &Value) -> Result<HostAction, String> {
    match value.as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "drop" | "reject" => Ok(HostAction::Deny),
        "accept" | "return" => Ok(HostAction::Allow),
        _ => Err(format!("{value} is not one of Drop, Reject, Accept, Return")),
    }
}

/// A list of `{protocol, port, net}`, or Felix's text form, `tcp:22,udp:68,tcp:10.0.0.0/8:179`; `none` empties
/// the list.
fn failsafes(value: &Value) -> Result<Vec<Failsafe>, String> {
    match value {
        Value::Array(entries) => entries.iter().map(failsafe_object).collect(),
        Value::String(text) if text.trim().eq_ignore_ascii_case("none") => Ok(Vec::new()),
        Value::String(text) => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            entries.map(failsafe_text).collect()
        }
        _ => Err(format!("{value} is no list of ports")),
    }
}

fn failsafe_object(entry: &Value) -> Result<Failsafe, String> {
    let bad = || format!("{entry} is not like {{protocol: TCP, port: 22, net: 10.0.0.0/8}}");
    let protocol: Protocol = match entry.get("protocol") {
        None | Some(Value::Null) => Protocol::Tcp,
        Some(text) => text.as_str().and_then(|text| text.parse().ok()).ok_or_else(bad)?,
    };
    let net = match entry.get("net").filter(|net| !net.is_null()) {
        None => None,
        Some(text) => {
            let text = text.as_str().ok_or_else(bad)?;
            (!text.is_empty()).then(|| parse_net(text)).transpose().map_err(|error| error.to_string())?
        }
    };
    checked(Failsafe { protocol, port: port(entry.get("port").ok_or_else(bad)?)?, net })
}

fn failsafe_text(entry: &str) -> Result<Failsafe, String> {
    let bad = || format!("{entry:?} is not like tcp:22 or tcp:10.0.0.0/8:22");
    let (protocol, rest) = entry.split_once(':').unwrap_or(("tcp", entry));
    let protocol = protocol.parse().map_err(|_| bad())?;
    let (net, number) = match rest.rsplit_once(':') {
        Some((net, number)) => (Some(net.trim_matches(['[', ']'])), number),
        None => (None, rest),
    };
    let net = net.map(|text| parse_cidr(text).map(|net| net.trunc())).transpose().map_err(|_| bad())?;
    checked(Failsafe { protocol, port: number.trim().parse().map_err(|_| bad())?, net })
}

/// Felix takes no other protocols.
fn checked(failsafe: Failsafe) -> Result<Failsafe, String> {
    match failsafe.protocol {
        Protocol::Tcp | Protocol::Udp => Ok(failsafe),
        other => Err(format!("{other} is not TCP or UDP")),
    }
}

#[cfg(test)]
mod tests {
    use tortie_api::manifest::parse_documents;

    use super::*;
    use crate::eval::Cluster;

    fn cluster(manifests: &str) -> (Cluster, Vec<BadSetting>) {
        let documents = parse_documents(manifests.as_bytes());
        Cluster::new(documents.into_iter().map(|d| d.outcome.expect("a valid manifest").resource))
            .configured()
    }

    fn configuration(name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    }

    #[test]
    fn the_configuration_of_a_node_comes_on_top_of_the_one_of_all() {
        let all = configuration(
            "default",
            "vxlanPort: 4790, defaultEndpointToHostAction: Accept, failsafeInboundHostPorts: []",
        );
        let own = configuration(
            "node.a",
            "failsafeInboundHostPorts: [{port: 22}, {protocol: UDP, port: 53, net: 10.0.0.0/8}]",
        );
        let (cluster, bad) = cluster(&(all + &own));
        assert_eq!(bad, []);
        assert_eq!(cluster.settings("b").failsafe_inbound, []);
        let a = cluster.settings("a");
        assert_eq!((a.vxlan_port, a.endpoint_to_host), (4790, HostAction::Allow));
        let net = Some(parse_cidr("10.0.0.0/8").unwrap());
        assert_eq!(
            a.failsafe_inbound,
            [
                Failsafe { protocol: Protocol::Tcp, port: 22, net: None },
                Failsafe { protocol: Protocol::Udp, port: 53, net }
            ]
        );
    }

    #[test]
    fn what_cannot_be_used_is_told_and_leaves_what_was_there() {
        let (cluster, bad) = cluster(&configuration(
            "default",
            "failsafeOutboundHostPorts: [{protocol: SCTP, port: 1}], vxlanPort: 4790",
        ));
        assert_eq!(cluster.settings("a").failsafe_outbound, Settings::default().failsafe_outbound);
        assert_eq!(cluster.settings("a").vxlan_port, 4790);
        let told: Vec<_> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["FelixConfiguration default: spec.failsafeOutboundHostPorts: SCTP is not TCP or UDP"]
        );
    }

    #[test]
    fn the_text_form_of_felix_is_read_too() {
        let read = |text: &str| failsafes(&Value::from(text));
        assert_eq!(read("none").unwrap(), []);
        let list = read("tcp:22, udp:10.0.0.0/8:68, tcp:[fd00::/8]:1").unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!((list[1].protocol, list[1].port), (Protocol::Udp, 68));
        assert_eq!(list[2].net, Some(parse_cidr("fd00::/8").unwrap()));
        assert!(read("tcp:x").is_err() && read("sctp:1").is_err());
    }
}
