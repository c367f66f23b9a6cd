//! What single endpoints ask for: sources, floating addresses, limits, marks.

use tortie_api::net::IpVersion;

use super::*;
use crate::compile::Config;
use crate::compile::classic::{Classic, SetChange};
use crate::eval::ruleset::{ConnectionState, Fate, Machine, Packet, Sets};
use crate::render::iptables::Features;
use crate::render::{Table, TableChange};

/// A workload endpoint `NAME` of this node at 10.0.0.LAST.
fn workload(name: &str, last: u8, interface: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
         metadata: {{name: n1-k8s-{name}-eth0, namespace: shop}}\n\
         spec: {{node: n1, orchestrator: k8s, pod: {name}, endpoint: eth0, interfaceName: {interface}, \
         ipNetworks: [10.0.0.{last}/32], profiles: [open], {spec}}}\n"
    )
}

const OPEN: &str = "---\napiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {name: open}\n\
                    spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}\n";

/// A node, change by change.
struct Node {
    graph: Graph,
    classic: Classic,
    sets: Sets,
    changed_sets: Vec<SetChange>,
    /// Rules of IPv4 by table and chain, without the ids.
    rules: BTreeMap<(Table, String), Vec<String>>,
}

impl Node {
    fn new(config: Config) -> Self {
        let classic = Classic::new(config, Features::default());
        let (sets, changed_sets) = (Sets::default(), Vec::new());
        let mut node = Self { graph: graph(), classic, sets, changed_sets, rules: BTreeMap::new() };
        node.take(OPEN);
        node
    }

    fn take(&mut self, text: &str) {
        resources(text).iter().for_each(|r| self.graph.set(r));
        self.flush();
    }

    fn remove(&mut self, name: &str) {
        let name = format!("n1-k8s-{name}-eth0");
        self.graph.remove(&Key::new(Kind::WorkloadEndpoint, Some("shop"), name));
        self.flush();
    }

    fn flush(&mut self) {
        self.graph.flush().iter().for_each(|event| self.classic.handle(event));
        self.changed_sets = self.classic.poll_sets();
        self.changed_sets.iter().for_each(|change| self.sets.apply(change));
        for update in self.classic.poll_tables().into_iter().filter(|u| u.version == IpVersion::V4) {
            match update.change {
                TableChange::Chain(chain) => {
                    let text = |text: &str| {
                        text.split_once("\" ").map_or(String::new(), |(_, rest)| rest.to_owned())
                    };
                    let rules = chain.rules.iter().map(|rule| text(&rule.text)).collect();
                    self.rules.insert((update.table, chain.name.clone()), rules);
                }
                TableChange::NoChain(name) => {
                    self.rules.remove(&(update.table, name));
                }
                TableChange::Hooks(..) => {}
            }
        }
    }

    fn chain(&self, table: Table, name: &str) -> Vec<&str> {
        self.rules[&(table, name.to_owned())].iter().map(String::as_str).collect()
    }

    /// What becomes of UDP from a workload's interface to another address.
    fn fate(&mut self, interface: &str, source: &str, reverse_path_is_good: bool) -> Fate {
        let machine = Machine::new(IpVersion::V4, &self.classic.tables(IpVersion::V4), &self.sets);
        let packet = Packet {
            source: source.parse().unwrap(),
            destination: "192.0.2.9".parse().unwrap(),
            protocol: 17,
            source_port: Some(4000),
            destination_port: Some(53),
            icmp: None,
            in_interface: Some(interface.to_owned()),
            out_interface: Some("eth0".to_owned()),
            conntrack: ConnectionState::New,
            dnat: None,
            mark: 0,
            reverse_path_is_good,
        };
        machine.expect("rules that the kernel takes").run(&packet).fate
    }

    fn problems(&self) -> Vec<String> {
        let line = |p: Problem| format!("{}: {}: {}", p.object, p.field, p.message);
        // The namespace of these tests does not matter.
        let all = self.graph.problems().into_iter().filter(|p| !p.object.starts_with("Profile"));
        all.map(line).collect()
    }
}

