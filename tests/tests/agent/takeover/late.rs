//! The agent's engine with a datastore that keeps one kind of resource back until it is told to go on: so long the
//! engine is not in sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use libtest_mimic::Failed;
use serde_json::Value;
use tortie_agent::config::{Settings, from_environment};
use tortie_agent::engine::{self, Context, Input};
use tortie_agent::mailbox::{Mailbox, mailbox};
use tortie_agent::shared::Shared;
use tortie_api::control::Status;
use tortie_api::kind::{Key, Kind};
use tortie_datastore::local::LocalStore;
use tortie_datastore::{Datastore, Error, List, Problem, Revision, Sink, Stored, WatchHandle};

use super::node::Node;
use crate::Outcome;
use crate::scene::{Backend, eventually};

/// What is kept back: without it the engine would open all that policies close.
const KEPT_BACK: Kind = Kind::GlobalNetworkPolicy;

struct LateStore {
    inner: LocalStore,
    is_released: AtomicBool,
    refusals: AtomicUsize,
}

impl Datastore for LateStore {
    fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<List, Error> {
        if kind == KEPT_BACK && !self.is_released.load(Ordering::SeqCst) {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return Err(Error::Unavailable("not yet".to_owned()));
        }
        self.inner.list(kind, namespace)
    }

    fn get(&self, key: &Key) -> Result<Stored, Error> {
        self.inner.get(key)
    }

    fn watch(&self, kind: Kind, from: &Revision, sink: Sink) -> Result<WatchHandle, Error> {
        self.inner.watch(kind, from, sink)
    }

    fn create(&self, value: &Value) -> Result<Stored, Error> {
        self.inner.create(value)
    }

    fn update(&self, value: &Value) -> Result<Stored, Error> {
        self.inner.update(value)
    }

    fn delete(&self, key: &Key, resource_version: Option<&str>) -> Result<(), Error> {
        self.inner.delete(key, resource_version)
    }

    fn sync(&self) -> Result<(), Error> {
        self.inner.sync()
    }

    fn problems(&self) -> Vec<Problem> {
        self.inner.problems()
    }
}

/// An engine on a node, in this process.
pub(super) struct LateEngine {
    store: Arc<LateStore>,
    shared: Arc<Shared>,
    mailbox: Mailbox<Input>,
    thread: JoinHandle<Result<(), String>>,
}

impl LateEngine {
    /// Begins; it does not get in sync before [`release`](Self::release).
    pub(super) fn start(node: &Node, backend: Backend) -> Result<Self, Failed> {
        let store = Arc::new(LateStore {
            inner: LocalStore::open(node.datastore())?,
            is_released: AtomicBool::new(false),
            refusals: AtomicUsize::new(0),
        });
        let local_layers = vec![from_environment(backend.env().into_iter())];
        let (settings, _) = Settings::resolve(&local_layers);
        let shared = Arc::new(Shared::new(Status::default(), settings));
        let (mailbox, inbox) = mailbox()?;
        let context = Context {
            // Its programs end with the test.
            tenure: None,
            node: "node-a".to_owned(),
            store: store.clone(),
            local_layers,
            shared: shared.clone(),
            mailbox: mailbox.clone(),
            inbox,
        };
        let netns = node.netns.clone();
        let thread = thread::spawn(move || {
            let ran = netns.enter(move || engine::run(&context)).map_err(|error| error.to_string())?;
            ran.map_err(|error| format!("{error:#}"))
        });
        Ok(Self { store, shared, mailbox, thread })
    }

    /// Waits until it has asked in vain so many times.
    pub(super) fn expect_refusals(&self, times: usize) -> Outcome {
        eventually("an engine that asks for all kinds", || {
            let is_over = self.thread.is_finished();
            Ok((is_over || self.store.refusals.load(Ordering::SeqCst) >= times).then_some(()))
        })?;
        assert!(!self.shared.read(|status| status.in_sync));
        Ok(())
    }

    /// Lets it have the rest.
    pub(super) fn release(&self) {
        self.store.is_released.store(true, Ordering::SeqCst);
    }

    /// Ends it.
    pub(super) fn end(self) -> Outcome {
        self.mailbox.send(Input::Stop);
        self.thread.join().map_err(|_| "the engine panicked")??;
        Ok(())
    }
}
