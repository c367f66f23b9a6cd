//! Random clusters: whatever comes in whatever order, the end is what a start from scratch gives.

use super::*;

/// Events of one cluster.
const EVENTS: usize = 1200;
/// Clusters.
const CLUSTERS: u64 = 4;
/// Multiplies the number of clusters.
const KNOB: &str = "TORTIE_GRAPH_CLUSTERS";

fn calico(kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n")
}

impl Random {
    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    fn is(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// Labels in flow style, without braces.
    fn labels(&mut self) -> String {
        let mut labels = Vec::new();
        for key in ["app", "tier", "odd/key"] {
            if self.is(2) {
                labels.push(format!("{key}: {}", self.of(&["web", "db", "x"])));
            }
        }
        labels.join(", ")
    }

    fn selector(&mut self) -> String {
        let one = |random: &mut Self| {
            let key = random.of(&["app", "tier", "odd/key", "pcns.team", "pcsa.team"]).to_owned();
            let value = random.of(&["web", "db", "x", "red"]).to_owned();
            match random.below(8) {
                0 => format!("has({key})"),
                1 => format!("!has({key})"),
                2 => format!("{key} != '{value}'"),
                3 => format!("{key} in {{'{value}', 'web'}}"),
                4 => format!("{key} not in {{'{value}'}}"),
                5 => format!("{key} starts with '{}'", &value[..1]),
                6 => "all()".to_owned(),
                _ => format!("{key} == '{value}'"),
            }
        };
        match self.below(4) {
            0 => format!("({} || {})", one(self), one(self)),
            1 => format!("{} && {}", one(self), one(self)),
            _ => one(self),
        }
    }

    fn net(&mut self) -> String {
        match self.below(6) {
            0 => "10.0.0.0/8".to_owned(),
            1 => format!("10.{}.0.0/16", self.below(3)),
            2 => format!("10.{}.{}.0/24", self.below(3), self.below(3)),
            3 => format!("fd00::{:x}/128", self.below(20)),
            4 => "fd00::/64".to_owned(),
            _ => format!("10.{}.{}.{}/32", self.below(3), self.below(3), self.below(3)),
        }
    }

    fn side(&mut self) -> String {
        match self.below(8) {
            0 => format!("{{nets: ['{}']}}", self.net()),
            1 => format!("{{namespaceSelector: \"{}\"}}", self.of(&["team == 'red'", "all()", "global()"])),
            2 => format!("{{notSelector: \"{}\"}}", self.selector()),
            3 => format!("{{services: {{name: {}, namespace: a}}}}", self.of(&["s0", "s1"])),
            4 => "{serviceAccounts: {names: [robot]}}".to_owned(),
            5 => format!("{{selector: \"{}\", ports: [http]}}", self.selector()),
            _ => format!("{{selector: \"{}\"}}", self.selector()),
        }
    }

    fn rule(&mut self, is_ingress: bool) -> String {
        let action = self.of(&["Allow", "Deny", "Pass", "Log"]);
        let side = self.side();
        // A service is at the far end.
        let place = match (side.contains("services"), is_ingress) {
            (false, _) => self.of(&["source", "destination"]),
            (true, true) => "source",
            (true, false) => "destination",
        };
        let protocol = if side.contains("ports") { "TCP" } else { self.of(&["TCP", "UDP"]) };
        format!("{{action: {action}, protocol: {protocol}, {place}: {side}}}")
    }

    fn rules(&mut self, are_ingress: bool) -> String {
        let count = self.below(3);
        (0..count).map(|_| self.rule(are_ingress)).collect::<Vec<_>>().join(", ")
    }

    fn order(&mut self) -> String {
        if self.is(3) { String::new() } else { format!("order: {}, ", self.below(3)) }
    }

    fn manifest(&mut self) -> String {
        let number = self.below(6);
        let namespace = self.of(&["a", "b"]);
        match self.below(16) {
            0..=3 => self.pod(number, namespace),
            4 => self.document(number, namespace),
            5..=7 => self.profile(namespace),
            8..=10 => self.addresses(number, namespace),
            11 => {
                let metadata = format!(
                    "{{name: slice{}, namespace: a, labels: {{kubernetes.io/service-name: {}}}}}",
                    self.below(3),
                    self.of(&["s0", "s1"])
                );
                format!(
                    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {metadata}\naddressType: IPv4\n\
                     endpoints: [{{addresses: [10.1.1.{number}]}}]\nports: [{{port: 80, protocol: TCP}}]\n"
                )
            }
            12 => calico("Tier", "name: early", &format!("{}defaultAction: Pass", self.order())),
            _ => self.policy(number, namespace),
        }
    }

    /// What gives labels to endpoints.
    fn profile(&mut self, namespace: &str) -> String {
        match self.below(3) {
            0 => {
                let labels = self.of(&["", "team: red", "team: blue, app: web"]);
                format!(
                    "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{{labels}}}}}\n"
                )
            }
            1 => {
                let labels = self.of(&["", "team: red"]);
                let metadata = format!("{{name: robot, namespace: {namespace}, labels: {{{labels}}}}}");
                format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {metadata}\n")
            }
            _ => {
                let name = self.of(&["name: kns.a", "name: extra"]);
                let labels = self.of(&["pcns.team: red", "app: db", ""]);
                let rules = self.of(&["", "{action: Allow}"]);
                calico("Profile", name, &format!("labelsToApply: {{{labels}}}, ingress: [{rules}]"))
            }
        }
    }

    /// What has addresses and is no workload.
    fn addresses(&mut self, number: usize, namespace: &str) -> String {
        let labels = format!("labels: {{{}}}", self.labels());
        match self.below(3) {
            0 => {
                let nets = format!("nets: ['{}', '{}']", self.net(), self.net());
                calico("NetworkSet", &format!("name: set{number}, namespace: {namespace}, {labels}"), &nets)
            }
            1 => {
                let nets = format!("nets: ['{}']", self.net());
                calico("GlobalNetworkSet", &format!("name: set{number}, {labels}"), &nets)
            }
            _ => {
                let node = self.of(&["n1", "n2"]);
                let spec = format!("node: {node}, interfaceName: eth0, expectedIPs: [10.0.2.{number}]");
                calico("HostEndpoint", &format!("name: host{number}, {labels}"), &spec)
            }
        }
    }

    fn policy(&mut self, number: usize, namespace: &str) -> String {
        let selector = self.selector();
        let order = self.order();
        match self.below(3) {
            0 => {
                let (ingress, egress) = (self.rules(true), self.rules(false));
                let types = "types: [Ingress, Egress]";
                let spec = format!(
                    "{order}selector: \"{selector}\", {types}, ingress: [{ingress}], egress: [{egress}]"
                );
                calico("NetworkPolicy", &format!("name: p{number}, namespace: {namespace}"), &spec)
            }
            1 => {
                let tier = if number < 3 { "default" } else { "early" };
                let rules = self.rules(true);
                let spec = format!(
                    "tier: {tier}, {order}selector: \"{selector}\", types: [Ingress], ingress: [{rules}]"
                );
                calico("GlobalNetworkPolicy", &format!("name: {tier}.p{number}"), &spec)
            }
            _ => {
                let labels = self.of(&["", "app: web", "tier: db"]);
                let from = "[{from: [{namespaceSelector: {}}], ports: [{port: http, protocol: TCP}]}]";
                format!(
                    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                     metadata: {{name: k{number}, namespace: {namespace}}}\n\
                     spec: {{podSelector: {{matchLabels: {{{labels}}}}}, ingress: {from}}}\n"
                )
            }
        }
    }

    fn pod(&mut self, number: usize, namespace: &str) -> String {
        let node = self.of(&["n1", "n2"]);
        let phase = if self.is(6) { "Succeeded" } else { "Running" };
        let account = self.of(&["robot", "default"]);
        let ports = self.of(&["", "{name: http, containerPort: 80}", "{name: http, containerPort: 8080}"]);
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod{number}, namespace: {namespace}, labels: {{{}}}}}\nspec: {{nodeName: {node}, serviceAccountName: {account}, containers: [{{name: c, image: i, ports: [{ports}]}}]}}\nstatus: {{phase: {phase}, podIP: 10.0.1.{n}, podIPs: [{{ip: 10.0.1.{n}}}, {{ip: 'fd00::{n}'}}]}}\n",
            self.labels(),
            n = self.below(8)
        )
    }

    /// Some have a pod's name, some another's interface, some no address.
    fn document(&mut self, number: usize, namespace: &str) -> String {
        let node = self.of(&["n1", "n2"]);
        let addresses = if self.is(4) { String::new() } else { format!("10.2.2.{number}/32") };
        let interface = self.of(&["cali1", "cali2", "tap0"]);
        format!(
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: {node}-k8s-pod{number}-eth0, namespace: {namespace}, labels: {{{}}}}}\nspec: {{node: {node}, orchestrator: k8s, pod: pod{number}, endpoint: eth0, interfaceName: {interface}, ipNetworks: [{addresses}], profiles: [kns.{namespace}, extra]}}\n",
            self.labels()
        )
    }
}

