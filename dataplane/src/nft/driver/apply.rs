//! Brings a table's plan into the kernel, and finds out what to leave aside when it is refused.
//!
//! ```text
//!  steps ──► one transaction ──► done
//!              │ refused: nothing of it is in force, and every refused message is named
//!              ├─ something is not there that should be ─► read the table again, and again
//!              ├─ how chains lead to each other ──────────► the culprits are searched for and closed, again
//!              ├─ a set or its elements ─► the set is set aside, chains that look into it are closed, again
//!              └─ rules ─► their chains are closed, again
//! ```
//!
//! What nothing refers to yet goes ahead in a transaction of its own (in several if it is large), and the rest switches
//! to it in one: a packet under way at the moment of a commit may see rules of it and not yet the elements that came
//! with them, so that some of what is allowed would be dropped. Where others have damaged the table, and so let pass
//! what they like, all goes in one.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use tortie_rules::render::nft as lower;

use super::NftTable;
use super::isolate::is_about_paths;
use super::plan::{Patch, Step, Steps};
use super::quarantine::Thing;
use crate::nft::{CommitError, Failure, ObjectKind, Removal, Transaction};
use crate::reconcile::{Driver, Phase, Problem, Report};
use crate::steer::chain as words;

/// How often one apply tries.
const MAX_ROUNDS: usize = 32;
/// How often it reads the table again because what is there is not what was known.
const MAX_READS: usize = 2;

/// Bytes of a transaction from which on it pays not to hear of it.
const BULK: usize = 256 * 1024;

/// Of the rules of chains, in order.
type Handles = BTreeMap<String, Vec<u64>>;

impl NftTable {
    /// Does all there is to do in a phase.
    pub(super) fn run(&mut self, phase: Phase) -> Report {
        let before = self.socket.requests();
        let mut report = Report::default();
        let outcome = self.settle_and_tell(phase, &mut report);
        self.is_repairing &= outcome.is_err();
        if phase == Phase::Enforce && outcome.is_ok() {
            report.changed += self.attach();
        }
        report.problems.extend(outcome.err().map(|error| self.problem("", error)));
        if phase == Phase::Enforce {
            report.problems.extend(self.standing_problems());
        }
        report.calls += self.socket.requests() - before;
        report
    }

    pub(super) fn settle(&mut self, phase: Phase, report: &mut Report) -> Result<(), String> {
        let mut reads = 0;
        for _ in 0..MAX_ROUNDS {
            if !self.state.is_known {
                self.observe().map_err(|error| words(&error))?;
            }
            self.read_unread().map_err(|error| words(&error))?;
            let steps = self.state.steps(phase);
            if steps.is_empty() {
                return Ok(());
            }
            match self.commit(&steps) {
                Ok(()) => {
                    report.changed += steps.chains.len() + steps.sets.len();
                    self.state.believe(&steps);
                    if std::mem::take(&mut self.is_disturbed) {
                        self.state.is_known = false;
                    }
                }
                Err(CommitError::Refused { ahead: 1.., .. } | CommitError::Stale { .. }) => {
                    // What went ahead is there now. The rest says once more what is wrong with it.
                    self.failures += 1;
                    self.state.is_known = false;
                }
                Err(CommitError::Refused { failures, ahead }) => {
                    self.failures += 1;
                    let is_learned = (is_about_paths(&failures) && self.isolate(&failures))
                        || self.learn(&failures, reads < MAX_READS);
                    if !is_learned {
                        self.state.is_known = false;
                        reads += 1;
                        if reads > MAX_READS {
                            return Err(words(&CommitError::Refused { failures, ahead }));
                        }
                    }
                }
                Err(error) => {
                    self.failures += 1;
                    self.state.is_known = false;
                    return Err(words(&error));
                }
            }
        }
        Err(format!("still refused after {MAX_ROUNDS} attempts"))
    }

    /// Sets aside what was refused. `false` when the table has to be read again, since what is there is not what was
    /// known, or since nothing can be set aside.
    fn learn(&mut self, failures: &[Failure], may_read: bool) -> bool {
        let is_drift = |failure: &Failure| {
            let drifts = [Errno::ENOENT, Errno::EEXIST, Errno::EBUSY];
            drifts.iter().any(|errno| failure.refusal.is(*errno))
        };
        if may_read && failures.iter().all(is_drift) {
            return false;
        }
        let blamed: Vec<(Thing, String)> = failures
            .iter()
            .filter_map(|failure| {
                Some((blamed(&failure.object.as_ref()?.kind)?, failure.refusal.to_string()))
            })
            .collect();
        // Rules that look into a refused set are refused for it.
        let has_sets = blamed.iter().any(|(thing, _)| matches!(thing, Thing::Set(_)));
        let mut is_new = false;
        for (thing, error) in blamed {
            if matches!(thing, Thing::Set(_)) == has_sets {
                is_new |= self.set_aside(thing, error);
            }
        }
        is_new
    }

    pub(super) fn set_aside(&mut self, thing: Thing, error: String) -> bool {
        if self.is_closed(&thing) {
            return false;
        }
        tracing::error!(driver = self.name(), %thing, error, "refused by the kernel, closing it");
        let chains = match &thing {
            Thing::Chain(name) => vec![name.clone()],
            Thing::Set(name) => self.state.users_of(&BTreeSet::from([name.clone()])),
        };
        let is_new = self.state.quarantine.close(thing, error);
        chains.iter().for_each(|name| self.state.settle_chain(name));
        is_new
    }

