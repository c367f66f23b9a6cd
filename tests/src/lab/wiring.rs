//! The lines for `ip -batch` that wire the namespaces. Pure: who runs them where is the cluster's business.
//!
//! A pod has /32 (/128) addresses and a default route over 169.254.1.1 (fe80::1), which its node answers for on the
//! pod's host interface. The fabric routes pod addresses to their nodes; so do the other nodes, as a routing daemon
//! would have taught them.
//!
//! IPv6 neighbours are fixed. The kernel has one table for those of all namespaces of the machine, which some labs at
//! the same time fill (`net.ipv6.neigh.default.gc_thresh3`, 1024): it then drops TCP and forwarded packets to others
//! in silence and refuses to send the rest with `EINVAL`. Fixed ones do not count. Neither can the policy of a host
//! endpoint drop neighbour discovery on the fabric, which is not what is tested here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Addresses, Family, LabError, LocalRoutes};

const FABRIC_V4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const FABRIC_V4_PREFIX: u8 = 16;
const FABRIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xac12, 1);
const FABRIC_V6_PREFIX: u8 = 112;
const FABRIC_MAC: &str = "02:fa:00:00:00:01";
/// What Calico gives the host's side of every pod.
const POD_HOST_MAC: &str = "ee:ee:ee:ee:ee:ee";
/// The far end of every cable to a pod or an outside host; no two of them are on one link.
const LEAF_MAC: &str = "02:fa:00:02:00:01";
const LEAF_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Sysctls of every namespace: addresses are usable at once.
pub(super) const LEAF_SYSCTLS: [(&str, &str); 2] =
    [("net/ipv6/conf/all/accept_dad", "0"), ("net/ipv6/conf/default/accept_dad", "0")];
/// Sysctls of nodes and the fabric: they forward, and do not judge a packet by the way it came.
pub(super) const ROUTER_SYSCTLS: [(&str, &str); 6] = [
    LEAF_SYSCTLS[0],
    LEAF_SYSCTLS[1],
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

/// A node as the wiring sees it: its position gives the fabric's interface name and the uplink's MAC.
#[derive(Debug)]
pub(super) struct Uplink<'a> {
    pub(super) position: usize,
    pub(super) addresses: Addresses,
    pub(super) netns: &'a str,
}

/// One end of a veth that leads to a pod or an outside host.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    pub(super) interface: &'a str,
    pub(super) addresses: Addresses,
    pub(super) netns: &'a str,
}

/// Checks that a node's addresses lie in the fabric's networks.
pub(super) fn check_node(name: &str, addresses: Addresses) -> Result<(), LabError> {
    let v4 = addresses.v4.is_none_or(|ip| ip.octets()[..2] == FABRIC_V4.octets()[..2] && ip != FABRIC_V4);
    let v6 = addresses.v6.is_none_or(|ip| ip.segments()[..7] == FABRIC_V6.segments()[..7] && ip != FABRIC_V6);
    if v4 && v6 {
        return Ok(());
    }
    Err(LabError::Topology(format!(
        "node {name}: its address must lie in {FABRIC_V4}/{FABRIC_V4_PREFIX} or {FABRIC_V6}/{FABRIC_V6_PREFIX} and not be the gateway"
    )))
}

/// The fabric's bridge and the nodes on it.
pub(super) fn fabric(nodes: &[Uplink<'_>]) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link add br0 address {FABRIC_MAC} type bridge"),
        "link set br0 up".to_owned(),
        format!("addr add {FABRIC_V4}/{FABRIC_V4_PREFIX} dev br0"),
    ];
    // Not asked of a kernel without IPv6 unless something here has such an address.
    if nodes.iter().any(|node| node.addresses.v6.is_some()) {
        lines.push(format!("addr add {FABRIC_V6}/{FABRIC_V6_PREFIX} dev br0 nodad"));
    }
    for node in nodes {
        let (i, mac) = (node.position, uplink_mac(node.position));
        lines.push(format!("link add fn{i} type veth peer name eth0 address {mac} netns {}", node.netns));
        lines.push(format!("link set fn{i} master br0 up"));
        lines.extend(node.addresses.v6.map(|ip| neighbour(ip, &mac, "br0")));
    }
    lines
}

