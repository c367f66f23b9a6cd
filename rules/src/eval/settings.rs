//! Settings of the nodes that decide about traffic beside policy.

use ipnet::IpNet;
use tortie_api::net::Protocol;

/// Settings, the same on all nodes. The default is Felix's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `FailsafeInboundHostPorts`: what always reaches a host.
    pub failsafe_inbound: Vec<Failsafe>,
    /// `FailsafeOutboundHostPorts`: what a host may always reach.
    pub failsafe_outbound: Vec<Failsafe>,
    /// `DefaultEndpointToHostAction`
    pub endpoint_to_host: HostAction,
    /// `AllowVXLANPacketsFromWorkloads`
    pub allow_vxlan_from_workloads: bool,
    /// `AllowIPIPPacketsFromWorkloads`
    pub allow_ipip_from_workloads: bool,
    /// `VXLANPort`
    pub vxlan_port: u16,
    /// Evaluate as if the staged policies were in force: those with action `Set` in place of the enforced ones
    /// of the same name, and without those that a `Delete` names.
    pub enforce_staged: bool,
}

/// What happens to traffic from a workload to its own host that the workload's policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostAction {
    /// It is dropped.
    #[default]
    Deny,
    /// It is accepted, or left to rules that are not Calico's.
    Allow,
}

/// A port that policy of host endpoints cannot close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failsafe {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// Only for the other end in this network.
    pub net: Option<IpNet>,
}

impl Failsafe {
    const fn tcp(port: u16) -> Self {
        Self { protocol: Protocol::Tcp, port, net: None }
    }

    const fn udp(port: u16) -> Self {
        Self { protocol: Protocol::Udp, port, net: None }
    }
}

/// SSH, DHCP, BGP, etcd, Typha, the Kubernetes API, etcd of old: Felix's list for traffic to hosts.
const INBOUND: [Failsafe; 9] = [
    Failsafe::tcp(22),
    Failsafe::udp(68),
    Failsafe::tcp(179),
    Failsafe::tcp(2379),
    Failsafe::tcp(2380),
    Failsafe::tcp(5473),
    Failsafe::tcp(6443),
    Failsafe::tcp(6666),
    Failsafe::tcp(6667),
];

/// The same with DNS and DHCP servers: Felix's list for traffic from hosts.
const OUTBOUND: [Failsafe; 9] = [
    Failsafe::udp(53),
    Failsafe::udp(67),
    Failsafe::tcp(179),
    Failsafe::tcp(2379),
    Failsafe::tcp(2380),
    Failsafe::tcp(5473),
    Failsafe::tcp(6443),
    Failsafe::tcp(6666),
    Failsafe::tcp(6667),
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            failsafe_inbound: INBOUND.to_vec(),
            failsafe_outbound: OUTBOUND.to_vec(),
            endpoint_to_host: HostAction::default(),
            allow_vxlan_from_workloads: false,
            allow_ipip_from_workloads: false,
            vxlan_port: 4789,
            enforce_staged: false,
        }
    }
}
