//! What the report says is compared with every flow evaluated on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::manifest::parse_documents;
use tortie_api::net::IpVersion;

use super::super::flow::{Flow, Party, Place};
use super::super::path::NEIGHBOUR_TYPES;
use super::*;
use crate::eval::{Settings, explain::Verdict};

fn cluster(manifests: &str) -> Cluster {
    let documents = parse_documents(manifests.as_bytes());
    let resource =
        |d: tortie_api::manifest::Document| d.outcome.unwrap_or_else(|e| panic!("{e}: {manifests}"));
    Cluster::new(documents.into_iter().map(|d| resource(d).resource)).configured().0
}

fn pod(namespace: &str, name: &str, node: &str, labels: &str, ips: &[&str], ports: &str) -> String {
    let ips: Vec<String> = ips.iter().map(|ip| format!("{{ip: \"{ip}\"}}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{nodeName: {node}, containers: [{{name: c, image: i, ports: [{ports}]}}]}}\n\
         status: {{phase: Running, podIPs: [{}]}}\n",
        ips.join(", ")
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn global(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn set(name: &str, labels: &str, nets: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{nets: [{nets}]}}\n"
    )
}

const NODES: &str = "---\napiVersion: v1\nkind: Node\nmetadata: {name: a}\n\
                     status: {addresses: [{type: InternalIP, address: 10.9.0.1}, {type: InternalIP, address: \"fd00::901\"}]}\n\
                     ---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\n\
                     status: {addresses: [{type: InternalIP, address: 10.9.0.2}]}\n";

/// Two web pods on two nodes, a database, and one pod of another namespace.
fn base() -> String {
    [
        namespace("shop", "team: blue"),
        namespace("bank", "team: red"),
        pod("shop", "web-1", "a", "app: web, hash: x1", &["10.0.0.1", "fd00::1"], ""),
        pod("shop", "web-2", "b", "app: web, hash: x2", &["10.0.0.2"], ""),
        pod("shop", "db", "a", "app: db", &["10.0.0.3", "fd00::3"], "{name: sql, containerPort: 300}"),
        pod("bank", "vault", "b", "app: vault", &["10.0.0.4"], "{name: sql, containerPort: 400}"),
        NODES.to_owned(),
    ]
    .concat()
}

/// Some addresses of nobody.
const OUTSIDE: [&str; 9] = [
    "192.0.2.0",
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.5",
    "192.0.2.129",
    "198.51.100.7",
    "10.0.0.77",
    "fd00::77",
    "2001:db8::1",
];

/// An end in a brute-force search: called so, there before, there after.
type End = (Peer, IpAddr, [Party; 2]);

fn ends(clusters: [&Cluster; 2], outside: &[&str]) -> Vec<End> {
    let mut found: BTreeMap<(IpAddr, Peer), [Option<Place>; 2]> = BTreeMap::new();
    for (at, cluster) in clusters.iter().enumerate() {
        let derived = cluster.derived();
        for workload in &derived.workloads {
            let (namespace, name) = workload.point.workload();
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            for address in &workload.addresses {
                let peer = Peer::Workload { namespace: namespace.clone(), name: name.clone(), address: None };
                let place = Place::Workload { namespace: namespace.clone(), name: name.clone() };
                found.entry((*address, peer)).or_default()[at] = Some(place);
            }
        }
        for (address, node) in &derived.node_of {
            let peer = Peer::Node { node: node.clone(), address: None };
            found.entry((*address, peer)).or_default()[at] = Some(Place::Host { node: node.clone() });
        }
    }
    for address in outside {
        let peer = Peer::Outside { nets: Vec::new(), except: Vec::new() };
        found.entry((address.parse().unwrap(), peer)).or_default();
    }
    let party = |address, place: Option<Place>| Party {
        address,
        place: place.unwrap_or(Place::Outside),
        interface: None,
    };
    found
        .into_iter()
        .map(|((address, peer), places)| (peer, address, places.map(|place| party(address, place))))
        .collect()
}

fn node_of(clusters: [&Cluster; 2], (peer, _, parties): &End) -> Option<String> {
    match peer {
        Peer::Node { node, .. } => Some(node.clone()),
        Peer::Workload { .. } => [1, 0].into_iter().find_map(|at| match &parties[at].place {
            Place::Workload { namespace, name } => {
                Some(clusters[at].derived().workload_named(namespace, name)?.node.clone())
            }
            _ => None,
        }),
        Peer::Outside { .. } => None,
    }
}

/// Whether a peer of the report is this end.
fn is_end(peer: &Peer, end: &End) -> bool {
    let has = |address: &Option<IpAddr>| address.is_none_or(|address| address == end.1);
    match (peer, &end.0) {
        (Peer::Workload { namespace, name, address }, Peer::Workload { namespace: n, name: m, .. }) => {
            namespace == n && name == m && has(address)
        }
        (Peer::Node { node, address }, Peer::Node { node: n, .. }) => node == n && has(address),
        (Peer::Outside { nets, except }, Peer::Outside { .. }) => {
            let around =
                |list: &[IpNet]| list.iter().filter(|net| net.contains(&end.1)).map(IpNet::prefix_len).max();
            around(nets) > around(except)
        }
        _ => false,
    }
}

/// The flow without its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    protocol: u8,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
}

fn is_traffic(traffic: &Traffic, load: &Load) -> bool {
    let is_in = |spans: &[Span], number: Option<u16>| {
        spans.is_empty() || number.is_some_and(|number| spans.iter().any(|span| span.contains(number)))
    };
    traffic.protocol.is_none_or(|protocol| protocol.number() == load.protocol)
        && !traffic.not_protocols.iter().any(|protocol| protocol.number() == load.protocol)
        && is_in(&traffic.source_ports, load.ports.map(|ports| ports.0))
        && is_in(&traffic.ports, load.ports.map(|ports| ports.1))
        && is_in(&traffic.icmp_types, load.icmp.map(|icmp| icmp.0.into()))
        && is_in(&traffic.icmp_codes, load.icmp.map(|icmp| icmp.1.into()))
}

fn loads(is_v4: bool, ports: &[u16], sources: &[u16]) -> Vec<Load> {
    let mut loads = Vec::new();
    for protocol in [6, 17, 132] {
        for from in sources {
            loads.extend(ports.iter().map(|to| Load { protocol, ports: Some((*from, *to)), icmp: None }));
        }
    }
    let icmp = if is_v4 { 1 } else { 58 };
    for icmp_type in [0, 3, 8, 9, 128, 130, 133, 134, 135, 200, 255] {
        let of = |code| Load { protocol: icmp, ports: None, icmp: Some((icmp_type, code)) };
        loads.extend([0, 1, 2, 255].map(of));
    }
    let plain = [2, 4, 47, 50, 136, 253, 255, 59 - icmp];
    loads.extend(plain.map(|protocol| Load { protocol, ports: None, icmp: None }));
    loads
}

/// What the report does not speak of: tunnel packets of workloads, and neighbour discovery with the own host.
fn is_untold(end: &End, to: &End, load: &Load) -> bool {
    let is_workload = matches!(end.0, Peer::Workload { .. });
    let is_vxlan = load.protocol == 17 && load.ports.is_some_and(|ports| ports.1 == 4789);
    let is_neighbour = load.protocol == 58 && load.icmp.is_some_and(|icmp| NEIGHBOUR_TYPES.contains(&icmp.0));
    is_workload && (is_vxlan || load.protocol == 4) || is_neighbour && matches!(to.0, Peer::Node { .. })
}

/// Compares the report with every flow, one by one; returns how many change.
fn check(before: &Cluster, after: &Cluster, ports: &[u16], sources: &[u16]) -> usize {
    check_pairs(before, after, ports, sources, |_, _| true)
}

/// The same for some pairs of addresses.
fn check_pairs(
    before: &Cluster,
    after: &Cluster,
    ports: &[u16],
    sources: &[u16],
    is_wanted: impl Fn(&str, &str) -> bool,
) -> usize {
    let clusters = [before, after];
    let report = preview(before, after);
    let ends = ends(clusters, &OUTSIDE);
    let mut changes = 0;
    for from in &ends {
        for to in &ends {
            let is_self = from.1 == to.1 && !matches!(from.0, Peer::Node { .. });
            let is_outside =
                |at: usize| from.2[at].place == Place::Outside && to.2[at].place == Place::Outside;
            let is_wanted = is_wanted(&from.1.to_string(), &to.1.to_string());
            if from.1.is_ipv4() != to.1.is_ipv4() || is_self || is_outside(0) || is_outside(1) || !is_wanted {
                continue;
            }
            let same_node = node_of(clusters, from).is_some_and(|n| Some(n) == node_of(clusters, to));
            let version = IpVersion::of_addr(&from.1);
            let told: Vec<&VerdictChange> = report
                .verdicts
                .iter()
                .filter(|v| v.ip_version.is_none_or(|of| of == version))
                .filter(|v| v.same_node.is_none_or(|same| same == same_node))
                .filter(|v| v.sources.iter().any(|peer| is_end(peer, from)))
                .filter(|v| v.destinations.iter().any(|peer| is_end(peer, to)))
                .collect();
            for load in loads(from.1.is_ipv4(), ports, sources) {
                if is_untold(from, to, &load) {
                    continue;
                }
                let [was, is] = [0, 1].map(|at| {
                    let (source_port, destination_port) = load.ports.unzip();
                    let (source, destination) = (from.2[at].clone(), to.2[at].clone());
                    let plain = Flow::of_protocol(source, destination, load.protocol);
                    clusters[at].verdict(&Flow { source_port, destination_port, icmp: load.icmp, ..plain })
                });
                let said: BTreeSet<bool> = told
                    .iter()
                    .filter(|v| v.traffic.iter().any(|traffic| is_traffic(traffic, &load)))
                    .map(|v| v.becomes == Verdict::Allow)
                    .collect();
                let wanted: BTreeSet<bool> =
                    (was != is).then_some(is == Verdict::Allow).into_iter().collect();
                changes += wanted.len();
                assert_eq!(said, wanted, "{load:?} from {from:?} to {to:?}: {was} becomes {is}\n{report}");
            }
        }
    }
    changes
}

/// Around everything that the tests' rules mention.
const PORTS: [u16; 22] =
    [0, 1, 52, 53, 54, 79, 80, 81, 99, 100, 101, 199, 200, 201, 299, 300, 301, 400, 4788, 4790, 49152, 65535];
const SOURCES: [u16; 5] = [0, 999, 1000, 2000, 49152];

/// Compares with `base` before and with these manifests on top of it after.
fn check_change(before: &str, after: &str) -> usize {
    check(&cluster(&(base() + before)), &cluster(&(base() + after)), &PORTS, &SOURCES)
}

#[test]
fn nothing_is_said_of_no_change() {
    let same = cluster(&(base() + &policy("p", "ingress: [{action: Allow}]")));
    let report = preview(&same, &same);
    assert!(report.is_empty());
    assert_eq!(report.to_string(), "Nothing changes.");
}

#[test]
fn every_port_of_every_pair_is_as_the_report_says() {
    let rules = "selector: \"app == 'db'\", ingress: [\
                 {action: Allow, protocol: TCP, source: {selector: \"app == 'web'\"}, destination: {ports: [80, \"100:200\"]}}, \
                 {action: Deny, protocol: UDP, source: {ports: [\"1000:2000\"]}}, \
                 {action: Allow, protocol: UDP, destination: {notPorts: [53]}}]";
    let (before, after) = (cluster(&base()), cluster(&(base() + &policy("p", rules))));
    let every: Vec<u16> = (0..=u16::MAX).collect();
    let is_wanted =
        |from: &str, to: &str| ["10.0.0.1", "10.0.0.4", "192.0.2.5"].contains(&from) && to == "10.0.0.3";
    assert!(check_pairs(&before, &after, &every, &[49152], is_wanted) > 100_000);
    assert!(check_pairs(&after, &before, &[53], &every, is_wanted) > 1000);
}

#[test]
fn policies_of_every_sort_are_previewed_exactly() {
    let blocked = set("blocked", "kind: blocked", "192.0.2.0/24, 198.51.100.7/32, \"2001:db8::/32\"");
    let hole = set("hole", "kind: hole", "192.0.2.0/30, 192.0.2.128/25");
    let deny = global("deny", "selector: \"app == 'web'\", egress: [{action: Deny}]");
    for (before, after) in [
        (String::new(), policy("p", "ingress: [{action: Allow, protocol: TCP, destination: {ports: [sql]}}]")),
        (String::new(), deny.clone()),
        (deny, String::new()),
        (String::new(), policy("p", "selector: \"app == 'db'\", egress: [{action: Allow, destination: {nets: [192.0.2.0/30], notNets: [192.0.2.1/32]}}]")),
        (
            global("p", "order: 1, selector: \"all()\", egress: [{action: Deny, destination: {selector: \"kind == 'blocked'\"}}, {action: Allow}]"),
            [blocked.as_str(), hole.as_str(), &global("p", "order: 1, selector: \"all()\", egress: [{action: Allow, destination: {selector: \"kind == 'hole'\"}}, {action: Deny, destination: {selector: \"kind == 'blocked'\"}}, {action: Allow}]")].concat(),
        ),
        (blocked.clone(), blocked.replace("192.0.2.0/24, ", "")).clone(),
        (
            policy("p", "ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}, {action: Allow, protocol: ICMPv6, notICMP: {type: 128, code: 1}}]"),
            policy("p", "ingress: [{action: Allow, protocol: ICMP, notICMP: {type: 3, code: 1}}, {action: Allow, protocol: ICMPv6, icmp: {type: 128}}]"),
        ),
        (
            policy("p", "ingress: [{action: Allow, notProtocol: TCP}]"),
            policy("p", "ingress: [{action: Allow, protocol: 47}, {action: Allow, protocol: 132}]"),
        ),
        (
            policy("p", "order: 1, ingress: [{action: Allow, source: {namespaceSelector: \"team == 'red'\"}}]") + &policy("q", "order: 2, ingress: [{action: Deny}]"),
            policy("p", "order: 3, ingress: [{action: Allow, source: {namespaceSelector: \"team == 'red'\"}}]") + &policy("q", "order: 2, ingress: [{action: Deny}]"),
        ),
        (String::new(), "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k, namespace: bank}\nspec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/30]}}]}]}\n".to_owned()),
    ] {
        check_change(&before, &after);
    }
    assert!(check_change("", &policy("p", "ingress: [{action: Deny}]")) > 1000);
}

#[test]
fn who_changes_labels_addresses_or_nodes_is_previewed_exactly() {
    let rules = policy(
        "p",
        "selector: \"app == 'db'\", ingress: [{action: Allow, source: {selector: \"app == 'web'\"}}]",
    ) + &global(
        "q",
        "selector: \"app == 'vault'\", ingress: [{action: Allow, protocol: TCP, destination: {ports: [sql]}}]",
    );
    let before = base() + &rules;
    for (from, to) in [
        ("app: vault", "app: web"),
        ("app: web, hash: x1", "app: db"),
        ("team: red", "team: blue"),
        ("nodeName: a", "nodeName: b"),
        ("containerPort: 400", "containerPort: 80"),
        ("podIPs: [{ip: \"10.0.0.2\"}]", "podIPs: [{ip: \"10.0.0.22\"}]"),
        ("podIPs: [{ip: \"10.0.0.2\"}]", "podIPs: [{ip: \"10.0.0.3\"}]"),
        ("phase: Running, podIPs: [{ip: \"10.0.0.2\"}]", "phase: Succeeded, podIPs: [{ip: \"10.0.0.2\"}]"),
    ] {
        let after = before.replace(from, to);
        assert_ne!(before, after);
        if to.contains("10.0.0.3") {
            // Two pods with one address: nothing is compared here but that there is an answer.
            preview(&cluster(&before), &cluster(&after));
            continue;
        }
        check(&cluster(&before), &cluster(&after), &PORTS, &SOURCES);
        check(&cluster(&after), &cluster(&before), &PORTS, &SOURCES);
    }
}

const HOST_ENDPOINTS: &str = "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a-eth0, labels: {host: a}}\n\
                              spec: {node: a, interfaceName: eth0, expectedIPs: [10.9.0.1]}\n\
                              ---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: b-all, labels: {host: b}}\n\
                              spec: {node: b, interfaceName: \"*\", expectedIPs: [10.9.0.2]}\n";

#[test]
fn hosts_are_previewed_exactly() {
    let felix = |spec: &str| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
        )
    };
    let allow = global(
        "p",
        "selector: has(host), ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}], egress: [{action: Allow, destination: {nets: [192.0.2.0/24]}}]",
    );
    let forward = global(
        "f",
        "selector: \"host == 'a'\", applyOnForward: true, ingress: [{action: Allow, protocol: TCP, destination: {ports: [80, 300]}}], egress: [{action: Deny, protocol: UDP}, {action: Allow}]",
    );
    let early = |flag: &str| {
        let types = if flag == "preDNAT" { "[Ingress]" } else { "[Ingress, Egress]" };
        global(
            "e",
            &format!(
                "selector: has(host), applyOnForward: true, {flag}: true, types: {types}, ingress: [{{action: Allow, protocol: TCP, destination: {{ports: [53]}}}}, {{action: Deny, protocol: TCP, destination: {{ports: [\"100:200\"]}}}}]"
            ),
        )
    };
    let with = |more: &str| HOST_ENDPOINTS.to_owned() + more;
    for (before, after) in [
        (String::new(), with("")),
        (with(""), with(&allow)),
        (with(&allow), with(&(allow.clone() + &forward))),
        (with(""), with(&early("preDNAT"))),
        (with(&allow), with(&(allow.clone() + &early("doNotTrack")))),
        (with(""), with(&felix("failsafeInboundHostPorts: [{protocol: tcp, port: 80, net: 192.0.2.0/30}]"))),
        (
            String::new(),
            felix(
                "defaultEndpointToHostAction: Accept, allowVXLANPacketsFromWorkloads: true, allowIPIPPacketsFromWorkloads: true",
            ),
        ),
    ] {
        check_change(&before, &after);
    }
    assert!(check_change(&with(""), &with(&allow)) > 100);
    assert!(check_change(&with(""), &with(&forward)) > 100);
}

