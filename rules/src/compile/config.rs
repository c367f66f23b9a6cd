//! What the compiler must know beside the desired state: options of `FelixConfiguration`.

mod marks;

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange, Protocol};

pub use self::marks::{MarkError, MarkUses, Marks};
use crate::render::InsertMode;
use crate::ruleset::{ConntrackState, Match};

/// What accepting a packet means in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowAction {
    /// Accept it for this table.
    #[default]
    Accept,
    /// Let the rules behind ours decide.
    Return,
}

/// What denying a packet means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyAction {
    /// Drop it silently.
    #[default]
    Drop,
    /// Answer with an ICMP error; only where the kernel allows that, in the filter table.
    Reject,
    /// Drop it silently, and what answers it, where revocation is instant: outside the filter table, before which nothing
    /// tells that a packet begins to be judged. No value of a setting.
    Cut,
}

/// What happens to traffic from a workload to its own host that its policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointToHostAction {
    /// Drop it.
    #[default]
    Drop,
    /// Answer with an ICMP error.
    Reject,
    /// Accept it.
    Accept,
    /// Let the rules behind ours decide.
    Return,
}

/// What happens to traffic that goes to an address of a service and was not sent on to one of its ends: the nodes
/// and their routers would hand it to each other until it is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceLoop {
    /// Drop it.
    #[default]
    Drop,
    /// Answer with an ICMP error.
    Reject,
    /// Nothing.
    Allow,
}

/// WireGuard of one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireGuard {
    /// Whether it is on.
    pub is_enabled: bool,
    /// The UDP port that it listens on.
    pub port: u16,
    /// The name of its device.
    pub interface: String,
}

/// How instances of OpenStack reach what they need of their host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenStack {
    /// Where the host serves metadata; nowhere without.
    pub metadata: Option<SocketAddrV4>,
}

/// How often a Log rule may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLimit {
    /// `N/second`, `N/minute`, `N/hour` or `N/day`.
    pub rate: String,
    /// Lines at once, 0 to 9999; 0 leaves it to the kernel.
    pub burst: u32,
}

/// Protocols that failsafe ports can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailsafeProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl From<FailsafeProtocol> for Protocol {
    fn from(protocol: FailsafeProtocol) -> Self {
        match protocol {
            FailsafeProtocol::Tcp => Self::Tcp,
            FailsafeProtocol::Udp => Self::Udp,
        }
    }
}

/// A port that no policy of host endpoints closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailsafePort {
    /// Its protocol.
    pub protocol: FailsafeProtocol,
    /// Its number.
    pub port: u16,
    /// Peers that it is kept open for; everybody without.
    pub net: Option<IpNet>,
}

/// SSH, DHCP client, BGP, etcd (client, peer), Typha, the Kubernetes API, and etcd's former ports.
const FAILSAFE_INBOUND: [(FailsafeProtocol, u16); 9] = [
    (FailsafeProtocol::Tcp, 22),
    (FailsafeProtocol::Udp, 68),
    (FailsafeProtocol::Tcp, 179),
    (FailsafeProtocol::Tcp, 2379),
    (FailsafeProtocol::Tcp, 2380),
    (FailsafeProtocol::Tcp, 5473),
    (FailsafeProtocol::Tcp, 6443),
    (FailsafeProtocol::Tcp, 6666),
    (FailsafeProtocol::Tcp, 6667),
];

/// DNS, DHCP server, and the same services as inbound.
const FAILSAFE_OUTBOUND: [(FailsafeProtocol, u16); 9] = [
    (FailsafeProtocol::Udp, 53),
    (FailsafeProtocol::Udp, 67),
    (FailsafeProtocol::Tcp, 179),
    (FailsafeProtocol::Tcp, 2379),
    (FailsafeProtocol::Tcp, 2380),
    (FailsafeProtocol::Tcp, 5473),
    (FailsafeProtocol::Tcp, 6443),
    (FailsafeProtocol::Tcp, 6666),
    (FailsafeProtocol::Tcp, 6667),
];

