//! Host endpoints: where they are in force, and which policies they have.

use super::*;

fn host(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\n\
         metadata: {{name: {name}, labels: {{host: yes-it-is}}}}\nspec: {{node: n1, {spec}}}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec: {{selector: all(), {spec}}}\n"
    )
}

fn take(graph: &mut Graph, dataplane: &mut Dataplane, text: &str) {
    resources(text).iter().for_each(|r| graph.set(r));
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
}

fn start(text: &str) -> (Graph, Dataplane) {
    let (mut graph, mut dataplane) = (graph(), Dataplane::default());
    take(&mut graph, &mut dataplane, text);
    (graph, dataplane)
}

/// `interface=name` of what is in force.
fn in_force(dataplane: &Dataplane) -> Vec<String> {
    dataplane.hosts.iter().map(|(interface, hep)| format!("{interface}={}", hep.name)).collect()
}

fn problems(graph: &Graph) -> Vec<String> {
    graph.problems().into_iter().map(|p| format!("{}: {}: {}", p.object, p.field, p.message)).collect()
}

/// `>policy` for ingress, `<policy` for egress.
fn policies(tiers: &[TierPolicies]) -> String {
    let list = |sign: &'static str, refs: &[model::PolicyRef]| -> Vec<String> {
        refs.iter().map(|p| sign.to_owned() + &p.key.name).collect()
    };
    tiers.iter().map(|t| [list(">", &t.ingress), list("<", &t.egress)].concat().join(" ")).collect()
}

#[test]
fn the_smallest_name_wins_however_it_fits() {
    let by_name = host("b", "interfaceName: eth0");
    let (mut graph, mut dataplane) = start(&by_name);
    assert_eq!(in_force(&dataplane), ["eth0=b"]);
    take(&mut graph, &mut dataplane, &host("a", "expectedIPs: [172.18.0.2]"));
    assert_eq!(in_force(&dataplane), ["eth0=a"], "a name gives no precedence before an address");
    assert_eq!(problems(&graph), ["HostEndpoint b: spec.interfaceName: HostEndpoint a is in force there"]);
    graph.remove(&Key::new(Kind::HostEndpoint, None, "a"));
    take(&mut graph, &mut dataplane, "");
    assert_eq!(in_force(&dataplane), ["eth0=b"]);
    assert_eq!(problems(&graph), Vec::<String>::new());
}

#[test]
fn expected_addresses_do_not_move_one_that_names_its_interface() {
    let (graph, dataplane) = start(&host("a", "interfaceName: eth9, expectedIPs: [172.18.0.2]"));
    assert_eq!(in_force(&dataplane), Vec::<String>::new());
    assert_eq!(
        problems(&graph),
        [
            "HostEndpoint a: spec.interfaceName: this node has no interface \"eth9\"; the host endpoint is not in force"
        ]
    );
}

#[test]
fn one_for_all_interfaces_leaves_others_their_own() {
    let text = host("any", "interfaceName: '*'") + &host("later", "interfaceName: '*'");
    let (graph, dataplane) = start(&(text + &host("own", "interfaceName: eth0")));
    assert_eq!(in_force(&dataplane), ["eth0=own", "*=any"]);
    assert_eq!(
        problems(&graph),
        ["HostEndpoint later: spec.interfaceName: HostEndpoint any is in force there"]
    );
}

#[test]
fn interfaces_that_come_and_go_take_their_endpoint_with_them() {
    let (mut graph, mut dataplane) = start(&host("a", "expectedIPs: [10.0.0.1, 10.0.0.2]"));
    let addresses = |text: &[&str]| -> Vec<IpAddr> { text.iter().map(|a| a.parse().unwrap()).collect() };
    assert_eq!(in_force(&dataplane), Vec::<String>::new());
    let before = graph.revision();
    graph.set_host_interface("eth2", Some(&addresses(&["10.0.0.1"])));
    graph.set_host_interface("eth3", Some(&addresses(&["10.0.0.2", "10.0.0.9"])));
    assert!(graph.revision() > before, "what is wrong may have changed");
    take(&mut graph, &mut dataplane, "");
    assert_eq!(in_force(&dataplane), ["eth2=a", "eth3=a"]);
    let here = &dataplane.hosts[&HostInterface::Named("eth3".into())].addresses;
    assert_eq!(*here, addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.9"]));
    graph.set_host_interface("eth2", None);
    graph.set_host_interface("eth3", Some(&addresses(&["10.0.0.9"])));
    take(&mut graph, &mut dataplane, "");
    assert_eq!(in_force(&dataplane), Vec::<String>::new());
    let revision = graph.revision();
    graph.set_host_interface("eth2", None);
    assert_eq!(graph.revision(), revision);
}

#[test]
fn a_workloads_interface_is_no_hosts() {
    let (mut graph, mut dataplane) = start(&host("a", "interfaceName: cali123"));
    graph.set_host_interface("cali123", Some(&[]));
    take(&mut graph, &mut dataplane, "");
    assert_eq!(in_force(&dataplane), Vec::<String>::new());
    assert!(problems(&graph)[0].contains("a workload's by its name"));
}

const WORKLOAD: &str = "
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: w, namespace: shop}
spec: {node: n1, orchestrator: k8s, pod: w, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.9.0.1/32]}
";

