//! Chains in which every endpoint that asks for it has rules of its own: allowed sources, floating addresses, DSCP.
//!
//! Sorted by what the rules say, so that the order in which endpoints come does not show.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::endpoint::IpNat;
use tortie_api::net::IpVersion;

use crate::ruleset::{Action, Chain, Match, Rule, Side};

/// What one endpoint has in chains that it shares with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Networks that it may send from beside its own.
    pub(crate) sources: Vec<IpNet>,
    /// Its floating addresses.
    pub(crate) floating: Vec<IpNat>,
    /// The DSCP value of what it sends out of the cluster, and its addresses.
    pub(crate) dscp: Option<(u8, Vec<IpAddr>)>,
    /// Its addresses, if rules have something to do with each of its packets.
    pub(crate) not_offloaded: Vec<IpAddr>,
}

impl Share {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `cali-rpf-skip`: what passes though its source is not routed back to where it came from.
pub(crate) fn allowed_sources<'a>(
    version: IpVersion,
    shares: impl Iterator<Item = (&'a str, &'a Share)>,
) -> Chain {
    let all = shares.flat_map(|(interface, share)| share.sources.iter().map(move |net| (interface, net)));
    let of_version = all.filter(|(_, net)| IpVersion::of(net) == version);
    let sorted: BTreeMap<(&str, String), &IpNet> =
        of_version.map(|(interface, net)| ((interface, net.to_string()), net)).collect();
    let rules = sorted.into_iter().map(|((interface, _), net)| {
        let source = Match::Net { side: Side::Source, net: *net, negate: false };
        Rule::when(vec![Match::InInterface(interface.to_owned()), source], Action::Accept)
    });
    Chain { name: "cali-rpf-skip".to_owned(), rules: rules.collect() }
}

/// `cali-fip-dnat` and `cali-fip-snat`. A floating address leads to the workload, and what the workload sends to its
/// own floating address comes to it from there, since it would not answer itself.
///
/// Of workloads that claim one floating address, the one with the smallest address has it; a workload with several
/// appears under the smallest. Addresses are compared as texts, as Felix does.
pub(crate) fn floating_addresses<'a>(
    version: IpVersion,
    shares: impl Iterator<Item = &'a Share>,
) -> [Chain; 2] {
    let (mut internal, mut external) = (BTreeMap::new(), BTreeMap::new());
    let keep_smallest = |map: &mut BTreeMap<String, IpAddr>, key: IpAddr, value: IpAddr| {
        let slot = map.entry(key.to_string()).or_insert(value);
        if value.to_string() < slot.to_string() {
            *slot = value;
        }
    };
    let nats = shares.flat_map(|share| &share.floating);
    for nat in nats.filter(|nat| IpVersion::of_addr(&nat.external_ip) == version) {
        keep_smallest(&mut internal, nat.external_ip, nat.internal_ip);
        keep_smallest(&mut external, nat.internal_ip, nat.external_ip);
    }
    let parsed = |map: BTreeMap<String, IpAddr>| {
        map.into_iter().filter_map(|(key, value)| Some((key.parse::<IpAddr>().ok()?, value)))
    };
    let address = |side, address| Match::Address { side, address };
    let dnat = parsed(internal)
        .map(|(from, to)| Rule::when(vec![address(Side::Destination, from)], Action::Dnat(to)));
    let snat = parsed(external).map(|(own, to)| {
        let matches = vec![address(Side::Destination, own), address(Side::Source, own)];
        Rule::when(matches, Action::Snat { address: to, ports: None })
    });
    [
        Chain { name: "cali-fip-dnat".to_owned(), rules: dnat.collect() },
        Chain { name: "cali-fip-snat".to_owned(), rules: snat.collect() },
    ]
}

/// `cali-egress-dscp`: one rule for each address. Felix has one for each endpoint, which the kernel takes apart if the
/// endpoint has several addresses, so that Felix never finds what it wrote.
pub(crate) fn dscp<'a>(version: IpVersion, shares: impl Iterator<Item = &'a Share>) -> Chain {
    let all = shares.filter_map(|share| share.dscp.as_ref());
    let all = all.flat_map(|(value, addresses)| addresses.iter().map(move |address| (*address, *value)));
    let sorted: BTreeMap<(String, u8), IpAddr> = all
        .filter(|(address, _)| IpVersion::of_addr(address) == version)
        .map(|(address, value)| ((address.to_string(), value), address))
        .collect();
    let rules = sorted.into_iter().map(|((_, value), address)| {
        Rule::when(vec![Match::Address { side: Side::Source, address }], Action::SetDscp(value))
    });
    Chain { name: "cali-egress-dscp".to_owned(), rules: rules.collect() }
}

