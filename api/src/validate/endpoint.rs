//! Workload endpoints, host endpoints and nodes.

use super::{Result, ensure};
use crate::endpoint::{ANY_INTERFACE, EndpointPort, HostEndpointSpec, WorkloadEndpointSpec};
use crate::net::{INTERFACE_NAME_MAX, is_interface_name};
use crate::node::NodeSpec;

/// The longest name of a node.
const NODE_MAX: usize = 253;
/// The longest name of a port, as in rules.
const PORT_NAME_MAX: usize = 128;

pub(super) fn workload(spec: &WorkloadEndpointSpec) -> Result {
    ensure(!spec.node.is_empty(), "node", || "is required".to_owned())?;
    if !spec.interface_name.is_empty() {
        interface_name(&spec.interface_name)?;
    }
    mac("mac", &spec.mac)?;
    for (index, net) in spec.ip_networks.iter().enumerate() {
        ensure(net.prefix_len() == net.max_prefix_len(), "", || format!("{net} is not a single address"))
            .map_err(|error| error.within_item("ipNetworks", index))?;
    }
    for (index, nat) in spec.ip_nats.iter().enumerate() {
        ensure(spec.ip_networks.iter().any(|net| net.contains(&nat.internal_ip)), "internalIP", || {
            format!("{} is not in ipNetworks", nat.internal_ip)
        })
        .and_then(|()| {
            ensure(nat.internal_ip.is_ipv4() == nat.external_ip.is_ipv4(), "externalIP", || {
                format!("{} is of another family than {}", nat.external_ip, nat.internal_ip)
            })
        })
        .map_err(|error| error.within_item("ipNATs", index))?;
    }
    for (index, port) in spec.ports.iter().enumerate() {
        endpoint_port(port)
            .and_then(|()| {
                ensure(!port.name.is_empty() || port.host_port.is_some_and(|p| p != 0), "name", || {
                    "is required for a port without hostPort".to_owned()
                })
            })
            .map_err(|error| error.within_item("ports", index))?;
    }
    Ok(())
}

pub(super) fn host(spec: &HostEndpointSpec) -> Result {
    ensure(!spec.node.is_empty(), "node", || "is required".to_owned())?;
    ensure(spec.node.chars().count() <= NODE_MAX, "node", || {
        format!("is longer than {NODE_MAX} characters")
    })?;
    ensure(!(spec.interface_name.is_empty() && spec.expected_ips.is_empty()), "", || {
        "needs interfaceName or expectedIPs".to_owned()
    })?;
    if !spec.interface_name.is_empty() && spec.interface_name != ANY_INTERFACE {
        interface_name(&spec.interface_name)?;
    }
    for (index, port) in spec.ports.iter().enumerate() {
        host_port(port).map_err(|error| error.within_item("ports", index))?;
    }
    Ok(())
}

pub(super) fn node(spec: &NodeSpec) -> Result {
    mac("vxlanTunnelMACAddr", &spec.vxlan_tunnel_mac_addr)?;
    mac("vxlanTunnelMACAddrV6", &spec.vxlan_tunnel_mac_addr_v6)
}

fn interface_name(name: &str) -> Result {
    ensure(is_interface_name(name), "interfaceName", || {
        format!(
            "{name:?} is no name of an interface: use 1 to {INTERFACE_NAME_MAX} characters from a-z A-Z 0-9 _ . -"
        )
    })
}

fn endpoint_port(port: &EndpointPort) -> Result {
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let is_name = port.name.len() <= PORT_NAME_MAX && port.name.bytes().all(is_name_byte);
    ensure(is_name, "name", || format!("{:?} is no name of a port", port.name))?;
    ensure(port.protocol.has_ports(), "protocol", || {
        format!("protocol {} has no ports: use TCP, UDP or SCTP", port.protocol)
    })?;
    ensure(port.port != 0, "port", || "is a number from 1 to 65535".to_owned())
}

fn host_port(port: &EndpointPort) -> Result {
    endpoint_port(port)?;
    ensure(!port.name.is_empty(), "name", || "is required".to_owned())?;
    ensure(port.host_port.is_none(), "hostPort", || "is for workload endpoints only".to_owned())?;
    ensure(port.host_ip.is_none(), "hostIP", || "is for workload endpoints only".to_owned())
}

/// Six bytes in hexadecimal, joined by `:` or `-`. Empty means none.
fn mac(field: &str, text: &str) -> Result {
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let is_mac = |separator: char| text.split(separator).count() == 6 && text.split(separator).all(is_byte);
    ensure(text.is_empty() || is_mac(':') || is_mac('-'), field, || {
        format!("{text:?} is no MAC address like aa:bb:cc:dd:ee:ff")
    })
}
