//! What must hold so that tables say what rules one after the other say, condition by condition.
//!
//! | | condition | held by |
//! |---|---|---|
//! | 1 | what is looked up at once says what the first matching rule says; a Log rule is not crossed | `of_rules_that_meet_the_first_wins`, `a_log_rule_tells_of_what_comes_to_it_and_of_nothing_else` |
//! | 2 | each cell of each class says what policy says, and every address is in one class | `every_cell_of_every_class_is_told_what_policy_says`, `compiled_tables_do_what_policy_says`; of rows alone `rows_say_what_rules_say_one_after_the_other` (`compile::fast::row`) |
//! | 3 | what is told apart is disjoint: no order of elements or cells counts | `shape::cells_and_elements_are_disjoint` |
//! | 4 | who listens to flows hears which rule decided, and without listeners there are no chains for that | `shape::tables_tell_of_flows_what_rules_tell` |
//! | 5 | a port is looked up beside a protocol that has ports only | `shape::ports_stand_beside_protocols_that_have_them` |
//! | 6 | what cannot be read of a packet fits no cell, and what is behind is not more permissive | `packets_whose_port_cannot_be_read_meet_rules_without_ports_only`, `tables_do_what_rules_do_with_packets_whose_port_cannot_be_read`, `packets_without_a_port_meet_rules_without_ports_only` (`compile::fast::row`) |
//! | 7 | who is in no element, and comes by no known interface, is denied | `shape::all_tables_end_in_a_rule_for_everybody_and_dispatch_in_a_denial` |
//! | 8 | what is referred to comes before what refers to it, and goes behind it | `shape::nothing_is_told_before_what_it_refers_to_nor_goes_before_what_refers_to_it`, `tables_that_follow_changes_are_those_of_the_cluster_as_it_is` |
//! | 9 | a rule that the other IP version leaves without networks matches nothing | `a_rule_without_networks_of_a_version_matches_nothing_there` |
//! | 10 | all but the members of an empty set are everybody | `all_but_members_of_an_empty_set_are_everybody_until_somebody_is_in_it` |
//!
//! That all this stays so while rules change is what `an_edit_of_one_rule_makes_what_a_start_from_scratch_makes` and
//! `tables_that_follow_changes_are_those_of_the_cluster_as_it_is` hold.
//!
//! The kernel is asked about what can be seen from outside (1, 2, 7, 9 and 10, all together) by
//! `tests/tests/kernel_agrees.rs` in the modes `nftables_tables` and `nftables_revocation`; it refuses maps that do not
//! hold to 3; and what a driver makes of 8 is in `dataplane/tests/nft_driver.rs`
//! (`verdicts_of_a_map_change_in_place`, `a_refused_chain_is_closed_and_the_rest_is_in_force`). Of 5 and 6 these ask it
//! nothing.

mod shape;

use std::net::IpAddr;

use serde_json::Value;
use tortie_api::net::IpVersion;
use tortie_rules::compile::fast::Fast;
use tortie_rules::eval::ruleset::{ConnectionState, Fate, Machine, Packet, Sets};
use tortie_rules::eval::{Cluster, Flow, Party, Verdict as Decision};
use tortie_rules::graph::model::Event;
use tortie_rules::random::{Dice, Landmarks, NODE, Probe, UPLINK, interfaces, resources};
use tortie_rules::ruleset::Action;

use crate::corners::corner;
use crate::scene::{Compiler, Scene, Variant};

/// A global policy of a tier, with these rules for what comes in.
fn policy(name: &str, tier: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: {name}}}, \
         spec: {{tier: {tier}, ingress: [{rules}]}}}}"
    )
}

/// One packet to `web` for each address, protocol and port that something begins or ends at.
fn witnesses(policy: &Cluster, manifests: &[Value], version: IpVersion) -> Vec<Probe> {
    let landmarks = Landmarks::of(manifests);
    let web: IpAddr =
        (if version == IpVersion::V4 { "10.0.0.1" } else { "fd00::1" }).parse().expect("an address");
    let workload = policy.workloads().find(|w| w.addresses.contains(&web)).expect("the pod is there");
    let to = Party::workload(workload.namespace, workload.name, web);
    let mut flows = Vec::new();
    for source in landmarks.addresses(version) {
        let from = || Party::outside(*source).through(NODE, UPLINK);
        for protocol in [6, 17] {
            let ports = landmarks.ports.iter();
            flows.extend(ports.map(|port| Flow::with_ports(from(), to.clone(), protocol, 40_000, *port)));
        }
        flows.push(Flow::of_protocol(from(), to.clone(), 47));
        flows.push(Flow::icmp(from(), to.clone(), 8, 0));
    }
    let probe = |flow: Flow| {
        let packet = Packet {
            source: flow.source.address,
            destination: web,
            protocol: flow.protocol,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            icmp: flow.icmp,
            in_interface: Some(UPLINK.to_owned()),
            out_interface: Some(workload.interface.to_owned()),
            conntrack: ConnectionState::New,
            dnat: None,
            mark: 0,
            reverse_path_is_good: true,
        };
        Probe { flow, packet }
    };
    flows.into_iter().map(probe).collect()
}

