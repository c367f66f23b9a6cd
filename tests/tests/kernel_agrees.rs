//! The kernel does what the evaluator says: random clusters on running agents, random flows between their pods, in
//! iptables mode and in both layouts of nftables mode.
//!
//! `TORTIE_KERNEL_CLUSTERS` sets how many clusters (12), `TORTIE_KERNEL_SEED` where their seeds begin (1). The
//! evaluator is compared with the compiled rules on far more of both by the property tests of `tortie-rules`.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use tortie_rules::eval::{Cluster, Flow, Party, Verdict};
use tortie_rules::random::{self, Dice, Landmarks, NODE, UPLINK};
use tortie_tests::lab::{self, Addresses, AgentOptions, Endpoint, Family, Lab, Probe, Programs, Traffic};
use tortie_tests::manifests::{ManifestDir, to_yaml};

/// Flows per cluster and address family.
const FLOWS: usize = 150;
/// The node's address in the lab.
const NODE_ADDRESSES: &str = "172.18.0.11,fd00::ac12:b";
/// Outside hosts, with addresses that random rules mention.
const OUTSIDE: [(&str, Ipv4Addr, Ipv6Addr); 2] = [
    ("near", Ipv4Addr::new(192, 0, 2, 255), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ("far", Ipv4Addr::new(8, 8, 8, 8), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0xffff, 0, 0, 0)),
];
/// A source port for the evaluator where the lab takes a fresh one: random rules have no limits in that range.
const FRESH_PORT: u16 = 40_000;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        let ready = lab::enter().and_then(|()| Programs::locate().map(drop));
        if let Err(error) = ready {
            eprintln!("the lab cannot be used here: {error}");
            return ExitCode::FAILURE;
        }
    }
    let number = |name: &str, default: u64| {
        env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
    };
    let (first, count) = (number("TORTIE_KERNEL_SEED", 1), number("TORTIE_KERNEL_CLUSTERS", 12));
    let name = |seed, mode: &str| format!("the_kernel_does_with_cluster_{seed}_what_evaluation_says::{mode}");
    let trial = |seed, (mode, env): (&str, Env)| Trial::test(name(seed, mode), move || agree(seed, env));
    let trials = (first..first + count).flat_map(|seed| MODES.map(|mode| trial(seed, mode)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Settings of agents, as environment variables.
type Env = &'static [(&'static str, &'static str)];

/// The modes of the rules, each of which every cluster runs in.
const MODES: [(&str, Env); 4] = [
    ("iptables", &[("FELIX_NFTABLESMODE", "Disabled")]),
    ("nftables_chains", &[("FELIX_NFTABLESMODE", "Enabled"), ("FELIX_NFTABLESLAYOUT", "Chains")]),
    ("nftables_tables", &[("FELIX_NFTABLESMODE", "Enabled"), ("FELIX_NFTABLESLAYOUT", "Tables")]),
    (
        "nftables_revocation",
        &[
            ("FELIX_NFTABLESMODE", "Enabled"),
            ("FELIX_NFTABLESLAYOUT", "Tables"),
            ("FELIX_NFTABLESINSTANTREVOCATION", "Enabled"),
        ],
    ),
];

/// A pod of the lab.
struct Pod {
    namespace: String,
    name: String,
    addresses: Addresses,
}

fn agree(seed: u64, env: Env) -> Result<(), Failed> {
    let (manifests, pods) = scene(seed);
    let landmarks = Landmarks::of(&manifests);
    let cluster = Cluster::new(random::resources(&manifests)?);
    let mut builder = Lab::builder().node(NODE, NODE_ADDRESSES);
    for pod in &pods {
        builder = builder.pod(&pod.namespace, &pod.name, NODE, pod.addresses);
    }
    for (name, v4, v6) in OUTSIDE {
        builder = builder.external(name, Addresses { v4: Some(v4), v6: Some(v6) });
    }
    let mut lab = builder.build()?;
    let mut datastore = ManifestDir::create(&lab.dir().join("datastore"))?;
    datastore.sync(&manifests)?;
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = AgentOptions { datastore: datastore.path().to_owned(), env, ..AgentOptions::default() };
    lab.start_agent_with(NODE, &options)?;
    lab.wait_applied(Duration::from_secs(30))?;
    let mut dice = Dice::new(seed);
    for family in [Family::V4, Family::V6] {
        let flows = flows(&mut dice, &landmarks, &ends(&pods, family), family);
        if flows.len() < FLOWS / 2 && !pods.is_empty() {
            return Err(format!("seed {seed}: only {} flows over {family:?}", flows.len()).into());
        }
        let probes: Vec<Probe> = flows.iter().map(|(probe, _)| probe.clone()).collect();
        let passed = lab.probe(&probes)?;
        for ((probe, flow), passed) in flows.iter().zip(passed) {
            if (cluster.verdict(flow) == Verdict::Allow) != passed {
                return Err(disagreement(seed, probe, passed, &cluster.explain(flow), &manifests));
            }
        }
    }
    Ok(())
}

fn disagreement(
    seed: u64,
    probe: &Probe,
    passed: bool,
    explanation: &impl std::fmt::Display,
    manifests: &[Value],
) -> Failed {
    let kernel = if passed { "passes" } else { "does not pass" };
    let manifests: Vec<String> = manifests.iter().filter_map(|manifest| to_yaml(manifest).ok()).collect();
    let manifests = manifests.join("---\n");
    format!("seed {seed}: {probe} {kernel} in the kernel, but evaluation says:\n{explanation}\n\n{manifests}")
        .into()
}

/// A random cluster as the lab can have it, and the pods to wire.
///
/// All pods that run are on one node and have addresses of their own. What the lab cannot show is left out: endpoints
/// with interfaces of other names, host endpoints on interfaces that the lab's node lacks, and policy without
/// connection tracking, whose replies need a rule of their own.
fn scene(seed: u64) -> (Vec<Value>, Vec<Pod>) {
    let (mut manifests, mut pods) = (Vec::new(), Vec::new());
    for mut manifest in random::cluster(seed) {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let interface = text("/spec/interfaceName").to_owned();
        let is_wired = match text("/kind") {
            "WorkloadEndpoint" | "Node" => false,
            "HostEndpoint" => interface == "*" || interface == UPLINK,
            _ => manifest.pointer("/spec/doNotTrack") != Some(&json!(true)),
        };
        if !is_wired {
            continue;
        }
        let runs = text("/kind") == "Pod" && text("/status/phase") == "Running";
        if runs && manifest.pointer("/metadata/deletionTimestamp").is_none() {
            pods.push(wire(&mut manifest, pods.len()));
        }
        manifests.push(manifest);
    }
    (manifests, pods)
}

/// Puts a pod on the node, with an address of each family that no other pod has.
fn wire(manifest: &mut Value, number: usize) -> Pod {
    let last = u8::try_from(number * 3 + 1).unwrap_or(u8::MAX);
    let v4 = Ipv4Addr::new(10, 65, 0, last);
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into());
    manifest["spec"]["nodeName"] = json!(NODE);
    manifest["spec"]["hostNetwork"] = json!(false);
    manifest["status"]["podIPs"] = json!([{"ip": v4}, {"ip": v6}]);
    let text = |field: &str| manifest["metadata"][field].as_str().unwrap_or_default().to_owned();
    let addresses = Addresses { v4: Some(v4), v6: Some(v6) };
    Pod { namespace: text("namespace"), name: text("name"), addresses }
}

/// Who can be at an end of a flow: in the lab, and for the evaluator.
fn ends(pods: &[Pod], family: Family) -> Vec<(Endpoint, Party)> {
    let workload = |pod: &Pod| {
        let address = pod.addresses.get(family)?;
        let party = Party::workload(&pod.namespace, &pod.name, address);
        Some((Endpoint::pod(&pod.namespace, &pod.name), party))
    };
    let outside = OUTSIDE.map(|(name, v4, v6)| {
        let address: IpAddr = if family == Family::V4 { v4.into() } else { v6.into() };
        (Endpoint::External(name.to_owned()), Party::outside(address).through(NODE, UPLINK))
    });
    pods.iter().filter_map(workload).chain(outside).collect()
}

/// Random flows, at least one end of each a pod; no two that connection tracking could take for one.
fn flows(
    dice: &mut Dice,
    landmarks: &Landmarks,
    ends: &[(Endpoint, Party)],
    family: Family,
) -> Vec<(Probe, Flow)> {
    let mut known = BTreeSet::new();
    // Ports that are bound to send from, and to listen on: nobody can have one for both, or twice.
    let (mut senders, mut listeners) = (BTreeSet::new(), BTreeSet::new());
    let mut flows = BTreeMap::new();
    let pods = ends.len() - OUTSIDE.len();
    if pods == 0 {
        return Vec::new();
    }
    for _ in 0..FLOWS * 4 {
        let (a, b) = (dice.below(pods), dice.below(ends.len()));
        let (from, to) = if dice.chance(50) { (a, b) } else { (b, a) };
        if from == to {
            continue;
        }
        let (traffic, flow) = flow(dice, landmarks, &ends[from].1, &ends[to].1, family);
        let way = (from.min(to), from.max(to), traffic.protocol());
        let mut ports = [flow.source_port, flow.destination_port];
        ports.sort_unstable();
        let sender = (from, traffic.protocol(), flow.source_port);
        let listener = (to, traffic.protocol(), flow.destination_port);
        let is_fresh = flow.source_port.is_none_or(|port| port == FRESH_PORT);
        let is_free = !senders.contains(&listener)
            && (is_fresh || !listeners.contains(&sender) && !senders.contains(&sender));
        if flows.len() < FLOWS && is_free && known.insert((way, ports)) {
            senders.extend((!is_fresh).then_some(sender));
            listeners.insert(listener);
            let probe =
                Probe { from: ends[from].0.clone(), to: ends[to].0.clone(), traffic, family: Some(family) };
            flows.insert(probe, flow);
        }
    }
    flows.into_iter().collect()
}

fn flow(dice: &mut Dice, landmarks: &Landmarks, from: &Party, to: &Party, family: Family) -> (Traffic, Flow) {
    if dice.chance(10) {
        let code = u8::from(dice.chance(30));
        let (traffic, kind) = match family {
            Family::V4 => (Traffic::Icmp { kind: 8, code }, 8),
            Family::V6 => (Traffic::Icmpv6 { kind: 128, code }, 128),
        };
        return (traffic, Flow::icmp(from.clone(), to.clone(), kind, code));
    }
    let port = (*dice.pick(&landmarks.ports)).max(1);
    let source_port = dice.chance(25).then(|| (*dice.pick(&landmarks.ports)).max(1));
    let traffic = match dice.below(10) {
        0..=5 => Traffic::Tcp { port, source_port },
        6..=8 => Traffic::Udp { port, source_port },
        _ => Traffic::Sctp { port, source_port },
    };
    let from_port = source_port.unwrap_or(FRESH_PORT);
    (traffic, Flow::with_ports(from.clone(), to.clone(), traffic.protocol(), from_port, port))
}
