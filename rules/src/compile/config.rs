//! What the compiler must know beside the desired state: options of `FelixConfiguration`.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange, Protocol};

use crate::render::InsertMode;
use crate::ruleset::Bits;

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
    /// `LogPrefix`; `%t %k %n %p` stand for tier, kind, name, and namespace with name.
    pub log_prefix: String,
    /// `LogActionRateLimit` and its burst.
    pub log_limit: Option<LogLimit>,
    /// Packets that policy has decided on are told to who listens (`FlowLogsLocalReporter`,
    /// `FlowLogsGoldmaneServer`).
    pub flow_logs: bool,
    /// `FailsafeInboundHostPorts`
    pub failsafe_inbound: Vec<FailsafePort>,
    /// `FailsafeOutboundHostPorts`
    pub failsafe_outbound: Vec<FailsafePort>,
    /// `NATPortRange`
    pub nat_ports: Option<PortRange>,
    /// `NATOutgoingAddress`
    pub nat_address: Option<Ipv4Addr>,
    /// `IptablesNATOutgoingInterfaceFilter`
    pub nat_interface: Option<String>,
    /// `MaxIpsetSize`
    pub max_set_size: u32,
}

impl Default for Config {
    fn default() -> Self {
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
            log_prefix: "calico-packet".to_owned(),
            log_limit: None,
            flow_logs: false,
            failsafe_inbound: FAILSAFE_INBOUND.map(failsafe).into(),
            failsafe_outbound: FAILSAFE_OUTBOUND.map(failsafe).into(),
            nat_ports: None,
            nat_address: None,
            nat_interface: None,
            max_set_size: 1_048_576,
        }
    }
}

/// The mark bits that the rules use, each a single bit of the configured mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Policy accepted the packet.
    pub accept: Bits,
    /// Policy passed the packet on to the next tier.
    pub pass: Bits,
    /// Policy denied the packet.
    pub drop: Bits,
    /// Scratch: from a workload (raw), all blocks match (policy rules).
    pub scratch0: Bits,
    /// Scratch: this block matches.
    pub scratch1: Bits,
}

/// A mark mask with too few bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mark mask {mask:#x} has {got} bits, but {} are needed", Marks::NEEDED)]
pub struct MarkError {
    mask: u32,
    got: u32,
}

impl Marks {
    /// Bits that a mask must have.
    pub const NEEDED: u32 = 5;

    /// Takes the bits of a mask, lowest first.
    pub fn from_mask(mask: u32) -> Result<Self, MarkError> {
        let mut bits = (0..32).map(|n| 1_u32 << n).filter(|bit| mask & bit != 0);
        let mut next = || bits.next().ok_or(MarkError { mask, got: mask.count_ones() });
        Ok(Self { accept: next()?, pass: next()?, drop: next()?, scratch0: next()?, scratch1: next()? })
    }

    /// What a packet must not bring along when it enters our rules. The drop bit is never kept, so it need not
    /// be cleared.
    pub const fn all(&self) -> Bits {
        self.accept | self.pass | self.scratch0 | self.scratch1
    }
}

impl Default for Marks {
    /// Of Felix's default mask, `0xffff0000`.
    fn default() -> Self {
        Self { accept: 0x1_0000, pass: 0x2_0000, drop: 0x4_0000, scratch0: 0x8_0000, scratch1: 0x10_0000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_taken_lowest_first() {
        assert_eq!(Marks::from_mask(0xffff_0000), Ok(Marks::default()));
        assert_eq!(Marks::default().all(), 0x1b_0000);
        let sparse = Marks::from_mask(0b1010_1010_1010).expect("six bits");
        assert_eq!((sparse.accept, sparse.scratch1), (0b10, 0b10_0000_0000));
        assert!(Marks::from_mask(0xf).is_err());
    }
}
