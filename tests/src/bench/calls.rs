//! How often the agent runs `iptables-restore` for one change, beside how many tables the change is in.

use anyhow::ensure;

use super::control::Control;
use super::scene::{PodId, Scene, app_of, policy};
use super::stats::Samples;
use super::{Part, Row, Unit};
use crate::manifests::ObjectKey;

/// How often each change is made and taken back.
const ROUNDS: u16 = 3;
/// A node that no agent runs on.
const ELSEWHERE: &str = "node-2";

type Act = fn(&mut Scene, u16) -> anyhow::Result<()>;

/// A kind of change: what it is, doing it, taking it back.
const CHANGES: [(&str, Act, Act); 4] = [
    ("a rule of a policy", |scene, round| set_port(scene, 9100 + round), |_, _| Ok(())),
    ("a member of a selector", add_remote, |scene, _| remove(scene, remote(scene))),
    ("a new pod", |scene, _| scene.write_pod(scene.spare(), 0), |scene, _| remove(scene, scene.spare())),
    (
        "a label of a pod",
        |scene, _| scene.write_pod(PodId(0), 99),
        |scene, _| scene.write_pod(PodId(0), app_of(0, scene.size)),
    ),
];

/// Measures all kinds of change. The agent runs.
pub(super) fn measure(scene: &mut Scene) -> anyhow::Result<Vec<Row>> {
    let mut control = scene.control()?;
    control.wait()?;
    CHANGES.iter().map(|(what, act, undo)| one(scene, &mut control, what, *act, *undo)).collect()
}

fn one(scene: &mut Scene, control: &mut Control, what: &str, act: Act, undo: Act) -> anyhow::Result<Row> {
    let (mut restores, mut tables) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let (state, applies) = (scene.tools.state()?, control.status()?.applies);
        act(scene, round)?;
        control.wait()?;
        let status = control.status()?;
        ensure!(status.applies == applies + 1, "{what}: applied {} times", status.applies - applies);
        restores.push(count(status.last_apply.restores)?);
        tables.push(count(state.changed_tables(&scene.tools.state()?))?);
        undo(scene, round)?;
        control.wait()?;
    }
    let what = format!("iptables-restore runs for {what}, {} pods", scene.size);
    Ok(Row::new(Part::Calls, what, Unit::Count, &restores).beside("changed tables", &tables))
}

fn set_port(scene: &mut Scene, port: u16) -> anyhow::Result<()> {
    Ok(scene.manifests.apply(&policy(0, 0, port))?)
}

/// A client on another node: of no concern but for the set that it is a member of.
fn remote(scene: &Scene) -> PodId {
    PodId((scene.size + 2).next_multiple_of(2))
}

fn add_remote(scene: &mut Scene, _: u16) -> anyhow::Result<()> {
    let manifest = remote(scene).manifest(ELSEWHERE, 99);
    Ok(scene.manifests.apply(&manifest)?)
}

fn remove(scene: &mut Scene, pod: PodId) -> anyhow::Result<()> {
    Ok(scene.manifests.remove(&ObjectKey::of(&pod.manifest("", 0))?)?)
}

fn count(number: usize) -> anyhow::Result<f64> {
    Ok(u32::try_from(number)?.into())
}
