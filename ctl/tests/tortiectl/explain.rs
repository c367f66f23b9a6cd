use std::path::Path;
use std::process::Command;

use crate::support::{Folders, Ran, run, tortiectl};

/// The shop of `examples/shop`, asked without a datastore.
fn ask(words: &[&str]) -> Ran {
    let mut command = of_shop();
    run(command.args(words))
}

fn of_shop() -> Command {
    let mut command = tortiectl();
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    command.arg("explain").arg("-R").arg("-f").arg(shop);
    command
}

/// The first line.
fn verdict(words: &[&str]) -> String {
    let ran = ask(words);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{words:?}");
    ran.out.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_verdict_comes_first_and_then_both_directions_tier_by_tier() {
    ask(&["shop/backend", "shop/database", "tcp/5433"]).prints(
        "\
TCP from pod shop/backend (10.65.2.10) to pod shop/database (10.65.2.20) port 5433 is denied.
egress of pod shop/backend on node node-2: denied: policies of tier default apply, and none of their rules matches
  tier security (passes on what is left)
    GlobalNetworkPolicy security.blocklist: no rule matches
      egress[0] (Log) nearly matches: destination Pod shop/database is not selected by `threat == 'blocklist'`
      egress[1] (Deny) nearly matches: destination Pod shop/database is not selected by `threat == 'blocklist'`
  tier default (denies what is left)
    NetworkPolicy shop/backend-to-payments: no rule matches
    KubernetesNetworkPolicy shop/allow-dns: no rule matches
    KubernetesNetworkPolicy shop/backend: no rule matches
      egress[0] (Allow) nearly matches: destination port 5433 is not in postgres
    KubernetesNetworkPolicy shop/default-deny: no rule matches
ingress of pod shop/database on node node-2: denied: policies of tier default apply, and none of their rules matches
  tier security (passes on what is left)
    GlobalNetworkPolicy security.blocklist: no rule matches
      ingress[0] (Log) nearly matches: source Pod shop/backend is not selected by `threat == 'blocklist'`
      ingress[1] (Deny) nearly matches: source Pod shop/backend is not selected by `threat == 'blocklist'`
  tier default (denies what is left)
    KubernetesNetworkPolicy shop/database: no rule matches
      ingress[0] (Allow) nearly matches: destination port 5433 is not in postgres
    KubernetesNetworkPolicy shop/default-deny: no rule matches
",
    );
}

#[test]
fn the_table_of_the_example_holds() {
    let pods = ["shop/frontend", "shop/backend", "shop/database", "monitoring/prometheus"];
    let outside = ["192.0.2.10", "198.51.100.10", "192.0.2.66"];
    let targets = [
        ("shop/frontend", "tcp/8080"),
        ("shop/backend", "tcp/8000"),
        ("shop/backend", "tcp/9100"),
        ("shop/database", "tcp/5432"),
        ("monitoring/prometheus", "tcp/9090"),
        ("198.51.100.10", "tcp/443"),
        ("192.0.2.10", "tcp/443"),
        ("192.0.2.66", "tcp/443"),
    ];
    let allowed = [
        ("shop/frontend", "shop/backend", "tcp/8000"),
        ("shop/backend", "shop/database", "tcp/5432"),
        ("shop/backend", "198.51.100.10", "tcp/443"),
        ("monitoring/prometheus", "shop/backend", "tcp/9100"),
        ("monitoring/prometheus", "198.51.100.10", "tcp/443"),
        ("monitoring/prometheus", "192.0.2.10", "tcp/443"),
        ("192.0.2.10", "shop/frontend", "tcp/8080"),
        ("198.51.100.10", "shop/frontend", "tcp/8080"),
    ];
    for source in pods.into_iter().chain(outside) {
        for (destination, traffic) in targets {
            let is_outside = |word: &str| outside.contains(&word);
            if source == destination || is_outside(source) && is_outside(destination) {
                continue;
            }
            let wanted =
                if allowed.contains(&(source, destination, traffic)) { "allowed." } else { "denied." };
            let said = verdict(&[source, destination, traffic]);
            assert!(said.ends_with(wanted), "{source} {destination} {traffic}: {said}");
        }
    }
}

#[test]
fn pods_without_a_namespace_are_in_that_of_n() {
    let said = verdict(&["frontend", "backend", "tcp/8000", "-n", "shop"]);
    assert_eq!(
        said,
        "TCP from pod shop/frontend (10.65.1.10) to pod shop/backend (10.65.2.10) port 8000 is allowed."
    );
}

#[test]
fn nodes_and_protocols_of_all_kinds_may_be_asked_for() {
    let said = verdict(&["node/node-2", "shop/database", "icmp"]);
    assert_eq!(
        said,
        "ICMP type 8 code 0 from node node-2 (172.18.0.12) to pod shop/database (10.65.2.20) is allowed."
    );
    assert!(verdict(&["node/node-1", "shop/database", "47"]).starts_with("47 from node node-1"));
    assert!(verdict(&["node/node-1", "shop/database", "sctp/9"]).ends_with("port 9 is denied."));
    assert!(verdict(&["shop/database", "shop/backend", "icmp/3/1"]).starts_with("ICMP type 3 code 1 from"));
}

#[test]
fn the_answer_as_data_is_the_same() {
    let ran = ask(&["shop/backend", "shop/database", "udp/53", "-o", "json", "--source-port", "7"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let answer: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["verdict"], "deny");
    assert_eq!(answer["flow"]["sourcePort"], 7);
    assert_eq!(answer["stages"][0]["kind"], "workloadEgress");
    assert_eq!(answer["stages"][0]["tiers"][1]["policies"][0]["policy"]["name"], "backend-to-payments");
    assert_eq!(answer["stages"][1]["decision"]["endOfTier"]["tier"], "default");
    let yaml = ask(&["shop/backend", "shop/database", "udp/53", "-o", "yaml"]);
    assert!(yaml.out.contains("verdict: deny\n"), "{}", yaml.out);
}

#[test]
fn a_name_that_does_not_exist_is_an_error_with_what_may_be_meant() {
    let shop = ask(&["shop/fronted", "shop/databas", "tcp/1"]);
    shop.says(
        1,
        "error: there is no pod shop/fronted; did you mean shop/frontend?\n\
         error: there is no pod shop/databas; did you mean shop/database?\n",
    );
    ask(&["prometheus", "shop/database", "tcp/1"])
        .says(1, "error: there is no pod default/prometheus; did you mean monitoring/prometheus?\n");
    ask(&["node/node-3", "shop/database", "tcp/1"])
        .says(1, "error: there is no node node-3; did you mean node/node-1 or node/node-2?\n");
    ask(&["hep/x", "shop/database", "tcp/1"]).says(1, "error: there is no host endpoint x\n");
}

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    for words in [
        &["shop/frontend", "shop/backend", "tcp"][..],
        &["shop/frontend", "shop/backend", "tcp/http"],
        &["shop/frontend", "shop/backend", "carrier-pigeon"],
        &["shop/frontend", "shop/backend"],
        &["shop/frontend", "shop/backend", "tcp/1", "-4", "-6"],
    ] {
        let ran = ask(words);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{words:?}");
    }
    let ran = run(tortiectl().args(["explain", "a", "b", "tcp/1"]));
    ran.says(2, "error: no datastore: give --datastore local:DIR, or set TORTIE_DATASTORE\n");
}

/// Two pods on two nodes, one with both IP versions, hosts with and without host endpoints.
const TWO_FAMILIES: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Pod
metadata: {name: both, labels: {app: both}}
spec: {nodeName: a, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: too, labels: {app: too}}
spec: {nodeName: b, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: six}
spec: {nodeName: b, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: "fd00::3"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec: {nodeName: b, containers: [{name: c, image: i}]}
status: {phase: Pending}
---
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec: {nodeName: b, hostNetwork: true, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 192.168.0.2}]}
---
apiVersion: v1
kind: Node
metadata: {name: b}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: a-eth0, labels: {host: a}}
spec: {node: a, interfaceName: eth0, expectedIPs: [192.168.0.1]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: four}
spec:
  selector: app == 'too'
  ingress: [{action: Allow, source: {nets: [10.0.0.0/8]}}]
