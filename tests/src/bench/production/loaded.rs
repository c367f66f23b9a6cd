//! A node with thousands of sets and rules in nftables mode, in both layouts: loading it, small changes, memory, and
//! how long another program that writes to nf_tables waits meanwhile; all of it beside `nft -f` doing the same.
//!
//! `nft` always writes the chains of layout `Chains`, with sets: so would a person. It does that while no agent runs,
//! which would take it for damage. As an ordinary user `nft` cannot write so much at once: there it has no numbers.

use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tortie_dataplane::nft::{Removal, Socket, Transaction};
use tortie_rules::ruleset::nft::{Element, Family, Set, TableId};

use super::native::{flush, load};
use super::other::{self, Waits};
use super::{Control, Load, Part, Row, Samples, Scene, Size, Unit, change_sets, millis, start};
use crate::bench::memory::kib;
use crate::bench::{Backend, by_hand};
use crate::lab::Netns;

/// How much is loaded, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Sets of ten members.
    pub sets: usize,
    /// Rules, a hundred to a policy, that ask for these.
    pub rules: usize,
    /// Measured loads.
    pub starts: usize,
    /// Measured changes of each kind.
    pub changes: usize,
}

const RULES_OF_POLICY: usize = 100;
/// The chain of the policy that changes, in layout `Chains`.
const CHAIN: &str = "filter-cali-pi-gnp/policy-0";
const LAYOUTS: [&str; 2] = ["Chains", "Tables"];
/// What the changed rule is for: before and after the first change, and from then on in turns.
const FIRST_PORTS: [u16; 2] = [9010, 9020];
const PORTS: [u16; 2] = [9030, 9040];
/// Members that come and go at once.
const UPDATES: [u8; 2] = [1, 10];
/// The kernel's time to free what nobody uses any more.
const SETTLE: Duration = Duration::from_millis(300);
const NFT: &str = "nft -f, chains";

/// A load with what is left when it is done.
#[derive(Debug, Clone, Default)]
struct Loaded {
    load: Load,
    idle_mebibytes: f64,
    kernel_mebibytes: f64,
    waits: Waits,
}

/// Measures both layouts.
pub(in crate::bench) fn measure(plan: Plan, tell: &dyn Fn(&str)) -> anyhow::Result<Vec<Row>> {
    let policies = plan.rules.div_ceil(RULES_OF_POLICY);
    let size = Size { pods: 10, policies, rules: RULES_OF_POLICY, sets: plan.sets, members: 10 };
    let mut scene = size.build(Backend::Nft)?;
    for (name, value) in [("FELIX_IPV6SUPPORT", "false"), ("FELIX_NFTABLESMODE", "Enabled")] {
        scene.env.push((name.to_owned(), value.to_owned()));
    }
    scene.env.push(("FELIX_NFTABLESLAYOUT".to_owned(), LAYOUTS[0].to_owned()));
    tell("  the ruleset of chains");
    scene.start_agent()?;
    scene.stop_agent()?;
    let chains = scene.netns()?.check("nft", &["list", "ruleset"], "")?;
    let chain = scene.netns()?.check("nft", &["list", "chain", "ip", "calico", CHAIN], "")?;
    tell("  members");
    let mut rows = members(scene.netns()?, plan.changes)?;
    let mut bench =
        Bench { scene, size, plan, chains, change: format!("flush chain ip calico {CHAIN}\n{chain}") };
    flush(bench.scene.netns()?)?;
    for layout in LAYOUTS {
        tell(&format!("  layout {layout}: {} loads, {} changes", plan.starts, plan.changes));
        bench.scene.env.pop();
        bench.scene.env.push(("FELIX_NFTABLESLAYOUT".to_owned(), layout.to_owned()));
        rows.extend(bench.layout(layout)?);
    }
    Ok(rows)
}

struct Bench {
    scene: Scene,
    size: Size,
    plan: Plan,
    /// For `nft`: everything, and one policy's chain written again.
    chains: String,
    change: String,
}

