//! Tables that follow a cluster step by step are those of the cluster as it is then, and what is told of each step is
//! what a driver needs, and no more.

use std::collections::BTreeMap;

use serde_json::Value;
use tortie_api::net::IpVersion;
use tortie_api::policy::Rule;
use tortie_api::resource::Resource;
use tortie_rules::compile::Change;
use tortie_rules::compile::classic::TableContent;
use tortie_rules::compile::fast::{Budget, Changes, Fast, Limits};
use tortie_rules::eval::ruleset::{Fate, Machine, Sets};
use tortie_rules::eval::{Cluster, Verdict};
use tortie_rules::graph::Graph;
use tortie_rules::random::{Dice, Landmarks, NODE, Probes, cluster, interfaces, resources};
use tortie_rules::render::Table;
use tortie_rules::ruleset::{Chain, Hook, Map};

use crate::scene::{Compiler, Variant};
use crate::setting;

/// Steps of each cluster.
const STEPS: usize = 12;
/// Packets after each step.
const PACKETS: usize = 12;

/// One table, as a driver that believes what it is told has it.
#[derive(Debug, Default)]
struct Mirror {
    hooks: Vec<Hook>,
    chains: BTreeMap<String, Chain>,
    maps: BTreeMap<String, Map>,
}

impl Mirror {
    /// Applies a change that must be one.
    fn apply(&mut self, change: Change) {
        match change {
            Change::Map(map) => {
                let old = self.maps.insert(map.name.clone(), map.clone());
                assert_ne!(old, Some(map), "a map that is no change");
            }
            Change::Chain(chain) => {
                let old = self.chains.insert(chain.name.clone(), chain.clone());
                assert_ne!(old, Some(chain), "a chain that is no change");
            }
            Change::Elements { map, removed, added } => {
                let map = self.maps.get_mut(&map).expect("a map that is there");
                let before = map.clone();
                for key in &removed {
                    assert!(map.elements.remove(key).is_some(), "{key:?} is not in {}", map.name);
                }
                for (key, verdict) in added {
                    let old = map.elements.insert(key, verdict);
                    assert_eq!(old, None, "an element that is there must go first");
                }
                assert_ne!(before, *map, "elements that are no change");
            }
            Change::Hooks(hooks) => self.hooks = hooks,
            Change::NoChain(name) => assert!(self.chains.remove(&name).is_some(), "{name} is not there"),
            Change::NoMap(name) => assert!(self.maps.remove(&name).is_some(), "{name} is not there"),
        }
    }

    fn content(&self, table: Table) -> TableContent {
        let chains = self.chains.values().cloned().collect();
        TableContent { table, hooks: self.hooks.clone(), chains, maps: self.maps.values().cloned().collect() }
    }
}

/// All tables of both IP versions, and the sets.
#[derive(Debug, Default)]
struct Kernel {
    tables: BTreeMap<(IpVersion, Table), Mirror>,
    sets: Sets,
}

impl Kernel {
    fn apply(&mut self, changes: Changes) {
        changes.sets.iter().for_each(|change| self.sets.apply(change));
        for update in changes.tables {
            self.tables.entry((update.version, update.table)).or_default().apply(update.change);
        }
    }

    fn tables(&self, version: IpVersion) -> Vec<TableContent> {
        let of_version = self.tables.iter().filter(|((of, _), _)| *of == version);
        of_version.map(|((_, table), mirror)| mirror.content(*table)).collect()
    }
}

fn fast(variant: &Variant, budget: Budget) -> Fast {
    Fast::with_budget(variant.config.clone(), budget)
}

fn feed(graph: &mut Graph, fast: &mut Fast) {
    graph.flush().iter().for_each(|event| fast.handle(event));
}

/// A step: some objects of one cluster or another come, and some go.
pub(crate) fn change(dice: &mut Dice, present: &mut BTreeMap<tortie_api::Key, Resource>, pool: &[Resource]) {
    for _ in 0..dice.within(1, 6) {
        if dice.chance(40) {
            edit(dice, present, pool);
        } else if dice.chance(35) && !present.is_empty() {
            let key = present.keys().nth(dice.below(present.len())).cloned().expect("there are so many");
            present.remove(&key);
        } else {
            let resource = dice.pick(pool).clone();
            present.insert(resource.key(), resource);
        }
    }
}

/// The rules of a policy, if it is one of Calico's.
fn rules(resource: &mut Resource) -> Option<[&mut Vec<Rule>; 2]> {
    match resource {
        Resource::GlobalNetworkPolicy(policy) if !policy.spec.do_not_track && !policy.spec.pre_dnat => {
            Some([&mut policy.spec.ingress, &mut policy.spec.egress])
        }
        Resource::NetworkPolicy(policy) => Some([&mut policy.spec.ingress, &mut policy.spec.egress]),
        _ => None,
    }
}

/// A rule comes into a policy, or goes.
fn edit(dice: &mut Dice, present: &mut BTreeMap<tortie_api::Key, Resource>, pool: &[Resource]) {
    let mut others = pool.to_vec();
    let kind = |resource: &Resource| resource.key().kind;
    let mut policies: Vec<&mut Resource> =
        present.values_mut().filter_map(|r| rules(r).is_some().then_some(r)).collect();
    if policies.is_empty() {
        return;
    }
    let at = dice.below(policies.len());
    let policy = &mut *policies[at];
    // Of the same kind: what rules of namespaces may say is something else.
    let wanted = kind(policy);
    let direction = dice.below(2);
    let mut found: Vec<Rule> = Vec::new();
    for other in others.iter_mut().filter(|other| kind(other) == wanted) {
        found.extend(rules(other).into_iter().flat_map(|[a, b]| [a, b][direction].clone()));
    }
    let Some(list) = rules(policy).map(|both| both.into_iter().nth(direction).expect("there are two")) else {
        return;
    };
    if dice.chance(45) && !list.is_empty() {
        list.remove(dice.below(list.len()));
    } else if !found.is_empty() {
        list.insert(dice.below(list.len() + 1), dice.pick(&found).clone());
    }
}

