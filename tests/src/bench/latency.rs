//! From a file to the kernel: a changed rule of a policy, and a new pod.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::by_hand::{Change, WRITE_TOOLS};
use super::control::Control;
use super::events::Events;
use super::scene::{PodId, Scene, policy};
use super::stats::Samples;
use super::{Backend, Part, Row, Unit};
use crate::manifests::ObjectKey;

/// The two ports that the changed rule takes turns with.
const PORTS: [u16; 2] = [9001, 9002];
/// The agent spares unknown routes of a new interface for ten seconds.
const ROUTE_GONE: Duration = Duration::from_secs(20);
/// By then the agent has looked at what was written by hand in its chains: it does so every 100 ms at the most.
const LOOKED_AT: Duration = Duration::from_millis(250);

/// Measures `changes` changes of each kind. The agent runs and has applied everything.
pub(super) fn measure(scene: &mut Scene, changes: usize) -> anyhow::Result<Vec<Row>> {
    let control = scene.control()?;
    let events = Events::listen(scene.netns()?)?;
    let node = format!("{} pods", scene.size);
    let mut measurement = Measurement { scene, control, events, node, policy: &|port| policy(0, 0, port) };
    let mut rows = measurement.policy(changes)?;
    rows.push(measurement.new_pod(changes)?);
    Ok(rows)
}

/// Measures changes of one rule of a policy: `policy` gives it with the rule for a port. `node` says what node it is.
pub(super) fn policy_changes(
    scene: &mut Scene,
    changes: usize,
    node: String,
    policy: &dyn Fn(u16) -> Value,
) -> anyhow::Result<Vec<Row>> {
    let control = scene.control()?;
    let events = Events::listen(scene.netns()?)?;
    Measurement { scene, control, events, node, policy }.policy(changes)
}

struct Measurement<'a> {
    scene: &'a mut Scene,
    control: Control,
    events: Events,
    node: String,
    policy: &'a dyn Fn(u16) -> Value,
}

