//! What the engine knows of itself, for those who ask from other threads.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::{Histogram, HistogramOpts};
use tortie_api::control::{Apply, Area, Status, StatusProblem};
use tortie_dataplane::reconcile;
use tortie_rules::graph::model;

use crate::config::{SettingProblem, Settings};

/// See the module's documentation.
#[derive(Debug)]
pub struct Shared {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    status: Status,
    settings: Settings,
    setting_problems: Vec<StatusProblem>,
    other_problems: Vec<StatusProblem>,
    /// What cannot be served, by its name.
    unserved: BTreeMap<&'static str, StatusProblem>,
    /// Since when the engine has not asked for inputs; `None` while it waits for them.
    busy_since: Option<Instant>,
    /// How long passes took that changed something, in milliseconds.
    apply_times: Histogram,
}

/// Bounds of the histogram of apply times, in milliseconds: from one set's member to all of a large node's rules.
const APPLY_MILLIS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

fn apply_times() -> Histogram {
    let help = "Time of a pass that changed the kernel, in milliseconds.";
    let options = HistogramOpts::new("tortie_apply_milliseconds", help).buckets(APPLY_MILLIS.to_vec());
    Histogram::with_opts(options).expect("the name is one, and the bounds rise")
}

impl Shared {
    /// Of an agent that has just started.
    pub fn new(status: Status, settings: Settings) -> Self {
        let inner = Inner {
            status,
            settings,
            setting_problems: Vec::new(),
            other_problems: Vec::new(),
            unserved: BTreeMap::new(),
            busy_since: None,
            apply_times: apply_times(),
        };
        Self { inner: Mutex::new(inner) }
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
    }

    /// Notes a pass that changed something.
    pub(crate) fn applied(&self, apply: Apply) {
        let mut inner = self.lock();
        inner.apply_times.observe(apply.millis);
        inner.status.applies += 1;
        inner.status.last_apply = apply;
    }

    /// How long passes took that changed something.
    pub(crate) fn apply_times(&self) -> Histogram {
        self.lock().apply_times.clone()
    }

    /// Looks at the status; its list of problems is not filled in.
    pub fn read<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.lock().status)
    }

    /// Notes that the engine works, or that it waits for inputs.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        self.lock().busy_since = is_busy.then(Instant::now);
    }

    /// Since when the engine has been at work without asking for inputs.
    pub fn busy_since(&self) -> Option<Instant> {
        self.lock().busy_since
    }

    /// Notes why an engine could not be started.
    pub(crate) fn set_start_problem(&self, why: &str) {
        let problem =
            StatusProblem { area: Area::Kernel, object: "this node".to_owned(), message: why.to_owned() };
        let mut inner = self.lock();
        (inner.status.applied, inner.other_problems) = (false, vec![problem]);
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.lock().settings.clone()
    }

    /// Notes the settings in force and what is wrong with them.
    pub(crate) fn set_settings(&self, settings: &Settings, problems: &[SettingProblem]) {
        let problem = |p: &SettingProblem| StatusProblem {
            area: Area::Setting,
            object: p.source.clone(),
            message: format!("{}: {}", p.name, p.message),
        };
        let mut inner = self.lock();
        inner.settings = settings.clone();
        inner.setting_problems = problems.iter().map(problem).collect();
    }

    /// Notes that something is not served, and which setting says where it should be; `None` when it is served.
    pub(crate) fn set_unserved(&self, what: &'static str, why: Option<(&str, String)>) {
        let mut inner = self.lock();
        match why {
            Some((setting, why)) => {
                let message = format!("{setting}: {why}");
                let problem = StatusProblem { area: Area::Setting, object: "this node".to_owned(), message };
                inner.unserved.insert(what, problem);
            }
            None => {
                inner.unserved.remove(what);
            }
        }
    }

    /// Notes what cannot be programmed and what cannot be followed.
    pub(crate) fn set_problems<'a>(
        &self,
        kernel: impl Iterator<Item = &'a reconcile::Problem>,
        policy: &[model::Problem],
    ) {
        let kernel = kernel.map(|p| StatusProblem {
            area: Area::Kernel,
            object: p.object.clone(),
            message: p.error.clone(),
        });
        let policy = policy.iter().map(|p| StatusProblem {
            area: Area::Policy,
            object: p.object.clone(),
            message: format!("{}: {}", p.field, p.message),
        });
        self.lock().other_problems = kernel.chain(policy).collect();
    }

    /// The whole status, with the datastore's problems.
    pub fn status(&self, datastore: &[tortie_datastore::Problem]) -> Status {
        let inner = self.lock();
        let mut status = inner.status.clone();
        let datastore = datastore.iter().map(|p| StatusProblem {
            area: Area::Datastore,
            object: p.place().unwrap_or_else(|| "the datastore".to_owned()),
            message: p.words(),
        });
        let known = inner.setting_problems.iter().chain(&inner.other_problems).chain(inner.unserved.values());
        status.problems = datastore.chain(known.cloned()).collect();
        status.problems.sort();
        status
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The status stays readable, whatever happened to a thread that wrote it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
