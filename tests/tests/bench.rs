//! The benches that play on the lab run, tiny: what they measure comes out, and is what it says. No time is asserted.

use std::collections::BTreeSet;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use tortie_tests::bench::{self, FlowPlan, LoadPlan, Options, Part, Report, Row};
use tortie_tests::lab;

type Outcome = Result<(), Failed>;

/// A test: its name is the sentence that it proves.
type Test = (&'static str, fn() -> Outcome);

const TESTS: [Test; 2] = [
    ("what_rules_cost_packets_is_measured_for_all_kinds_of_rules", flows),
    ("a_loaded_node_is_measured_in_both_layouts", loaded),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = lab::enter()
    {
        eprintln!("the lab cannot be used here: {error}");
        return ExitCode::FAILURE;
    }
    let trials = TESTS.map(|(name, test)| Trial::test(name, test)).into();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Measures a part; everything must have been measured.
fn run(part: Part) -> Result<Report, Failed> {
    let options = Options {
        parts: BTreeSet::from([part]),
        backends: Vec::new(),
        endpoints: Vec::new(),
        changes: 2,
        starts: 1,
        remote_pods: 1,
        set_size: 1,
        flows: FlowPlan { policies: vec![0, 2], rounds: 2, packets: 60 },
        load: LoadPlan { sets: 5, rules: 200, starts: 1, changes: 2 },
    };
    let report = bench::run(&options, &|_| ())?;
    if let Some(why) = report.skipped.first() {
        return Err(why.into());
    }
    for row in &report.rows {
        let numbers = [row.median, row.min, row.p95, row.p99];
        if row.n == 0 || !numbers.iter().all(|number| number.is_finite()) {
            return Err(format!("nothing was measured: {row:?}").into());
        }
    }
    Ok(report)
}

/// How many rows tell of all of these words, and of something beside it, which an ordinary user's `nft` may refuse.
fn compared(report: &Report, words: &[&str]) -> usize {
    let tells = |what: &str| words.iter().all(|word| what.contains(word));
    let is_compared = |row: &Row| {
        row.beside.as_ref().is_some_and(|beside| beside.median.is_some() || report.machine.is_rootless)
    };
    report.rows.iter().filter(|row| tells(&row.what) && is_compared(row)).count()
}

fn flows() -> Outcome {
    let report = run(Part::Flows)?;
    for kind in ["iptables-legacy", "iptables-nft", "chains", "tables"] {
        for number in ["0 policies", "2 policies"] {
            let rates = ["new flows", "established flows"];
            assert!(
                rates.iter().all(|rate| compared(&report, &[rate, kind, number]) > 0),
                "{kind}\n{report}"
            );
        }
    }
    assert!(report.rows.iter().all(|row| row.n == 2), "a row for each round\n{report}");
    Ok(())
}

fn loaded() -> Outcome {
    let report = run(Part::Loaded)?;
    for layout in ["layout Chains", "layout Tables"] {
        for what in ["start to all applied", "longest wait of another writer", "kernel's memory"] {
            assert!(compared(&report, &[layout, what]) > 0, "{layout}: {what}\n{report}");
        }
    }
    assert_eq!(compared(&report, &["members", "of one of 5 sets"]), 2, "{report}");
    Ok(())
}
