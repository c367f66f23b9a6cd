//! The engine's inbox: a queue with a file descriptor, so that one `poll` waits for it and the kernel alike.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Puts messages in. Cheap to clone.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Sender<T>,
    wake: Arc<EventFd>,
}

/// Takes messages out.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: Receiver<T>,
    wake: Arc<EventFd>,
}

/// A connected pair.
pub fn mailbox<T>() -> nix::Result<(Mailbox<T>, Inbox<T>)> {
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
    let (sender, receiver) = mpsc::channel();
    Ok((Mailbox { queue: sender, wake: wake.clone() }, Inbox { queue: receiver, wake }))
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), wake: self.wake.clone() }
    }
}

impl<T> Mailbox<T> {
    /// Puts a message in. `false` when nobody takes messages out any more.
    pub fn send(&self, message: T) -> bool {
        let sent = self.queue.send(message).is_ok();
        // The counter cannot overflow before somebody reads it; the queue holds the message in any case.
        let _ = self.wake.write(1);
        sent
    }
}

impl<T> Inbox<T> {
    /// All messages that are there, in order.
    pub fn take(&self) -> Vec<T> {
        // First the bell, then the queue: a message in between rings again.
        let _ = self.wake.read();
        self.queue.try_iter().collect()
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_order_and_once() {
        let (mailbox, inbox) = mailbox().unwrap();
        mailbox.send(1);
        mailbox.clone().send(2);
        assert_eq!(inbox.take(), [1, 2]);
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn a_sender_learns_that_nobody_listens() {
        let (mailbox, inbox) = mailbox().unwrap();
        drop(inbox);
        assert!(!mailbox.send(1));
    }
}
