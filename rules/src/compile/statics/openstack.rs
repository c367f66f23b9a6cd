//! What instances of OpenStack may always do: ask for an address, for names and for metadata.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use ipnet::{IpNet, Ipv4Net};
use tortie_api::net::{IpVersion, PortRange, Protocol};

use super::super::config::Config;
use super::super::endpoint::filter_allow;
use crate::ruleset::{Action, Match, Rule, Side};

/// Where instances look for metadata.
const METADATA: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 169, 254), 32);
/// HTTP.
const METADATA_PORT: u16 = 80;
const DNS: u16 = 53;

/// Ports of DHCP: of the client, of the server.
const fn dhcp(version: IpVersion) -> (u16, u16) {
    match version {
        IpVersion::V4 => (68, 67),
        IpVersion::V6 => (546, 547),
    }
}

/// Packets of those who ask for their first address, before the source address is looked at.
pub(super) fn without_address(version: IpVersion, config: &Config) -> Option<Rule> {
    config.openstack.filter(|_| version == IpVersion::V4)?;
    let nobody = Match::Address { side: Side::Source, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let (client, server) = dhcp(version);
    let ports = [port(Side::Source, client), port(Side::Destination, server)];
    let matches = [vec![protocol(Protocol::Udp), nobody], ports.to_vec()].concat();
    Some(Rule::when(matches, Action::Accept))
}

/// Requests for metadata go to the host's server.
pub(super) fn metadata_nat(version: IpVersion, config: &Config) -> Option<Rule> {
    let server = metadata(version, config)?;
    let matches = vec![
        protocol(Protocol::Tcp),
        port(Side::Destination, METADATA_PORT),
        Match::Net { side: Side::Destination, net: IpNet::V4(METADATA), negate: false },
    ];
    Some(Rule::when(matches, Action::DnatPort(server.into())))
}

/// What of `cali-wl-to-host` comes before policy.
pub(super) fn to_host(version: IpVersion, config: &Config) -> Vec<Rule> {
    if config.openstack.is_none() {
        return Vec::new();
    }
    let allow = |matches| Rule::when(matches, filter_allow(config));
    let metadata = metadata(version, config).map(|server| {
        let address = Match::Address { side: Side::Destination, address: IpAddr::V4(*server.ip()) };
        allow(vec![protocol(Protocol::Tcp), address, port(Side::Destination, server.port())])
    });
    let (client, server) = dhcp(version);
    let mut rules: Vec<Rule> = metadata.into_iter().collect();
    rules.push(allow(vec![
        protocol(Protocol::Udp),
        port(Side::Source, client),
        port(Side::Destination, server),
    ]));
    rules.push(allow(vec![protocol(Protocol::Udp), port(Side::Destination, DNS)]));
    rules
}

fn metadata(version: IpVersion, config: &Config) -> Option<SocketAddrV4> {
    config.openstack.filter(|_| version == IpVersion::V4)?.metadata
}

fn protocol(protocol: Protocol) -> Match {
    Match::Protocol { protocol, negate: false }
}

fn port(side: Side, port: u16) -> Match {
    Match::Ports { side, ports: vec![PortRange::single(port)], negate: false }
}
