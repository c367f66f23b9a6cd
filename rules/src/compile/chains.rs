//! The chains of one table: which are wanted, which are reachable, which changed.
//!
//! A chain is programmed when a programmed chain or one of the kernel's own refers to it, or when it is pinned.
//! Others are kept and cost nothing.
//!
//! A chain that would let more through because the kernel lacks members of a set is closed until it has them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::config::Marks;
use crate::ruleset::{Action, Chain, Hook, Match, Rule};

#[derive(Debug, Default)]
struct Entry {
    chain: Option<Chain>,
    /// References from programmed chains and hooks, plus one if pinned.
    references: usize,
    pinned: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    entries: BTreeMap<String, Entry>,
    hooks: Vec<Hook>,
    hooks_changed: bool,
    dirty: BTreeSet<String>,
    programmed: BTreeSet<String>,
    /// Sets that the kernel does not hold as wanted.
    broken_sets: BrokenSets,
}

impl Chains {
    /// Sets our rules in the kernel's chains.
    pub(crate) fn set_hooks(&mut self, hooks: Vec<Hook>) {
        let targets = |hooks: &[Hook]| -> Vec<String> {
            hooks.iter().flat_map(|h| h.inserted.iter().chain(&h.appended)).filter_map(target).collect()
        };
        let (old, new) = (targets(&self.hooks), targets(&hooks));
        self.hooks = hooks;
        self.hooks_changed = true;
        new.iter().for_each(|name| self.refer(name));
        old.iter().for_each(|name| self.unrefer(name));
    }

    /// Adds or changes a chain.
    pub(crate) fn set(&mut self, chain: Chain) {
        let entry = self.entries.entry(chain.name.clone()).or_default();
        if entry.chain.as_ref() == Some(&chain) {
            return;
        }
        let live = entry.references > 0;
        let new = targets(Some(&chain));
        let name = chain.name.clone();
        let old = targets(entry.chain.replace(chain).as_ref());
        if live {
            self.dirty.insert(name);
            new.iter().for_each(|name| self.refer(name));
            old.iter().for_each(|name| self.unrefer(name));
        }
    }

