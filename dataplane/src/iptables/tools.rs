//! The programs of one back end and how they are called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tortie_api::net::IpVersion;
use tortie_rules::render::Table;

use super::command::{CommandError, Job, run};
use super::save::{Listed, SaveParser, Snapshot};
use super::transaction::summary;
use super::watch::Writers;
use crate::feature::{Backend, Features, find_main_program, find_program};
use crate::reconcile::DriverError;

/// `iptables-save` and `iptables-restore` of one back end and IP version.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Path of the save program.
    pub save: PathBuf,
    /// Path of the restore program.
    pub restore: PathBuf,
    /// Path of the program that can list a single chain.
    pub list: Option<PathBuf>,
    /// The back end that they work on.
    pub backend: Backend,
    /// What these programs and the kernel can do.
    pub features: Features,
    /// Where the restore programs that run are noted; clones share it.
    pub writers: Writers,
}

impl Tools {
    /// Looks the programs up in `PATH`. `None` when one is missing.
    pub fn find(version: IpVersion, backend: Backend, features: Features) -> Option<Self> {
        let save = find_program(version, backend, "save")?;
        let restore = find_program(version, backend, "restore")?;
        let list = find_main_program(version, backend);
        Some(Self { save, restore, list, backend, features, writers: Writers::default() })
    }
}

/// Settings of the driver.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for the xtables lock (legacy back end); 10 s when zero, as Felix does.
    pub lock_timeout: Duration,
    /// How often to try the lock: Felix's `IptablesLockProbeIntervalMillis`.
    pub lock_probe_interval: Duration,
    /// A program that takes longer is killed.
    pub command_timeout: Duration,
    /// Interface patterns of workloads, e.g. `cali+`. A chain that a hook leads to and that the kernel
    /// refuses is closed for these only.
    pub workload_interfaces: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(10),
            lock_probe_interval: Duration::from_millis(50),
            command_timeout: Duration::from_mins(1),
            workload_interfaces: vec!["cali+".to_owned()],
        }
    }
}

/// Why a restore failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RestoreError {
    /// It did not run, or could not get at the kernel: no statement about the rules.
    Unavailable(String),
    /// It refused its input; this is its error output.
    Refused(String),
}

impl Tools {
    /// Reads a table. One that does not exist is empty.
    pub(super) fn read(&self, table: Table, options: &Options) -> Result<Snapshot, DriverError> {
        let args = ["-t".to_owned(), table.name().to_owned()];
        let mut parser = SaveParser::new(table);
        let timeout = options.command_timeout;
        let job = Job { program: &self.save, args: &args, stdin: b"", timeout, writers: None };
        let failed =
            |message: String| DriverError::Command { command: command_line(&self.save, &args), message };
        let outcome = run(&job, &mut |piece| parser.feed(piece)).map_err(|error| failed(error.chain()))?;
        let snapshot = parser.finish();
        if snapshot.incompatible {
            return Err(DriverError::Unexpected {
                what: format!("table {table} is incompatible"),
                content: "rules that only the program nft can show".to_owned(),
            });
        }
        if outcome.status.success() || is_missing_table(&outcome.stderr) {
            return Ok(snapshot);
        }
        Err(failed(format!("{}: {}", outcome.status, summary(&outcome.stderr))))
    }

    /// Reads all tables at once. Those that are not there are empty; those that cannot be read are left out.
    pub(super) fn read_all(&self, options: &Options) -> Result<BTreeMap<Table, Snapshot>, DriverError> {
        let mut parsers = Table::ALL.map(|table| (table, SaveParser::new(table)));
        let timeout = options.command_timeout;
        let job = Job { program: &self.save, args: &[], stdin: b"", timeout, writers: None };
        let failed =
            |message: String| DriverError::Command { command: command_line(&self.save, &[]), message };
        let mut feed = |piece: &[u8]| parsers.iter_mut().for_each(|(_, parser)| parser.feed(piece));
        let outcome = run(&job, &mut feed).map_err(|error| failed(error.chain()))?;
        if !outcome.status.success() {
            return Err(failed(format!("{}: {}", outcome.status, summary(&outcome.stderr))));
        }
        let snapshots = parsers.map(|(table, parser)| (table, parser.finish()));
        Ok(snapshots.into_iter().filter(|(_, snapshot)| !snapshot.incompatible).collect())
    }

