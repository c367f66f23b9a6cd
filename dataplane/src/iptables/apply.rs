//! Brings a table's plan into the kernel and finds out what to leave aside when it is refused.
//!
//! ```text
//!  plan ──► one restore ──► done
//!             │ refused
//!             ├─ the error names lines of chains ──► close those chains, again
//!             ├─ first time otherwise ────────────► read the table, again
//!             └─ else ► isolate: create missing chains closed, then write in halves, parents first,
//!                       until the single steps that are refused are known
//! ```
//!
//! Writing in halves gives up that a table changes at once, but only where it could not change at all,
//! and nothing is open on the way: chains start closed and hooks come first. What is too large for one
//! message to the kernel goes the same way: in a user namespace `iptables-nft-restore` gets no more than
//! the default send buffer (net.core.wmem_default), some hundred rules.

use std::sync::Arc;

use tortie_rules::render::RenderedChain;

use super::IptablesTable;
use super::plan::{ChainWrite, Step};
use super::tools::RestoreError;
use super::transaction::{Transaction, complaints, summary};
use crate::reconcile::{Driver, Problem, Report};

/// How often the whole plan is tried. Rounds that close a chain they can name cost one each.
const MAX_ROUNDS: usize = 32;
/// How often the whole plan is tried when the error does not say what is wrong.
const MAX_UNEXPLAINED: usize = 2;
/// Refused restores spent on the search for single steps in one apply.
const SEARCH_BUDGET: usize = 64;

/// Why a commit failed.
enum Failure {
    /// The program could not do anything at all.
    Unavailable(String),
    /// These steps, by index, are named in the error.
    Blamed(Vec<(usize, String)>),
    /// The error names no step, or not only chains.
    Unexplained(String),
    /// It does not fit into one message; the steps themselves may be right.
    TooLarge(String),
}

/// ELOOP or EMLINK: jumps that go in circles or too deep are reported at some chain on the way.
fn is_about_a_path(message: &str) -> bool {
    message.contains("Too many l")
}

impl Failure {
    fn into_message(self) -> String {
        match self {
            Self::Unavailable(message) | Self::Unexplained(message) | Self::TooLarge(message) => message,
            Self::Blamed(steps) => {
                steps.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ")
            }
        }
    }
}

impl IptablesTable {
    /// Does all there is to do.
    pub(super) fn enforce(&mut self) -> Report {
        let mut report = Report::default();
        let result = self.settle(&mut report).and_then(|()| self.retry_closed(&mut report));
        report.problems.extend(result.err());
        let faults = self.state.standing_faults();
        report.problems.extend(faults.into_iter().map(|(object, error)| self.problem(&object, error)));
        report
    }

    /// Everything but the retries of closed chains.
    fn settle(&mut self, report: &mut Report) -> Result<(), Problem> {
        let mut unexplained = 0;
        for _ in 0..MAX_ROUNDS {
            let steps = self.known_steps(report)?;
            if steps.is_empty() {
                return Ok(());
            }
            match self.commit(&steps, report) {
                Ok(()) => return Ok(()),
                Err(Failure::Unavailable(message)) => {
                    self.state.forget();
                    return Err(self.problem("", message));
                }
                Err(Failure::Blamed(blamed)) => self.close_blamed(&steps, blamed),
                Err(Failure::TooLarge(_)) => {
                    self.state.forget();
                    break;
                }
                Err(Failure::Unexplained(message)) => {
                    tracing::warn!(
                        driver = self.name(),
                        error = message,
                        "rules refused, reading the table again"
                    );
                    // Either the belief was wrong or the first of two transactions went through.
                    self.state.forget();
                    unexplained += 1;
                    if unexplained == MAX_UNEXPLAINED {
                        break;
                    }
                }
            }
        }
        self.isolate(report)
    }

    /// The steps to do, after reading the table if need be.
    fn known_steps(&mut self, report: &mut Report) -> Result<Vec<Step>, Problem> {
        if !self.state.is_known() {
            report.calls += 1;
            if let Err(error) = self.observe() {
                let problem = self.problem("", error.to_string());
                if !self.can_go_on() {
                    return Err(problem);
                }
                report.problems.push(problem);
            }
        }
        Ok(self.state.steps().unwrap_or_default())
    }

    fn close_blamed(&mut self, steps: &[Step], blamed: Vec<(usize, String)>) {
        for (index, message) in blamed {
            if let Some(Step::Write(write)) = steps.get(index) {
                self.close(&write.chain.name, message);
            }
        }
    }

    fn close(&mut self, chain: &str, error: String) -> bool {
        tracing::error!(driver = self.name(), chain, error, "chain refused by the kernel, closing it");
        self.state.close(chain, error)
    }

    /// One restore of these steps.
    fn commit(&mut self, steps: &[Step], report: &mut Report) -> Result<(), Failure> {
        let transaction = Transaction::new(self.table, self.tools.backend, steps);
        if steps.len() > 1 && transaction.text().len() > self.max_transaction_bytes {
            return Err(Failure::TooLarge("larger than what was too large before".to_owned()));
        }
        report.calls += 1;
        self.commands_run += 1;
        self.restores_run += 1;
        match self.tools.restore(transaction.text(), &self.options) {
            Ok(()) => {
                report.changed += steps.len();
                self.state.believe(steps);
                Ok(())
            }
            Err(RestoreError::Unavailable(message)) => Err(Failure::Unavailable(message)),
            Err(RestoreError::Refused(stderr)) if stderr.contains("Message too long") => {
                // EMSGSIZE. Remembered, so that the limit is not run into again and again.
                let half = transaction.text().len() / 2;
                self.max_transaction_bytes = self.max_transaction_bytes.min(half);
                Err(Failure::TooLarge(summary(&stderr)))
            }
            Err(RestoreError::Refused(stderr)) => Err(self.explain(steps, &transaction, &stderr)),
        }
    }