#[test]
fn packets_that_policy_does_not_decide_do_not_stand_for_others() {
    let accept = "---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n\
                  spec: {defaultEndpointToHostAction: Accept}\n";
    for but in ["protocol: UDP, destination: {ports: [4788]}", "protocol: ICMPv6, icmp: {type: 129}"] {
        let open = policy("p", "selector: \"app == 'web'\", egress: [{action: Allow}]");
        let shut = policy("p", &format!("selector: \"app == 'web'\", egress: [{{action: Allow, {but}}}]"));
        assert!(check_change(&(open + accept), &(shut + accept)) > 1000);
    }
}

#[test]
fn cluster_wide_policies_of_kubernetes_are_previewed_exactly() {
    let wide = |rules: &str| {
        format!(
            "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: w}}\n\
             spec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, {rules}}}\n"
        )
    };
    let nodes = wide("egress: [{name: n, action: Deny, to: [{nodes: {matchLabels: {rack: one}}}]}]");
    let pods = wide("ingress: [{name: n, action: Accept, from: [{namespaces: {matchLabels: {team: red}}}]}]");
    let accept = "---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n\
                  spec: {defaultEndpointToHostAction: Accept}\n";
    let labelled = base().replace("metadata: {name: b}", "metadata: {name: b, labels: {rack: one}}");
    let all = |base: &str, more: &str| cluster(&(base.to_owned() + accept + more));
    let deny = policy("p", "ingress: [{action: Deny}]");
    assert!(check(&all(&base(), &nodes), &all(&labelled, &nodes), &PORTS, &SOURCES) > 100);
    assert!(check(&all(&labelled, ""), &all(&labelled, &nodes), &PORTS, &SOURCES) > 100);
    assert!(check(&all(&base(), &deny), &all(&base(), &(deny.clone() + &pods)), &PORTS, &SOURCES) > 100);
}

