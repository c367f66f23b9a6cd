//! Settings of tunnels, services and of what other software on the node does.

use ipnet::IpNet;
use tortie_api::net::{is_interface_name, parse_net};
use tortie_rules::compile::config::ServiceLoop;

use super::Settings;
use super::values::{boolean, list, one_of, optional, parse, port_range};

/// Reads a value into its slot.
fn put<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}

const ON: &[(&str, bool)] = &[("Enabled", true), ("Disabled", false)];

/// The largest value of the six bits of DSCP.
const DSCP_MAX: u8 = 63;

pub(super) fn cluster_type(s: &mut Settings, value: &str) -> Result<(), String> {
    put(&mut s.derived.cluster_type, parse(&value.to_ascii_lowercase(), "a list of words"))
}

pub(super) fn external_nodes(s: &mut Settings, value: &str) -> Result<(), String> {
    let net = |text: String| parse_net(&text).map_err(|error| error.to_string());
    put(&mut s.compile.external_nodes, list(value).into_iter().map(net).collect::<Result<Vec<IpNet>, _>>())
}

pub(super) fn flow_reporter(s: &mut Settings, value: &str) -> Result<(), String> {
    put(&mut s.derived.has_flow_reporter, one_of(value, ON))
}

pub(super) fn flow_server(s: &mut Settings, value: &str) -> Result<(), String> {
    put(
        &mut s.derived.has_flow_server,
        optional::<String>(value, "an address").map(|server| server.is_some()),
    )
}

pub(super) fn ipip(s: &mut Settings, value: &str) -> Result<(), String> {
    put(&mut s.compile.ipip_enabled, boolean(value).map(Some))
}

pub(super) fn vxlan(s: &mut Settings, value: &str) -> Result<(), String> {
    put(&mut s.compile.vxlan_enabled, boolean(value).map(Some))
}

pub(super) fn ambient(s: &mut Settings, value: &str) -> Result<(), String> {
    put(&mut s.derived.is_ambient, one_of(value, ON))
}

pub(super) fn istio_dscp(s: &mut Settings, value: &str) -> Result<(), String> {
    let known =
        value.trim().parse::<u8>().ok().filter(|dscp| *dscp <= DSCP_MAX).or_else(|| dscp_class(value));
    put(&mut s.derived.istio_dscp, known.ok_or_else(|| bad_dscp(value)))
}

fn bad_dscp(value: &str) -> String {
    format!("{value:?} is neither from 0 to {DSCP_MAX} nor a class like AF11")
}

/// Classes of RFC 2474, 2597, 3246 and 8622.
fn dscp_class(text: &str) -> Option<u8> {
    let text = text.trim().to_ascii_uppercase();
    let digit = |at: usize, from: u8, to: u8| {
        let byte = text.as_bytes().get(at)?;
        Some(byte.checked_sub(b'0')?).filter(|digit| (from..=to).contains(digit))
    };
    match (text.as_str(), text.len()) {
        ("DF", _) => Some(0),
        ("LE", _) => Some(1),
        ("EF", _) => Some(46),
        (cs, 3) if cs.starts_with("CS") => Some(digit(2, 0, 7)? * 8),
        (af, 4) if af.starts_with("AF") => Some(digit(2, 1, 4)? * 8 + digit(3, 1, 3)? * 2),
        _ => None,
    }
}

pub(super) fn node_ports(s: &mut Settings, value: &str) -> Result<(), String> {
    let ranges = list(value).into_iter().map(|text| port_range(&text));
    put(&mut s.compile.node_ports, ranges.collect::<Result<Vec<_>, _>>())
}

pub(super) fn metadata_address(s: &mut Settings, value: &str) -> Result<(), String> {
    put(&mut s.derived.metadata_address, optional(value, "an IPv4 address"))
}

pub(super) fn metadata_port(s: &mut Settings, value: &str) -> Result<(), String> {
    put(&mut s.derived.metadata_port, parse(value, "a port"))
}

pub(super) fn nat_exclusions(s: &mut Settings, value: &str) -> Result<(), String> {
    let choices = [("IPPoolsOnly", false), ("IPPoolsAndHostIPs", true)];
    put(&mut s.compile.nat_spares_hosts, one_of(value, &choices))
}

pub(super) fn service_loop(s: &mut Settings, value: &str) -> Result<(), String> {
    let choices =
        [("Drop", ServiceLoop::Drop), ("Reject", ServiceLoop::Reject), ("Disabled", ServiceLoop::Allow)];
    put(&mut s.compile.service_loop, one_of(value, &choices))
}

/// A name for a device of WireGuard.
pub(super) fn device_name(value: &str) -> Result<String, String> {
    let name = value.trim();
    if is_interface_name(name) { Ok(name.to_owned()) } else { Err(format!("{name:?} is no interface name")) }
}

/// Whether clients have to show certificates, by `PrometheusMetricsClientAuth`.
pub(super) const CLIENT_AUTH: &[(&str, bool)] = &[
    ("NoClientCert", false),
    ("RequireAndVerifyClientCert", true),
    ("RequireAnyClientCert", true),
    ("VerifyClientCertIfGiven", true),
];

/// Notes whether a setting, by its lower-case name, asks for TLS.
#[allow(clippy::unnecessary_wraps, reason = "a setting like the others")]
pub(super) fn metrics_tls(s: &mut Settings, name: &'static str, is_wanted: bool) -> Result<(), String> {
    if is_wanted {
        s.derived.metrics_tls.insert(name);
    } else {
        s.derived.metrics_tls.remove(name);
    }
    Ok(())
}

/// What of a setting that was understood is not followed to the letter in this release.
pub(super) fn shortcoming(s: &Settings, name: &str) -> Option<&'static str> {
    let (derived, compile) = (&s.derived, &s.compile);
    let flows = "rules that tell of decisions are made; nothing reports them in this release";
    let wireguard = "rules that let WireGuard through are made; its devices are not in this release";
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        _ if derived.metrics_tls.contains(name.as_str()) => {
            Some("TLS is not in this release: no metrics are served")
        }
        "flowlogslocalreporter" => derived.has_flow_reporter.then_some(flows),
        "flowlogsgoldmaneserver" => derived.has_flow_server.then_some(flows),
        "wireguardenabled" => compile.wireguard_v4.is_enabled.then_some(wireguard),
        "wireguardenabledv6" => compile.wireguard_v6.is_enabled.then_some(wireguard),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_dscp_have_their_values() {
        let classes = ["df", "LE", "EF", "CS0", "cs7", "AF11", "AF43"].map(dscp_class);
        assert_eq!(classes, [0, 1, 46, 0, 56, 10, 38].map(Some));
        for bad in ["", "CS8", "AF14", "AF51", "AF1", "EF1", "CSx"] {
            assert_eq!(dscp_class(bad), None, "{bad}");
        }
    }
}