/// Options of the compiler. The default is Felix's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// IP versions to compile for.
    pub versions: Vec<IpVersion>,
    /// Prefixes of workload interfaces (`InterfacePrefix`).
    pub interface_prefixes: Vec<String>,
    /// Where our jumps go in the kernel's chains (`ChainInsertMode`).
    pub insert_mode: InsertMode,
    /// `IptablesFilterAllowAction`
    pub filter_allow: AllowAction,
    /// `IptablesMangleAllowAction`
    pub mangle_allow: AllowAction,
    /// `IptablesFilterDenyAction`
    pub filter_deny: DenyAction,
    /// `DefaultEndpointToHostAction`
    pub endpoint_to_host: EndpointToHostAction,
    /// Mark bits, from `IptablesMarkMask`.
    pub marks: Marks,
    /// `DisableConntrackInvalidCheck`
    pub disable_conntrack_invalid_check: bool,
    /// `AllowVXLANPacketsFromWorkloads`
    pub allow_vxlan_from_workloads: bool,
    /// `AllowIPIPPacketsFromWorkloads`
    pub allow_ipip_from_workloads: bool,
    /// `VXLANPort`
    pub vxlan_port: u16,
    /// `VXLANEnabled`: whether there is VXLAN on IPv4, whatever the pools say.
    pub vxlan_enabled: Option<bool>,
    /// `IpInIpEnabled`: whether there is IP in IP, whatever the pools say.
    pub ipip_enabled: Option<bool>,
    /// WireGuard on IPv4 (`WireguardEnabled`).
    pub wireguard_v4: WireGuard,
    /// WireGuard on IPv6 (`WireguardEnabledV6`).
    pub wireguard_v6: WireGuard,
    /// `WireguardHostEncryptionEnabled`
    pub wireguard_hosts: bool,
    /// `ExternalNodesCIDRList`: hosts beyond the cluster that may send tunnel packets.
    pub external_nodes: Vec<IpNet>,
    /// `ServiceLoopPrevention`
    pub service_loop: ServiceLoop,
    /// `KubeNodePortRanges`
    pub node_ports: Vec<PortRange>,
    /// The DSCP value of connections between workloads of an ambient mesh (`IstioAmbientMode`, `IstioDSCPMark`).
    pub istio_dscp: Option<u8>,
    /// The node is one of OpenStack (`ClusterType`, `MetadataAddr`, `MetadataPort`, `InterfacePrefix`).
    pub openstack: Option<OpenStack>,
    /// `LogPrefix`; `%t %k %n %p` stand for tier, kind, name, and namespace with name.
    pub log_prefix: String,
    /// `LogActionRateLimit` and its burst.
    pub log_limit: Option<LogLimit>,
    /// Packets that policy has decided on are told to who listens (`FlowLogsLocalReporter`,
    /// `FlowLogsGoldmaneServer`).
    pub flow_logs: bool,
    /// Established connections skip the rules where the kernel can do that (`NFTablesFlowTableOffload`). For nftables
    /// only.
    pub flow_offload: bool,
    /// `FailsafeInboundHostPorts`
    pub failsafe_inbound: Vec<FailsafePort>,
    /// `FailsafeOutboundHostPorts`
    pub failsafe_outbound: Vec<FailsafePort>,
    /// `NATPortRange`
    pub nat_ports: Option<PortRange>,
    /// `NATOutgoingAddress`
    pub nat_address: Option<Ipv4Addr>,
    /// Outgoing NAT is not for what goes to other nodes (`NATOutgoingExclusions`).
    pub nat_spares_hosts: bool,
    /// `IptablesNATOutgoingInterfaceFilter`
    pub nat_interface: Option<String>,
    /// `MaxIpsetSize`
    pub max_set_size: u32,
    /// `FloatingIPs`: whether floating addresses are in force, those of OpenStack's workloads apart.
    pub floating_ips: bool,
    /// `WorkloadSourceSpoofing`: whether workloads may send from the networks that they are allowed to.
    pub source_spoofing: bool,
}

impl Default for Config {
    fn default() -> Self {
        let wireguard = |port, name: &str| WireGuard { is_enabled: false, port, interface: name.to_owned() };
        let failsafe = |(protocol, port)| FailsafePort { protocol, port, net: None };
        Self {
            versions: IpVersion::BOTH.to_vec(),
            interface_prefixes: vec!["cali".to_owned()],
            insert_mode: InsertMode::Insert,
            filter_allow: AllowAction::Accept,
            mangle_allow: AllowAction::Accept,
            filter_deny: DenyAction::Drop,
            endpoint_to_host: EndpointToHostAction::Drop,
            marks: Marks::default(),
            disable_conntrack_invalid_check: false,
            allow_vxlan_from_workloads: false,
            allow_ipip_from_workloads: false,
            vxlan_port: 4789,
            vxlan_enabled: None,
            ipip_enabled: None,
            wireguard_v4: wireguard(51820, "wireguard.cali"),
            wireguard_v6: wireguard(51821, "wg-v6.cali"),
            wireguard_hosts: false,
            external_nodes: Vec::new(),
            service_loop: ServiceLoop::Drop,
            node_ports: PortRange::new(30000, 32767).into_iter().collect(),
            istio_dscp: None,
            openstack: None,
            log_prefix: "calico-packet".to_owned(),
            log_limit: None,
            flow_logs: false,
            flow_offload: false,
            failsafe_inbound: FAILSAFE_INBOUND.map(failsafe).into(),
            failsafe_outbound: FAILSAFE_OUTBOUND.map(failsafe).into(),
            nat_ports: None,
            nat_address: None,
            nat_spares_hosts: false,
            nat_interface: None,
            max_set_size: 1_048_576,
            floating_ips: false,
            source_spoofing: false,
        }
    }
}

impl Config {
    /// WireGuard of an IP version, if it is on.
    pub fn wireguard(&self, version: IpVersion) -> Option<&WireGuard> {
        let wireguard = match version {
            IpVersion::V4 => &self.wireguard_v4,
            IpVersion::V6 => &self.wireguard_v6,
        };
        Some(wireguard).filter(|wireguard| wireguard.is_enabled)
    }

    /// The packet belongs to a connection that policy is not asked about again: one that is established, and where
    /// revocation is instant, one that has passed since policy changed. What of that holds is in the mark then, put there
    /// by chains that are no part of what is compiled ([`crate::render::nft::established`]).
    pub(crate) const fn known(&self) -> Match {
        const KNOWN: &[ConntrackState] = &[ConntrackState::Related, ConntrackState::Established];
        match self.marks.known {
            0 => Match::Conntrack { states: KNOWN, negate: false },
            known => Match::MarkAnySet(known),
        }
    }

    /// Whether WireGuard is on in any IP version.
    pub const fn has_wireguard(&self) -> bool {
        self.wireguard_v4.is_enabled || self.wireguard_v6.is_enabled
    }
}
