//! What agents have left where the rules of this one are not.

use std::time::{Duration, Instant};

use tortie_dataplane::feature::{Backend, Features};
use tortie_dataplane::iptables::{Options, sweep_other_backend};
use tortie_dataplane::nftables::NativeTables;
use tortie_dataplane::reconcile::{Problem, Report};
use tortie_rules::render::Table;

/// Where rules go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Through iptables.
    Iptables(Backend),
    /// Into tables of nftables' own.
    Native,
}

/// When the other places are looked at for leftovers, and what was met there.
pub(super) struct Sweep {
    pub(super) place: Place,
    features: Features,
    options: Options,
    native: NativeTables,
    every: Duration,
    pub(super) next: Option<Instant>,
    pub(super) problems: Vec<Problem>,
}

impl Sweep {
    /// Due at once, then at this interval (zero: never again).
    pub(super) fn new(place: Place, features: Features, options: Options, every: Duration) -> Self {
        let next = Some(Instant::now());
        Self { place, features, options, native: NativeTables::default(), every, next, problems: Vec::new() }
    }

    /// Looks into these tables of iptables only, whatever is due. What goes wrong is met again, and told, when all are
    /// swept.
    pub(super) fn tables(&self, tables: &[Table]) -> Report {
        let mut report = Report::default();
        let in_use = match self.place {
            Place::Iptables(backend) => vec![backend],
            // Of either, the other one.
            Place::Native => vec![Backend::Legacy, Backend::Nft],
        };
        for backend in in_use {
            report.merge(sweep_other_backend(tables, backend, self.features, &self.options));
        }
        report
    }

    /// Removes leftovers if that is due: of the other back end, of nftables mode, or of iptables mode. To be called when
    /// what replaces them is in force. Returns whether it was due.
    pub(super) fn run(&mut self, now: Instant) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        let mut report = self.tables(&Table::ALL);
        report.merge(self.native.sweep(self.place == Place::Native));
        self.problems = report.problems;
        let is_repeated = !self.every.is_zero();
        self.next = if is_repeated { now.checked_add(self.every) } else { None };
        true
    }
}