    /// Whether the chain is there or something refers to it.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the chain is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.chain.is_some())
    }

    /// Removes a chain. Whoever still refers to it finds it closed (see [`Chains::changes`]).
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let live = entry.references > 0;
        let old = targets(entry.chain.take().as_ref());
        if live {
            self.dirty.insert(name.to_owned());
            old.iter().for_each(|name| self.unrefer(name));
        } else {
            self.entries.remove(name);
        }
    }

    /// Programs a chain whether or not anything refers to it.
    pub(crate) fn pin(&mut self, name: &str, pinned: bool) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        if entry.pinned == pinned {
            return;
        }
        entry.pinned = pinned;
        if pinned { self.refer(name) } else { self.unrefer(name) }
    }

    /// Notes which sets the kernel does not hold as wanted.
    pub(crate) fn set_broken_sets(&mut self, broken: &BrokenSets) {
        if self.broken_sets == *broken {
            return;
        }
        let changed: BTreeSet<&String> = [
            self.broken_sets.incomplete.symmetric_difference(&broken.incomplete),
            self.broken_sets.strange.symmetric_difference(&broken.strange),
        ]
        .into_iter()
        .flatten()
        .collect();
        let refers =
            |rule: &Rule| rule.matches.iter().filter_map(set_match).any(|(name, _)| changed.contains(name));
        let live = self.entries.iter().filter(|(_, e)| e.references > 0);
        let touched = live.filter(|(_, e)| e.chain.as_ref().is_some_and(|c| c.rules.iter().any(refers)));
        self.dirty.extend(touched.map(|(name, _)| name.clone()));
        self.broken_sets.clone_from(broken);
    }

    /// Hands out what changed since the last call: chains first, hooks last.
    pub(crate) fn changes(&mut self, marks: &Marks, take: &mut dyn FnMut(Change<'_>)) {
        for name in std::mem::take(&mut self.dirty) {
            match self.entries.get(&name).filter(|e| e.references > 0) {
                Some(entry) => {
                    let closed = self.closed(&name, entry.chain.as_ref(), marks).map(Cow::Owned);
                    let content = closed.or(entry.chain.as_ref().map(Cow::Borrowed));
                    let content = content.unwrap_or_else(|| Cow::Owned(close(&name, "not there yet")));
                    take(Change::Chain(&content));
                    self.programmed.insert(name);
                }
                None if self.programmed.remove(&name) => take(Change::NoChain(&name)),
                None => {}
            }
        }
        if std::mem::take(&mut self.hooks_changed) {
            take(Change::Hooks(&self.hooks));
        }
    }

    /// What is to be programmed: our rules in the kernel's chains, and our chains by name.
    pub(crate) fn content(&self, marks: &Marks) -> (Vec<Hook>, Vec<Chain>) {
        let live = self.entries.iter().filter(|(_, entry)| entry.references > 0);
        let chain = |(name, entry): (&String, &Entry)| {
            let closed = self.closed(name, entry.chain.as_ref(), marks);
            closed.or_else(|| entry.chain.clone()).unwrap_or_else(|| close(name, "not there yet"))
        };
        (self.hooks.clone(), live.map(chain).collect())
    }

    /// The chain's stand-in, if a broken set would make it let more through.
    fn closed(&self, name: &str, chain: Option<&Chain>, marks: &Marks) -> Option<Chain> {
        let BrokenSets { incomplete, strange } = &self.broken_sets;
        if incomplete.is_empty() && strange.is_empty() {
            return None;
        }
        chain.into_iter().flat_map(|c| &c.rules).find_map(|rule| {
            rule.matches.iter().filter_map(set_match).find_map(|(set, negate)| {
                if strange.contains(set) && decides(rule, marks) {
                    Some(close(name, &format!("set {set} is not ours")))
                } else if incomplete.contains(set) && opens_by_missing_members(rule, negate, marks) {
                    Some(close(name, &format!("set {set} is incomplete")))
                } else {
                    None
                }
            })
        })
    }

    /// Counts a reference; with the first, the chain and what it refers to become live.
    fn refer(&mut self, name: &str) {
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            let entry = self.entries.entry(name.clone()).or_default();
            entry.references += 1;
            if entry.references == 1 {
                open.extend(targets(entry.chain.as_ref()));
                self.dirty.insert(name);
            }
        }
    }

    fn unrefer(&mut self, name: &str) {
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            let entry = self.entries.get_mut(&name).expect("a referenced chain has an entry");
            entry.references -= 1;
            if entry.references == 0 {
                open.extend(targets(entry.chain.as_ref()));
                if entry.chain.is_none() {
                    self.entries.remove(&name);
                }
                self.dirty.insert(name);
            }
        }
    }
}

