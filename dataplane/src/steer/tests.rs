use super::*;
use crate::reconcile::{DriverError, Plan};

/// A driver of one number, with a failure switch for each operation.
#[derive(Default)]
struct Fake {
    phase: Option<Phase>,
    wanted: u32,
    actual: Option<u32>,
    kernel: u32,
    fail_observe: bool,
    can_go_on: bool,
    fail_apply: bool,
    observed: usize,
    applied: usize,
}

struct FakePlan(Option<u32>);

impl std::fmt::Display for FakePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Plan for FakePlan {
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Driver for Fake {
    fn name(&self) -> String {
        "fake".to_owned()
    }

    fn observe(&mut self) -> Result<(), DriverError> {
        self.observed += 1;
        if self.fail_observe {
            return Err(DriverError::Unexpected { what: "fake".to_owned(), content: "nothing".to_owned() });
        }
        self.actual = Some(self.kernel);
        Ok(())
    }

    fn can_go_on(&self) -> bool {
        self.can_go_on
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        let differs = self.actual.is_some_and(|actual| actual != self.wanted);
        Box::new(FakePlan((differs && self.phase == Some(phase)).then_some(self.wanted)))
    }

    fn apply(&mut self, _: Phase) -> Report {
        self.applied += 1;
        if self.fail_apply {
            let problem = Problem { object: "number".to_owned(), error: "refused".to_owned() };
            return Report { calls: 1, changed: 0, problems: vec![problem] };
        }
        self.kernel = self.wanted;
        self.actual = Some(self.wanted);
        Report { calls: 1, changed: 1, problems: Vec::new() }
    }
}

fn steered(phase: Phase, wanted: u32) -> Steered<Fake> {
    let fake = Fake { phase: Some(phase), wanted, ..Fake::default() };
    Steered::new(fake, Duration::from_mins(1), Duration::from_secs(5))
}

#[test]
fn a_pass_with_nothing_to_do_makes_no_call() {
    let mut driver = steered(Phase::Enforce, 1);
    let now = Instant::now();
    assert_eq!(pass(&mut [&mut driver], &Phase::ALL, now).changed, 1);
    assert_eq!(pass(&mut [&mut driver], &Phase::ALL, now), Report::default());
    assert_eq!((driver.driver.observed, driver.driver.applied), (1, 1));
}

#[test]
fn nothing_is_written_where_the_kernel_could_not_be_read() {
    let mut driver = steered(Phase::Enforce, 1);
    driver.driver.fail_observe = true;
    let now = Instant::now();
    pass(&mut [&mut driver], &Phase::ALL, now);
    assert_eq!(driver.driver.applied, 0);
    assert_eq!(driver.problems().len(), 1);
    let retry = driver.next_deadline(now).expect("it is tried again");
    driver.driver.fail_observe = false;
    pass(&mut [&mut driver], &Phase::ALL, retry);
    assert_eq!(driver.driver.kernel, 1);
    assert!(driver.problems().is_empty());
}

#[test]
fn drift_is_found_when_a_reading_is_due_and_not_before() {
    let mut driver = steered(Phase::Enforce, 1);
    let now = Instant::now();
    pass(&mut [&mut driver], &Phase::ALL, now);
    driver.driver.kernel = 7;
    pass(&mut [&mut driver], &Phase::ALL, now + Duration::from_secs(1));
    assert_eq!(driver.driver.kernel, 7);
    let due = driver.next_deadline(now).expect("a reading comes");
    pass(&mut [&mut driver], &Phase::ALL, due);
    assert_eq!(driver.driver.kernel, 1);
}

#[test]
fn a_failure_is_waited_out_with_growing_pauses_and_then_read_again() {
    let mut driver = steered(Phase::Enforce, 1);
    driver.driver.fail_apply = true;
    let start = Instant::now();
    pass(&mut [&mut driver], &Phase::ALL, start);
    let first = driver.next_deadline(start).expect("it is tried again") - start;
    assert_eq!(driver.driver.observed, 1);
    pass(&mut [&mut driver], &Phase::ALL, start + first);
    let second = driver.next_deadline(start).expect("it is tried again") - (start + first);
    assert!(second > first);
    assert_eq!(driver.driver.observed, 2);
}

#[test]
fn nothing_is_connected_while_rules_are_not_in_force() {
    let mut rules = steered(Phase::Enforce, 1);
    let mut routes = steered(Phase::Connect, 1);
    rules.driver.fail_apply = true;
    let now = Instant::now();
    pass(&mut [&mut rules, &mut routes], &Phase::ALL, now);
    assert_eq!(routes.driver.applied, 0);
    rules.driver.fail_apply = false;
    let retry = rules.next_deadline(now).expect("it is tried again");
    pass(&mut [&mut rules, &mut routes], &Phase::ALL, retry);
    assert_eq!(routes.driver.kernel, 1);
}

#[test]
fn a_driver_that_remembers_works_on_though_it_cannot_read_and_the_fault_stays_told() {
    let mut driver = steered(Phase::Enforce, 1);
    let start = Instant::now();
    pass(&mut [&mut driver], &Phase::ALL, start);
    (driver.driver.fail_observe, driver.driver.can_go_on) = (true, true);
    let later = start + Duration::from_mins(2);
    pass(&mut [&mut driver], &Phase::ALL, later);
    driver.driver.wanted = 2;
    assert_eq!(pass(&mut [&mut driver], &Phase::ALL, later).changed, 1);
    assert_eq!((driver.driver.kernel, driver.problems().len()), (2, 1));
    driver.driver.fail_observe = false;
    pass(&mut [&mut driver], &Phase::ALL, later + Duration::from_mins(1));
    assert_eq!(driver.problems(), []);
}

#[test]
fn what_others_touched_is_looked_at_at_once_and_not_too_often() {
    let mut driver = steered(Phase::Enforce, 1);
    let start = Instant::now();
    pass(&mut [&mut driver], &Phase::ALL, start);
    for times in 1..=20 {
        driver.driver.kernel = 7;
        driver.touched(start);
        pass(&mut [&mut driver], &Phase::ALL, start);
        let is_mended = driver.driver.kernel == 1;
        assert_eq!(is_mended, times <= LOOKS_AT_ONCE, "{times}");
    }
    let due = driver.next_deadline(start).unwrap();
    assert_eq!(due, start + LOOK_INTERVAL);
    pass(&mut [&mut driver], &Phase::ALL, due);
    assert_eq!(driver.driver.kernel, 1);
}
