//! The same work by the kernel's own tools, as a person at a shell would do it: what a number is compared with.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Backend;
use super::events::{Event, rules_of};
use super::ruleset::Ruleset;
use crate::lab::Netns;

/// Empties all four tables.
const EMPTY: &str = "*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\nCOMMIT\n";
/// `AF_INET` and `AF_INET6`, as nf_tables numbers the tables of iptables and ip6tables.
const FAMILIES: [(&str, u8); 2] = [("iptables", 2), ("ip6tables", 10)];
/// What the agent's driver passes as well.
const RESTORE: [&str; 5] = ["--noflush", "--wait", "10", "--wait-interval", "50000"];

/// How a table names the tools that write everything.
pub(super) const WRITE_TOOLS: &str = "ipset, both restores, ip";
/// And those that read it.
pub(super) const READ_TOOLS: &str = "ipset, both saves, ip";

/// Tools of one back end in one node's namespace.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    backend: Backend,
    netns: Netns,
    lock: PathBuf,
}

/// What the kernel holds: iptables, ip6tables, ip sets.
#[derive(Debug, Clone)]
pub(super) struct State {
    rules: [Ruleset; 2],
    sets: BTreeSet<String>,
}

/// A change of rules and sets, for tools.
#[derive(Debug, Clone)]
pub(super) struct Change {
    restore: [String; 2],
    sets: String,
    routes: String,
    /// IPv4's chains that are written.
    pub(super) chains: BTreeSet<String>,
    /// What the kernel tells of it; nothing for the legacy back end but the routes.
    pub(super) events: BTreeSet<Event>,
}

impl Tools {
    /// Tools for `netns`; `lock` is the node's lock file of the legacy back end.
    pub(super) fn new(backend: Backend, netns: &Netns, lock: PathBuf) -> Self {
        Self { backend, netns: netns.clone(), lock }
    }

    /// Checks that the programs are installed and the kernel has the back end.
    pub(super) fn probe(backend: Backend) -> anyhow::Result<()> {
        let netns = Netns::new("a probe", &[])?;
        let tools = Self::new(backend, &netns, "/run/tortie-bench-probe.lock".into());
        tools.flush_rules()
    }

    fn program(&self, family: &str, verb: &str) -> String {
        format!("{family}-{}-{verb}", self.backend)
    }

    /// Reads everything.
    pub(super) fn state(&self) -> anyhow::Result<State> {
        let [v4, v6] = self.save()?.map(|text| Ruleset::parse(&text));
        let sets = self.netns.check("ipset", &["save"], "")?;
        Ok(State { rules: [v4, v6], sets: sets.lines().map(str::to_owned).collect() })
    }

    /// What both `save` programs print.
    pub(super) fn save(&self) -> anyhow::Result<[String; 2]> {
        let save = |family| self.netns.check(&self.program(family, "save"), &[], "");
        Ok([save("iptables")?, save("ip6tables")?])
    }

    /// One chain of IPv4's filter table.
    pub(super) fn chain(&self, name: &str) -> anyhow::Result<String> {
        let program = format!("iptables-{}", self.backend);
        Ok(self.netns.check(&program, &["--wait", "10", "-S", name], "")?)
    }

    /// Does a change; returns when it was done, and how long that took.
    pub(super) fn apply(&self, change: &Change) -> anyhow::Result<(Instant, Duration)> {
        self.inside(|| {
            let started = Instant::now();
            feed("ipset", &["restore", "-exist"], &change.sets)?;
            let [v4, v6] = FAMILIES.map(|(family, _)| family);
            self.restore(v4, &RESTORE, &change.restore[0])?;
            // IPv4's, which need not wait for IPv6's rules.
            feed("ip", &["-batch", "-"], &change.routes)?;
            self.restore(v6, &RESTORE, &change.restore[1])?;
            Ok((started, started.elapsed()))
        })
    }

    /// Restores what [`Self::save`] gave, and sets and routes, from nothing; returns how long that took.
    pub(super) fn restore_all(
        &self,
        saved: &[String; 2],
        sets: &str,
        routes: &str,
    ) -> anyhow::Result<Duration> {
        self.inside(|| {
            let started = Instant::now();
            feed("ipset", &["restore"], sets)?;
            for ((family, _), text) in FAMILIES.iter().zip(saved) {
                self.restore(family, &RESTORE[1..], text)?;
            }
            feed("ip", &["-batch", "-"], routes)?;
            Ok(started.elapsed())
        })
    }

    /// Empties the tables, then destroys the sets and the agent's routes.
    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.flush_rules()?;
        self.netns.check("ipset", &["destroy"], "")?;
        for family in ["-4", "-6"] {
            self.netns.check("ip", &[family, "route", "flush", "proto", "80"], "")?;
        }
        Ok(())
    }

    fn flush_rules(&self) -> anyhow::Result<()> {
        self.inside(|| FAMILIES.iter().try_for_each(|(family, _)| self.restore(family, &RESTORE[1..], EMPTY)))
    }

    fn restore(&self, family: &str, args: &[&str], text: &str) -> anyhow::Result<()> {
        let mut command = Command::new(self.program(family, "restore"));
        command.args(args).env("XTABLES_LOCKFILE", &self.lock);
        feed_command(command, text)
    }

    /// Calls `work` on a thread in the namespace, so that starting a program there costs nothing more.
    fn inside<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        self.netns.enter(work)?
    }
}

impl State {
    /// Tables of both IP versions that differ.
    pub(super) fn changed_tables(&self, other: &Self) -> usize {
        self.rules.iter().zip(&other.rules).map(|(a, b)| a.changed_tables(b)).sum()
    }

    /// What makes this state `next`.
    pub(super) fn change(&self, next: &Self, backend: Backend) -> Change {
        let restore = [0, 1].map(|i| self.rules[i].difference(&next.rules[i]));
        let mut sets: Vec<&str> = next.sets.difference(&self.sets).map(String::as_str).collect();
        // Creations before members.
        sets.sort_by_key(|line| !line.starts_with("create"));
        let sets = lines("", sets);
        let mut events = BTreeSet::new();
        if backend == Backend::Nft {
            for ((_, family), (a, b)) in FAMILIES.iter().zip(self.rules.iter().zip(&next.rules)) {
                events.extend(rules_of(*family, a.changed_chains(b)));
            }
        }
        let chains = self.rules[0].changed_chains(&next.rules[0]).into_iter().map(str::to_owned).collect();
        Change { restore, sets, routes: String::new(), chains, events }
    }
}

impl Change {
    /// With a route: `line` as `ip` has it after `route replace`.
    pub(super) fn with_route(mut self, address: std::net::Ipv4Addr, line: &str) -> Self {
        self.routes = format!("route replace {line}\n");
        self.events.insert(Event::Route(address));
        self
    }
}

/// Runs a program that must succeed on this input; without input it is not run.
fn feed(program: &str, args: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(args);
    feed_command(command, input)
}

fn feed_command(mut command: Command, input: &str) -> anyhow::Result<()> {
    if input.is_empty() {
        return Ok(());
    }
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that ends before it has read everything says why on its standard error.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// One line for each of `items`, with `start` before it.
pub(super) fn lines<T: std::fmt::Display>(start: &str, items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().fold(String::new(), |mut text, item| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{start}{item}");
        text
    })
}

/// The same for other modules: a program in the thread's namespace.
pub(super) fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<()> {
    feed(program, args, input)
}
