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

mod feed;
mod kernel;
mod waiting;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tortie_api::Kind;
use tortie_api::resource::Resource;
use tortie_datastore::mirror::{Mirror, MirrorEvent};
use tortie_datastore::{Datastore, Stored};
use tortie_rules::graph::{Graph, Options as GraphOptions};

use self::feed::Feed;
use self::kernel::Kernel;
pub use self::waiting::Answer;
use self::waiting::Waiting;
use crate::config::{Layer, SettingProblem, Settings, from_resource};
use crate::mailbox::{Inbox, Mailbox};
use crate::shared::Shared;

/// What the engine's thread is told.
#[derive(Debug)]
pub enum Input {
    /// The datastore changed; the number is that of the engine whose mirror says so.
    Mirror(u64, MirrorEvent),
    /// Somebody waits until what is in the datastore now is in the kernel.
    Wait(Answer),
    /// Everything that was in the datastore when this waiting began has been told.
    Fence(u64, u64),
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

/// Runs until told to stop.
pub fn run(context: &Context) -> anyhow::Result<()> {
    let mut waiting = Waiting::default();
    for generation in 1.. {
        let mut engine = Engine::start(context, generation, std::mem::take(&mut waiting))?;
        match engine.run()? {
            End::Stop => break,
            End::Restart => {
                tracing::info!("settings changed; starting over with the new ones");
                waiting = std::mem::take(&mut engine.waiting);
            }
        }
    }
    Ok(())
}

struct Engine<'a> {
    context: &'a Context,
    generation: u64,
    mirror: Arc<Mirror>,
    felix: FelixLayers,
    settings: Settings,
    graph: Graph,
    feed: Feed,
    kernel: Kernel,
    waiting: Waiting,
    in_sync: bool,
}

impl<'a> Engine<'a> {
    fn start(context: &'a Context, generation: u64, waiting: Waiting) -> anyhow::Result<Self> {
        let felix = FelixLayers::read(context)?;
        let (settings, problems) = felix.resolve(&context.local_layers);
        report_settings(context, &settings, &problems);
        let kernel = Kernel::open(&settings)?;
        let graph = Graph::new(GraphOptions {
            node: context.node.clone(),
            interface_prefix: settings.compile.interface_prefixes.first().cloned().unwrap_or_default(),
            suppress_covered: settings.suppress_covered,
        });
        let feed = Feed::new(&settings, kernel.features());
        let mailbox = context.mailbox.clone();
        let mirror = Mirror::start(context.store.clone(), &Kind::ALL, move |event| {
            mailbox.send(Input::Mirror(generation, event))
        })?;
        let mirror = Arc::new(mirror);
        context.shared.update(|s| kernel.backend().clone_into(&mut s.iptables_backend));
        let mut engine = Self {
            context,
            generation,
            mirror,
            felix,
            settings,
            graph,
            feed,
            kernel,
            waiting,
            in_sync: false,
        };
        engine.feed.set_links(&engine.kernel.all_links());
        engine.fence_all();
        Ok(engine)
    }

    fn run(&mut self) -> anyhow::Result<End> {
        loop {
            if let Some(end) = self.take_inputs() {
                return Ok(end);
            }
            self.take_links();
            let now = Instant::now();
            if self.in_sync {
                self.apply(now);
            }
            self.sleep(self.kernel.next_deadline(now))?;
        }
    }

    fn take_inputs(&mut self) -> Option<End> {
        let mut end = None;
        for input in self.context.inbox.take() {
            match input {
                Input::Mirror(generation, event) if generation == self.generation => self.take_event(event),
                Input::Wait(answer) => {
                    let number = self.waiting.add(answer);
                    self.fence(number);
                }
                Input::Fence(generation, number) if generation == self.generation => {
                    self.waiting.fenced(number);
                }
                // Of an engine that is no more.
                Input::Mirror(..) | Input::Fence(..) => {}
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
                self.felix.set(&stored.resource);
                self.graph.set(&stored.resource);
            }
            MirrorEvent::Remove(key) => {
                self.felix.remove(&key);
                self.graph.remove(&key);
            }
            MirrorEvent::InSync => {
                tracing::info!("datastore in sync");
                self.in_sync = true;
                self.context.shared.update(|s| s.in_sync = true);
            }
        }
    }

    fn take_links(&mut self) {
        let events = self.kernel.poll_links();
        if !events.is_empty() {
            self.feed.set_links(&self.kernel.all_links());
        }
    }

