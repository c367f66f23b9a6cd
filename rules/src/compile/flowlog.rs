//! Rules that tell of decisions: `NFLOG`, with a prefix that says who decided what.
//!
//! ```text
//!   API0|gnp/web     allowed by rule 0 of a policy, to an endpoint        (first letter: A, D, P)
//!   DRE2|kns.shop    denied by rule 2 of a profile, from an endpoint      (third letter: I, E)
//!   DPI|default      no policy of the tier decided, so it is denied; with PPI passed on
//!   DRI              no profile decided
//! ```

use tortie_api::id::length_limited;
use tortie_api::policy::Action as PolicyAction;

use super::names::Direction;
use crate::ruleset::{Action, Match, Rule};

/// The longest prefix that the kernel takes, without its final NUL.
const PREFIX_MAX: usize = 63;
/// What stays readable of a longer one, at both ends.
const ENDS: usize = 10;

/// Groups that listeners bind to: traffic to endpoints, and from them.
const fn group(direction: Direction) -> u16 {
    match direction {
        Direction::Ingress => 1,
        Direction::Egress => 2,
    }
}

const fn letter(direction: Direction) -> char {
    match direction {
        Direction::Ingress => 'I',
        Direction::Egress => 'E',
    }
}

/// Which rule of a policy or profile it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) direction: Direction,
    /// Its number in the list of the policy or profile, from 0.
    pub(crate) index: usize,
}

/// For packets that a rule of a policy, or of a profile, has decided on. Log rules decide nothing.
pub(crate) fn decided(
    action: PolicyAction,
    place: Place,
    is_profile: bool,
    id: &str,
    matches: Vec<Match>,
) -> Option<Rule> {
    let verdict = match action {
        PolicyAction::Allow => 'A',
        PolicyAction::Deny => 'D',
        PolicyAction::Pass => 'P',
        PolicyAction::Log => return None,
    };
    let owner = if is_profile { 'R' } else { 'P' };
    let direction = letter(place.direction);
    let prefix = format!("{verdict}{owner}{direction}{}|{id}", place.index);
    Some(Rule::when(matches, nflog(place.direction, &prefix)))
}

/// For packets that no policy of a tier has decided on: denied, or passed on.
pub(crate) fn end_of_tier(denied: bool, direction: Direction, tier: &str, undecided: Vec<Match>) -> Rule {
    let verdict = if denied { 'D' } else { 'P' };
    Rule::when(undecided, nflog(direction, &format!("{verdict}P{}|{tier}", letter(direction))))
}

/// For packets that no profile has decided on.
pub(crate) fn no_profile(direction: Direction) -> Rule {
    Rule::always(nflog(direction, &format!("DR{}", letter(direction))))
}

fn nflog(direction: Direction, prefix: &str) -> Action {
    // It stands without quotes in what iptables-restore reads.
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\');
    let prefix: String = prefix.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    Action::Nflog { group: group(direction), prefix: fitting(prefix) }
}

/// A prefix that is too long keeps its ends, with a digest between. One that fits exactly is replaced as well, so that
/// nobody can choose a name that reads like another's digest.
fn fitting(prefix: String) -> String {
    if prefix.len() < PREFIX_MAX {
        return prefix;
    }
    let (start, end) = (&prefix[..ENDS], &prefix[prefix.len() - ENDS..]);
    let digest = length_limited("", &prefix, PREFIX_MAX - 2 * ENDS - 1);
    format!("{start}{digest}_{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(id: &str) -> String {
        let place = Place { direction: Direction::Ingress, index: 0 };
        match decided(PolicyAction::Allow, place, false, id, Vec::new()).and_then(|rule| rule.action) {
            Some(Action::Nflog { group: 1, prefix }) => prefix,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_long_prefix_keeps_its_ends() {
        let long = format!("gnp/long-{}", "x".repeat(50));
        assert_eq!(prefix(&long), "API0|gnp/l_yvATlMbTQXzn8fBDKb-ntpGn71Zmz9k__dWm4drgn_xxxxxxxxxx");
        assert_eq!(prefix(&"x".repeat(57)).len(), 62);
        assert!(prefix(&"x".repeat(58)).starts_with("API0|xxxxx_"));
    }

    #[test]
    fn nothing_breaks_out_of_a_prefix() {
        assert_eq!(prefix("a b\"\n\\ü"), "API0|a_b____");
    }
}