fn spoofing() -> Config {
    Config { source_spoofing: true, ..Config::default() }
}

#[test]
fn a_workload_sends_from_the_listed_networks_and_from_no_others_though_the_list_changes() {
    let mut node = Node::new(spoofing());
    let list = |nets: &str| workload("a", 1, "cali1", &format!("allowSpoofedSourcePrefixes: [{nets}]"));
    node.take(&(list("203.0.113.0/24, 198.51.100.0/25") + &workload("b", 2, "cali2", "")));
    for (interface, source, passes) in [
        ("cali1", "203.0.113.9", true),
        ("cali1", "198.51.100.9", true),
        ("cali1", "198.51.100.200", false),
        ("cali2", "203.0.113.9", false),
    ] {
        assert_eq!(node.fate(interface, source, false) == Fate::Accepted, passes, "{interface} {source}");
    }
    node.take(&list("198.51.100.128/25"));
    assert_eq!(node.fate("cali1", "203.0.113.9", false), Fate::Dropped);
    assert_eq!(node.fate("cali1", "198.51.100.200", false), Fate::Accepted);
    node.take(&list(""));
    assert_eq!(node.fate("cali1", "198.51.100.200", false), Fate::Dropped);
    assert_eq!(node.fate("cali1", "10.0.0.1", true), Fate::Accepted);
}

#[test]
fn a_workload_that_gets_another_interface_takes_its_allowed_sources_along() {
    let mut node = Node::new(spoofing());
    let at = |interface| workload("a", 1, interface, "allowSpoofedSourcePrefixes: [203.0.113.0/24]");
    node.take(&at("cali1"));
    node.take(&at("cali9"));
    let rules = node.chain(Table::Raw, "cali-rpf-skip");
    assert_eq!(rules, ["--in-interface cali9 --source 203.0.113.0/24 --jump ACCEPT"]);
    node.remove("a");
    assert_eq!(node.chain(Table::Raw, "cali-rpf-skip"), [""; 0]);
}

#[test]
fn without_the_setting_no_other_source_is_allowed() {
    let mut node = Node::new(Config::default());
    node.take(&workload("a", 1, "cali1", "allowSpoofedSourcePrefixes: [203.0.113.0/24]"));
    assert_eq!(node.chain(Table::Raw, "cali-rpf-skip"), [""; 0]);
    assert_eq!(node.fate("cali1", "203.0.113.9", false), Fate::Dropped);
}

#[test]
fn floating_addresses_are_there_if_enabled_or_if_openstack_asks_for_them() {
    let nat = "ipNATs: [{internalIP: 10.0.0.1, externalIP: 203.0.113.5}]";
    let rule = "--destination 203.0.113.5 --jump DNAT --to-destination 10.0.0.1";
    let mut node = Node::new(Config::default());
    node.take(&workload("a", 1, "cali1", nat));
    assert_eq!(node.chain(Table::Nat, "cali-fip-dnat"), [""; 0]);
    node.take(&workload("a", 1, "cali1", nat).replace("orchestrator: k8s", "orchestrator: openstack"));
    assert_eq!(node.chain(Table::Nat, "cali-fip-dnat"), [rule]);
    let mut node = Node::new(Config { floating_ips: true, ..Config::default() });
    node.take(&workload("a", 1, "cali1", nat));
    assert_eq!(node.chain(Table::Nat, "cali-fip-dnat"), [rule]);
    node.take(&workload("a", 1, "cali1", "ipNATs: [{internalIP: 10.0.0.1, externalIP: 203.0.113.6}]"));
    let back = "--destination 10.0.0.1 --source 10.0.0.1 --jump SNAT --to-source 203.0.113.6 --random-fully";
    assert_eq!(node.chain(Table::Nat, "cali-fip-snat"), [back]);
    node.remove("a");
    assert_eq!(node.chain(Table::Nat, "cali-fip-dnat"), [""; 0]);
}

