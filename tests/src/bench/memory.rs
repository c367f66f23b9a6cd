//! The agent's resident memory, beside the size of the manifests that it read.

use std::fs;

use anyhow::{Context, ensure};

use super::scene::{PodId, Scene};
use super::{Backend, Part, Row, Unit};

/// A node that no agent runs on.
const ELSEWHERE: &str = "node-2";
/// An app that no policy selects.
const NO_APP: usize = 99;

/// An agent with an empty datastore.
pub(super) fn idle(backend: Backend) -> anyhow::Result<Vec<Row>> {
    let mut scene = Scene::bare(backend, 0)?;
    scene.start_agent()?;
    rows(&scene, "idle")
}

/// An agent with one pod, whose policy lets in `count` pods on another node.
pub(super) fn remote(backend: Backend, count: usize) -> anyhow::Result<Vec<Row>> {
    let mut scene = Scene::build(backend, 1)?;
    // Pods with even numbers are the clients that the policy lets in; 0 is the local one.
    for pod in (1..=count).map(|number| PodId(2 * number)) {
        scene.manifests.apply(&pod.manifest(ELSEWHERE, NO_APP))?;
    }
    scene.start_agent()?;
    let sets = scene.netns()?.check("ipset", &["save"], "")?;
    let members = sets.lines().filter(|line| line.starts_with("add cali40s:")).count();
    ensure!(members > count, "only {members} members of {count} are in a set");
    rows(&scene, &format!("{count} remote pods in a set"))
}

/// An agent that has applied a scene.
pub(super) fn local(scene: &Scene) -> anyhow::Result<Vec<Row>> {
    let status = scene.control()?.status()?;
    ensure!(status.endpoints == scene.size, "{} endpoints of {}", status.endpoints, scene.size);
    rows(scene, &format!("{} pods, {} policies", scene.size, status.policies))
}

fn rows(scene: &Scene, what: &str) -> anyhow::Result<Vec<Row>> {
    let status = fs::read_to_string(format!("/proc/{}/status", scene.agent_pid()?))?;
    let bytes = scene.manifest_bytes()?;
    let manifests = [mebibytes(bytes)].into_iter().collect();
    let row = |name: &str, field: &str| -> anyhow::Result<Row> {
        let value = [kib(&status, field)? / 1024.0].into_iter().collect();
        let row = Row::new(Part::Memory, format!("agent, {what}: {name}"), Unit::Mebibytes, &value);
        Ok(if bytes == 0 { row } else { row.beside("the manifests", &manifests) })
    };
    Ok(vec![row("resident", "VmRSS")?, row("of that its data", "RssAnon")?, row("peak", "VmHWM")?])
}

/// A field of `/proc/PID/status`.
pub(super) fn kib(status: &str, field: &str) -> anyhow::Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u32>().ok());
    value.map(f64::from).with_context(|| format!("no {field} of the agent"))
}

fn mebibytes(bytes: u64) -> f64 {
    // A datastore beyond 4 TiB would show as one of 4 TiB.
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers are exact")]
    fn a_field_of_a_process_status_is_found_by_its_whole_name() {
        let status = "VmRSSX:\t 1 kB\nVmRSS:\t   12345 kB\n";
        assert_eq!(kib(status, "VmRSS").unwrap(), 12345.0);
        assert!(kib(status, "VmHWM").is_err());
    }
}
