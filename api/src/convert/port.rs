//! Ports of a rule of a Kubernetes policy, by protocol.

use std::collections::BTreeMap;

use crate::kube::{AdminPort, ClusterPortMatch, ClusterProtocol, PolicyPort, RulePorts};
use crate::net::{IntOrString, Port, PortError, PortRange, Protocol};

/// A protocol of a rule with its ports; `None` stands for all protocols and no ports for all ports.
pub(super) type ProtocolPorts = (Option<Protocol>, Vec<Port>);

/// The ports of a rule, grouped by protocol, protocols in the order of their names.
///
/// A protocol defaults to TCP. An entry without a port means all ports of its protocol, whatever other
/// entries say.
pub(super) fn by_protocol(ports: &[PolicyPort]) -> Result<Vec<ProtocolPorts>, String> {
    grouped(ports.iter().map(|entry| Ok((Some(entry.protocol.unwrap_or(Protocol::Tcp)), port(entry)?))))
}

/// The ports of a rule of a cluster-wide policy, in the same way. Ports with a name bring their own protocols and come
/// first.
pub(super) fn of_cluster_rule(ports: RulePorts<'_>) -> Result<Vec<ProtocolPorts>, String> {
    match ports {
        RulePorts::Protocols(list) => grouped(list.unwrap_or_default().iter().map(cluster_protocol)),
        RulePorts::Ports(list) => grouped(list.unwrap_or_default().iter().map(admin_port)),
    }
}

/// One entry of a rule: a port, or all of a protocol.
type Entry = (Option<Protocol>, Option<Port>);

fn grouped(entries: impl Iterator<Item = Result<Entry, String>>) -> Result<Vec<ProtocolPorts>, String> {
    let mut groups: BTreeMap<String, (Option<Protocol>, Option<Vec<Port>>)> = BTreeMap::new();
    for entry in entries {
        let (protocol, port) = entry?;
        let key = protocol.map(|p| p.to_string()).unwrap_or_default();
        let (_, list) = groups.entry(key).or_insert_with(|| (protocol, Some(Vec::new())));
        match (port, list.as_mut()) {
            (None, _) => *list = None,
            (Some(port), Some(list)) => list.push(port),
            (Some(_), None) => {}
        }
    }
    if groups.is_empty() {
        return Ok(vec![(None, Vec::new())]);
    }
    Ok(groups.into_values().map(|(protocol, list)| (protocol, merged(list.unwrap_or_default()))).collect())
}

fn cluster_protocol(entry: &ClusterProtocol) -> Result<Entry, String> {
    let protocols = [(Protocol::Tcp, &entry.tcp), (Protocol::Udp, &entry.udp), (Protocol::Sctp, &entry.sctp)];
    match (
        protocols.into_iter().find_map(|(p, ports)| Some((p, ports.as_ref()?))),
        &entry.destination_named_port,
    ) {
        (Some((protocol, ports)), None) => Ok((Some(protocol), Some(destination(*ports)?))),
        (None, Some(name)) => Ok((None, Some(named(name)?))),
        _ => Err("an entry of protocols does not name one protocol".to_owned()),
    }
}

fn destination(ports: ClusterPortMatch) -> Result<Port, String> {
    match ports.destination_port.map(|port| (port.number, port.range)) {
        Some((Some(number), None)) => range(number, number),
        Some((None, Some(ports))) => range(ports.start, ports.end),
        _ => Err("an entry of protocols does not name a port or a range".to_owned()),
    }
}

fn admin_port(entry: &AdminPort) -> Result<Entry, String> {
    match (&entry.port_number, &entry.port_range, &entry.named_port) {
        (Some(one), None, None) => Ok((Some(one.protocol), Some(range(one.port, one.port)?))),
        (None, Some(ports), None) => Ok((Some(ports.protocol), Some(range(ports.start, ports.end)?))),
        (None, None, Some(name)) => Ok((None, Some(named(name)?))),
        _ => Err("an entry of ports does not name one port or range".to_owned()),
    }
}

fn named(name: &str) -> Result<Port, String> {
    match name.parse() {
        Ok(Port::Named(name)) => Ok(Port::Named(name)),
        _ => Err(format!("{name:?} is no name of a port")),
    }
}

fn range(first: i64, last: i64) -> Result<Port, String> {
    let number = |n: i64| u16::try_from(n).ok().filter(|n| *n > 0);
    let range = number(first).zip(number(last)).and_then(|(first, last)| PortRange::new(first, last));
    range.map(Port::Range).ok_or_else(|| format!("{first} to {last} is no range of ports"))
}

fn port(entry: &PolicyPort) -> Result<Option<Port>, String> {
    match (&entry.port, entry.end_port) {
        (None, None) => Ok(None),
        (Some(IntOrString::Int(first)), end) => range(*first, end.map_or(*first, i64::from)).map(Some),
        (Some(IntOrString::String(name)), None) => {
            name.parse().map(Some).map_err(|error: PortError| error.to_string())
        }
        (_, Some(end)) => Err(format!("endPort {end} has no port number to begin at")),
    }
}

/// Numbers merged into as few ranges as possible, after the names. Where there is nothing to merge, the
/// list keeps its order.
fn merged(ports: Vec<Port>) -> Vec<Port> {
    let ranges = ports.iter().filter_map(|port| match port {
        Port::Range(range) => Some(*range),
        Port::Named(_) => None,
    });
    let mut ranges: Vec<PortRange> = ranges.collect();
    let numbers: usize = ranges.iter().map(|range| usize::from(range.last() - range.first()) + 1).sum();
    if ports.len() <= 1 || numbers <= 1 {
        return ports;
    }
    ranges.sort_unstable();
    let mut result: Vec<Port> = ports.into_iter().filter(|port| matches!(port, Port::Named(_))).collect();
    let mut bounds: Vec<(u16, u16)> = Vec::new();
    for range in ranges {
        match bounds.last_mut() {
            // 65535 has no successor; then every later range begins inside anyway.
            Some((_, last)) if range.first() <= last.saturating_add(1) => *last = range.last().max(*last),
            _ => bounds.push((range.first(), range.last())),
        }
    }
    result.extend(bounds.into_iter().filter_map(|(min, max)| PortRange::new(min, max)).map(Port::Range));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(texts: &[&str]) -> Vec<Port> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn merged_text(texts: &[&str]) -> String {
        merged(ports(texts)).iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn numbers_are_merged_into_ranges_after_the_names() {
        assert_eq!(merged_text(&["82", "http", "80", "81", "90"]), "http,80:82,90");
        assert_eq!(merged_text(&["80:90", "85:95", "96"]), "80:96");
        assert_eq!(merged_text(&["80", "80"]), "80");
        assert_eq!(merged_text(&["1:65535", "65535", "7"]), "1:65535");
        assert_eq!(merged_text(&["80:81", "http"]), "http,80:81");
    }

    #[test]
    fn a_list_with_one_number_keeps_its_order() {
        assert_eq!(merged_text(&["80", "http"]), "80,http");
        assert_eq!(merged_text(&["80:90"]), "80:90");
        assert_eq!(merged_text(&["b", "a"]), "b,a");
    }
}
