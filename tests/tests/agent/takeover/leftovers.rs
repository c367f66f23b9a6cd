//! What nobody wants any more: it goes, but not before it is known that nobody does.

use std::time::Instant;

use libtest_mimic::Failed;

use super::late::LateEngine;
use super::node::{self, Left, Node, POLICIES, untouched};
use super::older;
use super::probe::Probes;
use crate::Outcome;
use crate::scene::{Backend, eventually, expect_same};

/// The tables of Felix's nftables mode for the same workloads.
const NATIVE: &str = "takeover/nft-policies";

/// Old chains, a hook of them, sets and a route.
pub(super) fn of_iptables(backend: Backend) -> Outcome {
    let node = Node::new(POLICIES)?;
    Probes::prepare(&node)?;
    let mut left = Left::by_felix(POLICIES)?;
    older::add_leftovers(&mut left);
    node.load(&left, backend)?;
    let wanted = untouched(POLICIES, backend)?;
    let before = node.kernel(backend)?;
    let probes = Probes::start(&node)?;
    let engine = LateEngine::start(&node, backend)?;
    // It has been told everything but one kind of resource, and wakes up for it again and again.
    engine.expect_refusals(4)?;
    expect_same(&before, &node.kernel(backend)?)?;
    let begun = Instant::now();
    engine.release();
    node.expect_kernel(backend, &wanted)?;
    probes.end(&format!("leftovers on {}: gone {:?} after in-sync", backend.name(), begun.elapsed()))?;
    engine.end()
}

/// The tables of nftables mode.
pub(super) fn of_nftables(backend: Backend) -> Outcome {
    let (node, mut fresh) = (Node::new(POLICIES)?, Node::new(POLICIES)?);
    Probes::prepare(&node)?;
    for node in [&node, &fresh] {
        node.write("resources.yaml", &node::read(&format!("{NATIVE}.yaml"))?)?;
    }
    fresh.start(Some(backend))?;
    fresh.settle()?;
    let wanted = fresh.kernel(backend)?;
    node.netns.check("nft", &["-f", "-"], &node::read(&format!("{NATIVE}.txt"))?)?;
    let routes = Left::by_felix(POLICIES)?.routes.join("\n") + "\n";
    node.netns.check("ip", &["-batch", "-"], &routes)?;
    let probes = Probes::start(&node)?;
    let engine = LateEngine::start(&node, backend)?;
    engine.expect_refusals(4)?;
    assert_eq!(tables_of_felix(&node)?, ["arp calico-arp", "ip calico", "ip6 calico"]);
    assert_eq!(node.rules(backend)?, Vec::<String>::new());
    let begun = Instant::now();
    engine.release();
    eventually("no tables of Felix's", || Ok(tables_of_felix(&node)?.is_empty().then_some(())))?;
    let took = begun.elapsed();
    probes.end(&format!("nftables mode to {}: gone {took:?} after in-sync", backend.name()))?;
    node.expect_kernel(backend, &wanted)?;
    engine.end()
}

/// The same, where the next agent uses nftables mode itself: it takes the tables over.
pub(super) fn replaced(native: Backend) -> Outcome {
    let (mut node, mut fresh) = (Node::new(POLICIES)?, Node::new(POLICIES)?);
    Probes::prepare(&node)?;
    for node in [&node, &fresh] {
        node.write("resources.yaml", &node::read(&format!("{NATIVE}.yaml"))?)?;
    }
    fresh.start(Some(native))?;
    fresh.settle()?;
    node.netns.check("nft", &["-f", "-"], &node::read(&format!("{NATIVE}.txt"))?)?;
    let routes = Left::by_felix(POLICIES)?.routes.join("\n") + "\n";
    node.netns.check("ip", &["-batch", "-"], &routes)?;
    let probes = Probes::start(&node)?;
    let begun = Instant::now();
    node.start(Some(native))?;
    node.settle()?;
    eventually("nothing of Felix's", || {
        let is_gone = tables_of_felix(&node)? == ["ip calico", "ip6 calico"];
        Ok(is_gone.then_some(()))
    })?;
    probes.end(&format!("nftables mode taken over in {:?}", begun.elapsed()))?;
    // A set that was one of ranges stays one: it is as good.
    let kind = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.contains("flags interval")).collect()
    };
    expect_same(&kind(fresh.kernel(native)?), &kind(node.kernel(native)?))
}

fn tables_of_felix(node: &Node) -> Result<Vec<String>, Failed> {
    let text = node.netns.check("nft", &["list", "tables"], "")?;
    let names = text.lines().filter_map(|line| line.strip_prefix("table "));
    let mut found: Vec<String> = names.filter(|name| name.contains("calico")).map(str::to_owned).collect();
    found.sort();
    Ok(found)
}
