//! What lets nothing through as long as the kernel lacks members of a set.

use std::collections::BTreeSet;

use crate::compile::config::Marks;
use crate::ruleset::{Action, Chain, Match, Rule};

/// Sets that the kernel does not hold as wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokenSets {
    /// They lack members, or are not known to have them all.
    pub incomplete: BTreeSet<String>,
    /// What is in them is not what should be: sets of another kind under the same name, or with members that cannot
    /// be taken out.
    pub strange: BTreeSet<String>,
}

/// A chain that lets nothing through.
pub(super) fn close(name: &str, why: &str) -> Chain {
    let rule = Rule::always(Action::Drop).comment(format!("Closed: {why}"));
    Chain { name: name.to_owned(), rules: vec![rule] }
}

/// The set that a match looks into, and whether it asks for the opposite.
pub(super) fn set_match(m: &Match) -> Option<(&String, bool)> {
    match m {
        Match::Set { name, negate, .. } => Some((name, *negate)),
        _ => None,
    }
}

/// Whether the rule takes part in a policy's decision.
pub(super) fn decides(rule: &Rule, marks: &Marks) -> bool {
    let deciding = [marks.accept, marks.drop, marks.pass, marks.scratch0, marks.scratch1];
    matches!(rule.action, Some(Action::SetMark(bit)) if deciding.contains(&bit))
}

/// Whether members that a set lacks make this rule let more through: then a denial or a pass misses packets, or an
/// exception from what is allowed does. Of a match block one cannot tell.
pub(super) fn opens_by_missing_members(rule: &Rule, negate: bool, marks: &Marks) -> bool {
    match rule.action {
        Some(Action::SetMark(bit)) if bit == marks.accept => negate,
        Some(Action::SetMark(bit)) if bit == marks.drop || bit == marks.pass => !negate,
        Some(Action::SetMark(bit)) => bit == marks.scratch0 || bit == marks.scratch1,
        _ => false,
    }
}
