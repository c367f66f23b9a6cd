//! The resources of the clusters: numbers, labels and selectors as in Felix's `calc_graph_bench_test.go` and
//! `named_port_bench_test.go`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use tortie_api::endpoint::WorkloadEndpointSpec;
use tortie_api::meta::Metadata;
use tortie_api::net::{Port, PortRange, Protocol};
use tortie_api::policy::{
    Action, EntityRule, GlobalNetworkPolicySpec, NetworkPolicySpec, NetworkSetSpec, PerformanceHint,
    PolicyType, ProfileSpec, Rule,
};
use tortie_api::resource::{Object, Resource};
use tortie_api::selector::Selector;

/// The node whose graph it is.
pub(crate) const LOCAL: &str = "localhost";
/// Another one.
pub(crate) const REMOTE: &str = "remotehost";
/// The label of a namespace's name, as its endpoints inherit it.
const NAMESPACE_NAME: &str = "pcns.kubernetes.io/metadata.name";
/// Keys that the policies of the snapshot ask for; the second is the first again, as in Felix's list.
const MARKERS: usize = 31;

/// Hands out addresses from 10.0.0.1 upwards.
#[derive(Debug)]
pub(crate) struct Addresses(u32);

impl Addresses {
    pub(crate) fn new() -> Self {
        Self(0x0a00_0001)
    }

    fn next(&mut self) -> IpNet {
        let address = Ipv4Addr::from(self.0);
        self.0 += 1;
        IpNet::V4(Ipv4Net::from(address))
    }
}

type Labels = BTreeMap<String, String>;

fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Labels {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).expect("the selectors of the shapes are valid")
}

fn allow_from(text: &str) -> Rule {
    let source = EntityRule { selector: Some(selector(text)), ..EntityRule::default() };
    Rule { source, ..Rule::new(Action::Allow) }
}

fn ingress_policy(name: String, selects: &str, rules: Vec<Rule>) -> Resource {
    Resource::GlobalNetworkPolicy(Object {
        metadata: Metadata::named(name, None),
        spec: GlobalNetworkPolicySpec { ingress: rules, ..empty_policy(selects, &[PolicyType::Ingress]) },
    })
}

fn empty_policy(selects: &str, types: &[PolicyType]) -> GlobalNetworkPolicySpec {
    GlobalNetworkPolicySpec {
        tier: "default".to_owned(),
        order: None,
        ingress: Vec::new(),
        egress: Vec::new(),
        selector: Some(selector(selects)),
        types: types.to_vec(),
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
        service_account_selector: None,
        namespace_selector: None,
        performance_hints: Vec::new(),
    }
}

/// A policy that is in force on every node, with one rule: what keeps a set alive.
pub(crate) fn asking(name: String, text: &str) -> Resource {
    let mut spec = empty_policy("has(nobody)", &[PolicyType::Ingress]);
    spec.ingress = vec![allow_from(text)];
    spec.performance_hints = vec![PerformanceHint::AssumeNeededOnEveryNode];
    Resource::GlobalNetworkPolicy(Object { metadata: Metadata::named(name, None), spec })
}

/// One endpoint; `number` is unique on its node.
fn endpoint(
    node: &str,
    namespace: &str,
    pod: &str,
    labels: Labels,
    profile: String,
    address: IpNet,
) -> Resource {
    let name = format!("{node}-k8s-{}-eth0", pod.replace('-', "--"));
    let digits = pod.bytes().fold(0_u64, |all, byte| all.wrapping_mul(31).wrapping_add(byte.into()));
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node: node.to_owned(),
        pod: pod.to_owned(),
        endpoint: "eth0".to_owned(),
        ip_networks: vec![address],
        profiles: vec![profile],
        interface_name: format!("cali{:011x}", digits & 0xfff_ffff_ffff),
        ..WorkloadEndpointSpec::default()
    };
    let metadata = Metadata { labels, ..Metadata::named(name, Some(namespace)) };
    Resource::WorkloadEndpoint(Object { metadata, spec })
}

