//! Ports of a Kubernetes rule, by protocol.

use std::collections::BTreeMap;

use crate::kube::PolicyPort;
use crate::net::{IntOrString, Port, PortRange, Protocol};

/// A protocol of a rule with its ports; `None` stands for all protocols and no ports for all ports.
pub(super) type ProtocolPorts = (Option<Protocol>, Vec<Port>);

/// The ports of a rule, grouped by protocol, protocols in the order of their names.
///
/// A protocol defaults to TCP. An entry without a port means all ports of its protocol, whatever other
/// entries say.
pub(super) fn by_protocol(ports: &[PolicyPort]) -> Result<Vec<ProtocolPorts>, String> {
    if ports.is_empty() {
        return Ok(vec![(None, Vec::new())]);
    }
    let mut groups: BTreeMap<String, (Protocol, Option<Vec<Port>>)> = BTreeMap::new();
    for entry in ports {
        let protocol = entry.protocol.unwrap_or(Protocol::Tcp);
        let port = port(entry)?;
        let (_, list) = groups.entry(protocol.to_string()).or_insert_with(|| (protocol, Some(Vec::new())));
        match (port, list.as_mut()) {
            (None, _) => *list = None,
            (Some(port), Some(list)) => list.push(port),
            (Some(_), None) => {}
        }
    }
    Ok(groups
        .into_values()
        .map(|(protocol, list)| (Some(protocol), merged(list.unwrap_or_default())))
        .collect())
}

fn port(entry: &PolicyPort) -> Result<Option<Port>, String> {
    match (&entry.port, entry.end_port) {
        (None, None) => Ok(None),
        (Some(IntOrString::Int(first)), end) => {
            let last = end.map_or(*first, i64::from);
            let number = |n: i64| u16::try_from(n).ok().filter(|n| *n > 0);
            let range =
                number(*first).zip(number(last)).and_then(|(first, last)| PortRange::new(first, last));
            range
                .map(|range| Some(Port::Range(range)))
                .ok_or_else(|| format!("{first} to {last} is no range of ports"))
        }
        (Some(IntOrString::String(name)), None) => {
            name.parse().map(Some).map_err(|error: crate::net::PortError| error.to_string())
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
