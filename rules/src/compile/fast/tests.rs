//! The shape of what is made, what a change costs, and inputs that want too much.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;
use tortie_api::net::{PortRange, Protocol};
use tortie_api::policy::DefaultAction;
use tortie_api::qos::{PacketRate, Qos};

use super::*;
use crate::eval::ruleset::{ConnectionState, Fate, Machine, Packet, Sets};
use crate::graph::model::{Member, PolicyKind, PolicyRef, RuleSpec, SetId, SetKind, SideSpec, TierPolicies};
use crate::ruleset::{Action as RuleAction, Chain, Key, MapType, Match, Verdict};

const V4: IpVersion = IpVersion::V4;

fn fast() -> Fast {
    with_budget(Budget::default())
}

fn with_budget(budget: Budget) -> Fast {
    Fast::with_budget(Config { versions: vec![V4], ..Config::default() }, budget)
}

fn key(name: &str) -> PolicyKey {
    PolicyKey { kind: PolicyKind::GlobalNetworkPolicy, namespace: "".into(), name: name.into() }
}

fn id(name: &str) -> SetId {
    SetId(name.into())
}

fn rule(action: Action) -> RuleSpec {
    RuleSpec {
        action,
        version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: SideSpec::default(),
        destination: SideSpec::default(),
        annotations: Vec::new(),
    }
}

/// A rule for members of a set, and a TCP port.
fn from(set: &str, port: u16) -> RuleSpec {
    let mut rule = rule(Action::Allow);
    rule.protocol = Some(Protocol::Tcp);
    rule.source.sets = vec![id(set)];
    rule.destination.ports = vec![PortRange::single(port)];
    rule
}

fn policy(name: &str, ingress: Vec<RuleSpec>) -> Event {
    Event::Policy(Arc::new(PolicyRules {
        key: key(name),
        tier: "default".into(),
        ingress,
        egress: Vec::new(),
        everywhere: false,
        staged: false,
    }))
}

fn endpoint_with(interface: &str, policies: &[&str], qos: Qos) -> Event {
    let reference = |name: &&str| PolicyRef { key: key(name), selector: "all()".into(), staged: false };
    let tier = TierPolicies {
        name: "default".into(),
        default_action: DefaultAction::Deny,
        ingress: policies.iter().map(reference).collect(),
        egress: Vec::new(),
    };
    Event::Endpoint(Arc::new(LocalEndpoint {
        id: interface.into(),
        interface: interface.into(),
        mac: None,
        addresses: Vec::new(),
        profiles: vec!["open".into()],
        tiers: Arc::from([tier]),
        qos,
        spoofed_sources: Box::default(),
        nats: Box::default(),
        is_openstack: false,
    }))
}

fn endpoint(interface: &str, policies: &[&str]) -> Event {
    endpoint_with(interface, policies, Qos::default())
}

fn profile() -> Event {
    let egress = vec![rule(Action::Allow)];
    Event::Profile(Arc::new(ProfileRules { name: "open".into(), ingress: Vec::new(), egress }))
}

fn member(text: &str) -> Member {
    let net = if text.contains('/') { text.to_owned() } else { format!("{text}/32") };
    Member::Net(net.parse::<IpNet>().expect("a network"))
}

fn set(name: &str, members: &[&str]) -> Event {
    let members = members.iter().map(|text| member(text)).collect();
    Event::SetAdded { id: id(name), kind: SetKind::Net, members }
}

fn set_change(name: &str, added: &[&str], removed: &[&str]) -> Event {
    let members = |list: &[&str]| list.iter().map(|text| member(text)).collect();
    Event::SetChanged { id: id(name), added: members(added), removed: members(removed) }
}

fn feed(fast: &mut Fast, events: impl IntoIterator<Item = Event>) -> Changes {
    events.into_iter().for_each(|event| fast.handle(&event));
    fast.poll()
}