    fn explain(&self, steps: &[Step], transaction: &Transaction, stderr: &str) -> Failure {
        let complaints = complaints(stderr);
        let blamed: Option<Vec<(usize, String)>> = complaints
            .into_iter()
            .map(|complaint| {
                let index = transaction.owner(complaint.line)?;
                // A closed chain that is refused says that something else is wrong.
                let is_open =
                    matches!(&steps[index], Step::Write(write) if !self.state.is_closed(&write.chain));
                (is_open && !is_about_a_path(&complaint.message)).then_some((index, complaint.message))
            })
            .collect();
        match blamed {
            Some(blamed) if !blamed.is_empty() => Failure::Blamed(blamed),
            _ => Failure::Unexplained(summary(stderr)),
        }
    }

    /// Tries closed chains again, once per resync.
    fn retry_closed(&mut self, report: &mut Report) -> Result<(), Problem> {
        let mut steps = self.state.take_retries();
        if steps.is_empty() {
            // Sorting looks at every rule of the table.
            return Ok(());
        }
        self.state.sort_top_down(&mut steps);
        let mut budget = SEARCH_BUDGET;
        self.commit_in_halves(&steps, &mut budget, report)
    }

    /// Does whatever of the plan can be done, without knowing what is wrong with the rest.
    fn isolate(&mut self, report: &mut Report) -> Result<(), Problem> {
        let steps = self.known_steps(report)?;
        let mut budget = SEARCH_BUDGET;
        let skeleton = self.state.skeleton(&steps);
        if !skeleton.is_empty() {
            match self.commit(&skeleton, report) {
                Ok(()) => {}
                Err(Failure::TooLarge(_)) => self.commit_in_halves(&skeleton, &mut budget, report)?,
                Err(failure) => return Err(self.give_up(failure.into_message())),
            }
        }
        let (deletes, mut others): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|step| matches!(step, Step::Delete(_)));
        self.state.sort_top_down(&mut others);
        // Chains to be deleted may refer to each other: only empty ones can go in any order.
        others.extend(deletes.iter().filter_map(emptied));
        self.commit_in_halves(&others, &mut budget, report)?;
        self.commit_in_halves(&deletes, &mut budget, report)
    }

    fn commit_in_halves(
        &mut self,
        steps: &[Step],
        budget: &mut usize,
        report: &mut Report,
    ) -> Result<(), Problem> {
        if steps.is_empty() {
            return Ok(());
        }
        match (self.commit(steps, report), steps) {
            (Ok(()), _) => return Ok(()),
            (Err(Failure::Unavailable(message)), _) => return Err(self.give_up(message)),
            (Err(failure), [step]) => return self.set_aside(step, failure.into_message(), report),
            (Err(Failure::TooLarge(_)), _) => {}
            (Err(_), _) => {
                *budget = budget.checked_sub(1).ok_or_else(|| {
                    self.problem(
                        "",
                        format!("search for refused rules stopped after {SEARCH_BUDGET} attempts"),
                    )
                })?;
            }
        }
        let (first, second) = steps.split_at(steps.len() / 2);
        self.commit_in_halves(first, budget, report)?;
        self.commit_in_halves(second, budget, report)
    }

    /// This step alone was refused.
    fn set_aside(&mut self, step: &Step, error: String, report: &mut Report) -> Result<(), Problem> {
        let name = match step {
            Step::Write(write) if self.state.is_desired(&write.chain.name) => &write.chain.name,
            Step::Write(write) => {
                let object = format!("chain {}", write.chain.name);
                report.problems.push(self.problem(&object, format!("cannot be emptied: {error}")));
                return Ok(());
            }
            Step::Hook(hook) => {
                report.problems.push(self.problem(&format!("hook {}", hook.chain), error));
                return Ok(());
            }
            Step::Delete(name) => {
                let error = format!("cannot be deleted: {error}");
                report.problems.push(self.problem(&format!("chain {name}"), error));
                return Ok(());
            }
        };
        let is_new = self.close(name, error);
        let Some(closed @ Step::Write(ChainWrite { .. })) = self.state.step(name) else { return Ok(()) };
        self.commit(&[closed], report).map_err(|failure| {
            if is_new {
                self.state.reopen(name);
            }
            self.give_up(failure.into_message())
        })
    }

    /// The table cannot be written at all.
    fn give_up(&mut self, message: String) -> Problem {
        self.state.forget();
        self.problem("", message)
    }

    /// A problem of a part of this table, or of the table itself.
    fn problem(&self, part: &str, error: String) -> Problem {
        let object = if part.is_empty() {
            format!("table {} ({})", self.table, self.version)
        } else {
            format!("{part} ({}, {})", self.table, self.version)
        };
        Problem { object, error }
    }
}

/// The step that empties what this one deletes.
fn emptied(delete: &Step) -> Option<Step> {
    let Step::Delete(name) = delete else { return None };
    let chain = Arc::new(RenderedChain { name: name.clone(), rules: Vec::new() });
    Some(Step::Write(ChainWrite { chain, created: false }))
}
