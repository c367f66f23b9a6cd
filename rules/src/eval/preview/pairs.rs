//! Which flows are evaluated, and what comes of it.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;
use tortie_api::net::IpVersion;
use tortie_api::resource::Resource;

use super::super::cluster::Cluster;
use super::super::derived::Endpoint;
use super::merge::{Outcome, merge};
use super::sites::{Both, Census, Group, Site, Who};
use super::view::{Common, View};
use super::{Interfaces, VerdictChange};

/// The name for interfaces without a host endpoint of their own.
const OTHER: &str = "other";

/// The verdicts that change, and how many pairs were left out.
pub(super) fn verdicts(
    views: &mut Both<View<'_>>,
    common: &mut Common,
    max_pairs: usize,
) -> (Vec<VerdictChange>, usize) {
    let censuses = IpVersion::BOTH.map(|version| Census::new(version, views, common));
    let (mut left, mut left_out) = (max_pairs, 0);
    let samples = [0, 1].map(|at| {
        let mut chooser = Chooser { census: &censuses[at], views, samples: Vec::new(), left, left_out: 0 };
        chooser.choose();
        (left, left_out) = (chooser.left, left_out + chooser.left_out);
        chooser.samples
    });
    let clusters = [0, 1].map(|at| {
        let sampled = samples.iter().zip(&censuses).flat_map(|(samples, census)| {
            samples.iter().flat_map(|s| [s.source, s.destination]).map(|site| &census.sites[site])
        });
        reduced(at, &views[at], sampled)
    });
    let outcomes = [0, 1].map(|at| {
        let census = &censuses[at];
        let evaluate = |sample: Sample| Outcome {
            difference: sample.evaluate(IpVersion::BOTH[at], census, &clusters),
            groups: sample.groups,
            same_node: sample.same_node,
            interfaces: sample.interfaces,
        };
        samples[at].iter().cloned().map(evaluate).collect::<Vec<_>>()
    });
    (merge(&censuses, outcomes), left_out)
}

/// A pair of sites that stands for all of its groups.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    groups: (usize, usize),
    pub(super) source: usize,
    pub(super) destination: usize,
    same_node: Option<bool>,
    pub(super) interfaces: Interfaces,
}

/// Chooses pairs.
struct Chooser<'c, 'a> {
    census: &'c Census<'a>,
    views: &'c Both<View<'a>>,
    samples: Vec<Sample>,
    left: usize,
    left_out: usize,
}

impl Chooser<'_, '_> {
    fn choose(&mut self) {
        let groups = &self.census.groups;
        for affected in (0..groups.len()).filter(|at| groups[*at].is_affected) {
            for (other, group) in groups.iter().enumerate() {
                self.pair(affected, other);
                if !group.is_affected {
                    self.pair(other, affected);
                }
            }
        }
    }

    fn pair(&mut self, from: usize, to: usize) {
        let (a, b) = (&self.census.groups[from], &self.census.groups[to]);
        // Nobody's policy is asked then.
        if (0..2).any(|at| a.is_nobody[at] && b.is_nobody[at]) {
            return;
        }
        if self.left == 0 {
            self.left_out += 1;
            return;
        }
        self.left -= 1;
        let filters_forwarded = self.views.iter().any(|view| view.filters_forwarded);
        let is_told_apart = (a.is_host || b.is_host || filters_forwarded) && !a.is_outside && !b.is_outside;
        if !is_told_apart {
            let (source, destination) = (a.sites[0], b.sites.iter().find(|site| **site != a.sites[0]));
            if let Some(destination) = destination {
                self.sample((from, to), (source, *destination), None);
            }
            return;
        }
        if let Some(sites) = on_same_node(a, b, from == to) {
            self.sample((from, to), sites, Some(true));
        }
        if let Some(sites) = on_different_nodes(a, b) {
            self.sample((from, to), sites, Some(false));
        }
    }

    fn sample(&mut self, groups: (usize, usize), sites: (usize, usize), same_node: Option<bool>) {
        let [from, to] = [sites.0, sites.1].map(|site| {
            if same_node == Some(true) { vec![None] } else { self.interfaces(&self.census.sites[site]) }
        });
        for source in &from {
            for destination in &to {
                self.samples.push(Sample {
                    groups,
                    source: sites.0,
                    destination: sites.1,
                    same_node,
                    interfaces: Interfaces { source: source.clone(), destination: destination.clone() },
                });
            }
        }
    }

    /// The interfaces of a site's node to tell apart.
    fn interfaces(&self, site: &Site<'_>) -> Vec<Option<String>> {
        let Some(node) = site.node() else { return vec![None] };
        let mut names = BTreeSet::new();
        let mut has_other = false;
        for view in self.views {
            let (named, other) = view.interfaces(node);
            names.extend(named);
            has_other |= other;
        }
        if names.len() + usize::from(has_other) < 2 {
            return vec![None];
        }
        let other = has_other.then_some(OTHER);
        names.into_iter().chain(other).map(|name| Some(name.to_owned())).collect()
    }
}

fn on_same_node(a: &Group, b: &Group, is_one: bool) -> Option<(usize, usize)> {
    if is_one {
        // A node speaks with itself, a workload does not.
        let own = |(first, second): &(usize, Option<usize>)| {
            Some((*first, second.or(a.is_host.then_some(*first))?))
        };
        return a.by_node.values().find_map(own);
    }
    a.by_node.iter().find_map(|(node, (site, _))| Some((*site, b.by_node.get(node)?.0)))
}

fn on_different_nodes(a: &Group, b: &Group) -> Option<(usize, usize)> {
    let (node, (site, _)) = a.by_node.first_key_value()?;
    if let Some((_, (other, _))) = b.by_node.iter().find(|(of, _)| *of != node) {
        return Some((*site, *other));
    }
    let (node, (other, _)) = b.by_node.first_key_value()?;
    let (_, (site, _)) = a.by_node.iter().find(|(of, _)| *of != node)?;
    Some((*site, *other))
}

/// The cluster with only those workloads that are asked about, and those that have something to do with them.
fn reduced<'s, 'a: 's>(at: usize, view: &View<'a>, sampled: impl Iterator<Item = &'s Site<'a>>) -> Cluster {
    let (mut addresses, mut interfaces) = (FxHashSet::default(), FxHashSet::default());
    for site in sampled {
        addresses.insert(site.address);
        if let Some(Who::Workload(endpoint)) = site.who[at] {
            interfaces.insert((endpoint.node.as_str(), endpoint.interface.as_str()));
        }
    }
    let is_needed = |endpoint: &&Endpoint| {
        let nets = &view.derived.items[endpoint.item].nets;
        interfaces.contains(&(endpoint.node.as_str(), endpoint.interface.as_str()))
            || endpoint.addresses.iter().any(|address| addresses.contains(address))
            || nets.iter().any(|net| net.prefix_len() != net.max_prefix_len())
    };
    let (mut pods, mut endpoints) = (FxHashSet::default(), FxHashSet::default());
    for endpoint in view.derived.workloads.iter().filter(is_needed) {
        let (namespace, pod) = endpoint.point.workload();
        pods.insert((namespace, pod));
        endpoints.insert((namespace, endpoint.full_name.as_str()));
    }
    view.cluster.only(|resource| {
        let metadata = resource.metadata();
        let name = (metadata.namespace_text(), metadata.name.as_str());
        match resource {
            Resource::Pod(_) => pods.contains(&name),
            Resource::WorkloadEndpoint(_) => endpoints.contains(&name),
            _ => true,
        }
    })
}
