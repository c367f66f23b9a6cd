//! The chains that every node has, whatever its endpoints, and the hooks in the kernel's own chains.

use tortie_api::net::{IpVersion, PortRange, Protocol};

use super::config::{Config, EndpointToHostAction};
use super::endpoint::{filter_allow, mangle_allow};
use super::failsafe;
use super::names::{self, Direction, set_name};
use crate::render::Table;
use crate::ruleset::{Action, Chain, ConntrackState, Hook, Match, Rule, SetKey, Side};

/// Set of all IP pools.
pub(crate) const ALL_POOLS: &str = "all-ipam-pools";
/// Set of the IP pools with outgoing NAT.
pub(crate) const NAT_POOLS: &str = "masq-ipam-pools";
/// Set of this host's own addresses.
pub(crate) const THIS_HOST: &str = "this-host";
/// Set of workloads whose packets get a DSCP value.
pub(crate) const DSCP_SOURCES: &str = "dscp-src-net";

const DNAT: &[ConntrackState] = &[ConntrackState::Dnat];
const KNOWN: &[ConntrackState] = &[ConntrackState::Related, ConntrackState::Established];
const HEP_ACCEPTED: &str = "Host endpoint policy accepted packet.";

/// ICMPv6 types that a workload may always send to its host: multicast listener messages, router
/// solicitation, neighbour solicitation and advertisement.
const ICMPV6_TO_HOST: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// Our rules in the kernel's chains of a table.
pub(crate) fn hooks(table: Table, config: &Config) -> Vec<Hook> {
    let hook = |chain: &'static str| Hook {
        chain,
        inserted: vec![Rule::always(Action::Jump(format!("cali-{chain}")))],
        appended: Vec::new(),
    };
    match table {
        Table::Raw => vec![hook("PREROUTING"), hook("OUTPUT")],
        Table::Mangle => vec![hook("PREROUTING"), hook("POSTROUTING")],
        Table::Nat => {
            let mut post = hook("POSTROUTING");
            // Always behind kube-proxy's rules, so that it masquerades first.
            post.appended = std::mem::take(&mut post.inserted);
            vec![hook("PREROUTING"), hook("OUTPUT"), post]
        }
        Table::Filter => {
            let mut forward = hook("FORWARD");
            forward.appended = vec![
                Rule::when(vec![accepted(config)], filter_allow(config))
                    .comment("Policy explicitly accepted packet."),
                Rule::always(Action::SetMark(config.marks.accept)),
            ];
            vec![hook("INPUT"), forward, hook("OUTPUT")]
        }
    }
}

/// The static chains of a table.
pub(crate) fn chains(table: Table, version: IpVersion, config: &Config) -> Vec<Chain> {
    let mut chains = match table {
        Table::Raw => raw(config),
        Table::Mangle => mangle(version, config),
        Table::Nat => nat(config),
        Table::Filter => filter(version, config),
    };
    chains.extend(failsafe::chains(table, version, config));
    chains
}

/// `cali-nat-outgoing`; empty unless a pool of this version has outgoing NAT.
pub(crate) fn nat_outgoing(version: IpVersion, wanted: bool, config: &Config) -> Chain {
    let base = |protocol: Option<Protocol>| {
        let set =
            |id, side, negate| Match::Set { name: set_name(version, id), side, key: SetKey::Address, negate };
        let mut matches = vec![set(NAT_POOLS, Side::Source, false), set(ALL_POOLS, Side::Destination, true)];
        matches.extend(protocol.map(|protocol| Match::Protocol { protocol, negate: false }));
        matches.extend(config.nat_interface.clone().map(Match::OutInterface));
        matches
    };
    let address = config.nat_address.filter(|_| version == IpVersion::V4);
    let translate = |ports: Option<PortRange>| match address {
        Some(address) => Action::Snat { address: address.into(), ports },
        None => Action::Masquerade { ports },
    };
    let mut rules = Vec::new();
    if wanted {
        if config.nat_ports.is_some() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                rules.push(Rule::when(base(Some(protocol)), translate(config.nat_ports)));
                rules.push(Rule::when(base(Some(protocol)), Action::Return));
            }
        }
        rules.push(Rule::when(base(None), translate(None)));
    }
    chain("cali-nat-outgoing", rules)
}

fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), rules }
}

fn empty(name: &str) -> Chain {
    chain(name, Vec::new())
}

fn jump(name: &str) -> Action {
    Action::Jump(name.to_owned())
}

fn accepted(config: &Config) -> Match {
    Match::Mark { value: config.marks.accept, mask: config.marks.accept }
}

/// One rule for each prefix of workload interfaces.
fn prefixes<'a>(config: &'a Config, rule: impl Fn(String) -> Rule + 'a) -> impl Iterator<Item = Rule> + 'a {
    config.interface_prefixes.iter().map(move |p| rule(format!("{p}+")))
}

fn raw(config: &Config) -> Vec<Chain> {
    let marks = &config.marks;
    let from_workload = Match::Mark { value: marks.scratch0, mask: marks.scratch0 };
    let mut prerouting = vec![Rule::always(Action::ClearMark(marks.all()))];
    prerouting.extend(prefixes(config, |i| {
        Rule::when(vec![Match::InInterface(i)], Action::SetMark(marks.scratch0))
    }));
    prerouting.extend([
        Rule::when(vec![from_workload.clone()], jump("cali-rpf-skip")),
        // Always a drop: the kernel takes REJECT in the filter table only.
        Rule::when(vec![from_workload, Match::ReversePathFails], Action::Drop),
        Rule::when(vec![Match::MarkClear(marks.scratch0)], jump("cali-from-host-endpoint")),
        Rule::when(vec![accepted(config)], Action::Accept),
    ]);
    let output = vec![
        Rule::always(Action::ClearMark(marks.all())),
        Rule::always(jump("cali-to-host-endpoint")),
        Rule::when(vec![accepted(config)], Action::Accept),
    ];
    vec![chain("cali-PREROUTING", prerouting), chain("cali-OUTPUT", output), empty("cali-rpf-skip")]
}