/// What a dataplane holds, what is reported, and how many things of each kind are kept.
fn end_of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> (Dataplane, Vec<Problem>) {
    let mut graph = graph();
    resources.into_iter().for_each(|r| graph.set(r));
    let mut dataplane = Dataplane::default();
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    (dataplane, graph.problems())
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let (mut graph, mut dataplane) = (graph(), Dataplane::default());
    let mut present: BTreeMap<Key, Resource> = BTreeMap::new();
    for event in 0..EVENTS {
        if random.is(4) && !present.is_empty() {
            let key = present.keys().nth(random.below(present.len())).unwrap().clone();
            graph.remove(&key);
            present.remove(&key);
        } else {
            let resource = resources(&random.manifest()).remove(0);
            graph.set(&resource);
            if random.is(5) {
                graph.set(&resource);
            }
            present.insert(resource.key(), resource);
        }
        if random.is(6) {
            graph.flush().into_iter().for_each(|event| dataplane.take(event));
            let wanted = end_of(present.values());
            assert_eq!(dataplane, wanted.0, "seed {seed}, event {event}");
            assert_eq!(graph.problems(), wanted.1, "seed {seed}, event {event}");
        }
    }
    let wanted = end_of(present.values());
    let mut all: Vec<Resource> = present.values().cloned().collect();
    for _ in 0..10 {
        random.shuffle(&mut all);
        assert_eq!(end_of(&all), wanted, "seed {seed}");
    }
    for key in present.keys() {
        graph.remove(key);
    }
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    assert_eq!(dataplane, Dataplane::default(), "seed {seed}");
    assert_eq!(graph.sizes(), super::graph().sizes(), "seed {seed}: nothing is kept");
}

