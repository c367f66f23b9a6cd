//! Packets that IPVS takes out of INPUT and sends on from OUTPUT meet the policy that FORWARD would have shown them.

use tortie_api::manifest::parse_documents;
use tortie_api::net::IpVersion;
use tortie_rules::compile::classic::Classic;
use tortie_rules::compile::{Config, Marks};
use tortie_rules::eval::ruleset::{ConnectionState, Fate, Machine, Packet, Sets};
use tortie_rules::graph::{Graph, Options};
use tortie_rules::render::iptables::Features;

const HOST: &str = "172.18.0.2";
const SERVICE: &str = "10.96.0.10";

/// Three pods; `db` takes TCP from `web` only, and `web` sends nothing to port 81.
const SHOP: &str = r"
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: open}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: db}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'web'}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: app == 'web'
  types: [Egress]
  egress:
  - {action: Deny, protocol: TCP, destination: {ports: [81]}}
  - {action: Allow}
";

fn pod(app: &str, interface: &str, address: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n\
         metadata: {{name: a-k8s-{app}-eth0, namespace: shop, labels: {{app: {app}}}}}\n\
         spec: {{node: a, orchestrator: k8s, pod: {app}, endpoint: eth0, interfaceName: {interface}, \
         ipNetworks: [{address}/32], profiles: [open]}}\n"
    )
}

fn host(name: &str, interface: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\n\
         metadata: {{name: {name}, labels: {{host: a}}}}\nspec: {{node: a, interfaceName: '{interface}', profiles: [open]}}\n"
    )
}

/// What host endpoints forward: nothing to port 82.
const NOTHING_TO_82: &str = "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: fwd}\n\
    spec: {selector: host == 'a', applyOnForward: true, types: [Ingress], ingress: [\
    {action: Deny, protocol: TCP, destination: {ports: [82]}}, {action: Allow}]}\n";

fn machine_with(hosts: &str, config: &Config) -> Machine {
    let mut graph = Graph::new(Options {
        node: "a".to_owned(),
        interface_prefixes: config.interface_prefixes.clone(),
        suppress_covered: false,
    });
    let pods = pod("web", "cali11", "10.65.0.2")
        + &pod("db", "cali12", "10.65.0.3")
        + &pod("third", "cali2", "10.65.0.4");
    let text = SHOP.to_owned() + &pods + hosts;
    for document in parse_documents(text.as_bytes()) {
        graph.set(&document.outcome.expect("a good resource").resource);
    }
    for interface in ["eth0", "eth10", "eth11", "eth12"] {
        graph.set_host_interface(interface, Some(&[]));
    }
    let mut classic = Classic::new(config.clone(), Features::default());
    classic.set_ipvs(true);
    classic.set_host_addresses(&[format!("{HOST}/32").parse().expect("a network")]);
    graph.flush().iter().for_each(|event| classic.handle(event));
    let mut sets = Sets::default();
    classic.poll_sets().iter().for_each(|change| sets.apply(change));
    Machine::new(IpVersion::V4, &classic.tables(IpVersion::V4), &sets).expect("rules that the kernel takes")
}

fn machine(hosts: &str) -> Machine {
    machine_with(hosts, &Config::default())
}

/// TCP: where it comes in, from whom, to whom.
fn packet(interface: &str, from: &str, to: &str, port: u16) -> Packet {
    Packet {
        source: from.parse().expect("an address"),
        destination: to.parse().expect("an address"),
        protocol: 6,
        source_port: Some(40000),
        destination_port: Some(port),
        icmp: None,
        in_interface: Some(interface.to_owned()),
        out_interface: None,
        conntrack: ConnectionState::New,
        dnat: None,
        mark: 0,
        reverse_path_is_good: true,
    }
}