fn filter(fast: &mut Fast) -> TableContent {
    let tables = fast.tables(V4);
    tables.into_iter().find(|content| content.table == Table::Filter).expect("the filter table")
}

fn chains(fast: &mut Fast, prefix: &str) -> Vec<Chain> {
    filter(fast).chains.into_iter().filter(|chain| chain.name.starts_with(prefix)).collect()
}

/// The sets that are there without any policy.
fn static_sets() -> Sets {
    let mut sets = Sets::default();
    fast().poll().sets.iter().for_each(|change| sets.apply(change));
    sets
}

/// What becomes of a TCP packet to an endpoint.
fn fate(fast: &mut Fast, sets: &Sets, interface: &str, source: &str, port: Option<u16>) -> Fate {
    let machine = Machine::new(V4, &fast.tables(V4), sets).expect("rules that the kernel takes");
    let packet = Packet {
        source: source.parse().expect("an address"),
        destination: "10.9.9.9".parse().expect("an address"),
        protocol: 6,
        source_port: port.map(|_| 40_000),
        destination_port: port,
        icmp: None,
        in_interface: Some("eth0".to_owned()),
        out_interface: Some(interface.to_owned()),
        conntrack: ConnectionState::New,
        dnat: None,
        mark: 0,
        reverse_path_is_good: true,
    };
    machine.run(&packet).fate
}

fn two_lists() -> Vec<Event> {
    vec![
        set("a", &["10.0.0.1", "10.0.0.2"]),
        set("b", &["10.0.0.2", "10.1.0.0/16"]),
        policy("p", vec![from("a", 80)]),
        policy("q", vec![from("b", 443), from("a", 22)]),
        profile(),
        endpoint("cali1", &["p", "q"]),
        endpoint("cali2", &["p", "q"]),
        endpoint("cali3", &["q"]),
    ]
}

fn names(changes: &Changes) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Map(map) => format!("+map {}", map.name),
        Change::Chain(chain) => format!("+{}", chain.name),
        Change::Elements { map, removed, added } => format!("{map} -{} +{}", removed.len(), added.len()),
        Change::Hooks(_) => "hooks".to_owned(),
        Change::NoChain(name) => format!("-{name}"),
        Change::NoMap(name) => format!("-map {name}"),
    };
    changes.tables.iter().map(|update| name(&update.change)).collect()
}

#[test]
fn endpoints_with_the_same_policies_share_a_chain() {
    let mut fast = fast();
    feed(&mut fast, two_lists());
    let content = filter(&mut fast);
    let dispatch = content.maps.iter().find(|map| map.name == "cali-to-wl").expect("dispatch");
    let list = |interface: &str| dispatch.elements[&Key::Interface(interface.into())].clone();
    assert_eq!(list("cali1"), list("cali2"));
    assert_ne!(list("cali1"), list("cali3"));
    let sets = static_sets();
    let mut to = |interface: &str, source: &str, port| fate(&mut fast, &sets, interface, source, Some(port));
    assert_eq!(to("cali1", "10.0.0.1", 80), Fate::Accepted);
    assert_eq!(to("cali3", "10.0.0.1", 80), Fate::Dropped);
    assert_eq!(to("cali3", "10.1.7.7", 443), Fate::Accepted, "a network of the set");
    assert_eq!(to("cali3", "10.2.0.1", 443), Fate::Dropped, "in no set");
    assert_eq!(to("cali4", "10.0.0.1", 80), Fate::Dropped, "no such endpoint");
    assert!(fast.poll().sets.is_empty() && fast.size(V4).sets == 0, "no rule looks into a set");
}

