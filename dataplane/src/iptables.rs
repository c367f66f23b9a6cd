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
mod words;

use tortie_api::net::IpVersion;
use tortie_rules::render::{Table, TableChange};

pub use self::sweep::sweep_other_backend;
pub use self::tools::{Options, Tools};

use self::plan::TablePlan;
use self::state::State;
use crate::reconcile::{Driver, DriverError, Phase, Plan, Report};

/// Our chains and hooks in one table of one IP version.
#[derive(Debug)]
pub struct IptablesTable {
    version: IpVersion,
    table: Table,
    tools: Tools,
    options: Options,
    state: State,
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
            commands_run: 0,
            restores_run: 0,
            max_transaction_bytes: usize::MAX,
        }
    }

    /// Takes a change of what is wanted. No kernel call.
    pub fn change(&mut self, change: TableChange) {
        self.state.change(change);
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
        self.state.forget();
        self.commands_run += 1;
        let snapshot = self.tools.read(self.table, &self.options)?;
        self.state.observed(snapshot);
        Ok(())
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        Box::new(self.enforcement(phase))
    }

    fn apply(&mut self, phase: Phase) -> Report {
        if phase == Phase::Enforce { self.enforce() } else { Report::default() }
    }
}

impl IptablesTable {
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
