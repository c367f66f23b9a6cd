//! Settings of host endpoints: failsafe ports, and interfaces that are none of the host's.

use std::fmt;

use regex_automata::nfa::thompson::pikevm::PikeVM;
use serde_json::Value;
use tortie_api::net::{is_interface_name, parse_net};
use tortie_rules::compile::config::{FailsafePort, FailsafeProtocol};

use super::values::is_none;

/// A list of failsafe ports: `tcp:22,udp:10.0.0.0/8:53`, or the list of objects that a `FelixConfiguration` holds.
/// `none` is the empty list.
pub(super) fn failsafe_ports(text: &str) -> Result<Vec<FailsafePort>, String> {
    if is_none(text) {
        return Ok(Vec::new());
    }
    if let Ok(Value::Array(entries)) = serde_json::from_str(text) {
        return entries.iter().map(port_of_object).collect();
    }
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(port_of_text).collect()
}

/// `port`, `protocol:port` or `protocol:network:port`; an IPv6 network may stand in brackets.
fn port_of_text(text: &str) -> Result<FailsafePort, String> {
    let (head, port) = text.rsplit_once(':').unwrap_or(("tcp", text));
    let (protocol, net) = head.split_once(':').unwrap_or((head, ""));
    let net = net.strip_prefix('[').and_then(|net| net.strip_suffix(']')).unwrap_or(net);
    failsafe_port(text, protocol, port, net)
}

/// `{"protocol": "TCP", "port": 22, "net": "10.0.0.0/8"}`
fn port_of_object(value: &Value) -> Result<FailsafePort, String> {
    let text = value.to_string();
    let part = |name: &str| match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let protocol = part("protocol");
    let protocol = if protocol.is_empty() { "tcp" } else { &protocol };
    failsafe_port(&text, protocol, &part("port"), &part("net"))
}

fn failsafe_port(entry: &str, protocol: &str, port: &str, net: &str) -> Result<FailsafePort, String> {
    let protocol = match protocol.trim().to_ascii_lowercase().as_str() {
        "tcp" => FailsafeProtocol::Tcp,
        "udp" => FailsafeProtocol::Udp,
        other => return Err(format!("{entry}: a failsafe port is tcp or udp, not {other:?}")),
    };
    let port: u16 = port.trim().parse().map_err(|_| format!("{entry}: {port:?} is not a port"))?;
    if port == 0 {
        return Err(format!("{entry}: 0 is not a port"));
    }
    let net = match net.trim() {
        "" => None,
        net => Some(parse_net(net).map_err(|error| format!("{entry}: {error}"))?),
    };
    Ok(FailsafePort { protocol, port, net })
}

/// Interfaces whose names hold what a regular expression describes; without one there are none.
#[derive(Clone, Default)]
pub struct Pattern(Option<(String, PikeVM)>);

