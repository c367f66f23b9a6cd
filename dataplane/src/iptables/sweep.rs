//! Removes what an agent has left in the back end that is not used now.
//!
//! A node that changes from legacy to nft, or back, would otherwise be filtered by both sets of rules, the
//! unused one never updated again.

use std::path::Path;

use tortie_api::net::IpVersion;
use tortie_rules::render::Table;

use super::{IptablesTable, Options, Tools, Writers};
use crate::feature::{Backend, Features, find_exact_program, legacy_tables};
use crate::reconcile::{Driver, Phase, Problem, Report};

/// Removes our hooks and chains from these tables of the back end that is not `in_use`, both IP versions.
///
/// Does nothing where that back end has no programs of its own or, for legacy, where the kernel has not
/// loaded a table, so that looking does not load modules. Foreign rules and chains stay. To be
/// repeated at every resync: another program may bring old rules back.
pub fn sweep_other_backend(
    tables: &[Table],
    in_use: Backend,
    features: Features,
    options: &Options,
) -> Report {
    let other = in_use.other();
    let mut report = Report::default();
    for version in IpVersion::BOTH {
        let program = |verb| find_exact_program(version, other, verb);
        // Without programs of both back ends the generic names are those in use.
        let (Some(save), Some(restore)) = (program("save"), program("restore")) else { continue };
        if find_exact_program(version, in_use, "save").is_none() {
            continue;
        }
        let writers = Writers::default();
        let tools = Tools { save, restore, list: None, backend: other, features, writers };
        let is_there = present_tables(other, version);
        let present = tables.iter().copied().filter(|table| is_there(*table));
        let driver = |table| IptablesTable::new(version, table, tools.clone(), options.clone());
        let mut drivers: Vec<IptablesTable> = present.map(driver).collect();
        if drivers.len() > 1 {
            IptablesTable::read_together(&mut drivers.iter_mut().collect::<Vec<_>>());
        }
        drivers.into_iter().for_each(|driver| report.merge(sweep_table(driver)));
    }
    report
}

fn present_tables(backend: Backend, version: IpVersion) -> impl Fn(Table) -> bool {
    let names = match backend {
        Backend::Legacy => Some(legacy_tables(version).unwrap_or_default()),
        // IPv6 can be off as a whole; then its programs only fail.
        Backend::Nft if version == IpVersion::V6 && !has_ipv6() => Some(Vec::new()),
        Backend::Nft => None,
    };
    move |table| names.as_ref().is_none_or(|names| names.iter().any(|name| name == table.name()))
}

fn has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}

fn sweep_table(mut driver: IptablesTable) -> Report {
    let (backend, table, version) = (driver.tools.backend, driver.table, driver.version);
    if let Err(error) = driver.observe() {
        let object = format!("leftovers in {backend} {table} ({version})");
        let problems = vec![Problem { object, error: error.to_string() }];
        return Report { calls: 1, changed: 0, problems };
    }
    let mut report = driver.apply(Phase::Enforce);
    report.calls += 1;
    if report.changed > 0 {
        tracing::info!(%backend, %table, %version, "removed rules of the other back end");
    }
    report
}
