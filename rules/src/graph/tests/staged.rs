//! Staged policies: listed and grouped, never programmed. The wanted ids are those of a live Felix v3.32.0.

use tortie_api::net::Protocol;

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

fn staged(selector: &str, order: Option<f64>, egress: bool) -> Policy {
    let deny: Arc<[Rule]> =
        [Rule { protocol: Some(Protocol::Udp), ..Rule::new(policy::Action::Deny) }].into();
    Policy {
        tier: policy::DEFAULT_TIER.into(),
        order,
        selector: Selector::parse(selector).expect("a selector"),
        ingress: Some(deny.clone()),
        egress: egress.then_some(deny),
        flavour: Flavour::Normal,
        everywhere: false,
        staged: true,
        notes: Vec::new(),
    }
}

fn set_staged(graph: &mut Graph) {
    let key = |kind, namespace: &str, name: &str| PolicyKey {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    };
    let planned = key(PolicyKind::StagedGlobalNetworkPolicy, "", "planned");
    graph.policies.set_policy(&planned, staged("app == 'web'", Some(10.0), false), &mut graph.sets);
    let planned = key(PolicyKind::StagedNetworkPolicy, "prod", "planned-ns");
    let selector = "app == 'db' && projectcalico.org/namespace == 'prod'";
    graph.policies.set_policy(&planned, staged(selector, None, true), &mut graph.sets);
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
    graph.policies.remove_policy(&key, &mut graph.sets);
    graph.flush().into_iter().for_each(|event| dataplane.take(event));
    assert_eq!(dataplane.endpoints["cali5d5d5d5d5d5"].tiers, []);
}