#[test]
fn services_and_tiers_are_previewed_exactly() {
    let slice = |addresses: &str, port: u16| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, namespace: shop, labels: {{kubernetes.io/service-name: db}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [{addresses}]}}]\nports: [{{name: sql, port: {port}, protocol: TCP}}]\n"
        )
    };
    let rules = policy(
        "p",
        "selector: \"app == 'web'\", egress: [{action: Allow, destination: {services: {name: db}}}]",
    );
    assert!(check_change(&rules, &(rules.clone() + &slice("10.0.0.3", 300))) > 0);
    assert!(
        check_change(
            &(rules.clone() + &slice("10.0.0.3", 300)),
            &(rules.clone() + &slice("10.0.0.3, 192.0.2.5", 80))
        ) > 0
    );
    let tier = |action: &str, order: u32| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: t}}\nspec: {{order: {order}, defaultAction: {action}}}\n"
        )
    };
    let inside =
        global("t.x", "tier: t, selector: \"app == 'db'\", ingress: [{action: Pass, protocol: TCP}]");
    let rest = policy(
        "p",
        "ingress: [{action: Allow, protocol: UDP}, {action: Allow, protocol: TCP, destination: {ports: [80]}}]",
    );
    let all = |tier: String| tier + &inside + &rest;
    assert!(check_change(&all(tier("Deny", 1)), &all(tier("Pass", 1))) > 0);
    assert!(check_change(&all(tier("Deny", 1)), &all(tier("Deny", 2_000_000))) > 0);
    assert!(check_change(&rest, &all(tier("Deny", 1))) > 0);
}