#[test]
fn random_clusters_end_as_a_start_from_scratch_does_whatever_the_order() {
    let more: u64 = std::env::var(KNOB).ok().map_or(1, |text| text.parse().expect("the knob is a number"));
    for seed in 1..=CLUSTERS * more {
        run(seed);
    }
}

/// Pods, namespaces and policies whose names and labels never come again.
fn guests(round: usize) -> Vec<Resource> {
    let text = format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: ns{round}, labels: {{team{round}: t{round}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: p{round}, namespace: ns{round}, labels: {{job{round}: j{round}, pod-hash: h{round}, app: web}}}}
spec: {{nodeName: n1, containers: [{{name: c, image: i, ports: [{{name: http{round}, containerPort: 80}}]}}]}}
status: {{phase: Running, podIP: 10.0.1.1, podIPs: [{{ip: 10.0.1.1}}]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: set{round}, labels: {{set{round}: v{round}}}}}
spec: {{nets: [10.1.0.0/16]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: policy{round}}}
spec: {{selector: \"has(job{round})\", ingress: [{{action: Allow, source: {{selector: \"asked{round} == 'v' || set{round} == 'v{round}'\"}}}}]}}
"
    );
    resources(&text)
}

#[test]
fn names_and_labels_that_come_and_go_leave_nothing_behind() {
    let mut graph = graph();
    resources(CLUSTER).iter().for_each(|r| graph.set(r));
    graph.flush();
    let before = graph.sizes();
    for round in 0..200 {
        let guests = guests(round);
        guests.iter().for_each(|r| graph.set(r));
        assert!(!graph.flush().is_empty());
        assert!(
            graph.sizes().iter().zip(&before).all(|(now, then)| now > then),
            "guests are kept while there"
        );
        guests.iter().for_each(|r| graph.remove(&r.key()));
        graph.flush();
        assert_eq!(graph.sizes(), before, "round {round}");
    }
}