/// Asks about all witnesses of some policies. Returns how many packets are denied and allowed.
fn ask(policies: &str) -> [usize; 2] {
    let manifests = corner(policies);
    let scene =
        Scene::new(&manifests, &Variant::number(0, Compiler::Fast)).expect("rules that the kernel takes");
    let mut fates = [0, 0];
    for version in IpVersion::BOTH {
        for probe in witnesses(&scene.policy, &manifests, version) {
            let is_allowed = scene.policy_verdict(&probe) == Decision::Allow;
            let fate = scene.machine(&probe.packet).run(&probe.packet).fate;
            assert_eq!(fate == Fate::Accepted, is_allowed, "{}", scene.describe(&manifests, &probe));
            fates[usize::from(is_allowed)] += 1;
        }
    }
    fates
}

/// Conditions that meet each other in most ways.
const CONDITIONS: [&str; 10] = [
    "source: {selector: \"app == 'db'\"}",
    "source: {notSelector: \"app == 'db'\"}",
    "protocol: TCP, destination: {ports: [80]}",
    "protocol: TCP, source: {selector: \"app == 'db'\"}, destination: {ports: [\"79:82\", 443]}",
    "protocol: TCP, source: {nets: [10.0.0.0/30]}, destination: {notPorts: [\"80:85\"]}",
    "protocol: UDP, source: {nets: [10.0.0.3/32]}, destination: {ports: [80]}",
    "notProtocol: TCP, source: {notNets: [10.0.0.2/31]}",
    "protocol: TCP, source: {notNets: [\"fd00::2/127\"]}, destination: {ports: [443]}",
    "protocol: UDP",
    "",
];

fn rule(action: &str, condition: &str) -> String {
    format!("{{action: {action}{}{condition}}}", if condition.is_empty() { "" } else { ", " })
}

fn any_rule(dice: &mut Dice, conditions: &[&str]) -> String {
    let actions = ["Allow", "Deny", "Pass"];
    rule(actions[dice.below(3)], conditions[dice.below(conditions.len())])
}

/// A few rules, in an order that the seed says.
fn shuffled(dice: &mut Dice, conditions: &[&str]) -> String {
    let count = dice.within(2, 6);
    let rules = dice.list(count, |dice| any_rule(dice, conditions));
    rules.join(", ")
}

#[test]
fn of_rules_that_meet_the_first_wins() {
    let mut dice = Dice::new(1);
    let mut all = [0, 0];
    for _ in 0..40 {
        let second = policy("b", "default", &shuffled(&mut dice, &CONDITIONS));
        let fates =
            ask(&format!("{}\n---\n{second}", policy("a", "default", &shuffled(&mut dice, &CONDITIONS))));
        all = [all[0] + fates[0], all[1] + fates[1]];
    }
    assert!(all[0].min(all[1]) > 1000, "{all:?}");
}

/// What comes to a Log rule and fits it is what would be decided otherwise if it decided.
#[test]
fn a_log_rule_tells_of_what_comes_to_it_and_of_nothing_else() {
    let mut dice = Dice::new(2);
    let mut logged = [0, 0];
    for _ in 0..30 {
        let (before, condition, behind) = (
            shuffled(&mut dice, &CONDITIONS),
            CONDITIONS[dice.below(CONDITIONS.len())],
            shuffled(&mut dice, &CONDITIONS),
        );
        let with = |rest: String| corner(&policy("a", "default", &format!("{before}, {rest}")));
        let decided = ["Allow", "Deny"].map(|action| {
            let manifests = with(format!("{}, {}", rule(action, condition), rule("Deny", "")));
            Cluster::new(resources(&manifests).expect("valid objects"))
        });
        let manifests = with(format!("{}, {behind}", rule("Log", condition)));
        let scene = Scene::new(&manifests, &Variant::number(0, Compiler::Fast)).expect("valid rules");
        for probe in witnesses(&scene.policy, &manifests, IpVersion::V4) {
            let [allowed, denied] = decided.each_ref().map(|policy| policy.verdict_on(NODE, &probe.flow));
            let (outcome, steps) = scene.machine(&probe.packet).trace(&probe.packet);
            let is_logged = steps.iter().any(|step| matches!(step.action, Some(Action::Log { .. })));
            assert_eq!(is_logged, allowed != denied, "{}", scene.describe(&manifests, &probe));
            let is_allowed = scene.policy_verdict(&probe) == Decision::Allow;
            assert_eq!(outcome.fate == Fate::Accepted, is_allowed, "{}", scene.describe(&manifests, &probe));
            logged[usize::from(is_logged)] += 1;
        }
    }
    assert!(logged[0].min(logged[1]) > 100, "{logged:?}");
}

