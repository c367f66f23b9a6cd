//! Corners, written by hand: each small cluster is asked about every packet that its landmarks make.

use serde_json::Value;
use tortie_api::manifest::parse_documents;
use tortie_api::net::IpVersion;
use tortie_rules::eval::ruleset::Packet;
use tortie_rules::random::{Landmarks, Probes, SIDE_LINK, UPLINK};
use tortie_rules::render::Table;
use tortie_rules::ruleset::Action;

use crate::agrees;
use crate::scene::{Compiler, Scene, Variant};

/// Packets for each corner.
const PACKETS: usize = 4000;

/// Two pods of this node with both families, one with two addresses of a family, and one elsewhere.
const BASE: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: blue}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: bank, labels: {team: red}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node-a, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}, {name: http, containerPort: 8080, protocol: UDP}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: node-a, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: 10.0.0.6}, {ip: "fd00::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: bank, labels: {app: db}}
spec: {nodeName: node-b, containers: [{name: c, image: i, ports: [{name: http, containerPort: 81}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.3}, {ip: "fd00::3"}]}
"#;

/// The manifests of a corner, with those of the pods.
pub(crate) fn corner(manifests: &str) -> Vec<Value> {
    let text = format!("{BASE}---\n{manifests}");
    let documents = parse_documents(text.as_bytes());
    documents.into_iter().map(|d| d.outcome.expect("a valid manifest").value).collect()
}

fn check(manifests: &str) {
    let manifests = corner(manifests);
    for (number, compiler) in (0..6).flat_map(|number| Compiler::ALL.map(|compiler| (number, compiler))) {
        let variant = Variant::number(number, compiler);
        let scene = Scene::new(&manifests, &variant).expect("rules that the kernel takes");
        let mut probes = Probes::new(number, &scene.policy, Landmarks::of(&manifests));
        for at in 0..PACKETS {
            let probe = probes
                .probe(if at % 3 == 0 { IpVersion::V6 } else { IpVersion::V4 })
                .expect("a workload is there");
            assert!(agrees(&scene, &probe, at % 16 == 0), "{}", scene.describe(&manifests, &probe));
        }
    }
}

/// A global policy for everything, with these rules on ingress.
fn rules(rules: &str) {
    check(&format!(
        "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: p}}, spec: {{ingress: [{rules}]}}}}"
    ));
}

/// A policy of namespace `shop`, with these rules on egress.
fn namespaced(rules: &str) {
    check(&format!(
        "{{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: {{types: [Egress], egress: [{rules}]}}}}"
    ));
}

#[test]
fn four_match_blocks_all_count() {
    rules(
        "{action: Allow, protocol: TCP, source: {nets: [10.0.0.0/30, 10.0.0.6], ports: [http, 1:3]}, \
         destination: {nets: [10.0.0.1, 10.0.0.2], notNets: [10.0.0.2/32, 10.0.0.9/32], ports: [http, 443]}}",
    );
}

#[test]
fn more_ports_than_a_match_takes() {
    let ports: Vec<String> = (0..24).map(|n| (1000 + 2 * n).to_string()).collect();
    for field in ["ports", "notPorts"] {
        rules(&format!(
            "{{action: Allow, protocol: UDP, destination: {{{field}: [{}, \"2000:2010\"]}}}}",
            ports.join(", ")
        ));
    }
}

#[test]
fn exceptions_of_networks() {
    rules("{action: Deny, source: {notNets: [10.0.0.1/32]}}, {action: Allow}");
    rules("{action: Allow, source: {nets: [10.0.0.0/29], notNets: [10.0.0.2/31, 10.0.0.6/32]}}");
    rules("{action: Deny, source: {nets: [0.0.0.0/0]}}, {action: Allow}");
    rules("{action: Allow, source: {notNets: [\"fd00::/127\"]}, destination: {nets: [\"::/0\"]}}");
}

#[test]
fn named_ports_with_and_without_protocol() {
    rules("{action: Allow, destination: {ports: [http]}}");
    rules("{action: Deny, protocol: UDP, destination: {notPorts: [http]}}, {action: Allow}");
    rules("{action: Allow, protocol: TCP, destination: {selector: \"app == 'db'\", ports: [http, 8080]}}");
    rules("{action: Allow, protocol: TCP, destination: {notSelector: \"app == 'db'\", ports: [http]}}");
    namespaced("{action: Allow, protocol: TCP, destination: {selector: \"app == 'db'\", notPorts: [http]}}");
}

#[test]
fn selectors_and_their_opposites() {
    namespaced("{action: Allow, destination: {notSelector: \"app == 'db'\"}}");
    namespaced("{action: Allow, destination: {namespaceSelector: \"all()\", notSelector: \"app == 'db'\"}}");
    namespaced("{action: Deny, destination: {namespaceSelector: \"global()\"}}, {action: Allow}");
    rules("{action: Allow, source: {notSelector: \"app == 'db'\"}}");
    rules("{action: Deny, source: {selector: \"app == 'db'\", nets: [10.0.0.6/32]}}, {action: Allow}");
}

#[test]
fn icmp_of_both_families() {
    rules("{action: Allow, protocol: ICMP, icmp: {type: 8}}, {action: Allow, protocol: ICMPv6}");
    rules(
        "{action: Allow, protocol: 1, notICMP: {type: 8, code: 0}}, {action: Allow, protocol: 58, icmp: {type: 128, code: 0}}",
    );
    rules("{action: Allow, notProtocol: ICMP}, {action: Pass, protocol: 1}");
}

#[test]
fn protocols_by_name_and_number() {
    rules("{action: Allow, protocol: 6, notProtocol: TCP}, {action: Allow, protocol: 17, notProtocol: TCP}");
    rules(
        "{action: Allow, protocol: UDPLite}, {action: Deny, protocol: 253}, {action: Allow, notProtocol: SCTP}",
    );
    rules("{action: Allow, ipVersion: 6, notProtocol: 47}");
}

#[test]
fn pass_goes_to_the_next_tier_and_at_last_to_the_profiles() {
    let tier = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let policy = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let ports = |action: &str, ports: &str| {
        format!("{{action: {action}, protocol: TCP, destination: {{ports: [{ports}]}}}}")
    };
    let manifests = [
        tier("first", "order: 1"),
        tier("second", "order: 2, defaultAction: Pass"),
        policy("a", &format!("tier: first, ingress: [{}]", ports("Pass", "1, 80"))),
        policy("b", &format!("tier: first, ingress: [{}]", ports("Deny", "1"))),
        policy(
            "c",
            &format!(
                "tier: second, ingress: [{}], egress: [{{action: Log}}, {{action: Pass}}]",
                ports("Deny", "80")
            ),
        ),
        policy("d", "tier: third, egress: [{action: Allow, protocol: UDP}]"),
        policy("e", &format!("ingress: [{}]", ports("Pass", "1"))),
    ];
    check(&manifests.concat());
}

#[test]
fn long_lists_of_policies_with_one_selector_are_a_group() {
    let policies: Vec<String> = (0..12)
        .map(|n| {
            let action = ["Deny", "Allow", "Pass"][n % 3];
            let ports = format!("destination: {{ports: [{}]}}", 100 + n % 7);
            format!("{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: p{n}}}, spec: {{order: {}, ingress: [{{action: {action}, protocol: TCP, {ports}}}]}}}}", n % 4)
        })
        .collect();
    check(&policies.join("\n---\n"));
}

#[test]
fn services_mean_the_own_namespace_unless_they_name_one() {
    let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, namespace: shop, labels: {kubernetes.io/service-name: db}}, \
                 addressType: IPv4, endpoints: [{addresses: [10.0.0.2]}, {addresses: [10.0.0.9]}], ports: [{name: a, port: 80, protocol: TCP}, {name: b, port: 53, protocol: UDP}]}";
    let policy = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, \
                  spec: {egress: [{action: Allow, destination: {services: {name: db}}}], ingress: [{action: Deny, source: {services: {name: db, namespace: shop}}}, {action: Pass}]}}";
    check(&format!("{slice}\n---\n{policy}"));
}

