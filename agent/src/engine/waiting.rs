//! Those who wait until the kernel holds what was in the datastore when they asked.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

/// Where "it does" is sent.
#[derive(Debug)]
pub struct Answer {
    to: Sender<()>,
    /// Gone when whoever waited gave up.
    interest: Weak<()>,
}

/// Who waits. Dropping it gives up.
#[derive(Debug)]
pub struct Ticket {
    /// Gets one message when the wait is over.
    pub answer: Receiver<()>,
    _interest: Arc<()>,
}

/// A connected pair.
pub fn ticket() -> (Answer, Ticket) {
    let (to, answer) = channel();
    let interest = Arc::new(());
    (Answer { to, interest: Arc::downgrade(&interest) }, Ticket { answer, _interest: interest })
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    next: u64,
    all: BTreeMap<u64, (Answer, bool)>,
}

impl Waiting {
    /// Takes somebody in and numbers them.
    pub(super) fn add(&mut self, answer: Answer) -> u64 {
        self.all.retain(|_, (answer, _)| answer.interest.strong_count() > 0);
        self.next += 1;
        self.all.insert(self.next, (answer, false));
        self.next
    }

    /// The graph has heard everything that was in the datastore when these asked.
    pub(super) fn fenced(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some((_, fenced)) = self.all.get_mut(number) {
                *fenced = true;
            }
        }
    }

    /// The kernel holds everything that the graph has heard.
    pub(super) fn answer_fenced(&mut self) {
        self.all.retain(|_, (answer, fenced)| {
            if *fenced {
                // An error means that they gave up.
                let _ = answer.to.send(());
            }
            !*fenced
        });
    }

    /// Everybody's number, after a new engine took over: what the graph heard, it has to hear again.
    pub(super) fn start_over(&mut self) -> Vec<u64> {
        self.all.retain(|_, (answer, _)| answer.interest.strong_count() > 0);
        self.all.values_mut().for_each(|(_, fenced)| *fenced = false);
        self.all.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fenced_are_answered() {
        let mut waiting = Waiting::default();
        let ((first, first_ticket), (second, second_ticket)) = (ticket(), ticket());
        let number = waiting.add(first);
        waiting.add(second);
        waiting.fenced(&[number]);
        waiting.answer_fenced();
        assert_eq!(first_ticket.answer.try_recv(), Ok(()));
        assert!(second_ticket.answer.try_recv().is_err());
        assert_eq!(waiting.start_over(), [2]);
    }

    #[test]
    fn who_gives_up_is_forgotten() {
        let mut waiting = Waiting::default();
        for _ in 0..3 {
            let (answer, ticket) = ticket();
            waiting.add(answer);
            drop(ticket);
        }
        assert!(waiting.start_over().is_empty());
    }
}
