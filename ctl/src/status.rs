//! `tortiectl status`.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use tortie_api::control::{Area, Reply, Request, Status, StatusProblem};

use crate::Error;
use crate::cli::StatusArgs;
use crate::console::Console;
use crate::table::Table;
use crate::{client, output};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command. An agent that reports problems has answered all the same.
pub(crate) fn run(args: &StatusArgs, socket: &Path, console: &mut Console) -> Result<(), Error> {
    let status = match client::ask(socket, &Request::Status, PATIENCE)? {
        Reply::Status(status) => status,
        Reply::Error { message } => return Err(Error::Refused(message)),
        Reply::Applied { .. } | Reply::NotApplied { .. } => return Err(Error::OtherAnswer),
    };
    match args.output {
        None => console.say(&readable(&status)),
        Some(format) => output::say(&serde_json::to_value(&status)?, format, console)?,
    }
    Ok(())
}

fn readable(status: &Status) -> String {
    let mut facts = Table::default();
    let mut fact = |name: &str, value: &str| facts.push([format!("{name}:"), value.to_owned()]);
    fact("Node", &status.node);
    fact("Agent", &status.version);
    fact("Datastore", &status.datastore);
    fact(
        "iptables",
        if status.iptables_backend.is_empty() { "not known yet" } else { &status.iptables_backend },
    );
    fact("In sync", yes_or_no(status.in_sync));
    fact("Applied", yes_or_no(status.applied));
    fact("Endpoints", &status.endpoints.to_string());
    fact("Policies", &status.policies.to_string());
    fact("IP sets", &status.ip_sets.to_string());
    fact("Last change", &last_change(status));
    fact("Restores", &counted(status.counters.restores, "run"));
    fact("By others", &counted(status.counters.foreign_changes, "change"));
    fact("Quarantined", &counted(status.counters.quarantined, "kernel object"));
    let mut text = facts.to_string();
    if !status.pending_interfaces.is_empty() {
        text.push_str("\nInterfaces that are not there or not up:\n");
        text.extend(status.pending_interfaces.iter().map(|interface| format!("  {interface}\n")));
    }
    if status.problems.is_empty() {
        text.push_str("\nNo problems.\n");
    } else {
        text.push_str("\nProblems:\n");
        text.extend(status.problems.iter().map(problem_line));
    }
    text
}

fn problem_line(problem: &StatusProblem) -> String {
    format!("  {}: {}: {}\n", area(problem.area), problem.object, problem.message)
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn area(area: Area) -> &'static str {
    match area {
        Area::Datastore => "datastore",
        Area::Policy => "policy",
        Area::Setting => "setting",
        Area::Kernel => "kernel",
    }
}

fn last_change(status: &Status) -> String {
    let last = &status.last_apply;
    if status.applies == 0 {
        return "none yet".to_owned();
    }
    format!(
        "{:.1} ms, {}, {}, {} (changes so far: {})",
        last.millis,
        counted(last.changed, "kernel object"),
        counted(last.calls, "call"),
        counted(last.restores, "iptables-restore run"),
        status.applies,
    )
}

fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    format!("{count} {what}{}", if count == N::from(1) { "" } else { "s" })
}
