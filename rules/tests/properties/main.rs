//! What is compiled is what is meant: for random clusters and packets, the compiled rules, run as the kernel would,
//! say the same as the policy, read as it is written.
//!
//! `TORTIE_PROPERTY_PAIRS` sets how many pairs of cluster and packet are tried, `TORTIE_PROPERTY_SEED` the first
//! seed. A disagreement is cut down to what it needs and printed with manifests, packet and both explanations.

mod conditions;
mod corners;
mod scene;
mod shrink;
mod updates;

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};

use tortie_api::net::IpVersion;
use tortie_rules::eval::Verdict;
use tortie_rules::eval::ruleset::{ConnectionState, Fate, Packet};
use tortie_rules::random::{Dice, Landmarks, NODE, Probe, Probes, cluster, interfaces, resources};

use scene::{Compiler, Scene, Variant};

/// Pairs that are tried if nobody says how many.
const PAIRS: u64 = 2_000_000;
/// Packets for each cluster.
const PACKETS: u64 = 250;
/// One packet in so many is also asked about what has nothing to do with policy.
const INVARIANT_STRIDE: u64 = 16;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

#[test]
fn compiled_rules_do_what_policy_says() {
    println!("{}", try_clusters(Compiler::Classic));
}

#[test]
fn compiled_tables_do_what_policy_says() {
    println!("{}", try_clusters(Compiler::Fast));
}