#[test]
fn a_member_that_comes_or_goes_is_an_element_of_each_list_that_asks() {
    let mut fast = fast();
    feed(&mut fast, two_lists());
    let changes = feed(&mut fast, [set_change("a", &["10.0.0.7"], &[])]);
    let told = names(&changes);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|text| text.contains("-ports -0 +")), "one for each port: {told:?}");
    assert!(changes.sets.is_empty());
    // Another label: out of one set and into another that says the same of other ports.
    let moved = [set_change("a", &[], &["10.0.0.7"]), set_change("b", &["10.0.0.7"], &[])];
    let told = names(&feed(&mut fast, moved));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|text| text.contains("-ports -")), "{told:?}");
    assert!(
        names(&feed(&mut fast, [set_change("b", &["10.1.0.9"], &[])])).is_empty(),
        "covered by a network"
    );
}

#[test]
fn an_edit_concerns_the_lists_that_hold_the_policy() {
    let mut fast = fast();
    feed(&mut fast, two_lists());
    let lists = |fast: &mut Fast| -> BTreeSet<String> {
        chains(fast, "cali-pl-").into_iter().map(|chain| chain.name).collect()
    };
    let before = lists(&mut fast);
    let told = names(&feed(&mut fast, [policy("p", vec![from("a", 81)])]));
    assert_eq!(told.iter().filter(|text| text.starts_with("cali-pl-")).count(), 1, "{told:?}");
    assert_eq!(lists(&mut fast), before, "names do not depend on what policies say");
    assert!(names(&feed(&mut fast, [policy("p", vec![from("a", 81)])])).is_empty(), "the same again");
    assert_eq!(fate(&mut fast, &static_sets(), "cali1", "10.0.0.1", Some(81)), Fate::Accepted);
    let order = names(&feed(&mut fast, [Event::EndpointGone("cali3".into()), set("c", &[])]));
    let first_gone = order.iter().position(|text| text.starts_with('-')).expect("something goes");
    assert!(order[first_gone..].iter().all(|text| text.starts_with('-')), "what goes is behind: {order:?}");
}

#[test]
fn what_is_not_known_is_told_the_last_rule() {
    let mut fast = fast();
    feed(&mut fast, two_lists());
    for chain in chains(&mut fast, "cali-pl-") {
        let last = chain.rules.last().expect("a rule");
        assert!(last.matches.is_empty(), "{chain:?}");
    }
    let sets = static_sets();
    assert_eq!(fate(&mut fast, &sets, "cali1", "10.0.0.1", None), Fate::Dropped, "no port can be read");
}

#[test]
fn nobody_is_in_a_set_that_is_not_there() {
    let mut fast = fast();
    let mut other = rule(Action::Allow);
    other.source.not_sets = vec![id("nowhere")];
    let mut none = rule(Action::Deny);
    none.source.sets = vec![id("nowhere")];
    feed(&mut fast, [policy("p", vec![none, other]), profile(), endpoint("cali1", &["p"])]);
    assert_eq!(fate(&mut fast, &static_sets(), "cali1", "10.0.0.1", Some(1)), Fate::Accepted);
}

#[test]
fn networks_of_the_other_version_match_nothing() {
    let mut fast = fast();
    let mut other = rule(Action::Allow);
    other.source.nets = vec!["fd00::/8".parse().expect("a network")];
    feed(&mut fast, [policy("p", vec![other]), profile(), endpoint("cali1", &["p"])]);
    assert_eq!(fate(&mut fast, &static_sets(), "cali1", "10.0.0.1", Some(1)), Fate::Dropped);
}

#[test]
fn a_log_rule_is_not_crossed() {
    let mut fast = fast();
    let rules = vec![from("a", 80), rule(Action::Log), from("a", 81)];
    feed(&mut fast, [set("a", &["10.0.0.1"]), policy("p", rules), profile(), endpoint("cali1", &["p"])]);
    let all = chains(&mut fast, "cali-pl-");
    let list = all.iter().find(|chain| chain.rules[0].comments.iter().any(|c| c.contains("gnp/p")));
    let list = list.expect("the list's chain");
    let targets: Vec<&str> =
        list.rules.iter().filter_map(|r| r.action.as_ref().and_then(RuleAction::target)).collect();
    let suffixes: Vec<&str> = targets.iter().map(|name| name.trim_start_matches(&*list.name)).collect();
    assert_eq!(suffixes, ["-0", "-b0", "-1"]);
    let sets = static_sets();
    let mut to = |port| fate(&mut fast, &sets, "cali1", "10.0.0.1", Some(port));
    assert_eq!([to(80), to(81), to(82)], [Fate::Accepted, Fate::Accepted, Fate::Dropped]);
}

