//! Plays the policy cases against real agents and reports by family.
//!
//! Without arguments it plays what `conformance/policy/supported.txt` claims, in iptables mode and in nftables mode, and
//! lists all other cases by name.
//! `cargo test -p tortie-tests --test policy_cases -- --help` shows what else it can do. The environment variable
//! `TORTIE_POLICY_CASES` (`all`, or patterns separated by commas) chooses cases where no arguments can be given.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tortie_tests::cases::{
    Case, CaseFile, CaseReport, Mode, PlayOptions, Summary, Supported, cases_dir, find_cases, play,
};
use tortie_tests::lab::{self, Programs};

/// Plays policy cases against real agents in network namespaces.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "command line switches")]
struct Arguments {
    /// Play cases whose FAMILY/ID contains this text, supported or not.
    names: Vec<String>,
    /// Play this family, supported or not; may be given several times.
    #[arg(long)]
    family: Vec<String>,
    /// Play this case, supported or not; may be given several times.
    #[arg(long)]
    case: Vec<String>,
    /// Play every case, supported or not.
    #[arg(long)]
    all: bool,
    /// No agents, and everything must pass: tests the lab.
    #[arg(long, conflicts_with = "self_test")]
    open: bool,
    /// No agents, but rules made from the truth: tests the lab and this program.
    #[arg(long)]
    self_test: bool,
    /// Play with the rules of these kinds only; else with each.
    #[arg(long, value_enum)]
    rules: Vec<Rules>,
    /// Start the agents before the first step's changes instead of after them.
    #[arg(long)]
    early: bool,
    /// Seconds of silence after which a probe counts as blocked.
    #[arg(long, default_value_t = 1.0)]
    wait: f64,
    /// Seconds that a step may take to become right after the agents said that it is applied.
    #[arg(long, default_value_t = 10.0)]
    settle: f64,
    /// Cases played at the same time; if not given, twice the number of cores, as a case mostly waits for silence.
    #[arg(long, alias = "test-threads")]
    workers: Option<usize>,
    /// Write the report as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Copy manifests, agents' logs and the kernel's rules of every case that goes wrong to this directory.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Take the cases from this directory.
    #[arg(long, default_value_os_t = cases_dir())]
    cases: PathBuf,
    /// List the cases that would be played, and play none.
    #[arg(long)]
    list: bool,
    /// Taken for the sake of `cargo test`; changes nothing.
    #[arg(long, hide = true)]
    nocapture: bool,
    /// Taken for the sake of `cargo test`; changes nothing.
    #[arg(long, short, hide = true)]
    quiet: bool,
}

/// Which rules the agents write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rules {
    /// Of iptables mode.
    Iptables,
    /// Of nftables mode.
    Nftables,
}

impl Rules {
    const ALL: [Self; 2] = [Self::Iptables, Self::Nftables];