#[test]
fn staged_policies_are_previewed_as_if_in_force() {
    let staged = "---\napiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {selector: \"app == 'db'\", ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}\n";
    let manifests = base() + &policy("p", "selector: \"app == 'db'\", ingress: [{action: Allow}]") + staged;
    let (before, after) = (cluster(&manifests), cluster(&manifests).with_staged_in_force());
    assert!(check(&before, &after, &PORTS, &SOURCES) > 100);
    let report = preview(&before, &after);
    assert_eq!((report.objects.len(), report.policies.len()), (0, 1));
    assert_eq!(
        report.policies[0].to_string().lines().next(),
        Some("NetworkPolicy shop/p in tier default changes")
    );
    let same = cluster(&manifests).with_settings(Settings { enforce_staged: true, ..Settings::default() });
    assert!(preview(&after, &same).is_empty());
}

/// Numbers that look random, the same for the same seed (an LCG, its high half).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }

    fn side(&mut self, has_ports: bool) -> String {
        let who = self.of(&[
            "",
            "",
            "selector: \"app == 'web'\"",
            "selector: \"app != 'db'\"",
            "notSelector: \"app == 'web'\"",
            "selector: \"has(kind)\"",
            "selector: \"all()\", namespaceSelector: \"team == 'red'\"",
            "namespaceSelector: \"global()\"",
            "nets: [192.0.2.0/24, 10.0.0.0/30]",
            "nets: [192.0.2.0/24], notNets: [192.0.2.0/30]",
            "notNets: [10.0.0.0/24]",
            "nets: [\"fd00::/64\"]",
        ]);
        let ports = if has_ports {
            self.of(&[
                "",
                "",
                "ports: [80]",
                "ports: [\"100:200\", 53]",
                "ports: [sql]",
                "notPorts: [80, \"100:65535\"]",
            ])
        } else {
            ""
        };
        format!("{{{who}{}{ports}}}", if who.is_empty() || ports.is_empty() { "" } else { ", " })
    }

    fn rules(&mut self) -> String {
        let mut rules = Vec::new();
        for _ in 0..=self.roll(3) {
            let protocol = self.of(&[
                "",
                "protocol: TCP, ",
                "protocol: TCP, ",
                "protocol: UDP, ",
                "protocol: ICMP, icmp: {type: 8}, ",
                "protocol: ICMPv6, notICMP: {type: 128, code: 1}, ",
                "notProtocol: UDP, ",
                "protocol: 47, ",
            ]);
            let has_ports =
                protocol.contains("TCP") || protocol.contains("protocol: UDP") && !protocol.contains("not");
            let action = self.of(&["Allow", "Allow", "Deny", "Pass", "Log"]);
            let (source, destination) = (self.side(has_ports), self.side(has_ports));
            let rule =
                format!("{{action: {action}, {protocol}source: {source}, destination: {destination}}}");
            // Some of what is rolled the API does not take.
            let document = policy("x", &format!("ingress: [{rule}]"));
            if parse_documents(document.as_bytes()).iter().all(|document| document.outcome.is_ok()) {
                rules.push(rule);
            }
        }
        format!("[{}]", rules.join(", "))
    }

    fn policies(&mut self) -> String {
        let mut text = String::new();
        for name in ["p", "q", "r"].into_iter().take(1 + self.roll(3)) {
            let selector = self.of(&["all()", "app == 'db'", "app == 'web'", "!has(hash)", "has(host)"]);
            let (order, ingress, egress) = (self.roll(3), self.rules(), self.rules());
            let types = self.of(&["[Ingress]", "[Egress]", "[Ingress, Egress]"]);
            let list = |name: &str, rules: &str| {
                if types.contains(name) {
                    format!(", {}: {rules}", name.to_lowercase())
                } else {
                    String::new()
                }
            };
            let lists = list("Ingress", &ingress) + &list("Egress", &egress);
            let forward = self.of(&["", "", ", applyOnForward: true"]);
            let spec = format!("order: {order}, selector: \"{selector}\", types: {types}{lists}");
            text += &if self.roll(2) == 0 { policy(name, &spec) } else { global(name, &(spec + forward)) };
        }
        if self.roll(2) == 0 {
            text +=
                &set("s", "kind: x", self.of(&["192.0.2.0/31", "192.0.2.0/24, \"fd00::/16\"", "0.0.0.0/1"]));
        }
        if self.roll(4) == 0 {
            text += HOST_ENDPOINTS;
        }
        text
    }
}