#[test]
fn with_flow_logs_each_decision_tells_whose_it_is() {
    let config = Config { versions: vec![V4], flow_logs: true, ..Config::default() };
    let mut fast = Fast::new(config);
    feed(
        &mut fast,
        [set("a", &["10.0.0.1"]), policy("p", vec![from("a", 80)]), profile(), endpoint("cali1", &["p"])],
    );
    let told: BTreeSet<String> = chains(&mut fast, "cali-r-")
        .iter()
        .flat_map(|chain| &chain.rules)
        .filter_map(|rule| match &rule.action {
            Some(RuleAction::Nflog { prefix, .. }) => Some(prefix.clone()),
            _ => None,
        })
        .collect();
    let expected = ["API0|gnp/p", "ARE0|open", "DPI|default", "DRE"];
    for prefix in &told {
        assert!(expected.contains(&prefix.as_str()), "{told:?}");
    }
    assert!(told.contains("API0|gnp/p") && told.contains("DPI|default"), "{told:?}");
    let sets = static_sets();
    assert_eq!(fate(&mut fast, &sets, "cali1", "10.0.0.1", Some(80)), Fate::Accepted);
    assert_eq!(fate(&mut fast, &sets, "cali1", "10.0.0.1", Some(81)), Fate::Dropped);
}

#[test]
fn packets_that_are_counted_are_counted_before_known_connections_pass() {
    let mut fast = fast();
    let known_first = |fast: &mut Fast| {
        let chain = chains(fast, "cali-FORWARD").remove(0);
        matches!(chain.rules[0].matches[..], [Match::Conntrack { .. }])
    };
    feed(&mut fast, [profile(), endpoint("cali1", &[])]);
    assert!(known_first(&mut fast));
    let mut qos = Qos::default();
    qos.ingress.packet_rate = Some(PacketRate { per_second: 10, burst: 5 });
    feed(&mut fast, [endpoint_with("cali2", &[], qos)]);
    assert!(!known_first(&mut fast));
    let dispatch = chains(&mut fast, "cali-to-wl-dispatch").remove(0);
    let map = |at: usize| match &dispatch.rules[at].action {
        Some(RuleAction::Lookup { map, .. }) => Some(map.clone()),
        _ => None,
    };
    assert_eq!(map(0).as_deref(), Some("cali-to-wl-limited"));
    let own = chains(&mut fast, "cali-tw-cali2").remove(0);
    assert!(own.rules.iter().any(|rule| matches!(rule.matches[..], [Match::Limit { .. }])));
    feed(&mut fast, [Event::EndpointGone("cali2".into())]);
    assert!(known_first(&mut fast));
}

