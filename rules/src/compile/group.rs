//! Policy groups: neighbours in a policy list with the same selector, which many endpoints have in common.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha3::{Digest, Sha3_224};

use super::config::Marks;
use super::names::{self, Direction};
use crate::graph::model::{PolicyKey, PolicyRef};
use crate::ruleset::{Action, Chain, Match, Rule};

/// Characters of a group's id.
const ID_LENGTH: usize = 20;
/// How many jumps go between two looks at whether the verdict is already there.
const STRIDE: usize = 5;

/// A run of policies with the same selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    direction: Direction,
    selector: Arc<str>,
    policies: Vec<PolicyKey>,
}

impl Group {
    /// Cuts a policy list into groups.
    pub(crate) fn split(direction: Direction, policies: &[PolicyRef]) -> Vec<Self> {
        let runs = policies.chunk_by(|a, b| a.selector == b.selector);
        runs.map(|run| Self {
            direction,
            selector: run[0].selector.clone(),
            policies: run.iter().map(|p| p.key.clone()).collect(),
        })
        .collect()
    }

    /// The chains that an endpoint jumps to for this group: a chain of the group's own if that saves rules.
    pub(crate) fn targets(&self) -> Vec<String> {
        match self.policies.as_slice() {
            [one] => vec![names::policy_chain(self.direction, one)],
            _ => vec![names::group_chain(self.direction, &self.id())],
        }
    }

    /// The group's own chain, if it has one.
    pub(crate) fn chain(&self, marks: &Marks) -> Option<Chain> {
        if self.policies.len() < 2 {
            return None;
        }
        let verdict = marks.accept | marks.pass;
        let mut rules = Vec::new();
        for (at, policy) in self.policies.iter().enumerate() {
            let jump = Action::Jump(names::policy_chain(self.direction, policy));
            if at % STRIDE != 0 {
                rules.push(Rule::when(vec![Match::MarkClear(verdict)], jump));
                continue;
            }
            if at > 0 {
                let decided = Rule::when(vec![Match::MarkAnySet(verdict)], Action::Return);
                rules.push(decided.comment("Return on verdict"));
            }
            rules.push(Rule::always(jump));
        }
        Some(Chain { name: names::group_chain(self.direction, &self.id()), rules })
    }

    /// Felix's id: SHA3-224 over selector, direction and policies, a line each.
    fn id(&self) -> String {
        let direction = match self.direction {
            Direction::Ingress => "inbound",
            Direction::Egress => "outbound",
        };
        let policy = |p: &PolicyKey| {
            format!("{{Name: {}, Namespace: {}, Kind: {}}}\n", p.name, p.namespace, p.kind.name())
        };
        let policies: String = self.policies.iter().map(policy).collect();
        let text = format!("{}\n{direction}\n{}\n{policies}", self.selector, self.policies.len());
        let mut id = URL_SAFE_NO_PAD.encode(Sha3_224::digest(text.as_bytes()));
        id.truncate(ID_LENGTH);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::model::PolicyKind;

    #[test]
    fn the_id_of_a_group_is_felixs() {
        let key = |name: &str| PolicyKey {
            kind: PolicyKind::GlobalNetworkPolicy,
            namespace: "".into(),
            name: name.into(),
        };
        let policies = vec![key("a"), key("b")];
        let group = Group { direction: Direction::Ingress, selector: "all()".into(), policies };
        assert_eq!(group.id(), "js-B7zioflPRrAki3OCu");
    }
}
