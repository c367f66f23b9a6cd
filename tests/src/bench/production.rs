//! Nodes with many rules and sets: what one change costs among them, and a node of the size of a real one.
//!
//! The node: 294 policies of 68 rules each over 3,708 sets of 70 members, the sizes that Calico's own benches took
//! from a production cluster. Every set is a network set; 110 pods are selected by all policies; IPv6 is off.

pub(super) mod loaded;
pub(super) mod native;
mod other;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

use super::control::Control;
use super::events::{Event, Events};
use super::latency::{millis, policy_changes};
use super::scene::{PodId, Scene};
use super::stats::Samples;
use super::{Backend, Part, Row, Unit, by_hand};
use crate::lab::Netns;

/// Rules of a node, for the cost of one change among them.
pub(super) const RULES_PRESENT: [usize; 3] = [1_000, 10_000, 50_000];
/// Sets that change at once.
const CHANGED_SETS: usize = 1_000;
/// A chain that was flushed is repaired so often.
const REPAIRS: usize = 20;

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
struct Size {
    pods: usize,
    policies: usize,
    rules: usize,
    sets: usize,
    members: usize,
}

const PRODUCTION: Size = Size { pods: 110, policies: 294, rules: 68, sets: 3708, members: 70 };

impl Size {
    /// Ten pods among as many rules, which ask for few sets.
    const fn of_rules(rules: usize) -> Self {
        Self { pods: 10, policies: rules / 50, rules: 50, sets: 20, members: 10 }
    }

    /// Policy number `number`: its last rule is for a port.
    fn policy(self, number: usize, port: u16) -> Value {
        let from_set = |rule: usize| {
            let set = (number * self.rules + rule) % self.sets;
            json!({"action": "Allow", "protocol": "TCP", "source": {"selector": format!("set == 's-{set}'")},
                "destination": {"ports": [8080]}})
        };
        let mut rules: Vec<Value> = (1..self.rules).map(from_set).collect();
        rules.push(json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [port]}}));
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": format!("policy-{number}")},
            "spec": {"order": number, "selector": "has(app)", "types": ["Ingress"], "ingress": rules},
        })
    }

    /// Network set number `number`, with `more` members.
    fn set(self, number: usize, more: usize) -> Value {
        let first = number * 100;
        let member = |m: usize| {
            let n = first + m;
            format!("100.{}.{}.{}/32", 64 + n / 65_536 % 64, n / 256 % 256, n % 256)
        };
        let nets: Vec<String> = (0..self.members + more).map(member).collect();
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": {"name": format!("set-{number}"), "labels": {"set": format!("s-{number}")}},
            "spec": {"nets": nets},
        })
    }

    fn build(self, backend: Backend) -> anyhow::Result<Scene> {
        let mut scene = Scene::bare(backend, self.pods)?;
        scene.add_interfaces()?;
        scene.write_cluster()?;
        for pod in (0..self.pods).map(PodId) {
            scene.write_pod(pod, 0)?;
        }
        for number in 0..self.sets {
            scene.manifests.apply(&self.set(number, 0))?;
        }
        for number in 0..self.policies {
            scene.manifests.apply(&self.policy(number, 9000))?;
        }
        Ok(scene)
    }
}

/// What one change of a rule costs where there are `rules` rules.
pub(super) fn among(backend: Backend, rules: usize, changes: usize) -> anyhow::Result<Vec<Row>> {
    let size = Size::of_rules(rules);
    let mut scene = size.build(backend)?;
    scene.start_agent()?;
    let rows = policy_changes(&mut scene, changes, format!("{rules} rules"), &|port| size.policy(0, port))?;
    Ok(rows.into_iter().map(|row| Row { part: Part::Rules, ..row }).collect())
}

