//! The chains of endpoints: their policy lists, tier by tier, then their profiles.

use std::sync::Arc;

use super::config::{AllowAction, Config, DenyAction};
use super::flowlog;
use super::group::Group;
use super::limits;
use super::names::{self, Direction};
use super::rule::deny;
use crate::graph::model::{HostEndpoint, LocalEndpoint, PolicyRef, TierKind, TierPolicies};
use crate::render::Table;
use crate::ruleset::{Action, Chain, ConntrackState, Match, Rule, Side};
use tortie_api::net::{PortRange, Protocol};
use tortie_api::policy::DefaultAction;
use tortie_api::qos::Limits;

/// IP in IP, IANA protocol number 4.
const IPIP: Protocol = Protocol::Number(4);
/// UDP by number, as Felix writes it where the rule is its own.
const UDP: Protocol = Protocol::Number(17);

/// `Drop` or `Reject`, for comments.
pub(crate) fn deny_word(config: &Config) -> &'static str {
    match config.filter_deny {
        DenyAction::Drop | DenyAction::Cut => "Drop",
        DenyAction::Reject => "Reject",
    }
}

/// How the filter table accepts.
pub(crate) fn filter_allow(config: &Config) -> Action {
    match config.filter_allow {
        AllowAction::Accept => Action::Accept,
        AllowAction::Return => Action::Return,
    }
}

/// How the mangle table accepts.
pub(crate) fn mangle_allow(config: &Config) -> Action {
    match config.mangle_allow {
        AllowAction::Accept => Action::Accept,
        AllowAction::Return => Action::Return,
    }
}

/// One chain of an endpoint: for one direction of some of its traffic.
#[derive(Clone, Debug)]
pub(crate) struct EndpointChain<'a> {
    pub(crate) name: String,
    pub(crate) table: Table,
    pub(crate) direction: Direction,
    kind: TierKind,
    tiers: &'a [TierPolicies],
    /// Consulted where no tier decides; for normal traffic only.
    pub(crate) profiles: &'a [Arc<str>],
    is_workload: bool,
    limits: Limits,
}

/// The chains of a workload.
pub(crate) fn workload(endpoint: &LocalEndpoint) -> [EndpointChain<'_>; 2] {
    Direction::BOTH.map(|direction| EndpointChain {
        name: names::workload_chain(direction, &endpoint.interface),
        table: Table::Filter,
        direction,
        kind: TierKind::Normal,
        tiers: &endpoint.tiers,
        profiles: &endpoint.profiles,
        is_workload: true,
        limits: match direction {
            Direction::Ingress => endpoint.qos.ingress,
            Direction::Egress => endpoint.qos.egress,
        },
    })
}

/// The chains of a host endpoint, in all tables.
///
/// What the host sends to an address that is then translated meets the normal policy in `mangle`, since only there it
/// has its final address and interface.
pub(crate) fn host(endpoint: &HostEndpoint) -> Vec<EndpointChain<'_>> {
    let chain = |table, kind, direction| EndpointChain {
        name: match kind {
            TierKind::Forward => names::forward_chain(direction, &endpoint.interface),
            _ => names::host_chain(direction, &endpoint.interface),
        },
        table,
        direction,
        kind,
        tiers: match kind {
            TierKind::Normal => &endpoint.normal,
            TierKind::Forward => &endpoint.forward,
            TierKind::PreDnat => &endpoint.pre_dnat,
            TierKind::Untracked => &endpoint.untracked,
        },
        profiles: if kind == TierKind::Normal { &endpoint.profiles } else { &[] },
        is_workload: false,
        limits: Limits::default(),
    };
    let both = |table, kind| Direction::BOTH.map(|direction| chain(table, kind, direction));
    let mut chains = Vec::new();
    chains.extend(both(Table::Filter, TierKind::Normal));
    chains.extend(both(Table::Filter, TierKind::Forward));
    chains.push(chain(Table::Mangle, TierKind::Normal, Direction::Egress));
    if !endpoint.pre_dnat.is_empty() {
        chains.push(chain(Table::Mangle, TierKind::PreDnat, Direction::Ingress));
    }
    if !endpoint.untracked.is_empty() {
        chains.extend(both(Table::Raw, TierKind::Untracked));
    }
    chains
}

