//! The policies that protect the pod, and the rest of the cluster.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

pub(super) const NODE: &str = "node-1";
pub(super) const NODE_ADDRESS: &str = "172.18.0.11";
/// The pod's namespace and name.
pub(super) const POD: (&str, &str) = ("shop", "server");
pub(super) const POD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 65, 1, 2);
/// Addresses for measurements of networks (RFC 2544): the clients'.
pub(super) const CLIENTS: &str = "198.18.0.0/15";
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Rules of a policy, each for two ports.
const RULES: u16 = 10;
/// Members of the set that they ask for.
pub(super) const MEMBERS: usize = 10;
const FIRST_PORT: u16 = 2000;
/// From one port of a policy to the next, so that two rules are not one for a range.
const PORT_STEP: u16 = 2;
/// Policies that have no port in common.
const PORT_SPREAD: usize = 1000;
/// A port that no rule names.
pub(super) const CLOSED_PORT: u16 = 999;

/// Which ports policies are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    /// Each for its own, but for those beyond the thousandth.
    Own,
    /// All for the same.
    Alike,
}

impl Ports {
    /// Port number `index` of a policy.
    fn port(self, policy: usize, index: u16) -> u16 {
        let policy = if self == Self::Own { u16::try_from(policy % PORT_SPREAD).unwrap_or(0) } else { 0 };
        FIRST_PORT + PORT_STEP * (2 * RULES * policy + index)
    }

    /// The last port of the last rule of a policy.
    pub(super) fn last(self, policy: usize) -> u16 {
        self.port(policy, 2 * RULES - 1)
    }
}

/// What is there whatever the policies are.
pub(super) fn cluster() -> [Value; 4] {
    let (namespace, name) = POD;
    let ip = POD_ADDRESS.to_string();
    [
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]},
        }),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
            "spec": {"cidr": "10.65.0.0/16", "natOutgoing": true},
        }),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": "server"}},
            "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "registry.example/main:1"}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        }),
    ]
}

/// Policy number `number`: all of its rules are for members of one set, each for two ports of its own.
pub(super) fn policy(number: usize, ports: Ports) -> Value {
    let rule = |rule: u16| {
        let ports = [ports.port(number, 2 * rule), ports.port(number, 2 * rule + 1)];
        json!({"action": "Allow", "protocol": "UDP", "source": {"selector": format!("set == 's-{number}'")},
            "destination": {"ports": ports}})
    };
    let rules: Vec<Value> = (0..RULES).map(rule).collect();
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": format!("policy-{number}")},
        "spec": {"order": number, "selector": "app == 'server'", "types": ["Ingress"], "ingress": rules},
    })
}

/// The set that policy number `number` asks for.
pub(super) fn set(number: usize) -> Value {
    let nets: Vec<String> =
        (0..MEMBERS).map(|member| format!("{}/32", client_address(number, member))).collect();
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": format!("set-{number}"), "labels": {"set": format!("s-{number}")}},
        "spec": {"nets": nets},
    })
}

/// Member number `member` of set number `set`; no address is in two sets.
pub(super) fn client_address(set: usize, member: usize) -> Ipv4Addr {
    let offset = u32::try_from(set * MEMBERS + member).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(FIRST_CLIENT.to_bits().saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_policies_are_for_the_same_client() {
        let all: BTreeSet<Ipv4Addr> =
            (0..1000).flat_map(|set| (0..MEMBERS).map(move |member| client_address(set, member))).collect();
        assert_eq!(all.len(), 10_000);
        assert_eq!(client_address(0, 0), FIRST_CLIENT);
    }

    #[test]
    fn ports_of_policies_are_their_own_and_valid() {
        let all: BTreeSet<u16> = (0..PORT_SPREAD)
            .flat_map(|policy| (0..2 * RULES).map(move |index| Ports::Own.port(policy, index)))
            .collect();
        assert_eq!(all.len(), PORT_SPREAD * usize::from(2 * RULES));
        assert!(!all.contains(&CLOSED_PORT));
        let rules = policy(7, Ports::Own);
        assert_eq!(rules.pointer("/spec/ingress/9/destination/ports/1"), Some(&json!(Ports::Own.last(7))));
    }
}