    const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }

    fn env(self) -> Vec<(String, String)> {
        let mode = match self {
            Self::Iptables => "Disabled",
            Self::Nftables => "Enabled",
        };
        vec![("FELIX_NFTABLESMODE".to_owned(), mode.to_owned())]
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("policy_cases: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let files = find_cases(&arguments.cases)?;
    let supported = Supported::read(&cases_dir())?;
    let (chosen, rest): (Vec<CaseFile>, Vec<CaseFile>) =
        files.into_iter().partition(|file| arguments.chooses(file, &supported));
    let mut out = io::stdout();
    if arguments.list {
        for file in &chosen {
            writeln!(out, "{}: test", file.name())?;
        }
        return Ok(true);
    }
    let mut options = arguments.options();
    if options.mode == Mode::Agents && !chosen.is_empty() {
        Programs::locate()?;
    }
    lab::enter()?;
    let mut summaries = BTreeMap::new();
    let mut is_right = true;
    for rules in arguments.rules() {
        let begin = Instant::now();
        options.env = rules.env();
        let mut summary =
            Summary { cases: play_all(&chosen, &options, arguments.workers())?, ..Summary::default() };
        for file in rest.iter().filter(|_| arguments.is_default()) {
            summary.not_yet_supported.entry(file.family.clone()).or_default().push(file.id.clone());
        }
        let took = begin.elapsed().as_secs_f64();
        writeln!(out, "\n{} mode\n{}", rules.name(), summary.text())?;
        writeln!(out, "{} cases in {took:.1} s", summary.cases.len())?;
        is_right &= judge(&summary, &chosen, &supported, options.mode, &mut out)?;
        summaries.insert(rules.name(), summary);
    }
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_vec_pretty(&summaries)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(is_right)
}

/// Whether the run is a success. A supported case that was skipped is none; what could be added to the list is named.
fn judge(
    summary: &Summary,
    chosen: &[CaseFile],
    supported: &Supported,
    mode: Mode,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let is_claimed =
        |case: &CaseReport| chosen.iter().any(|file| file.id == case.id && supported.contains(file));
    let skipped: Vec<&str> = summary
        .cases
        .iter()
        .filter(|c| c.skipped.is_some() && is_claimed(c))
        .map(|c| c.id.as_str())
        .collect();
    if !skipped.is_empty() {
        writeln!(out, "supported, but skipped: {}", skipped.join(" "))?;
    }
    let new: Vec<&str> =
        summary.cases.iter().filter(|c| c.is_right() && !is_claimed(c)).map(|c| c.id.as_str()).collect();
    if mode == Mode::Agents && !new.is_empty() {
        writeln!(out, "right, but not in supported.txt: {}", new.join(" "))?;
    }
    Ok(summary.is_right() && skipped.is_empty())
}

/// Plays the cases on some workers, prints each as it ends, and returns the reports in the cases' order.
fn play_all(files: &[CaseFile], options: &PlayOptions, workers: usize) -> anyhow::Result<Vec<CaseReport>> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut reports = vec![None; files.len()];
    thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(index) else { break };
                    // The receiver is gone only if printing failed, which ends the run anyway.
                    let _ = sender.send((index, play_file(file, options)));
                }
            });
        }
        drop(sender);
        let mut out = io::stdout();
        for (index, report) in receiver {
            writeln!(out, "{}", report.text())?;
            reports[index] = Some(report);
        }
        io::Result::Ok(())
    })?;
    Ok(reports.into_iter().flatten().collect())
}

fn play_file(file: &CaseFile, options: &PlayOptions) -> CaseReport {
    match Case::read(&file.path) {
        Ok(case) => play(&case, options),
        Err(error) => CaseReport {
            family: file.family.clone(),
            id: file.id.clone(),
            error: Some(error.to_string()),
            ..CaseReport::default()
        },
    }
}

impl Arguments {
    /// Whether nothing chooses cases.
    fn is_default(&self) -> bool {
        let is_named = !(self.names.is_empty() && self.family.is_empty() && self.case.is_empty());
        !self.all && !is_named && env::var_os("TORTIE_POLICY_CASES").is_none()
    }

    /// Whether a case is to be played: as asked for here, in the environment, or else if it is supported.
    fn chooses(&self, file: &CaseFile, supported: &Supported) -> bool {
        let wanted = env::var("TORTIE_POLICY_CASES").unwrap_or_default();
        if self.all || wanted == "all" {
            return true;
        }
        if self.names.is_empty() && self.family.is_empty() && self.case.is_empty() {
            let patterns = Supported::parse(&wanted.replace(',', "\n"));
            return if wanted.is_empty() { supported.contains(file) } else { patterns.contains(file) };
        }
        self.family.contains(&file.family)
            || self.case.contains(&file.id)
            || self.names.iter().any(|part| file.name().contains(part))
    }

    /// Which rules to play with. Without agents that is no matter.
    fn rules(&self) -> Vec<Rules> {
        match (self.open || self.self_test, self.rules.is_empty()) {
            (true, _) => vec![Rules::Iptables],
            (false, true) => Rules::ALL.to_vec(),
            (false, false) => self.rules.clone(),
        }
    }

    fn options(&self) -> PlayOptions {
        PlayOptions {
            mode: match (self.open, self.self_test) {
                (true, _) => Mode::Open,
                (_, true) => Mode::SelfTest,
                _ => Mode::Agents,
            },
            wait: Duration::from_secs_f64(self.wait),
            settle: Duration::from_secs_f64(self.settle),
            is_early: self.early,
            keep: self.keep.clone(),
            ..PlayOptions::default()
        }
    }

    fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from) * 2).max(1)
    }
}
