//! `make bench`: measures speed and memory on this machine's kernel and prints one table.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use tortie_tests::bench::{self, Backend, FlowPlan, LoadPlan, Options, Part};
use tortie_tests::lab;

/// Measures the agent and its drivers on this machine's kernel, beside the kernel's own tools doing the same.
#[derive(Parser)]
struct Arguments {
    /// What to measure; said twice, the last counts.
    #[arg(long, value_enum, value_delimiter = ',', overrides_with = "parts", default_values = ["latency", "calls", "sets", "memory", "start", "rules", "production", "native", "nft-codec"])]
    parts: Vec<Part>,
    /// iptables back ends; the second is measured for latency, rules and production only.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["nft", "legacy"])]
    backends: Vec<Backend>,
    /// Pods on the node, one run for each number.
    #[arg(long, value_delimiter = ',', default_values = ["10", "1000"], value_parser = clap::value_parser!(u16).range(1..=10_000))]
    endpoints: Vec<u16>,
    /// Changes of each kind.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    changes: u16,
    /// Starts of the agent of each kind.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
    /// Pods on another node, for the agent's memory.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=30_000))]
    remote_pods: u16,
    /// Members of the large ip set.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    set_size: u32,
    /// Policies of ten rules on a node, for what they cost packets; one run for each number.
    #[arg(long, value_delimiter = ',', default_values = ["10", "100", "1000"], value_parser = clap::value_parser!(u16).range(..=10_000))]
    policies: Vec<u16>,
    /// Measurements of that.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Packets of one measurement.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    packets: u32,
    /// Sets of ten members on the node that is loaded in nftables mode.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    sets: u16,
    /// Rules there.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=200_000))]
    rules: u32,
    /// Writes the numbers to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done when this cannot be said.
            let _ = writeln!(io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    lab::enter().context("the lab cannot be used here")?;
    let options = Options {
        parts: arguments.parts.iter().copied().collect(),
        backends: arguments.backends.clone(),
        endpoints: arguments.endpoints.iter().copied().map(usize::from).collect(),
        changes: arguments.changes.into(),
        starts: arguments.starts.into(),
        remote_pods: arguments.remote_pods.into(),
        set_size: arguments.set_size,
        flows: FlowPlan {
            policies: arguments.policies.iter().copied().map(usize::from).collect(),
            rounds: arguments.rounds.into(),
            packets: usize::try_from(arguments.packets)?,
        },
        load: LoadPlan {
            sets: arguments.sets.into(),
            rules: usize::try_from(arguments.rules)?,
            starts: arguments.starts.into(),
            changes: arguments.changes.into(),
        },
    };
    let started = Instant::now();
    let report = bench::run(&options, &|line| {
        let _ = writeln!(io::stderr(), "{:4} s  {line}", started.elapsed().as_secs());
    })?;
    writeln!(io::stdout(), "{report}")?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