/// Networks within each other, next to each other and of one address.
const SETS: &str = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: a, labels: {set: a}}, \
         spec: {nets: [10.0.0.0/29, 10.0.0.8/30, 10.0.0.12/32, 10.0.0.0/31, 255.255.255.255/32, \"fd00::/126\"]}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: b, labels: {set: b}}, \
         spec: {nets: [10.0.0.2, 10.0.0.4/30, 10.0.0.64/26, 0.0.0.0/32, 128.0.0.0/1, \"fd00::2\", \"fd00::8/125\"]}}";

#[test]
fn every_cell_of_every_class_is_told_what_policy_says() {
    let a = "source: {selector: \"set == 'a'\"}";
    let b = "source: {selector: \"set == 'b'\"}";
    let lists = [
        [rule("Deny", &format!("{b}, protocol: TCP, destination: {{ports: [\"80:90\"]}}")), rule("Allow", a)],
        [rule("Allow", &format!("{a}, protocol: TCP, destination: {{ports: [80, 443]}}")), rule("Allow", b)],
        [
            rule("Pass", &format!("{b}, protocol: UDP, destination: {{ports: [\"0:1024\"]}}")),
            rule("Allow", a),
        ],
        [
            rule("Allow", "source: {selector: \"set == 'a'\", notSelector: \"set == 'b'\"}"),
            rule("Allow", "protocol: TCP, destination: {notPorts: [\"1:65534\"]}"),
        ],
        [rule("Deny", "source: {selector: \"set in {'a', 'b'}\"}"), rule("Allow", "notProtocol: TCP")],
    ];
    for list in lists {
        let fates = ask(&format!("{SETS}\n---\n{}", policy("p", "default", &list.join(", "))));
        assert!(fates[0].min(fates[1]) > 20, "{fates:?}");
    }
}

fn events(manifests: &[Value], variant: &Variant) -> Vec<Event> {
    let mut graph = variant.graph();
    resources(manifests).expect("valid objects").iter().for_each(|resource| graph.set(resource));
    graph.flush()
}

/// The rules of `classic` are the measure: who evaluates policy sees ports.
#[test]
fn packets_whose_port_cannot_be_read_meet_rules_without_ports_only() {
    let db = "source: {selector: \"app == 'db'\"}";
    let others = "source: {notSelector: \"app == 'db'\"}";
    let [every, some] =
        ["0:65535", "80:82"].map(|ports| format!("protocol: UDP, destination: {{ports: [\"{ports}\"]}}"));
    let lists = [
        [rule("Deny", &format!("{others}, protocol: UDP")), rule("Deny", &every), rule("Allow", "")],
        [rule("Allow", &format!("{others}, protocol: UDP")), rule("Allow", &every), rule("Deny", "")],
        [rule("Allow", &format!("{db}, {every}")), rule("Deny", &every), rule("Allow", "protocol: UDP")],
        [rule("Deny", &format!("{db}, {some}")), rule("Allow", &some), rule("Allow", "protocol: TCP")],
    ];
    let mut fates = [0, 0];
    for list in lists {
        let manifests = corner(&policy("p", "default", &list.join(", ")));
        let [classic, fast] = Compiler::ALL
            .map(|compiler| Scene::new(&manifests, &Variant::number(0, compiler)).expect("valid rules"));
        for mut probe in witnesses(&fast.policy, &manifests, IpVersion::V4) {
            (probe.packet.source_port, probe.packet.destination_port) = (None, None);
            let [expected, fate] =
                [&classic, &fast].map(|scene| scene.machine(&probe.packet).run(&probe.packet).fate);
            assert_eq!(fate, expected, "{}", fast.describe(&manifests, &probe));
            fates[usize::from(fate == Fate::Accepted)] += 1;
        }
    }
    assert!(fates[0].min(fates[1]) > 20, "{fates:?}");
}

#[test]
fn a_rule_without_networks_of_a_version_matches_nothing_there() {
    let web = "protocol: TCP, destination: {ports: [80]}";
    for action in ["Allow", "Deny", "Pass"] {
        for nets in ["10.0.0.0/8", "\"fd00::/8\""] {
            let one = rule(action, &format!("source: {{nets: [{nets}]}}"));
            // Two of each, so that none is told by the end of the list alone.
            let other = rule(if action == "Allow" { "Deny" } else { "Allow" }, web);
            let fates =
                ask(&policy("p", "default", &format!("{one}, {other}, {}", rule("Allow", "protocol: UDP"))));
            assert!(fates[0].min(fates[1]) > 10, "{fates:?}");
            let all_but = rule(action, &format!("source: {{notNets: [{nets}]}}"));
            let fates = ask(&policy("p", "default", &format!("{all_but}, {other}, {}", rule("Allow", ""))));
            assert!(action == "Allow" || fates[0].min(fates[1]) > 10 || action == "Pass", "{fates:?}");
        }
    }
}

#[test]
fn all_but_members_of_an_empty_set_are_everybody_until_somebody_is_in_it() {
    let set = |nets: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {{name: a, labels: {{set: a}}}}, spec: {{nets: [{nets}]}}}}"
        )
    };
    let not = "source: {notSelector: \"set == 'a'\"}";
    let [closed, open] =
        ["Deny", "Allow"].map(|a| rule(a, &format!("{not}, protocol: TCP, destination: {{ports: [80]}}")));
    let all =
        rule("Allow", "source: {selector: \"app == 'db'\"}, protocol: TCP, destination: {ports: [80, 443]}");
    let lists = [
        format!("{closed}, {all}"),
        format!("{open}, {all}"),
        format!("{all}, {closed}, {}", rule("Allow", "")),
    ];
    let members = ["", "10.0.0.3, \"fd00::3\"", "10.0.0.0/30, \"fd00::/127\"", "10.0.0.0/30, 10.0.0.3", ""];
    let variant = Variant::number(0, Compiler::Fast);
    let (mut graph, mut fast, mut sets) =
        (variant.graph(), Fast::new(variant.config.clone()), Sets::default());
    for (rules, nets) in lists.iter().flat_map(|list| members.map(|nets| (list, nets))) {
        let manifests = corner(&format!("{}\n---\n{}", set(nets), policy("p", "default", rules)));
        let objects = resources(&manifests).expect("valid objects");
        objects.iter().for_each(|resource| graph.set(resource));
        graph.flush().iter().for_each(|event| fast.handle(event));
        fast.poll().sets.iter().for_each(|change| sets.apply(change));
        let mut cluster = Cluster::new(objects).with_settings(variant.settings());
        for (name, addresses) in interfaces() {
            cluster.set_interface(NODE, name, &addresses);
        }
        for version in IpVersion::BOTH {
            let machine = Machine::new(version, &fast.tables(version), &sets).expect("valid rules");
            for probe in witnesses(&cluster, &manifests, version) {
                let is_allowed = cluster.verdict_on(NODE, &probe.flow) == Decision::Allow;
                let (outcome, steps) = machine.trace(&probe.packet);
                assert_eq!(outcome.fate == Fate::Accepted, is_allowed, "{rules} {nets} {probe:?} {steps:#?}");
            }
        }
    }
}