#[test]
fn established_connections_skip_the_rules_before_these_accept_them_but_not_those_of_limited_endpoints() {
    let mut fast = Fast::new(Config { versions: vec![V4], flow_offload: true, ..Config::default() });
    let [mut rate, mut count, mut dscp] = [Qos::default(), Qos::default(), Qos::default()];
    rate.egress.packet_rate = Some(PacketRate { per_second: 10, burst: 5 });
    count.ingress.max_connections = NonZeroU32::new(3);
    dscp.dscp = Some(46);
    let at = |interface: &str, address: &str, qos: Qos| {
        let Event::Endpoint(endpoint) = endpoint_with(interface, &[], qos) else { unreachable!() };
        let addresses = vec![address.parse().unwrap()];
        Event::Endpoint(Arc::new(LocalEndpoint { addresses, ..(*endpoint).clone() }))
    };
    let changes = feed(
        &mut fast,
        [
            profile(),
            at("cali1", "10.0.0.1/32", Qos::default()),
            at("cali2", "10.0.0.2/32", rate),
            at("cali3", "10.0.0.3/32", count),
            at("cali4", "10.0.0.4/32", dscp),
        ],
    );
    let rule = chains(&mut fast, "cali-FORWARD").remove(0).rules.remove(0);
    assert_eq!(rule.action, Some(RuleAction::Offload));
    let sets = rule
        .matches
        .iter()
        .filter(|m| matches!(m, Match::Set { negate: true, name, .. } if name == "cali40no-flow-offload"));
    assert_eq!(sets.count(), 2);
    let last_members = |changes: Changes| {
        let mut wants = changes.sets.into_iter().filter_map(|change| match change {
            SetChange::Want { name, members, .. } if name == "cali40no-flow-offload" => Some(members),
            _ => None,
        });
        wants.next_back()
    };
    let three = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(member);
    assert_eq!(last_members(changes).unwrap(), three);
    let changes =
        feed(&mut fast, [at("cali2", "10.0.0.2/32", Qos::default()), Event::EndpointGone("cali3".into())]);
    assert_eq!(last_members(changes).unwrap(), three[2..]);
}

#[test]
fn where_kube_proxy_uses_ipvs_endpoints_have_chains_for_their_marks() {
    let mut fast = fast();
    feed(&mut fast, [profile(), endpoint("cali1", &[])]);
    assert!(chains(&mut fast, "cali-fw-cali1").is_empty());
    fast.set_ipvs(true);
    let own = chains(&mut fast, "cali-fw-cali1").remove(0);
    let last = own.rules.last().and_then(|rule| rule.action.clone());
    assert!(matches!(last, Some(RuleAction::Goto(list)) if list.starts_with("cali-pl-")));
}

/// What leads to a chain makes the kernel follow all elements of all maps with each that comes.
#[test]
fn elements_of_members_lead_to_no_chain_where_rows_are_short() {
    let mut fast = fast();
    let ranges = |first: u16| -> Vec<PortRange> {
        (0..9).filter_map(|n| PortRange::new(first + 10 * n, first + 10 * n + 3)).collect()
    };
    let mut long = from("b", 0);
    long.destination.ports = ranges(1000);
    let mut any = rule(Action::Allow);
    any.source.sets = vec![id("c")];
    let events = [
        set("a", &["10.0.0.1"]),
        set("b", &["10.0.0.2"]),
        set("c", &["10.0.0.3"]),
        policy("p", vec![from("a", 80), long, any]),
        profile(),
        endpoint("cali1", &["p"]),
    ];
    feed(&mut fast, events);
    let elements = |suffix: &str| {
        let maps = filter(&mut fast).maps.into_iter().find(|map| map.name.ends_with(suffix));
        let map = maps.expect("a map");
        assert_eq!(map.all.is_some(), map.elements.values().all(|verdict| verdict.target().is_none()));
        map.elements.into_keys().collect::<Vec<Key>>()
    };
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let mut elements = elements;
    assert_eq!(elements("-ports"), [Key::AddressProtocolPort(address(1), 6, 80)]);
    assert_eq!(elements("-rows"), [Key::Address(address(2))]);
    assert_eq!(elements("-all"), [Key::Address(address(3))]);
}

