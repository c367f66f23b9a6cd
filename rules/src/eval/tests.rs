//! Semantics, each on the smallest cluster that shows it.

use tortie_api::manifest::parse_documents;
use tortie_api::resource::Resource;

use super::*;

/// Pods `shop/web` 10.0.0.1 and `shop/db` 10.0.0.2 on node `a`, `bank/vault` 10.0.0.3 on node `b`.
const CLUSTER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: blue}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {team: red}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: shop, labels: {rank: low}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: a
  serviceAccountName: robot
  containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]
status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  nodeName: a
  containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]
status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: vault, namespace: bank, labels: {app: db}}
spec: {nodeName: b, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: v1
kind: Node
metadata: {name: a}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: b}
status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}
"#;

fn cluster(manifests: &str) -> Cluster {
    let text = format!("{CLUSTER}---\n{manifests}");
    let documents = parse_documents(text.as_bytes());
    Cluster::new(documents.into_iter().map(|d| d.outcome.expect("a valid manifest").resource))
}

fn tcp(from: &str, to: &str, port: u16) -> Flow {
    let party = |address: &str| Party::at(address.parse().unwrap());
    Flow::with_ports(party(from), party(to), 6, 40000, port)
}

const WEB: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";
const VAULT: &str = "10.0.0.3";
const OUTSIDE: &str = "198.51.100.1";
const NODE_A: &str = "192.168.0.1";

fn passes(cluster: &Cluster, from: &str, to: &str, port: u16) -> bool {
    let flow = tcp(from, to, port);
    let explanation = cluster.explain(&flow);
    assert_eq!(explanation.verdict, cluster.verdict(&flow), "{explanation}");
    explanation.verdict == Verdict::Allow
}

/// A policy of namespace `shop` for `app == 'db'` with these ingress rules.
fn db_policy(rules: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: db, namespace: shop}}\n\
         spec: {{selector: \"app == 'db'\", types: [Ingress], ingress: {rules}}}\n"
    )
}