#[test]
fn random_changes_are_previewed_exactly() {
    const PORTS: [u16; 9] = [0, 53, 80, 99, 100, 200, 201, 300, 49152];
    let mut changes = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let (before, after) = (base() + &dice.policies(), base() + &dice.policies());
        changes += check(&cluster(&before), &cluster(&after), &PORTS, &[79, 80, 49152]);
    }
    assert!(changes > 10_000, "{changes}");
}

#[test]
fn interfaces_with_host_endpoints_of_their_own_are_told_apart() {
    let second = "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a-eth1, labels: {net: back}}\n\
                  spec: {node: a, interfaceName: eth1}\n";
    let rules =
        "selector: \"has(net)\", ingress: [{action: Allow, protocol: TCP, destination: {ports: [81]}}]";
    let before = base() + HOST_ENDPOINTS + second;
    let (before, after) = (cluster(&before), cluster(&(before.clone() + &global("p", rules))));
    let report = preview(&before, &after);
    let outside = |v: &&VerdictChange| matches!(v.sources[..], [Peer::Outside { .. }]);
    let told: Vec<_> = report.verdicts.iter().filter(outside).collect();
    assert_eq!(told.len(), 1, "{report}");
    let by = Interfaces { source: None, destination: Some("eth1".to_owned()) };
    assert_eq!((&told[0].interfaces, told[0].traffic.len()), (&by, 1), "{report}");
    assert!(
        told[0]
            .to_string()
            .starts_with("becomes allowed: TCP to port 81, by interface eth1 of the destination's node\n")
    );
    // What the report says holds for the one interface and not for the other.
    let asked = |interface: &str| {
        let node = Party::host("a", "10.9.0.1".parse().unwrap()).through("a", interface);
        after.verdict(&Flow::with_ports(Party::outside("192.0.2.5".parse().unwrap()), node, 6, 1, 81))
    };
    assert_eq!((asked("eth0"), asked("eth1")), (Verdict::Deny, Verdict::Allow));
}