#[test]
fn addresses_with_a_dscp_value_are_members_of_the_set_that_asks_for_them() {
    let mut node = Node::new(Config { versions: vec![IpVersion::V4], ..Config::default() });
    let members = |node: &Node| -> Vec<Vec<String>> {
        let wants = node.changed_sets.iter().filter_map(|change| match change {
            SetChange::Want { name, members, .. } if name == "cali40dscp-src-net" => Some(members),
            _ => None,
        });
        let text = |member: &Member| match member {
            Member::Net(net) => net.to_string(),
            Member::AddressPort(..) => String::new(),
        };
        wants.map(|members| members.iter().map(text).collect()).collect()
    };
    node.take(&workload("a", 1, "cali1", "qosControls: {dscp: AF11}"));
    assert_eq!(members(&node), [["10.0.0.1/32"]]);
    let host = "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\n\
                metadata: {name: h, annotations: {qos.projectcalico.org/dscp: \"20\"}}\n\
                spec: {node: n1, interfaceName: eth0, expectedIPs: [172.18.0.7]}\n";
    node.take(host);
    assert_eq!(members(&node), [["10.0.0.1/32", "172.18.0.7/32"]]);
    let rules = node.chain(Table::Mangle, "cali-egress-dscp");
    assert_eq!(
        rules,
        ["--source 10.0.0.1 --jump DSCP --set-dscp 10", "--source 172.18.0.7 --jump DSCP --set-dscp 20"]
    );
    node.take(&workload("b", 2, "cali2", "qosControls: {ingressPacketRate: 7}"));
    assert_eq!(members(&node), [[""; 0]; 0], "nothing changes for the set");
    node.remove("a");
    assert_eq!(members(&node), [["172.18.0.7/32"]]);
}

#[test]
fn limits_that_cannot_be_had_are_told_of_and_hurt_nothing_else() {
    let mut node = Node::new(Config::default());
    let bad =
        "qosControls: {ingressPacketRate: 20000, egressPacketRate: many, egressMaxConnections: 3, dscp: 77}";
    node.take(&workload("a", 1, "cali1", bad));
    let object = "WorkloadEndpoint/shop/n1-k8s-a-eth0: spec.qosControls.";
    assert_eq!(
        node.problems(),
        [
            format!("{object}dscp: 77 is neither from 0 to 63 nor a class like AF11; nothing is marked"),
            format!("{object}egressPacketRate: \"many\" is no quantity like 100 or 1k; there is no limit"),
            format!("{object}ingressPacketRate: 20000 is not from 1 to 10000; it is 10000"),
        ]
    );
    let rules = node.chain(Table::Filter, "cali-tw-cali1").join("\n");
    assert!(rules.contains("--limit 10000/sec --limit-burst 5 "), "{rules}");
    let rules = node.chain(Table::Filter, "cali-fw-cali1").join("\n");
    assert!(!rules.contains("--limit ") && rules.contains("--connlimit-above 3 "), "{rules}");
    assert_eq!(node.fate("cali1", "10.0.0.1", true), Fate::Accepted);
    node.take(&workload("a", 1, "cali1", "qosControls: {ingressPacketRate: 200}"));
    assert_eq!(node.problems(), [""; 0]);
}

#[test]
fn a_pods_annotations_are_told_of_where_they_were_written_and_on_its_own_node_only() {
    let pod = |node: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop, annotations: \
             {{qos.projectcalico.org/ingressPacketRate: \"0\", cni.projectcalico.org/floatingIPs: oops}}}}\n\
             spec: {{nodeName: {node}, containers: []}}\nstatus: {{phase: Running, podIP: 10.0.0.3}}\n"
        )
    };
    let mut node = Node::new(Config::default());
    node.take(&pod("n2"));
    assert_eq!(node.problems(), [""; 0]);
    node.take(&pod("n1"));
    let object = "Pod/shop/p: metadata.annotations";
    assert_eq!(
        node.problems(),
        [
            format!("{object}[cni.projectcalico.org/floatingIPs]: not a JSON list of texts; it is left out"),
            format!("{object}[qos.projectcalico.org/ingressPacketRate]: 0 is not from 1 to 10000; it is 1"),
        ]
    );
}
