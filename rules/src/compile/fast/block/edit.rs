//! An edit of one policy of a block: only addresses that a changed rule names are looked at again.

use super::{Block, BlockStep, Rule, RuleKey, TooComplex};
use crate::compile::chains::Chains;
use crate::compile::fast::members::{Members, SetNumber, Touched};
use crate::compile::fast::step::{AddressSet, Step};
use crate::graph::model::SetId;
use crate::ruleset::Action;

/// A rule of a policy, and what is told of its decisions.
pub(in crate::compile::fast) type PlainStep = (Step, Option<Action>);

/// Sets that a block began to ask for, and those that it asks for no more.
#[derive(Debug, Default)]
pub(in crate::compile::fast) struct AtomChange {
    pub(in crate::compile::fast) came: Vec<SetNumber>,
    pub(in crate::compile::fast) went: Vec<SetNumber>,
}

impl Block {
    /// Adds a rule, unless it is for members of a set that is not there: nobody is in it.
    pub(super) fn add_rule(&mut self, key: RuleKey, step: BlockStep, members: &Members) {
        let number =
            |ids: &[SetId]| -> Option<Vec<SetNumber>> { ids.iter().map(|id| members.number(id)).collect() };
        let Some(sets) = number(&step.step.peer.sets) else { return };
        let not_sets: Vec<SetNumber> =
            step.step.peer.not_sets.iter().filter_map(|id| members.number(id)).collect();
        for set in sets.iter().chain(&not_sets) {
            *self.atoms.entry(*set).or_insert(0) += 1;
        }
        match sets.first() {
            Some(first) => self.by_set.entry(*first).or_default().push(key),
            None => {
                self.free.insert(key);
            }
        }
        self.rules.insert(key, Rule { step, sets, not_sets });
    }

    fn remove_rule(&mut self, key: RuleKey) -> Option<Rule> {
        let rule = self.rules.remove(&key)?;
        for set in rule.sets.iter().chain(&rule.not_sets) {
            if let Some(times) = self.atoms.get_mut(set) {
                *times -= 1;
                if *times == 0 {
                    self.atoms.remove(set);
                }
            }
        }
        self.free.remove(&key);
        if let Some(keys) = rule.sets.first().and_then(|first| self.by_set.get_mut(first)) {
            keys.retain(|of| *of != key);
        }
        Some(rule)
    }

    /// Puts other rules in the place of a policy's. `left` tells who was in a set until now.
    pub(in crate::compile::fast) fn edit(
        &mut self,
        (section, owner): (usize, usize),
        steps: Vec<PlainStep>,
        left: &dyn Fn(SetNumber) -> Touched,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<AtomChange, TooComplex> {
        let keys: Vec<RuleKey> =
            self.rules.range((section, owner, 0)..(section, owner + 1, 0)).map(|(key, _)| *key).collect();
        let old: Vec<Rule> = keys.into_iter().filter_map(|key| self.remove_rule(key)).collect();
        let log_of = |rule: &Rule| rule.step.log.and_then(|log| self.spec.logs.get(log));
        let is_same =
            |rule: &Rule, (step, log): &PlainStep| rule.step.step == *step && log_of(rule) == log.as_ref();
        let head = old.iter().zip(&steps).take_while(|(rule, step)| is_same(rule, step)).count();
        let rest = old[head..].iter().rev().zip(steps[head..].iter().rev());
        let tail = rest.take_while(|(rule, step)| is_same(rule, step)).count();
        let (old_end, new_end) = (old.len() - tail, steps.len() - tail);
        for (index, (step, log)) in steps.into_iter().enumerate() {
            let log = self.spec.logs.add_action(log);
            self.add_rule((section, owner, index), BlockStep { step, log, owner }, members);
        }
        let key = |index: usize| (section, owner, index);
        let new = (head..new_end).filter_map(|index| self.rules.get(&key(index)));
        let changed: Vec<&Rule> = old[head..old_end].iter().chain(new).collect();
        let touched = concerned(&changed, left, members);
        let steps_changed: Vec<Step> = changed.iter().map(|rule| rule.step.step.clone()).collect();
        let mut sets: Vec<SetNumber> =
            changed.iter().flat_map(|rule| rule.sets.iter().chain(&rule.not_sets)).copied().collect();
        sets.sort_unstable();
        sets.dedup();
        match touched {
            Concerned::Some(touched) => {
                // Whom a rule for sets is for is in one of these.
                let is_in = |present: &[SetNumber]| sets.iter().any(|set| present.binary_search(set).is_ok());
                self.known.retain(|(_, present), _| !is_in(present));
                self.own.retain(|(_, present), _| !is_in(present));
                self.touch(&touched, members, chains)?;
            }
            Concerned::All => self.touch_everybody(&steps_changed, members, chains)?,
            Concerned::AllBut => self.make_tables(members, chains)?,
        }
        let (came, went) = sets.into_iter().partition(|set| self.atoms.contains_key(set));
        Ok(AtomChange { came, went })
    }
}

/// Whom some rules may be for.
enum Concerned {
    Some(Touched),
    All,
    /// All but some networks, which may part the address space in other places than before.
    AllBut,
}

fn concerned(rules: &[&Rule], left: &dyn Fn(SetNumber) -> Touched, members: &Members) -> Concerned {
    let mut touched = Touched::default();
    let mut are_all = false;
    for rule in rules {
        let peer = &rule.step.step.peer;
        // Where networks begin and end the address space is cut anew.
        touched.ranges.extend(peer.nets.iter().flat_map(AddressSet::ranges));
        touched.ranges.extend(peer.not_nets.ranges());
        are_all |= rule.sets.is_empty() && peer.nets.is_none();
        // Of all its sets: what is no longer asked for must be forgotten, too.
        for set in rule.sets.iter().chain(&rule.not_sets) {
            touched.extend(left(*set));
            let Some(members) = members.get(*set) else { continue };
            touched.hosts.extend(members.hosts());
            touched.ranges.extend(members.ranges());
        }
    }
    match (are_all, touched.is_empty()) {
        (false, _) => Concerned::Some(touched),
        (true, true) => Concerned::All,
        (true, false) => Concerned::AllBut,
    }
}