/// Sends a packet to a service, whose end is port `port` of the pod `db`.
fn to_db(machine: &Machine, packet: &Packet, port: u16) -> Fate {
    let taken = machine.run(packet);
    if taken.fate != Fate::Accepted {
        return taken.fate;
    }
    let sent_on = Packet {
        destination: "10.65.0.3".parse().expect("an address"),
        destination_port: Some(port),
        in_interface: None,
        out_interface: Some("cali12".to_owned()),
        mark: taken.mark,
        ..packet.clone()
    };
    let outcome = machine.run(&sent_on);
    assert!(outcome.fate != Fate::Accepted || outcome.mark & Marks::default().endpoint == 0, "{outcome:?}");
    outcome.fate
}

#[test]
fn policy_of_both_ends_counts() {
    let machine = machine("");
    let web = || packet("cali11", "10.65.0.2", SERVICE, 80);
    assert_eq!(to_db(&machine, &web(), 8080), Fate::Accepted);
    assert_eq!(to_db(&machine, &web(), 81), Fate::Dropped, "what the sender may not");
    let third = packet("cali2", "10.65.0.4", SERVICE, 80);
    assert_eq!(to_db(&machine, &third, 8080), Fate::Dropped, "what the receiver does not take");
}

#[test]
fn who_is_unknown_reaches_nobody() {
    let machine = machine("");
    let unknown = |interface| packet(interface, "10.65.0.2", SERVICE, 80);
    assert_eq!(machine.run(&unknown("cali9")).fate, Fate::Dropped);
    // Also where it shares the beginning of its name with others.
    assert_eq!(machine.run(&unknown("cali19")).fate, Fate::Dropped);
    let outside = packet("eth0", "203.0.113.1", SERVICE, 80);
    assert_eq!(to_db(&machine, &outside, 8080), Fate::Dropped);
    let node_port = packet("eth0", "203.0.113.1", HOST, 30080);
    assert_eq!(to_db(&machine, &node_port, 8080), Fate::Dropped);
}

#[test]
fn host_endpoints_decide_on_what_comes_in_by_them() {
    let known = "10.65.0.2";
    let one = machine(&(host("h0", "eth0") + NOTHING_TO_82));
    assert_eq!(to_db(&one, &packet("eth0", known, SERVICE, 80), 8080), Fate::Accepted);
    assert_eq!(to_db(&one, &packet("eth0", known, SERVICE, 80), 82), Fate::Dropped);
    let all = machine(&(host("h0", "*") + NOTHING_TO_82));
    assert_eq!(to_db(&all, &packet("eth0", known, SERVICE, 80), 8080), Fate::Accepted);
    assert_eq!(to_db(&all, &packet("eth0", known, SERVICE, 80), 82), Fate::Dropped);
}

#[test]
fn an_interface_that_shares_the_beginning_of_its_name_with_host_endpoints_is_no_way_past_policy() {
    let two = machine(&(host("h10", "eth10") + &host("h11", "eth11")));
    let outside = packet("eth12", "203.0.113.1", SERVICE, 80);
    let taken = two.run(&outside);
    assert_eq!(taken.mark & Marks::default().endpoint, 0x20_0000, "it has the mark of others");
    assert_eq!(to_db(&two, &outside, 8080), Fate::Dropped);
    let known = packet("eth12", "10.65.0.2", SERVICE, 80);
    assert_eq!(to_db(&two, &known, 8080), Fate::Accepted);
}

#[test]
fn what_is_for_the_host_is_not_sent_on() {
    let machine = machine("");
    let outcome = machine.run(&packet("eth0", "203.0.113.1", HOST, 22));
    assert_eq!((outcome.fate, outcome.mark & Marks::default().endpoint), (Fate::Accepted, 0));
    // A workload has to ask its own host in the usual way.
    assert_eq!(machine.run(&packet("cali11", "10.65.0.2", HOST, 22)).fate, Fate::Dropped);
}

#[test]
fn without_bits_for_marks_nobody_reaches_a_service() {
    let marks = Marks::from_mask(0x1f_0000).expect("five bits");
    let machine = machine_with("", &Config { marks, ..Config::default() });
    let web = packet("cali11", "10.65.0.2", SERVICE, 80);
    assert_eq!(machine.run(&web).fate, Fate::Dropped);
    let outside = packet("eth0", "203.0.113.1", SERVICE, 80);
    assert_eq!(machine.run(&outside).fate, Fate::Dropped);
}
