//! Marks that change: one table writes them, others read them, and tables do not change together.

use libtest_mimic::Failed;

use super::gate::{Gate, Point};
use super::{expect_as_fresh, kill, open, write_state};
use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::watch::Watch;

/// Bits that no other of these masks has.
pub(super) const NEW: [&str; 3] = ["0xff00", "0xff0000", "0xff000000"];
/// Bits that mean another thing in the next of these masks: what is a mark of workloads in one is accepted, passed on
/// or dropped in another.
const CHANGED: [&str; 4] = ["0xff00", "0x3fc00", "0x1fe00", "0x7f800"];

pub(super) fn new(backend: Backend) -> Outcome {
    let (mut scene, gate, mut probes) = open(backend)?;
    killed_between_tables(&mut scene, &gate, &NEW, &mut || probes.go_on())?;
    probes.end()?;
    expect_as_fresh(&scene, backend)
}

/// While tables disagree about marks, and no agent comes, some of what is allowed is dropped. That cannot be helped:
/// tables do not change together, and the first one writes what the others read.
pub(super) fn changed(backend: Backend) -> Outcome {
    let (mut scene, gate, probes) = open(backend)?;
    let mut go_on = || probes.closed.iter().try_for_each(Watch::goes_on);
    killed_between_tables(&mut scene, &gate, &CHANGED, &mut go_on)?;
    probes.closed.into_iter().try_for_each(Watch::end)?;
    expect_as_fresh(&scene, backend)
}

/// Agents with other marks are killed when only some tables have them, and none comes for a while.
fn killed_between_tables(
    scene: &mut Scene,
    gate: &Gate,
    masks: &[&str],
    go_on: &mut dyn FnMut() -> Outcome,
) -> Outcome {
    let points = [Point::Before, Point::After];
    let cases = points.iter().flat_map(|point| ["raw", "mangle", "filter"].map(|table| (table, *point)));
    let mut state = 0;
    for ((table, point), mask) in cases.zip(masks.iter().cycle().skip(1)) {
        kill(scene)?;
        scene.set_env("FELIX_IPTABLESMARKMASK", mask);
        state += 1;
        write_state(scene, state)?;
        let before = marks(scene)?;
        gate.stop_next(table, point)?;
        scene.start_on(NODE)?;
        gate.wait_stopped()?;
        // The others have the new marks; this one does not, or only the agent does not know it.
        let is_there = |name: &str| name != table || point == Point::After;
        eventually("the other tables", || {
            let now = marks(scene)?;
            let changed = before.iter().zip(&now).filter(|((name, _), _)| is_there(name));
            Ok(changed.into_iter().all(|(old, new)| old != new).then_some(()))
        })?;
        kill(scene)?;
        go_on()?;
        gate.release()?;
        go_on()?;
        scene.start_on(NODE)?;
        scene.settle().map_err(|e| format!("{table} {point:?} {mask}: {e:?}"))?;
    }
    Ok(())
}

/// The rules with marks of each table that has some.
fn marks(scene: &Scene) -> Result<Vec<(&'static str, Vec<String>)>, Failed> {
    let of = |table| {
        let text = scene.iptables(NODE, &format!("iptables-save -t {table}"))?;
        let lines = text.lines().filter(|line| line.contains("mark "));
        Ok((table, lines.map(str::to_owned).collect()))
    };
    ["raw", "mangle", "filter"].into_iter().map(of).collect()
}
