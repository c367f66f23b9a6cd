//! One policy rule to the netfilter rules that do the same.
//!
//! A netfilter rule takes one network and 15 port slots a side. What does not fit becomes *match blocks*: each
//! block tests its alternatives one by one and leaves the result in a mark bit, and the main rule asks for it.
//!
//! ```text
//!   all = 0, this = 0
//!   block 1      alternatives ──► set all
//!   block 2..    (clear this) alternatives ──► set this;  this clear ──► clear all
//!   negated      alternatives ──► clear all
//!   main rule    the rest of the matches, and all set ──► action
//! ```
//!
//! Felix clears *this* only before the first block, so from the third block on its blocks have no effect and
//! let traffic through. We clear it before each; only rules with three and more positive blocks differ.

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange};
use tortie_api::policy::Action as PolicyAction;

use super::config::{Config, DenyAction, Marks};
use super::flowlog::{self, Place};
use super::names::graph_set_name;
use crate::graph::model::{RuleSpec, SetId, SideSpec};
use crate::ruleset::{Action, Match, Rule, SetKey, Side};

/// Slots of one multiport match; a range takes two.
const PORT_SLOTS: usize = 15;

/// Whose rule it is, for log prefixes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) tier: &'a str,
    /// Short kind: `np`, `gnp`, `knp`, `pro`.
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    /// `[namespace/]name`.
    pub(crate) qualified_name: &'a str,
    /// What it is called in flow logs: `short kind/[namespace/]name`; the name alone for a profile.
    pub(crate) id: &'a str,
    pub(crate) is_profile: bool,
}

/// Compiles one rule for one IP version; nothing if it cannot match that version.
pub(crate) fn compile(
    rule: &RuleSpec,
    place: Place,
    version: IpVersion,
    owner: Owner<'_>,
    config: &Config,
) -> Vec<Rule> {
    let Some(rule) = for_version(rule, version) else { return Vec::new() };
    let mut compiler =
        Compiler { rule, version, marks: &config.marks, out: Vec::new(), blocks: 0, positive: 0 };
    compiler.emit_blocks();
    let mut matches = compiler.main_matches();
    if compiler.blocks > 0 {
        let bit = config.marks.scratch0;
        matches.push(Match::Mark { value: bit, mask: bit });
    }
    let (action, mut out) = (compiler.rule.action, compiler.out);
    emit_action(action, matches, place, owner, config, &mut out);
    for rule_out in &mut out {
        rule_out.comments.extend(compiler.rule.annotations.iter().cloned());
    }
    out
}

/// The rule with the networks of one IP version. `None` if it cannot match that version at all.
pub(crate) fn for_version(rule: &RuleSpec, version: IpVersion) -> Option<RuleSpec> {
    // ICMP types mean something in one version only, also where the protocol is given by number.
    let icmp = rule.icmp.or(rule.not_icmp).and(rule.protocol).and_then(|p| match p.number() {
        1 => Some(IpVersion::V4),
        58 => Some(IpVersion::V6),
        _ => None,
    });
    if rule.version.is_some_and(|v| v != version) || icmp.is_some_and(|v| v != version) {
        return None;
    }
    let mut rule = rule.clone();
    for side in [&mut rule.source, &mut rule.destination] {
        for nets in [&mut side.nets, &mut side.not_nets] {
            let asked = !nets.is_empty();
            nets.retain(|n| IpVersion::of(n) == version);
            if asked && nets.is_empty() {
                return None;
            }
        }
        if side.not_nets.iter().any(|n| n.prefix_len() == 0) {
            return None;
        }
    }
    match (rule.protocol, rule.not_protocol) {
        // One rule takes one protocol match: the positive one says all, or both contradict each other.
        (Some(p), Some(n)) if p.number() == n.number() => return None,
        (Some(_), Some(_)) => rule.not_protocol = None,
        _ => {}
    }
    Some(rule)
}

struct Compiler<'a> {
    rule: RuleSpec,
    version: IpVersion,
    marks: &'a Marks,
    out: Vec<Rule>,
    blocks: usize,
    positive: usize,
}

