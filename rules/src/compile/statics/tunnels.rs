//! Rules for tunnels between nodes: who may send their packets, and what goes into them.

use tortie_api::net::{IpVersion, PortRange, Protocol};

use super::super::config::{Config, WireGuard};
use super::super::endpoint::{deny_word, filter_allow};
use super::super::names::set_name;
use super::super::rule::deny;
use super::{chain, jump, prefixes};
use crate::graph::model::ClusterNetwork;
use crate::ruleset::{Action, Chain, Match, Rule, SetKey, Side};

/// Set of the addresses of all nodes.
pub(crate) const ALL_HOSTS: &str = "all-hosts-net";
/// Set of the hosts that may send VXLAN packets.
pub(crate) const VXLAN_HOSTS: &str = "all-vxlan-net";

/// Marks packets that came out of a tunnel of WireGuard, or are none's.
const WIREGUARD_MARK: &str = "cali-wireguard-incoming-mark";

/// IP in IP, IANA protocol number 4.
const IPIP: Protocol = Protocol::Number(4);
/// UDP by number, as Felix writes it where the rule is its own.
const UDP: Protocol = Protocol::Number(17);

/// The tunnels of one IP version.
pub(crate) struct Tunnels<'a> {
    version: IpVersion,
    config: &'a Config,
    pub(crate) ipip: bool,
    pub(crate) vxlan: bool,
    wireguard: Option<&'a WireGuard>,
    /// Devices whose packets come from this node's address.
    devices: Vec<&'a str>,
}

impl<'a> Tunnels<'a> {
    pub(crate) fn new(version: IpVersion, config: &'a Config, network: &ClusterNetwork) -> Self {
        let is_v4 = version == IpVersion::V4;
        let ipip = is_v4 && config.ipip_enabled.unwrap_or(network.ipip);
        // Felix's switch is one for IPv4; for IPv6 pools alone decide.
        let switch = config.vxlan_enabled.filter(|_| is_v4);
        let vxlan = switch.unwrap_or_else(|| network.vxlan.contains(&version));
        let wireguard = config.wireguard(version);
        let mut devices = Vec::new();
        if ipip && network.has_ipip_address {
            devices.push("tunl0");
        }
        if vxlan && network.vxlan_addresses.contains(&version) {
            devices.push(if is_v4 { "vxlan.calico" } else { "vxlan-v6.calico" });
        }
        devices.extend(wireguard.map(|wireguard| wireguard.interface.as_str()));
        Self { version, config, ipip, vxlan, wireguard, devices }
    }

    /// What of `cali-PREROUTING` in `raw` comes before the rest. Tunnel packets are many and all of one connection.
    pub(super) fn untracked_in(&self) -> Vec<Rule> {
        let mark = (self.config.has_wireguard() && self.config.wireguard_hosts)
            .then(|| Rule::always(jump(WIREGUARD_MARK)));
        mark.into_iter().chain(self.untracked()).collect()
    }

    /// VXLAN packets, in `raw`.
    pub(super) fn untracked(&self) -> Option<Rule> {
        let port = Match::DestinationPort(self.config.vxlan_port);
        self.vxlan.then(|| Rule::when(vec![protocol(Protocol::Udp), port], Action::NoTrack))
    }