/// Starts, changes and repairs of a production node.
pub(super) fn measure(
    backend: Backend,
    starts: usize,
    changes: usize,
    tell: &dyn Fn(&str),
) -> anyhow::Result<Vec<Row>> {
    let size = PRODUCTION;
    let mut scene = size.build(backend)?;
    scene.env.push(("FELIX_IPV6SUPPORT".to_owned(), "false".to_owned()));
    tell(&format!("  starting {starts} times"));
    let mut rows = starts_of(&mut scene, starts)?;
    scene.start_agent()?;
    tell("  changes");
    let changed =
        policy_changes(&mut scene, changes, "production node".to_owned(), &|port| size.policy(0, port))?;
    rows.extend(changed);
    rows.extend(members(&mut scene, size, changes)?);
    if backend == Backend::Nft {
        rows.push(repairs(&mut scene, size)?);
    }
    Ok(rows.into_iter().map(|row| Row { part: Part::Production, ..row }).collect())
}

/// What loading everything took.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    millis: f64,
    /// Of the processor, children included.
    cpu_millis: f64,
    peak_mebibytes: f64,
}

fn starts_of(scene: &mut Scene, starts: usize) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        scene.renew_interfaces()?;
        ours.push(start(scene)?);
        scene.stop_agent()?;
        let rules = scene.tools.save()?[0].clone();
        let sets = scene.netns()?.check("ipset", &["save"], "")?;
        scene.tools.flush()?;
        theirs.push(load(scene, &rules, &sets)?);
        scene.tools.flush()?;
    }
    let node = format!("production node, {}", scene.backend);
    Ok(starts_rows(Part::Production, &node, "ipset and iptables-restore", &ours, &theirs))
}

/// Rows about starts on a `node`, beside those of `tools`.
fn starts_rows(part: Part, node: &str, tools: &str, ours: &[Load], theirs: &[Load]) -> Vec<Row> {
    let row = |what: &str, unit, of: fn(&Load) -> f64| {
        let [ours, theirs] = [ours, theirs].map(|all| all.iter().map(of).collect());
        Row::new(part, format!("{node}: {what}"), unit, &ours).beside(tools, &theirs)
    };
    vec![
        row("start to all applied", Unit::Millis, |l| l.millis),
        row("processor, children included", Unit::Millis, |l| l.cpu_millis),
        row("peak of resident memory", Unit::Mebibytes, |l| l.peak_mebibytes),
    ]
}

fn start(scene: &mut Scene) -> anyhow::Result<Load> {
    let started = Instant::now();
    let mut control = scene.start_agent()?;
    let took = millis(started.elapsed());
    let status = control.status()?;
    ensure!(status.endpoints == scene.size, "{} endpoints of {}", status.endpoints, scene.size);
    let pid = scene.agent_pid()?;
    Ok(Load { millis: took, cpu_millis: cpu_millis(pid)?, peak_mebibytes: peak_mebibytes(pid)? })
}

/// Loads the same rules and sets with the tools; their largest peak counts.
fn load(scene: &Scene, rules: &str, sets: &str) -> anyhow::Result<Load> {
    let restore = format!("iptables-{}-restore", scene.backend);
    let before = children_millis()?;
    let started = Instant::now();
    let peaks = [("ipset", &["restore"][..], sets), (&restore, &["--noflush"], rules)]
        .map(|(program, args, text)| watched(scene.netns()?, program, args, text));
    let took = millis(started.elapsed());
    let mut peak_mebibytes: f64 = 0.0;
    for peak in peaks {
        peak_mebibytes = peak_mebibytes.max(peak?);
    }
    Ok(Load { millis: took, cpu_millis: children_millis()? - before, peak_mebibytes })
}

