//! Chains that do nothing: every packet pays for the jump to one, and for a hook that leads nowhere.
//!
//! A chain is idle if none of its rules does more than return or lead to idle chains. Jumps to it are left out, and so
//! is the chain itself, unless a map leads to it. A hook of the kernel is left out if its rules do no more than accept,
//! which whoever is not dropped is anyway, and only there.

use std::collections::{BTreeMap, BTreeSet};

use crate::ruleset::{Action, Chain, Hook, Rule};

/// Chains by name.
pub(super) trait Content {
    /// The chain, if it is there.
    fn chain(&self, name: &str) -> Option<&Chain>;
}

/// Whether a rule does nothing, where these chains are idle.
pub(super) fn is_idle(rule: &Rule, idle: &BTreeSet<String>) -> bool {
    match &rule.action {
        Some(Action::Return) => true,
        Some(Action::Jump(chain) | Action::Goto(chain)) => idle.contains(chain),
        // One without an action counts.
        None | Some(_) => false,
    }
}

/// The idle ones among some chains.
pub(super) fn find<'a>(chains: impl Iterator<Item = &'a Chain>) -> BTreeSet<String> {
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
pub(super) fn trimmed_hooks(hooks: &[Hook], idle: &BTreeSet<String>, content: &impl Content) -> Vec<Hook> {
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
fn is_passive(rule: &Rule, clears: bool, content: &impl Content, seen: &mut BTreeMap<String, bool>) -> bool {
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
