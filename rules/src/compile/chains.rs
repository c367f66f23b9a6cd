//! The chains of one table: which are wanted, which are reachable, which changed.
//!
//! A chain is programmed when a programmed chain or one of the kernel's own refers to it, or when it is pinned.
//! Others are kept and cost nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::render::{InsertMode, TableChange, iptables};
use crate::ruleset::{Action, Chain, Hook, Rule};

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

    /// What changed since the last call, rendered.
    pub(crate) fn changes(&mut self, mode: InsertMode, features: iptables::Features) -> Vec<TableChange> {
        let mut changes = Vec::new();
        for name in std::mem::take(&mut self.dirty) {
            match self.entries.get(&name).filter(|e| e.references > 0) {
                Some(entry) => {
                    // A chain that is referred to but not there stays closed.
                    let closed = || Chain { name: name.clone(), rules: vec![Rule::always(Action::Drop)] };
                    let rendered = match &entry.chain {
                        Some(chain) => iptables::chain(chain, features),
                        None => iptables::chain(&closed(), features),
                    };
                    changes.push(TableChange::Chain(rendered.into()));
                    self.programmed.insert(name);
                }
                None if self.programmed.remove(&name) => changes.push(TableChange::NoChain(name)),
                None => {}
            }
        }
        if std::mem::take(&mut self.hooks_changed) {
            let hooks = self.hooks.iter().map(|h| iptables::hook(h, features)).collect();
            changes.push(TableChange::Hooks(hooks, mode));
        }
        changes
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
        let changes = chains.changes(InsertMode::Insert, iptables::Features::default());
        let name = |c| match c {
            TableChange::Chain(c) => format!("+{}:{}", c.name, c.rules.len()),
            TableChange::NoChain(n) => format!("-{n}"),
            TableChange::Hooks(..) => "hooks".to_owned(),
        };
        changes.into_iter().map(name).collect()
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
}
