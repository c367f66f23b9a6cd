//! Keeps a consumer up to date with every object of some kinds, over any backend: list, watch, and list again
//! when the watch has expired, with the difference told as events so that no deletion is missed.
//!
//! ```text
//!  Datastore ──watch events──► queue ──► mirror thread ──► consumer
//!       ▲                                     │
//!       └──────────── list, watch ────────────┘
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tortie_api::kind::{Key, Kind};

use crate::{Datastore, Error, Stored, WatchEvent, WatchHandle};

#[cfg(test)]
mod tests;

/// How long to wait before a list that failed is tried again; doubled each time up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What the consumer of a mirror gets.
#[derive(Clone, Debug, PartialEq)]
pub enum MirrorEvent {
    /// The object is now this.
    Set(Stored),
    /// The object is gone.
    Remove(Key),
    /// Every kind has been listed: what was delivered is complete. Sent once.
    InSync,
    /// What was delivered since the last time belongs together and is complete, e.g. all changes of one file. Follows
    /// every change of a backend that sends a bookmark after each batch, as `local` does; others may keep it back.
    Settled,
}

/// A running mirror. Dropping it stops it and waits for its thread.
pub struct Mirror {
    store: Arc<dyn Datastore>,
    queue: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    /// Of the watch of `kind` with this number; older numbers are of watches that have been replaced.
    Event(Kind, u64, WatchEvent),
    /// Answer when everything before has been delivered.
    Fence(Sender<()>),
    Stop,
}

impl Mirror {
    /// Starts to mirror `kinds` into `consumer`, which is called from one thread of the mirror; `false` stops.
    pub fn start(
        store: Arc<dyn Datastore>,
        kinds: &[Kind],
        consumer: impl FnMut(MirrorEvent) -> bool + Send + 'static,
    ) -> Result<Self, Error> {
        let (queue, messages) = mpsc::channel();
        let worker = Worker {
            store: Arc::clone(&store),
            queue: queue.clone(),
            kinds: kinds.iter().map(|&kind| KindState::new(kind)).collect(),
            consumer: Box::new(consumer),
            is_in_sync: false,
            fences: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("mirror".to_owned())
            .spawn(move || worker.run(&messages))
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Self { store, queue, thread: Some(thread) })
    }

