mod random;
mod states;

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::manifest::parse_documents;

use super::model::{
    HostEndpoint, HostInterface, LocalEndpoint, Member, PolicyKey, PolicyRules, ProfileRules, SetId,
    TierPolicies,
};
use super::*;

mod compiled;
mod hosts;
mod kinds;
mod shares;
mod staged;

/// Applies events as a dataplane would, and checks their order while doing so.
#[derive(Debug, Default, PartialEq)]
struct Dataplane {
    sets: BTreeMap<SetId, BTreeSet<Member>>,
    policies: BTreeMap<PolicyKey, Arc<PolicyRules>>,
    profiles: BTreeMap<Arc<str>, Arc<ProfileRules>>,
    endpoints: BTreeMap<Arc<str>, Arc<LocalEndpoint>>,
    hosts: BTreeMap<HostInterface, Arc<HostEndpoint>>,
    pools: (Vec<IpNet>, Vec<IpNet>),
}

impl Dataplane {
    fn take(&mut self, event: Event) {
        match event {
            Event::SetAdded { id, members, .. } => {
                assert!(members.is_sorted());
                assert!(self.sets.insert(id, members.into_iter().collect()).is_none(), "added twice");
            }
            Event::SetChanged { id, added, removed } => {
                let set = self.sets.get_mut(&id).expect("a changed set is known");
                assert!(removed.iter().all(|m| set.remove(m)), "{id}: a removed member was there");
                assert!(added.into_iter().all(|m| set.insert(m)), "{id}: an added member is new");
            }
            Event::SetGone(id) => {
                assert!(self.sets.remove(&id).is_some());
                assert!(!self.used_sets().contains(&id), "{id} goes while rules use it");
            }
            Event::Policy(policy) => {
                self.policies.insert(policy.key.clone(), policy);
                assert!(
                    self.used_sets().iter().all(|id| self.sets.contains_key(id)),
                    "sets come before policies"
                );
            }
            Event::PolicyGone(key) => {
                assert!(self.policies.remove(&key).is_some());
                assert!(!self.used_policies().contains(&key), "{key} goes while an endpoint lists it");
            }
            Event::Profile(profile) => {
                self.profiles.insert(profile.name.clone(), profile);
            }
            Event::ProfileGone(name) => assert!(self.profiles.remove(&name).is_some()),
            Event::Endpoint(endpoint) => {
                self.endpoints.insert(endpoint.interface.clone(), endpoint);
                self.assert_complete();
            }
            Event::HostEndpoint(endpoint) => {
                self.hosts.insert(endpoint.interface.clone(), endpoint);
                self.assert_complete();
            }
            Event::EndpointGone(interface) => assert!(self.endpoints.remove(&interface).is_some()),
            Event::HostEndpointGone(interface) => assert!(self.hosts.remove(&interface).is_some()),
            // Held against what it is made of by its own tests.
            Event::Network(_) => {}
            Event::Pools { all, nat_outgoing } => self.pools = (all, nat_outgoing),
        }
    }

    /// What endpoints refer to is there.
    fn assert_complete(&self) {
        assert!(self.used_policies().iter().all(|k| self.policies.contains_key(k)));
        let workloads = self.endpoints.values().flat_map(|e| &e.profiles);
        let mut profiles = workloads.chain(self.hosts.values().flat_map(|e| &e.profiles));
        assert!(profiles.all(|p| self.profiles.contains_key(p)));
    }

    fn used_policies(&self) -> BTreeSet<PolicyKey> {
        let hosts = self.hosts.values().flat_map(|e| [&e.normal, &e.forward, &e.pre_dnat, &e.untracked]);
        let tiers = self.endpoints.values().map(|e| &e.tiers).chain(hosts).flat_map(|t| t.iter());
        tiers.flat_map(|t| t.ingress.iter().chain(&t.egress)).map(|p| p.key.clone()).collect()
    }

    fn used_sets(&self) -> BTreeSet<SetId> {
        let rules = self.policies.values().flat_map(|p| p.ingress.iter().chain(&p.egress));
        rules
            .flat_map(|r| [&r.source, &r.destination])
            .flat_map(|s| {
                s.sets
                    .iter()
                    .chain(&s.not_sets)
                    .chain(&s.named_ports)
                    .chain(&s.not_named_ports)
                    .chain(&s.services)
            })
            .cloned()
            .collect()
    }
}