    /// Brings the kernel in line with what is known, and tells who waits for it.
    fn apply(&mut self, now: Instant) {
        let events = self.graph.flush();
        for event in &events {
            self.feed.handle(event);
        }
        self.feed.deliver(&mut self.kernel);
        let report = self.kernel.pass(now);
        let is_applied = self.kernel.problems().is_empty();
        let changed = !events.is_empty() || report.changed > 0 || !report.problems.is_empty();
        if changed || self.context.shared.read(|s| s.applied) != is_applied {
            self.publish(is_applied, &report, now.elapsed());
        }
        if is_applied {
            self.waiting.answer_fenced();
        }
    }

    fn publish(&self, is_applied: bool, report: &kernel::PassReport, took: Duration) {
        let kernel = self.kernel.problems();
        let policy = self.graph.problems();
        let counts = self.feed.counts();
        let pending = self.kernel.pending_interfaces();
        self.context.shared.update(|s| {
            s.applied = is_applied;
            (s.endpoints, s.policies, s.ip_sets) = counts;
            s.pending_interfaces = pending;
            if report.changed > 0 {
                s.applies += 1;
                s.last_apply = report.as_status(took);
            }
        });
        self.context.shared.set_problems(&kernel, &policy);
        tracing::debug!(changed = report.changed, calls = report.calls, micros = took.as_micros(), "applied");
    }

    /// Asks for a fence for everybody who waits, after a new engine took over.
    fn fence_all(&self) {
        for number in self.waiting.numbers() {
            self.fence(number);
        }
    }

    /// Puts a message into the inbox once the mirror has told everything that is in the datastore now. The
    /// mirror may have to wait for a disk or a network, so that happens on a thread of its own.
    fn fence(&self, number: u64) {
        let (mirror, mailbox, generation) =
            (self.mirror.clone(), self.context.mailbox.clone(), self.generation);
        let spawned =
            std::thread::Builder::new().name("fence".to_owned()).spawn(move || match mirror.sync() {
                Ok(()) => {
                    mailbox.send(Input::Fence(generation, number));
                }
                Err(error) => tracing::warn!(%error, "cannot tell what is in the datastore"),
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot start a thread");
        }
    }

    fn sleep(&self, until: Option<Instant>) -> anyhow::Result<()> {
        let timeout = match until {
            None => PollTimeout::NONE,
            // Rounded up, or the thread would spin through the last millisecond.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let fds = [self.context.inbox.as_fd(), self.kernel.links_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The `FelixConfiguration` objects that concern this node.
struct FelixLayers {
    node_name: String,
    default: Option<Layer>,
    node: Option<Layer>,
    changed: bool,
}

impl FelixLayers {
    fn read(context: &Context) -> anyhow::Result<Self> {
        let mut layers =
            Self { node_name: format!("node.{}", context.node), default: None, node: None, changed: false };
        let list = context.store.list(Kind::FelixConfiguration, None)?;
        list.items.iter().for_each(|Stored { resource, .. }| layers.set(resource));
        layers.changed = false;
        Ok(layers)
    }

    fn set(&mut self, resource: &Resource) {
        let Resource::FelixConfiguration(object) = resource else { return };
        let layer = from_resource(&object.metadata.name, &object.spec);
        self.put(&object.metadata.name, Some(layer));
    }

    fn remove(&mut self, key: &tortie_api::Key) {
        if key.kind == Kind::FelixConfiguration {
            self.put(&key.name, None);
        }
    }

    fn put(&mut self, name: &str, layer: Option<Layer>) {
        let slot = if name == "default" {
            &mut self.default
        } else if name == self.node_name {
            &mut self.node
        } else {
            return;
        };
        if *slot != layer {
            *slot = layer;
            self.changed = true;
        }
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn resolve(&self, local: &[Layer]) -> (Settings, Vec<SettingProblem>) {
        Settings::resolve(self.default.iter().chain(&self.node).chain(local))
    }
}

fn report_settings(context: &Context, settings: &Settings, problems: &[SettingProblem]) {
    for setting in &settings.without_effect {
        tracing::warn!(setting, "has no effect in this release");
    }
    for problem in problems {
        tracing::warn!(source = problem.source, name = problem.name, "{}", problem.message);
    }
    context.shared.set_settings(settings, problems);
}
