//! From the agent's start to everything applied: on an empty kernel, and on one that has it all.

use std::time::Instant;

use anyhow::ensure;

use super::by_hand::{READ_TOOLS, WRITE_TOOLS};
use super::latency::millis;
use super::scene::Scene;
use super::stats::Samples;
use super::{Part, Row, Unit, by_hand};

/// Measures `starts` starts of each kind; none runs before or after.
pub(super) fn measure(scene: &mut Scene, starts: usize) -> anyhow::Result<Vec<Row>> {
    let (mut empty, mut right, mut restores) = (Samples::default(), Samples::default(), Samples::default());
    let (mut written, mut read) = (Samples::default(), Samples::default());
    for _ in 0..starts {
        // An agent changes the settings of interfaces for good.
        scene.renew_interfaces()?;
        let (took, _) = start(scene)?;
        empty.push(took);
        scene.stop_agent()?;

        let (took, count) = start(scene)?;
        right.push(took);
        restores.push(u32::try_from(count)?.into());
        scene.stop_agent()?;

        let started = Instant::now();
        let saved = scene.tools.save()?;
        let sets = scene.netns()?.check("ipset", &["save"], "")?;
        let routes = scene.netns()?.check("ip", &["route", "show", "proto", "80"], "")?;
        read.push(millis(started.elapsed()));

        scene.tools.flush()?;
        let routes = by_hand::lines("route replace proto 80 ", routes.lines());
        // As an ordinary user the tools cannot hand so much to the kernel at once.
        if let Ok(took) = scene.tools.restore_all(&saved, &sets, &routes) {
            written.push(millis(took));
        }
        scene.tools.flush()?;
    }
    let row = |what: &str, unit, samples: &Samples| {
        Row::new(Part::Start, format!("{what}, {} pods", scene.size), unit, samples)
    };
    Ok(vec![
        row("agent's start on an empty kernel to all applied", Unit::Millis, &empty)
            .beside(WRITE_TOOLS, &written),
        row("agent's start on a right kernel to all checked", Unit::Millis, &right).beside(READ_TOOLS, &read),
        row("iptables-restore runs of that", Unit::Count, &restores),
    ])
}

/// Starts the agent: milliseconds until it has applied everything, and how often it ran `iptables-restore`.
fn start(scene: &mut Scene) -> anyhow::Result<(f64, usize)> {
    let started = Instant::now();
    let mut control = scene.start_agent()?;
    let took = millis(started.elapsed());
    let status = control.status()?;
    ensure!(status.endpoints == scene.size, "{} endpoints of {}", status.endpoints, scene.size);
    Ok((took, status.last_apply.restores))
}
