//! Another back end than before: the new one's rules first, then the old one's go.

use std::time::Instant;

use super::node::{Left, Node, POLICIES, untouched};
use super::older::{self, Release};
use super::probe::Probes;
use crate::Outcome;
use crate::scene::{Backend, eventually};

/// The one that this is not.
fn other(backend: Backend) -> Backend {
    match backend {
        Backend::Nft => Backend::Legacy,
        Backend::Legacy | Backend::Native => Backend::Nft,
    }
}

/// An agent goes, and the next one uses this back end.
pub(super) fn at_a_restart(to: Backend) -> Outcome {
    restart(other(to), to)
}

/// An agent of nftables mode goes, and the next one uses iptables.
pub(super) fn from_native(to: Backend) -> Outcome {
    restart(Backend::Native, to)
}

/// The next one uses nftables mode.
pub(super) fn to_native(from: Backend) -> Outcome {
    restart(from, Backend::Native)
}

fn restart(from: Backend, to: Backend) -> Outcome {
    let mut node = Node::new(POLICIES)?;
    Probes::prepare(&node)?;
    node.start(Some(from))?;
    node.settle()?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.start(Some(to))?;
    finish(&node, (from, to), probes, begun, "restarted")
}

/// The agent that runs is told to use this back end.
pub(super) fn in_flight(to: Backend) -> Outcome {
    change(other(to), to)
}

/// The agent that runs in nftables mode is told to use iptables.
pub(super) fn in_flight_from_native(to: Backend) -> Outcome {
    change(Backend::Native, to)
}

/// The agent that runs is told to use nftables mode.
pub(super) fn in_flight_to_native(from: Backend) -> Outcome {
    change(from, Backend::Native)
}

fn change(from: Backend, to: Backend) -> Outcome {
    let mut node = Node::new(POLICIES)?;
    Probes::prepare(&node)?;
    node.write("felix.yaml", &setting(from))?;
    node.start(None)?;
    node.settle()?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.write("felix.yaml", &setting(to))?;
    finish(&node, (from, to), probes, begun, "changed in flight")
}

/// Felix, of a release with other marks, used the other one.
pub(super) fn from_felix(to: Backend) -> Outcome {
    let mut node = Node::new(POLICIES)?;
    Probes::prepare(&node)?;
    node.load(&older::left_by(Release::V3_27, &Left::by_felix(POLICIES)?), other(to))?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.start(Some(to))?;
    finish(&node, (other(to), to), probes, begun, "from Felix 3.27")
}

fn setting(backend: Backend) -> String {
    format!(
        "apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {{name: default}}
spec: {{{}}}
",
        match backend {
            Backend::Native => "nftablesMode: Enabled".to_owned(),
            _ => format!("nftablesMode: Disabled, iptablesBackend: {}", backend.name()),
        }
    )
}

fn finish(node: &Node, (from, to): (Backend, Backend), probes: Probes, begun: Instant, how: &str) -> Outcome {
    eventually("the other back end clean", || {
        Ok((node.rules(from)?.is_empty() && !node.rules(to)?.is_empty()).then_some(()))
    })?;
    let took = begun.elapsed();
    probes.end(&format!("{} to {}, {how}: done in {took:?}", from.name(), to.name()))?;
    node.settle()?;
    node.expect_kernel(to, &untouched(POLICIES, to)?)
}
