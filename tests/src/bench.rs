//! Measuring Tortie on a real kernel, each number beside what the kernel's own tools take for the same work.
//!
//! ```text
//!  Scene (one node, n pods, an agent) ──► latency · calls · start · memory ──┐
//!  ip sets (no agent) ──────────────────► sets ──────────────────────────────┼──► Report: table, JSON
//!  nf_tables (no agent) ────────────────► nft_codec ─────────────────────────┤
//!  Field (a node between two cables) ───► flows ─────────────────────────────┘
//! ```
//!
//! What is measured and what stands beside it take turns in the same run on the same kernel tables, so that whatever
//! else the machine does meets both. Nothing is asserted about time; a wrong result of what is measured is an error.
//!
//! How a time is taken: from just before a manifest is written (a temporary file, renamed) to the kernel's own
//! notification (nf_tables, rtnetlink) of the commit that holds the rule or the route. The legacy back end tells
//! nothing of rules: there the agent's own answer to `wait` ends the time, as it does in a row of its own for nft.
//! After each change the rule is looked up, so that nothing is counted that is not there.

mod by_hand;
mod calls;
mod control;
mod events;
mod flows;
mod latency;
mod machine;
mod memory;
mod nft_codec;
mod production;
mod report;
mod ruleset;
mod scene;
mod sets;
mod start;
mod stats;

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use self::by_hand::Tools;
use self::scene::Scene;

pub use self::flows::Plan as FlowPlan;
pub use self::machine::Machine;
pub use self::production::loaded::Plan as LoadPlan;
pub use self::report::{Beside, Report, Row, Unit};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// From a changed file to the enforced rule, and from a new pod's file to its rules and route.
    Latency,
    /// Runs of `iptables-restore` per change.
    Calls,
    /// Ten members of a large ip set.
    Sets,
    /// The agent's resident memory.
    Memory,
    /// From the agent's start to everything applied.
    Start,
    /// One changed rule where there are many.
    Rules,
    /// A node of the size of a real one: 294 policies of 68 rules, 3,708 sets of 70 members, 110 pods.
    Production,
    /// The same node in nftables mode.
    Native,
    /// The codec of nf_tables, without an agent.
    NftCodec,
    /// What rules cost packets, new connections and established ones.
    Flows,
    /// A node with many sets and rules in nftables mode: loads, changes, memory, and the waits of another writer.
    Loaded,
}

/// An iptables back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    /// nf_tables
    Nft,
    /// ip_tables
    Legacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

/// What to measure, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The parts.
    pub parts: BTreeSet<Part>,
    /// Back ends for the parts with an agent; all but latency use the first only.
    pub backends: Vec<Backend>,
    /// Pods on the node, for latency and calls: one scene each. Memory and start take the largest.
    pub endpoints: Vec<usize>,
    /// Measured changes of each kind.
    pub changes: usize,
    /// Measured starts of the agent.
    pub starts: usize,
    /// Pods on other nodes, for memory.
    pub remote_pods: usize,
    /// Members of the large ip set.
    pub set_size: u32,
    /// How much of what rules cost packets.
    pub flows: FlowPlan,
    /// How much a node in nftables mode is loaded with.
    pub load: LoadPlan,
}

/// Measures. `tell` gets a line for each thing that is begun, for whoever watches.
///
/// # Errors
/// When the lab cannot be made, or something that is measured does not do what it should.
pub fn run(options: &Options, tell: &dyn Fn(&str)) -> anyhow::Result<Report> {
    let mut report = Report::new(Machine::here());
    if options.parts.contains(&Part::Sets) {
        tell("ip sets");
        report.take(Part::Sets, sets::measure(options.set_size));
    }
    if options.parts.contains(&Part::NftCodec) {
        tell("the codec of nf_tables");
        report.take(Part::NftCodec, nft_codec::measure());
    }
    if options.parts.contains(&Part::Native) {
        tell("nftables mode: a production node");
        report.take(Part::Native, production::native::measure(options.starts, options.changes, tell));
    }
    if options.parts.contains(&Part::Flows) {
        tell("what rules cost packets");
        report.take(Part::Flows, flows::measure(&options.flows, tell));
    }
    if options.parts.contains(&Part::Loaded) {
        tell("nftables mode: many sets and rules");
        report.take(Part::Loaded, production::loaded::measure(options.load, tell));
    }
    let with_agent = [Part::Latency, Part::Calls, Part::Memory, Part::Start, Part::Rules, Part::Production];
    if with_agent.iter().any(|part| options.parts.contains(part)) {
        for (index, backend) in options.backends.iter().enumerate() {
            if let Err(error) = Tools::probe(*backend) {
                report.skip(format!("{backend} back end: {error:#}"));
                continue;
            }
            scenes(options, *backend, index == 0, &mut report, tell)?;
            nodes(options, *backend, &mut report, tell);
        }
    }
    report.sort();
    Ok(report)
}

/// Nodes with many rules and sets.
fn nodes(options: &Options, backend: Backend, report: &mut Report, tell: &dyn Fn(&str)) {
    if options.parts.contains(&Part::Rules) {
        for rules in production::RULES_PRESENT {
            tell(&format!("{backend} back end: {rules} rules"));
            report.take(Part::Rules, production::among(backend, rules, options.changes));
        }
    }
    if options.parts.contains(&Part::Production) {
        tell(&format!("{backend} back end: a production node"));
        report.take(Part::Production, production::measure(backend, options.starts, options.changes, tell));
    }
}

/// Everything that one back end is measured with.
fn scenes(
    options: &Options,
    backend: Backend,
    is_first: bool,
    report: &mut Report,
    tell: &dyn Fn(&str),
) -> anyhow::Result<()> {
    let wants = |part| options.parts.contains(&part) && (is_first || part == Part::Latency);
    if wants(Part::Memory) {
        tell("memory: an idle agent, and one that knows many remote pods");
        report.take(Part::Memory, memory::idle(backend));
        report.take(Part::Memory, memory::remote(backend, options.remote_pods));
    }
    let largest = options.endpoints.iter().max().copied();
    let is_needed = [Part::Latency, Part::Calls, Part::Memory, Part::Start].into_iter().any(wants);
    for &size in options.endpoints.iter().filter(|_| is_needed) {
        tell(&format!("{backend} back end: {size} endpoints"));
        let mut scene = Scene::build(backend, size).with_context(|| format!("a node with {size} pods"))?;
        if wants(Part::Start) && largest == Some(size) {
            tell(&format!("  starting {} times", options.starts));
            report.take(Part::Start, start::measure(&mut scene, options.starts));
        }
        scene.start_agent()?;
        if wants(Part::Memory) {
            report.take(Part::Memory, memory::local(&scene));
        }
        if wants(Part::Calls) {
            tell("  calls");
            report.take(Part::Calls, calls::measure(&mut scene));
        }
        if wants(Part::Latency) {
            tell(&format!("  {} changes of each kind", options.changes));
            report.take(Part::Latency, latency::measure(&mut scene, options.changes));
        }
    }
    Ok(())
}
