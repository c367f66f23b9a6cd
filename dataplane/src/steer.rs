//! The reconcile loop, written once for all drivers: when to read, when to write, what to do after a failure.
//!
//! ```text
//!  each pass:   read what is due ──► Provide ──► Enforce ──► Withdraw ──► Connect
//!                 │ failed             │ failed: what refers to it fails too, and is retried with it
//!                 ▼                    ▼
//!               retry later          Withdraw and Connect wait while rules are not in force
//! ```
//!
//! Time is handed in. A pass with nothing due and nothing to do makes no kernel call.

pub mod apart;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::reconcile::{Driver, Phase, Problem, Report};
use crate::retry::{Backoff, ResyncTimer, Throttle};

/// First wait after a failure, doubled up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What others change is looked at at once, but when they do so again and again, not faster than this.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// So many times before the interval counts.
const LOOKS_AT_ONCE: u32 = 10;

/// A driver with what the loop remembers of it.
#[derive(Debug)]
pub struct Steered<D> {
    /// The driver itself, to be told what is wanted.
    pub driver: D,
    state: State,
}

#[derive(Debug)]
struct State {
    /// Whether the driver knows what the kernel holds.
    is_known: bool,
    timer: ResyncTimer,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// When to look at what others have changed.
    look_at: Option<Instant>,
    looks: Throttle,
    /// What the last reading and the last apply of each phase met.
    problems: BTreeMap<Option<Phase>, Vec<Problem>>,
}

impl State {
    /// Notes what a reading (no phase) or a phase met. A failure is tried again after a while.
    fn note(&mut self, what: Option<Phase>, problems: Vec<Problem>, now: Instant) {
        if problems.is_empty() {
            self.problems.remove(&what);
        } else {
            self.problems.insert(what, problems);
        }
        if self.problems.is_empty() {
            self.backoff.reset();
            self.retry_at = None;
        } else if self.retry_at.is_none() {
            self.retry_at = now.checked_add(self.backoff.wait());
        }
    }
}

impl<D: Driver> Steered<D> {
    /// A driver that is read first, then every `refresh` (zero: never), and `first_check` after a write and at
    /// growing distances from it.
    pub fn new(driver: D, refresh: Duration, first_check: Duration) -> Self {
        let state = State {
            is_known: false,
            timer: ResyncTimer::new(refresh, first_check),
            backoff: Backoff::new(FIRST_RETRY, LAST_RETRY),
            retry_at: None,
            look_at: None,
            looks: Throttle::new(LOOKS_AT_ONCE, LOOK_INTERVAL),
            problems: BTreeMap::new(),
        };
        Self { driver, state }
    }

    /// The driver was told that others have changed something: it looks at that in the next pass. When they keep
    /// at it, no more than every [`LOOK_INTERVAL`].
    pub fn touched(&mut self, now: Instant) {
        if self.state.look_at.is_none() {
            self.state.look_at = Some(self.state.looks.next(now));
        }
    }
}

impl<D> Steered<D> {
    /// Whether the next pass reads all that the driver knows of the kernel, and whether it may.
    pub fn is_read_due(&self, now: Instant) -> bool {
        let State { is_known, timer, retry_at, .. } = &self.state;
        let is_waiting = retry_at.is_some_and(|at| at > now);
        !is_waiting && (!is_known || timer.is_due(now) || retry_at.is_some())
    }
}

/// Any steered driver, as the loop sees it.
pub trait Steer {
    /// Reads the kernel if that is due. `false` if nothing is known of it.
    fn read_if_due(&mut self, now: Instant, report: &mut Report) -> bool;
    /// Does one phase if there is something to do. A failure holds up no later change: only reading the kernel
    /// again, and so trying again what is quarantined, is waited out.
    fn run(&mut self, phase: Phase, now: Instant) -> Report;
    /// Whether the kernel is known to hold all that this phase is about. What is quarantined counts as held: it
    /// is closed and reported.
    fn is_settled(&self, phase: Phase) -> bool;
    /// When this driver wants to be looked at again.
    fn next_deadline(&self, now: Instant) -> Option<Instant>;
    /// What is not as it should be, as of the last pass.
    fn problems(&self) -> Vec<Problem>;
}

impl<D: Driver> Steer for Steered<D> {
    fn read_if_due(&mut self, now: Instant, report: &mut Report) -> bool {
        let is_full = self.is_read_due(now);
        let state = &mut self.state;
        let is_look = state.is_known && state.look_at.is_some_and(|at| at <= now);
        if !is_full && !is_look {
            return state.is_known;
        }
        state.look_at = None;
        report.calls += 1;
        let outcome = if is_full {
            state.retry_at = None;
            let outcome = self.driver.observe();
            state.timer.read(now, now.elapsed());
            outcome
        } else {
            self.driver.observe_touched()
        };
        match outcome {
            Ok(()) => {
                state.is_known = true;
                if is_full {
                    state.note(None, Vec::new(), now);
                }
            }
            Err(error) => {
                tracing::warn!(driver = self.driver.name(), error = chain(&error), "cannot read the kernel");
                state.is_known = self.driver.can_go_on();
                let problem = Problem { object: self.driver.name(), error: chain(&error) };
                state.note(None, vec![problem], now);
            }
        }
        state.is_known
    }

    fn run(&mut self, phase: Phase, now: Instant) -> Report {
        let state = &mut self.state;
        let plan = self.driver.plan(phase);
        // What failed before is asked for again: a driver goes on to report what it had to close.
        if !state.is_known || (plan.is_empty() && !state.problems.contains_key(&Some(phase))) {
            return Report::default();
        }
        if !plan.is_empty() {
            tracing::debug!(driver = self.driver.name(), %plan, "applying");
        }
        let started = Instant::now();
        let report = self.driver.apply(phase);
        if report.changed > 0 {
            state.timer.wrote(now, started.elapsed());
        }
        for problem in
            report.problems.iter().filter(|p| !state.problems.values().flatten().any(|old| old == *p))
        {
            tracing::warn!(driver = self.driver.name(), object = problem.object, "{}", problem.error);
        }
        state.note(Some(phase), report.problems.clone(), now);
        report
    }

    fn is_settled(&self, phase: Phase) -> bool {
        self.state.is_known && self.driver.plan(phase).is_empty()
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let resync = self.state.timer.next_resync(now);
        // A failure is not waited out any earlier because a reading is due.
        let read = self.state.retry_at.or(resync);
        let look = self.state.look_at.filter(|_| self.state.is_known);
        read.into_iter().chain(look).min()
    }

    fn problems(&self) -> Vec<Problem> {
        self.state.problems.values().flatten().cloned().collect()
    }
}

/// Runs drivers through phases, in the order given. What comes after Enforce is left for later while rules are not
/// in force. In the report's problems is what was met now.
pub fn pass(drivers: &mut [&mut dyn Steer], phases: &[Phase], now: Instant) -> Report {
    let mut report = Report::default();
    for driver in drivers.iter_mut() {
        driver.read_if_due(now, &mut report);
    }
    for phase in phases {
        for driver in drivers.iter_mut() {
            report.merge(driver.run(*phase, now));
        }
        if *phase == Phase::Enforce && !drivers.iter().all(|d| d.is_settled(*phase)) {
            break;
        }
    }
    report
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
