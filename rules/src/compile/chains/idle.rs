//! Chains that do nothing: every packet pays for the jump to one, and for a hook that leads nowhere.
//!
//! A chain is idle if none of its rules does more than return or lead to idle chains. Jumps to it are left out, and so
//! is the chain itself, unless a map leads to it. A hook of the kernel is left out if its rules do no more than accept,
//! which whoever is not dropped is anyway, and only there.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chains, Entry};
use crate::ruleset::{Action, Chain, Hook, Rule};

impl Chains {
    /// Leaves chains and hooks out that do nothing; see this module's documentation.
    pub(crate) fn trim(&mut self) {
        self.trims = true;
    }

    pub(super) fn trimmed_hooks(&self) -> Vec<Hook> {
        if self.trims { trimmed_hooks(&self.hooks, &self.idle, self) } else { self.hooks.clone() }
    }

    /// Whether a chain that is referred to is left out all the same.
    pub(super) fn is_left_out(&self, name: &str) -> bool {
        (self.idle.contains(name) || self.unhooked.contains(name))
            && !self.entries.get(name).is_some_and(|entry| entry.pinned)
            && !self.maps.values().any(|map| map.references > 0 && map.leads_to(name))
    }

    /// Finds out which chains do nothing, if one of those that changed does or did not.
    pub(crate) fn find_idle(&mut self) {
        if !self.trims {
            return;
        }
        let changed = self.dirty.iter().chain(&self.moved);
        let has_news = changed.into_iter().any(|name| {
            let live = self.entries.get(name).filter(|entry| entry.references > 0);
            let chain = live.and_then(|entry| entry.chain.as_ref());
            let does_nothing =
                chain.is_some_and(|chain| chain.rules.iter().all(|rule| is_idle(rule, &self.idle)));
            does_nothing != self.idle.contains(name)
        });
        if has_news {
            self.idle_changed();
        }
        let may_concern_hooks = self.hooks_changed || !self.dirty.is_empty() || !self.moved.is_empty();
        if may_concern_hooks {
            self.find_unhooked();
        }
    }

    /// Leaves out what only hooks lead to that are left out.
    fn find_unhooked(&mut self) {
        let hooks = self.trimmed_hooks();
        let is_kept = |hook: &&Hook| !hooks.iter().any(|kept| kept.chain == hook.chain);
        let rules =
            self.hooks.iter().filter(is_kept).flat_map(|hook| hook.inserted.iter().chain(&hook.appended));
        let targets = rules.filter_map(|rule| rule.action.as_ref()?.target());
        let is_alone = |name: &&str| self.entries.get(*name).is_some_and(|entry| entry.references == 1);
        let unhooked: BTreeSet<String> = targets.filter(is_alone).map(str::to_owned).collect();
        self.dirty.extend(unhooked.symmetric_difference(&self.unhooked).cloned());
        self.unhooked = unhooked;
        self.hooks_changed |= hooks != self.told_hooks;
    }

    fn idle_changed(&mut self) {
        let live = self.entries.values().filter(|entry| entry.references > 0);
        let idle = find(live.filter_map(|entry| entry.chain.as_ref()));
        let changed: BTreeSet<String> = idle.symmetric_difference(&self.idle).cloned().collect();
        self.idle = idle;
        let leads = |entry: &Entry| {
            let rules = entry.chain.iter().flat_map(|chain| &chain.rules);
            rules.filter_map(|rule| rule.action.as_ref()?.target()).any(|target| changed.contains(target))
        };
        let live = self.entries.iter().filter(|(_, entry)| entry.references > 0 && leads(entry));
        let leading: Vec<String> = live.map(|(name, _)| name.clone()).collect();
        self.dirty.extend(leading);
        self.dirty.extend(changed);
    }

    fn chain(&self, name: &str) -> Option<&Chain> {
        self.entries.get(name)?.chain.as_ref()
    }
}

/// Whether a rule does nothing, where these chains are idle.
fn is_idle(rule: &Rule, idle: &BTreeSet<String>) -> bool {
    match &rule.action {
        Some(Action::Return) => true,
        Some(Action::Jump(chain) | Action::Goto(chain)) => idle.contains(chain),
        // One without an action counts.
        None | Some(_) => false,
    }
}

/// The idle ones among some chains.
fn find<'a>(chains: impl Iterator<Item = &'a Chain>) -> BTreeSet<String> {
    let may_be_idle =
        |rule: &Rule| matches!(&rule.action, Some(Action::Return | Action::Jump(_) | Action::Goto(_)));
    let mut open: Vec<&Chain> = chains.filter(|chain| chain.rules.iter().all(may_be_idle)).collect();
    let mut idle = BTreeSet::new();
    // Chains nest a few deep.
    loop {
        let before = open.len();
        open.retain(|chain| {
            let is_one = chain.rules.iter().all(|rule| is_idle(rule, &idle));
            if is_one {
                idle.insert(chain.name.clone());
            }
            !is_one
        });
        if open.len() == before {
            return idle;
        }
    }
}

/// Rules without those that only lead to idle chains.
pub(super) fn trimmed(rules: &[Rule], idle: &BTreeSet<String>) -> Vec<Rule> {
    let leads_nowhere = |rule: &&Rule| match &rule.action {
        Some(Action::Jump(chain)) => idle.contains(chain),
        _ => false,
    };
    let trim = |rule: &Rule| match &rule.action {
        Some(Action::Goto(chain)) if idle.contains(chain) => {
            Rule { action: Some(Action::Return), ..rule.clone() }
        }
        _ => rule.clone(),
    };
    rules.iter().filter(|rule| !leads_nowhere(rule)).map(trim).collect()
}

/// Hooks without what leads to idle chains, and without those that only accept.
fn trimmed_hooks(hooks: &[Hook], idle: &BTreeSet<String>, content: &Chains) -> Vec<Hook> {
    let trim = |hook: &Hook| Hook {
        chain: hook.chain,
        inserted: trimmed(&hook.inserted, idle),
        appended: trimmed(&hook.appended, idle),
    };
    let does_something = |hook: &Hook| {
        let mut seen = BTreeMap::new();
        // Behind this hook nobody looks at marks of ours any more, and who sends the packet on begins without.
        let clears = hook.chain == "POSTROUTING";
        let mut rules = hook.inserted.iter().chain(&hook.appended);
        !rules.all(|rule| is_passive(rule, clears, content, &mut seen))
    };
    hooks.iter().map(trim).filter(does_something).collect()
}

/// Whether a rule of a hook's chains does no more than accept. `seen` has chains that were looked at.
fn is_passive(rule: &Rule, clears: bool, content: &Chains, seen: &mut BTreeMap<String, bool>) -> bool {
    match &rule.action {
        Some(Action::Return | Action::Accept) => true,
        Some(Action::ClearMark(_)) => clears,
        Some(Action::Jump(name) | Action::Goto(name)) => {
            if let Some(known) = seen.get(name) {
                return *known;
            }
            let rules = content.chain(name).map(|chain| &chain.rules);
            let passive =
                rules.is_some_and(|rules| rules.iter().all(|rule| is_passive(rule, clears, content, seen)));
            seen.insert(name.clone(), passive);
            passive
        }
        None | Some(_) => false,
    }
}
