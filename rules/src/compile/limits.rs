//! Limits of a workload's packets and connections, at the top of its chains.
//!
//! The kernel counts in the rule. It begins anew when the chain is written again, and on the legacy back end when
//! anything in the table is: connections that are there by then are no longer counted.

use tortie_api::net::Protocol;
use tortie_api::qos::{Limits, PacketRate};

use super::config::Marks;
use super::names::Direction;
use crate::ruleset::{Action, Match, Rule};

/// Drops packets over the rate, those of accepted connections too.
///
/// The kernel's match says which packets are within the limit, so these are marked and the others dropped. The mark
/// must be clear for the rules behind, which have other uses for it.
pub(super) fn packet_rate(direction: Direction, limits: &Limits, marks: &Marks) -> Vec<Rule> {
    let Some(PacketRate { per_second, burst }) = limits.packet_rate else { return Vec::new() };
    let (mark, word) = (marks.scratch0, direction.word());
    let clear =
        || Rule::always(Action::ClearMark(mark)).comment(format!("Clear {word} packet rate limit mark"));
    let within = Match::Limit { rate: format!("{per_second}/sec"), burst };
    let over = Match::MarkNot { value: mark, mask: mark };
    vec![
        clear(),
        Rule::when(vec![within], Action::SetMark(mark))
            .comment(format!("Mark packets within {word} packet rate limit")),
        Rule::when(vec![over], Action::Drop).comment(format!("Drop packets over {word} packet rate limit")),
        clear(),
    ]
}

/// Resets TCP connections above the number that is allowed at the same time.
pub(super) fn connections(direction: Direction, limits: &Limits) -> Option<Rule> {
    let count = limits.max_connections?.get();
    let tcp = Match::Protocol { protocol: Protocol::Tcp, negate: false };
    let matches = vec![tcp, Match::TcpSyn, Match::ConnectionsAbove(count)];
    let comment = format!("Reject connections over {} connection limit", direction.word());
    Some(Rule::when(matches, Action::ResetConnection).comment(comment))
}