#[test]
fn sets_that_overlap_and_a_pod_that_has_ended() {
    check(
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: a, labels: {app: db}}, spec: {nets: [10.0.0.0/30, 10.0.0.2, 10.0.0.0/29]}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: b, namespace: bank, labels: {app: db}}, spec: {nets: [0.0.0.0/0, \"fd00::/126\"]}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: over, namespace: shop, labels: {app: db}}, spec: {nodeName: node-a, containers: []}, status: {phase: Succeeded, podIPs: [{ip: 10.0.0.1}]}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {ingress: [{action: Deny, source: {selector: \"app == 'db'\"}}, {action: Allow, source: {selector: \"app == 'db'\", namespaceSelector: \"team == 'red'\"}}]}}",
    );
}

#[test]
fn a_staged_policy_changes_nothing() {
    check(
        "{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: p, namespace: shop}, spec: {ingress: [{action: Deny}], types: [Ingress, Egress]}}",
    );
}

#[test]
fn kubernetes_policies_of_all_shapes() {
    check(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress, Egress], \
         ingress: [{from: [{podSelector: {matchLabels: {app: db}}}, {ipBlock: {cidr: 10.0.0.0/29, except: [10.0.0.3/32]}}], ports: [{port: http}, {port: 8000, endPort: 8081}]}, \
         {from: [{namespaceSelector: {matchLabels: {team: red}}}], ports: [{protocol: UDP}]}], egress: [{ports: [{}]}]}}",
    );
}

