//! When to try again and when to read again. Plain arithmetic: the time is always handed in.

use std::time::{Duration, Instant};

/// Waiting times that double from a first to a longest.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and stays at `longest` once it is reached.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first.min(longest) }
    }

    /// How long to wait now; the next answer is twice that.
    pub fn wait(&mut self) -> Duration {
        let now = self.next;
        self.next = self.next.saturating_mul(2).min(self.longest);
        now
    }

    /// It worked: the next failure starts over.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }
}

/// Lets something happen at once, and when it happens often, at a steady interval.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// How far the schedule may run ahead of the clock.
    ahead: Duration,
    interval: Duration,
    /// When everything that was let through so far would be done, one per interval.
    done: Option<Instant>,
}

impl Throttle {
    /// `burst` times at once (at least one), then once per `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { ahead: interval * burst.saturating_sub(1), interval, done: None }
    }

    /// When the next one may happen; it is taken to happen then.
    pub fn next(&mut self, now: Instant) -> Instant {
        let done = self.done.map_or(now, |done| done.max(now));
        let at = done.checked_sub(self.ahead).map_or(now, |at| at.max(now));
        self.done = done.checked_add(self.interval);
        at
    }
}

/// Longest time between a write and a check of it; Felix's value.
const LAST_CHECK: Duration = Duration::from_hours(1);
/// Shortest first check; Felix's value.
const MIN_FIRST_CHECK: Duration = Duration::from_millis(50);

/// Decides when a kernel object is read again: at a steady interval, and after a write at growing distances
/// from it, since another program that rewrites the same object does so at about the same time.
#[derive(Clone, Debug)]
pub struct ResyncTimer {
    /// Zero: never for this reason.
    refresh: Duration,
    first_check: Duration,
    last_read: Option<Instant>,
    last_write: Option<Instant>,
    /// Distance of the next check from the last write.
    check: Duration,
    slowest_read: Duration,
    slowest_write: Duration,
}

impl ResyncTimer {
    /// `refresh` is e.g. `IptablesRefreshInterval` (0 turns it off), `first_check` e.g.
    /// `IptablesPostWriteCheckIntervalSecs`, at least 50 ms.
    pub fn new(refresh: Duration, first_check: Duration) -> Self {
        let first_check = first_check.max(MIN_FIRST_CHECK);
        Self {
            refresh,
            first_check,
            last_read: None,
            last_write: None,
            check: first_check,
            slowest_read: Duration::ZERO,
            slowest_write: Duration::ZERO,
        }
    }

    /// The object was read; `took` is how long that lasted.
    pub fn read(&mut self, now: Instant, took: Duration) {
        self.last_read = Some(now);
        self.slowest_read = decayed(self.slowest_read).max(took);
        let Some(written) = self.last_write else { return };
        while self.check <= LAST_CHECK && written.checked_add(self.check).is_some_and(|at| at <= now) {
            self.check *= 2;
        }
        if self.check > LAST_CHECK {
            self.last_write = None;
        }
    }

    /// The object was written; `took` is how long that lasted.
    pub fn wrote(&mut self, now: Instant, took: Duration) {
        self.slowest_write = decayed(self.slowest_write).max(took);
        self.last_write = Some(now);
        // Reading must not take up the greater part of the time.
        let least = self.slowest_read.saturating_add(self.slowest_write).saturating_mul(2);
        self.check = self.first_check.max(least);
    }

    /// When to read next; `None` when only a failure or a change would be a reason. At once when never read.
    /// A time too far away for the clock never comes.
    pub fn next_resync(&self, now: Instant) -> Option<Instant> {
        let Some(read) = self.last_read else { return Some(now) };
        let refresh = if self.refresh.is_zero() { None } else { read.checked_add(self.refresh) };
        let check = self.last_write.and_then(|written| written.checked_add(self.check));
        match (refresh, check) {
            (Some(refresh), Some(check)) => Some(refresh.min(check)),
            (refresh, check) => refresh.or(check),
        }
    }

    /// Whether it is time to read.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_resync(now).is_some_and(|at| at <= now)
    }
}

