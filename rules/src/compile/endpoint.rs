//! The chains of a workload endpoint: its policy list, tier by tier, then its profiles.

use super::config::{AllowAction, Config, DenyAction};
use super::group::Group;
use super::names::{self, Direction};
use super::rule::deny;
use crate::graph::model::{LocalEndpoint, TierPolicies};
use crate::ruleset::{Action, Chain, ConntrackState, Match, Rule, Side};
use tortie_api::net::{PortRange, Protocol};
use tortie_api::policy::DefaultAction;

/// IP in IP, IANA protocol number 4.
const IPIP: Protocol = Protocol::Number(4);
/// UDP by number, as Felix writes it where the rule is its own.
const UDP: Protocol = Protocol::Number(17);

/// `Drop` or `Reject`, for comments.
pub(crate) fn deny_word(config: &Config) -> &'static str {
    match config.filter_deny {
        DenyAction::Drop => "Drop",
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

/// The chain of one direction, and the groups whose chains it refers to.
pub(crate) fn workload(
    endpoint: &LocalEndpoint,
    direction: Direction,
    config: &Config,
) -> (Chain, Vec<Group>) {
    let marks = &config.marks;
    let mut rules = conntrack(config);
    rules.push(Rule::always(Action::ClearMark(marks.accept | marks.pass)));
    if direction == Direction::Egress {
        rules.extend(encapsulation(config));
    }
    let mut groups = Vec::new();
    for tier in &endpoint.tiers {
        tier_block(tier, direction, config, &mut rules, &mut groups);
    }
    for profile in &endpoint.profiles {
        rules.push(Rule::always(Action::Jump(names::profile_chain(direction, profile))));
        rules.push(accepted(marks.accept).comment("Return if profile accepted"));
    }
    rules.push(Rule::always(deny(config)).comment(format!("{} if no profiles matched", deny_word(config))));
    (Chain { name: names::workload_chain(direction, &endpoint.interface), rules }, groups)
}

fn conntrack(config: &Config) -> Vec<Rule> {
    const KNOWN: &[ConntrackState] = &[ConntrackState::Related, ConntrackState::Established];
    const INVALID: &[ConntrackState] = &[ConntrackState::Invalid];
    let state = |states, action| Rule::when(vec![Match::Conntrack { states, negate: false }], action);
    let mut rules = Vec::new();
    if config.filter_allow == AllowAction::Return {
        rules.push(state(KNOWN, Action::SetMark(config.marks.accept)));
    }
    rules.push(state(KNOWN, filter_allow(config)));
    if !config.disable_conntrack_invalid_check {
        rules.push(state(INVALID, deny(config)));
    }
    rules
}

/// Workloads must not make tunnel packets of their own: they would arrive as if from the node.
fn encapsulation(config: &Config) -> Vec<Rule> {
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

fn accepted(accept: u32) -> Rule {
    Rule::when(vec![Match::Mark { value: accept, mask: accept }], Action::Return)
}

fn tier_block(
    tier: &TierPolicies,
    direction: Direction,
    config: &Config,
    rules: &mut Vec<Rule>,
    groups: &mut Vec<Group>,
) {
    let policies = match direction {
        Direction::Ingress => &tier.ingress,
        Direction::Egress => &tier.egress,
    };
    if policies.is_empty() {
        return;
    }
    let marks = &config.marks;
    let undecided = || vec![Match::MarkClear(marks.pass)];
    rules.push(Rule::always(Action::ClearMark(marks.pass)).comment(format!("Start of tier {}", tier.name)));
    for group in Group::split(direction, policies) {
        for target in group.targets() {
            rules.push(Rule::when(undecided(), Action::Jump(target)));
            rules.push(accepted(marks.accept).comment("Return if policy accepted"));
        }
        groups.push(group);
    }
    // Policies that only might be do not close the tier.
    if tier.default_action == DefaultAction::Deny && policies.iter().any(|p| !p.staged) {
        let comment =
            format!("End of tier {}. {} if no policies passed packet", tier.name, deny_word(config));
        rules.push(Rule::when(undecided(), deny(config)).comment(comment));
    }
}