"#;

fn two_families() -> Folders {
    let folders = Folders::new();
    folders.put("all.yaml", TWO_FAMILIES);
    folders
}

#[test]
fn the_answer_is_for_ipv4_and_says_so_where_ipv6_differs() {
    let folders = two_families();
    let ran = folders.run("explain both too tcp/80");
    assert!(ran.out.starts_with("TCP from pod default/both (10.0.0.1) to"), "{}", ran.out);
    assert!(ran.out.ends_with("\nOver IPv6 it is denied: ask with -6 for the reason.\n"), "{}", ran.out);
    let ran = folders.run("explain both too tcp/80 -6");
    let first = "TCP from pod default/both (fd00::1) to pod default/too (fd00::2) port 80 is denied.\n";
    assert!(ran.out.starts_with(first) && !ran.out.contains("Over IPv6"), "{}", ran.out);
    let ran = folders.run("explain too both tcp/80");
    assert!(!ran.out.contains("Over IPv6"), "{}", ran.out);
    let answer: serde_json::Value =
        serde_json::from_str(&folders.run("explain both too tcp/80 -o json").out).unwrap();
    assert_eq!((&answer["verdict"], &answer["ipv6Verdict"]), (&"allow".into(), &"deny".into()));
    let ran = folders.run("explain both six tcp/80");
    assert!(ran.out.starts_with("TCP from pod default/both (fd00::1)"), "{}", ran.out);
    let ran = folders.run("explain both too icmpv6/128");
    assert!(ran.out.starts_with("ICMPv6 type 128 code 0 from pod default/both (fd00::1)"), "{}", ran.out);
}

