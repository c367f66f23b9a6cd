//! Time and memory between two points of a program.

use std::time::Duration;

use nix::time::ClockId;

/// What the allocator counted so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heap {
    /// Bytes in use.
    pub(crate) used: usize,
    /// Bytes that were in use at once, at most.
    pub(crate) peak: usize,
    /// Allocations, changes of size included.
    pub(crate) allocations: usize,
}

/// What a case took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Things that were handled, for the time per unit.
    pub(crate) units: usize,
    /// Of the processor, while the clock ran.
    pub(crate) time: Duration,
    /// Bytes beyond those in use when the clock was started first, at most.
    pub(crate) peak: usize,
    /// Bytes that stayed, without inputs and events.
    pub(crate) retained: usize,
    /// Allocations while the clock ran, changes of size included.
    pub(crate) allocations: usize,
}

/// A stopwatch that can be stopped and started again.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    figures: Figures,
    base: Option<usize>,
}

impl Meter {
    /// Runs `work` with the clock on, as so many units.
    pub(crate) fn measure<T>(&mut self, units: usize, work: impl FnOnce() -> T) -> T {
        let before = crate::heap();
        let base = *self.base.get_or_insert(before.used);
        let start = processor_time();
        let result = work();
        self.figures.time += processor_time().saturating_sub(start);
        let after = crate::heap();
        self.figures.allocations += after.allocations - before.allocations;
        self.figures.peak = after.peak.saturating_sub(base);
        self.figures.units += units;
        result
    }

    /// The figures; `before` are the bytes in use before the inputs were made.
    pub(crate) fn finish(mut self, before: usize) -> Figures {
        self.figures.retained = crate::heap().used.saturating_sub(before);
        self.figures
    }
}

/// What this process has used of the processor. There is one thread, so this is the time that it would take on a
/// quiet machine.
fn processor_time() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().expect("the clock is always there").into()
}