    /// Whether these programs get at the kernel's tables at all, found out at the one where others have least.
    ///
    /// # Errors
    /// What keeps them from it.
    pub fn try_out(&self, options: &Options) -> Result<(), DriverError> {
        match self.read(Table::Mangle, options) {
            // It is there, and the driver of that table will say so again.
            Ok(_) | Err(DriverError::Unexpected { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads one chain. `None` when there is no program for that: the table has to be read.
    pub(super) fn read_chain(
        &self,
        table: Table,
        chain: &str,
        options: &Options,
    ) -> Result<Option<Listed>, DriverError> {
        let Some(list) = &self.list else { return Ok(None) };
        let args = ["-t", table.name(), "-S", chain].map(str::to_owned);
        let mut parser = SaveParser::inside(table);
        let timeout = options.command_timeout;
        let job = Job { program: list, args: &args, stdin: b"", timeout, writers: None };
        let failed = |message: String| DriverError::Command { command: command_line(list, &args), message };
        let outcome = run(&job, &mut |piece| parser.feed(piece)).map_err(|error| failed(error.chain()))?;
        let mut snapshot = parser.finish();
        if outcome.status.success() {
            let kernel = table.kernel_chains().iter().copied().find(|kernel| *kernel == chain);
            return Ok(Some(match kernel {
                Some(kernel) => Listed::Kernel(kernel, snapshot.kernel.remove(kernel).unwrap_or_default()),
                None => Listed::Ours(snapshot.chains.remove(chain).unwrap_or_default()),
            }));
        }
        if is_missing_chain(&outcome.stderr) {
            return Ok(Some(Listed::Nothing));
        }
        Err(failed(format!("{}: {}", outcome.status, summary(&outcome.stderr))))
    }

    /// Hands a transaction to the kernel.
    pub(super) fn restore(&self, text: &str, options: &Options) -> Result<(), RestoreError> {
        self.try_restore(text, options).inspect_err(|_| self.writers.failed())
    }

    fn try_restore(&self, text: &str, options: &Options) -> Result<(), RestoreError> {
        let args = self.restore_args(options);
        let job = Job {
            program: &self.restore,
            args: &args,
            stdin: text.as_bytes(),
            timeout: options.command_timeout,
            writers: Some(&self.writers),
        };
        let outcome =
            run(&job, &mut |_| ()).map_err(|error: CommandError| RestoreError::Unavailable(error.chain()))?;
        if outcome.status.success() {
            return Ok(());
        }
        if is_unavailable(&outcome.stderr) || outcome.status.code().is_none() {
            let message = format!("{}: {}", outcome.status, summary(&outcome.stderr));
            return Err(RestoreError::Unavailable(message));
        }
        Err(RestoreError::Refused(outcome.stderr))
    }

    fn restore_args(&self, options: &Options) -> Vec<String> {
        let mut args = vec!["--noflush".to_owned()];
        if self.features.restore_supports_lock {
            let seconds = match options.lock_timeout.as_secs() {
                0 => 10,
                seconds => seconds,
            };
            let probe_micros = options.lock_probe_interval.as_micros();
            let lock = ["--wait", &seconds.to_string(), "--wait-interval", &probe_micros.to_string()];
            args.extend(lock.map(str::to_owned));
        }
        args
    }
}

fn command_line(program: &Path, args: &[String]) -> String {
    format!("{} {}", program.display(), args.join(" "))
}

/// `Table does not exist (do you need to insmod?)` of legacy, ``table `x' does not exist`` of nft.
fn is_missing_table(stderr: &str) -> bool {
    stderr.to_ascii_lowercase().contains("does not exist")
}

fn is_missing_chain(stderr: &str) -> bool {
    stderr.contains("No chain/target/match by that name")
}

fn is_unavailable(stderr: &str) -> bool {
    ["xtables lock", "can't open lock file", "you must be root", "Could not fetch rule set generation"]
        .iter()
        .any(|text| stderr.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_waits_for_the_lock_where_it_can() {
        let mut tools = Tools {
            save: PathBuf::new(),
            restore: PathBuf::new(),
            list: None,
            backend: Backend::Legacy,
            features: Features::default(),
            writers: Writers::default(),
        };
        let options = Options { lock_timeout: Duration::ZERO, ..Options::default() };
        tools.features.restore_supports_lock = true;
        let args = tools.restore_args(&options).join(" ");
        assert_eq!(args, "--noflush --wait 10 --wait-interval 50000");
        tools.features.restore_supports_lock = false;
        assert_eq!(tools.restore_args(&options), ["--noflush"]);
    }
}