impl Bench {
    fn layout(&mut self, layout: &str) -> anyhow::Result<Vec<Row>> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.starts {
            self.scene.renew_interfaces()?;
            ours.push(self.by_agent()?);
            self.scene.stop_agent()?;
            flush(self.scene.netns()?)?;
            theirs.extend(self.by_nft().ok());
            flush(self.scene.netns()?)?;
        }
        let name = format!("{} sets, {} rules, layout {layout}", self.plan.sets, self.plan.rules);
        let mut rows = load_rows(&name, &ours, &theirs);
        rows.extend(self.changes(&name)?);
        Ok(rows)
    }

    fn by_agent(&mut self) -> anyhow::Result<Loaded> {
        let netns = self.scene.netns()?.clone();
        let before = kernel_mebibytes()?;
        let (load, waits) = other::during(&netns, || start(&mut self.scene))?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.scene.agent_pid()?))?;
        let (idle, kernel) = (kib(&status, "VmRSS")? / 1024.0, kernel_mebibytes()? - before);
        Ok(Loaded { load, idle_mebibytes: idle, kernel_mebibytes: kernel, waits })
    }

    fn by_nft(&self) -> anyhow::Result<Loaded> {
        let netns = self.scene.netns()?;
        let before = kernel_mebibytes()?;
        let (load, waits) = other::during(netns, || load(netns, &self.chains))?;
        Ok(Loaded { load, idle_mebibytes: 0.0, kernel_mebibytes: kernel_mebibytes()? - before, waits })
    }

    /// Changes of a rule and of a member, and the rule by `nft`.
    fn changes(&mut self, name: &str) -> anyhow::Result<Vec<Row>> {
        let netns = self.scene.netns()?.clone();
        self.scene.manifests.apply(&self.size.policy(0, FIRST_PORTS[0]))?;
        let mut control = self.scene.start_agent()?;
        // The agent may still be looking at what it has written.
        let first = self.change_rule(&mut control, FIRST_PORTS[1])?;
        let (mut rule, mut member, mut nft) = (Changes::default(), Changes::default(), Changes::default());
        for round in 0..self.plan.changes {
            rule.take(other::during(&netns, || self.change_rule(&mut control, PORTS[round % 2]))?);
            let more = (round + 1) % 2;
            member.take(other::during(&netns, || {
                change_sets(&mut self.scene, &mut control, self.size, 1, more)
            })?);
        }
        self.scene.stop_agent()?;
        flush(&netns)?;
        let is_loaded = load(&netns, &self.chains).is_ok();
        for _ in (0..self.plan.changes).filter(|_| is_loaded) {
            let change = || netns.enter(|| timed(|| by_hand::run("nft", &["-f", "-"], &self.change)))?;
            nft.take(other::during(&netns, change)?);
        }
        flush(&netns)?;
        let row = |what: &str, of: &Samples, beside: &Samples| {
            row(what, name, Unit::Millis, of).beside(NFT, beside)
        };
        Ok(vec![
            self::row(
                "first policy file after a start to agent's answer",
                name,
                Unit::Millis,
                &[first].into_iter().collect(),
            ),
            row("policy file to agent's answer", &rule.took, &nft.took),
            row("the longest wait of another writer, a rule changes", &rule.longest, &nft.longest),
            self::row("one member's file to agent's answer", name, Unit::Millis, &member.took),
            self::row(
                "the longest wait of another writer, a member changes",
                name,
                Unit::Millis,
                &member.longest,
            ),
        ])
    }

    fn change_rule(&mut self, control: &mut Control, port: u16) -> anyhow::Result<f64> {
        timed(|| {
            self.scene.manifests.apply(&self.size.policy(0, port))?;
            self.scene.explain(control.wait())
        })
    }
}

/// Changes of one kind, in milliseconds.
#[derive(Debug, Default)]
struct Changes {
    took: Samples,
    longest: Samples,
}

impl Changes {
    fn take(&mut self, (took, waits): (f64, Waits)) {
        self.took.push(took);
        self.longest.push(waits.longest);
    }
}

fn row(what: &str, name: &str, unit: Unit, samples: &Samples) -> Row {
    Row::new(Part::Loaded, format!("{what}, {name}"), unit, samples)
}

fn timed(action: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let started = Instant::now();
    action()?;
    Ok(millis(started.elapsed()))
}

