//! The chains that every node has, whatever its endpoints, and the hooks in the kernel's own chains.

mod ipvs;
mod openstack;
mod tunnels;

use std::sync::Arc;

use tortie_api::net::{IpVersion, PortRange, Protocol};

pub(crate) use self::ipvs::others_mark;
pub(crate) use self::tunnels::{ALL_HOSTS, Tunnels, VXLAN_HOSTS};
use super::config::{Config, EndpointToHostAction, ServiceLoop};
use super::endpoint::{filter_allow, mangle_allow};
use super::failsafe;
use super::names::{self, Direction, set_name};
use super::rule::DENIED;
use crate::graph::model::{ClusterNetwork, MESH_WORKLOADS};
use crate::render::Table;
use crate::render::nft::established::Revocation;
use crate::ruleset::{Action, Chain, ConntrackState, Hook, Match, Rule, SetKey, Side};

/// Set of all IP pools.
pub(crate) const ALL_POOLS: &str = "all-ipam-pools";
/// Set of the IP pools with outgoing NAT.
pub(crate) const NAT_POOLS: &str = "masq-ipam-pools";
/// Set of this host's own addresses.
pub(crate) const THIS_HOST: &str = "this-host";
/// Set of workloads whose packets get a DSCP value.
pub(crate) const DSCP_SOURCES: &str = "dscp-src-net";
/// Set of endpoints whose connections must not skip the rules.
pub(crate) const NO_OFFLOAD: &str = "no-flow-offload";

/// Its name in the kernel.
pub(crate) fn not_offloaded_set(version: IpVersion) -> String {
    set_name(version, NO_OFFLOAD)
}

/// What the static chains depend on beside the options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The cluster's network.
    pub(crate) network: Arc<ClusterNetwork>,
    /// kube-proxy uses IPVS on this node.
    pub(crate) is_ipvs: bool,
    /// What is forwarded and belongs to a connection that is known passes before anything else is asked. Not in
    /// iptables, where Felix's order is kept.
    pub(crate) known_first: bool,
}

