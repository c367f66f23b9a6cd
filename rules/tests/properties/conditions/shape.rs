//! What can be seen of tables without a packet: what stands in them, and in what order it is told. See the parent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use tortie_api::net::{IpVersion, PortRange, Protocol};
use tortie_api::policy::{Action as PolicyAction, DefaultAction};
use tortie_api::resource::Resource;
use tortie_rules::compile::Change;
use tortie_rules::compile::classic::TableContent;
use tortie_rules::compile::config::Config;
use tortie_rules::compile::fast::Fast;
use tortie_rules::graph::model::{
    Event, LocalEndpoint, PolicyKey, PolicyKind, PolicyRef, PolicyRules, RuleSpec, SideSpec, TierPolicies,
};
use tortie_rules::random::{Dice, Landmarks, Probes, cluster, resources};
use tortie_rules::render::Table;
use tortie_rules::ruleset::{Action, Chain, Key, KeyField, Map, Match, Verdict};

use super::{SETS, events, policy, shuffled};
use crate::corners::corner;
use crate::scene::{Compiler, Scene, Variant};
use crate::updates::change;

/// Protocols whose headers begin with ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// The filter tables of a cluster in tables.
fn filters(manifests: &[Value], variant: &Variant) -> Vec<TableContent> {
    let mut fast = Fast::new(variant.config.clone());
    events(manifests, variant).iter().for_each(|event| fast.handle(event));
    let all = IpVersion::BOTH.into_iter().flat_map(|version| fast.tables(version));
    all.filter(|content| content.table == Table::Filter).collect()
}

