//! Another program that writes to nf_tables in the same namespace, as kube-proxy does: how long it waits for its turn
//! while something else goes on. The kernel lets in one writer at a time.
//!
//! What it writes is its table, once more. That takes a turn as any transaction does, and changes nothing: changes by
//! others make whoever reads the tables begin again, which is another question than how long others wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tortie_dataplane::nft::{Removal, Socket, Transaction};
use tortie_rules::ruleset::nft::{Family, Table, TableId};

use super::{Samples, millis};
use crate::lab::Netns;

/// Between two transactions.
const PAUSE: Duration = Duration::from_millis(1);

/// How long the other program waited, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    /// What one that comes at any time has to wait: also those times count at which it was waiting already.
    pub(super) all: Samples,
    /// The longest.
    pub(super) longest: f64,
}

impl Waits {
    fn take(&mut self, wait: f64) {
        self.longest = self.longest.max(wait);
        let pause = millis(PAUSE);
        let mut left = wait;
        while left > 0.0 {
            self.all.push(left);
            left -= pause;
        }
    }
}

/// Does `work` while another program changes a table of its own in `netns`.
pub(super) fn during<T>(
    netns: &Netns,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Waits)> {
    let is_over = AtomicBool::new(false);
    let end = &is_over;
    thread::scope(|scope| {
        let (ready, is_ready) = channel();
        let writer = scope.spawn(move || netns.enter(|| write(end, &ready))?);
        // An error of the writer's is told when it has ended.
        let _ = is_ready.recv();
        let done = work();
        end.store(true, Ordering::Relaxed);
        let waits = writer.join().map_err(|_| anyhow::anyhow!("the other writer has failed"))?;
        Ok((done?, waits.context("the other writer")?))
    })
}

fn write(end: &AtomicBool, ready: &Sender<()>) -> anyhow::Result<Waits> {
    let table = Table { id: TableId::new(Family::Ipv4, "other"), comment: None };
    let (mut socket, mut waits) = (Socket::new(), Waits::default());
    let mut transaction = Transaction::new();
    transaction.add_table(&table);
    socket.commit(&mut transaction, None)?;
    ready.send(())?;
    while !end.load(Ordering::Relaxed) {
        let mut transaction = Transaction::new();
        transaction.add_table(&table);
        let started = Instant::now();
        socket.commit(&mut transaction, None)?;
        waits.take(millis(started.elapsed()));
        thread::sleep(PAUSE);
    }
    let mut transaction = Transaction::new();
    transaction.remove_table(&table.id, Removal::MustExist);
    socket.commit(&mut transaction, None)?;
    Ok(waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_counts_for_all_who_would_have_come_meanwhile() {
        let mut waits = Waits::default();
        waits.take(0.1);
        waits.take(3.5);
        assert_eq!(waits.all.len(), 5);
        assert!((waits.longest - 3.5).abs() < 1e-9);
        assert!((waits.all.median() - 1.5).abs() < 1e-9, "of 0.1, 0.5, 1.5, 2.5 and 3.5");
    }
}