/// The members of the set of addresses with a DSCP value.
pub(crate) fn dscp_sources<'a>(shares: impl Iterator<Item = &'a Share>) -> Vec<IpNet> {
    let addresses = shares.filter_map(|share| share.dscp.as_ref()).flat_map(|(_, addresses)| addresses);
    let all: BTreeSet<IpNet> = addresses.map(|address| IpNet::from(*address)).collect();
    all.into_iter().collect()
}

/// The members of the set of addresses whose connections must not skip the rules.
pub(crate) fn not_offloaded<'a>(shares: impl Iterator<Item = &'a Share>) -> Vec<IpNet> {
    let all: BTreeSet<IpNet> =
        shares.flat_map(|share| &share.not_offloaded).copied().map(IpNet::from).collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(internal: &str, external: &str) -> IpNat {
        IpNat { internal_ip: internal.parse().unwrap(), external_ip: external.parse().unwrap() }
    }

    fn text(chain: &Chain) -> Vec<String> {
        let rendered = crate::render::iptables::chain(chain, crate::render::iptables::Features::default());
        let rule = |text: &str| text.split_once("\" ").map(|(_, rule)| rule.to_owned()).unwrap_or_default();
        rendered.rules.iter().map(|r| rule(&r.text)).collect()
    }

    #[test]
    fn sources_are_sorted_by_interface_and_text_and_each_is_there_once() {
        let share = |nets: &[&str]| Share {
            sources: nets.iter().map(|net| net.parse().unwrap()).collect(),
            ..Share::default()
        };
        let shares = [
            ("cali2", share(&["10.9.0.0/16", "10.10.0.0/16", "10.9.0.0/16"])),
            ("cali1", share(&["fd00::/8", "192.0.2.0/24"])),
        ];
        let chain =
            |version| text(&allowed_sources(version, shares.iter().map(|(name, share)| (*name, share))));
        assert_eq!(
            chain(IpVersion::V4),
            [
                "--in-interface cali1 --source 192.0.2.0/24 --jump ACCEPT",
                "--in-interface cali2 --source 10.10.0.0/16 --jump ACCEPT",
                "--in-interface cali2 --source 10.9.0.0/16 --jump ACCEPT",
            ]
        );
        assert_eq!(chain(IpVersion::V6), ["--in-interface cali1 --source fd00::/8 --jump ACCEPT"]);
    }

    #[test]
    fn of_two_claims_to_a_floating_address_the_one_with_the_smaller_text_counts() {
        let share = |floating: Vec<IpNat>| Share { floating, ..Share::default() };
        let shares = [
            share(vec![nat("10.0.0.9", "192.0.2.1"), nat("10.0.0.9", "192.0.2.10")]),
            share(vec![nat("10.0.0.10", "192.0.2.1"), nat("fd00::1", "2001:db8::1")]),
        ];
        for shares in [shares.clone(), [shares[1].clone(), shares[0].clone()]] {
            let [dnat, snat] = floating_addresses(IpVersion::V4, shares.iter());
            assert_eq!(
                text(&dnat),
                [
                    "--destination 192.0.2.1 --jump DNAT --to-destination 10.0.0.10",
                    "--destination 192.0.2.10 --jump DNAT --to-destination 10.0.0.9",
                ]
            );
            assert_eq!(
                text(&snat),
                [
                    "--destination 10.0.0.10 --source 10.0.0.10 --jump SNAT --to-source 192.0.2.1 --random-fully",
                    "--destination 10.0.0.9 --source 10.0.0.9 --jump SNAT --to-source 192.0.2.1 --random-fully",
                ]
            );
            let [dnat, _] = floating_addresses(IpVersion::V6, shares.iter());
            assert_eq!(text(&dnat), ["--destination 2001:db8::1 --jump DNAT --to-destination fd00::1"]);
        }
    }

    #[test]
    fn each_address_with_a_dscp_value_has_a_rule_of_its_own() {
        let share = |value, addresses: &[&str]| Share {
            dscp: Some((value, addresses.iter().map(|a| a.parse().unwrap()).collect())),
            ..Share::default()
        };
        let shares = [share(46, &["10.0.0.9", "fd00::1"]), share(0, &["10.0.0.10", "10.0.0.2"])];
        assert_eq!(
            text(&dscp(IpVersion::V4, shares.iter())),
            [
                "--source 10.0.0.10 --jump DSCP --set-dscp 0",
                "--source 10.0.0.2 --jump DSCP --set-dscp 0",
                "--source 10.0.0.9 --jump DSCP --set-dscp 46",
            ]
        );
        assert_eq!(text(&dscp(IpVersion::V6, shares.iter())), ["--source fd00::1 --jump DSCP --set-dscp 46"]);
        let members: Vec<String> = dscp_sources(shares.iter()).iter().map(ToString::to_string).collect();
        assert_eq!(members, ["10.0.0.2/32", "10.0.0.9/32", "10.0.0.10/32", "fd00::1/128"]);
    }
}