/// Neither when it comes, nor when it changes; but where somebody is told of the same packets, it does.
#[test]
fn a_rule_for_any_address_touches_elements_only_of_whom_it_concerns() {
    let mut fast = fast();
    let open = |port: u16| {
        let mut rule = rule(Action::Allow);
        rule.protocol = Some(Protocol::Tcp);
        rule.destination.ports = PortRange::new(port, port).into_iter().collect();
        rule
    };
    let mut closed = from("b", 9000);
    closed.action = Action::Deny;
    let with = |last| policy("p", vec![from("a", 80), closed.clone(), last]);
    let events = [set("a", &["10.0.0.1"]), set("b", &["10.0.0.2"]), with(open(9001)), profile()];
    feed(&mut fast, events.into_iter().chain([endpoint("cali1", &["p"])]));
    let keys = |fast: &mut Fast| {
        let maps = filter(fast).maps.into_iter().filter(|map| map.holds == MapType::AddressProtocolPort);
        maps.flat_map(|map| map.elements).collect::<BTreeMap<_, _>>()
    };
    let cell = |last: u8, port| Key::AddressProtocolPort(IpAddr::from([10, 0, 0, last]), 6, port);
    let allowed = (cell(1, 80), Verdict::Return);
    assert_eq!(keys(&mut fast), BTreeMap::from([allowed.clone()]));
    let changes = feed(&mut fast, [with(open(9002))]);
    assert!(!changes.tables.iter().any(|u| matches!(u.change, Change::Elements { .. } | Change::Map(_))));
    feed(&mut fast, [with(open(9000))]);
    let denied = (cell(2, 9000), Verdict::Drop);
    assert_eq!(keys(&mut fast), BTreeMap::from([allowed.clone(), denied]));
    feed(&mut fast, [with(open(80))]);
    assert_eq!(keys(&mut fast), BTreeMap::new());
    feed(&mut fast, [with(open(9002))]);
    assert_eq!(keys(&mut fast), BTreeMap::from([allowed]));
}

/// Sets `s0`, `s1`, … and an address for each combination of them.
fn combinations(sets: usize) -> Vec<Event> {
    let address = |n: usize| format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256);
    let members = |set: usize| {
        let all = (0..1_usize << sets).filter(|n| n >> set & 1 == 1);
        all.map(|n| member(&address(n))).collect()
    };
    let event = |set: usize| Event::SetAdded {
        id: id(&format!("s{set}")),
        kind: SetKind::Net,
        members: members(set),
    };
    (0..sets).map(event).collect()
}

#[test]
fn selectors_that_overlap_in_all_ways_fall_back() {
    let mut fast = fast();
    let mut events = combinations(12);
    // Each combination of sets is a row of its own, most of them with a map.
    let wide = |n: u16| {
        let mut rule = from(&format!("s{n}"), 0);
        rule.destination.ports = PortRange::new(1000 + 200 * n, 1100 + 200 * n).into_iter().collect();
        rule
    };
    events.push(policy("p", (0..12).map(wide).collect()));
    events.extend([profile(), endpoint("cali1", &["p"])]);
    let changes = feed(&mut fast, events);
    let size = fast.size(V4);
    assert_eq!((size.linear_lists, size.sets), (1, 12), "{size:?}");
    assert!(size.maps < 10 && size.chains < 60, "{size:?}");
    let mut sets = static_sets();
    changes.sets.iter().for_each(|change| sets.apply(change));
    assert_eq!(fate(&mut fast, &sets, "cali1", "10.0.0.5", Some(1404)), Fate::Accepted);
    assert_eq!(fate(&mut fast, &sets, "cali1", "10.0.0.5", Some(1204)), Fate::Dropped);
    // With simpler rules it is a table again.
    feed(&mut fast, [policy("p", vec![from("s0", 100)])]);
    assert_eq!(fast.size(V4).linear_lists, 0);
    assert_eq!(fast.size(V4).sets, 0);
    assert_eq!(fate(&mut fast, &static_sets(), "cali1", "10.0.0.5", Some(100)), Fate::Accepted);
}