impl Measurement<'_> {
    fn policy(&mut self, changes: usize) -> anyhow::Result<Vec<Row>> {
        let states = PORTS.map(|port| -> anyhow::Result<_> {
            self.set_port(port)?;
            self.settle()?;
            self.scene.tools.state()
        });
        let [first, second] = states;
        let (first, second) = (first?, second?);
        let backend = self.scene.backend;
        let by_hand = [second.change(&first, backend), first.change(&second, backend)];
        let (mut told, mut answered) = (Samples::default(), Samples::default());
        let (mut hand_told, mut hand_done) = (Samples::default(), Samples::default());
        for (change, port) in by_hand.iter().zip(PORTS).cycle().take(changes) {
            if backend == Backend::Nft {
                told.push(self.policy_until_told(change, port)?);
                hand_told.push(self.by_hand_until_told(change)?);
                thread::sleep(LOOKED_AT);
                // Back, so that the next change is one.
                self.set_port(PORTS[usize::from(port == PORTS[0])])?;
                self.settle()?;
            }
            answered.push(self.policy_until_answered(port)?);
            self.check_port(change, port)?;
            hand_done.push(millis(self.scene.tools.apply(change)?.1));
            thread::sleep(LOOKED_AT);
        }
        let node = &self.node;
        let row = |end: &str, ours: &Samples, theirs: &Samples| {
            let what = format!("policy file to {end}, {node}, {backend}");
            Row::new(Part::Latency, what, Unit::Millis, ours)
                .beside("iptables-restore, ip6tables-restore", theirs)
        };
        let mut rows = Vec::new();
        if backend == Backend::Nft {
            rows.push(row("rule", &told, &hand_told));
        }
        rows.push(row("agent's answer", &answered, &hand_done));
        Ok(rows)
    }

    /// A change, to the kernel's notification of the rule in both IP versions.
    fn policy_until_told(&mut self, change: &Change, port: u16) -> anyhow::Result<f64> {
        self.events.clear();
        let started = Instant::now();
        self.set_port(port)?;
        let told = self.scene.explain(self.events.wait(&change.events))?;
        self.settle()?;
        self.check_port(change, port)?;
        Ok(millis(told - started))
    }

    /// The same chains by hand, to the same notification.
    fn by_hand_until_told(&mut self, change: &Change) -> anyhow::Result<f64> {
        self.events.clear();
        let (started, _) = self.scene.tools.apply(change)?;
        Ok(millis(self.events.wait(&change.events)? - started))
    }

    /// A change, to the agent's answer that it is applied.
    fn policy_until_answered(&mut self, port: u16) -> anyhow::Result<f64> {
        let started = Instant::now();
        self.set_port(port)?;
        self.settle()?;
        Ok(millis(started.elapsed()))
    }

    fn check_port(&self, change: &Change, port: u16) -> anyhow::Result<()> {
        let mut rules = String::new();
        for chain in &change.chains {
            rules.push_str(&self.scene.tools.chain(chain)?);
        }
        ensure!(rules.contains(&format!("--dports {port}")), "port {port} is not in {rules}");
        Ok(())
    }

    /// A pod whose interface is there, from its file to its rules and its route.
    fn new_pod(&mut self, changes: usize) -> anyhow::Result<Row> {
        let pod = self.scene.spare();
        let without = self.scene.tools.state()?;
        self.scene.write_pod(pod, 0)?;
        self.settle()?;
        let route = self.route(pod)?;
        let change = without
            .change(&self.scene.tools.state()?, self.scene.backend)
            .with_route(pod.address(), route.trim());
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        for _ in 0..changes {
            self.scene.manifests.remove(&ObjectKey::of(&pod.manifest("", 0))?)?;
            self.settle()?;
            self.wait_without_route(pod)?;
            ours.push(self.new_pod_until_there(pod, &change)?);
            theirs.push(self.new_pod_by_hand(pod, &change)?);
            thread::sleep(LOOKED_AT);
        }
        let (size, backend) = (self.scene.size, self.scene.backend);
        let end = if backend == Backend::Nft { "rules and route" } else { "agent's answer" };
        let what = format!("pod file to {end}, {size} pods, {backend}");
        Ok(Row::new(Part::Latency, what, Unit::Millis, &ours).beside(WRITE_TOOLS, &theirs))
    }

    fn new_pod_until_there(&mut self, pod: PodId, change: &Change) -> anyhow::Result<f64> {
        self.events.clear();
        let started = Instant::now();
        self.scene.write_pod(pod, 0)?;
        if self.scene.backend == Backend::Legacy {
            self.settle()?;
            return Ok(millis(started.elapsed()));
        }
        let told = self.scene.explain(self.events.wait(&change.events))?;
        self.settle()?;
        Ok(millis(told - started))
    }

    /// The same rules, and the route once more: only a new one is told of.
    fn new_pod_by_hand(&mut self, pod: PodId, change: &Change) -> anyhow::Result<f64> {
        let route = format!("{}/32", pod.address());
        self.scene.netns()?.check("ip", &["route", "delete", &route], "")?;
        self.events.clear();
        let (started, took) = self.scene.tools.apply(change)?;
        if self.scene.backend == Backend::Legacy {
            return Ok(millis(took));
        }
        Ok(millis(self.events.wait(&change.events)? - started))
    }

    /// A route may outlive its pod for a while after the interface was first seen.
    fn wait_without_route(&self, pod: PodId) -> anyhow::Result<()> {
        let deadline = Instant::now() + ROUTE_GONE;
        while !self.route(pod)?.is_empty() {
            ensure!(Instant::now() < deadline, "the route of a removed pod is still there");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn route(&self, pod: PodId) -> anyhow::Result<String> {
        let address = pod.address().to_string();
        Ok(self.scene.netns()?.check("ip", &["-4", "route", "show", &address], "")?)
    }

    fn set_port(&mut self, port: u16) -> anyhow::Result<()> {
        Ok(self.scene.manifests.apply(&(self.policy)(port))?)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let applied = self.control.wait();
        self.scene.explain(applied).context("a change")
    }
}

/// A duration in milliseconds.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