fn flavours() -> String {
    [
        policy("a-normal", "types: [Ingress, Egress]"),
        policy("b-forward", "types: [Egress], applyOnForward: true"),
        policy("c-early", "types: [Ingress], preDNAT: true, applyOnForward: true"),
        policy("d-raw", "types: [Ingress, Egress], doNotTrack: true, applyOnForward: true"),
    ]
    .concat()
}

#[test]
fn each_flavour_of_policy_goes_where_it_belongs() {
    let (_, dataplane) = start(&(flavours() + &host("own", "interfaceName: eth0") + WORKLOAD));
    let hep = &dataplane.hosts[&HostInterface::Named("eth0".into())];
    assert_eq!(policies(&hep.normal), ">a-normal <a-normal <b-forward");
    assert_eq!(policies(&hep.forward), "<b-forward");
    assert_eq!(policies(&hep.pre_dnat), ">c-early");
    assert_eq!(policies(&hep.untracked), ">d-raw <d-raw");
    assert_eq!(policies(&dataplane.endpoints["cali1"].tiers), ">a-normal <a-normal <b-forward");
}

#[test]
fn policies_for_hosts_only_are_active_only_where_a_host_endpoint_is() {
    let (mut graph, mut dataplane) = start(&(flavours() + WORKLOAD));
    let active = |d: &Dataplane| -> Vec<String> { d.policies.keys().map(|k| k.name.to_string()).collect() };
    assert_eq!(active(&dataplane), ["a-normal", "b-forward"]);
    take(&mut graph, &mut dataplane, &host("own", "interfaceName: eth0"));
    assert_eq!(active(&dataplane), ["a-normal", "b-forward", "c-early", "d-raw"]);
    take(&mut graph, &mut dataplane, &policy("d-raw", "types: [Ingress]"));
    let hep = &dataplane.hosts[&HostInterface::Named("eth0".into())];
    assert_eq!(policies(&hep.untracked), "");
    graph.remove(&Key::new(Kind::HostEndpoint, None, "own"));
    take(&mut graph, &mut dataplane, "");
    assert_eq!(active(&dataplane), ["a-normal", "b-forward", "d-raw"], "it is an ordinary policy now");
    assert_eq!(in_force(&dataplane), Vec::<String>::new());
}

#[test]
fn policy_without_connection_tracking_cannot_be_had_for_all_interfaces() {
    let (mut graph, mut dataplane) = start(&(flavours() + &host("any", "interfaceName: '*'")));
    let hep = &dataplane.hosts[&HostInterface::Any];
    assert_eq!(policies(&hep.untracked), "");
    assert_eq!(policies(&hep.pre_dnat), ">c-early");
    let message =
        "doNotTrack cannot be had for all interfaces at once; not in force here: GlobalNetworkPolicy d-raw";
    assert_eq!(problems(&graph), [format!("HostEndpoint any: spec.interfaceName: {message}")]);
    graph.remove(&Key::new(Kind::GlobalNetworkPolicy, None, "d-raw"));
    take(&mut graph, &mut dataplane, "");
    assert_eq!(problems(&graph), Vec::<String>::new());
}

#[test]
fn a_host_endpoint_of_another_node_is_only_a_member_of_sets() {
    let rule = "types: [Ingress], ingress: [{action: Allow, source: {selector: has(host)}}]";
    let there = host("there", "interfaceName: eth0, expectedIPs: [172.18.0.3]").replace("n1", "n2");
    let (_, dataplane) = start(
        &(policy("p", rule) + &host("here", "interfaceName: eth0, expectedIPs: [172.18.0.9]") + &there),
    );
    assert_eq!(in_force(&dataplane), ["eth0=here"]);
    let members: Vec<String> = dataplane
        .sets
        .values()
        .flatten()
        .map(|m| match m {
            Member::Net(net) => net.to_string(),
            Member::AddressPort(..) => "a port".to_owned(),
        })
        .collect();
    assert_eq!(members, ["172.18.0.3/32", "172.18.0.9/32"], "what they expect, not what the interface has");
}

#[test]
fn a_host_endpoint_moves_between_nodes_and_places() {
    let (mut graph, mut dataplane) = start(&(flavours() + &host("a", "interfaceName: eth0, profiles: [p]")));
    take(&mut graph, &mut dataplane, &host("a", "interfaceName: eth1"));
    assert_eq!(in_force(&dataplane), ["eth1=a"]);
    assert!(dataplane.profiles.is_empty());
    take(&mut graph, &mut dataplane, &host("a", "interfaceName: eth1").replace("n1", "n2"));
    assert_eq!((in_force(&dataplane), dataplane.policies.len()), (Vec::new(), 0));
}
