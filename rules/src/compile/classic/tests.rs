use std::collections::BTreeMap;

use tortie_api::net::IpVersion;

use super::*;
use crate::compile::MarkUses;
use crate::compile::config::ServiceLoop;
use crate::graph::model::ClusterNetwork;
use crate::graph::{Graph, Options};

/// Texts of rules by table and chain, and members of sets.
#[derive(Debug, Default, PartialEq)]
struct Kernel {
    chains: BTreeMap<(Table, String), Vec<String>>,
    sets: BTreeMap<String, BTreeSet<String>>,
}

impl Kernel {
    /// Takes what changed for IPv4.
    fn take(&mut self, classic: &mut Classic) {
        let text = |m: &Member| format!("{m:?}");
        for change in classic.poll_sets() {
            match change {
                SetChange::Want { name, members, .. } => {
                    self.sets.insert(name, members.iter().map(text).collect());
                }
                SetChange::Update { name, added, removed, .. } => {
                    let set = self.sets.get_mut(&name).expect("a wanted set");
                    set.extend(added.iter().map(text));
                    removed.iter().for_each(|m| assert!(set.remove(&text(m))));
                }
                SetChange::Unwant { name } => assert!(self.sets.remove(&name).is_some(), "{name}"),
            }
        }
        for update in classic.poll_tables().into_iter().filter(|u| u.version == IpVersion::V4) {
            match update.change {
                TableChange::Chain(chain) => {
                    let rules = chain.rules.iter().map(|r| r.text.clone()).collect();
                    self.chains.insert((update.table, chain.name.clone()), rules);
                }
                TableChange::NoChain(name) => {
                    self.chains.remove(&(update.table, name));
                }
                TableChange::Hooks(..) => {}
            }
        }
    }

    fn rules(&self, table: Table, chain: &str) -> String {
        self.chains.get(&(table, chain.to_owned())).map(|rules| rules.join("\n")).unwrap_or_default()
    }
}

fn network(text: &str) -> Vec<Event> {
    let mut graph = Graph::new(Options {
        node: "a".to_owned(),
        interface_prefixes: vec!["cali".to_owned()],
        suppress_covered: false,
    });
    for document in tortie_api::manifest::parse_documents(text.as_bytes()) {
        graph.set(&document.outcome.expect("a good resource").resource);
    }
    graph.want_mesh();
    graph.flush()
}

const TUNNELS: &str = r"
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: p}
spec: {cidr: 10.65.0.0/16, vxlanMode: Always, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: b}
spec: {bgp: {ipv4Address: 10.0.0.2/24}, ipv4VXLANTunnelAddr: 10.65.1.0}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 10.96.0.0/12}]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a-k8s-w-eth0, namespace: shop, labels: {istio.io/dataplane-mode: ambient}}
spec: {node: a, orchestrator: k8s, pod: w, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.65.0.2/32]}
";

fn compiled(config: &Config, events: &[&[Event]], is_ipvs: &[bool]) -> Kernel {
    let mut classic = Classic::new(config.clone(), Features::default());
    let mut kernel = Kernel::default();
    for (events, is_ipvs) in events.iter().zip(is_ipvs) {
        classic.set_ipvs(*is_ipvs);
        events.iter().for_each(|event| classic.handle(event));
        kernel.take(&mut classic);
    }
    kernel
}

#[test]
fn tunnels_and_ipvs_that_come_and_go_leave_nothing() {
    let config = Config { nat_spares_hosts: true, ..Config::default() };
    let full = network(TUNNELS);
    let without = |event: &Event| !matches!(event, Event::Network(_));
    let mut bare: Vec<Event> = full.iter().filter(|event| without(event)).cloned().collect();
    bare.insert(0, Event::Network(Arc::new(ClusterNetwork::default())));
    let never = compiled(&config, &[&bare], &[false]);
    let gone = compiled(&config, &[&bare, &full[..1], &bare[..1]], &[false, true, false]);
    assert_eq!(gone, never);
    let came = compiled(&config, &[&bare, &full[..1]], &[false, true]);
    let there = compiled(&config, &[&full], &[true]);
    assert_eq!(came, there);
    let peers = |name: &str| there.sets.get(name).map(BTreeSet::len);
    assert_eq!((peers("cali40all-vxlan-net"), peers("cali40all-hosts-net")), (Some(1), Some(1)));
    assert!(there.rules(Table::Filter, "cali-forward-check").contains("To kubernetes service"));
}

