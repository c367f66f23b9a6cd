//! Policy groups: neighbours in a policy list with the same selector, which many endpoints have in common.

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

/// A run of policies with the same selector. Staged ones are members, and their number and names are part of the
/// id, but nothing ever jumps to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    direction: Direction,
    policies: Vec<PolicyRef>,
}

impl Group {
    /// Cuts a policy list into groups.
    pub(crate) fn split(direction: Direction, policies: &[PolicyRef]) -> Vec<Self> {
        let runs = policies.chunk_by(|a, b| a.selector == b.selector);
        runs.map(|run| Self { direction, policies: run.to_vec() }).collect()
    }

    /// The policies that decide something.
    fn enforced(&self) -> impl Iterator<Item = &PolicyKey> {
        self.policies.iter().filter(|p| !p.staged).map(|p| &p.key)
    }

    /// The chains that an endpoint jumps to for this group: a chain of the group's own if that saves rules.
    pub(crate) fn targets(&self) -> Vec<String> {
        match self.enforced().collect::<Vec<_>>().as_slice() {
            [] => Vec::new(),
            [one] => vec![names::policy_chain(self.direction, one)],
            _ => vec![names::group_chain(self.direction, &self.id())],
        }
    }

    /// The group's own chain, if it has one.
    pub(crate) fn chain(&self, marks: &Marks) -> Option<Chain> {
        self.enforced().nth(1)?;
        let verdict = marks.accept | marks.pass;
        let mut rules = Vec::new();
        for (at, policy) in self.enforced().enumerate() {
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
        let selector = self.policies.first().map_or("", |p| &*p.selector);
        let policies: String = self.policies.iter().map(|p| policy(&p.key)).collect();
        let text = format!("{selector}\n{direction}\n{}\n{policies}", self.policies.len());
        let mut id = URL_SAFE_NO_PAD.encode(Sha3_224::digest(text.as_bytes()));
        id.truncate(ID_LENGTH);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::model::PolicyKind;

    fn policy(kind: PolicyKind, name: &str, selector: &str) -> PolicyRef {
        let key = PolicyKey { kind, namespace: "".into(), name: name.into() };
        PolicyRef { key, selector: selector.into(), staged: kind == PolicyKind::StagedGlobalNetworkPolicy }
    }

    fn real(name: &str) -> PolicyRef {
        policy(PolicyKind::GlobalNetworkPolicy, name, "all()")
    }

    fn staged(name: &str) -> PolicyRef {
        policy(PolicyKind::StagedGlobalNetworkPolicy, name, "all()")
    }

    fn group(policies: &[PolicyRef]) -> Group {
        let mut groups = Group::split(Direction::Ingress, policies);
        assert_eq!(groups.len(), 1);
        groups.remove(0)
    }

    #[test]
    fn the_id_of_a_group_is_felixs() {
        assert_eq!(group(&[real("a"), real("b")]).id(), "js-B7zioflPRrAki3OCu");
    }

    #[test]
    fn staged_policies_count_in_the_id_but_nothing_jumps_to_them() {
        let group = group(&[real("a"), staged("s"), real("b")]);
        assert_ne!(group.id(), "js-B7zioflPRrAki3OCu");
        let chain = group.chain(&Marks::default()).expect("two policies decide");
        let targets: Vec<_> =
            chain.rules.iter().filter_map(|r| r.action.as_ref().and_then(Action::target)).collect();
        assert_eq!(targets, ["cali-pi-gnp/a", "cali-pi-gnp/b"]);
        assert_eq!(group.targets(), [chain.name]);
    }

    #[test]
    fn a_group_with_one_policy_that_decides_needs_no_chain() {
        let one = group(&[staged("s"), real("a")]);
        assert_eq!((one.targets(), one.chain(&Marks::default())), (vec!["cali-pi-gnp/a".to_owned()], None));
        let none = group(&[staged("s")]);
        assert_eq!((none.targets(), none.chain(&Marks::default())), (Vec::new(), None));
    }

    #[test]
    fn a_staged_policy_with_another_selector_parts_its_neighbours() {
        let other = policy(PolicyKind::StagedGlobalNetworkPolicy, "s", "has(x)");
        let groups = Group::split(Direction::Ingress, &[real("a"), other, real("b")]);
        assert_eq!(groups.len(), 3);
    }
}