/// A change of one table's content, typed; see [`crate::render::TableChange`].
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The chain shall hold exactly these rules.
    Chain(&'a Chain),
    /// The chain of this name shall not exist.
    NoChain(&'a str),
    /// Our rules in the kernel's chains, all of them.
    Hooks(&'a [Hook]),
}

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
fn close(name: &str, why: &str) -> Chain {
    let rule = Rule::always(Action::Drop).comment(format!("Closed: {why}"));
    Chain { name: name.to_owned(), rules: vec![rule] }
}

/// The set that a match looks into, and whether it asks for the opposite.
fn set_match(m: &Match) -> Option<(&String, bool)> {
    match m {
        Match::Set { name, negate, .. } => Some((name, *negate)),
        _ => None,
    }
}

/// Whether the rule takes part in a policy's decision.
fn decides(rule: &Rule, marks: &Marks) -> bool {
    let deciding = [marks.accept, marks.drop, marks.pass, marks.scratch0, marks.scratch1];
    matches!(rule.action, Some(Action::SetMark(bit)) if deciding.contains(&bit))
}

/// Whether members that a set lacks make this rule let more through: then a denial or a pass misses packets, or an
/// exception from what is allowed does. Of a match block one cannot tell.
fn opens_by_missing_members(rule: &Rule, negate: bool, marks: &Marks) -> bool {
    match rule.action {
        Some(Action::SetMark(bit)) if bit == marks.accept => negate,
        Some(Action::SetMark(bit)) if bit == marks.drop || bit == marks.pass => !negate,
        Some(Action::SetMark(bit)) => bit == marks.scratch0 || bit == marks.scratch1,
        _ => false,
    }
}

fn target(rule: &Rule) -> Option<String> {
    rule.action.as_ref().and_then(Action::target).map(str::to_owned)
}

fn targets(chain: Option<&Chain>) -> Vec<String> {
    chain.into_iter().flat_map(|c| &c.rules).filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, to: &[&str]) -> Chain {
        let rules = to.iter().map(|t| Rule::always(Action::Jump((*t).to_owned()))).collect();
        Chain { name: name.to_owned(), rules }
    }

    fn hook(to: &str) -> Hook {
        let inserted = vec![Rule::always(Action::Jump(to.to_owned()))];
        Hook { chain: "FORWARD", inserted, appended: Vec::new() }
    }

    fn names(chains: &mut Chains) -> Vec<String> {
        let mut names = Vec::new();
        chains.changes(&Marks::default(), &mut |change| {
            names.push(match change {
                Change::Chain(c) => format!("+{}:{}", c.name, c.rules.len()),
                Change::NoChain(n) => format!("-{n}"),
                Change::Hooks(_) => "hooks".to_owned(),
            });
        });
        names
    }

    #[test]
    fn only_chains_that_a_packet_can_reach_are_programmed() {
        let mut chains = Chains::default();
        chains.set(chain("a", &["b"]));
        chains.set(chain("b", &[]));
        chains.set(chain("unused", &["b"]));
        assert!(names(&mut chains).is_empty());
        chains.set_hooks(vec![hook("a")]);
        assert_eq!(names(&mut chains), ["+a:1", "+b:0", "hooks"]);
        chains.set(chain("a", &[]));
        assert_eq!(names(&mut chains), ["+a:0", "-b"]);
        chains.pin("unused", true);
        assert_eq!(names(&mut chains), ["+b:0", "+unused:1"]);
        chains.pin("unused", false);
        assert_eq!(names(&mut chains), ["-b", "-unused"]);
    }

    #[test]
    fn a_missing_chain_is_closed_until_it_comes() {
        let mut chains = Chains::default();
        chains.set_hooks(vec![hook("a")]);
        assert_eq!(names(&mut chains), ["+a:1", "hooks"]);
        chains.set(chain("a", &[]));
        assert_eq!(names(&mut chains), ["+a:0"]);
        chains.remove("a");
        assert_eq!(names(&mut chains), ["+a:1"]);
    }

    #[test]
    fn an_equal_chain_is_no_change() {
        let mut chains = Chains::default();
        chains.set_hooks(vec![hook("a")]);
        chains.set(chain("a", &["b"]));
        names(&mut chains);
        chains.set(chain("a", &["b"]));
        assert!(names(&mut chains).is_empty());
    }

    fn with_set(negate: bool, bit: u32) -> Rule {
        let side = crate::ruleset::Side::Source;
        let m = Match::Set { name: "s".to_owned(), side, key: crate::ruleset::SetKey::Address, negate };
        Rule::when(vec![m], Action::SetMark(bit))
    }

    #[test]
    fn a_chain_is_closed_where_missing_members_would_open_it() {
        let marks = Marks::default();
        let cases = [
            (false, marks.accept, false),
            (true, marks.accept, true),
            (false, marks.drop, true),
            (true, marks.drop, false),
            (false, marks.pass, true),
            (false, marks.scratch0, true),
        ];
        for (negate, bit, is_closed) in cases {
            let mut chains = Chains::default();
            chains.set_hooks(vec![hook("a")]);
            let rules = vec![with_set(negate, bit), Rule::always(Action::Return)];
            chains.set(Chain { name: "a".to_owned(), rules });
            assert_eq!(names(&mut chains), ["+a:2", "hooks"]);
            let names_of_s = BTreeSet::from(["s".to_owned()]);
            let incomplete = BrokenSets { incomplete: names_of_s.clone(), ..BrokenSets::default() };
            chains.set_broken_sets(&incomplete);
            let rules = if is_closed { 1 } else { 2 };
            assert_eq!(names(&mut chains), [format!("+a:{rules}")], "{negate} {bit:#x}");
            chains.set_broken_sets(&BrokenSets { strange: names_of_s, ..incomplete });
            assert_eq!(names(&mut chains), ["+a:1"], "{negate} {bit:#x}: whatever is in the set");
            chains.set_broken_sets(&BrokenSets::default());
            assert_eq!(names(&mut chains), ["+a:2"]);
        }
    }
}