fn load_rows(name: &str, ours: &[Loaded], theirs: &[Loaded]) -> Vec<Row> {
    let both = |what: &str, unit, of: fn(&Loaded) -> f64| {
        let [ours, theirs] = [ours, theirs].map(|all| all.iter().map(of).collect());
        row(what, name, unit, &ours).beside(NFT, &theirs)
    };
    let [waits, nft_waits] = [ours, theirs]
        .map(|all| -> Samples { all.iter().flat_map(|loaded| loaded.waits.all.iter()).collect() });
    let idle = ours.iter().map(|loaded| loaded.idle_mebibytes).collect();
    vec![
        both("start to all applied", Unit::Millis, |l| l.load.millis),
        both("processor for that, children included", Unit::Millis, |l| l.load.cpu_millis),
        both("peak of resident memory", Unit::Mebibytes, |l| l.load.peak_mebibytes),
        row("resident memory thereafter", name, Unit::Mebibytes, &idle),
        both("the kernel's memory for it", Unit::Mebibytes, |l| l.kernel_mebibytes),
        both("the longest wait of another writer, start", Unit::Millis, |l| l.waits.longest),
        row("all waits of another writer, start", name, Unit::Millis, &waits).beside(NFT, &nft_waits),
    ]
}

/// What the kernel uses for itself, but for its page tables and stacks.
fn kernel_mebibytes() -> anyhow::Result<f64> {
    thread::sleep(SETTLE);
    let text = fs::read_to_string("/proc/meminfo")?;
    let fields = ["Slab", "Percpu", "VmallocUsed"].map(|field| kib(&text, field));
    let mut sum = 0.0;
    for field in fields {
        sum += field?;
    }
    Ok(sum / 1024.0)
}

/// Members of the last of the sets, by the codec on a socket that stays open as the agent's does, and by `nft`.
fn members(netns: &Netns, changes: usize) -> anyhow::Result<Vec<Row>> {
    netns.enter(|| {
        let table = TableId::new(Family::Ipv4, "calico");
        let mut socket = Socket::new();
        let sets = socket.sets(&table)?;
        let is_selector = |set: &&Set| set.name.starts_with("cali40s");
        let count = sets.iter().filter_map(|entry| entry.set.as_ref().ok()).filter(is_selector).count();
        let last = sets.iter().filter_map(|entry| entry.set.as_ref().ok()).rfind(is_selector);
        let set = last.context("there are no sets")?;
        let rules = socket.rules(&table, None)?.len();
        let mut rows = Vec::new();
        for update in UPDATES {
            let (mut ours, mut theirs) = (Samples::default(), Samples::default());
            for round in 0..2 * changes {
                let is_added = round.is_multiple_of(2);
                ours.push(timed(|| commit(&mut socket, &table, set, (update, is_added)))?);
                theirs.push(timed(|| {
                    by_hand::run("nft", &["-f", "-"], &text(&table, set, (update, is_added)))
                })?);
            }
            let what = format!("{update} members of one of {count} sets added or deleted, {rules} rules");
            rows.push(Row::new(Part::Loaded, what, Unit::Millis, &ours).beside("nft -f", &theirs));
        }
        ensure!(socket.elements(&table, set)?.len() == 10, "members were left");
        Ok(rows)
    })?
}

fn commit(
    socket: &mut Socket,
    table: &TableId,
    set: &Set,
    (count, is_added): (u8, bool),
) -> anyhow::Result<()> {
    let elements: Vec<Element> = addresses(1, count).map(|address| Element::new(address.into())).collect();
    let mut transaction = Transaction::new();
    if is_added {
        transaction.add_elements(table, set, &elements);
    } else {
        transaction.remove_elements(table, set, &elements, Removal::MustExist);
    }
    Ok(socket.commit(&mut transaction, None)?)
}

fn text(table: &TableId, set: &Set, (count, is_added): (u8, bool)) -> String {
    let names: Vec<String> = addresses(101, count).map(|address| address.to_string()).collect();
    let verb = if is_added { "add" } else { "delete" };
    format!("{verb} element {table} {} {{ {} }}\n", set.name, names.join(", "))
}

/// Addresses that are in no set.
fn addresses(first: u8, count: u8) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(move |number| Ipv4Addr::new(203, 0, 113, first + number))
}