fn global(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn tier(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn without_policy_the_profile_of_the_namespace_allows() {
    let cluster = cluster("");
    assert!(passes(&cluster, WEB, DB, 5432) && passes(&cluster, OUTSIDE, DB, 5432));
    let stages = cluster.explain(&tcp(WEB, DB, 1)).stages;
    assert_eq!(
        stages.iter().map(|s| s.kind).collect::<Vec<_>>(),
        [StageKind::WorkloadEgress, StageKind::WorkloadIngress]
    );
    assert_eq!(stages[0].decision, Decision::Profile { profile: "kns.shop".to_owned(), index: 0 });
}

#[test]
fn a_pod_whose_namespace_is_unknown_is_closed() {
    let mut cluster = cluster("");
    let namespace = tortie_api::Key::new(tortie_api::Kind::Namespace, None, "bank");
    cluster.remove(&namespace);
    assert!(!passes(&cluster, OUTSIDE, VAULT, 1));
    let stages = cluster.explain(&tcp(OUTSIDE, VAULT, 1)).stages;
    assert_eq!(stages[0].decision, Decision::MissingProfile { profile: "kns.bank".to_owned() });
}

#[test]
fn a_selector_means_the_namespace_of_its_policy_and_addresses_alone_do_not() {
    let cluster_of = |rule: &str| cluster(&db_policy(rule));
    let selected = cluster_of("[{action: Allow, source: {selector: \"has(app)\"}}]");
    assert!(passes(&selected, WEB, DB, 1) && !passes(&selected, VAULT, DB, 1));
    let everywhere =
        cluster_of("[{action: Allow, source: {selector: \"has(app)\", namespaceSelector: \"all()\"}}]");
    assert!(passes(&everywhere, VAULT, DB, 1) && !passes(&everywhere, OUTSIDE, DB, 1));
    let red = cluster_of("[{action: Allow, source: {namespaceSelector: \"team == 'red'\"}}]");
    assert!(passes(&red, VAULT, DB, 1) && !passes(&red, WEB, DB, 1));
    let nets = cluster_of("[{action: Allow, source: {nets: [10.0.0.0/24]}}]");
    assert!(passes(&nets, VAULT, DB, 1) && !passes(&nets, OUTSIDE, DB, 1));
    let not = cluster_of("[{action: Allow, source: {notSelector: \"app == 'db'\"}}]");
    assert!(passes(&not, WEB, DB, 1) && !passes(&not, VAULT, DB, 1) && !passes(&not, OUTSIDE, DB, 1));
}

#[test]
fn a_not_selector_of_a_global_policy_excepts_only_what_it_selects() {
    let policy = global(
        "p",
        "selector: \"app == 'db'\", ingress: [{action: Allow, source: {notSelector: \"app == 'db'\"}}]",
    );
    let cluster = cluster(&policy);
    assert!(passes(&cluster, WEB, DB, 1) && passes(&cluster, OUTSIDE, DB, 1));
    assert!(!passes(&cluster, VAULT, DB, 1));
}

#[test]
fn service_accounts_are_matched_by_name_and_by_label() {
    for accounts in ["{names: [robot]}", "{selector: \"rank == 'low'\"}"] {
        let cluster =
            cluster(&db_policy(&format!("[{{action: Allow, source: {{serviceAccounts: {accounts}}}}}]")));
        assert!(passes(&cluster, WEB, DB, 1) && !passes(&cluster, VAULT, DB, 1), "{accounts}");
    }
}

#[test]
fn a_named_port_is_a_port_of_an_endpoint() {
    let policy = db_policy("[{action: Allow, protocol: TCP, destination: {ports: [sql, http]}}]");
    let cluster = cluster(&policy);
    assert!(passes(&cluster, WEB, DB, 5432));
    // Of web, not of db.
    assert!(!passes(&cluster, WEB, DB, 8080));
    let excepted = global(
        "p",
        "selector: \"app == 'db'\", ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [sql]}}]",
    );
    let cluster = super::tests::cluster(&excepted);
    assert!(!passes(&cluster, WEB, DB, 5432) && passes(&cluster, WEB, DB, 8080));
}

#[test]
fn networks_of_one_family_and_icmp_by_name_are_for_that_family_only() {
    let cluster = cluster(&db_policy(
        "[{action: Allow, source: {notNets: [192.0.2.0/24]}}, {action: Allow, protocol: ICMP}]",
    ));
    assert!(passes(&cluster, WEB, DB, 1) && !passes(&cluster, "fd00::1", "fd00::2", 1));
    let (from, to) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let odd = Flow { icmp: Some((8, 0)), ..Flow::of_protocol(Party::at(from), Party::at(to), 1) };
    assert_eq!(cluster.verdict(&odd), Verdict::Deny);
}

#[test]
fn a_rule_that_looks_into_http_allows_nothing() {
    let cluster = cluster(&db_policy("[{action: Allow, protocol: TCP, http: {methods: [GET]}}]"));
    assert!(!passes(&cluster, WEB, DB, 80));
    let text = cluster.explain(&tcp(WEB, DB, 80)).to_string();
    assert!(text.contains("ingress[0] (Allow) nearly matches: it asks for HTTP"), "{text}");
}

#[test]
fn tiers_go_by_order_and_a_missing_one_comes_last() {
    let first = tier("first", "order: 1, defaultAction: Pass");
    let second = tier("second", "order: 2");
    let pass =
        global("pass", "tier: first, ingress: [{action: Pass, protocol: TCP, destination: {ports: [1]}}]");
    let allow = global(
        "allow",
        "tier: second, ingress: [{action: Allow, protocol: TCP, destination: {ports: [1, 2]}}]",
    );
    let deny = global("deny", "tier: nowhere, ingress: [{action: Deny}]");
    let cluster = cluster(&[first, second, pass, allow, deny].concat());
    assert!(passes(&cluster, WEB, DB, 1) && passes(&cluster, WEB, DB, 2));
    let stage = cluster.explain(&tcp(WEB, DB, 3)).stages.pop().unwrap();
    assert_eq!(stage.decision, Decision::EndOfTier { tier: "second".to_owned() });
    let tiers: Vec<_> = stage.tiers.iter().map(|t| (t.name.as_str(), t.exists)).collect();
    assert_eq!(tiers, [("first", true), ("second", true), ("nowhere", false)]);
    assert_eq!(stage.tiers[2].policies[0].outcome, PolicyOutcome::NotReached);
}

#[test]
fn a_pass_in_the_last_tier_goes_to_the_profiles() {
    let cluster = cluster(&global("p", "ingress: [{action: Log}, {action: Pass}]"));
    assert!(passes(&cluster, WEB, DB, 1));
    let stage = cluster.explain(&tcp(WEB, DB, 1)).stages.pop().unwrap();
    assert_eq!(stage.tiers[0].policies[0].logged_by, [0]);
}

#[test]
fn equal_orders_are_broken_by_name_namespace_and_kind() {
    let knp = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
               spec: {podSelector: {}, ingress: [{}]}\n";
    let calico = db_policy("[{action: Deny}]").replace("spec: {", "spec: {order: 1000, ");
    let cluster = cluster(&(calico + knp));
    assert!(passes(&cluster, WEB, DB, 1));
    let policies = &cluster.explain(&tcp(WEB, DB, 1)).stages[1].tiers[0].policies;
    assert_eq!(policies[0].policy.to_string(), "KubernetesNetworkPolicy shop/db");
}

#[test]
fn policy_of_one_direction_says_nothing_of_the_other() {
    let cluster = cluster(&global("p", "selector: \"app == 'db'\", types: [Egress], egress: []"));
    assert!(passes(&cluster, WEB, DB, 1) && !passes(&cluster, DB, WEB, 1));
}

#[test]
fn services_are_their_endpoints_with_or_without_their_ports() {
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {name: s, namespace: shop, labels: {kubernetes.io/service-name: db}}\n\
                 addressType: IPv4\nendpoints: [{addresses: [10.0.0.2], conditions: {ready: false}}]\n\
                 ports: [{name: sql, port: 5432, protocol: TCP}]\n---\n";
    let egress = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\n\
                  spec: {selector: \"app == 'web'\", egress: [{action: Allow, destination: {services: {name: db}}}]}\n";
    let cluster = cluster(&format!("{slice}{egress}"));
    assert!(passes(&cluster, WEB, DB, 5432) && !passes(&cluster, WEB, DB, 1));
    let ingress = db_policy("[{action: Allow, source: {services: {name: db, namespace: shop}}}]");
    let cluster = super::tests::cluster(&format!("{slice}{ingress}"));
    assert!(passes(&cluster, DB, DB, 1) && !passes(&cluster, WEB, DB, 1));
}

#[test]
fn network_sets_are_selected_like_endpoints() {
    let sets = "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: g, labels: {app: x}}\n\
                spec: {nets: [198.51.100.0/24]}\n---\napiVersion: projectcalico.org/v3\nkind: NetworkSet\n\
                metadata: {name: n, namespace: bank, labels: {app: x}}\nspec: {nets: [203.0.113.0/24]}\n---\n";
    let allows = |rule: &str| {
        let cluster = cluster(&format!("{sets}{}", db_policy(rule)));
        (passes(&cluster, OUTSIDE, DB, 1), passes(&cluster, "203.0.113.9", DB, 1))
    };
    let rule = |namespaces: &str| {
        format!(
            "[{{action: Allow, source: {{selector: \"app == 'x'\", namespaceSelector: \"{namespaces}\"}}}}]"
        )
    };
    assert_eq!(allows(&rule("global()")), (true, false));
    assert_eq!(allows(&rule("all()")), (false, true));
    assert_eq!(allows(&rule("team == 'red'")), (false, true));
    assert_eq!(allows(&rule("team != 'blue'")), (true, true));
}

#[test]
fn staged_policies_are_told_of_and_not_enforced() {
    let staged = "---\napiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
                  spec: {selector: \"app == 'db'\", ingress: [{action: Deny}]}\n";
    let cluster = cluster(&(db_policy("[{action: Allow}]") + staged));
    assert!(passes(&cluster, WEB, DB, 1));
    let explanation = cluster.explain(&tcp(WEB, DB, 1));
    let policies = &explanation.stages[1].tiers[0].policies;
    assert!(policies.iter().any(|p| p.staged), "{explanation}");
    let settings = Settings { enforce_staged: true, ..Settings::default() };
    assert!(!passes(&cluster.with_settings(settings), WEB, DB, 1));
}

#[test]
fn a_staged_deletion_removes_its_policy_once_it_is_enforced() {
    let staged = "---\napiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
                  spec: {stagedAction: Delete}\n";
    let cluster = cluster(&(db_policy("[{action: Deny}]") + staged));
    assert!(!passes(&cluster, WEB, DB, 1));
    let settings = Settings { enforce_staged: true, ..Settings::default() };
    assert!(passes(&cluster.with_settings(settings), WEB, DB, 1));
}

#[test]
fn near_misses_name_the_one_term_that_fails() {
    let rules = "[{action: Allow, protocol: TCP, destination: {ports: [80, 443]}}, \
                  {action: Allow, protocol: UDP, destination: {ports: [53]}}, \
                  {action: Allow, source: {selector: \"app == 'x'\"}}]";
    let text = cluster(&db_policy(rules)).explain(&tcp(WEB, DB, 5432)).to_string();
    let wanted = "\
TCP from 10.0.0.1 to 10.0.0.2 port 5432 is denied.
egress of pod shop/web on node a: allowed: by egress[0] of profile kns.shop
  profile kns.shop: egress[0] allows
ingress of pod shop/db on node a: denied: policies of tier default apply, and none of their rules matches
  tier default (denies what is left)
    NetworkPolicy shop/db: no rule matches
      ingress[0] (Allow) nearly matches: destination port 5432 is not in 80, 443
      ingress[2] (Allow) nearly matches: source Pod shop/web is not selected by `app == 'x'`";
    assert_eq!(text, wanted);
}

#[test]
fn traffic_between_a_host_and_its_pods_has_rules_of_its_own() {
    let cluster = cluster(&db_policy("[]"));
    assert!(passes(&cluster, NODE_A, DB, 1), "its own host always reaches a pod");
    assert!(!passes(&cluster, "192.168.0.2", DB, 1), "another host does not");
    assert!(!passes(&cluster, WEB, NODE_A, 1), "the default setting drops what a pod sends to its host");
    let settings = Settings { endpoint_to_host: HostAction::Allow, ..Settings::default() };
    assert!(passes(&cluster.with_settings(settings), WEB, NODE_A, 1));
}

const HOST_ENDPOINT: &str = "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a-eth0, labels: {host: a}}\n\
                             spec: {node: a, interfaceName: eth0, expectedIPs: [192.168.0.1]}\n";

#[test]
fn a_host_endpoint_is_closed_but_for_failsafe_ports_and_policy() {
    let cluster = cluster(&format!(
        "{HOST_ENDPOINT}{}",
        global(
            "p",
            "selector: \"has(host)\", ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]"
        )
    ));
    assert!(passes(&cluster, OUTSIDE, NODE_A, 22) && passes(&cluster, OUTSIDE, NODE_A, 80));
    assert!(!passes(&cluster, OUTSIDE, NODE_A, 81));
    assert!(!passes(&cluster, NODE_A, OUTSIDE, 80) && passes(&cluster, NODE_A, OUTSIDE, 179));
    assert!(passes(&cluster, OUTSIDE, DB, 81), "forwarded traffic is not of the host");
}

#[test]
fn forwarded_traffic_meets_policy_that_asks_for_it() {
    let policy = "selector: \"has(host)\", applyOnForward: true, types: [Ingress, Egress], \
                  ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}], egress: [{action: Allow}]";
    let cluster = cluster(&format!("{HOST_ENDPOINT}{}", global("p", policy)));
    assert!(passes(&cluster, OUTSIDE, DB, 80) && !passes(&cluster, OUTSIDE, DB, 22));
    assert!(passes(&cluster, DB, OUTSIDE, 81));
}

#[test]
fn early_policy_lets_in_or_denies_and_leaves_the_rest_to_normal_policy() {
    for flag in ["preDNAT", "doNotTrack"] {
        let policy = format!(
            "selector: \"has(host)\", applyOnForward: true, {flag}: true, types: [Ingress], ingress: [\
             {{action: Allow, protocol: TCP, destination: {{ports: [80]}}}}, \
             {{action: Deny, protocol: TCP, destination: {{ports: [81, 22]}}}}]"
        );
        let normal =
            "selector: \"has(host)\", ingress: [{action: Allow, protocol: TCP, destination: {ports: [82]}}]";
        let cluster = cluster(&format!("{HOST_ENDPOINT}{}{}", global("p", &policy), global("q", normal)));
        let at = |port| passes(&cluster, OUTSIDE, NODE_A, port);
        assert_eq!((at(80), at(81), at(82), at(83), at(22)), (true, false, true, false, true), "{flag}");
        assert!(!passes(&cluster, OUTSIDE, DB, 81), "{flag}: forwarded traffic meets it as well");
    }
}

#[test]
fn an_endpoint_of_all_interfaces_is_there_where_no_other_is() {
    let any = HOST_ENDPOINT.replace("a-eth0", "any").replace("eth0", "'*'").replace("host: a", "any: a");
    let cluster = cluster(&format!(
        "{HOST_ENDPOINT}{any}{}",
        global("p", "selector: has(any), ingress: [{action: Allow}]")
    ));
    let address = |text: &str| text.parse().unwrap();
    let through = |interface: &str| {
        let source = Party::outside(address(OUTSIDE)).through("a", interface);
        let flow = Flow::with_ports(source, Party::host("a", address(NODE_A)), 6, 1, 80);
        cluster.verdict(&flow)
    };
    assert_eq!((through("eth0"), through("eth1")), (Verdict::Deny, Verdict::Allow));
}

#[test]
fn labels_that_only_the_system_gives_are_not_taken_from_objects() {
    let set = "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\n\
               metadata: {name: g, labels: {pcns.team: red, projectcalico.org/orchestrator: k8s}}\n\
               spec: {nets: [198.51.100.0/24]}\n---\n";
    let rule = db_policy("[{action: Allow, source: {namespaceSelector: \"team == 'red'\"}}]");
    let cluster = cluster(&format!("{set}{rule}"));
    assert!(!passes(&cluster, OUTSIDE, DB, 1) && passes(&cluster, VAULT, DB, 1));
}

#[test]
fn the_answer_is_data_for_programs() {
    let answer = serde_json::to_value(cluster(&db_policy("[]")).explain(&tcp(WEB, DB, 1))).unwrap();
    assert_eq!(answer["verdict"], "deny");
    assert_eq!(answer["stages"][1]["decision"]["endOfTier"]["tier"], "default");
    assert_eq!(answer["stages"][1]["tiers"][0]["policies"][0]["outcome"], "noMatch");
}

#[test]
fn resources_may_change() {
    let mut cluster = cluster(&db_policy("[]"));
    assert!(!passes(&cluster, WEB, DB, 1));
    let open = parse_documents(db_policy("[{action: Allow}]").as_bytes()).remove(0).outcome.unwrap();
    let key = open.key.clone();
    cluster.set(open.resource);
    assert!(passes(&cluster, WEB, DB, 1));
    let is_policy = |r: &Resource| r.key() == key;
    assert!(cluster.resources().values().any(is_policy));
    cluster.remove(&key);
    assert!(passes(&cluster, OUTSIDE, DB, 1));
}

#[test]
fn rules_for_nodes_select_nodes_by_their_labels_and_nothing_else() {
    let with_egress = |nodes: &str| {
        cluster(&format!(
            r"
apiVersion: v1
kind: Node
metadata: {{name: b, labels: {{app: web}}}}
status: {{addresses: [{{type: InternalIP, address: 192.168.0.2}}]}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: nodes}}
spec:
  tier: Admin
  priority: 1
  subject: {{namespaces: {{}}}}
  egress: [{{name: keep off, action: Deny, to: [{{nodes: {nodes}}}]}}]
"
        ))
    };
    let labelled = with_egress("{matchLabels: {app: web}}");
    assert!(!passes(&labelled, DB, "192.168.0.2", 22), "the node has the label");
    assert!(passes(&labelled, DB, WEB, 22), "a pod with the label is no node");
    assert!(passes(&labelled, VAULT, NODE_A, 22), "another node has not");
    let text = labelled.explain(&tcp(VAULT, NODE_A, 22)).to_string();
    assert!(text.contains("Node a is no node that"), "{text}");
    let all = with_egress("{}");
    assert!(!passes(&all, VAULT, NODE_A, 22));
    assert!(passes(&all, VAULT, WEB, 22));
}
