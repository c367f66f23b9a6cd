//! Speed of the compiler of tables, and the size of what it makes and of what it tells of a change.
//!
//! ```text
//! cargo bench -p tortie-rules --bench fast                every case
//! cargo bench -p tortie-rules --bench fast -- production  those whose name contains "production"
//! ```
//!
//! The events of the graph are made before the clock starts. Times are the processor's, the median of several runs.
#![allow(clippy::print_stdout, reason = "printing is what this is for")]

#[path = "../graph/shapes.rs"]
#[allow(dead_code, reason = "the graph's bench has more cases")]
mod shapes;
mod synthetic;

use std::time::Duration;

use nix::time::ClockId;
use tortie_api::net::IpVersion;
use tortie_api::resource::Resource;
use tortie_rules::compile::fast::{Changes, Fast};
use tortie_rules::compile::{Change, Config};
use tortie_rules::graph::model::Event;
use tortie_rules::graph::{Graph, Options};

/// Runs of each change.
const RUNS: usize = 9;

/// What the processor has spent on this process, which has one thread.
fn clock() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().expect("the clock is always there").into()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = clock();
    let result = work();
    (clock().saturating_sub(start), result)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A cluster, and two kinds of changes of it: each is made there and back.
struct Case {
    name: String,
    resources: Vec<Resource>,
    /// The same pod with other labels.
    relabelled: Option<Resource>,
    /// The same policy with another rule.
    edited: Option<Resource>,
}

type Make = fn() -> Case;

/// What is told of a change: chains, elements, maps, members of sets.
fn told(changes: &Changes) -> String {
    let (mut chains, mut elements, mut maps) = (0, 0, 0);
    for update in &changes.tables {
        match &update.change {
            Change::Chain(_) | Change::NoChain(_) => chains += 1,
            Change::Elements { removed, added, .. } => elements += removed.len().max(added.len()),
            Change::Map(_) | Change::NoMap(_) => maps += 1,
            Change::Hooks(_) => {}
        }
    }
    format!("{chains} chains, {elements} elements, {maps} maps, {} sets", changes.sets.len())
}

fn handle(fast: &mut Fast, events: &[Event]) -> Changes {
    events.iter().for_each(|event| fast.handle(event));
    fast.poll()
}

fn run(case: &Case) {
    let options = Options {
        node: shapes::LOCAL.to_owned(),
        interface_prefixes: vec!["cali".to_owned()],
        suppress_covered: true,
    };
    let mut graph = Graph::new(options);
    case.resources.iter().for_each(|resource| graph.set(resource));
    let events = graph.flush();
    let config = Config { versions: vec![IpVersion::V4], ..Config::default() };
    let mut fast = Fast::new(config);
    let (time, changes) = timed(|| handle(&mut fast, &events));
    let size = fast.size(IpVersion::V4);
    println!("{}: compiled in {time:.1?}", case.name);
    println!("    {size:?}");
    println!("    told: {}", told(&changes));
    for (what, changed) in [("label change", &case.relabelled), ("policy edit", &case.edited)] {
        let Some(changed) = changed else { continue };
        let original = case.resources.iter().find(|resource| resource.key() == changed.key());
        let mut times = Vec::new();
        let mut last = String::new();
        for run in 0..RUNS {
            graph.set(if run % 2 == 0 { changed } else { original.expect("it is one of these") });
            let events = graph.flush();
            let (time, changes) = timed(|| handle(&mut fast, &events));
            times.push(time);
            last = told(&changes);
        }
        println!("    {what}: {:.1?}; {last}", median(times));
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let cases: [(&str, Make); 5] = [
        ("policies-10", || synthetic::policies(10)),
        ("policies-100", || synthetic::policies(100)),
        ("policies-1000", || synthetic::policies(1000)),
        ("large-sets", synthetic::large_sets),
        ("production", synthetic::production),
    ];
    for (name, make) in cases {
        if args.is_empty() || args.iter().any(|arg| name.contains(arg.as_str())) {
            run(&make());
        }
    }
}
