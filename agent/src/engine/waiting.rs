//! Those who wait until the kernel holds what was in the datastore when they asked.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

/// Where "it does" is sent. Whoever waits gives up by dropping the receiver.
pub type Answer = Sender<()>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    next: u64,
    all: BTreeMap<u64, (Answer, bool)>,
}

impl Waiting {
    /// Takes somebody in and numbers them.
    pub(super) fn add(&mut self, answer: Answer) -> u64 {
        self.next += 1;
        self.all.insert(self.next, (answer, false));
        self.next
    }

    /// The graph has heard everything that was in the datastore when this one asked.
    pub(super) fn fenced(&mut self, number: u64) {
        if let Some((_, fenced)) = self.all.get_mut(&number) {
            *fenced = true;
        }
    }

    /// The kernel holds everything that the graph has heard.
    pub(super) fn answer_fenced(&mut self) {
        self.all.retain(|_, (answer, fenced)| {
            if *fenced {
                // An error means that they gave up.
                let _ = answer.send(());
            }
            !*fenced
        });
    }

    /// Everybody's number.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.all.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn only_the_fenced_are_answered() {
        let mut waiting = Waiting::default();
        let (first, first_answer) = channel();
        let (second, second_answer) = channel();
        let number = waiting.add(first);
        waiting.add(second);
        waiting.fenced(number);
        waiting.answer_fenced();
        assert_eq!(first_answer.try_recv(), Ok(()));
        assert!(second_answer.try_recv().is_err());
        assert_eq!(waiting.numbers(), [2]);
    }
}