/// Chains that stand for policy as tables.
fn tabled(content: &TableContent) -> impl Iterator<Item = &Chain> {
    let is_block =
        |chain: &&Chain| chain.rules.iter().any(|r| matches!(r.action, Some(Action::Lookup { .. })));
    content
        .chains
        .iter()
        .filter(move |c| c.name.starts_with("cali-row-") || (c.name.starts_with("cali-pl-") && is_block(c)))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Addresses, protocols and ports, first and last of each.
type Cell = [(u128, u128); 3];
const ANY: (u128, u128) = (0, u128::MAX);

/// What a key holds, and what is asked at the same time as it: ports, single addresses, or networks.
fn cell_of_key(key: &Key, protocol: (u128, u128)) -> Option<(u8, Cell)> {
    let one = |number: u16| (u128::from(number), u128::from(number));
    Some(match key {
        Key::AddressProtocolPort(address, protocol, port) => {
            (0, [(bits(*address), bits(*address)), one(u16::from(*protocol)), one(*port)])
        }
        Key::ProtocolPort(protocol, port) => (0, [ANY, one(u16::from(*protocol)), one(*port)]),
        Key::PortRange(ports) => (0, [ANY, protocol, (ports.first().into(), ports.last().into())]),
        Key::Address(address) => (1, [(bits(*address), bits(*address)), ANY, ANY]),
        Key::AddressRange(first, last) => (2, [(bits(*first), bits(*last)), ANY, ANY]),
        Key::Interface(_) => return None,
    })
}

fn cells(chain: &Chain, maps: &BTreeMap<&str, &Map>) -> Vec<(u8, Cell)> {
    let mut cells = Vec::new();
    for rule in &chain.rules {
        let (mut cell, mut stage) = ([ANY, ANY, ANY], None);
        for part in &rule.matches {
            match part {
                Match::Net { net, negate: false, .. } => {
                    (cell[0], stage) = ((bits(net.network()), bits(net.broadcast())), Some(2));
                }
                Match::Protocol { protocol, negate: false } => {
                    let number = u128::from(protocol.number());
                    (cell[1], stage) = ((number, number), stage.or(Some(3)));
                }
                Match::Ports { ports, negate: false, .. } => {
                    let [range] = ports[..] else { panic!("one range: {rule:?}") };
                    (cell[2], stage) = ((range.first().into(), range.last().into()), Some(0));
                }
                other => panic!("{other:?} in {}", chain.name),
            }
        }
        if let Some(Action::Lookup { map, .. }) = &rule.action {
            cells.extend(maps[map.as_str()].elements.keys().filter_map(|key| cell_of_key(key, cell[1])));
        } else {
            cells.extend(stage.map(|stage| (stage, cell)));
        }
    }
    cells
}

/// Conditions that make maps of all kinds.
const OF_SETS: [&str; 6] = [
    "protocol: TCP, source: {selector: \"set == 'a'\"}, destination: {ports: [80, \"85:120\"]}",
    "protocol: TCP, source: {selector: \"set == 'b'\"}, destination: {ports: [\"80:90\", \"1000:1099\", \"2000:2099\", \"3000:3099\", \"4000:4099\", \"5000:5099\"]}",
    "protocol: UDP, source: {nets: [10.0.0.0/30]}, destination: {ports: [53]}",
    "source: {selector: \"set == 'a'\", notSelector: \"set == 'b'\"}, notProtocol: TCP",
    "protocol: TCP, destination: {ports: [\"1024:65535\"]}",
    "source: {notSelector: \"set in {'a', 'b'}\"}",
];

/// Returns how many there are.
fn disjoint_cells(content: &TableContent) -> usize {
    let maps = content.maps.iter().map(|map| (map.name.as_str(), map)).collect();
    let count = tabled(content).map(|chain| {
        let mut cells = cells(chain, &maps);
        cells.sort_unstable();
        for (at, (stage, cell)) in cells.iter().enumerate() {
            // In order of addresses: what begins behind the end of this one, and all that follow, are apart.
            let near = cells[at + 1..].iter().take_while(|(of, c)| of == stage && c[0].0 <= cell[0].1);
            for (_, other) in near {
                let meet = |(a, b): (&(u128, u128), &(u128, u128))| a.0 <= b.1 && b.0 <= a.1;
                assert!(!cell.iter().zip(other).all(meet), "{cell:?} {other:?} {chain:?}");
            }
        }
        cells.len()
    });
    count.sum()
}

#[test]
fn cells_and_elements_are_disjoint() {
    let variant = |seed| Variant::number(seed, Compiler::Fast);
    let mut count = 0;
    for seed in 0..40 {
        count += filters(&cluster(seed), &variant(seed)).iter().map(disjoint_cells).sum::<usize>();
    }
    let mut dice = Dice::new(3);
    for seed in 0..40 {
        let manifests =
            corner(&format!("{SETS}\n---\n{}", policy("p", "default", &shuffled(&mut dice, &OF_SETS))));
        count += filters(&manifests, &variant(seed)).iter().map(disjoint_cells).sum::<usize>();
    }
    assert!(count > 1000, "{count}");
}

#[test]
fn tables_tell_of_flows_what_rules_tell() {
    let mut told = BTreeMap::new();
    for seed in 0..60 {
        let manifests = cluster(seed);
        let [classic, fast] = Compiler::ALL.map(|compiler| {
            let mut variant = Variant::number(seed, compiler);
            variant.config.flow_logs = true;
            Scene::new(&manifests, &variant).expect("valid rules")
        });
        let mut probes = Probes::new(seed, &classic.policy, Landmarks::of(&manifests));
        for number in 0..60 {
            let version = if number % 2 == 0 { IpVersion::V4 } else { IpVersion::V6 };
            let Some(probe) = probes.probe(version) else { break };
            let [expected, heard] = [&classic, &fast].map(|scene| {
                let (_, steps) = scene.machine(&probe.packet).trace(&probe.packet);
                let prefixes = steps.into_iter().filter_map(|step| match step.action {
                    Some(Action::Nflog { group, prefix }) => Some((group, prefix)),
                    _ => None,
                });
                prefixes.collect::<Vec<_>>()
            });
            assert_eq!(heard, expected, "{}", fast.describe(&manifests, &probe));
            for (_, prefix) in heard {
                *told.entry(prefix[..2].to_owned()).or_insert(0) += 1;
            }
        }
        let mut variant = Variant::number(seed, Compiler::Fast);
        variant.config.flow_logs = false;
        for content in filters(&manifests, &variant) {
            assert!(!content.chains.iter().any(|chain| chain.name.starts_with("cali-r-")), "seed {seed}");
        }
    }
    for kind in ["AP", "DP", "PP", "AR", "DR"] {
        assert!(told.get(kind).is_some_and(|count| *count > 20), "{kind}: {told:?}");
    }
}

fn spec(action: PolicyAction, protocol: Option<Protocol>, port: u16) -> RuleSpec {
    let ports = vec![PortRange::single(port)];
    RuleSpec {
        action,
        version: None,
        protocol,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: SideSpec::default(),
        destination: SideSpec { ports, ..SideSpec::default() },
        annotations: Vec::new(),
    }
}

/// An endpoint, and a policy with these rules for what comes to it.
fn endpoint(ingress: Vec<RuleSpec>) -> [Event; 2] {
    let key = PolicyKey { kind: PolicyKind::GlobalNetworkPolicy, namespace: "".into(), name: "p".into() };
    let (tier, egress) = (Arc::from("default"), Vec::new());
    let rules = PolicyRules { key: key.clone(), tier, ingress, egress, everywhere: false, staged: false };
    let tier = TierPolicies {
        name: "default".into(),
        default_action: DefaultAction::Deny,
        ingress: vec![PolicyRef { key, selector: "all()".into(), staged: false }],
        egress: Vec::new(),
    };
    let endpoint = LocalEndpoint {
        id: "cali1".into(),
        interface: "cali1".into(),
        mac: None,
        addresses: Vec::new(),
        profiles: Vec::new(),
        tiers: Arc::from([tier]),
        qos: tortie_api::qos::Qos::default(),
        spoofed_sources: Box::default(),
        nats: Box::default(),
        is_openstack: false,
    };
    [Event::Policy(Arc::new(rules)), Event::Endpoint(Arc::new(endpoint))]
}

/// Whatever comes in: in other protocols something else stands where these have the port.
#[test]
fn ports_stand_beside_protocols_that_have_them() {
    for number in 0..=u8::MAX {
        let mut fast = Fast::new(Config { versions: vec![IpVersion::V4], ..Config::default() });
        let protocol = (number > 0).then_some(Protocol::Number(number));
        let rules = (1..9).map(|n| spec(PolicyAction::Allow, protocol, 10 * n)).collect();
        endpoint(rules).iter().for_each(|event| fast.handle(event));
        let tables = fast.tables(IpVersion::V4);
        let content = tables.iter().find(|content| content.table == Table::Filter).expect("a table");
        for map in &content.maps {
            let protocols = map.elements.keys().filter_map(|key| match key {
                Key::ProtocolPort(protocol, _) | Key::AddressProtocolPort(_, protocol, _) => Some(*protocol),
                _ => None,
            });
            assert!(protocols.into_iter().all(|p| WITH_PORTS.contains(&p)), "{number}: {map:?}");
        }
        for rule in tabled(content).flat_map(|chain| &chain.rules) {
            let protocol = rule.matches.iter().find_map(|part| match part {
                Match::Protocol { protocol, negate: false } => Some(protocol.number()),
                _ => None,
            });
            let asks = rule.matches.iter().any(|part| matches!(part, Match::Ports { .. }))
                || matches!(&rule.action, Some(Action::Lookup { key, .. }) if key[..] == [KeyField::DestinationPort]);
            assert!(!asks || protocol.is_some_and(|p| WITH_PORTS.contains(&p)), "{number}: {rule:?}");
        }
    }
}

#[test]
fn all_tables_end_in_a_rule_for_everybody_and_dispatch_in_a_denial() {
    for seed in 0..30 {
        let variant = Variant::number(seed, Compiler::Fast);
        for content in filters(&cluster(seed), &variant) {
            let dispatch = content.chains.iter().filter(|chain| chain.name.ends_with("-wl-dispatch"));
            for chain in dispatch.clone() {
                let last = chain.rules.last().expect("a rule");
                let denies = matches!(last.action, Some(Action::Drop | Action::Reject));
                assert!(last.matches.is_empty() && denies, "seed {seed}: {chain:?}");
            }
            assert_eq!(dispatch.count(), 2, "seed {seed}");
            for chain in tabled(&content) {
                let last = chain.rules.last().expect("a rule");
                let ends = matches!(last.action, Some(Action::Drop | Action::Return | Action::Goto(_)));
                assert!(last.matches.is_empty() && ends, "seed {seed}: {chain:?}");
            }
        }
    }
}

/// What refers to what, in a table as it is told piece by piece.
#[derive(Default)]
struct References {
    chains: BTreeMap<String, BTreeSet<String>>,
    maps: BTreeMap<String, BTreeMap<Key, Verdict>>,
    hooks: BTreeSet<String>,
}

impl References {
    /// Takes a change; maps come before the chains that they lead to, which are made empty with them.
    fn apply(&mut self, change: Change) {
        match change {
            Change::Map(map) => _ = self.maps.insert(map.name, map.elements),
            Change::Chain(chain) => {
                let actions = chain.rules.iter().filter_map(|rule| rule.action.as_ref());
                let to = actions.clone().filter_map(Action::target).map(str::to_owned);
                for map in
                    actions.filter_map(|a| if let Action::Lookup { map, .. } = a { Some(map) } else { None })
                {
                    assert!(self.maps.contains_key(map), "{} looks into {map}", chain.name);
                }
                let looks = chain.rules.iter().filter_map(|rule| match &rule.action {
                    Some(Action::Lookup { map, .. }) => Some(format!("map {map}")),
                    _ => None,
                });
                self.chains.insert(chain.name, to.chain(looks).collect());
            }
            Change::Elements { map, removed, added } => {
                let elements = self.maps.get_mut(&map).expect("a map that is there");
                removed.iter().for_each(|key| _ = elements.remove(key));
                for (key, verdict) in added {
                    let target = verdict.target();
                    assert!(
                        target.is_none_or(|to| self.chains.contains_key(&**to)),
                        "{map} {key:?} {target:?}"
                    );
                    elements.insert(key, verdict);
                }
            }
            Change::Hooks(hooks) => {
                let rules = hooks.iter().flat_map(|hook| hook.inserted.iter().chain(&hook.appended));
                let to = rules.filter_map(|rule| rule.action.as_ref()?.target());
                self.hooks = to.map(str::to_owned).collect();
                assert!(self.hooks.iter().all(|name| self.chains.contains_key(name)), "{:?}", self.hooks);
            }
            Change::NoChain(name) => {
                self.chains.remove(&name);
                // What goes together goes in any order: nothing that stays may refer to it, which `settled` sees.
            }
            Change::NoMap(name) => _ = self.maps.remove(&name),
        }
    }

    /// Everything that something leads to is there.
    fn settled(&self) {
        let of_maps =
            self.maps.values().flat_map(BTreeMap::values).filter_map(Verdict::target).map(|to| &**to);
        let of_chains = self.chains.values().flatten().map(String::as_str);
        for name in of_maps.chain(of_chains).chain(self.hooks.iter().map(String::as_str)) {
            let is_there = name
                .strip_prefix("map ")
                .map_or_else(|| self.chains.contains_key(name), |map| self.maps.contains_key(map));
            assert!(is_there, "{name} is not there");
        }
    }
}

#[test]
fn nothing_is_told_before_what_it_refers_to_nor_goes_before_what_refers_to_it() {
    let is_removal = |change: &Change| matches!(change, Change::NoChain(_) | Change::NoMap(_));
    for seed in 0..40 {
        let manifests: Vec<Value> = (0..2).flat_map(|n| cluster(2 * seed + n)).collect();
        let pool: Vec<Resource> = resources(&manifests).expect("valid objects");
        let variant = Variant::number(seed, Compiler::Fast);
        let (mut graph, mut fast) = (variant.graph(), Fast::new(variant.config.clone()));
        let mut present = BTreeMap::new();
        let mut tables: BTreeMap<(IpVersion, Table), References> = BTreeMap::new();
        let mut dice = Dice::new(seed);
        for _ in 0..12 {
            let before = present.clone();
            change(&mut dice, &mut present, &pool);
            before.keys().filter(|key| !present.contains_key(*key)).for_each(|key| graph.remove(key));
            present.values().for_each(|resource| graph.set(resource));
            graph.flush().iter().for_each(|event| fast.handle(event));
            let changes = fast.poll().tables;
            for of_table in changes.chunk_by(|a, b| (a.version, a.table) == (b.version, b.table)) {
                let removals = of_table.iter().skip_while(|update| !is_removal(&update.change));
                assert!(removals.clone().all(|update| is_removal(&update.change)), "seed {seed}");
                let table = tables.entry((of_table[0].version, of_table[0].table)).or_default();
                of_table.iter().for_each(|update| table.apply(update.change.clone()));
                table.settled();
            }
        }
    }
}