/// A graph whose host has two interfaces.
fn graph() -> Graph {
    let options = Options {
        node: "n1".to_owned(),
        interface_prefixes: vec!["cali".to_owned()],
        suppress_covered: true,
    };
    let mut graph = Graph::new(options);
    graph.set_host_interface("eth0", Some(&["172.18.0.2".parse().expect("an address")]));
    graph.set_host_interface("eth1", Some(&[]));
    graph
}

fn resources(text: &str) -> Vec<Resource> {
    let documents = parse_documents(text.as_bytes()).into_iter();
    documents.map(|d| d.outcome.expect("the test's manifests are valid").resource).collect()
}

fn from_scratch<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Dataplane {
    let mut graph = graph();
    resources.into_iter().for_each(|r| graph.set(r));
    let mut dataplane = Dataplane::default();
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    dataplane
}

const CLUSTER: &str = include_str!("tests/cluster.yaml");

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

#[test]
fn any_order_of_the_same_resources_ends_in_the_same_state() {
    let mut all = resources(CLUSTER);
    let wanted = from_scratch(&all);
    assert_eq!((wanted.endpoints.len(), wanted.policies.len() > 3), (2, true));
    all.reverse();
    assert_eq!(from_scratch(&all), wanted);
    let mut random = Random(1);
    for _ in 0..50 {
        random.shuffle(&mut all);
        assert_eq!(from_scratch(&all), wanted);
    }
}

#[test]
fn resources_that_come_and_go_leave_what_a_start_from_scratch_gives() {
    let all = resources(CLUSTER);
    let mut random = Random(2);
    let mut graph = graph();
    let mut dataplane = Dataplane::default();
    let mut present: BTreeMap<Key, Resource> = BTreeMap::new();
    for _ in 0..3000 {
        let resource = &all[random.below(all.len())];
        if random.below(3) == 0 {
            graph.remove(&resource.key());
            present.remove(&resource.key());
        } else {
            graph.set(resource);
            present.insert(resource.key(), resource.clone());
        }
        if random.below(4) == 0 {
            graph.flush().into_iter().for_each(|event| dataplane.take(event));
            assert_eq!(dataplane, from_scratch(present.values()));
        }
    }
}

#[test]
fn nothing_new_means_no_event() {
    let all = resources(CLUSTER);
    let mut graph = graph();
    all.iter().for_each(|r| graph.set(r));
    graph.flush();
    all.iter().for_each(|r| graph.set(r));
    assert_eq!(graph.flush(), []);
}

#[test]
fn removing_everything_leaves_nothing() {
    let all = resources(CLUSTER);
    let mut graph = graph();
    let mut dataplane = Dataplane::default();
    all.iter().for_each(|r| graph.set(r));
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    all.iter().for_each(|r| graph.remove(&r.key()));
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    assert_eq!(dataplane, Dataplane::default());
}

#[test]
fn a_policy_in_a_missing_tier_is_enforced_last_and_reported() {
    let mut graph = graph();
    for resource in resources(CLUSTER) {
        graph.set(&resource);
    }
    let problems = graph.problems();
    let tier = problems.iter().find(|p| p.field == "spec.tier").expect("it is reported");
    assert_eq!(tier.object, "GlobalNetworkPolicy lost");
    let events = graph.flush();
    let web = events.iter().find_map(|e| match e {
        Event::Endpoint(e) if &*e.id == "shop/n1-k8s-web-eth0" => Some(e.clone()),
        _ => None,
    });
    let tiers: Vec<_> = web.expect("web is local").tiers.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(tiers, ["security", "default", "nowhere"]);
}

#[test]
fn a_document_overrides_the_pod_and_gives_way_again() {
    let all = resources(CLUSTER);
    let document = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-web-eth0, namespace: shop, labels: {app: other}}