impl Compiler<'_> {
    /// Emits what needs a block, and takes it out of the rule.
    fn emit_blocks(&mut self) {
        for side in Side::BOTH {
            let spec = self.side_mut(side);
            if port_chunks(&spec.ports).len() + spec.named_ports.len() > 1 {
                let (ports, named) = (std::mem::take(&mut spec.ports), std::mem::take(&mut spec.named_ports));
                self.emit_port_block(side, &ports, &named);
            }
        }
        for side in Side::BOTH {
            if self.side_mut(side).nets.len() > 1 {
                let nets = std::mem::take(&mut self.side_mut(side).nets);
                let alternatives = nets.into_iter().map(|net| vec![net_match(side, net)]).collect();
                self.emit_positive(alternatives);
            }
        }
        for side in Side::BOTH {
            let spec = self.side_mut(side);
            if !spec.not_nets.is_empty() && spec.nets.len() + spec.not_nets.len() > 1 {
                let nets = std::mem::take(&mut spec.not_nets);
                self.emit_negated(side, nets);
            }
        }
    }

    fn side_mut(&mut self, side: Side) -> &mut SideSpec {
        match side {
            Side::Source => &mut self.rule.source,
            Side::Destination => &mut self.rule.destination,
        }
    }

    fn emit_port_block(&mut self, side: Side, ports: &[PortRange], named: &[SetId]) {
        let protocol = self.rule.protocol;
        let numbers = port_chunks(ports).into_iter().map(|ports| {
            let protocol = protocol.map(|protocol| Match::Protocol { protocol, negate: false });
            protocol.into_iter().chain([Match::Ports { side, ports, negate: false }]).collect::<Vec<_>>()
        });
        let names = named.iter().map(|id| vec![self.set(id, side, SetKey::AddressPort, false)]);
        let alternatives = numbers.chain(names).collect();
        self.emit_positive(alternatives);
    }

    fn emit_positive(&mut self, alternatives: Vec<Vec<Match>>) {
        let (all, this) = (self.marks.scratch0, self.marks.scratch1);
        self.begin_block(0);
        let bit = if self.positive == 0 { all } else { this };
        if self.positive > 1 {
            self.out.push(Rule::always(Action::ClearMark(this)));
        }
        self.out.extend(alternatives.into_iter().map(|m| Rule::when(m, Action::SetMark(bit))));
        if self.positive > 0 {
            self.out.push(Rule::when(vec![Match::MarkClear(this)], Action::ClearMark(all)));
        }
        self.positive += 1;
    }

    fn emit_negated(&mut self, side: Side, nets: Vec<IpNet>) {
        let all = self.marks.scratch0;
        self.begin_block(all);
        self.out
            .extend(nets.into_iter().map(|n| Rule::when(vec![net_match(side, n)], Action::ClearMark(all))));
    }

    /// The first block gives the scratch bits their values.
    fn begin_block(&mut self, value: u32) {
        if self.blocks == 0 {
            let mask = self.marks.scratch0 | self.marks.scratch1;
            self.out.push(Rule::always(Action::SetMaskedMark { value, mask }));
        }
        self.blocks += 1;
    }

    /// What is left, in Felix's order.
    fn main_matches(&self) -> Vec<Match> {
        let rule = &self.rule;
        let mut out = Vec::new();
        out.extend(rule.protocol.map(|protocol| Match::Protocol { protocol, negate: false }));
        self.push_side(Side::Source, &rule.source, &mut out);
        self.push_side(Side::Destination, &rule.destination, &mut out);
        out.extend(rule.icmp.map(|icmp| self.icmp(icmp, false)));
        out.extend(rule.not_protocol.map(|protocol| Match::Protocol { protocol, negate: true }));
        self.push_side_negated(Side::Source, &rule.source, &mut out);
        self.push_side_negated(Side::Destination, &rule.destination, &mut out);
        out.extend(rule.not_icmp.map(|icmp| self.icmp(icmp, true)));
        out
    }

    fn push_side(&self, side: Side, spec: &SideSpec, out: &mut Vec<Match>) {
        out.extend(spec.nets.iter().map(|n| net_match(side, *n)));
        out.extend(spec.sets.iter().map(|id| self.set(id, side, SetKey::Address, false)));
        out.extend(spec.services.iter().map(|id| self.set(id, side, SetKey::AddressPort, false)));
        let chunks = port_chunks(&spec.ports);
        out.extend(chunks.into_iter().map(|ports| Match::Ports { side, ports, negate: false }));
        out.extend(spec.named_ports.iter().map(|id| self.set(id, side, SetKey::AddressPort, false)));
    }

    fn push_side_negated(&self, side: Side, spec: &SideSpec, out: &mut Vec<Match>) {
        out.extend(spec.not_nets.iter().map(|n| Match::Net { side, net: *n, negate: true }));
        out.extend(spec.not_sets.iter().map(|id| self.set(id, side, SetKey::Address, true)));
        let chunks = port_chunks(&spec.not_ports);
        out.extend(chunks.into_iter().map(|ports| Match::Ports { side, ports, negate: true }));
        out.extend(spec.not_named_ports.iter().map(|id| self.set(id, side, SetKey::AddressPort, true)));
    }

    fn set(&self, id: &SetId, side: Side, key: SetKey, negate: bool) -> Match {
        Match::Set { name: graph_set_name(self.version, id), side, key, negate }
    }

    fn icmp(&self, (icmp_type, code): (u8, Option<u8>), negate: bool) -> Match {
        Match::Icmp { version: self.version, icmp_type, code, negate }
    }
}