impl<'a> EndpointChain<'a> {
    /// The policies that it may jump to, tier by tier.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &'a PolicyRef> + use<'a> {
        let direction = self.direction;
        self.tiers.iter().flat_map(move |tier| policies_of(tier, direction)).filter(|policy| !policy.staged)
    }

    /// The chain, and the groups whose chains it refers to. `config` is that of its table.
    pub(crate) fn compile(&self, config: &Config) -> (Chain, Vec<Group>) {
        let marks = &config.marks;
        let mut rules = limits::packet_rate(self.direction, &self.limits, marks);
        if self.kind != TierKind::Untracked {
            conntrack(&self.allow(config), config, &mut rules);
        }
        rules.extend(limits::connections(self.direction, &self.limits));
        // Forwarded traffic is not the host's own: nobody is locked out of the host by it.
        if !self.is_workload && self.kind != TierKind::Forward {
            rules.push(Rule::always(Action::Jump(names::failsafe_chain(self.direction).to_owned())));
        }
        rules.push(Rule::always(Action::ClearMark(marks.accept | marks.pass)));
        if self.is_workload && self.direction == Direction::Egress {
            rules.extend(encapsulation(config));
        }
        let mut groups = Vec::new();
        for tier in self.tiers {
            self.tier_block(tier, config, &mut rules, &mut groups);
        }
        if self.kind == TierKind::Forward && self.tiers.is_empty() {
            let allow = Rule::always(Action::SetMark(marks.accept));
            rules.push(allow.comment("Allow forwarded traffic by default"));
            rules.push(Rule::always(Action::Return).comment("Return for accepted forward traffic"));
        }
        if self.kind == TierKind::Normal {
            self.end(config, &mut rules);
        }
        (Chain { name: self.name.clone(), rules }, groups)
    }

    /// What happens to packets of accepted connections.
    fn allow(&self, config: &Config) -> Action {
        match (self.table, self.kind) {
            (Table::Mangle, TierKind::PreDnat) => mangle_allow(config),
            // What stands behind in the chain of the kernel is for these packets as well.
            (Table::Mangle, _) => Action::Return,
            _ => filter_allow(config),
        }
    }

    fn tier_block(
        &self,
        tier: &TierPolicies,
        config: &Config,
        rules: &mut Vec<Rule>,
        groups: &mut Vec<Group>,
    ) {
        let policies = policies_of(tier, self.direction);
        if policies.is_empty() {
            return;
        }
        let marks = &config.marks;
        let undecided = || vec![Match::MarkClear(marks.pass)];
        let start = Rule::always(Action::ClearMark(marks.pass));
        rules.push(start.comment(format!("Start of tier {}", tier.name)));
        for group in Group::split(self.direction, policies) {
            for target in group.targets() {
                rules.push(Rule::when(undecided(), Action::Jump(target)));
                if self.kind == TierKind::Untracked {
                    rules.push(Rule::when(vec![is_accepted(config)], Action::NoTrack));
                }
                rules.push(return_accepted(config).comment("Return if policy accepted"));
            }
            groups.push(group);
        }
        let may_end = matches!(self.kind, TierKind::Normal | TierKind::Forward);
        // Policies that only might be do not close the tier.
        let is_closed = may_end && policies.iter().any(|p| !p.staged);
        if may_end && config.flow_logs {
            let is_denied = is_closed && tier.default_action != DefaultAction::Pass;
            rules.push(flowlog::end_of_tier(is_denied, self.direction, &tier.name, undecided()));
        }
        if is_closed && tier.default_action == DefaultAction::Deny {
            let comment =
                format!("End of tier {}. {} if no policies passed packet", tier.name, deny_word(config));
            rules.push(Rule::when(undecided(), deny(config)).comment(comment));
        }
    }

    /// Profiles, and the end for what none of them accepts.
    fn end(&self, config: &Config, rules: &mut Vec<Rule>) {
        for profile in self.profiles {
            rules.push(Rule::always(Action::Jump(names::profile_chain(self.direction, profile))));
            rules.push(return_accepted(config).comment("Return if profile accepted"));
        }
        if config.flow_logs {
            rules.push(flowlog::no_profile(self.direction));
        }
        let comment = format!("{} if no profiles matched", deny_word(config));
        rules.push(Rule::always(deny(config)).comment(comment));
    }
}

fn policies_of(tier: &TierPolicies, direction: Direction) -> &[PolicyRef] {
    match direction {
        Direction::Ingress => &tier.ingress,
        Direction::Egress => &tier.egress,
    }
}

pub(crate) fn conntrack(allow: &Action, config: &Config, rules: &mut Vec<Rule>) {
    const INVALID: &[ConntrackState] = &[ConntrackState::Invalid];
    if *allow != Action::Accept {
        rules.push(Rule::when(vec![config.known()], Action::SetMark(config.marks.accept)));
    }
    rules.push(Rule::when(vec![config.known()], allow.clone()));
    if !config.disable_conntrack_invalid_check {
        let invalid = Match::Conntrack { states: INVALID, negate: false };
        rules.push(Rule::when(vec![invalid], deny(config)));
    }
}

/// Workloads must not make tunnel packets of their own: they would arrive as if from the node.
pub(crate) fn encapsulation(config: &Config) -> Vec<Rule> {
    let protocol = |protocol| Match::Protocol { protocol, negate: false };
    let word = deny_word(config);
    let mut rules = Vec::new();
    if !config.allow_vxlan_from_workloads {
        let ports = vec![PortRange::single(config.vxlan_port)];
        let port = Match::Ports { side: Side::Destination, ports, negate: false };
        rules.push(
            Rule::when(vec![protocol(UDP), port], deny(config))
                .comment(format!("{word} VXLAN encapped packets originating in workloads")),
        );
    }
    if !config.allow_ipip_from_workloads {
        rules.push(
            Rule::when(vec![protocol(IPIP)], deny(config))
                .comment(format!("{word} IPinIP encapped packets originating in workloads")),
        );
    }
    rules
}

fn is_accepted(config: &Config) -> Match {
    Match::Mark { value: config.marks.accept, mask: config.marks.accept }
}

fn return_accepted(config: &Config) -> Rule {
    Rule::when(vec![is_accepted(config)], Action::Return)
}