    /// What of `cali-INPUT` in `filter` comes before the rest.
    pub(super) fn input(&self) -> Vec<Rule> {
        let (config, allow) = (self.config, filter_allow(self.config));
        let (word, version) = (deny_word(config), self.version);
        let to_us = || Match::Local(Side::Destination);
        let mut rules = Vec::new();
        if self.ipip {
            let known = vec![protocol(IPIP), self.set(ALL_HOSTS, Side::Source), to_us()];
            rules.push(Rule::when(known, allow.clone()).comment("Allow IPIP packets from Calico hosts"));
            let others = Rule::when(vec![protocol(IPIP)], deny(config));
            rules.push(others.comment(format!("{word} IPIP packets from non-Calico hosts")));
        }
        if self.vxlan {
            let udp = || vec![protocol(UDP), port(config.vxlan_port)];
            let known = [udp(), vec![self.set(VXLAN_HOSTS, Side::Source), to_us()]].concat();
            rules.push(
                Rule::when(known, allow.clone())
                    .comment(format!("Allow {version} VXLAN packets from allowed hosts")),
            );
            let others = [udp(), vec![to_us()]].concat();
            // On IPv4 they are dropped whatever the configured denial is.
            let (word, denied) = match version {
                IpVersion::V4 => ("Drop", Action::Drop),
                IpVersion::V6 => (word, deny(config)),
            };
            rules.push(
                Rule::when(others, denied)
                    .comment(format!("{word} {version} VXLAN packets from non-allowed hosts")),
            );
        }
        rules.extend(self.wireguard.map(|wireguard| {
            Rule::when(vec![protocol(UDP), port(wireguard.port), to_us()], allow)
                .comment(format!("Allow incoming {version} Wireguard packets"))
        }));
        rules
    }

    /// What of `cali-OUTPUT` in `filter` comes before policy.
    pub(super) fn output(&self) -> Vec<Rule> {
        let (config, version) = (self.config, self.version);
        let allow = |matches, comment: &str| Rule::when(matches, filter_allow(config)).comment(comment);
        let from_us = || Match::Local(Side::Source);
        let mut rules = Vec::new();
        if self.ipip {
            let matches = vec![protocol(IPIP), self.set(ALL_HOSTS, Side::Destination), from_us()];
            rules.push(allow(matches, "Allow IPIP packets to other Calico hosts"));
        }
        if self.vxlan {
            let to = self.set(VXLAN_HOSTS, Side::Destination);
            let matches = vec![protocol(UDP), port(config.vxlan_port), from_us(), to];
            rules.push(allow(matches, &format!("Allow {version} VXLAN packets to other allowed hosts")));
        }
        rules.extend(self.wireguard.map(|wireguard| {
            let matches = vec![protocol(UDP), port(wireguard.port), from_us()];
            allow(matches, &format!("Allow outgoing {version} Wireguard packets"))
        }));
        rules
    }

    /// What of `cali-POSTROUTING` in `nat` comes behind the rest: what this host sends through a tunnel with
    /// another of its addresses would be answered past the tunnel.
    pub(super) fn translated(&self) -> impl Iterator<Item = Rule> + '_ {
        self.devices.iter().map(|device| {
            let from = [Match::NotFromOutInterface, Match::Local(Side::Source)];
            let matches = [vec![Match::OutInterface((*device).to_owned())], from.to_vec()].concat();
            Rule::when(matches, Action::Masquerade { ports: None })
        })
    }

    fn set(&self, id: &str, side: Side) -> Match {
        Match::Set { name: set_name(self.version, id), side, key: SetKey::Address, negate: false }
    }
}

/// The chain that marks what does not come from a workload or from a tunnel of WireGuard itself.
pub(super) fn wireguard_mark(config: &Config) -> Option<Chain> {
    if config.marks.wireguard == 0 {
        return None;
    }
    let back = |interface: String| Rule::when(vec![Match::InInterface(interface)], Action::Return);
    let mut rules = vec![back("lo".to_owned())];
    let devices = [&config.wireguard_v4, &config.wireguard_v6].into_iter();
    rules.extend(devices.map(|device| back(device.interface.clone())));
    rules.extend(prefixes(config, back));
    rules.push(Rule::always(Action::SetMark(config.marks.wireguard)));
    Some(chain(WIREGUARD_MARK, rules))
}

fn protocol(protocol: Protocol) -> Match {
    Match::Protocol { protocol, negate: false }
}

fn port(port: u16) -> Match {
    Match::Ports { side: Side::Destination, ports: vec![PortRange::single(port)], negate: false }
}
