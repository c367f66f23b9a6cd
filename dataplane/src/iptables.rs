//! Driver of one iptables table: `iptables-save` to read, one `iptables-restore --noflush` to write.
//!
//! ```text
//!  TableChange ──► state (desired | actual, pure) ──plan──► transaction ──► iptables-restore
//!                    ▲                                          │ refused
//!                    └── save parser ◄── iptables-save          └──► quarantine
//! ```
//!
//! Our chains are known by their names' prefixes, our rules by the id in their comment; see
//! `iptables/save.rs`. A changed chain is emptied and written again as a whole, in the same transaction
//! as everything else in its table, so packets see the old table or the new one. Foreign chains and rules
//! are never touched.

pub(crate) mod command;
pub mod save;

mod apply;
mod plan;
mod quarantine;
mod state;
mod sweep;
mod tools;
mod transaction;
mod watch;
mod words;

use std::collections::BTreeSet;

use tortie_api::net::IpVersion;
use tortie_rules::render::{Table, TableChange};

pub use self::sweep::sweep_other_backend;
pub use self::tools::{Options, Tools};
pub use self::watch::{RuleWatch, Touch, Touched, Writers};

use self::plan::TablePlan;
use self::save::Snapshot;
use self::state::State;
use crate::reconcile::{Driver, DriverError, Phase, Plan, Report};

/// So many chains are listed one by one, each for the price of a program that does little.
const MAX_LISTED: usize = 8;

/// Our chains and hooks in one table of one IP version.
#[derive(Debug)]
pub struct IptablesTable {
    version: IpVersion,
    table: Table,
    tools: Tools,
    options: Options,
    state: State,
    /// What others have changed since it was read.
    touched: Option<Touch>,
    /// What the table held a moment ago: the next reading.
    read: Option<Snapshot>,
    commands_run: usize,
    restores_run: usize,
    /// Larger transactions are split; learnt when one does not fit into a message to the kernel.
    max_transaction_bytes: usize,
}

impl IptablesTable {
    /// A driver that wants nothing in this table and has not read it.
    pub fn new(version: IpVersion, table: Table, tools: Tools, options: Options) -> Self {
        let state = State::new(table, options.workload_interfaces.clone());
        Self {
            version,
            table,
            tools,
            options,
            state,
            touched: None,
            read: None,
            commands_run: 0,
            restores_run: 0,
            max_transaction_bytes: usize::MAX,
        }
    }

    /// Takes a change of what is wanted. No kernel call.
    pub fn change(&mut self, change: TableChange) {
        self.state.change(change);
    }

    /// Takes note that others have changed the table; [`Driver::observe_touched`] then looks at that part. No kernel
    /// call.
    pub fn touch(&mut self, touch: Touch) {
        match &mut self.touched {
            Some(known) => known.merge(touch),
            None => self.touched = Some(touch),
        }
    }

    /// Programs run so far, for reading and for writing.
    pub fn commands_run(&self) -> usize {
        self.commands_run
    }

    /// Those of them that were for writing.
    pub fn restores_run(&self) -> usize {
        self.restores_run
    }
}

impl Driver for IptablesTable {
    fn name(&self) -> String {
        format!("iptables {} {}", self.version, self.table)
    }

    fn observe(&mut self) -> Result<(), DriverError> {
        self.touched = None;
        if let Some(snapshot) = self.read.take() {
            self.state.observed(snapshot);
            return Ok(());
        }
        self.state.forget();
        self.commands_run += 1;
        match self.tools.read(self.table, &self.options) {
            Ok(snapshot) => self.state.observed(snapshot),
            Err(error) => {
                // A table that somebody has put rules of nft's own into can still be written, but not read. Policy
                // then goes on from what was known last: a wrong belief is refused by the kernel, not obeyed.
                if matches!(error, DriverError::Unexpected { .. }) {
                    self.state.assume_last();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads tables of one IP version with one program, where each would run one of its own.
    fn read_together(tables: &mut [&mut Self]) {
        let Some(first) = tables.first_mut() else { return };
        first.commands_run += 1;
        match first.tools.read_all(&first.options) {
            Ok(mut snapshots) => {
                tables.iter_mut().for_each(|table| table.read = snapshots.remove(&table.table));
            }
            Err(error) => tracing::debug!(%error, "tables cannot be read together"),
        }
    }

    fn observe_touched(&mut self) -> Result<(), DriverError> {
        match self.touched.take() {
            Some(Touch::Chains(chains)) if self.state.is_known() => self.look_at(&chains),
            Some(_) => self.observe(),
            None => Ok(()),
        }
    }

    fn can_go_on(&self) -> bool {
        self.state.is_known()
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        Box::new(self.enforcement(phase))
    }

    fn apply(&mut self, phase: Phase) -> Report {
        if phase == Phase::Enforce { self.enforce() } else { Report::default() }
    }
}

impl IptablesTable {
    /// Lists the chains that others have changed; where they are many, reading the table is quicker.
    fn look_at(&mut self, chains: &BTreeSet<String>) -> Result<(), DriverError> {
        if chains.len() > MAX_LISTED {
            return self.observe();
        }
        for name in chains {
            self.commands_run += 1;
            match self.tools.read_chain(self.table, name, &self.options) {
                Ok(Some(listed)) => self.state.observed_chain(name, listed),
                Ok(None) | Err(_) => return self.observe(),
            }
        }
        Ok(())
    }

    fn enforcement(&self, phase: Phase) -> TablePlan {
        let mut plan = TablePlan { driver: self.name(), is_unread: false, steps: Vec::new() };
        if phase == Phase::Enforce {
            match self.state.steps() {
                Some(steps) => plan.steps = steps,
                None => plan.is_unread = true,
            }
            plan.steps.extend(self.state.retries());
        }
        plan
    }
}
