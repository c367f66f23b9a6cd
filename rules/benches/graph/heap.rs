//! Memory of the graph, on clusters of the shapes and sizes of Felix's own benches. Called as the bench of its
//! speed is; resources and events are dropped before the memory that stays is read.

mod cases;
mod meter;
mod report;
mod run;
mod shapes;

use std::alloc::System;
use std::process::ExitCode;

use cap::Cap;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Bytes in use and their peak, over the number of allocations.
#[global_allocator]
static HEAP: Cap<&StatsAlloc<System>> = Cap::new(&INSTRUMENTED_SYSTEM, usize::MAX);

fn heap() -> meter::Heap {
    let stats = INSTRUMENTED_SYSTEM.stats();
    meter::Heap {
        used: HEAP.allocated(),
        peak: HEAP.max_allocated(),
        allocations: stats.allocations + stats.reallocations,
    }
}

fn main() -> ExitCode {
    run::main(report::Columns::Heap)
}