/// Says what it saw.
fn try_clusters(compiler: Compiler) -> String {
    let clusters = setting("TORTIE_PROPERTY_PAIRS", PAIRS).div_ceil(PACKETS);
    let first = setting("TORTIE_PROPERTY_SEED", 0);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let tally = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        let work = || {
            let mut tally = [0_u64; 2];
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= clusters || first + number > failed.load(Ordering::Relaxed) {
                    return tally;
                }
                match try_cluster(first + number, compiler) {
                    Ok([denied, allowed]) => tally = [tally[0] + denied, tally[1] + allowed],
                    Err(_) => {
                        failed.fetch_min(first + number, Ordering::Relaxed);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().fold([0, 0], |sum, worker| {
            let [denied, allowed] = worker.join().expect("a worker does not panic");
            [sum[0] + denied, sum[1] + allowed]
        })
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        let Err(failure) = try_cluster(failed, compiler) else { panic!("seed {failed} failed only once") };
        panic!("seed {failed}: {}", failure.report());
    }
    let [denied, allowed] = tally;
    // Packets that all meet the same fate would prove little.
    assert!(denied.min(allowed) > (denied + allowed) / 10, "{allowed} allowed, {denied} denied");
    format!("{clusters} clusters, {} packets: {allowed} allowed, {denied} denied", denied + allowed)
}

/// What a cluster and a packet disagree on.
struct Failure {
    manifests: Vec<serde_json::Value>,
    variant: Variant,
    probe: Probe,
}

impl Failure {
    fn report(self) -> String {
        let fails = |manifests: &[serde_json::Value]| {
            let scene = Scene::new(manifests, &self.variant);
            scene.is_ok_and(|scene| scene.has_place(&self.probe) && !agrees(&scene, &self.probe, true))
        };
        let manifests = shrink::shrink(self.manifests, &fails);
        let scene = Scene::new(&manifests, &self.variant).expect("it was just looked at");
        scene.describe(&manifests, &self.probe)
    }
}

/// Tries the packets of one cluster. Returns how many were denied and allowed.
fn try_cluster(seed: u64, compiler: Compiler) -> Result<[u64; 2], Box<Failure>> {
    let manifests = cluster(seed);
    let variant = Variant::number(seed, compiler);
    let scene = Scene::new(&manifests, &variant).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let mut probes = Probes::new(seed, &scene.policy, Landmarks::of(&manifests));
    let mut dice = Dice::new(!seed);
    let mut tally = [0, 0];
    for number in 0..PACKETS {
        let version = if dice.chance(60) { IpVersion::V4 } else { IpVersion::V6 };
        let Some(mut probe) = probes.probe(version) else { break };
        probe.packet.mark = variant.foreign_mark(dice.number());
        if !agrees(&scene, &probe, number % INVARIANT_STRIDE == 0) {
            return Err(Box::new(Failure { manifests, variant, probe }));
        }
        let allowed = scene.policy_verdict(&probe) == Verdict::Allow;
        tally[usize::from(allowed)] += 1;
    }
    Ok(tally)
}

/// Whether policy and rules agree on a packet, and, if asked for, whether what always holds does.
fn agrees(scene: &Scene, probe: &Probe, with_invariants: bool) -> bool {
    let outcome = scene.machine(&probe.packet).run(&probe.packet);
    let is_allowed = outcome.fate == Fate::Accepted;
    is_allowed == (scene.policy_verdict(probe) == Verdict::Allow)
        && (scene.variant.config.marks.known == 0 || is_judged_again(scene, &probe.packet, outcome.fate))
        && scene.variant.is_foreign_mark_kept(probe.packet.mark, outcome.mark)
        && (!with_invariants || invariants_hold(scene, probe))
}

/// Where revocation is instant, a connection that is not known to have passed since policy changed meets what a new one
/// meets.
fn is_judged_again(scene: &Scene, packet: &Packet, fate: Fate) -> bool {
    let known = [ConnectionState::Established, ConnectionState::Related];
    known.into_iter().all(|conntrack| {
        let packet = Packet { conntrack, ..packet.clone() };
        scene.machine(&packet).run(&packet).fate == fate
    })
}

/// Forwarded packets of known connections of workloads pass whatever policy says, but for untracked policy; those
/// that connection tracking can make nothing of pass only where that check is off.
fn invariants_hold(scene: &Scene, probe: &Probe) -> bool {
    let fate = |conntrack| {
        let known = if conntrack == ConnectionState::Invalid { 0 } else { scene.variant.config.marks.known };
        let mark = probe.packet.mark | known;
        let packet = Packet { conntrack, mark, ..probe.packet.clone() };
        scene.machine(&packet).run(&packet).fate
    };
    let interfaces = [&probe.packet.in_interface, &probe.packet.out_interface];
    let is_forwarded = interfaces.iter().all(|interface| interface.is_some());
    let is_of_workload = interfaces.into_iter().flatten().any(|name| name.starts_with("cali"));
    let known = [ConnectionState::Established, ConnectionState::Related];
    !(is_forwarded && is_of_workload)
        || scene.has_untracked_policy()
        || known.into_iter().all(|state| fate(state) == Fate::Accepted)
            && (scene.variant.config.disable_conntrack_invalid_check
                || fate(ConnectionState::Invalid) != Fate::Accepted)
}

#[test]
fn the_trace_and_the_explanation_say_what_the_verdicts_say() {
    for seed in 0..40 {
        let manifests = cluster(seed);
        let scene = Scene::new(&manifests, &Variant::number(seed, Compiler::Classic)).unwrap();
        let mut probes = Probes::new(seed, &scene.policy, Landmarks::of(&manifests));
        for _ in 0..50 {
            let Some(probe) = probes.probe(IpVersion::V4) else { break };
            let explanation = scene.policy.explain(&probe.flow);
            assert_eq!(explanation.verdict, scene.policy.verdict(&probe.flow), "seed {seed}: {explanation}");
            let machine = scene.machine(&probe.packet);
            assert_eq!(machine.trace(&probe.packet).0, machine.run(&probe.packet), "seed {seed}");
        }
    }
}

/// A port that cannot be read fits no rule that asks for one: neither in tables nor in rules.
#[test]
fn tables_do_what_rules_do_with_packets_whose_port_cannot_be_read() {
    let mut fates = [0, 0];
    for seed in 0..150 {
        let manifests = cluster(seed);
        let [classic, fast] = Compiler::ALL
            .map(|compiler| Scene::new(&manifests, &Variant::number(seed, compiler)).expect("valid rules"));
        let mut probes = Probes::new(seed, &classic.policy, Landmarks::of(&manifests));
        for number in 0..60 {
            let version = if number % 2 == 0 { IpVersion::V4 } else { IpVersion::V6 };
            let Some(probe) = probes.probe(version) else { break };
            let mut packet = probe.packet;
            (packet.source_port, packet.destination_port) = (None, None);
            packet.dnat = packet.dnat.map(|(address, _)| (address, None));
            let expected = classic.machine(&packet).run(&packet).fate;
            assert_eq!(fast.machine(&packet).run(&packet).fate, expected, "seed {seed}: {packet:?}");
            fates[usize::from(expected == Fate::Accepted)] += 1;
        }
    }
    assert!(fates[0].min(fates[1]) > 1000, "{fates:?}");
}

#[test]
fn a_cluster_can_change_bit_by_bit() {
    let mut policy = tortie_rules::eval::Cluster::default();
    let (old, new) = (cluster(1), cluster(2));
    for resource in resources(&old).unwrap() {
        policy.set(resource);
    }
    for resource in resources(&old).unwrap() {
        policy.remove(&resource.key());
    }
    for resource in resources(&new).unwrap() {
        policy.set(resource);
    }
    for (name, addresses) in interfaces() {
        policy.set_interface(NODE, name, &addresses);
    }
    let scene = Scene::new(&new, &Variant::number(0, Compiler::Classic)).unwrap();
    let mut probes = Probes::new(3, &policy, Landmarks::of(&new));
    for _ in 0..200 {
        let probe = probes.probe(IpVersion::V4).unwrap();
        assert_eq!(policy.verdict(&probe.flow), scene.policy.verdict(&probe.flow));
    }
}