/// A node's uplink, its way to the fabric, and its fixed neighbours: the fabric and all other `nodes`.
pub(super) fn node(own: &Uplink<'_>, nodes: &[Uplink<'_>]) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned()];
    if let Some(ip) = own.addresses.v4 {
        lines.push(format!("addr add {ip}/{FABRIC_V4_PREFIX} dev eth0"));
    }
    if let Some(ip) = own.addresses.v6 {
        lines.push(format!("addr add {ip}/{FABRIC_V6_PREFIX} dev eth0 nodad"));
    }
    lines.push("link set eth0 up".to_owned());
    lines.extend(own.addresses.v4.map(|_| format!("route add default via {FABRIC_V4}")));
    if own.addresses.v6.is_some() {
        lines.push(format!("route add default via {FABRIC_V6}"));
        lines.push(neighbour(FABRIC_V6, FABRIC_MAC, "eth0"));
        let others = nodes.iter().filter(|other| other.position != own.position);
        lines.extend(
            others.filter_map(|o| o.addresses.v6.map(|ip| neighbour(ip, &uplink_mac(o.position), "eth0"))),
        );
    }
    lines
}

/// The near end of an outside host's cable, on the fabric.
pub(super) fn external_cable(leaf: &Leaf<'_>) -> Vec<String> {
    let mut lines = cable(leaf, FABRIC_MAC);
    lines.extend(leaf.addresses.iter().map(|ip| format!("route add {ip} dev {}", leaf.interface)));
    lines
}

/// The near end of a pod's cable, on its node.
pub(super) fn pod_cable(leaf: &Leaf<'_>, routes: LocalRoutes) -> Vec<String> {
    let mut lines = cable(leaf, POD_HOST_MAC);
    if routes == LocalRoutes::Lab {
        lines.extend(leaf.addresses.iter().map(|ip| local_route(ip, leaf.interface)));
    }
    lines
}

/// The far end of a pod's cable, in its own namespace.
pub(super) fn pod_end(addresses: Addresses) -> Vec<String> {
    far_end(addresses, POD_HOST_MAC)
}

/// The far end of an outside host's cable, in its own namespace.
pub(super) fn external_end(addresses: Addresses) -> Vec<String> {
    far_end(addresses, FABRIC_MAC)
}

/// Takes the fixed neighbours of a pod's cable away: on its node, and in the pod.
pub(super) fn unfixed(addresses: Addresses, interface: &str) -> Option<[String; 2]> {
    let flush = |ip, dev| format!("neigh flush to {ip} dev {dev} nud permanent");
    addresses.v6.map(|ip| [flush(ip, interface), flush(LEAF_GATEWAY_V6, "eth0")])
}

fn far_end(addresses: Addresses, gateway_mac: &str) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned()];
    lines.extend(addresses.v4.map(|ip| format!("addr add {ip}/32 dev eth0")));
    lines.extend(addresses.v6.map(|ip| format!("addr add {ip}/128 dev eth0 nodad")));
    lines.push("link set eth0 up".to_owned());
    if addresses.v4.is_some() {
        lines.push("route add 169.254.1.1 dev eth0 scope link".to_owned());
        lines.push("route add default via 169.254.1.1 dev eth0".to_owned());
    }
    if addresses.v6.is_some() {
        lines.push(format!("route add default via {LEAF_GATEWAY_V6} dev eth0"));
        lines.push(neighbour(LEAF_GATEWAY_V6, gateway_mac, "eth0"));
    }
    lines
}

/// The way to a pod from the fabric and from other nodes: over its node. `verb` is `replace` or `del`.
pub(super) fn remote_routes(verb: &str, pod: Addresses, node: Addresses) -> Vec<String> {
    let over = |family| Some(format!("route {verb} {} via {}", pod.get(family)?, node.get(family)?));
    [Family::V4, Family::V6].into_iter().filter_map(over).collect()
}