#[test]
fn what_was_not_looked_at_is_told() {
    let (before, after) = (cluster(&base()), cluster(&(base() + &policy("p", "ingress: [{action: Deny}]"))));
    let whole = preview(&before, &after);
    let cut = preview_within(&before, &after, 3);
    assert_eq!(whole.pairs_left_out, 0);
    assert!(cut.pairs_left_out > 3 && cut.verdicts.len() < whole.verdicts.len());
    let told = format!("{} pairs of groups of endpoints were not looked at: too many.", cut.pairs_left_out);
    assert!(cut.to_string().ends_with(&told), "{cut}");
}

#[test]
fn rules_are_told_by_what_came_and_what_went() {
    let rules = |list: &str| cluster(&(base() + &policy("p", &format!("ingress: [{list}]"))));
    let before = rules("{action: Deny, protocol: UDP}, {action: Allow, protocol: TCP}, {action: Log}");
    let after =
        rules("{action: Allow, protocol: TCP}, {action: Pass}, {action: Log}, {action: Deny, protocol: 47}");
    let told: Vec<String> =
        preview(&before, &after).policies[0].rules.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["ingress[0] goes: Deny UDP", "ingress[1] comes: Pass", "ingress[3] comes: Deny 47"]);
    let after = rules("{action: Deny, protocol: SCTP}, {action: Allow, protocol: TCP}, {action: Log}");
    let told = preview(&before, &after).policies[0].rules[0].to_string();
    assert_eq!(told, "ingress[0] changes: Deny UDP\n      becomes: Deny SCTP");
}
