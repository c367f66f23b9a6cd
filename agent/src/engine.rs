//! The agent's heart: one thread that takes changes of the datastore and of the kernel's interfaces, and brings
//! the kernel in line.
//!
//! ```text
//!  mirror ─┐                      ┌─ sets ──► ipset ─┐
//!  socket ─┼─► inbox ─► graph ─► compile ─ tables ─► iptables ─┼─► kernel
//!  signal ─┘              └─ endpoints ─► routes ───┘
//!                links ◄───────────────────────── netlink events
//! ```
//!
//! Before the datastore is in sync nothing is written. A change of settings ends the engine and another begins
//! with the new ones: it reads kernel and datastore anew and writes only what differs.

mod compiler;
mod family;
mod feed;
mod kernel;
mod layers;
mod mode;
mod offload;
mod revocation;
mod sets;
mod sweep;
mod tenure;
mod waiting;
mod watch;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tortie_api::Kind;
use tortie_datastore::Datastore;
use tortie_datastore::mirror::{Mirror, MirrorEvent};
use tortie_rules::graph::{Graph, Options as GraphOptions};

use self::feed::Feed;
use self::kernel::Kernel;
use self::layers::{FelixLayers, report_settings};
use self::mode::ModeWatch;
pub use self::tenure::Tenure;
use self::waiting::Waiting;
pub use self::waiting::{Answer, Ticket, ticket};
use crate::config::{Layer, Settings};
use crate::mailbox::{Inbox, Mailbox};
use crate::shared::Shared;

/// What the engine's thread is told.
#[derive(Debug)]
pub enum Input {
    /// The datastore changed; the number is that of the engine whose mirror says so.
    Mirror(u64, MirrorEvent),
    /// Somebody waits until what is in the datastore now is in the kernel.
    Wait(Answer),
    /// Everything that was in the datastore when these began to wait has been told.
    Fence(u64, Vec<u64>),
    /// A table that took long is done.
    Woken,
    /// End, and leave everything in force.
    Stop,
}

/// Why an engine ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Stop,
    /// Settings changed.
    Restart,
}

/// What outlives a change of settings.
pub struct Context {
    /// Keeps agents on one socket, and their programs, apart; none where there can be no lock.
    pub tenure: Option<Tenure>,
    /// This node.
    pub node: String,
    /// Where resources come from.
    pub store: Arc<dyn Datastore>,
    /// Settings from file, then from the environment.
    pub local_layers: Vec<Layer>,
    /// What others may see.
    pub shared: Arc<Shared>,
    /// Where inputs come in.
    pub mailbox: Mailbox<Input>,
    /// Where they are taken out.
    pub inbox: Inbox<Input>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("node", &self.node).finish_non_exhaustive()
    }
}

/// How long changes are held back for those that belong to them. A datastore that says where a batch ends does so
/// within microseconds.
const SETTLE: Duration = Duration::from_millis(100);

/// How long to wait before an engine that could not be started over is tried again.
const START_OVER: Duration = Duration::from_secs(2);

/// Runs until told to stop.
///
/// # Errors
/// When the first engine cannot be started, or the kernel refuses to wait. Later ones are tried until they can: what
/// the one before left stays in force meanwhile.
pub fn run(context: &Context) -> anyhow::Result<()> {
    let mut waiting = Waiting::default();
    let mut known = FelixLayers::new(&context.node);
    if tenure::begin(context, &mut waiting)? {
        return Ok(());
    }
    for generation in 1.. {
        let mut engine = match Engine::start(context, generation, &known) {
            Ok(engine) => engine,
            Err(error) if generation == 1 => return Err(error),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "cannot start over; trying again");
                let why = format!("the new settings cannot be brought in force yet: {error:#}");
                context.shared.set_start_problem(&why);
                if wait_for_stop(context, START_OVER, &mut waiting)? {
                    break;
                }
                continue;
            }
        };
        engine.wait_on(std::mem::take(&mut waiting));
        match engine.run()? {
            End::Stop => break,
            End::Restart => {
                tracing::info!("settings changed; starting over with the new ones");
                engine.kernel.join();
                waiting = std::mem::take(&mut engine.waiting);
                known = engine.felix;
            }
        }
    }
    Ok(())
}

/// Takes inputs while there is no engine. `true` when told to stop.
fn wait_for_stop(context: &Context, time: Duration, waiting: &mut Waiting) -> anyhow::Result<bool> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        sleep_until(&mut [context.inbox.as_fd()], Some(deadline))?;
        for input in context.inbox.take() {
            match input {
                Input::Stop => return Ok(true),
                Input::Wait(answer) => {
                    waiting.add(answer);
                }
                // Of an engine that is no more.
                Input::Mirror(..) | Input::Fence(..) | Input::Woken => {}
            }
        }
    }
    Ok(false)
}

