//! The contract that every kernel driver fulfils: observe, plan, apply.
//!
//! ```text
//!   observe() ──► actual ┐
//!                        ├─► plan() ──► apply() ──► Report
//!   desired  ────────────┘
//! ```
//!
//! A driver keeps desired and actual side by side. Only `plan` decides, and it is free of kernel calls,
//! so an unchanged object costs nothing. After a successful `apply` the driver's idea of *actual* is
//! updated without reading back; the loop asks for `observe` again when a timer says so or after a failure.

use std::fmt;

/// What could not be brought into the kernel, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kernel object, e.g. `set cali40s:abc`, `chain cali-tw-cali1 (filter, IPv4)`, `route 10.65.0.2/32`.
    pub object: String,
    /// What happened, with its cause.
    pub error: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.error)
    }
}

/// What an apply did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Kernel calls made: netlink requests sent, programs run, files written.
    pub calls: usize,
    /// Kernel objects created, changed or removed.
    pub changed: usize,
    /// What failed. The rest was applied all the same.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Adds another report's counts and problems to this one.
    pub fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.changed += other.changed;
        self.problems.extend(other.problems);
    }
}

/// When in an apply a driver's work is done. Sets exist before the rules that use them and go after them;
/// routes come last, so that an endpoint is never reachable before its policy is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Create and fill what later phases refer to: ip sets.
    Provide,
    /// Rules.
    Enforce,
    /// Remove what rules no longer refer to.
    Withdraw,
    /// Interfaces' settings, neighbours, routes.
    Connect,
}

impl Phase {
    /// The phases in the order of an apply.
    pub const ALL: [Self; 4] = [Self::Provide, Self::Enforce, Self::Withdraw, Self::Connect];
}

/// One kind of kernel object: what we want of it, what is there, and how to get from one to the other.
pub trait Driver {
    /// Short and stable, for logs and status: `iptables IPv4 filter`, `ipset`, `route IPv6`.
    fn name(&self) -> String;

    /// Reads what the kernel holds. On error nothing is known and the driver stays out of step.
    fn observe(&mut self) -> Result<(), DriverError>;

    /// Reads again what the driver was told that others have changed. Without such knowledge, everything.
    fn observe_touched(&mut self) -> Result<(), DriverError> {
        self.observe()
    }

    /// Prepares the next `observe` of several drivers, which is about to come, with one reading. Where that cannot be,
    /// each reads for itself.
    fn read_together(_drivers: &mut [&mut Self])
    where
        Self: Sized,
    {
    }

    /// Whether a driver whose last reading failed can still work, from what was known before.
    fn can_go_on(&self) -> bool {
        false
    }

    /// What this phase would do now, without a kernel call; empty text and `is_empty` when nothing.
    fn plan(&self, phase: Phase) -> Box<dyn Plan>;

    /// Does what [`Driver::plan`] says for this phase. Best effort: one object's failure stops no other.
    fn apply(&mut self, phase: Phase) -> Report;
}

/// A difference between desired and actual. `Display` is the dry run and the log line.
pub trait Plan: fmt::Display {
    /// Nothing to do.
    fn is_empty(&self) -> bool;
}

/// A driver could not read the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A netlink request failed.
    #[error("netlink: {what}")]
    Netlink {
        /// What was asked.
        what: String,
        /// What the kernel or the socket answered.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be run or failed.
    #[error("{command}: {message}")]
    Command {
        /// The command line.
        command: String,
        /// Its error output, or why it did not start.
        message: String,
    },
    /// What came back could not be understood.
    #[error("{what}: unexpected content: {content}")]
    Unexpected {
        /// What was read.
        what: String,
        /// The part that was not understood.
        content: String,
    },
}