/// A rule comes, goes or becomes another, whoever it is for: what an edit looks at again is enough.
#[test]
fn an_edit_of_one_rule_makes_what_a_start_from_scratch_makes() {
    for seed in 0..30 {
        let variant = Variant::number(seed, Compiler::Fast);
        let (mut graph, mut fast) = (variant.graph(), Fast::new(variant.config.clone()));
        let mut dice = Dice::new(seed);
        let mut rules: Vec<String> = dice.list(3, |dice| any_rule(dice, &CONDITIONS));
        for step in 0..20 {
            let at = dice.below(rules.len() + 1);
            match dice.below(3) {
                0 if at < rules.len() => _ = rules.remove(at),
                1 if at < rules.len() => rules[at] = any_rule(&mut dice, &CONDITIONS),
                _ => rules.insert(at, any_rule(&mut dice, &CONDITIONS)),
            }
            let manifests = corner(&policy("p", "default", &rules.join(", ")));
            resources(&manifests).expect("valid objects").iter().for_each(|resource| graph.set(resource));
            graph.flush().iter().for_each(|event| fast.handle(event));
            fast.poll();
            let mut new = Fast::new(variant.config.clone());
            events(&manifests, &variant).iter().for_each(|event| new.handle(event));
            for version in IpVersion::BOTH {
                assert_eq!(fast.tables(version), new.tables(version), "seed {seed}, step {step}: {rules:#?}");
            }
        }
    }
}