/// Sleeps until one of the descriptors is readable or the time has come.
fn sleep_until(fds: &mut [BorrowedFd<'_>], until: Option<Instant>) -> anyhow::Result<()> {
    let timeout = match until {
        None => PollTimeout::NONE,
        // Rounded up, or the thread would spin through the last millisecond.
        Some(at) => {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        }
    };
    let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

struct Engine<'a> {
    context: &'a Context,
    generation: u64,
    mirror: Arc<Mirror>,
    felix: FelixLayers,
    settings: Settings,
    mode: ModeWatch,
    graph: Graph,
    feed: Feed,
    kernel: Kernel,
    waiting: Waiting,
    in_sync: bool,
    /// Since when changes have come of which the rest may still be to come.
    unsettled_since: Option<Instant>,
    published: Published,
}

/// What others were told last; they are told again when it differs.
#[derive(Debug, Default, PartialEq)]
struct Published {
    is_applied: bool,
    counts: (usize, usize, usize),
    pending: Vec<String>,
    kernel: Vec<tortie_dataplane::reconcile::Problem>,
    /// Of the kernel too, but without consequence for what is applied.
    notes: Vec<tortie_dataplane::reconcile::Problem>,
    /// Of the graph, which stands for its problems.
    revision: Option<u64>,
}

impl<'a> Engine<'a> {
    /// `known` are the layers of the engine before.
    fn start(context: &'a Context, generation: u64, known: &FelixLayers) -> anyhow::Result<Self> {
        let felix = known.read_again(context)?;
        let (wanted, mut problems) = felix.resolve(&context.local_layers);
        let mode = ModeWatch::open(&wanted);
        let settings = mode.effective(&wanted, &mut problems);
        let mailbox = context.mailbox.clone();
        let wake = Arc::new(move || {
            mailbox.send(Input::Woken);
        });
        let kernel = Kernel::open(&settings, mode.is_native(), wake)?;
        problems.extend(kernel.left_out.iter().cloned());
        report_settings(context, &settings, &problems);
        let mut graph = Graph::new(GraphOptions {
            node: context.node.clone(),
            interface_prefixes: settings.compile.interface_prefixes.clone(),
            suppress_covered: false,
        });
        if settings.compile.istio_dscp.is_some() {
            graph.want_mesh();
        }
        let mut feed = Feed::new(&settings, &kernel);
        feed.set_links(&kernel.all_links(), &mut graph);
        let mailbox = context.mailbox.clone();
        let mirror = Mirror::start(context.store.clone(), &Kind::ALL, move |event| {
            mailbox.send(Input::Mirror(generation, event))
        })?;
        context.shared.update(|s| {
            kernel.backend().clone_into(&mut s.iptables_backend);
            (s.in_sync, s.applied) = (false, false);
        });
        Ok(Self {
            context,
            generation,
            mirror: Arc::new(mirror),
            felix,
            settings: wanted,
            mode,
            graph,
            feed,
            kernel,
            waiting: Waiting::default(),
            in_sync: false,
            unsettled_since: None,
            published: Published::default(),
        })
    }

    /// Takes over those who wait.
    fn wait_on(&mut self, mut waiting: Waiting) {
        let numbers = waiting.start_over();
        self.waiting = waiting;
        if !numbers.is_empty() {
            self.fence(numbers);
        }
    }

    fn run(&mut self) -> anyhow::Result<End> {
        loop {
            self.context.shared.set_busy(true);
            if let Some(end) = self.take_inputs() {
                return Ok(end);
            }
            self.take_links();
            let now = Instant::now();
            if self.mode.has_changed(now) {
                return Ok(End::Restart);
            }
            self.kernel.poll_rules(now);
            let hold = self.unsettled_since.map(|since| since + SETTLE).filter(|until| *until > now);
            if self.in_sync && hold.is_none() {
                self.apply(now);
            }
            self.context.shared.set_busy(false);
            // Before the datastore is in sync nothing is due.
            let deadline = if self.in_sync { hold.or(self.kernel.next_deadline(now)) } else { None };
            let deadline = deadline.into_iter().chain(self.mode.next_deadline()).min();
            let mut fds = vec![self.context.inbox.as_fd(), self.kernel.links_fd()];
            fds.extend(self.kernel.rules_fd());
            sleep_until(&mut fds, deadline)?;
        }
    }

    fn take_inputs(&mut self) -> Option<End> {
        let mut end = None;
        for input in self.context.inbox.take() {
            match input {
                Input::Mirror(generation, event) if generation == self.generation => self.take_event(event),
                Input::Wait(answer) => {
                    let number = self.waiting.add(answer);
                    self.fence(vec![number]);
                }
                Input::Fence(generation, numbers) if generation == self.generation => {
                    self.waiting.fenced(&numbers);
                }
                // Of an engine that is no more; the pass that follows sees who is back.
                Input::Mirror(..) | Input::Fence(..) | Input::Woken => {}
                Input::Stop => return Some(End::Stop),
            }
        }
        if self.felix.is_changed() {
            let (settings, problems) = self.felix.resolve(&self.context.local_layers);
            if settings == self.settings {
                report_settings(self.context, &settings, &problems);
            } else {
                end = Some(End::Restart);
            }
        }
        end
    }

    fn take_event(&mut self, event: MirrorEvent) {
        match event {
            MirrorEvent::Set(stored) => {
                self.unsettled_since.get_or_insert_with(Instant::now);
                self.felix.set(&stored.resource);
                self.graph.set(&stored.resource);
            }
            MirrorEvent::Remove(key) => {
                self.unsettled_since.get_or_insert_with(Instant::now);
                self.felix.remove(&key);
                self.graph.remove(&key);
            }
            MirrorEvent::Settled => self.unsettled_since = None,
            MirrorEvent::InSync => {
                tracing::info!("datastore in sync");
                self.unsettled_since = None;
                self.in_sync = true;
                self.context.shared.update(|s| s.in_sync = true);
            }
        }
    }

    fn take_links(&mut self) {
        let events = self.kernel.poll_links();
        if !events.is_empty() {
            self.feed.set_links(&self.kernel.all_links(), &mut self.graph);
        }
    }

    /// Brings the kernel in line with what is known, and tells who waits for it.
    fn apply(&mut self, now: Instant) {
        for event in &self.graph.flush() {
            self.feed.handle(event);
        }
        self.feed.deliver_sets(&mut self.kernel);
        let (provided, broken) = self.kernel.provide(now);
        self.feed.deliver_rest(&broken, &mut self.kernel);
        let mut report = self.kernel.enforce(now);
        report.done.merge(provided);
        let is_applied = self.publish(&report, now.elapsed());
        if is_applied {
            self.waiting.answer_fenced();
        }
    }

    /// Tells others what changed for them. Returns whether the kernel holds everything.
    fn publish(&mut self, report: &kernel::PassReport, took: Duration) -> bool {
        let mut kernel = self.kernel.problems();
        kernel.extend(self.feed.problems());
        let published = Published {
            is_applied: kernel.is_empty() && !self.kernel.is_busy(),
            counts: self.graph.counts(),
            pending: self.kernel.pending_interfaces(),
            kernel,
            notes: self.kernel.notes(),
            revision: Some(self.graph.revision()),
        };
        let changed = report.done.changed;
        let counters = self.kernel.counters(published.kernel.len());
        self.context.shared.update(|s| s.counters = counters);
        if published != self.published {
            let mut policy = self.graph.problems();
            for problem in &mut policy {
                let origin = problem.key.as_ref().and_then(|key| self.context.store.origin(key));
                if let Some(origin) = origin {
                    problem.object = format!("{origin}: {}", problem.object);
                }
            }
            let kernel = published.kernel.iter().chain(&published.notes);
            self.context.shared.set_problems(kernel, &policy);
            self.context.shared.update(|s| {
                s.applied = published.is_applied;
                (s.endpoints, s.policies, s.ip_sets) = published.counts;
                s.pending_interfaces.clone_from(&published.pending);
            });
            self.published = published;
        }
        if changed > 0 {
            self.context.shared.applied(report.as_status(took));
            tracing::debug!(changed, calls = report.done.calls, micros = took.as_micros(), "applied");
        }
        self.published.is_applied
    }

    /// Puts a message into the inbox once the mirror has told everything that is in the datastore now. The
    /// mirror may have to wait for a disk or a network, so that happens on a thread of its own.
    fn fence(&self, numbers: Vec<u64>) {
        let (mirror, mailbox, generation) =
            (self.mirror.clone(), self.context.mailbox.clone(), self.generation);
        let spawned =
            std::thread::Builder::new().name("fence".to_owned()).spawn(move || match mirror.sync() {
                Ok(()) => {
                    mailbox.send(Input::Fence(generation, numbers));
                }
                Err(error) => tracing::warn!(%error, "cannot tell what is in the datastore"),
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot start a thread");
        }
    }
}
