//! A table with its names resolved, after a look at whether the kernel would take it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange};

use super::maps::{MapCode, WITH_PORTS};
use super::sets::{Resolver, bits};
use crate::compile::classic::TableContent;
use crate::render::Table;
use crate::ruleset::{Action, Bits, Chain, ConntrackState, KeyField, MapType, Match, Rule, Side};

/// Slots of one multiport match (`XT_MULTI_PORTS`).
const PORT_SLOTS: usize = 15;

/// Why the kernel would refuse a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// A rule leads to a chain that is not there.
    #[error("there is no chain {0}")]
    NoChain(String),
    /// A rule asks for a set that is not there, or is of the other IP version.
    #[error("there is no set {0} of this IP version")]
    NoSet(String),
    /// A rule asks a set for something else than it holds.
    #[error("set {0} holds something else than the rule asks for")]
    WrongKey(String),
    /// A rule looks into a map that is not there.
    #[error("there is no map {0}")]
    NoMap(String),
    /// A map that the kernel would not take.
    #[error("map {map}: {reason}")]
    Map {
        /// Its name.
        map: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A rule that has no place there.
    #[error("{table}: {chain}[{index}]: {reason}", table = table.name())]
    Rule {
        /// Its table.
        table: Table,
        /// Its chain.
        chain: String,
        /// Its place, counted from 0.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The chains of one table, the kernel's own among them.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) table: Table,
    pub(super) chains: Vec<ChainCode>,
    pub(super) maps: Vec<MapCode>,
    entries: BTreeMap<&'static str, usize>,
}

/// A chain.
#[derive(Debug)]
pub(super) struct ChainCode {
    pub(super) name: String,
    pub(super) rules: Vec<RuleCode>,
}

/// A rule.
#[derive(Debug)]
pub(super) struct RuleCode {
    pub(super) tests: Vec<Test>,
    pub(super) verb: Verb,
    pub(super) action: Option<Action>,
}

/// A match, resolved.
#[derive(Debug)]
pub(super) enum Test {
    MarkClear(Bits),
    MarkAnySet(Bits),
    Mark { value: Bits, mask: Bits, negate: bool },
    InInterface(Name),
    OutInterface(Name),
    ReversePathFails,
    Conntrack { states: &'static [ConntrackState], negate: bool },
    Protocol { number: u8, negate: bool },
    Net { side: Side, bits: u128, length: u32, negate: bool },
    Local(Side),
    AddressSet { side: Side, set: usize, negate: bool },
    PortSet { side: Side, set: usize, negate: bool },
    Ports { side: Side, ports: Vec<PortRange>, negate: bool },
    Icmp { icmp_type: u8, code: Option<u8>, negate: bool },
    Always,
    Never,
}

/// An interface's name, or what it begins with.
#[derive(Debug)]
pub(super) struct Name {
    text: String,
    is_prefix: bool,
}

impl Name {
    fn new(text: &str) -> Self {
        match text.strip_suffix('+') {
            Some(prefix) => Self { text: prefix.to_owned(), is_prefix: true },
            None => Self { text: text.to_owned(), is_prefix: false },
        }
    }

    pub(super) fn fits(&self, interface: Option<&str>) -> bool {
        let Some(interface) = interface else { return false };
        if self.is_prefix { interface.starts_with(&self.text) } else { interface == self.text }
    }
}

/// An action, resolved.
#[derive(Debug)]
pub(super) enum Verb {
    Continue,
    Accept,
    Drop,
    Reject,
    Return,
    Jump(usize),
    Goto(usize),
    WriteMark { value: Bits, mask: Bits },
    NoTrack,
    Lookup { key: Vec<KeyField>, map: usize },
}

impl Program {
    pub(super) fn new(
        table: Table,
        content: Option<&TableContent>,
        sets: &mut Resolver<'_>,
    ) -> Result<Self, MachineError> {
        let (hooks, own) = content.map_or((&[][..], &[][..]), |c| (&c.hooks, &c.chains));
        let of_hook = |hook: &crate::ruleset::Hook| Chain {
            name: hook.chain.to_owned(),
            rules: hook.inserted.iter().chain(&hook.appended).cloned().collect(),
        };
        let all: Vec<Chain> = hooks.iter().map(of_hook).chain(own.iter().cloned()).collect();
        let numbers: BTreeMap<&str, usize> =
            all.iter().enumerate().map(|(number, chain)| (chain.name.as_str(), number)).collect();
        let entries = hooks.iter().enumerate().map(|(number, hook)| (hook.chain, number)).collect();
        let all_maps = content.map_or(&[][..], |c| &c.maps);
        let maps = all_maps.iter().map(|map| MapCode::new(map, sets.version(), &numbers));
        let maps = maps.collect::<Result<_, _>>()?;
        let map_numbers: Maps<'_> =
            all_maps.iter().enumerate().map(|(n, map)| (map.name.as_str(), (n, map.holds))).collect();
        let mut chains = Vec::with_capacity(all.len());
        for chain in &all {
            let mut rules = Vec::with_capacity(chain.rules.len());
            for (index, rule) in chain.rules.iter().enumerate() {
                check(rule, table, sets.version()).map_err(|reason| MachineError::Rule {
                    table,
                    chain: chain.name.clone(),
                    index,
                    reason,
                })?;
                rules.push(rule_code(rule, &numbers, &map_numbers, sets)?);
            }
            chains.push(ChainCode { name: chain.name.clone(), rules });
        }
        Ok(Self { table, chains, maps, entries })
    }

    /// The number of one of the kernel's own chains, if there are rules of ours in it.
    pub(super) fn entry(&self, hook: &str) -> Option<usize> {
        self.entries.get(hook).copied()
    }
}

/// The numbers and types of maps by name.
type Maps<'a> = BTreeMap<&'a str, (usize, MapType)>;

/// What the kernel's modules look at when a rule is added.
fn check(rule: &Rule, table: Table, version: IpVersion) -> Result<(), &'static str> {
    let mut protocols = rule.matches.iter().filter_map(|m| match m {
        Match::Protocol { protocol, negate } => Some((protocol.number(), *negate)),
        _ => None,
    });
    let protocol = protocols.next();
    if protocols.next().is_some() {
        return Err("a rule takes one protocol match");
    }
    let icmp = match version {
        IpVersion::V4 => 1,
        IpVersion::V6 => 58,
    };
    for m in &rule.matches {
        match m {
            Match::Ports { ports, .. } => {
                if !matches!(protocol, Some((6 | 17 | 33 | 132 | 136, false))) {
                    return Err("a port match needs a protocol that has ports");
                }
                let slots: usize = ports.iter().map(|p| if p.first() == p.last() { 1 } else { 2 }).sum();
                if slots > PORT_SLOTS || slots == 0 {
                    return Err("a port match takes 1 to 15 slots");
                }
            }
            Match::Icmp { version: of, .. } if *of != version || protocol != Some((icmp, false)) => {
                return Err("an ICMP match needs the ICMP of its IP version");
            }
            Match::DestinationPort(_) if !matches!(protocol, Some((6 | 17 | 33 | 132 | 136, false))) => {
                return Err("a port match needs a protocol that has ports");
            }
            Match::Net { net, .. } if IpVersion::of(net) != version => {
                return Err("a network is of the other IP version");
            }
            Match::Address { address, .. } if IpVersion::of_addr(address) != version => {
                return Err("an address is of the other IP version");
            }
            Match::NotFromOutInterface if table != Table::Nat => {
                return Err("what leaves by an interface is looked at in the nat table only");
            }
            Match::TcpSyn if protocol != Some((6, false)) => return Err("a match of flags needs TCP"),
            _ => {}
        }
    }
    let nets = |side: Side| {
        let is_net = |m: &&Match| matches!(m, Match::Net { side: s, .. } | Match::Address { side: s, .. } if *s == side);
        rule.matches.iter().filter(is_net).count()
    };
    if Side::BOTH.into_iter().any(|side| nets(side) > 1) {
        return Err("a rule takes one network a side");
    }
    match rule.action {
        Some(Action::Reject) if table != Table::Filter => Err("REJECT is for the filter table only"),
        Some(Action::NoTrack) if table != Table::Raw => Err("NOTRACK is for the raw table only"),
        Some(Action::ResetConnection) if table != Table::Filter || protocol != Some((6, false)) => {
            Err("only TCP is reset, and in the filter table")
        }
        Some(Action::Masquerade { .. } | Action::Snat { .. } | Action::Dnat(_) | Action::DnatPort(_))
            if table != Table::Nat =>
        {
            Err("translation is for the nat table only")
        }
        Some(Action::SetDscp(_)) if table != Table::Mangle => Err("DSCP is for the mangle table only"),
        Some(Action::Lookup { ref key, .. })
            if key[..] == [KeyField::DestinationPort]
                && !protocol.is_some_and(|(number, negate)| !negate && WITH_PORTS.contains(&number)) =>
        {
            Err("a port needs a protocol that has ports")
        }
        _ => Ok(()),
    }
}

fn rule_code(
    rule: &Rule,
    chains: &BTreeMap<&str, usize>,
    maps: &Maps<'_>,
    sets: &mut Resolver<'_>,
) -> Result<RuleCode, MachineError> {
    let tests = rule.matches.iter().map(|m| test(m, sets)).collect::<Result<_, _>>()?;
    let chain =
        |name: &String| chains.get(name.as_str()).copied().ok_or_else(|| MachineError::NoChain(name.clone()));
    let verb = match &rule.action {
        None => Verb::Continue,
        Some(action) => match action {
            Action::Accept => Verb::Accept,
            Action::Drop => Verb::Drop,
            Action::Reject | Action::ResetConnection => Verb::Reject,
            Action::Return => Verb::Return,
            Action::Jump(name) => Verb::Jump(chain(name)?),
            Action::Goto(name) => Verb::Goto(chain(name)?),
            Action::SetMark(bits) => Verb::WriteMark { value: *bits, mask: *bits },
            Action::ClearMark(bits) => Verb::WriteMark { value: 0, mask: *bits },
            Action::SetMaskedMark { value, mask } => Verb::WriteMark { value: *value, mask: *mask },
            Action::NoTrack => Verb::NoTrack,
            Action::Lookup { key, map, .. } => {
                let (number, holds) =
                    *maps.get(map.as_str()).ok_or_else(|| MachineError::NoMap(map.clone()))?;
                if !holds.fits(key) {
                    return Err(MachineError::WrongKey(map.clone()));
                }
                Verb::Lookup { key: key.clone(), map: number }
            }
            Action::Log { .. }
            | Action::Nflog { .. }
            | Action::Masquerade { .. }
            | Action::Snat { .. }
            | Action::Dnat(_)
            | Action::DnatPort(_)
            | Action::SetDscp(_)
            | Action::SetConnectionMark { .. }
            | Action::Offload => Verb::Continue,
        },
    };
    Ok(RuleCode { tests, verb, action: rule.action.clone() })
}

/// The length of a network that is a single address.
fn all_bits(address: std::net::IpAddr) -> u32 {
    IpNet::from(address).max_prefix_len().into()
}

fn test(m: &Match, sets: &mut Resolver<'_>) -> Result<Test, MachineError> {
    use crate::ruleset::SetKey;
    Ok(match m {
        Match::MarkClear(bits) => Test::MarkClear(*bits),
        Match::MarkAnySet(bits) => Test::MarkAnySet(*bits),
        Match::Mark { value, mask } => Test::Mark { value: *value, mask: *mask, negate: false },
        Match::MarkNot { value, mask } => Test::Mark { value: *value, mask: *mask, negate: true },
        Match::InInterface(name) => Test::InInterface(Name::new(name)),
        Match::OutInterface(name) => Test::OutInterface(Name::new(name)),
        Match::ReversePathFails => Test::ReversePathFails,
        Match::Conntrack { states, negate } => Test::Conntrack { states, negate: *negate },
        Match::Protocol { protocol, negate } => Test::Protocol { number: protocol.number(), negate: *negate },
        Match::Net { side, net, negate } => {
            let length = u32::from(net.prefix_len());
            Test::Net { side: *side, bits: bits(net.network()), length, negate: *negate }
        }
        Match::Address { side, address } => {
            Test::Net { side: *side, bits: bits(*address), length: all_bits(*address), negate: false }
        }
        Match::Local(side) => Test::Local(*side),
        Match::DestinationPort(port) => {
            Test::Ports { side: Side::Destination, ports: vec![PortRange::single(*port)], negate: false }
        }
        Match::Set { name, side, key, negate } => {
            let (side, set, negate) = (*side, sets.resolve(name, *key)?, *negate);
            match key {
                SetKey::Address => Test::AddressSet { side, set, negate },
                SetKey::AddressPort => Test::PortSet { side, set, negate },
            }
        }
        Match::Ports { side, ports, negate } => {
            Test::Ports { side: *side, ports: ports.clone(), negate: *negate }
        }
        Match::Icmp { icmp_type, code, negate, version: _ } => {
            Test::Icmp { icmp_type: *icmp_type, code: *code, negate: *negate }
        }
        // Packets have no flags here: what is TCP asks for a connection. What leaves by which interface is asked in
        // the table that is not looked at.
        Match::Limit { .. } | Match::TcpSyn | Match::NotFromOutInterface => Test::Always,
        Match::ConnectionsAbove(_) => Test::Never,
    })
}