    /// Returns once every event of every write that was complete before this call has been handed to the
    /// consumer. Waits for kinds whose list is being retried. Not to be called by the consumer.
    pub fn sync(&self) -> Result<(), Error> {
        self.store.sync()?;
        let (answer, answered) = mpsc::channel();
        let stopped = || Error::Unavailable("the mirror has stopped".to_owned());
        self.queue.send(Message::Fence(answer)).map_err(|_| stopped())?;
        answered.recv().map_err(|_| stopped())
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").finish_non_exhaustive()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // An error means that the thread has ended by itself.
        let _ = self.queue.send(Message::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

struct KindState {
    kind: Kind,
    /// The number of the current watch.
    generation: u64,
    watch: Option<WatchHandle>,
    /// Whether changes came since the last bookmark.
    is_open: bool,
    /// What the consumer has, with the versions.
    known: HashMap<Key, Arc<str>>,
    /// When to list, unless the watch runs.
    list_at: Option<Instant>,
    retry: Duration,
}

impl KindState {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            generation: 0,
            watch: None,
            is_open: false,
            known: HashMap::new(),
            list_at: Some(Instant::now()),
            retry: RETRY_FIRST,
        }
    }
}

struct Worker {
    store: Arc<dyn Datastore>,
    queue: Sender<Message>,
    kinds: Vec<KindState>,
    consumer: Box<dyn FnMut(MirrorEvent) -> bool + Send>,
    is_in_sync: bool,
    /// Callers of [`Mirror::sync`] who wait for a list.
    fences: Vec<Sender<()>>,
}

/// The consumer wants no more.
struct Stopped;

impl Worker {
    fn run(mut self, messages: &Receiver<Message>) {
        while self.list_what_is_due().is_ok() {
            let message = match self.next_list() {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => messages.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let handled = match message {
                Ok(Message::Event(kind, generation, event)) => self.handle_event(kind, generation, event),
                Ok(Message::Fence(answer)) => {
                    self.fences.push(answer);
                    Ok(())
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
            };
            if handled.is_err() {
                return;
            }
        }
    }

    fn next_list(&self) -> Option<Instant> {
        self.kinds.iter().filter_map(|state| state.list_at).min()
    }

    fn list_what_is_due(&mut self) -> Result<(), Stopped> {
        for index in 0..self.kinds.len() {
            let state = &mut self.kinds[index];
            if state.list_at.is_none_or(|at| at > Instant::now()) {
                continue;
            }
            match self.list_and_watch(index)? {
                Ok(()) => self.kinds[index].retry = RETRY_FIRST,
                Err(error) => {
                    let state = &mut self.kinds[index];
                    tracing::warn!(kind = %state.kind, error = %chain(&error), "cannot list; trying again");
                    state.list_at = Some(Instant::now() + state.retry);
                    state.retry = (state.retry * 2).min(RETRY_MAX);
                }
            }
        }
        if self.next_list().is_none() {
            if !self.is_in_sync {
                self.is_in_sync = true;
                self.deliver(MirrorEvent::InSync)?;
            }
            for fence in self.fences.drain(..) {
                // The caller may have gone.
                let _ = fence.send(());
            }
        }
        Ok(())
    }

    /// Lists a kind, tells the consumer the difference, and watches from there.
    fn list_and_watch(&mut self, index: usize) -> Result<Result<(), Error>, Stopped> {
        let kind = self.kinds[index].kind;
        let list = match self.store.list(kind, None) {
            Ok(list) => list,
            Err(error) => return Ok(Err(error)),
        };
        let mut gone = std::mem::take(&mut self.kinds[index].known);
        for item in list.items {
            let before = gone.remove(&item.key);
            let is_news = before.as_ref() != Some(&item.resource_version);
            self.kinds[index].known.insert(item.key.clone(), Arc::clone(&item.resource_version));
            if is_news {
                self.deliver(MirrorEvent::Set(item))?;
            }
        }
        let mut gone: Vec<Key> = gone.into_keys().collect();
        gone.sort();
        for key in gone {
            self.deliver(MirrorEvent::Remove(key))?;
        }
        let state = &mut self.kinds[index];
        state.generation += 1;
        let (queue, generation) = (self.queue.clone(), state.generation);
        let sink = move |event| queue.send(Message::Event(kind, generation, event)).is_ok();
        match self.store.watch(kind, &list.revision, Box::new(sink)) {
            Ok(handle) => {
                state.watch = Some(handle);
                state.list_at = None;
                // A list is complete in itself.
                state.is_open = true;
                self.close(kind).map(Ok)
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn handle_event(&mut self, kind: Kind, generation: u64, event: WatchEvent) -> Result<(), Stopped> {
        let Some(state) = self.kinds.iter_mut().find(|s| s.kind == kind && s.generation == generation) else {
            return Ok(());
        };
        match event {
            WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                state.is_open = true;
                state.known.insert(item.key.clone(), Arc::clone(&item.resource_version));
                self.deliver(MirrorEvent::Set(item))
            }
            WatchEvent::Deleted(item) => {
                state.is_open = true;
                state.known.remove(&item.key);
                self.deliver(MirrorEvent::Remove(item.key))
            }
            WatchEvent::Bookmark(_) => self.close(kind),
            WatchEvent::Expired => {
                state.watch = None;
                state.list_at = Some(Instant::now());
                Ok(())
            }
        }
    }

    /// Everything of a kind has been told for now.
    fn close(&mut self, kind: Kind) -> Result<(), Stopped> {
        let was_open = self.kinds.iter().any(|state| state.is_open);
        self.kinds.iter_mut().filter(|state| state.kind == kind).for_each(|state| state.is_open = false);
        let is_open = self.kinds.iter().any(|state| state.is_open);
        if was_open && !is_open { self.deliver(MirrorEvent::Settled) } else { Ok(()) }
    }

    fn deliver(&mut self, event: MirrorEvent) -> Result<(), Stopped> {
        if (self.consumer)(event) { Ok(()) } else { Err(Stopped) }
    }
}

/// The error with its causes, for a log line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