/// Lets a compiler follow a cluster through random steps. `is_same` is false where falling back may depend on what
/// was before.
fn follow(seed: u64, budget: Budget, is_same: bool) {
    let manifests: Vec<Value> = (0..3).flat_map(|n| cluster(3 * seed + n)).collect();
    let Ok(pool) = resources(&manifests) else { panic!("seed {seed}: a cluster is valid") };
    let variant = Variant::number(seed, Compiler::Fast);
    let (mut graph, mut followed, mut kernel) = (variant.graph(), fast(&variant, budget), Kernel::default());
    let mut present: BTreeMap<tortie_api::Key, Resource> = BTreeMap::new();
    let mut dice = Dice::new(seed);
    for resource in pool.iter().take(pool.len() / 3) {
        present.insert(resource.key(), resource.clone());
        graph.set(resource);
    }
    for step in 0..STEPS {
        let before = present.clone();
        if step > 0 {
            change(&mut dice, &mut present, &pool);
        }
        before.keys().filter(|key| !present.contains_key(*key)).for_each(|key| graph.remove(key));
        present.values().filter(|r| before.get(&r.key()) != Some(*r)).for_each(|r| graph.set(r));
        feed(&mut graph, &mut followed);
        kernel.apply(followed.poll());
        assert_eq!(followed.poll(), Changes::default(), "seed {seed}, step {step}: nothing is left");
        for version in IpVersion::BOTH {
            assert_eq!(kernel.tables(version), followed.tables(version), "seed {seed}, step {step}");
        }
        if is_same {
            compare_with_new(&variant, budget, &present, &mut followed, &kernel, (seed, step));
        }
        probe(&variant, &present, &manifests, &kernel, (seed, step));
    }
}

/// A compiler that knows nothing but the cluster as it is makes the same.
fn compare_with_new(
    variant: &Variant,
    budget: Budget,
    present: &BTreeMap<tortie_api::Key, Resource>,
    followed: &mut Fast,
    kernel: &Kernel,
    at: (u64, usize),
) {
    let (mut graph, mut new) = (variant.graph(), fast(variant, budget));
    present.values().for_each(|resource| graph.set(resource));
    feed(&mut graph, &mut new);
    let mut sets = Sets::default();
    new.poll().sets.iter().for_each(|change| sets.apply(change));
    for version in IpVersion::BOTH {
        for (ours, theirs) in followed.tables(version).iter().zip(&new.tables(version)) {
            let names = |content: &TableContent| -> Vec<String> {
                content
                    .chains
                    .iter()
                    .map(|c| c.name.clone())
                    .chain(content.maps.iter().map(|m| m.name.clone()))
                    .collect()
            };
            for (chain, new) in ours.chains.iter().zip(&theirs.chains) {
                assert_eq!(chain, new, "{at:?}");
            }
            for (map, new) in ours.maps.iter().zip(&theirs.maps) {
                assert_eq!(map, new, "{at:?}");
            }
            assert_eq!(names(ours), names(theirs), "{at:?}");
            assert_eq!(ours, theirs, "{at:?}");
        }
    }
    assert_eq!(format!("{:?}", kernel.sets), format!("{sets:?}"), "{at:?}");
}

/// What the kernel was told does what policy says.
fn probe(
    variant: &Variant,
    present: &BTreeMap<tortie_api::Key, Resource>,
    manifests: &[Value],
    kernel: &Kernel,
    at: (u64, usize),
) {
    let mut policy = Cluster::new(present.values().cloned()).with_settings(variant.settings());
    for (name, addresses) in interfaces() {
        policy.set_interface(NODE, name, &addresses);
    }
    let mut probes = Probes::new(at.0 + at.1 as u64, &policy, Landmarks::of(manifests));
    for version in IpVersion::BOTH {
        let tables = kernel.tables(version);
        let machine = Machine::new(version, &tables, &kernel.sets);
        let machine = machine.unwrap_or_else(|e| panic!("{at:?}: the kernel refuses: {e}"));
        for _ in 0..PACKETS {
            let Some(probe) = probes.probe(version) else { break };
            let is_allowed = policy.verdict_on(NODE, &probe.flow) == Verdict::Allow;
            let (outcome, steps) = machine.trace(&probe.packet);
            assert_eq!(
                outcome.fate == Fate::Accepted,
                is_allowed,
                "{at:?}: {:?} {steps:#?}\n{}",
                probe.packet,
                policy.explain(&probe.flow)
            );
        }
    }
}

#[test]
fn tables_that_follow_changes_are_those_of_the_cluster_as_it_is() {
    for seed in 0..setting("TORTIE_PROPERTY_UPDATES", 60) {
        follow(seed, Budget::default(), true);
    }
}

#[test]
fn lists_that_are_too_complex_fall_back_and_mean_the_same() {
    let limits = Limits::default();
    let tight = |seed| match seed % 5 {
        0 => Budget { lookups: 6, elements: 40, ..Budget::default() },
        1 => Budget { block: Limits { rows: 2, maps: 1, ..limits }, ..Budget::default() },
        2 => Budget { block: Limits { cells: 6, ..limits }, ..Budget::default() },
        3 => Budget { block: Limits { stretches: 3, elements: 3, ..limits }, ..Budget::default() },
        _ => Budget { block: Limits { work: 60, ..limits }, ..Budget::default() },
    };
    for seed in 0..setting("TORTIE_PROPERTY_UPDATES", 60) {
        follow(seed, tight(seed), false);
    }
}
