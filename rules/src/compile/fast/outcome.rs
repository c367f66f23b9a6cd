//! What a packet is told at the end: verdicts of maps, and the chains that do what a verdict alone cannot.
//!
//! A verdict of a map cannot write the mark. So a block sets the accept mark before it looks anything up: what is
//! allowed just returns to who jumped into the list, what is denied is dropped, and all else goes to a chain that
//! takes the mark back. Every chain that can be reached ends in a rule for all packets, so none returns by accident.
//!
//! That most verdicts lead to no chain is worth more than a step: with each new element that leads to one, the kernel
//! follows every element of every map of the table (measured: 15 ms and more for one element beside 100,000, against
//! 0.02 ms for one that drops).

use std::sync::Arc;

use tortie_api::id::sha224_b64;

use super::row::Row;
use super::row_chain;
use crate::compile::chains::Chains;
use crate::compile::config::{Config, DenyAction};
use crate::compile::rule::deny;
use crate::ruleset::{Action, Rule, Verdict};

/// Characters of a digest in a name: 20 of base64 are 120 bits.
const DIGEST: usize = 20;

/// A name made of a text.
pub(super) fn digest_name(prefix: &str, text: &str) -> String {
    let mut digest = sha224_b64(text);
    digest.truncate(DIGEST);
    format!("{prefix}{digest}")
}

/// What policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum End {
    /// Back to who jumped into the list, with the accept mark.
    Allow,
    /// Dropped or rejected.
    Deny,
    /// The pass mark, and back to the chain of the list.
    Pass,
    /// Back to the chain of the list, with neither mark.
    Undecided,
}

/// What policy says, and what is told of it: numbers of entries of [`Logs`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) logs: Vec<u32>,
}

/// What rules tell of their decisions, for those who listen to flows.
#[derive(Clone, Debug, Default)]
pub(super) struct Logs(Vec<Action>);

impl Logs {
    /// The number of an entry; none for a rule that tells nothing.
    pub(super) fn add(&mut self, rule: Option<Rule>) -> Option<u32> {
        self.add_action(rule?.action)
    }

    pub(super) fn add_action(&mut self, action: Option<Action>) -> Option<u32> {
        self.0.push(action?);
        u32::try_from(self.0.len() - 1).ok()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Action> {
        self.0.get(number as usize)
    }
}

/// Turns outcomes into verdicts.
#[derive(Clone, Debug)]
pub(super) struct Palette {
    accept: u32,
    pass: u32,
    deny: Action,
    is_drop: bool,
    /// Maps and sets of a table beyond which rows are asked rule by rule.
    lookups: usize,
}

impl Palette {
    pub(super) fn new(config: &Config, lookups: usize) -> Self {
        Self {
            accept: config.marks.accept,
            pass: config.marks.pass,
            deny: deny(config),
            is_drop: config.filter_deny == DenyAction::Drop,
            lookups,
        }
    }

    /// What stands before the lookups of a block.
    pub(super) fn start(&self) -> Rule {
        Rule::always(Action::SetMark(self.accept))
    }

    /// The verdict, with the chain that it leads to, if any, in place.
    pub(super) fn verdict(&self, outcome: &Outcome, logs: &Logs, chains: &mut Chains) -> Verdict {
        match (outcome.end, outcome.logs.is_empty()) {
            (End::Allow, true) => return Verdict::Return,
            (End::Deny, true) if self.is_drop => return Verdict::Drop,
            _ => {}
        }
        let mut rules: Vec<Rule> =
            outcome.logs.iter().filter_map(|log| logs.get(*log)).cloned().map(Rule::always).collect();
        let name = if rules.is_empty() {
            match outcome.end {
                End::Pass => "cali-pass",
                End::Undecided => "cali-undecided",
                End::Deny | End::Allow => "cali-deny",
            }
            .to_owned()
        } else {
            digest_name("cali-r-", &format!("{:?} {:?} {rules:?}", outcome.end, self.deny))
        };
        let Self { accept, pass, .. } = *self;
        chains.intern(&name, || {
            rules.extend(match outcome.end {
                End::Allow => None,
                End::Pass => Some(Rule::always(Action::SetMaskedMark { value: pass, mask: accept | pass })),
                End::Deny => Some(Rule::always(self.deny.clone()).comment("Policy denies")),
                End::Undecided => Some(Rule::always(Action::ClearMark(accept))),
            });
            rules
        });
        Verdict::Goto(Arc::from(name))
    }

    /// A row in terms of verdicts, with the chains that these lead to in place.
    pub(super) fn verdicts(&self, row: &Row<Outcome>, logs: &Logs, chains: &mut Chains) -> Row<Verdict> {
        row.map(&mut |outcome| self.verdict(outcome, logs, chains))
    }

    /// The verdict for a row, with nothing in place.
    pub(super) fn name_of_row(row: &Row<Verdict>) -> Verdict {
        if row.is_constant() { row.others.clone() } else { row_chain::verdict(row) }
    }

    /// The verdict for a row, with the chains and maps that it needs in place.
    pub(super) fn row_verdict(&self, row: &Row<Verdict>, chains: &mut Chains) -> Verdict {
        if row.is_constant() { row.others.clone() } else { row_chain::intern(row, self.lookups, chains) }
    }
}