fn profile(name: String, labels: Labels) -> Resource {
    let spec = ProfileSpec { labels_to_apply: labels, ..ProfileSpec::default() };
    Resource::Profile(Object { metadata: Metadata::named(name, None), spec })
}

// --- The snapshots -------------------------------------------------------------------------------------------

/// Namespaces of the snapshots.
const NAMESPACES: usize = 100;

fn marker(number: usize) -> String {
    match number % MARKERS {
        0 | 1 => "FOO_BAR".to_owned(),
        n => format!("calico/marker-{n}"),
    }
}

pub(crate) fn namespaces() -> Vec<Resource> {
    let namespace = |i| {
        let name = format!("namespace-{i}");
        profile(format!("kns.{name}"), labels([(NAMESPACE_NAME, name)]))
    };
    (0..NAMESPACES).map(namespace).collect()
}

/// Policies that select by one of 31 markers, with five rules that do so as well.
pub(crate) fn marker_policies(count: usize) -> Vec<Resource> {
    let policy = |i: usize| {
        let rules = (0..5).map(|j| allow_from(&format!("has({})", marker(i + j)))).collect();
        ingress_policy(format!("tag-pol-{i}"), &format!("has({})", marker(i)), rules)
    };
    (0..count).map(policy).collect()
}

/// Endpoints with five labels of 10, 11, 20, 30 and 40 values and one of the markers. `first` goes on counting
/// where an earlier call ended.
pub(crate) fn endpoints(node: &str, first: usize, count: usize, addresses: &mut Addresses) -> Vec<Resource> {
    let one = |n: usize| {
        let seed = first + n + 1;
        let mut all: Labels = [10, 11, 20, 30, 40]
            .map(|values| (format!("one-in-{values}"), format!("value-{}", seed % values)))
            .into();
        all.insert(marker(seed), "true".to_owned());
        let namespace = format!("namespace-{}", n % NAMESPACES);
        let profile = format!("kns.{namespace}");
        endpoint(node, &namespace, &format!("wep-{n}"), all, profile, addresses.next())
    };
    (0..count).map(one).collect()
}

/// Network sets of 1, 1, 1, 1, 2, 3, 4, 5, 100 and 1000 addresses, each with a policy for all that lets it in.
pub(crate) fn network_sets(count: usize) -> Vec<Resource> {
    const SIZES: [usize; 10] = [1, 1, 1, 1, 2, 3, 4, 5, 100, 1000];
    let mut addresses = Addresses::new();
    let mut all = Vec::with_capacity(2 * count);
    for i in 0..count {
        let name = format!("network-set-{i}");
        let size = SIZES[i % SIZES.len()];
        all.push(network_set(&name, size, &mut addresses));
        let rules = vec![allow_from(&format!("network-set-name == '{name}'"))];
        all.push(ingress_policy(format!("network-set-pol-{i}"), "all()", rules));
    }
    all
}

fn network_set(name: &str, size: usize, addresses: &mut Addresses) -> Resource {
    let metadata =
        Metadata { labels: labels([("network-set-name", name.to_owned())]), ..Metadata::named(name, None) };
    let nets = (0..size).map(|_| addresses.next()).collect();
    Resource::GlobalNetworkSet(Object { metadata, spec: NetworkSetSpec { nets } })
}

// --- Isolated customers --------------------------------------------------------------------------------------

