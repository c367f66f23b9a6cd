//! What came out, for people and for programs.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::stats::Samples;
use super::{Machine, Part};

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Nanoseconds.
    Nanos,
    /// How many in a second.
    PerSecond,
    /// Mebibytes.
    Mebibytes,
    /// A number of things.
    Count,
}

/// What stands beside a measurement: the same work done another way, in the same run.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Beside {
    /// What it is.
    pub what: String,
    /// The median, in the row's unit; none if it could not be done here.
    pub median: Option<f64>,
}

/// One measurement.
#[derive(Debug, Clone)]
pub struct Row {
    /// The part that it belongs to.
    pub part: Part,
    /// What was measured.
    pub what: String,
    /// The unit of all its numbers.
    pub unit: Unit,
    /// How often.
    pub n: usize,
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// What 95 of 100 do not exceed.
    pub p95: f64,
    /// What 99 of 100 do not exceed.
    pub p99: f64,
    /// What it is to be compared with.
    pub beside: Option<Beside>,
}

impl Row {
    /// A row without a comparison.
    pub(super) fn new(part: Part, what: impl Into<String>, unit: Unit, samples: &Samples) -> Self {
        Self {
            part,
            what: what.into(),
            unit,
            n: samples.len(),
            median: samples.median(),
            min: samples.min(),
            p95: samples.p95(),
            p99: samples.p99(),
            beside: None,
        }
    }

    /// The row with something beside it.
    pub(super) fn beside(mut self, what: impl Into<String>, samples: &Samples) -> Self {
        let median = (samples.len() > 0).then(|| samples.median());
        self.beside = Some(Beside { what: what.into(), median });
        self
    }

    /// How many times what stands beside it; `None` if nothing does, or zero.
    pub fn ratio(&self) -> Option<f64> {
        let beside = self.beside.as_ref()?.median.filter(|median| *median > 0.0)?;
        Some(self.median / beside)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("Row", 10)?;
        row.serialize_field("part", &self.part)?;
        row.serialize_field("what", &self.what)?;
        row.serialize_field("unit", &self.unit)?;
        row.serialize_field("n", &self.n)?;
        row.serialize_field("median", &self.median)?;
        row.serialize_field("min", &self.min)?;
        row.serialize_field("p95", &self.p95)?;
        row.serialize_field("p99", &self.p99)?;
        row.serialize_field("beside", &self.beside)?;
        row.serialize_field("ratio", &self.ratio())?;
        row.end()
    }
}

/// Everything that was measured. `Display` is the table.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// The measurements.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub skipped: Vec<String>,
}

impl Report {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine, rows: Vec::new(), skipped: Vec::new() }
    }

    /// Takes what a part brought; one that failed is noted, and the others go on.
    pub(super) fn take(&mut self, part: Part, outcome: anyhow::Result<Vec<Row>>) {
        match outcome {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => self.skip(format!("{part:?}: {error:#}")),
        }
    }

    pub(super) fn skip(&mut self, why: String) {
        self.skipped.push(why);
    }

    /// Puts the rows of a part together.
    pub(super) fn sort(&mut self) {
        self.rows.sort_by_key(|row| row.part);
    }
}

const HEAD: [&str; 9] = ["", "n", "median", "least", "p95", "p99", "beside it", "median", "ratio"];

const LEGEND: &str = "\
ratio: the first median by the second. Beside it: the same change by the kernel's own tools, in turns with ours.
Flows, packets: how many of them one processor gets through a node; beside them a node with other rules, or none.
Both restores, both saves: iptables and ip6tables. Rule: the kernel has told of it in both IP versions.";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        let rights = if machine.is_rootless { "ordinary user (small netlink buffers)" } else { "root" };
        writeln!(
            f,
            "Linux {}, {} x {}, {} MiB, load {} at the start, as {rights}",
            machine.kernel, machine.cores, machine.cpu, machine.memory_mib, machine.load
        )?;
        let cells: Vec<[String; 9]> =
            std::iter::once(HEAD.map(str::to_owned)).chain(self.rows.iter().map(cells)).collect();
        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        for (index, row) in cells.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                // Text to the left, numbers to the right.
                let text = if matches!(column, 0 | 6) {
                    format!("{cell:<width$}  ")
                } else {
                    format!("{cell:>width$}  ")
                };
                line.push_str(&text);
            }
            writeln!(f, "{}", line.trim_end())?;
            if index == 0 {
                writeln!(f, "{}", "-".repeat(line.trim_end().chars().count()))?;
            }
        }
        writeln!(f, "{LEGEND}")?;
        self.skipped.iter().try_for_each(|why| writeln!(f, "not measured: {why}"))
    }
}

fn cells(row: &Row) -> [String; 9] {
    let beside = row.beside.as_ref();
    let in_unit = |value| number(value, row.unit);
    [
        row.what.clone(),
        row.n.to_string(),
        in_unit(row.median),
        // One value has no distribution.
        if row.n > 1 { in_unit(row.min) } else { String::new() },
        if row.n > 1 { in_unit(row.p95) } else { String::new() },
        if row.n > 1 { in_unit(row.p99) } else { String::new() },
        beside.map(|beside| beside.what.clone()).unwrap_or_default(),
        beside.map(|beside| beside.median.map_or_else(|| "refused".to_owned(), in_unit)).unwrap_or_default(),
        row.ratio().map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
    ]
}

/// Three digits that matter, with the unit.
fn number(value: f64, unit: Unit) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    match unit {
        Unit::Millis => format!("{value:.digits$} ms"),
        Unit::Nanos => format!("{value:.0} ns"),
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::Mebibytes => format!("{value:.digits$} MiB"),
        Unit::Count => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, beside: f64) -> Row {
        let samples = |value| -> Samples { [value].into_iter().collect() };
        Row::new(Part::Sets, "ours", Unit::Millis, &samples(value)).beside("theirs", &samples(beside))
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(number(0.1234, Unit::Millis), "0.123 ms");
        assert_eq!(number(12.345, Unit::Mebibytes), "12.3 MiB");
        assert_eq!(number(1234.5, Unit::Millis), "1234 ms");
        assert_eq!(number(2.0, Unit::Count), "2");
    }

    #[test]
    fn there_is_no_ratio_to_nothing() {
        assert!(row(1.0, 0.0).ratio().is_none());
        assert_eq!(cells(&row(1.0, 4.0))[8], "0.25x");
        assert!(serde_json::to_value(row(1.0, 0.0)).unwrap()["ratio"].is_null());
    }

    #[test]
    fn what_could_not_be_done_beside_it_is_said() {
        let samples: Samples = [1.0].into_iter().collect();
        let row = Row::new(Part::Start, "ours", Unit::Millis, &samples).beside("theirs", &Samples::default());
        assert_eq!(cells(&row)[7], "refused");
        assert!(row.ratio().is_none());
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_each_gap() {
        let mut report = Report::new(Machine::here());
        report.take(Part::Sets, Ok(vec![row(1.0, 2.0), row(3.0, 4.0)]));
        report.take(Part::Start, Err(anyhow::anyhow!("no such back end")));
        let text = report.to_string();
        assert_eq!(text.lines().count(), 1 + 2 + 2 + LEGEND.lines().count() + 1, "{text}");
        assert!(text.ends_with("not measured: Start: no such back end\n"), "{text}");
    }
}
