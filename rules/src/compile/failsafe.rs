//! Failsafe ports: what passes host endpoints whatever their policy says, so that nobody locks himself out.

use tortie_api::net::{IpVersion, PortRange};

use super::config::{Config, FailsafePort};
use super::names::{self, Direction};
use crate::render::Table;
use crate::ruleset::{Action, Chain, Match, Rule, Side};

/// The failsafe chains of a table.
///
/// Before connections are tracked there is no telling an answer from a request: in `raw` the answers from and to
/// failsafe ports pass as well.
pub(crate) fn chains(table: Table, version: IpVersion, config: &Config) -> Vec<Chain> {
    if table == Table::Nat {
        return Vec::new();
    }
    let chain = |direction| {
        let (there, back) = match direction {
            Direction::Ingress => (&config.failsafe_inbound, &config.failsafe_outbound),
            Direction::Egress => (&config.failsafe_outbound, &config.failsafe_inbound),
        };
        let back = if table == Table::Raw { back.as_slice() } else { &[] };
        let requests = there.iter().map(|port| (port, Side::Destination));
        let answers = back.iter().map(|port| (port, Side::Source));
        let rules = requests.chain(answers).filter_map(|(port, side)| rule(port, side, direction, version));
        Chain { name: names::failsafe_chain(direction).to_owned(), rules: rules.collect() }
    };
    Direction::BOTH.map(chain).into()
}

/// The rule for a port on one side of packets. A network is always that of the peer.
fn rule(port: &FailsafePort, side: Side, direction: Direction, version: IpVersion) -> Option<Rule> {
    if port.net.is_some_and(|net| IpVersion::of(&net) != version) {
        return None;
    }
    let peer = match direction {
        Direction::Ingress => Side::Source,
        Direction::Egress => Side::Destination,
    };
    let mut matches = vec![
        Match::Protocol { protocol: port.protocol.into(), negate: false },
        Match::Ports { side, ports: vec![PortRange::single(port.port)], negate: false },
    ];
    matches.extend(port.net.map(|net| Match::Net { side: peer, net, negate: false }));
    Some(Rule::when(matches, Action::Accept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::config::FailsafeProtocol;
    use crate::render::iptables::{self, Features};

    fn text(table: Table, version: IpVersion) -> Vec<String> {
        let port = |protocol, port, net: Option<&str>| FailsafePort {
            protocol,
            port,
            net: net.map(|n| n.parse().expect("a network")),
        };
        let config = Config {
            failsafe_inbound: vec![port(FailsafeProtocol::Tcp, 22, Some("10.0.0.0/8"))],
            failsafe_outbound: vec![port(FailsafeProtocol::Udp, 53, None)],
            ..Config::default()
        };
        let chains = chains(table, version, &config);
        let rendered = chains.iter().map(|chain| iptables::chain(chain, Features::default()));
        let rule = |name: &str, text: &str| format!("{name} {}", &text[text.find("-p").unwrap_or(0)..]);
        rendered.flat_map(|c| c.rules.iter().map(|r| rule(&c.name, &r.text)).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_network_is_that_of_the_peer() {
        let inbound =
            "cali-failsafe-in -p tcp -m multiport --destination-ports 22 --source 10.0.0.0/8 --jump ACCEPT";
        let outbound = "cali-failsafe-out -p udp -m multiport --destination-ports 53 --jump ACCEPT";
        assert_eq!(text(Table::Filter, IpVersion::V4), [inbound, outbound]);
        assert_eq!(
            text(Table::Raw, IpVersion::V4),
            [
                inbound,
                "cali-failsafe-in -p udp -m multiport --source-ports 53 --jump ACCEPT",
                outbound,
                "cali-failsafe-out -p tcp -m multiport --source-ports 22 --destination 10.0.0.0/8 --jump ACCEPT",
            ]
        );
    }

    #[test]
    fn a_network_of_the_other_ip_version_makes_no_rule() {
        assert_eq!(text(Table::Mangle, IpVersion::V6).len(), 1);
    }
}
