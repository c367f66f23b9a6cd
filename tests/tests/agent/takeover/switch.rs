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
        Backend::Legacy => Backend::Nft,
    }
}

/// An agent goes, and the next one uses this back end.
pub(super) fn at_a_restart(to: Backend) -> Outcome {
    let mut node = Node::new(POLICIES)?;
    Probes::prepare(&node)?;
    node.start(Some(other(to)))?;
    node.settle()?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.start(Some(to))?;
    finish(&node, to, probes, begun, "restarted")
}

/// The agent that runs is told to use this back end.
pub(super) fn in_flight(to: Backend) -> Outcome {
    let mut node = Node::new(POLICIES)?;
    Probes::prepare(&node)?;
    node.write("felix.yaml", &setting(other(to)))?;
    node.start(None)?;
    node.settle()?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.write("felix.yaml", &setting(to))?;
    finish(&node, to, probes, begun, "changed in flight")
}

/// Felix, of a release with other marks, used the other one.
pub(super) fn from_felix(to: Backend) -> Outcome {
    let mut node = Node::new(POLICIES)?;
    Probes::prepare(&node)?;
    node.load(&older::left_by(Release::V3_27, &Left::by_felix(POLICIES)?), other(to))?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.start(Some(to))?;
    finish(&node, to, probes, begun, "from Felix 3.27")
}

fn setting(backend: Backend) -> String {
    format!(
        "apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {{name: default}}
spec: {{iptablesBackend: {}}}
",
        backend.name()
    )
}

fn finish(node: &Node, to: Backend, probes: Probes, begun: Instant, how: &str) -> Outcome {
    eventually("the other back end clean", || {
        Ok((node.rules(other(to))?.is_empty() && !node.rules(to)?.is_empty()).then_some(()))
    })?;
    let took = begun.elapsed();
    probes.end(&format!("to {}, {how}: done in {took:?}", to.name()))?;
    node.settle()?;
    node.expect_kernel(to, &untouched(POLICIES, to)?)
}