/// Runs a program on a text; the peak of its memory, as of a moment before its end.
fn watched(netns: &Netns, program: &str, args: &[&str], text: &str) -> anyhow::Result<f64> {
    netns.enter(|| {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let mut pipe = child.stdin.take().context("a pipe was asked for")?;
        let mut peak: f64 = 0.0;
        thread::scope(|scope| {
            let writer = scope.spawn(move || pipe.write_all(text.as_bytes()));
            loop {
                // A process that has ended has no memory left to tell of.
                peak = peak.max(peak_mebibytes(child.id()).unwrap_or_default());
                if let Some(status) = child.try_wait()? {
                    ensure!(status.success(), "{program}: {status}");
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            writer.join().map_err(|_| anyhow::anyhow!("writing to {program} failed"))??;
            Ok(peak)
        })
    })?
}

/// Members of one set, then of many at once: to the agent's answer.
fn members(scene: &mut Scene, size: Size, changes: usize) -> anyhow::Result<Vec<Row>> {
    let mut control = scene.control()?;
    let names: Vec<String> = scene
        .netns()?
        .check("ipset", &["list", "-n"], "")?
        .lines()
        .filter(|name| name.starts_with("cali40s:"))
        .take(CHANGED_SETS)
        .map(str::to_owned)
        .collect();
    ensure!(names.len() == CHANGED_SETS, "only {} sets", names.len());
    let mut rows = Vec::new();
    for (count, times) in [(1, changes), (CHANGED_SETS, changes.div_ceil(5))] {
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        for round in 0..times {
            ours.push(change_sets(scene, &mut control, size, count, (round + 1) % 2)?);
            let verb = if round.is_multiple_of(2) { "add" } else { "del" };
            let members = names[..count].iter().map(|name| format!("{verb} {name} 203.0.113.9"));
            let lines = by_hand::lines("", members);
            let netns = scene.netns()?;
            theirs.push(netns.enter(|| {
                let started = Instant::now();
                by_hand::run("ipset", &["restore", "-exist"], &lines).map(|()| millis(started.elapsed()))
            })??);
        }
        let what =
            if count == 1 { "one member".to_owned() } else { format!("a member of each of {count} sets") };
        let what = format!("{what}, production node, {}", scene.backend);
        rows.push(Row::new(Part::Production, what, Unit::Millis, &ours).beside("ipset restore", &theirs));
    }
    Ok(rows)
}

fn change_sets(
    scene: &mut Scene,
    control: &mut Control,
    size: Size,
    count: usize,
    more: usize,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    for number in 0..count {
        scene.manifests.apply(&size.set(number, more))?;
    }
    scene.explain(control.wait())?;
    Ok(millis(started.elapsed()))
}

/// A chain of a policy is flushed by somebody: to the kernel's word that the rule is back.
fn repairs(scene: &mut Scene, size: Size) -> anyhow::Result<Row> {
    let mut events = Events::listen(scene.netns()?)?;
    let before = scene.tools.state()?;
    scene.manifests.apply(&size.policy(0, 9999))?;
    scene.control()?.wait()?;
    let change = before.change(&scene.tools.state()?, scene.backend);
    let chain = change.chains.first().context("a changed policy changes a chain")?;
    let program = format!("iptables-{}", scene.backend);
    let mut samples = Samples::default();
    for _ in 0..REPAIRS {
        scene.netns()?.check(&program, &["--wait", "10", "-F", chain], "")?;
        let flushed = Instant::now();
        let back = events.wait(&[Event::Rule(2, chain.clone())].into())?;
        samples.push(millis(back.saturating_duration_since(flushed)));
        // The agent may be at work on the rest of the same transaction's news.
        scene.control()?.wait()?;
        events.clear();
    }
    let what = format!("a flushed chain is back, production node, {}", scene.backend);
    Ok(Row::new(Part::Production, what, Unit::Millis, &samples))
}

/// Milliseconds of the processor that a process and its ended children used.
fn cpu_millis(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything. utime, stime, cutime and cstime are fields 14 to 17.
    let (_, fields) = stat.rsplit_once(") ").context("no name in a process's stat")?;
    let ticks = fields.split(' ').skip(11).take(4).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(f64::from(ticks) * 1e3 / f64::from(i32::try_from(per_second)?))
}

/// The same of all children of this process that have ended.
fn children_millis() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let millis = |time: nix::sys::time::TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default()).as_secs_f64() * 1e3
    };
    Ok(millis(usage.user_time()) + millis(usage.system_time()))
}

fn peak_mebibytes(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(super::memory::kib(&status, "VmHWM")? / 1024.0)
}