#[test]
fn thousands_of_ports_are_one_map_and_thousands_of_ranges_another() {
    let mut fast = fast();
    let mut ranges = from("a", 0);
    ranges.destination.ports = (1..1500).filter_map(|n| PortRange::new(40 * n, 40 * n + 20)).collect();
    let rules = (0..3000).map(|n| from("a", 3 * n + 1)).chain([ranges]).collect();
    feed(&mut fast, [set("a", &["10.0.0.1"]), policy("p", rules), profile(), endpoint("cali1", &["p"])]);
    let size = fast.size(V4);
    assert_eq!((size.linear_lists, size.sets), (0, 0), "{size:?}");
    assert!(size.maps <= 6, "{size:?}");
    let sets = static_sets();
    let mut to = |port| fate(&mut fast, &sets, "cali1", "10.0.0.1", Some(port));
    assert_eq!(
        [to(4), to(45), to(59_999), to(30)],
        [Fate::Accepted, Fate::Accepted, Fate::Dropped, Fate::Dropped]
    );
}

#[test]
fn many_policies_are_as_few_lookups_as_few() {
    const COUNT: usize = 3000;
    let mut fast = fast();
    let mut events = Vec::new();
    let policies: Vec<String> = (0..COUNT).map(|n| format!("p{n}")).collect();
    for (n, name) in policies.iter().enumerate() {
        let address = format!("10.0.{}.{}", n / 250, n % 250);
        events.push(set(&format!("s{n}"), &[&address]));
        events.push(policy(name, vec![from(&format!("s{n}"), 1000), from(&format!("s{n}"), 2000)]));
    }
    let names: Vec<&str> = policies.iter().map(String::as_str).collect();
    events.extend([profile(), endpoint("cali1", &names)]);
    feed(&mut fast, events);
    let size = fast.size(V4);
    assert_eq!((size.linear_lists, size.sets, size.maps), (0, 0, 3), "{size:?}");
    assert!(size.chains < 60, "equal rows are one chain: {size:?}");
    let sets = static_sets();
    assert_eq!(fate(&mut fast, &sets, "cali1", "10.0.11.7", Some(2000)), Fate::Accepted);
}

#[test]
fn networks_without_end_and_elements_without_end_fall_back() {
    let limits = Limits::default();
    let nets: Vec<String> = (0..200).map(|n| format!("10.{n}.0.0/17")).collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let events = || [set("a", &nets), policy("p", vec![from("a", 80)]), profile(), endpoint("cali1", &["p"])];
    let mut roomy = fast();
    feed(&mut roomy, events());
    assert_eq!(roomy.size(V4).linear_lists, 0);
    assert!(
        filter(&mut roomy).maps.iter().any(|map| map.name.ends_with("-nets") && map.elements.len() == 200)
    );
    let mut tight = with_budget(Budget { block: Limits { stretches: 300, ..limits }, ..Budget::default() });
    feed(&mut tight, events());
    assert_eq!((tight.size(V4).linear_lists, tight.size(V4).sets), (1, 1));
    let mut few = with_budget(Budget { block: Limits { elements: 5, ..limits }, ..Budget::default() });
    feed(&mut few, two_lists());
    assert_eq!(few.size(V4).linear_lists, 0);
    feed(&mut few, [set_change("a", &["10.0.0.7", "10.0.0.8"], &[])]);
    assert!(few.size(V4).linear_lists > 0, "it grew beyond its limit");
    feed(&mut few, [set_change("a", &[], &["10.0.0.7", "10.0.0.8"]), policy("q", vec![from("b", 443)])]);
    assert_eq!(few.size(V4).linear_lists, 0, "tried again with the next edit");
}

#[test]
fn what_takes_too_long_falls_back() {
    let mut fast =
        with_budget(Budget { block: Limits { work: 300, ..Limits::default() }, ..Budget::default() });
    let rules = (0..200).map(|n| from("a", n)).collect();
    feed(&mut fast, [set("a", &["10.0.0.1"]), policy("p", rules), profile(), endpoint("cali1", &["p"])]);
    assert_eq!(fast.size(V4).linear_lists, 1);
}