const NEW: &[ConntrackState] = &[ConntrackState::New];
const DNAT: &[ConntrackState] = &[ConntrackState::Dnat];
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
pub(crate) fn chains(
    table: Table,
    version: IpVersion,
    config: &Config,
    surroundings: &Surroundings,
) -> Vec<Chain> {
    let tunnels = Tunnels::new(version, config, &surroundings.network);
    let mut chains = match table {
        Table::Raw => raw(version, config, &tunnels),
        Table::Mangle => mangle(version, config, surroundings.is_ipvs),
        Table::Nat => nat(version, config, &tunnels),
        Table::Filter => filter(version, config, &tunnels, surroundings),
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
        matches.extend(config.nat_spares_hosts.then(|| set(ALL_HOSTS, Side::Destination, true)));
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

fn raw(version: IpVersion, config: &Config, tunnels: &Tunnels<'_>) -> Vec<Chain> {
    let marks = &config.marks;
    let from_workload = Match::Mark { value: marks.scratch0, mask: marks.scratch0 };
    let mut prerouting = vec![Rule::always(Action::ClearMark(marks.all()))];
    prerouting.extend(tunnels.untracked_in());
    prerouting.extend(prefixes(config, |i| {
        Rule::when(vec![Match::InInterface(i)], Action::SetMark(marks.scratch0))
    }));
    prerouting.push(Rule::when(vec![from_workload.clone()], jump("cali-rpf-skip")));
    prerouting.extend(openstack::without_address(version, config));
    prerouting.extend([
        // Always a drop: the kernel takes REJECT in the filter table only.
        Rule::when(vec![from_workload, Match::ReversePathFails], Action::Drop),
        Rule::when(vec![Match::MarkClear(marks.scratch0)], jump("cali-from-host-endpoint")),
        Rule::when(vec![accepted(config)], Action::Accept),
    ]);
    let mut output =
        vec![Rule::always(Action::ClearMark(marks.all())), Rule::always(jump("cali-to-host-endpoint"))];
    output.extend(tunnels.untracked());
    output.push(Rule::when(vec![accepted(config)], Action::Accept));
    let mut chains =
        vec![chain("cali-PREROUTING", prerouting), chain("cali-OUTPUT", output), empty("cali-rpf-skip")];
    chains.extend(tunnels::wireguard_mark(config));
    chains
}

fn mangle(version: IpVersion, config: &Config, is_ipvs: bool) -> Vec<Chain> {
    let allow = || mangle_allow(config);
    let prerouting = vec![
        Rule::when(vec![config.known()], allow()),
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
    let mut postrouting = mesh(version, config);
    postrouting.extend([
        Rule::when(leaving, jump("cali-egress-dscp")).comment("set dscp for traffic leaving cluster."),
        Rule::when(vec![accepted(config)], Action::Return),
    ]);
    postrouting.extend(is_ipvs.then(|| Rule::when(vec![ipvs::is_sent_on(config)], Action::Return)));
    postrouting.extend([
        Rule::always(Action::ClearMark(config.marks.all())),
        Rule::when(vec![Match::Conntrack { states: DNAT, negate: false }], jump("cali-to-host-endpoint")),
        Rule::when(vec![accepted(config)], Action::Return).comment(HEP_ACCEPTED),
    ]);
    let mut chains = vec![
        chain("cali-PREROUTING", prerouting),
        chain("cali-POSTROUTING", postrouting),
        empty("cali-egress-dscp"),
    ];
    chains.extend(Revocation::new(&config.marks).map(denied));
    chains
}

/// Ends a connection in both directions. What policy denies in this table does not come to where that is told else.
fn denied(revocation: Revocation) -> Chain {
    let cut = Action::SetConnectionMark { value: revocation.revoked(), mask: revocation.mask() };
    chain(DENIED, vec![Rule::always(cut).comment("Answers are dropped, too"), Rule::always(Action::Drop)])
}

/// Connections between workloads of an ambient mesh carry a DSCP value, by which the mesh knows them.
fn mesh(version: IpVersion, config: &Config) -> Vec<Rule> {
    let Some(dscp) = config.istio_dscp else { return Vec::new() };
    let member = |side| Match::Set {
        name: set_name(version, MESH_WORKLOADS),
        side,
        key: SetKey::Address,
        negate: false,
    };
    let rule = |interface| {
        let matches = vec![
            Match::Protocol { protocol: Protocol::Tcp, negate: false },
            Match::Conntrack { states: NEW, negate: false },
            Match::OutInterface(interface),
            member(Side::Destination),
            member(Side::Source),
        ];
        Rule::when(matches, Action::SetDscp(dscp))
    };
    prefixes(config, rule).collect()
}

fn nat(version: IpVersion, config: &Config, tunnels: &Tunnels<'_>) -> Vec<Chain> {
    let mut prerouting = vec![Rule::always(jump("cali-fip-dnat"))];
    prerouting.extend(openstack::metadata_nat(version, config));
    let mut postrouting = vec![Rule::always(jump("cali-fip-snat")), Rule::always(jump("cali-nat-outgoing"))];
    postrouting.extend(tunnels.translated());
    vec![
        chain("cali-PREROUTING", prerouting),
        chain("cali-OUTPUT", vec![Rule::always(jump("cali-fip-dnat"))]),
        chain("cali-POSTROUTING", postrouting),
        empty("cali-fip-dnat"),
        empty("cali-fip-snat"),
    ]
}

fn filter(
    version: IpVersion,
    config: &Config,
    tunnels: &Tunnels<'_>,
    surroundings: &Surroundings,
) -> Vec<Chain> {
    let is_ipvs = surroundings.is_ipvs;
    let marks = &config.marks;
    let clear = || Rule::always(Action::ClearMark(marks.all()));
    let hep_accepted = || Rule::when(vec![accepted(config)], filter_allow(config)).comment(HEP_ACCEPTED);
    let mut input = tunnels.input();
    if is_ipvs {
        input.extend(ipvs::input(config));
    }
    input.extend(prefixes(config, |i| {
        Rule::when(vec![Match::InInterface(i)], Action::Goto("cali-wl-to-host".to_owned()))
    }));
    input.extend([
        Rule::when(vec![accepted(config)], filter_allow(config)),
        clear(),
        Rule::always(jump("cali-from-host-endpoint")),
        hep_accepted(),
    ]);
    let mut output = vec![Rule::when(vec![accepted(config)], filter_allow(config))];
    if is_ipvs {
        let forward = Action::Goto("cali-forward-endpoint-mark".to_owned());
        output.push(Rule::when(vec![ipvs::is_sent_on(config)], forward));
    }
    output.extend(prefixes(config, |i| Rule::when(vec![Match::OutInterface(i)], Action::Return)));
    output.extend(tunnels.output());
    output.extend([
        clear(),
        Rule::when(vec![Match::Conntrack { states: DNAT, negate: true }], jump("cali-to-host-endpoint")),
        hep_accepted(),
    ]);
    let mut chains = vec![
        chain("cali-INPUT", input),
        chain("cali-FORWARD", forward(version, config, surroundings.known_first)),
        chain("cali-OUTPUT", output),
        workload_to_host(version, config),
        cidr_block(version, config, &surroundings.network),
    ];
    if is_ipvs {
        chains.extend(ipvs::chains(version, config));
    }
    chains
}

/// Nobody sends what goes to an address of a service on to another node.
fn cidr_block(version: IpVersion, config: &Config, network: &ClusterNetwork) -> Chain {
    let action = match config.service_loop {
        ServiceLoop::Drop => Action::Drop,
        ServiceLoop::Reject => Action::Reject,
        ServiceLoop::Allow => return empty("cali-cidr-block"),
    };
    let mut nets: Vec<_> = network.services.iter().filter(|net| IpVersion::of(net) == version).collect();
    nets.sort_unstable_by_key(ToString::to_string);
    let to = |net| vec![Match::Net { side: Side::Destination, net, negate: false }];
    let rules = nets.into_iter().map(|net| Rule::when(to(*net), action.clone()));
    chain("cali-cidr-block", rules.collect())
}

/// Lets the kernel send on the rest of a connection that policy has accepted. Not where rules have something to do
/// with each packet: count it, or change it.
fn offload(version: IpVersion, config: &Config) -> Rule {
    let spared =
        |side| Match::Set { name: not_offloaded_set(version), side, key: SetKey::Address, negate: true };
    Rule::when(vec![config.known(), spared(Side::Source), spared(Side::Destination)], Action::Offload)
        .comment("Offload established Calico flows.")
}

fn forward(version: IpVersion, config: &Config, known_first: bool) -> Vec<Rule> {
    let marks = &config.marks;
    let dispatch = |direction, m| Rule::when(vec![m], jump(names::dispatch_chain(direction)));
    let mut rules = Vec::new();
    // Before anything accepts the packet, and with it the chain ends.
    rules.extend(config.flow_offload.then(|| offload(version, config)));
    // Where accepting means to leave it to others, they are to see all that ours see.
    if known_first && filter_allow(config) == Action::Accept {
        rules.push(Rule::when(vec![config.known()], Action::Accept).comment("Connection is known"));
    }
    rules.extend([
        Rule::always(Action::ClearMark(marks.all() & !marks.accept)),
        Rule::when(vec![Match::MarkClear(marks.accept)], jump("cali-from-hep-forward")),
    ]);
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
    rules.extend(openstack::to_host(version, config));
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
