//! States of a cluster, written by hand, and every way from one to another.

use super::*;

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
";
const MOVED_NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: blue}}
";
const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
status: {phase: Running, podIP: 10.0.1.1, podIPs: [{ip: 10.0.1.1}]}
";
const WEB_ELSEWHERE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n2, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.0.2.1, podIPs: [{ip: 10.0.2.1}]}
";
const DB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.0.1.2, podIPs: [{ip: 10.0.1.2}]}
";
const DOCUMENT: &str = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-web-eth0, namespace: shop, labels: {app: db}}
spec: {node: n1, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali123, ipNetworks: [10.9.9.9/32]}
";
const EMPTY_DOCUMENT: &str = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-web-eth0, namespace: shop}
spec: {node: n1, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali123}
";
const LET_IN: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: let-in}
spec:
  selector: app == 'db'
  ingress:
  - {action: Allow, source: {selector: app == 'web'}}
  - {action: Allow, protocol: TCP, source: {namespaceSelector: team == 'red'}, destination: {ports: [http]}}
";
const KEEP_OUT: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: let-in}
spec: {tier: early, order: 1, selector: all(), types: [Ingress, Egress], ingress: [{action: Deny, source: {selector: bad == 'yes'}}]}
";
const TIER: &str = "
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: early}
spec: {order: 5}
";
const WIDE: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bad, labels: {bad: 'yes'}}
spec: {nets: [10.0.0.0/8]}
";
const NARROW: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bad, labels: {bad: 'yes'}}
spec: {nets: [10.0.1.1/32, 10.0.1.0/24, 192.168.0.0/16]}
";

/// From nothing to much and back, by small steps and by large ones.
fn states() -> Vec<Vec<Resource>> {
    let states: [&[&str]; 12] = [
        &[],
        &[WEB],
        &[NAMESPACE, WEB],
        &[NAMESPACE, WEB, DB, LET_IN],
        &[MOVED_NAMESPACE, WEB, DB, LET_IN],
        &[MOVED_NAMESPACE, WEB, DB, LET_IN, DOCUMENT],
        &[MOVED_NAMESPACE, DB, LET_IN, DOCUMENT],
        &[NAMESPACE, WEB, DB, LET_IN, EMPTY_DOCUMENT],
        &[NAMESPACE, WEB, DB, KEEP_OUT, WIDE],
        &[NAMESPACE, WEB, DB, KEEP_OUT, TIER, NARROW],
        &[NAMESPACE, WEB_ELSEWHERE, DB, KEEP_OUT, TIER, WIDE],
        &[WEB_ELSEWHERE, LET_IN],
    ];
    states.iter().map(|state| state.iter().flat_map(|text| resources(text)).collect()).collect()
}

/// Goes from state to state; each step is taken in a random order, and may be torn in two by a flush.
fn walk(path: &[&Vec<Resource>], random: &mut Random) {
    let (mut graph, mut dataplane) = (graph(), Dataplane::default());
    let mut present: Vec<Key> = Vec::new();
    for state in path {
        let keys: Vec<Key> = state.iter().map(Resource::key).collect();
        let gone = present.iter().filter(|key| !keys.contains(key)).map(|key| (key.clone(), None));
        let mut steps: Vec<(Key, Option<&Resource>)> =
            gone.chain(state.iter().map(|resource| (resource.key(), Some(resource)))).collect();
        random.shuffle(&mut steps);
        for (key, resource) in steps {
            match resource {
                Some(resource) => graph.set(resource),
                None => graph.remove(&key),
            }
            if random.below(4) == 0 {
                graph.flush().into_iter().for_each(|event| dataplane.take(event));
            }
        }
        graph.flush().into_iter().for_each(|event| dataplane.take(event));
        assert_eq!(dataplane, from_scratch(*state));
        assert_eq!(graph.flush(), [], "a second flush has nothing to say");
        present = keys;
    }
}

#[test]
fn states_are_reached_forwards_and_backwards() {
    let states = states();
    let mut random = Random(7);
    for _ in 0..10 {
        let mut path: Vec<_> = states.iter().collect();
        walk(&path, &mut random);
        path.reverse();
        walk(&path, &mut random);
    }
}

#[test]
fn every_state_is_reached_from_every_other() {
    let states = states();
    let mut random = Random(8);
    for from in &states {
        for to in &states {
            walk(&[from, to, from], &mut random);
        }
    }
}

#[test]
fn states_are_reached_in_any_order() {
    let states = states();
    let mut random = Random(9);
    for _ in 0..50 {
        let mut path: Vec<_> = states.iter().collect();
        random.shuffle(&mut path);
        walk(&path, &mut random);
    }
}