#[test]
fn nothing_but_filter_rejects_whatever_denial_is() {
    let config = Config {
        filter_deny: DenyAction::Reject,
        service_loop: ServiceLoop::Reject,
        flow_logs: true,
        ..Config::default()
    };
    let kernel = compiled(&config, &[&network(TUNNELS)], &[true]);
    let rejecting: BTreeSet<Table> = kernel
        .chains
        .iter()
        .filter(|(_, rules)| rules.iter().any(|rule| rule.contains("REJECT")))
        .map(|((table, _), _)| *table)
        .collect();
    assert_eq!(rejecting, BTreeSet::from([Table::Filter]));
    assert!(
        kernel.rules(Table::Filter, "cali-cidr-block").contains("--destination 10.96.0.0/12 --jump REJECT")
    );
    assert!(kernel.rules(Table::Raw, "cali-PREROUTING").contains("--invert --validmark --jump DROP"));
}

#[test]
fn services_are_not_looked_at_where_loops_are_nobodys_concern() {
    let config = Config { service_loop: ServiceLoop::Allow, ..Config::default() };
    assert_eq!(compiled(&config, &[&network(TUNNELS)], &[false]).rules(Table::Filter, "cali-cidr-block"), "");
}

#[test]
fn pools_do_not_decide_where_a_setting_does() {
    let off = Config { vxlan_enabled: Some(false), ipip_enabled: Some(true), ..Config::default() };
    let kernel = compiled(&off, &[&network(TUNNELS)], &[false]);
    let input = kernel.rules(Table::Filter, "cali-INPUT");
    assert!(input.contains("Drop IPIP packets from non-Calico hosts") && !input.contains("VXLAN"), "{input}");
    assert!(!kernel.sets.contains_key("cali40all-vxlan-net"));
}

#[test]
fn hosts_beyond_the_cluster_may_send_tunnel_packets() {
    let external_nodes = vec!["192.0.2.0/24".parse().expect("a network")];
    let kernel = compiled(&Config { external_nodes, ..Config::default() }, &[&network(TUNNELS)], &[false]);
    assert_eq!(kernel.sets["cali40all-vxlan-net"].len(), 2);
}

#[test]
fn an_ambient_mesh_has_its_workloads_as_members() {
    let config = Config { istio_dscp: Some(23), ..Config::default() };
    let kernel = compiled(&config, &[&network(TUNNELS)], &[false]);
    assert_eq!(kernel.sets["cali40all-istio-weps"], BTreeSet::from(["Net(10.65.0.2/32)".to_owned()]));
}

#[test]
fn hosts_encrypt_with_a_mark_for_what_comes_out_of_no_tunnel() {
    let marks = crate::compile::Marks::with(0xffff_0000, MarkUses { wireguard: true, ..MarkUses::default() })
        .expect("sixteen bits");
    let mut config = Config { marks, wireguard_hosts: true, ..Config::default() };
    config.wireguard_v6.is_enabled = true;
    let kernel = compiled(&config, &[&network(TUNNELS)], &[false]);
    let raw = kernel.rules(Table::Raw, "cali-PREROUTING");
    let second = raw.lines().nth(1).expect("a second rule");
    assert!(second.ends_with("--jump cali-wireguard-incoming-mark"), "{raw}");
    let mark = kernel.rules(Table::Raw, "cali-wireguard-incoming-mark");
    let ends: Vec<&str> =
        mark.lines().filter_map(|rule| rule.split_once("\" ").map(|(_, end)| end)).collect();
    assert_eq!(
        ends,
        [
            "--in-interface lo --jump RETURN",
            "--in-interface wireguard.cali --jump RETURN",
            "--in-interface wg-v6.cali --jump RETURN",
            "--in-interface cali+ --jump RETURN",
            "--jump MARK --set-mark 0x200000/0x200000",
        ]
    );
}
