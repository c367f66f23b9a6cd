//! Drivers that work on threads of their own for as long as it takes: a slow one holds up no other, and one that
//! hangs until it is killed holds up only itself.
//!
//! ```text
//!  tell ──► here? ── yes: at once                 work ──► driver goes to a thread: reads, writes
//!            └────── no: when it is back            │  patience ends: the others go on without it
//!                                                   └─ it is back: result now, or at the next work, after a wake
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::{Steer, Steered};
use crate::reconcile::{Driver, Phase, Problem, Report};

/// From then on it is a problem that a driver is not back.
const SLOW: Duration = Duration::from_secs(5);

type Back<D> = (Box<Steered<D>>, Report);
type Telling<D> = Box<dyn FnOnce(&mut Steered<D>) + Send>;

/// Called from a driver's thread when it is back late.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A steered driver that is here, or away at work.
pub struct Apart<D> {
    name: String,
    seat: Seat<D>,
    /// What it is to be told when it is back.
    untold: Vec<Telling<D>>,
}

enum Seat<D> {
    Here(Box<Steered<D>>),
    Away(Journey<D>),
}

struct Journey<D> {
    back: Receiver<Back<D>>,
    since: Instant,
    /// Whoever waits for it has ceased to: it says so when it is back.
    is_late: Arc<AtomicBool>,
    /// It left with nothing to write, only to read again.
    is_settled: bool,
    /// What it had met before.
    problems: Vec<Problem>,
}

impl<D> fmt::Debug for Apart<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_here = matches!(self.seat, Seat::Here(_));
        f.debug_struct("Apart").field("name", &self.name).field("is_here", &is_here).finish_non_exhaustive()
    }
}

impl<D: Driver + Send + 'static> Apart<D> {
    /// A driver that is here.
    pub fn new(steered: Steered<D>) -> Self {
        Self { name: steered.driver.name(), seat: Seat::Here(Box::new(steered)), untold: Vec::new() }
    }

    /// Tells the driver something: at once, or when it is back.
    pub fn tell(&mut self, telling: impl FnOnce(&mut Steered<D>) + Send + 'static) {
        match &mut self.seat {
            Seat::Here(steered) => telling(steered),
            Seat::Away(_) => self.untold.push(Box::new(telling)),
        }
    }

    /// Whether the driver is at work longer than others wait for it, and has something to write.
    pub fn is_behind(&self) -> bool {
        matches!(&self.seat, Seat::Away(journey) if !journey.is_settled || !self.untold.is_empty())
    }

    /// Whether the kernel is known to hold all that this phase is about. One that only reads is believed what it knew.
    pub fn is_settled(&self, phase: Phase) -> bool {
        match &self.seat {
            Seat::Here(steered) => steered.is_settled(phase),
            Seat::Away(_) => !self.is_behind(),
        }
    }

    /// When this driver wants to be looked at; one that is away says so itself.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match &self.seat {
            Seat::Here(steered) => steered.next_deadline(now),
            Seat::Away(journey) => journey.since.checked_add(SLOW).filter(|slow| *slow > now),
        }
    }

    /// What is not as it should be.
    pub fn problems(&self) -> Vec<Problem> {
        match &self.seat {
            Seat::Here(steered) => steered.problems(),
            Seat::Away(journey) => {
                let mut problems = journey.problems.clone();
                if journey.since.elapsed() >= SLOW {
                    let error = format!("still at work after {} s; what is newer waits", SLOW.as_secs());
                    problems.push(Problem { object: self.name.clone(), error });
                }
                problems
            }
        }
    }

    /// Waits for a driver that is away, however long that takes: so that nothing old is written after something new.
    pub fn join(&mut self) {
        if let Seat::Away(journey) = &self.seat
            && let Ok((steered, _)) = journey.back.recv()
        {
            self.seat(steered);
        }
    }

    fn seat(&mut self, mut steered: Box<Steered<D>>) {
        self.untold.drain(..).for_each(|telling| telling(&mut steered));
        self.seat = Seat::Here(steered);
    }

    /// Takes back a driver that has come by `deadline`; at once when that has passed.
    fn collect(&mut self, deadline: Instant, report: &mut Report) {
        let Seat::Away(journey) = &self.seat else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        let back = journey.back.recv_timeout(left).or_else(|error| {
            journey.is_late.store(true, Ordering::SeqCst);
            // It may have come between the two.
            match (error, journey.back.try_recv()) {
                (_, Ok(back)) => Ok(back),
                (RecvTimeoutError::Timeout, Err(TryRecvError::Empty)) => Err(()),
                _ => panic!("the thread of {} has died", self.name),
            }
        });
        if let Ok((steered, done)) = back {
            report.merge(done);
            self.seat(steered);
        }
    }
}

impl<D: Driver> Steered<D> {
    /// Whether there is anything to read or to do for this phase.
    fn has_work(&self, phase: Phase, now: Instant) -> bool {
        let is_look = self.state.is_known && self.state.look_at.is_some_and(|at| at <= now);
        let is_asked_again = self.state.problems.contains_key(&Some(phase));
        let is_behind = self.state.is_known && (is_asked_again || !self.driver.plan(phase).is_empty());
        is_look || is_behind || self.is_read_due(now)
    }
}

