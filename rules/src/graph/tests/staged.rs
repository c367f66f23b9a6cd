//! Staged policies: listed and grouped, never programmed. The wanted ids are those of a live Felix v3.32.0.

use super::*;
use crate::compile::Config;
use crate::compile::classic::Classic;
use crate::render::TableChange;
use crate::render::iptables::Features;

const WORKLOADS: &str = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web, namespace: prod, labels: {app: web}}
spec:
  {node: n1, orchestrator: k8s, pod: web, endpoint: eth0, interfaceName: cali0a1b2c3d4e5, ipNetworks: [10.65.0.2/32],
   profiles: [kns.prod, ksa.prod.default]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: db, namespace: prod, labels: {app: db}}
spec:
  {node: n1, orchestrator: k8s, pod: db, endpoint: eth0, interfaceName: cali5d5d5d5d5d5, ipNetworks: [10.65.0.3/32],
   profiles: [kns.prod, ksa.prod.default]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: real}
spec:
  selector: app == 'web'
  order: 20
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]
";

const STAGED: &str = "
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: planned}
spec: {order: 10, selector: app == 'web', types: [Ingress], ingress: [{action: Deny, protocol: UDP}]}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: planned-ns, namespace: prod}
spec:
  selector: app == 'db'
  types: [Ingress, Egress]
  ingress: [{action: Deny, protocol: UDP}]
  egress: [{action: Deny, protocol: UDP}]
";

fn set_staged(graph: &mut Graph) {
    resources(STAGED).iter().for_each(|r| graph.set(r));
}

fn chains(events: &[Event]) -> BTreeMap<String, Vec<String>> {
    let mut classic = Classic::new(Config::default(), Features::default());
    events.iter().for_each(|event| classic.handle(event));
    let chain = |change| match change {
        TableChange::Chain(chain) => {
            Some((chain.name.clone(), chain.rules.iter().map(|r| r.id.to_string()).collect()))
        }
        _ => None,
    };
    classic.poll_tables().into_iter().filter_map(|update| chain(update.change)).collect()
}

#[test]
fn staged_policies_open_a_tier_and_do_nothing_in_it() {
    let mut graph = graph();
    resources(WORKLOADS).iter().for_each(|r| graph.set(r));
    set_staged(&mut graph);
    let chains = chains(&graph.flush());
    assert!(chains.keys().all(|name| !name.contains("snp/") && !name.contains("sgnp/")), "{chains:?}");
    // The tier begins, is not ended by a drop, and the profiles follow.
    assert_eq!(
        chains["cali-fw-cali5d5d5d5d5d5"][5..8],
        ["V1xa8L4Owd0xarWF", "THZ8OnlLgdfXK_tH", "VPCm8DirFBkArLzT"]
    );
    // One policy of the group decides: no chain for the group, and an end of the tier.
    assert_eq!(
        chains["cali-tw-cali0a1b2c3d4e5"][3..8],
        ["mo_tjvulubpMs8T1", "kQKz63XleXldIRvV", "_4BuUwIUQB__7STN", "6l8LqSYkV4UlVBXy", "7DUlwe68wZp25a0k"]
    );
}

#[test]
fn staged_policies_come_with_their_rules_and_go() {
    let mut graph = graph();
    resources(WORKLOADS).iter().for_each(|r| graph.set(r));
    set_staged(&mut graph);
    let mut dataplane = Dataplane::default();
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    let names: Vec<String> = dataplane.policies.values().filter(|p| p.staged).map(|p| p.key.id()).collect();
    assert_eq!(names, ["snp/prod/planned-ns", "sgnp/planned"]);
    let db = &dataplane.endpoints["cali5d5d5d5d5d5"];
    assert!(db.tiers[0].egress[0].staged);
    let key = db.tiers[0].egress[0].key.clone();
    graph.remove(&key.resource_key());
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    assert_eq!(*dataplane.endpoints["cali5d5d5d5d5d5"].tiers, []);
}

#[test]
fn of_staged_policies_only_those_to_be_set_are_listed() {
    let staged = |action: &str| {
        let text = "
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: planned, namespace: prod}
spec: {podSelector: {}, stagedAction: ACTION}
";
        resources(&text.replace("ACTION", action)).remove(0)
    };
    let mut graph = graph();
    resources(WORKLOADS).iter().for_each(|r| graph.set(r));
    let mut dataplane = Dataplane::default();
    for action in ["Learn", "Set", "Ignore", "Set", "Delete"] {
        graph.set(&staged(action));
        graph.flush().into_iter().for_each(|event| dataplane.take(event));
        let listed = dataplane.policies.keys().any(|key| key.id() == "sknp/prod/planned");
        assert_eq!(listed, action == "Set", "{action}");
    }
}