/// A text of `length` letters and digits that hardly any other number gives.
fn text_of(number: usize, length: usize) -> String {
    let mut state = number as u64 + 1;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        char::from(b"abcdefghijklmnopqrstuvwxyz012345"[(mixed >> 59) as usize])
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn customer_namespaces(count: usize) -> Vec<Resource> {
    let one = |n: usize| {
        let name = format!("customer-{n}");
        let production = n.is_multiple_of(2).to_string();
        let all = labels([
            (NAMESPACE_NAME, name.clone()),
            ("namespace-id", text_of(n, 20)),
            ("production", production),
        ]);
        profile(format!("kns.{name}"), all)
    };
    (0..count).map(one).collect()
}

/// The rules of a customer: traffic within the namespace, and DNS.
fn customer_rules(side: &EntityRule) -> (Vec<Rule>, Vec<Rule>) {
    let within = Rule { source: side.clone(), ..Rule::new(Action::Allow) };
    let out = Rule { destination: side.clone(), ..Rule::new(Action::Allow) };
    let dns = EntityRule {
        nets: vec!["10.96.0.10/32".parse().expect("a network")],
        ports: vec![Port::Range(PortRange::single(53))],
        ..EntityRule::default()
    };
    let dns = Rule { protocol: Some(Protocol::Udp), destination: dns, ..Rule::new(Action::Allow) };
    (vec![within], vec![out, dns])
}

const BOTH: [PolicyType; 2] = [PolicyType::Ingress, PolicyType::Egress];

/// One policy per customer, with the very selectors that Felix's graph is given.
pub(crate) fn customer_policies(count: usize) -> Vec<Resource> {
    let one = |n: usize| {
        let text = format!("{NAMESPACE_NAME} == 'customer-{n}'");
        let inside = || EntityRule { selector: Some(selector(&text)), ..EntityRule::default() };
        let (ingress, mut egress) = customer_rules(&inside());
        egress[0].destination = inside();
        let spec = GlobalNetworkPolicySpec { ingress, egress, ..empty_policy(&text, &BOTH) };
        let metadata = Metadata::named(format!("customer-{n}.isolation"), None);
        Resource::GlobalNetworkPolicy(Object { metadata, spec })
    };
    (0..count).map(one).collect()
}

/// The same as it is written in a cluster: a policy in each customer's namespace.
pub(crate) fn namespaced_customer_policies(count: usize) -> Vec<Resource> {
    let one = |n: usize| {
        let text = format!("kubernetes.io/metadata.name == 'customer-{n}'");
        let inside = || EntityRule { namespace_selector: Some(selector(&text)), ..EntityRule::default() };
        let (ingress, mut egress) = customer_rules(&inside());
        egress[0].destination = inside();
        let spec = NetworkPolicySpec {
            tier: "default".to_owned(),
            order: None,
            ingress,
            egress,
            selector: None,
            types: BOTH.to_vec(),
            service_account_selector: None,
            performance_hints: Vec::new(),
        };
        let metadata = Metadata::named("isolation", Some(&format!("customer-{n}")));
        Resource::NetworkPolicy(Object { metadata, spec })
    };
    (0..count).map(one).collect()
}

/// One pod per customer with 15 labels; `local` of them, evenly spread, are on this node. Remote ones first.
pub(crate) fn customer_endpoints(count: usize, local: usize) -> Vec<Resource> {
    let mut addresses = Addresses::new();
    let stride = (count / local).max(1);
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    for n in 0..count {
        let is_local = n.is_multiple_of(stride) && here.len() < local;
        let namespace = format!("customer-{n}");
        let pod = format!("app-{:09x}-{:05x}", n * 7 + 3, (n * 17 + 5) & 0xffff);
        let node = if is_local { LOCAL } else { REMOTE };
        let profile = format!("kns.{namespace}");
        let one = endpoint(node, &namespace, &pod, customer_labels(n), profile, addresses.next());
        if is_local { here.push(one) } else { elsewhere.push(one) }
    }
    elsewhere.extend(here);
    elsewhere
}

/// Five unique labels, four of two values, four of a few, one that all share, one of 5000 values.
fn customer_labels(n: usize) -> Labels {
    let of = |list: &[&str]| list[n % list.len()].to_owned();
    let bit = |shift: usize| ((n >> shift) & 1).to_string();
    labels([
        ("pod-id", text_of(n * 5, 20)),
        ("instance-id", text_of(n * 5 + 1, 20)),
        ("short-id", text_of(n * 5 + 2, 10)),
        ("config-hash", text_of(n * 5 + 3, 20)),
        ("version-tag", text_of(n * 5 + 4, 8)),
        ("enabled", bit(0)),
        ("debug", bit(1)),
        ("canary", bit(2)),
        ("managed", bit(3)),
        ("environment", of(&["dev", "staging", "prod"])),
        ("tier", of(&["frontend", "backend", "middleware", "data"])),
        ("region", of(&["us-east", "us-west", "eu-west", "ap-south"])),
        ("team", of(&["platform", "payments", "identity", "growth", "infra"])),
        ("managed-by", "saas-controller".to_owned()),
        ("tenant-id", text_of(n % 5000, 10)),
    ])
}

// --- Single updates ------------------------------------------------------------------------------------------

/// Endpoints of another node that share their labels, each with a profile of its own.
pub(crate) fn update_endpoints(count: usize) -> Vec<Resource> {
    let mut addresses = Addresses::new();
    let one = |n: usize| {
        let all = labels([("alpha", "beta".to_owned()), ("ipset-1", "true".to_owned())]);
        endpoint(REMOTE, "default", &format!("wep-{n}"), all, format!("namespace-{n}"), addresses.next())
    };
    (0..count).map(one).collect()
}

/// Policies in force, each with a rule `alpha == "beta" && has(ipset-i)`.
pub(crate) fn update_selectors(count: usize) -> Vec<Resource> {
    (0..count).map(|i| asking(format!("ipset-{i}"), &update_selector(i))).collect()
}

pub(crate) fn update_selector(i: usize) -> String {
    format!("alpha == \"beta\" && has(ipset-{i})")
}

/// Policies in force that ask for 100 names of profiles.
pub(crate) fn parent_selectors() -> Vec<Resource> {
    let one = |i| asking(format!("ipset-{i}"), &format!("projectcalico.org/name == \"namespace-{i}\""));
    (0..100).map(one).collect()
}

pub(crate) fn parent_updates(count: usize) -> Vec<Resource> {
    let one = |n: usize| {
        let name = format!("namespace-{n}");
        let all = labels([
            ("projectcalico.org/name", name.clone()),
            ("update-idx", n.to_string()),
            ("something-shared", "foo".to_owned()),
        ]);
        profile(name, all)
    };
    (0..count).map(one).collect()
}

// --- A production node ---------------------------------------------------------------------------------------

/// 294 policies with 68 rules each over 3,708 sets of 70 members: half of the sets are network sets, the members
/// of the others are pods. 110 pods are on this node.
pub(crate) fn production() -> Vec<Resource> {
    const POLICIES: usize = 294;
    const RULES: usize = 68;
    const SETS: usize = 3708;
    const MEMBERS: usize = 70;
    let mut addresses = Addresses::new();
    let mut all = namespaces();
    let app = |n: usize| labels([("app", format!("app-{}", n % (SETS / 2)))]);
    for n in 0..SETS / 2 * MEMBERS {
        let node = if n < 110 { LOCAL } else { REMOTE };
        let namespace = format!("namespace-{}", n % NAMESPACES);
        let profile = format!("kns.{namespace}");
        all.push(endpoint(node, &namespace, &format!("wep-{n}"), app(n), profile, addresses.next()));
    }
    for i in 0..SETS / 2 {
        all.push(network_set(&format!("network-set-{i}"), MEMBERS, &mut addresses));
    }
    let rule = |n: usize| match n % SETS {
        n if n.is_multiple_of(2) => allow_from(&format!("app == 'app-{}'", n / 2)),
        n => allow_from(&format!("network-set-name == 'network-set-{}'", n / 2)),
    };
    let policy = |i: usize| {
        let rules = (i * RULES..(i + 1) * RULES).map(rule).collect();
        ingress_policy(format!("policy-{i}"), "has(app)", rules)
    };
    all.extend((0..POLICIES).map(policy));
    all
}
