//! The same node in nftables mode, beside `nft -f` loading the same policies rule by rule.

use std::time::Instant;

use super::{
    Control, Event, Events, Load, PRODUCTION, Part, REPAIRS, Row, Samples, Scene, Unit, change_sets,
    children_millis, millis, start, starts_rows,
};
use crate::bench::Backend;
use crate::lab::Netns;

/// A chain that is there whatever the policies are.
const LANDMARK: &str = "filter-cali-FORWARD";
/// `AF_INET`
const IPV4: u8 = 2;

/// Starts, changes and repairs.
pub(in crate::bench) fn measure(
    starts: usize,
    changes: usize,
    tell: &dyn Fn(&str),
) -> anyhow::Result<Vec<Row>> {
    let size = PRODUCTION;
    let mut scene = size.build(Backend::Nft)?;
    for (name, value) in [("FELIX_IPV6SUPPORT", "false"), ("FELIX_NFTABLESMODE", "Enabled")] {
        scene.env.push((name.to_owned(), value.to_owned()));
    }
    tell("  the ruleset of the chains of iptables mode");
    let linear = linear_ruleset(&mut scene)?;
    tell(&format!("  starting {starts} times"));
    let mut rows = starts_of(&mut scene, starts, &linear)?;
    let mut control = scene.start_agent()?;
    tell("  changes");
    let policy = |scene: &mut Scene, round: usize| {
        Ok(scene.manifests.apply(&size.policy(0, if round.is_multiple_of(2) { 9001 } else { 9002 }))?)
    };
    rows.push(answers(&mut scene, &mut control, changes, "policy file to agent's answer", &policy)?);
    let mut samples = Samples::default();
    for round in 0..changes {
        samples.push(change_sets(&mut scene, &mut control, size, 1, (round + 1) % 2)?);
    }
    rows.push(row("one member", Unit::Millis, &samples));
    rows.push(repairs(&scene, &mut control)?);
    Ok(rows)
}

fn row(what: &str, unit: Unit, samples: &Samples) -> Row {
    Row::new(Part::Native, format!("{what}, production node, nftables mode"), unit, samples)
}

/// What the kernel holds when policies are chains of rules.
fn linear_ruleset(scene: &mut Scene) -> anyhow::Result<String> {
    scene.env.push(("FELIX_NFTABLESLAYOUT".to_owned(), "Chains".to_owned()));
    scene.start_agent()?;
    scene.stop_agent()?;
    scene.env.pop();
    scene.env.push(("FELIX_NFTABLESLAYOUT".to_owned(), "Tables".to_owned()));
    let rules = scene.netns()?.check("nft", &["list", "ruleset"], "")?;
    flush(scene.netns()?)?;
    Ok(rules)
}

/// Empties nf_tables.
pub(super) fn flush(netns: &Netns) -> anyhow::Result<()> {
    netns.check("nft", &["flush", "ruleset"], "")?;
    Ok(())
}

fn starts_of(scene: &mut Scene, starts: usize, linear: &str) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        scene.renew_interfaces()?;
        ours.push(start(scene)?);
        scene.stop_agent()?;
        flush(scene.netns()?)?;
        theirs.push(load(scene.netns()?, linear)?);
        flush(scene.netns()?)?;
    }
    Ok(starts_rows(Part::Native, "production node, nftables mode", "nft -f, rule by rule", &ours, &theirs))
}

/// Loads the rules with `nft`.
pub(super) fn load(netns: &Netns, rules: &str) -> anyhow::Result<Load> {
    let before = children_millis()?;
    let started = Instant::now();
    let peak_mebibytes = super::watched(netns, "nft", &["-f", "-"], rules)?;
    Ok(Load { millis: millis(started.elapsed()), cpu_millis: children_millis()? - before, peak_mebibytes })
}

/// Changes, each to the agent's answer that it is applied.
fn answers(
    scene: &mut Scene,
    control: &mut Control,
    changes: usize,
    what: &str,
    change: &dyn Fn(&mut Scene, usize) -> anyhow::Result<()>,
) -> anyhow::Result<Row> {
    let mut samples = Samples::default();
    for round in 0..changes {
        let started = Instant::now();
        change(scene, round)?;
        scene.explain(control.wait())?;
        samples.push(millis(started.elapsed()));
    }
    Ok(row(what, Unit::Millis, &samples))
}

/// Somebody flushes our table, rules, sets and all: to the kernel's word that the rules are back.
fn repairs(scene: &Scene, control: &mut Control) -> anyhow::Result<Row> {
    let mut events = Events::listen(scene.netns()?)?;
    let mut samples = Samples::default();
    for _ in 0..REPAIRS {
        control.wait()?;
        events.clear();
        scene.netns()?.check("nft", &["flush", "table", "ip", "calico"], "")?;
        let flushed = Instant::now();
        let back = events.wait(&[Event::Rule(IPV4, LANDMARK.to_owned())].into())?;
        samples.push(millis(back.saturating_duration_since(flushed)));
    }
    Ok(row("a flushed table is back", Unit::Millis, &samples))
}
