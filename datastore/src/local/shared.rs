//! What the threads of a store share.
//!
//! ```text
//!              ┌─ scanner thread ──┐ commit   ┌───────────────┐  next_delivery  ┌─ deliverer thread ─┐
//!  inotify ───►│ Scanner, blocking ├─────────►│ Folder · Feed ├────────────────►│ calls the sinks    │
//!              └───────▲───────────┘          └───────▲───────┘                 └────────────────────┘
//!                      └── refresh ── callers' threads ┘ get, list, watch
//! ```
//!
//! Nobody does I/O or calls a sink while holding the state.

use std::fmt;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::feed::{Delivery, Feed};
use super::folder::Folder;
use super::pending::GRACE;
use super::scanner::{Readings, Scanner};
use crate::{Error, Problem};

/// What is known, and who wants to know.
pub(super) struct State {
    /// The objects.
    pub(super) folder: Folder,
    /// What happened to them.
    pub(super) feed: Feed,
    /// The problems, as last logged.
    problems: Vec<Problem>,
    is_stopped: bool,
}

/// Requests to the scanner: callers count up `wanted`, the scanner answers by `done`.
#[derive(Default)]
struct Requests {
    wanted: u64,
    done: u64,
    /// Files that this store removed.
    removed: Vec<PathBuf>,
    is_stopped: bool,
}

/// Shared by the store, its two threads and its watch handles.
pub(super) struct Shared {
    /// The folder, absolute.
    pub(super) root: PathBuf,
    state: Mutex<State>,
    /// The state has changed: events to deliver, or events delivered.
    state_changed: Condvar,
    requests: Mutex<Requests>,
    requests_done: Condvar,
    waker: UnixStream,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A lock whose holder panicked is taken all the same: the state is changed in whole steps only.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// An empty state; `waker` is the other end of the one that the scanner thread listens to.
    pub(super) fn new(root: PathBuf, waker: UnixStream) -> Self {
        let state =
            State { folder: Folder::default(), feed: Feed::new(), problems: Vec::new(), is_stopped: false };
        Self {
            root,
            state: Mutex::new(state),
            state_changed: Condvar::new(),
            requests: Mutex::new(Requests::default()),
            requests_done: Condvar::new(),
            waker,
        }
    }

    /// The state. Not to be held while doing anything that takes time.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Tells the deliverer that there may be something to deliver.
    pub(super) fn notify(&self) {
        self.state_changed.notify_all();
    }

    /// Puts readings in force and logs problems that are new.
    pub(super) fn commit(&self, readings: Readings, scanner: &Scanner) {
        let mut state = self.state();
        state.folder.set_directory_faults(scanner.faults().clone());
        let changes = state.folder.apply(readings);
        state.feed.append(changes);
        let problems = state.folder.problems();
        let old = std::mem::replace(&mut state.problems, problems.clone());
        drop(state);
        self.notify();
        for problem in problems.iter().filter(|problem| !old.contains(problem)) {
            tracing::warn!(root = %self.root.display(), "{problem}");
        }
        for problem in old.iter().filter(|problem| !problems.contains(problem)) {
            tracing::info!(root = %self.root.display(), "solved: {problem}");
        }
    }

    /// Returns once the state has everything that was complete in the folder before this call.
    pub(super) fn refresh(&self) -> Result<(), Error> {
        self.refresh_after_removing(None)
    }

    /// The same after the caller has removed a file, relative to the root, for good.
    pub(super) fn refresh_after_removing(&self, path: Option<PathBuf>) -> Result<(), Error> {
        let stopped = || Error::Unavailable("the store has stopped".to_owned());
        let mut requests = lock(&self.requests);
        requests.wanted += 1;
        requests.removed.extend(path);
        let ours = requests.wanted;
        self.wake();
        while requests.done < ours {
            if requests.is_stopped {
                return Err(stopped());
            }
            requests = self.requests_done.wait(requests).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Returns once every watch has got every change that the state has now.
    pub(super) fn wait_for_delivery(&self) -> Result<(), Error> {
        let mut state = self.state();
        let end = state.feed.end();
        while !state.feed.is_delivered(end) {
            if state.is_stopped {
                return Err(Error::Unavailable("the store has stopped".to_owned()));
            }
            state = self.state_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Asks both threads to end.
    pub(super) fn stop(&self) {
        lock(&self.requests).is_stopped = true;
        self.wake();
        self.state().is_stopped = true;
        self.notify();
    }

    fn wake(&self) {
        // A full pipe wakes as well as one more byte.
        let _ = (&self.waker).write(&[0]);
    }

    /// The scanner thread: until stopped.
    pub(super) fn run_scanner(&self, mut scanner: Scanner, wakeups: &UnixStream) {
        let _end = EndOfScanner(self);
        // The requests being answered, and when at the latest.
        let mut answering: Option<(u64, Instant)> = None;
        loop {
            wait(&scanner, wakeups);
            drain(wakeups);
            let (wanted, done, removed) = {
                let mut requests = lock(&self.requests);
                if requests.is_stopped {
                    return;
                }
                (requests.wanted, requests.done, std::mem::take(&mut requests.removed))
            };
            let now = Instant::now();
            let readings = scanner.poll(now, wanted > done, removed);
            self.commit(readings, &scanner);
            if wanted > done {
                // Files that are gone now are gone for good, or back, after their grace.
                let (count, until) = *answering.get_or_insert((wanted, now + GRACE));
                let (count, is_done) =
                    if scanner.has_grace() { (count, until <= now) } else { (wanted, true) };
                if is_done {
                    answering = None;
                    lock(&self.requests).done = count;
                    self.requests_done.notify_all();
                    self.wake();
                }
            }
        }
    }

    /// The deliverer thread: until stopped.
    pub(super) fn run_deliverer(&self) {
        let mut state = self.state();
        while !state.is_stopped {
            let Some(Delivery { targets, event }) = state.feed.next_delivery() else {
                state = self.state_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            for (id, sink) in targets {
                // A sink that panics has ended its watch, and nobody else's.
                let wants_more =
                    catch_unwind(AssertUnwindSafe(|| lock(&sink)(event.clone()))).unwrap_or(false);
                self.state().feed.delivered(id, wants_more);
            }
            self.notify();
            state = self.state();
        }
    }
}

/// Releases those who wait for the scanner when its thread ends, however it ends.
struct EndOfScanner<'a>(&'a Shared);

impl Drop for EndOfScanner<'_> {
    fn drop(&mut self) {
        lock(&self.0.requests).is_stopped = true;
        self.0.requests_done.notify_all();
    }
}

/// Waits until something happens in the folder, somebody asks, or the scanner's time comes.
fn wait(scanner: &Scanner, wakeups: &UnixStream) {
    let timeout = match scanner.poll_timeout() {
        None => PollTimeout::NONE,
        // Up to the next millisecond, else we would come too early and turn in circles.
        Some(at) => {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        }
    };
    let mut fds = [
        PollFd::new(scanner.tree().as_fd(), PollFlags::POLLIN),
        PollFd::new(wakeups.as_fd(), PollFlags::POLLIN),
    ];
    // Interrupted by a signal: the caller looks at everything and comes back.
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => tracing::error!(%errno, "poll"),
    }
}

fn drain(mut wakeups: &UnixStream) {
    let mut buffer = [0; 64];
    while wakeups.read(&mut buffer).is_ok_and(|count| count > 0) {}
}