impl Pattern {
    /// From a regular expression; `none` or nothing is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if is_none(text) || text.is_empty() {
            return Ok(Self::default());
        }
        let pattern =
            PikeVM::new(text).map_err(|error| format!("{text}: not a regular expression: {error}"))?;
        Ok(Self(Some((text.to_owned(), pattern))))
    }

    /// Whether the interface of this name is one of them.
    pub fn holds(&self, interface: &str) -> bool {
        self.0.as_ref().is_some_and(|(_, pattern)| pattern.is_match(&mut pattern.create_cache(), interface))
    }

    fn text(&self) -> Option<&str> {
        self.0.as_ref().map(|(text, _)| &**text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// Interfaces that count as none of the host's: they have no host endpoint, and their addresses are not its own.
#[derive(Clone, Default)]
pub struct Excluded {
    names: Vec<String>,
    patterns: Vec<(String, PikeVM)>,
}

impl Excluded {
    /// The interfaces of these names.
    pub(super) fn of(names: &[&str]) -> Self {
        Self { names: names.iter().map(|name| (*name).to_owned()).collect(), patterns: Vec::new() }
    }

    /// From a list of names and of regular expressions between slashes: `kube-ipvs0,/^dummy/`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut excluded = Self::default();
        let entries = if is_none(text) { "" } else { text };
        for entry in entries.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
                Some(pattern) => {
                    let bad = |error| format!("{entry}: not a regular expression: {error}");
                    excluded.patterns.push((pattern.to_owned(), PikeVM::new(pattern).map_err(bad)?));
                }
                None if is_interface_name(entry) => excluded.names.push(entry.to_owned()),
                None => return Err(format!("{entry:?} is no interface name, nor /a regular expression/")),
            }
        }
        Ok(excluded)
    }

    /// Whether the interface of this name is one of them.
    pub fn holds(&self, interface: &str) -> bool {
        let matches =
            |(_, pattern): &(String, PikeVM)| pattern.is_match(&mut pattern.create_cache(), interface);
        self.names.iter().any(|name| name == interface) || self.patterns.iter().any(matches)
    }

    fn text(&self) -> impl Iterator<Item = &String> {
        self.names.iter().chain(self.patterns.iter().map(|(text, _)| text))
    }
}

impl fmt::Debug for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.text()).finish()
    }
}

impl PartialEq for Excluded {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names && self.text().eq(other.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ports: &[FailsafePort]) -> Vec<String> {
        ports
            .iter()
            .map(|p| format!("{:?} {} {:?}", p.protocol, p.port, p.net.map(|n| n.to_string())))
            .collect()
    }

    #[test]
    fn failsafe_ports_have_felixs_forms() {
        let ports = failsafe_ports("tcp:22, UDP:10.0.0.0/8:53,443,tcp:[fd00::/8]:1,tcp:fd00::/8:2").unwrap();
        let wanted = [
            "Tcp 22 None",
            "Udp 53 Some(\"10.0.0.0/8\")",
            "Tcp 443 None",
            "Tcp 1 Some(\"fd00::/8\")",
            "Tcp 2 Some(\"fd00::/8\")",
        ];
        assert_eq!(text(&ports), wanted);
        let objects =
            r#"[{"protocol": "TCP", "port": 22}, {"protocol": "UDP", "port": 53, "net": "10.0.0.0/8"}]"#;
        assert_eq!(text(&failsafe_ports(objects).unwrap()), wanted[..2]);
        assert_eq!(failsafe_ports("none"), Ok(Vec::new()));
        assert_eq!(failsafe_ports("[]"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_failsafe_port_is_named() {
        let cases = [
            ("tcp:22,sctp:80", "sctp:80: a failsafe port is tcp or udp, not \"sctp\""),
            ("[{\"protocol\":\"SCTP\",\"port\":1}]", "a failsafe port is tcp or udp, not \"sctp\""),
            ("tcp:70000", "tcp:70000: \"70000\" is not a port"),
            ("tcp:0", "tcp:0: 0 is not a port"),
            ("tcp:10.0.0.1/8:22", "tcp:10.0.0.1/8:22: "),
        ];
        for (input, message) in cases {
            let error = failsafe_ports(input).unwrap_err();
            assert!(error.contains(message), "{input}: {error}");
        }
    }

    #[test]
    fn interfaces_are_excluded_by_name_or_pattern() {
        let excluded = Excluded::parse("kube-ipvs0, /^dummy[0-9]+$/").unwrap();
        let held: Vec<&str> = ["kube-ipvs0", "kube-ipvs01", "dummy7", "xdummy7", "eth0"]
            .into_iter()
            .filter(|name| excluded.holds(name))
            .collect();
        assert_eq!(held, ["kube-ipvs0", "dummy7"]);
        assert_eq!(Excluded::parse("none"), Ok(Excluded::default()));
        assert!(Excluded::parse("/(/").unwrap_err().starts_with("/(/: not a regular expression"));
        assert!(Excluded::parse("a b").is_err());
    }
}