/// Lets all drivers that have something to do read what is due and do this phase, each on its own thread; those of a
/// group read together. Waits for them as long as `patience`; `wake` is called when a later one is back, and the next
/// call takes it in. The report is of those that came back.
///
/// # Panics
/// When the thread of a driver has panicked.
pub fn work<D: Driver + Send + 'static>(
    groups: &mut [Vec<&mut Apart<D>>],
    phase: Phase,
    now: Instant,
    patience: Duration,
    wake: &Wake,
) -> Report {
    let mut report = send_out(groups, phase, now, wake);
    let deadline = Instant::now() + patience;
    groups
        .iter_mut()
        .for_each(|group| report.merge(await_back(group.iter_mut().map(|d| &mut **d), deadline)));
    report
}

/// The first half of [`work`]: the drivers set out. The report is of those that were late and are back.
///
/// # Panics
/// When the thread of a driver has panicked.
pub fn send_out<D: Driver + Send + 'static>(
    groups: &mut [Vec<&mut Apart<D>>],
    phase: Phase,
    now: Instant,
    wake: &Wake,
) -> Report {
    let mut report = Report::default();
    groups.iter_mut().flatten().for_each(|driver| driver.collect(now, &mut report));
    for group in groups.iter_mut() {
        set_out(group, phase, now, wake);
    }
    report
}

/// The second half: waits for these drivers until `deadline`.
///
/// # Panics
/// When the thread of a driver has panicked.
pub fn await_back<'a, D: Driver + Send + 'static>(
    drivers: impl IntoIterator<Item = &'a mut Apart<D>>,
    deadline: Instant,
) -> Report {
    let mut report = Report::default();
    drivers.into_iter().for_each(|driver| driver.collect(deadline, &mut report));
    report
}

/// A driver on its way, and where it is awaited.
struct Traveller<D> {
    steered: Box<Steered<D>>,
    home: Sender<Back<D>>,
    is_late: Arc<AtomicBool>,
}

fn set_out<D: Driver + Send + 'static>(group: &mut [&mut Apart<D>], phase: Phase, now: Instant, wake: &Wake) {
    let mut travellers = Vec::new();
    for driver in group.iter_mut() {
        if !matches!(&driver.seat, Seat::Here(steered) if steered.has_work(phase, now)) {
            continue;
        }
        let (home, back) = channel();
        let is_late = Arc::new(AtomicBool::new(false));
        let problems = driver.problems();
        let (since, is_settled) = (Instant::now(), driver.is_settled(phase));
        let journey = Journey { back, since, is_late: is_late.clone(), is_settled, problems };
        if let Seat::Here(steered) = std::mem::replace(&mut driver.seat, Seat::Away(journey)) {
            travellers.push(Traveller { steered, home, is_late });
        }
    }
    if travellers.is_empty() {
        return;
    }
    let wake = wake.clone();
    // Handed over once the thread is there, so that nobody is lost when it cannot be.
    let (door, arrivals) = channel::<Vec<Traveller<D>>>();
    let late_wake = wake.clone();
    let spawned = std::thread::Builder::new().name("drivers".to_owned()).spawn(move || {
        if let Ok(travellers) = arrivals.recv() {
            travel(travellers, phase, now, &late_wake);
        }
    });
    match spawned {
        Ok(_) => {
            if let Err(unsent) = door.send(travellers) {
                travel(unsent.0, phase, now, &wake);
            }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot start a thread; working here");
            travel(travellers, phase, now, &wake);
        }
    }
}

/// On the group's thread.
fn travel<D: Driver + Send>(mut travellers: Vec<Traveller<D>>, phase: Phase, now: Instant, wake: &Wake) {
    let due = travellers.iter_mut().map(|t| &mut t.steered).filter(|steered| steered.is_read_due(now));
    let mut due: Vec<&mut D> = due.map(|steered| &mut steered.driver).collect();
    if due.len() > 1 {
        D::read_together(&mut due);
    }
    let mut travellers = travellers.into_iter();
    let first = travellers.next();
    std::thread::scope(|scope| {
        for traveller in travellers {
            scope.spawn(move || run(traveller, phase, now, wake));
        }
        first.into_iter().for_each(|traveller| run(traveller, phase, now, wake));
    });
}

fn run<D: Driver>(mut traveller: Traveller<D>, phase: Phase, now: Instant, wake: &Wake) {
    let mut report = Report::default();
    traveller.steered.read_if_due(now, &mut report);
    report.merge(traveller.steered.run(phase, now));
    // Nobody may be there any more: then nobody is left who wants to know.
    let _ = traveller.home.send((traveller.steered, report));
    if traveller.is_late.load(Ordering::SeqCst) {
        wake();
    }
}

#[cfg(test)]
mod tests;
