//! Speed of the graph, on clusters of the shapes and sizes of Felix's own benches.
//!
//! ```text
//! cargo bench -p tortie-rules --bench graph                 every case
//! cargo bench -p tortie-rules --bench graph -- customers    those whose name contains "customers"
//! cargo bench -p tortie-rules --bench graph-heap            the memory of the same
//! ```
//!
//! The resources are made before the clock starts. Allocations are counted by the other bench, because counting
//! takes a good part of the time of those that are counted.

mod cases;
mod meter;
mod report;
mod run;
mod shapes;

use std::process::ExitCode;

/// Nothing is counted.
fn heap() -> meter::Heap {
    meter::Heap::default()
}

fn main() -> ExitCode {
    run::main(report::Columns::Time)
}