/// The route to a pod on its own node.
pub(super) fn local_route(pod: IpAddr, interface: &str) -> String {
    let scope = if pod.is_ipv4() { " scope link" } else { "" };
    format!("route replace {pod} dev {interface}{scope}")
}

/// Makes a leaf's cable, and puts the gateway that the leaf's default route names on the near end.
fn cable(leaf: &Leaf<'_>, mac: &str) -> Vec<String> {
    let (dev, netns) = (leaf.interface, leaf.netns);
    let mut lines = vec![
        format!("link add {dev} address {mac} type veth peer name eth0 address {LEAF_MAC} netns {netns}"),
        format!("link set {dev} up"),
    ];
    lines.extend(leaf.addresses.v4.map(|_| format!("addr add 169.254.1.1/32 dev {dev}")));
    if let Some(ip) = leaf.addresses.v6 {
        lines.push(format!("addr add {LEAF_GATEWAY_V6}/64 dev {dev} nodad"));
        lines.push(neighbour(ip, LEAF_MAC, dev));
    }
    lines
}

fn uplink_mac(position: usize) -> String {
    let [high, low] = u16::try_from(position).unwrap_or(u16::MAX).to_be_bytes();
    format!("02:fa:00:01:{high:02x}:{low:02x}")
}

fn neighbour(ip: Ipv6Addr, mac: &str, dev: &str) -> String {
    format!("neigh replace {ip} lladdr {mac} dev {dev} nud permanent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_outside_the_fabric_is_refused() {
        let check = |ip| check_node("n", Addresses::try_from(ip).unwrap());
        assert!(check("172.18.3.4,fd00::ac12:b").is_ok());
        assert!(check("172.19.0.2").is_err());
        assert!(check("172.18.0.1").is_err());
        assert!(check("fd00::ac12:1").is_err());
    }

    #[test]
    fn only_the_lab_or_the_agent_sets_local_routes() {
        let leaf = Leaf {
            interface: "cali0",
            addresses: Addresses::try_from("10.65.1.2").unwrap(),
            netns: "/proc/1/fd/9",
        };
        let routes = |who| pod_cable(&leaf, who).iter().filter(|l| l.starts_with("route")).count();
        assert_eq!(routes(LocalRoutes::Lab), 1);
        assert_eq!(routes(LocalRoutes::Agent), 0);
    }

    #[test]
    fn both_ends_of_a_pods_cable_know_each_other_over_ipv6_until_told_otherwise() {
        let addresses = Addresses::try_from("10.65.1.2,fd00::a41:102").unwrap();
        let leaf = Leaf { interface: "cali0", addresses, netns: "/proc/1/fd/9" };
        let near = pod_cable(&leaf, LocalRoutes::Agent);
        let far = pod_end(addresses);
        assert!(near[0].contains("cali0 address ee:ee:ee:ee:ee:ee type veth peer name eth0 address 02:fa:"));
        assert!(near.contains(&neighbour(addresses.v6.unwrap(), LEAF_MAC, "cali0")), "{near:?}");
        assert!(far.contains(&neighbour(LEAF_GATEWAY_V6, POD_HOST_MAC, "eth0")), "{far:?}");
        let [on_node, in_pod] = unfixed(addresses, "cali0").unwrap();
        assert_eq!(on_node, "neigh flush to fd00::a41:102 dev cali0 nud permanent");
        assert_eq!(in_pod, "neigh flush to fe80::1 dev eth0 nud permanent");
    }

    #[test]
    fn a_pod_is_reached_in_the_families_it_shares_with_its_node() {
        let both = Addresses::try_from("10.65.1.2,fd00::a41:102").unwrap();
        let node = Addresses::try_from("172.18.0.11").unwrap();
        assert_eq!(remote_routes("replace", both, node), ["route replace 10.65.1.2 via 172.18.0.11"]);
    }
}
