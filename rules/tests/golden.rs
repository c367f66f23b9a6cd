//! What Felix v3.32.0 programmed for given resources, rule id by rule id.
//!
//! A rule's id is a hash over the text of all rules of its chain so far: equal ids are equal text. The data lies
//! in `tests/golden/felix`; the kernel's own output is compared by the tests of that crate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use tortie_api::manifest::parse_documents;
use tortie_api::net::{IpVersion, PortRange};
use tortie_rules::compile::classic::Classic;
use tortie_rules::compile::config::{AllowAction, EndpointToHostAction, LogLimit, OpenStack, WireGuard};
use tortie_rules::compile::{Config, MarkUses, Marks};
use tortie_rules::graph::{Graph, Options};
use tortie_rules::render::iptables::Features;
use tortie_rules::render::{InsertMode, RenderedRule, TableChange};

/// Ids of our rules by table and chain.
type Ids = BTreeMap<(String, String), Vec<String>>;

/// Chains that differ on purpose: Felix lets traffic through a rule with three and more match blocks, and lets
/// namespaces as a peer mean network sets too.
const MENDED: &[&str] = &["cali-pi-gnp/web-in", "cali-pi-kcnp/base", "cali-pi-kcnp/cluster-deny"];

/// The state in which a DSCP value for an endpoint with two addresses makes Felix write one rule that the kernel takes
/// for two. Here they are two from the start, each with an id.
const TWO_ADDRESSES: &str = "17-dscp-two";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/felix")
}

/// Tells the graph the host's interfaces, of which each line of the file has one.
fn set_interfaces(graph: &mut Graph, file: &Path) {
    let text = std::fs::read_to_string(file).expect("interfaces");
    for words in text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        let nets = words.iter().filter_map(|word| word.parse::<IpNet>().ok());
        let addresses: Vec<IpAddr> = nets.map(|net| net.addr()).collect();
        graph.set_host_interface(words.first().expect("a name"), Some(&addresses));
    }
}

fn ours(state: &Path, config: &Config, version: IpVersion) -> Ids {
    let mut graph = Graph::new(Options {
        node: "node-a".to_owned(),
        interface_prefixes: config.interface_prefixes.clone(),
        suppress_covered: true,
    });
    for file in ["resources.yaml", "k8s.yaml"] {
        // Only states of Kubernetes have the second one.
        let Ok(text) = std::fs::read(state.join(file)) else { continue };
        for document in parse_documents(&text) {
            graph.set(&document.outcome.expect("golden resources are valid").resource);
        }
    }
    set_interfaces(&mut graph, &state.join("interfaces.txt"));
    let config = Config { versions: vec![version], ..config.clone() };
    let mut classic = Classic::new(config, Features::default());
    let interfaces = std::fs::read_to_string(state.join("interfaces.txt")).expect("interfaces");
    classic.set_ipvs(interfaces.contains("kube-ipvs0"));
    graph.flush().iter().for_each(|event| classic.handle(event));
    let ids = |rules: &[RenderedRule]| rules.iter().map(|r| r.id.to_string()).collect::<Vec<_>>();
    let mut all = Ids::new();
    for update in classic.poll_tables() {
        let table = update.table.name().to_owned();
        match update.change {
            TableChange::Chain(chain) => {
                all.insert((table, chain.name.clone()), ids(&chain.rules));
            }
            TableChange::Hooks(hooks, _) => {
                for hook in hooks {
                    let rules = [ids(&hook.inserted), ids(&hook.appended)].concat();
                    all.insert((table.clone(), hook.chain), rules);
                }
            }
            TableChange::NoChain(name) => panic!("{name} is removed before it was there"),
        }
    }
    all
}

