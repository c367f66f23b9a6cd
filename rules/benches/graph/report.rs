//! The table.
#![allow(clippy::print_stdout, reason = "printing is what this is for")]

use std::time::Duration;

use crate::cases::Case;
use crate::meter::Figures;

/// Bytes of a megabyte as Felix's figures have it.
const MEGABYTE: f64 = 1e6;

/// A row as one process tells it to another.
pub(crate) fn print_raw(figures: &Figures) {
    let Figures { units, time, peak, retained, allocations } = figures;
    println!("{units} {} {peak} {retained} {allocations}", time.as_nanos());
}

/// Reads what [`print_raw`] wrote.
pub(crate) fn parse_raw(text: &str) -> Figures {
    let numbers: Vec<usize> = text.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let [units, nanos, peak, retained, allocations] = numbers[..] else { panic!("five numbers, not {text}") };
    let time = Duration::from_nanos(nanos as u64);
    Figures { units, time, peak, retained, allocations }
}

pub(crate) fn print_names(cases: &[Case]) {
    println!("no such case; there are:");
    cases.iter().for_each(|case| println!("  {}", case.name));
}

pub(crate) fn print_failure(name: &str) {
    println!("{name} failed");
}

/// What is shown of each case, beside Felix's.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "each bench shows one of them")]
pub(crate) enum Columns {
    Time,
    Heap,
}

pub(crate) fn print_head(columns: Columns) {
    match columns {
        Columns::Time => {
            println!("{:<26}{:>11}{:>12}{:>11}{:>8}", "case", "time", "per unit", "Felix", "ratio");
        }
        Columns::Heap => println!(
            "{:<26}{:>11}{:>12}{:>13}{:>10}{:>8}",
            "case", "peak", "retained", "allocations", "Felix", "ratio"
        ),
    }
}

pub(crate) fn print_row(columns: Columns, case: &Case, figures: &Figures) {
    let ratio =
        |theirs: Option<f64>, mine: f64| theirs.map_or("-".to_owned(), |f| format!("{:.1}", f / mine));
    let name = case.name;
    match columns {
        Columns::Time => {
            let time = figures.time.as_secs_f64();
            let per_unit = time / as_float(figures.units.max(1));
            // Felix's figure is of the whole, or of one update.
            let ratio = ratio(case.felix_secs, if case.per_unit { per_unit } else { time });
            let felix = case.felix_secs.map_or("-".to_owned(), seconds);
            println!("{name:<26}{:>11}{:>12}{felix:>11}{ratio:>8}", seconds(time), seconds(per_unit));
        }
        Columns::Heap => {
            let (peak, retained) = (as_float(figures.peak) / MEGABYTE, as_float(figures.retained) / MEGABYTE);
            let ratio = ratio(case.felix_megabytes, retained);
            let felix = case.felix_megabytes.map_or("-".to_owned(), |f| format!("{f:.0} MB"));
            let [peak, retained] = [peak, retained].map(|megabytes| format!("{megabytes:.1} MB"));
            let allocations = figures.allocations;
            println!("{name:<26}{peak:>11}{retained:>12}{allocations:>13}{felix:>10}{ratio:>8}");
        }
    }
}

fn seconds(secs: f64) -> String {
    match secs {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.2} us", s * 1e6),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a table shows three digits")]
fn as_float(n: usize) -> f64 {
    n as f64
}