/// Peaks lose a hundredth at each new measurement.
fn decayed(peak: Duration) -> Duration {
    peak / 100 * 99
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_success() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        let waits: Vec<u64> = (0..4).map(|_| backoff.wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5]);
        backoff.reset();
        assert_eq!(backoff.wait(), SECOND);
    }

    #[test]
    fn a_throttle_lets_a_burst_through_and_then_one_per_interval() {
        let start = Instant::now();
        let mut throttle = Throttle::new(3, SECOND);
        let at: Vec<u64> = (0..5).map(|_| (throttle.next(start) - start).as_secs()).collect();
        assert_eq!(at, [0, 0, 0, 1, 2]);
        let later = start + 60 * SECOND;
        let at: Vec<u64> = (0..4).map(|_| (throttle.next(later) - later).as_secs()).collect();
        assert_eq!(at, [0, 0, 0, 1], "a pause brings no more than the burst");
    }

    #[test]
    fn an_object_never_read_is_due_at_once() {
        let timer = ResyncTimer::new(180 * SECOND, 5 * SECOND);
        assert!(timer.is_due(Instant::now()));
    }

    /// Reads whenever the timer asks; the seconds after `start` at which it did.
    fn readings(timer: &mut ResyncTimer, start: Instant, count: usize) -> Vec<u64> {
        let mut now = start;
        let mut at = Vec::new();
        while at.len() < count {
            let Some(next) = timer.next_resync(now) else { break };
            now = next;
            at.push((now - start).as_secs());
            timer.read(now, Duration::ZERO);
        }
        at
    }

    #[test]
    fn after_a_write_checks_double_and_the_refresh_goes_on() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(180 * SECOND, 5 * SECOND);
        timer.read(start, Duration::ZERO);
        timer.wrote(start, Duration::ZERO);
        let at = readings(&mut timer, start, 9);
        assert_eq!(at, [5, 10, 20, 40, 80, 160, 320, 500, 640]);
    }

    #[test]
    fn checks_end_after_an_hour_when_there_is_no_refresh() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(Duration::ZERO, 5 * SECOND);
        timer.read(start, Duration::ZERO);
        assert_eq!(timer.next_resync(start), None);
        timer.wrote(start, Duration::ZERO);
        assert_eq!(readings(&mut timer, start, 100), [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560]);
    }

    #[test]
    fn a_slow_table_is_checked_later() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(180 * SECOND, 5 * SECOND);
        timer.read(start, 10 * SECOND);
        timer.wrote(start, 20 * SECOND);
        assert_eq!(timer.next_resync(start), Some(start + 60 * SECOND));
    }

    #[test]
    fn a_new_write_starts_the_checks_again() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(180 * SECOND, 5 * SECOND);
        timer.read(start, Duration::ZERO);
        timer.wrote(start, Duration::ZERO);
        assert_eq!(readings(&mut timer, start, 4), [5, 10, 20, 40]);
        let later = start + 41 * SECOND;
        timer.wrote(later, Duration::ZERO);
        assert_eq!(readings(&mut timer, later, 2), [5, 10]);
    }

    /// Seconds as a configuration may have them; no clock counts that far.
    const BEYOND_THE_CLOCK: Duration = Duration::from_secs(10_000_000_000_000_000_000);

    #[test]
    fn an_interval_beyond_the_clock_never_ends() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(BEYOND_THE_CLOCK, BEYOND_THE_CLOCK);
        assert!(timer.is_due(start));
        timer.read(start, Duration::ZERO);
        assert_eq!(timer.next_resync(start), None);
        timer.wrote(start, Duration::ZERO);
        assert_eq!(timer.next_resync(start), None);
        timer.read(start + SECOND, Duration::ZERO);
        assert!(!timer.is_due(start + SECOND));
    }

    #[test]
    fn a_refresh_beyond_the_clock_leaves_the_checks_after_a_write() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(BEYOND_THE_CLOCK, 5 * SECOND);
        timer.read(start, Duration::ZERO);
        timer.wrote(start, Duration::ZERO);
        assert_eq!(readings(&mut timer, start, 3), [5, 10, 20]);
    }

    #[test]
    fn an_endless_write_is_no_reason_to_check() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(180 * SECOND, 5 * SECOND);
        timer.read(start, Duration::MAX);
        timer.wrote(start, Duration::MAX);
        assert_eq!(timer.next_resync(start), Some(start + 180 * SECOND));
    }
}