spec: {node: n1, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali123, ipNetworks: [10.9.9.9/32]}
";
    let document = resources(document).remove(0);
    let mut graph = graph();
    all.iter().for_each(|r| graph.set(r));
    let mut dataplane = Dataplane::default();
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    graph.set(&document);
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    assert!(dataplane.endpoints.contains_key("cali123"));
    assert_eq!(dataplane.endpoints.len(), 2);
    graph.remove(&document.key());
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    assert_eq!(dataplane, from_scratch(&all));
}

#[test]
fn a_rule_with_an_http_match_allows_nothing() {
    let text = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: http}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, http: {methods: [GET]}}
";
    let mut all = resources(CLUSTER);
    all.extend(resources(text));
    let mut graph = graph();
    all.iter().for_each(|r| graph.set(r));
    let events = graph.flush();
    let rules = events.iter().find_map(|e| match e {
        Event::Policy(p) if &*p.key.name == "http" => Some(p.ingress.clone()),
        _ => None,
    });
    assert_eq!(rules, Some(Vec::new()));
    assert!(
        graph
            .problems()
            .iter()
            .any(|p| p.object == "GlobalNetworkPolicy http" && p.field == "spec.ingress[0]")
    );
}

fn members_of(events: &[Event], address: &str) -> usize {
    let address: IpNet = address.parse().unwrap();
    let holds =
        |e: &&Event| matches!(e, Event::SetAdded { members, .. } if members.contains(&Member::Net(address)));
    events.iter().filter(holds).count()
}

#[test]
fn labels_that_only_profiles_give_cannot_be_written_by_hand() {
    let forged = "
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata:
  name: evil
  namespace: evil
  labels: {pcns.kubernetes.io/metadata.name: other, projectcalico.org/orchestrator: k8s}
spec: {nets: [10.99.0.0/16]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: evil, namespace: evil, labels: {pcns.kubernetes.io/metadata.name: other, projectcalico.org/serviceaccount: x}}
spec: {node: n2, pod: evil, endpoint: eth0, interfaceName: cali9, ipNetworks: [10.98.0.1/32]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-other, namespace: shop}
spec:
  podSelector: {}
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}]
";
    let mut graph = graph();
    let named = CLUSTER.replace(
        "metadata: {name: other}",
        "metadata: {name: other, labels: {kubernetes.io/metadata.name: other}}",
    );
    resources(&named).iter().chain(&resources(forged)).for_each(|r| graph.set(r));
    let events = graph.flush();
    assert_eq!((members_of(&events, "10.99.0.0/16"), members_of(&events, "10.98.0.1/32")), (0, 0));
    assert!(members_of(&events, "10.65.1.4/32") > 0, "a pod of that namespace is a member");
}

const RIVALS: &str = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a, namespace: shop}
spec: {node: n1, orchestrator: k8s, pod: a, endpoint: eth0, interfaceName: cali77, ipNetworks: [10.9.0.1/32]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: b, namespace: shop}
spec: {node: n1, pod: b, endpoint: eth0, interfaceName: cali77, ipNetworks: [10.9.0.2/32]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: c, namespace: shop}
spec: {node: n1, pod: c, endpoint: eth0, interfaceName: tap0, ipNetworks: [10.9.0.3/32]}
";

#[test]
fn an_endpoint_that_names_no_orchestrator_wins_nothing_by_it() {
    let mut graph = graph();
    resources(RIVALS).iter().for_each(|r| graph.set(r));
    let endpoints: Vec<String> = graph
        .flush()
        .iter()
        .filter_map(|e| match e {
            Event::Endpoint(e) => Some(e.id.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(endpoints, ["shop/a"], "and none is put out whose interface no rule looks at");
    let problems: Vec<String> =
        graph.problems().into_iter().map(|p| format!("{}: {}", p.object, p.message)).collect();
    assert_eq!(
        problems,
        [
            "WorkloadEndpoint shop/b: \"cali77\" is claimed by shop/a as well, which is in force",
            "WorkloadEndpoint shop/c: \"tap0\" begins with none of cali; the endpoint is not connected",
        ]
    );
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    let mut graph = graph();
    resources(CLUSTER).iter().filter(|r| r.kind() != Kind::Namespace).for_each(|r| graph.set(r));
    graph.flush();
    let problem = graph.problems().into_iter().find(|p| p.object == "Profile kns.shop");
    assert!(problem.is_some_and(|p| p.message.contains("denies everything")));
}