    /// All steps: what nothing refers to yet, then the rest.
    pub(super) fn commit(&mut self, steps: &Steps) -> Result<(), CommitError> {
        let mut ahead = 0;
        let mut transaction = Transaction::new();
        let handles = self.handles(steps)?;
        steps.prepare.iter().for_each(|step| self.push(step, &handles, &mut transaction));
        transaction.split_here();
        let is_two = !self.is_repairing && !transaction.is_empty() && !steps.switch.is_empty();
        if is_two {
            self.bring(&mut transaction)?;
            ahead = transaction.len();
            transaction.clear();
        }
        steps.switch.iter().for_each(|step| self.push(step, &handles, &mut transaction));
        self.bring(&mut transaction).map_err(|error| match error {
            CommitError::Refused { failures, ahead: more } => {
                CommitError::Refused { failures, ahead: ahead + more }
            }
            other => other,
        })
    }

    /// One transaction. A large one is not listened to.
    fn bring(&mut self, transaction: &mut Transaction) -> Result<(), CommitError> {
        self.commits += 1;
        let Some(ear) = self.ear.clone().filter(|_| transaction.bytes() >= BULK) else {
            return self.socket.commit(transaction, None);
        };
        match self.socket.commit_unheard(transaction, &ear) {
            Ok(is_disturbed) => {
                self.is_disturbed |= is_disturbed;
                Ok(())
            }
            // Somebody else was faster, and is so again and again where many write.
            Err(CommitError::Stale { ahead: 0 }) => {
                self.is_disturbed = true;
                self.commits += 1;
                self.socket.commit(transaction, None)
            }
            Err(error) => Err(error),
        }
    }

    /// The handles of rules of chains that are to be patched; only of those that hold what is known.
    fn handles(&mut self, steps: &Steps) -> Result<Handles, CommitError> {
        let mut handles = Handles::new();
        for step in &steps.switch {
            let Step::Patch(patch) = step else { continue };
            let name = &patch.new.chain.name;
            let rules = self.socket.rules(&self.id, Some(name)).map_err(CommitError::Unknown)?;
            let held = rules.iter().map(|entry| entry.rule.as_ref().ok());
            if held.eq(patch.old.rules.iter().map(Some)) {
                handles.insert(name.clone(), rules.iter().map(|entry| entry.handle).collect());
            }
        }
        Ok(handles)
    }

    fn push_patch(&self, patch: &Patch, handles: &Handles, transaction: &mut Transaction) {
        let (table, name) = (&self.id, &patch.new.chain.name);
        let Some(handles) = handles.get(name) else {
            transaction.flush_chain(table, name);
            patch.new.rules.iter().for_each(|rule| transaction.add_rule(table, name, rule));
            return;
        };
        let end = handles.len() - patch.behind;
        for handle in &handles[patch.before..end] {
            transaction.remove_rule(table, name, *handle);
        }
        for rule in &patch.new.rules[patch.before..patch.new.rules.len() - patch.behind] {
            match handles.get(end) {
                Some(next) => transaction.insert_rule_before(table, name, *next, rule),
                None => transaction.add_rule(table, name, rule),
            }
        }
    }

    fn push(&self, step: &Step, handles: &Handles, transaction: &mut Transaction) {
        let table = &self.id;
        match step {
            Step::AddTable(table) => transaction.add_table(table),
            Step::DeleteTable => transaction.remove_table(table, Removal::MustExist),
            Step::AddFlowtable => transaction.add_flowtable(table, &lower::flowtable()),
            Step::DeleteFlowtable(name) => transaction.remove_flowtable(table, name, Removal::MustExist),
            Step::AddChain(chain) => transaction.add_chain(table, chain),
            Step::Flush(chain) => transaction.flush_chain(table, chain),
            Step::Patch(patch) => self.push_patch(patch, handles, transaction),
            Step::AddRules(content) => {
                for rule in &content.rules {
                    transaction.add_rule(table, &content.chain.name, rule);
                }
            }
            Step::DeleteChain(chain) => transaction.remove_chain(table, chain, Removal::MustExist),
            Step::AddSet(set) => transaction.add_set(table, set),
            Step::AddElements(set, elements) => transaction.add_elements(table, set, elements),
            Step::DeleteElements(set, elements) => {
                transaction.remove_elements(table, set, elements, Removal::MustExist);
            }
            Step::DeleteSet(set) => transaction.remove_set(table, set, Removal::MustExist),
        }
    }

    /// What is closed, and why.
    fn standing_problems(&self) -> Vec<Problem> {
        let refused = self.state.quarantine.faults();
        let refused = refused.map(|(thing, error)| self.problem(&thing.to_string(), error.to_owned()));
        let unsayable = self.unsayable.iter();
        let unsayable = unsayable.map(|(chain, why)| self.problem(&format!("chain {chain}"), why.clone()));
        refused.chain(unsayable).collect()
    }

    /// A problem of a part of this table, or of the table itself.
    pub(super) fn problem(&self, part: &str, error: String) -> Problem {
        let object = if part.is_empty() {
            format!("table {}", self.id)
        } else {
            format!("{part} (table {})", self.id)
        };
        Problem { object, error }
    }
}

/// What is closed when a message about this is refused.
fn blamed(kind: &ObjectKind) -> Option<Thing> {
    match kind {
        ObjectKind::Rule { chain, .. } => Some(Thing::Chain(chain.clone())),
        ObjectKind::Set(set) | ObjectKind::Elements { set, .. } => Some(Thing::Set(set.clone())),
        ObjectKind::Table | ObjectKind::Chain(_) | ObjectKind::Flowtable(_) => None,
    }
}
