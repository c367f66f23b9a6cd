use std::sync::Mutex;

use super::*;
use crate::reconcile::{DriverError, Plan};

/// A driver of one number that works as long as nobody opens its gate.
struct Gated {
    name: &'static str,
    wanted: u32,
    actual: Option<u32>,
    gate: Option<Arc<Mutex<()>>>,
    together: usize,
}

struct GatedPlan(bool);

impl fmt::Display for GatedPlan {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl Plan for GatedPlan {
    fn is_empty(&self) -> bool {
        self.0
    }
}

impl Driver for Gated {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn observe(&mut self) -> Result<(), DriverError> {
        if let Some(gate) = self.gate.as_ref().filter(|_| self.actual.is_some()) {
            drop(gate.lock().unwrap());
        }
        self.actual = Some(self.actual.unwrap_or(0));
        Ok(())
    }

    fn read_together(drivers: &mut [&mut Self]) {
        drivers.iter_mut().for_each(|driver| driver.together += 1);
    }

    fn plan(&self, _: Phase) -> Box<dyn Plan> {
        Box::new(GatedPlan(self.actual == Some(self.wanted)))
    }

    fn apply(&mut self, _: Phase) -> Report {
        if let Some(gate) = &self.gate {
            drop(gate.lock().unwrap());
        }
        self.actual = Some(self.wanted);
        Report { calls: 1, changed: 1, problems: Vec::new() }
    }
}

fn gated(name: &'static str, gate: Option<Arc<Mutex<()>>>) -> Apart<Gated> {
    let driver = Gated { name, wanted: 1, actual: None, gate, together: 0 };
    Apart::new(Steered::new(driver, Duration::ZERO, Duration::ZERO))
}

fn want(driver: &mut Apart<Gated>, number: u32) {
    driver.tell(move |steered| steered.driver.wanted = number);
}

/// Works until nobody is away.
const LONG: Duration = Duration::from_mins(1);

fn pass(drivers: &mut [&mut Apart<Gated>], patience: Duration, wake: &Wake) -> Report {
    let mut groups = [drivers.iter_mut().map(|driver| &mut **driver).collect::<Vec<_>>()];
    work(&mut groups, Phase::Enforce, Instant::now(), patience, wake)
}

#[test]
fn a_slow_driver_holds_up_no_other_and_is_told_what_it_missed() {
    let gate = Arc::new(Mutex::new(()));
    let (mut slow, mut quick) = (gated("slow", Some(gate.clone())), gated("quick", None));
    let (woken, wakes) = channel();
    let wake: Wake = Arc::new(move || woken.send(()).unwrap());
    let closed = gate.lock().unwrap();
    // The quick one is awaited: it is behind the slow one in line only for as long as there is patience.
    pass(&mut [&mut quick], LONG, &wake);
    pass(&mut [&mut slow, &mut quick], Duration::ZERO, &wake);
    assert!(slow.is_behind() && !slow.is_settled(Phase::Enforce));
    assert!(quick.is_settled(Phase::Enforce));
    want(&mut slow, 7);
    want(&mut quick, 7);
    assert_eq!(pass(&mut [&mut quick], LONG, &wake).changed, 1, "while the slow one is away");
    drop(closed);
    wakes.recv_timeout(LONG).expect("it says that it is back");
    // Taken in, told of the later number, and sent out with that.
    assert_eq!(pass(&mut [&mut slow, &mut quick], LONG, &wake).changed, 2);
    assert!(slow.is_settled(Phase::Enforce));
    assert_eq!(wakes.try_recv(), Err(TryRecvError::Empty), "who was awaited wakes nobody");
}

#[test]
fn drivers_of_a_group_that_are_due_read_together() {
    let (mut a, mut b, mut c) = (gated("a", None), gated("b", None), gated("c", None));
    let wake: Wake = Arc::new(|| ());
    pass(&mut [&mut a], LONG, &wake);
    want(&mut a, 2);
    pass(&mut [&mut a, &mut b, &mut c], LONG, &wake);
    let together = [&mut a, &mut b, &mut c].map(|driver| match &driver.seat {
        Seat::Here(steered) => steered.driver.together,
        Seat::Away(_) => 99,
    });
    assert_eq!(together, [0, 1, 1], "what was read already is not read again");
}

#[test]
fn who_has_nothing_to_do_stays_here() {
    let mut driver = gated("a", None);
    let wake: Wake = Arc::new(|| ());
    assert_eq!(pass(&mut [&mut driver], LONG, &wake).calls, 2, "a reading and a write");
    assert_eq!(pass(&mut [&mut driver], LONG, &wake), Report::default());
}

#[test]
fn one_that_is_away_can_be_waited_for() {
    let gate = Arc::new(Mutex::new(()));
    let mut slow = gated("slow", Some(gate.clone()));
    let wake: Wake = Arc::new(|| ());
    let closed = gate.lock().unwrap();
    pass(&mut [&mut slow], Duration::ZERO, &wake);
    assert!(slow.is_behind());
    drop(closed);
    slow.join();
    assert!(slow.is_settled(Phase::Enforce));
}

#[test]
fn one_that_only_reads_again_is_believed_what_it_knew() {
    let gate = Arc::new(Mutex::new(()));
    let mut slow = gated("slow", Some(gate.clone()));
    let wake: Wake = Arc::new(|| ());
    pass(&mut [&mut slow], LONG, &wake);
    let closed = gate.lock().unwrap();
    slow.tell(|steered| steered.touched(Instant::now()));
    pass(&mut [&mut slow], Duration::ZERO, &wake);
    assert!(matches!(slow.seat, Seat::Away(_)));
    assert!(slow.is_settled(Phase::Enforce) && !slow.is_behind());
    want(&mut slow, 2);
    assert!(!slow.is_settled(Phase::Enforce) && slow.is_behind(), "it has not been told yet");
    drop(closed);
    slow.join();
}
