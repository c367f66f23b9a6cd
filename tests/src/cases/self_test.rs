//! Rules made from a case's own truth: they test the lab and the runner, with no agent.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::expect::Expected;
use crate::lab::{Endpoint, Lab, LabError, Traffic};

/// The hooks that every rule stands in.
const HOOKS: [&str; 3] = ["forward", "input", "output"];
/// Rules given to `nft` at a time: an ordinary user's netlink messages have a size limit.
const AT_ONCE: usize = 100;

/// Programs every node to block exactly what the cells say is blocked.
pub(super) fn enforce(lab: &Lab, cells: &[Expected]) -> Result<(), LabError> {
    let mut rules: BTreeMap<&str, Vec<String>> = lab.node_names().map(|name| (name, Vec::new())).collect();
    for cell in cells.iter().filter(|cell| !cell.allow) {
        let node = [&cell.probe.to, &cell.probe.from].into_iter().find_map(|end| node_of(lab, end));
        let matched = matches(lab, cell)?;
        if let Some(rules) = node.and_then(|node| rules.get_mut(node)) {
            rules.extend(HOOKS.map(|hook| format!("add rule inet lab {hook} {matched} drop\n")));
        }
    }
    let mut frame = "table inet lab\ndelete table inet lab\ntable inet lab {\n".to_owned();
    for hook in HOOKS {
        // Writing to a String cannot fail.
        let _ = writeln!(frame, " chain {hook} {{\n  type filter hook {hook} priority 0; policy accept;");
        let _ = writeln!(frame, "  ct state established,related accept\n }}");
    }
    frame += "}\n";
    for (node, rules) in rules {
        let node = lab.node(node)?;
        node.check("nft", &["-f", "-"], &frame)?;
        for some in rules.chunks(AT_ONCE) {
            node.check("nft", &["-f", "-"], &some.concat())?;
        }
    }
    lab.forget_connections()
}

/// The node that a packet to or from this endpoint is judged on.
fn node_of<'a>(lab: &'a Lab, end: &'a Endpoint) -> Option<&'a str> {
    match end {
        Endpoint::Node(name) => Some(name),
        Endpoint::Pod { .. } => lab.host(end).ok()?.node(),
        Endpoint::External(_) => None,
    }
}

fn matches(lab: &Lab, cell: &Expected) -> Result<String, LabError> {
    let (from, to) = (lab.host(&cell.probe.from)?.addresses(), lab.host(&cell.probe.to)?.addresses());
    let addresses = match (from.v4, to.v4, from.v6, to.v6) {
        (Some(from), Some(to), _, _) => format!("ip saddr {from} ip daddr {to}"),
        (_, _, Some(from), Some(to)) => format!("ip6 saddr {from} ip6 daddr {to}"),
        _ => return Err(LabError::Topology(format!("{}: no common family", cell.probe))),
    };
    let with_ports = |name: &str, port, source: Option<u16>| {
        let source = source.map(|source| format!(" {name} sport {source}")).unwrap_or_default();
        format!("{name} dport {port}{source}")
    };
    let kind = match cell.probe.traffic {
        Traffic::Tcp { port, source_port } => with_ports("tcp", port, source_port),
        Traffic::Udp { port, source_port } => with_ports("udp", port, source_port),
        Traffic::Sctp { port, source_port } => with_ports("sctp", port, source_port),
        Traffic::Icmp { kind, code } => format!("icmp type {kind} icmp code {code}"),
        Traffic::Icmpv6 { kind, code } => format!("icmpv6 type {kind} icmpv6 code {code}"),
        Traffic::Ip { protocol } => format!("meta l4proto {protocol}"),
    };
    Ok(format!("{addresses} {kind}"))
}