#[test]
fn a_pass_of_a_profile_counts_only_for_what_it_matches() {
    check(
        "{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: own, namespace: shop}, spec: {node: node-a, interfaceName: cali1, ipNetworks: [10.0.0.4], profiles: [first, kns.shop]}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: first}, spec: {ingress: [{action: Pass, protocol: TCP}, {action: Deny}]}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {ingress: [{action: Pass}]}}",
    );
}

#[test]
fn an_interface_with_an_endpoint_of_its_own_does_not_meet_that_of_all() {
    check(
        "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: all}, spec: {node: node-a, interfaceName: '*'}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: own, labels: {own: 'yes'}}, spec: {node: node-a, interfaceName: eth1}}\n---\n\
         {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {applyOnForward: true, preDNAT: true, selector: \"!has(own)\", ingress: [{action: Allow}]}}",
    );
}

/// Whatever the kernel's own chain does with what nobody decides: other programs like to drop it.
#[test]
fn what_host_endpoints_let_through_is_accepted_and_not_only_left_alone() {
    let endpoint = |name: &str, interface: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {{name: {name}}}, spec: {{node: node-a, interfaceName: {interface}}}}}"
        )
    };
    let manifests = corner(&[endpoint("a", UPLINK), endpoint("b", SIDE_LINK)].join("\n---\n"));
    let variant = Variant::number(0, Compiler::Classic);
    let scene = Scene::new(&manifests, &variant).expect("rules that the kernel takes");
    let mut probes = Probes::new(1, &scene.policy, Landmarks::of(&manifests));
    let probe = probes.probe(IpVersion::V4).expect("a workload is there");
    let (from, to) = (Some(UPLINK.to_owned()), Some(SIDE_LINK.to_owned()));
    let packet = Packet { in_interface: from, out_interface: to, dnat: None, ..probe.packet };
    let (_, steps) = scene.machine(&packet).trace(&packet);
    let last = steps.iter().rfind(|step| step.table == Table::Filter).expect("a rule matches");
    assert_eq!((last.chain.as_str(), &last.action), ("FORWARD", &Some(Action::Accept)), "{steps:?}");
}

#[test]
fn limits_and_marks_of_workloads_change_no_verdict() {
    let endpoint = |namespace: &str, pod: &str, address: &str, interface: &str| {
        format!(
            r#"
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: node--a-k8s-{pod}-eth0, namespace: {namespace}, labels: {{app: {pod}}}}}
spec:
  node: node-a
  orchestrator: k8s
  pod: {pod}
  endpoint: eth0
  interfaceName: {interface}
  ipNetworks: [{address}/32, "fd00::9/128"]
  ipNATs: [{{internalIP: {address}, externalIP: 203.0.113.5}}]
  profiles: [kns.{namespace}]
  allowSpoofedSourcePrefixes: [203.0.113.0/24, "2001:db8::/32"]
  qosControls: {{ingressPacketRate: 10, egressPacketRate: 20, ingressMaxConnections: 1, egressMaxConnections: 2, dscp: 46}}
"#
        )
    };
    check(&format!(
        "{}---{}---\n{}",
        endpoint("shop", "limited", "10.0.0.8", "cali00000000008"),
        endpoint("bank", "fast", "10.0.0.9", "cali00000000009"),
        "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, \
         spec: {selector: \"app == 'limited'\", types: [Ingress, Egress], ingress: [{action: Allow, protocol: TCP, source: {selector: \"app == 'db'\"}}], \
         egress: [{action: Pass, protocol: UDP}, {action: Allow, destination: {nets: [10.0.0.1/32]}}]}}"
    ));
}