fn net_match(side: Side, net: IpNet) -> Match {
    Match::Net { side, net, negate: false }
}

/// Ports in portions that fit one match each, greedily and in order.
pub(crate) fn port_chunks(ports: &[PortRange]) -> Vec<Vec<PortRange>> {
    let mut chunks: Vec<Vec<PortRange>> = Vec::new();
    let mut used = PORT_SLOTS;
    for range in ports {
        let slots = if range.first() == range.last() { 1 } else { 2 };
        if used + slots > PORT_SLOTS {
            chunks.push(Vec::new());
            used = 0;
        }
        used += slots;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(*range);
        }
    }
    chunks
}

fn emit_action(
    action: PolicyAction,
    matches: Vec<Match>,
    place: Place,
    owner: Owner<'_>,
    config: &Config,
    out: &mut Vec<Rule>,
) {
    let marks = &config.marks;
    let mut verdict = |bit: u32, matches: Vec<Match>, verdict: Action| {
        let decided = || vec![Match::Mark { value: bit, mask: bit }];
        out.push(Rule::when(matches, Action::SetMark(bit)));
        if config.flow_logs {
            out.extend(flowlog::decided(action, place, owner.is_profile, owner.id, decided()));
        }
        out.push(Rule::when(decided(), verdict));
    };
    match action {
        PolicyAction::Allow => verdict(marks.accept, matches, Action::Return),
        PolicyAction::Pass => verdict(marks.pass, matches, Action::Return),
        PolicyAction::Deny => verdict(marks.drop, matches, deny(config)),
        PolicyAction::Log => {
            let limit = config.log_limit.as_ref();
            let limit = limit.map(|l| Match::Limit { rate: l.rate.clone(), burst: l.burst });
            let matches = limit.into_iter().chain(matches).collect();
            out.push(Rule::when(matches, Action::Log { prefix: log_prefix(&config.log_prefix, owner) }));
        }
    }
}

/// Where what is denied goes that is cut in both directions.
pub(crate) const DENIED: &str = "cali-denied";

/// How the filter table denies.
pub(crate) fn deny(config: &Config) -> Action {
    match config.filter_deny {
        DenyAction::Drop => Action::Drop,
        DenyAction::Reject => Action::Reject,
        DenyAction::Cut => Action::Goto(DENIED.to_owned()),
    }
}

/// Fills in `%t` tier, `%k` short kind, `%n` name, `%p` namespace and name.
fn log_prefix(template: &str, owner: Owner<'_>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let value = match rest[at + 1..].chars().next() {
            Some('t') => Some(owner.tier),
            Some('k') => Some(owner.kind),
            Some('n') => Some(owner.name),
            Some('p') => Some(owner.qualified_name),
            _ => None,
        };
        out.push_str(value.unwrap_or("%"));
        rest = &rest[at + if value.is_some() { 2 } else { 1 }..];
    }
    out.push_str(rest);
    // The text stands between double quotes in what iptables-restore reads.
    out.replace(['"', '\\', '\n'], "_")
}