fn mangle(version: IpVersion, config: &Config) -> Vec<Chain> {
    let allow = || mangle_allow(config);
    let known = Match::Conntrack { states: KNOWN, negate: false };
    let prerouting = vec![
        Rule::when(vec![known], allow()),
        Rule::when(vec![accepted(config)], allow()),
        Rule::always(jump("cali-from-host-endpoint")),
        Rule::when(vec![accepted(config)], allow()).comment(HEP_ACCEPTED),
    ];
    let set =
        |id, side, negate| Match::Set { name: set_name(version, id), side, key: SetKey::Address, negate };
    let leaving = vec![
        set(DSCP_SOURCES, Side::Source, false),
        set(ALL_POOLS, Side::Destination, true),
        set(THIS_HOST, Side::Destination, true),
    ];
    let postrouting = vec![
        Rule::when(leaving, jump("cali-egress-dscp")).comment("set dscp for traffic leaving cluster."),
        Rule::when(vec![accepted(config)], Action::Return),
        Rule::always(Action::ClearMark(config.marks.all())),
        Rule::when(vec![Match::Conntrack { states: DNAT, negate: false }], jump("cali-to-host-endpoint")),
        Rule::when(vec![accepted(config)], Action::Return).comment(HEP_ACCEPTED),
    ];
    vec![
        chain("cali-PREROUTING", prerouting),
        chain("cali-POSTROUTING", postrouting),
        empty("cali-egress-dscp"),
    ]
}

fn nat(_config: &Config) -> Vec<Chain> {
    vec![
        chain("cali-PREROUTING", vec![Rule::always(jump("cali-fip-dnat"))]),
        chain("cali-OUTPUT", vec![Rule::always(jump("cali-fip-dnat"))]),
        chain(
            "cali-POSTROUTING",
            vec![Rule::always(jump("cali-fip-snat")), Rule::always(jump("cali-nat-outgoing"))],
        ),
        empty("cali-fip-dnat"),
        empty("cali-fip-snat"),
    ]
}

fn filter(version: IpVersion, config: &Config) -> Vec<Chain> {
    let marks = &config.marks;
    let clear = || Rule::always(Action::ClearMark(marks.all()));
    let hep_accepted = || Rule::when(vec![accepted(config)], filter_allow(config)).comment(HEP_ACCEPTED);
    let mut input: Vec<Rule> = prefixes(config, |i| {
        Rule::when(vec![Match::InInterface(i)], Action::Goto("cali-wl-to-host".to_owned()))
    })
    .collect();
    input.extend([
        Rule::when(vec![accepted(config)], filter_allow(config)),
        clear(),
        Rule::always(jump("cali-from-host-endpoint")),
        hep_accepted(),
    ]);
    let mut output = vec![Rule::when(vec![accepted(config)], filter_allow(config))];
    output.extend(prefixes(config, |i| Rule::when(vec![Match::OutInterface(i)], Action::Return)));
    output.extend([
        clear(),
        Rule::when(vec![Match::Conntrack { states: DNAT, negate: true }], jump("cali-to-host-endpoint")),
        hep_accepted(),
    ]);
    vec![
        chain("cali-INPUT", input),
        chain("cali-FORWARD", forward(config)),
        chain("cali-OUTPUT", output),
        workload_to_host(version, config),
        empty("cali-cidr-block"),
    ]
}

fn forward(config: &Config) -> Vec<Rule> {
    let marks = &config.marks;
    let dispatch = |direction, m| Rule::when(vec![m], jump(names::dispatch_chain(direction)));
    let mut rules = vec![
        Rule::always(Action::ClearMark(marks.all() & !marks.accept)),
        Rule::when(vec![Match::MarkClear(marks.accept)], jump("cali-from-hep-forward")),
    ];
    for prefix in &config.interface_prefixes {
        rules.push(dispatch(Direction::Egress, Match::InInterface(format!("{prefix}+"))));
        rules.push(dispatch(Direction::Ingress, Match::OutInterface(format!("{prefix}+"))));
    }
    rules.push(Rule::always(jump("cali-to-hep-forward")));
    rules.push(Rule::always(jump("cali-cidr-block")));
    rules
}

fn workload_to_host(version: IpVersion, config: &Config) -> Chain {
    let mut rules = Vec::new();
    if version == IpVersion::V6 {
        for icmp_type in ICMPV6_TO_HOST {
            let protocol = Match::Protocol { protocol: Protocol::Number(58), negate: false };
            let icmp = Match::Icmp { version, icmp_type, code: None, negate: false };
            rules.push(Rule::when(vec![protocol, icmp], filter_allow(config)));
        }
    }
    rules.push(Rule::always(jump(names::dispatch_chain(Direction::Egress))));
    let last = match config.endpoint_to_host {
        EndpointToHostAction::Drop => Action::Drop,
        EndpointToHostAction::Reject => Action::Reject,
        EndpointToHostAction::Accept => Action::Accept,
        EndpointToHostAction::Return => Action::Return,
    };
    rules.push(Rule::always(last).comment("Configured DefaultEndpointToHostAction"));
    chain("cali-wl-to-host", rules)
}