#[test]
fn ends_that_cannot_speak_are_an_error() {
    let folders = two_families();
    folders
        .run("explain 192.0.2.1 six tcp/80")
        .says(1, "error: the ends have no IP version in common: 192.0.2.1 has IPv4, six has IPv6\n");
    folders
        .run("explain both six tcp/80 -4")
        .says(1, "error: not both ends have an IPv4 address: both has IPv4 and IPv6, six has IPv6\n");
    folders.run("explain both waiting tcp/80").says(1, "error: pod default/waiting has no address\n");
}

#[test]
fn pods_in_the_network_of_their_node_are_that_node() {
    let ran = two_families().run("explain agent too tcp/80");
    assert!(ran.out.starts_with("TCP from node b (192.168.0.2) to pod default/too"), "{}", ran.out);
}

#[test]
fn host_endpoints_keep_their_failsafe_ports_as_configured() {
    let folders = two_families();
    let verdict = |folders: &Folders, port: u16| {
        let ran = folders.run(&format!("explain 198.51.100.1 hep/a-eth0 tcp/{port}"));
        ran.out.lines().next().unwrap_or_default().rsplit(' ').next().map(str::to_owned)
    };
    assert_eq!(verdict(&folders, 22).as_deref(), Some("allowed."));
    assert_eq!(verdict(&folders, 23).as_deref(), Some("denied."));
    folders.put(
        "felix.yaml",
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: node.a}\n\
         spec: {failsafeInboundHostPorts: [{protocol: tcp, port: 23}]}\n",
    );
    assert_eq!(verdict(&folders, 22).as_deref(), Some("denied."));
    assert_eq!(verdict(&folders, 23).as_deref(), Some("allowed."));
}

#[test]
fn broken_documents_are_left_out_with_a_warning() {
    let folders = two_families();
    let broken = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: x}\nspec: {order: first}\n";
    let file = folders.put("broken.yaml", broken);
    let ran = folders.run("explain both too tcp/80");
    assert_eq!(ran.code, Some(0));
    let warning = format!("warning: {}:4: Tier/x: spec.order: ", file.display());
    assert!(ran.err.starts_with(&warning), "{}", ran.err);
    let ran = run(tortiectl().args(["explain", "both", "too", "tcp/80", "-f"]).arg(folders.store()));
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.starts_with(&warning), "{}", ran.err);
    let ran = run(tortiectl().args(["explain", "both", "too", "tcp/80", "-f", "/nowhere.yaml"]));
    ran.says(1, "error: cannot read /nowhere.yaml: No such file or directory\n");
}
