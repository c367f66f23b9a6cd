//! Playing one case on a lab of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::expect::Expected;
use super::format::{Case, CaseError, Pod, Step};
use super::report::{CaseReport, StepReport, Wrong};
use super::state::State;
use super::{objects, self_test};
use crate::lab::{Addresses, AgentOptions, DEFAULT_WAIT, Lab, LabError, LocalRoutes, PodSpec, Probe};
use crate::manifests::{ManifestDir, ManifestError};

/// What a case may ask of the lab, besides what it asks of the agent.
const OFFERED: [&str; 10] = [
    "admin-network-policy",
    "cluster-network-policy",
    "cnp-node-peer",
    "host-endpoint",
    "host-listener",
    "icmp",
    "ipv6",
    "raw-ip",
    "sctp",
    "service-match",
];
/// What a kept node shows: file name and command.
const DUMPS: [(&str, &[&str]); 5] = [
    ("iptables-save", &["iptables-save"]),
    ("ip6tables-save", &["ip6tables-save"]),
    ("ipset", &["ipset", "save"]),
    ("routes", &["ip", "route", "show", "table", "all"]),
    ("links", &["ip", "-s", "link"]),
];

/// Who enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// An agent on every node: the test of Tortie.
    #[default]
    Agents,
    /// Nobody, and every cell must pass: a test of the lab.
    Open,
    /// Nobody, and the truth must hold: a test of the runner, which must find every blocked cell wrong.
    Unenforced,
    /// Rules made from the truth itself: a test of the lab and the runner.
    SelfTest,
}

/// How cases are played.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// Who enforces.
    pub mode: Mode,
    /// Environment variables of the agents, in addition to this process's.
    pub env: Vec<(String, String)>,
    /// Silence after which a probe counts as blocked.
    pub wait: Duration,
    /// How long a step may take to become right after the agents said that it is applied.
    pub settle: Duration,
    /// How long the agents may take to say so.
    pub applied: Duration,
    /// Starts the agents before the first step's changes, so that these too come to running agents.
    pub is_early: bool,
    /// Where manifests, logs and rules of a case that goes wrong are copied to.
    pub keep: Option<PathBuf>,
}

impl Default for PlayOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Agents,
            env: Vec::new(),
            wait: DEFAULT_WAIT,
            settle: Duration::from_secs(10),
            applied: Duration::from_secs(20),
            is_early: false,
            keep: None,
        }
    }
}

/// Plays a case to its end; what goes wrong is in the report.
pub fn play(case: &Case, options: &PlayOptions) -> CaseReport {
    let begin = Instant::now();
    let mut report = CaseReport {
        family: case.family.clone(),
        id: case.id.clone(),
        title: case.title.clone(),
        ..CaseReport::default()
    };
    if let Some(word) = case.requires.iter().find(|word| !OFFERED.contains(&word.as_str())) {
        report.skipped = Some(format!("it needs `{word}`, which the lab does not offer"));
        return report;
    }
    if let Err(error) = play_steps(case, options, &mut report) {
        report.error = Some(error.chain());
    }
    report.secs = begin.elapsed().as_secs_f64();
    report
}