fn felixs(state: &Path, version: IpVersion) -> Ids {
    let file = if version == IpVersion::V4 { "iptables-save.txt" } else { "ip6tables-save.txt" };
    let text = std::fs::read_to_string(state.join(file)).expect("saved rules");
    let mut table = String::new();
    let mut all = Ids::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or_default();
            if name.starts_with("cali-") {
                all.insert((table.clone(), name.to_owned()), Vec::new());
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let chain = rule.split(' ').next().unwrap_or_default();
            let id = rule.split("\"cali:").nth(1).and_then(|r| r.split('"').next());
            if let Some(id) = id {
                all.entry((table.clone(), chain.to_owned())).or_default().push(id.to_owned());
            }
        }
    }
    all
}

fn check(name: &str) {
    check_with(name, &Config::default());
}

fn check_with(name: &str, config: &Config) {
    let state = golden().join(name);
    for version in IpVersion::BOTH {
        let (felix, ours) = (felixs(&state, version), ours(&state, config, version));
        let mut wrong = Vec::new();
        for key in felix.keys().chain(ours.keys()) {
            let is_mended =
                MENDED.contains(&key.1.as_str()) || name == TWO_ADDRESSES && key.1 == "cali-egress-dscp";
            if felix.get(key) != ours.get(key) && !is_mended {
                wrong.push(format!("{key:?}\n  felix {:?}\n  ours  {:?}", felix.get(key), ours.get(key)));
            }
        }
        wrong.dedup();
        assert!(wrong.is_empty(), "{name} {version}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn the_worked_example_has_felixs_ids() {
    check("00-worked-example");
}

#[test]
fn an_empty_node_has_felixs_ids() {
    check("01-empty");
}

#[test]
fn pools_with_outgoing_nat_have_felixs_ids() {
    check("02-pool-nat");
}

#[test]
fn profiles_have_felixs_ids() {
    check("03-profile");
}

#[test]
fn policies_have_felixs_ids() {
    check("04-policies");
}

#[test]
fn tiers_have_felixs_ids() {
    check("05-tiers");
}

#[test]
fn staged_policies_have_felixs_ids() {
    check("18-staged");
}

#[test]
fn kubernetes_policies_of_all_kinds_have_felixs_ids() {
    check("40-kubernetes");
}

#[test]
fn host_endpoints_have_felixs_ids() {
    check("06-hep");
}

#[test]
fn policy_for_forwarded_traffic_has_felixs_ids() {
    check("07-apply-on-forward");
}

#[test]
fn policy_before_dnat_has_felixs_ids() {
    check("08-pre-dnat");
}

#[test]
fn untracked_policy_has_felixs_ids() {
    check("09-do-not-track");
}

#[test]
fn a_host_endpoint_for_all_interfaces_has_felixs_ids() {
    check("10-wildcard-hep");
}

#[test]
fn host_endpoints_with_tiers_have_felixs_ids() {
    check("36-hep-tiers");
}

#[test]
fn log_rules_have_felixs_ids() {
    let log_limit = Some(LogLimit { rate: "10/minute".to_owned(), burst: 7 });
    check_with("20-log", &Config { log_prefix: "my-prefix".to_owned(), log_limit, ..Config::default() });
}

#[test]
fn workloads_with_addresses_of_both_families_have_felixs_ids() {
    check("11-dual-stack");
}

#[test]
fn limits_and_dscp_values_have_felixs_ids() {
    check("17-qos");
    check("17-dscp-two");
}

#[test]
fn floating_addresses_have_felixs_ids() {
    check_with("22-floating-ip", &Config { floating_ips: true, ..Config::default() });
}

#[test]
fn allowed_sources_have_felixs_ids() {
    check_with("23-spoofing", &Config { source_spoofing: true, ..Config::default() });
}

#[test]
fn many_workloads_have_felixs_ids() {
    check("15-many");
}

#[test]
fn long_names_have_felixs_ids() {
    check("19-long-names");
}

#[test]
fn annotations_have_felixs_ids() {
    check("26-annotations");
}

#[test]
fn policy_groups_have_felixs_ids() {
    check("27-groups");
}

#[test]
fn conflicting_workloads_have_felixs_ids() {
    check("35-conflict");
}

#[test]
fn allowed_by_return_has_felixs_ids() {
    let (filter_allow, mangle_allow) = (AllowAction::Return, AllowAction::Return);
    check_with("14-allow-return", &Config { filter_allow, mangle_allow, ..Config::default() });
}

#[test]
fn jumps_at_the_end_have_felixs_ids() {
    check_with("14-append", &Config { insert_mode: InsertMode::Append, ..Config::default() });
}

#[test]
fn workloads_that_may_reach_their_host_have_felixs_ids() {
    let endpoint_to_host = EndpointToHostAction::Accept;
    check_with("14-endpoint-to-host", &Config { endpoint_to_host, ..Config::default() });
}

#[test]
fn other_mark_bits_have_felixs_ids() {
    let marks = Marks::from_mask(0xfff0_0000).expect("twelve bits");
    check_with("14-marks", &Config { marks, ..Config::default() });
}

#[test]
fn checks_that_are_off_have_felixs_ids() {
    let config = Config {
        disable_conntrack_invalid_check: true,
        allow_vxlan_from_workloads: true,
        allow_ipip_from_workloads: true,
        ..Config::default()
    };
    check_with("14-misc", &config);
}

#[test]
fn outgoing_nat_with_a_given_address_has_felixs_ids() {
    let nat_address = Some("172.18.0.2".parse().expect("an address"));
    check_with("14-nat-address", &Config { nat_address, ..Config::default() });
}

#[test]
fn outgoing_nat_with_given_ports_has_felixs_ids() {
    let nat_ports = PortRange::new(32768, 65535);
    check_with("14-nat-ports", &Config { nat_ports, ..Config::default() });
}

#[test]
fn several_prefixes_have_felixs_ids() {
    let interface_prefixes = vec!["cali".to_owned(), "tap-".to_owned()];
    check_with("14-prefixes", &Config { interface_prefixes, ..Config::default() });
}

#[test]
fn flow_logs_have_felixs_ids() {
    check_with("24-flow-logs", &Config { flow_logs: true, ..Config::default() });
}

#[test]
fn addresses_of_services_have_felixs_ids() {
    check("14-service-cidrs");
}

#[test]
fn outgoing_nat_that_spares_hosts_has_felixs_ids() {
    check_with("16-nat-exclusions", &Config { nat_spares_hosts: true, ..Config::default() });
}

#[test]
fn vxlan_has_felixs_ids() {
    check("12-vxlan");
}

#[test]
fn vxlan_on_ipv6_has_felixs_ids() {
    check("33-vxlan-v6");
}

#[test]
fn ip_in_ip_has_felixs_ids() {
    check("25-ipip");
}

#[test]
fn pools_without_tunnels_have_felixs_ids() {
    check("30-no-encap-blocks");
}

#[test]
fn wireguard_has_felixs_ids() {
    let marks =
        Marks::with(0xffff_0000, MarkUses { wireguard: true, ..MarkUses::default() }).expect("sixteen bits");
    let wireguard_v4 = WireGuard { is_enabled: true, ..Config::default().wireguard_v4 };
    check_with("32-wireguard", &Config { marks, wireguard_v4, ..Config::default() });
}

#[test]
fn kube_proxy_with_ipvs_has_felixs_ids() {
    check("28-ipvs");
}

#[test]
fn an_ambient_mesh_has_felixs_ids() {
    check_with("31-istio-ambient", &Config { istio_dscp: Some(23), ..Config::default() });
}

#[test]
fn a_host_of_openstack_has_felixs_ids() {
    let interface_prefixes = vec!["tap".to_owned()];
    let metadata = Some("172.18.0.50:8775".parse().expect("an address with port"));
    let openstack = Some(OpenStack { metadata });
    check_with("29-openstack", &Config { interface_prefixes, openstack, ..Config::default() });
}

#[test]
fn a_host_of_openstack_that_serves_metadata_itself_has_felixs_ids() {
    let metadata = Some("127.0.0.1:8775".parse().expect("an address with port"));
    check_with("34-openstack-type", &Config { openstack: Some(OpenStack { metadata }), ..Config::default() });
}
