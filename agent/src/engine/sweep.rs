//! Leftovers: of the back end that is not in use, and of Calico's nftables mode.

use std::time::{Duration, Instant};

use tortie_dataplane::feature::{Backend, Features};
use tortie_dataplane::iptables::{Options, sweep_other_backend};
use tortie_dataplane::nftables::NativeTables;
use tortie_dataplane::reconcile::Problem;
use tortie_rules::render::Table;

/// When leftovers are looked for, and what was met there.
pub(super) struct Sweep {
    native: NativeTables,
    every: Duration,
    next: Option<Instant>,
    pub(super) problems: Vec<Problem>,
}

impl Sweep {
    /// Due at once, and then after each `every`; zero: never again.
    pub(super) fn new(every: Duration) -> Self {
        Self { native: NativeTables::default(), every, next: Some(Instant::now()), problems: Vec::new() }
    }

    /// When it is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Removes leftovers if that is due. To be called when what replaces them is in force.
    pub(super) fn run(&mut self, now: Instant, in_use: Backend, features: Features, options: &Options) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let mut report = sweep_other_backend(&Table::ALL, in_use, features, options);
        report.merge(self.native.sweep());
        self.problems = report.problems;
        self.next = if self.every.is_zero() { None } else { now.checked_add(self.every) };
    }
}