#[derive(Debug, thiserror::Error)]
enum PlayError {
    #[error("the case is inconsistent")]
    Case(#[from] CaseError),
    #[error("the lab failed")]
    Lab(#[from] LabError),
    #[error("the datastore directory failed")]
    Manifest(#[from] ManifestError),
    #[error("cannot keep {}", path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl PlayError {
    /// The error and its causes.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

fn play_steps(case: &Case, options: &PlayOptions, report: &mut CaseReport) -> Result<(), PlayError> {
    let mut state = State::new(case)?;
    let (before, after) = if options.is_early { (None, &case.steps[..]) } else { split_first(&case.steps) };
    if let Some(step) = before {
        step.actions.iter().try_for_each(|action| state.act(action))?;
    }
    let mut stage = Stage::build(state, options)?;
    let result = stage.play(before, after, report);
    if (result.is_err() || !report.is_right())
        && let Some(dir) = &options.keep
    {
        stage.keep(&dir.join(&case.id))?;
    }
    result
}

fn split_first(steps: &[Step]) -> (Option<&Step>, &[Step]) {
    steps.split_first().map_or((None, steps), |(first, rest)| (Some(first), rest))
}

/// A running case.
struct Stage<'a> {
    lab: Lab,
    state: State,
    manifests: ManifestDir,
    options: &'a PlayOptions,
}

impl<'a> Stage<'a> {
    /// The lab of a state, with its manifests written and, if they enforce, agents started.
    fn build(state: State, options: &'a PlayOptions) -> Result<Self, PlayError> {
        let mut builder = Lab::builder();
        for node in &state.nodes {
            builder = builder.node(&node.name, node.ip);
        }
        for pod in state.pods.values() {
            builder = builder.pod(&pod.namespace, &pod.name, &pod.node, pod.ip);
        }
        for (name, ip) in &state.externals {
            builder = builder.external(name, *ip);
        }
        if options.mode != Mode::Agents {
            builder = builder.local_routes(LocalRoutes::Lab);
        }
        let lab = builder.build()?;
        let manifests = ManifestDir::create(&lab.dir().join("datastore"))?;
        let mut stage = Self { lab, state, manifests, options };
        stage.manifests.sync(&objects(&stage.state))?;
        if options.mode == Mode::Agents {
            let datastore = stage.manifests.path().to_owned();
            let agent = AgentOptions { datastore, env: stage.options.env.clone(), ..AgentOptions::default() };
            for node in &stage.state.nodes {
                stage.lab.start_agent_with(&node.name, &agent)?;
            }
        }
        Ok(stage)
    }

    /// Judges the step whose state the agents started with, if any; then takes the others one after the other.
    fn play(
        &mut self,
        before: Option<&Step>,
        after: &[Step],
        report: &mut CaseReport,
    ) -> Result<(), PlayError> {
        match before {
            Some(step) => self.judge(step, report)?,
            None => drop(self.wait_applied()?),
        }
        for step in after {
            self.change(step)?;
            self.judge(step, report)?;
        }
        Ok(())
    }

    /// Takes a step's actions, one by one, as changes to the running cluster.
    fn change(&mut self, step: &Step) -> Result<(), PlayError> {
        let mut states = Vec::new();
        for action in &step.actions {
            self.state.act(action)?;
            states.push(self.state.clone());
        }
        self.sync_pods()?;
        states.iter().try_for_each(|state| self.manifests.sync(&objects(state)))?;
        Ok(())
    }

    /// Creates and removes pods so that they are the state's.
    fn sync_pods(&mut self) -> Result<(), PlayError> {
        let is_same = |lab: &Lab, pod: &Pod| {
            lab.pod(&pod.namespace, &pod.name).is_ok_and(|host| {
                host.node() == Some(&pod.node) && host.addresses() == Addresses::from(pod.ip)
            })
        };
        let kept: Vec<_> = self.state.pods.values().filter(|pod| is_same(&self.lab, pod)).collect();
        let names = |pod: &Pod| crate::lab::Endpoint::pod(&pod.namespace, &pod.name);
        let gone: Vec<_> = self
            .lab
            .hosts()
            .filter(|host| host.node().is_some() && !kept.iter().any(|pod| names(pod) == *host.endpoint()))
            .map(|host| host.endpoint().clone())
            .collect();
        for endpoint in gone {
            if let crate::lab::Endpoint::Pod { namespace, name } = endpoint {
                self.lab.remove_pod(&namespace, &name)?;
            }
        }
        for pod in self.state.pods.values() {
            if self.lab.pod(&pod.namespace, &pod.name).is_err() {
                let (namespace, name, node) = (pod.namespace.clone(), pod.name.clone(), pod.node.clone());
                self.lab.add_pod(&PodSpec { namespace, name, node, addresses: pod.ip.into() })?;
            }
        }
        Ok(())
    }

    fn wait_applied(&mut self) -> Result<Duration, PlayError> {
        let begin = Instant::now();
        if self.options.mode == Mode::Agents {
            self.lab.wait_applied(self.options.applied)?;
        }
        Ok(begin.elapsed())
    }

    /// Waits for the agents, asks every cell, and adds the verdict to the report.
    fn judge(&mut self, step: &Step, report: &mut CaseReport) -> Result<(), PlayError> {
        let mut cells = step.expect.cells()?;
        match self.options.mode {
            Mode::Open => cells.iter_mut().for_each(|cell| cell.allow = true),
            Mode::SelfTest => self_test::enforce(&self.lab, &cells)?,
            Mode::Agents | Mode::Unenforced => {}
        }
        let applied_secs = self.wait_applied()?.as_secs_f64();
        let verdict = self.ask_until_right(&cells)?;
        report.steps.push(StepReport { name: step.name.clone(), applied_secs, ..verdict });
        Ok(())
    }

    /// Asks all cells, and those that are wrong again until they are right or the settle time is over. A step is
    /// right only if all of its cells were right in one and the same round.
    fn ask_until_right(&self, cells: &[Expected]) -> Result<StepReport, PlayError> {
        let begin = Instant::now();
        let mut report = StepReport { probes: cells.len(), ..StepReport::default() };
        let all: Vec<&Expected> = cells.iter().collect();
        loop {
            let mut wrong = self.wrong_ones(&all)?;
            report.rounds += 1;
            if report.rounds == 1 {
                report.early_passes = wrong.iter().filter(|cell| !cell.allow).count();
            }
            let was_right = wrong.is_empty();
            while !wrong.is_empty() && begin.elapsed() < self.options.settle {
                wrong = self.wrong_ones(&wrong)?;
                report.rounds += 1;
            }
            if was_right || !wrong.is_empty() {
                report.wrong = wrong.into_iter().map(Wrong::from).collect();
                report.probing_secs = begin.elapsed().as_secs_f64();
                return Ok(report);
            }
        }
    }

    /// Those of `cells` that are otherwise.
    fn wrong_ones<'c>(&self, cells: &[&'c Expected]) -> Result<Vec<&'c Expected>, PlayError> {
        let probes: Vec<Probe> = cells.iter().map(|cell| cell.probe.clone()).collect();
        let passed = self.lab.probe_within(&probes, self.options.wait)?;
        Ok(cells
            .iter()
            .zip(passed)
            .filter(|(cell, passed)| cell.allow != *passed)
            .map(|(cell, _)| *cell)
            .collect())
    }

    /// Copies what a person needs to find out what went wrong.
    fn keep(&self, dir: &Path) -> Result<(), PlayError> {
        let keep = |path: PathBuf, text: &[u8]| {
            fs::write(&path, text).map_err(|source| PlayError::Keep { path, source })
        };
        fs::create_dir_all(dir).map_err(|source| PlayError::Keep { path: dir.to_owned(), source })?;
        let mut all = String::new();
        for object in objects(&self.state) {
            all = all + "---\n" + &crate::manifests::to_yaml(&object)?;
        }
        keep(dir.join("manifests.yaml"), all.as_bytes())?;
        for node in self.lab.node_names() {
            for (name, command) in DUMPS {
                let output = self.lab.node(node)?.run(command[0], &command[1..])?;
                keep(dir.join(format!("{node}.{name}")), &[output.stdout, output.stderr].concat())?;
            }
            if let Ok(agent) = self.lab.agent(node) {
                keep(dir.join(format!("{node}.log")), agent.log().as_bytes())?;
            }
        }
        Ok(())
    }
}
