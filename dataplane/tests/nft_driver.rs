//! The driver of nftables mode against the kernel: what comes out of the lowering, what `nft` says of it, repair, and
//! what others have in the same network namespace.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::too_many_lines, reason = "a table is read from top to bottom")]

mod common;

use std::process::ExitCode;

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange, Protocol};
use tortie_dataplane::nft::Watch;
use tortie_dataplane::nft::driver::{NftTable, touches};
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_rules::compile::classic::{Classic, SetChange, SetType};
use tortie_rules::compile::{Change, Config};
use tortie_rules::graph::model::Member;
use tortie_rules::render::Table;
use tortie_rules::render::iptables::Features;
use tortie_rules::ruleset::nft::{Data, Element, FieldType, Set, Verdict};
use tortie_rules::ruleset::{Action, Chain, ConntrackState, Hook, KeyField, Match, Rule, SetKey, Side};

use crate::common::{run, sh, try_sh};

fn main() -> ExitCode {
    run(tests![["nft"];
        every_condition_and_action_reads_as_a_person_would_write_it,
        what_nft_has_no_word_for_becomes_several_rules,
        routes_are_asked_where_packets_have_them,
        what_felix_layout_needs_is_taken_as_it_is_and_nothing_is_done_twice,
        what_others_do_to_the_table_is_undone_in_one_transaction,
        tables_of_others_are_left_alone,
        a_leftover_rule_takes_a_set_of_its_own_along,
        a_member_more_is_one_send_however_large_the_set,
        a_set_of_addresses_becomes_one_of_ranges_under_the_rules_that_use_it,
        networks_within_networks_are_one_range,
        a_refused_chain_is_closed_and_the_rest_is_in_force,
        a_refused_set_closes_the_chains_that_look_into_it,
        what_is_not_wanted_goes_with_the_table,
        verdicts_of_a_map_change_in_place,
        rules_that_stay_in_a_changed_chain_are_not_written_again,
        a_production_node_is_loaded_adopted_changed_and_repaired,
    ])
}

fn driver(version: IpVersion) -> NftTable {
    NftTable::new(version, vec!["cali+".to_owned()])
}

/// Both phases.
fn apply(driver: &mut NftTable) -> Report {
    let mut report = driver.apply(Phase::Enforce);
    report.merge(driver.apply(Phase::Withdraw));
    report
}

fn settled(driver: &NftTable) -> bool {
    driver.plan(Phase::Enforce).is_empty() && driver.plan(Phase::Withdraw).is_empty()
}

fn want_chain(driver: &mut NftTable, table: Table, name: &str, rules: Vec<Rule>) {
    driver.change(table, &Change::Chain(Chain { name: name.to_owned(), rules }));
}

fn want_set(driver: &mut NftTable, name: &str, set_type: SetType, members: Vec<Member>) {
    let (name, version) = (name.to_owned(), driver.version());
    driver.change_set(&SetChange::Want { name, version, set_type, members });
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The lines of a chain of `nft`'s, without what stands around them. Both its languages must take it.
fn list(family: &str, chain: &str) -> Vec<String> {
    sh("nft -j list ruleset");
    let text = sh(&format!("nft list chain {family} calico {chain}"));
    let lines = text.lines().filter_map(|line| line.strip_prefix("\t\t")).map(str::to_owned);
    lines.map(|line| line.replace("counter packets 0 bytes 0", "counter")).collect()
}

fn conditions(version: IpVersion) -> Vec<(Vec<Match>, &'static str, &'static str)> {
    let tcp = || Match::Protocol { protocol: Protocol::Tcp, negate: false };
    let udp = || Match::Protocol { protocol: Protocol::Number(17), negate: false };
    let net_of = |four: &str, six: &str| net(if version == IpVersion::V4 { four } else { six });
    let set = |name: &str, side, key, negate| Match::Set { name: name.to_owned(), side, key, negate };
    let port = PortRange::single;
    let range = |first, last| PortRange::new(first, last).unwrap();
    let states = &[ConntrackState::Related, ConntrackState::Established];
    let dnat = &[ConntrackState::Dnat];
    vec![
        (vec![Match::MarkClear(0x10000)], "meta mark & 0x00010000 == 0x00000000", ""),
        (vec![Match::MarkAnySet(0x30000)], "meta mark & 0x00030000 != 0x00000000", ""),
        (vec![Match::Mark { value: 0x10000, mask: 0x10000 }], "meta mark & 0x00010000 == 0x00010000", ""),
        (
            vec![Match::MarkNot { value: 0x10_0000, mask: 0xf0_0000 }],
            "meta mark & 0x00f00000 != 0x00100000",
            "",
        ),
        (vec![Match::InInterface("cali+".into())], "iifname \"cali*\"", ""),
        (vec![Match::OutInterface("eth0".into())], "oifname \"eth0\"", ""),
        (vec![Match::OutInterface("+".into()), tcp()], "meta l4proto tcp", ""),
        (vec![Match::Conntrack { states, negate: false }], "ct state established,related", ""),
        (vec![Match::Conntrack { states, negate: true }], "ct state ! established,related", ""),
        (vec![Match::Conntrack { states: dnat, negate: false }], "ct status dnat", ""),
        (vec![Match::Conntrack { states: dnat, negate: true }], "ct status ! dnat", ""),
        (
            vec![Match::Protocol { protocol: Protocol::Number(4), negate: true }],
            "meta l4proto != ipencap",
            "",
        ),
        (
            vec![Match::Net { side: Side::Source, net: net_of("10.0.0.0/8", "fd00::/16"), negate: false }],
            "ip saddr 10.0.0.0/8",
            "ip6 saddr fd00::/16",
        ),
        (
            vec![Match::Net {
                side: Side::Destination,
                net: net_of("10.1.2.0/23", "fd00:8::/29"),
                negate: true,
            }],
            "ip daddr != 10.1.2.0/23",
            "ip6 daddr != fd00:8::/29",
        ),
        (
            vec![Match::Address { side: Side::Source, address: net_of("10.0.0.1/32", "fd00::1/128").addr() }],
            "ip saddr 10.0.0.1",
            "ip6 saddr fd00::1",
        ),
        (
            vec![Match::Net { side: Side::Source, net: net_of("0.0.0.0/0", "::/0"), negate: false }, tcp()],
            "meta l4proto tcp",
            "",
        ),
        (vec![Match::Local(Side::Destination)], "fib daddr type local", ""),
        (
            vec![set("cali40n", Side::Source, SetKey::Address, false)],
            "ip saddr @cali40n",
            "ip6 saddr @cali40n",
        ),
        (
            vec![set("cali40p:x", Side::Destination, SetKey::AddressPort, true)],
            "ip daddr . meta l4proto . th dport != @cali40p-x",
            "ip6 daddr . meta l4proto . th dport != @cali40p-x",
        ),
        (
            vec![udp(), set("cali40p:x", Side::Source, SetKey::AddressPort, false)],
            "ip saddr . meta l4proto . udp sport @cali40p-x",
            "ip6 saddr . meta l4proto . udp sport @cali40p-x",
        ),
        (vec![tcp(), Match::DestinationPort(22)], "tcp dport 22", ""),
        (
            vec![tcp(), Match::Ports { side: Side::Source, ports: vec![range(90, 100)], negate: false }],
            "tcp sport 90-100",
            "",
        ),
        (
            vec![
                udp(),
                Match::Ports { side: Side::Destination, ports: vec![port(53), range(90, 100)], negate: true },
            ],
            "udp dport != 53 udp dport != 90-100",
            "",
        ),
        (vec![Match::Limit { rate: "10/minute".into(), burst: 0 }], "limit rate 10/minute", ""),
        (
            vec![Match::Limit { rate: "100/sec".into(), burst: 7 }],
            "limit rate 100/second burst 7 packets",
            "",
        ),
        (vec![tcp(), Match::TcpSyn], "tcp flags syn / fin,syn,rst,ack", ""),
        (vec![Match::ConnectionsAbove(5)], "ct count over 5", ""),
    ]
}

fn actions(version: IpVersion) -> Vec<(Table, Action, &'static str, &'static str)> {
    let is_v4 = version == IpVersion::V4;
    let address = net(if is_v4 { "10.0.0.1/32" } else { "fd00::1/128" }).addr();
    let ports = Some(PortRange::new(1024, 2047).unwrap());
    vec![
        (Table::Filter, Action::Accept, "counter accept", ""),
        (Table::Filter, Action::Drop, "counter drop", ""),
        (Table::Filter, Action::Return, "return", ""),
        (Table::Filter, Action::Jump("cali-other".into()), "jump filter-cali-other", ""),
        (Table::Filter, Action::Goto("cali-other".into()), "goto filter-cali-other", ""),
        (Table::Filter, Action::Reject, "counter reject", ""),
        (Table::Filter, Action::ResetConnection, "counter reject with tcp reset", ""),
        (Table::Filter, Action::SetMark(0x10000), "counter meta mark set meta mark | 0x00010000", ""),
        (Table::Filter, Action::ClearMark(0x30000), "meta mark set meta mark & 0xfffcffff", ""),
        (
            Table::Filter,
            Action::SetMaskedMark { value: 0x80000, mask: 0x18_0000 },
            "meta mark set meta mark & 0xffefffff | 0x00080000",
            "",
        ),
        (Table::Filter, Action::Log { prefix: "x".into() }, "counter log prefix \"x: \" level info", ""),
        (
            Table::Filter,
            Action::Nflog { group: 1, prefix: "API0|gnp/x".into() },
            "counter log prefix \"API0|gnp/x\" group 1 snaplen 80",
            "",
        ),
        (Table::Raw, Action::NoTrack, "counter notrack", ""),
        (Table::Mangle, Action::SetDscp(46), "counter ip dscp set ef", "counter ip6 dscp set ef"),
        (Table::Nat, Action::Masquerade { ports: None }, "counter masquerade fully-random", ""),
        (Table::Nat, Action::Masquerade { ports }, "counter masquerade to :1024-2047 fully-random", ""),
        (
            Table::Nat,
            Action::Snat { address, ports: None },
            "counter snat to 10.0.0.1 fully-random",
            "counter snat to fd00::1 fully-random",
        ),
        (
            Table::Nat,
            Action::Snat { address, ports },
            "counter snat to 10.0.0.1:1024-2047 fully-random",
            "counter snat to [fd00::1]:1024-2047 fully-random",
        ),
        (Table::Nat, Action::Dnat(address), "counter dnat to 10.0.0.1", "counter dnat to fd00::1"),
        (
            Table::Nat,
            Action::DnatPort((address, 8080).into()),
            "counter dnat to 10.0.0.1:8080",
            "counter dnat to [fd00::1]:8080",
        ),
    ]
}

fn every_condition_and_action_reads_as_a_person_would_write_it() {
    for (version, family) in [(IpVersion::V4, "ip"), (IpVersion::V6, "ip6")] {
        let pick = |four: &'static str, six: &'static str| {
            if version == IpVersion::V4 || six.is_empty() { four } else { six }
        };
        let mut driver = driver(version);
        let member = |text: &str| Member::Net(net(text));
        let addresses = if version == IpVersion::V4 {
            ["10.1.0.0/16", "10.2.0.1/32"]
        } else {
            ["fd00:1::/32", "fd01::1/128"]
        };
        want_set(&mut driver, "cali40n", SetType::Net, addresses.map(member).to_vec());
        let end = Member::AddressPort(net(addresses[1]).addr(), 6, 80);
        want_set(&mut driver, "cali40p:x", SetType::AddressPort, vec![end]);
        let mut wanted = Vec::new();
        let mut rules = Vec::new();
        for (matches, four, six) in conditions(version) {
            rules.push(Rule::when(matches, Action::Drop).comment("why"));
            wanted.push(format!("{} counter drop comment \"why\"", pick(four, six)));
        }
        want_chain(&mut driver, Table::Filter, "cali-matches", rules);
        want_chain(&mut driver, Table::Filter, "cali-other", Vec::new());
        let mut by_table: Vec<(Table, Vec<String>)> = Vec::new();
        for table in Table::ALL {
            let these: Vec<_> = actions(version).into_iter().filter(|(t, ..)| *t == table).collect();
            let tcp = Match::Protocol { protocol: Protocol::Tcp, negate: false };
            let rules = these.iter().map(|(_, action, ..)| Rule::when(vec![tcp.clone()], action.clone()));
            want_chain(&mut driver, table, "cali-actions", rules.collect());
            let line = |four: &str| format!("meta l4proto tcp {four}");
            by_table.push((table, these.iter().map(|(_, _, four, six)| line(pick(four, six))).collect()));
        }
        let hook = |chain, target: &str| Hook {
            chain,
            inserted: vec![Rule::always(Action::Jump(target.to_owned()))],
            appended: Vec::new(),
        };
        driver.change(
            Table::Filter,
            &Change::Hooks(vec![hook("FORWARD", "cali-matches"), hook("INPUT", "cali-actions")]),
        );
        let report = apply(&mut driver);
        assert_eq!(report.problems, []);
        assert_eq!(report.calls, 3, "a reading of tables, of which ours is none, and two transactions");
        assert_eq!(list(family, "filter-cali-matches"), wanted);
        for (table, wanted) in by_table {
            assert_eq!(list(family, &format!("{table}-cali-actions")), wanted);
        }
        let mut again = NftTable::new(version, Vec::new());
        again.observe().unwrap();
        assert!(driver.observe().is_ok() && settled(&driver), "{}", driver.plan(Phase::Enforce));
        assert_eq!(apply(&mut driver), Report::default());
    }
}

/// A chain of rules in place, and how `nft` lists it.
fn listed(version: IpVersion, table: Table, hook: &'static str, rules: Vec<Rule>) -> Vec<String> {
    let mut driver = driver(version);
    want_chain(&mut driver, table, "cali-x", rules);
    let inserted = vec![Rule::always(Action::Jump("cali-x".to_owned()))];
    driver.change(table, &Change::Hooks(vec![Hook { chain: hook, inserted, appended: Vec::new() }]));
    assert_eq!(apply(&mut driver).problems, []);
    driver.observe().unwrap();
    assert!(settled(&driver), "{}", driver.plan(Phase::Enforce));
    let family = if version == IpVersion::V4 { "ip" } else { "ip6" };
    list(family, &format!("{table}-cali-x"))
}

fn what_nft_has_no_word_for_becomes_several_rules() {
    let tcp = || Match::Protocol { protocol: Protocol::Tcp, negate: false };
    let port = PortRange::single;
    let many = vec![port(443), PortRange::new(90, 100).unwrap(), port(80), port(101), port(443)];
    let icmp = |version, code, negate| Match::Icmp { version, icmp_type: 3, code, negate };
    let rules = |version| {
        let ports = |side| Match::Ports { side, ports: many.clone(), negate: false };
        vec![
            Rule::when(vec![tcp(), ports(Side::Destination)], Action::Accept).comment("web"),
            Rule::when(vec![icmp(version, Some(4), false)], Action::Accept),
            Rule::when(vec![icmp(version, Some(4), true)], Action::Accept),
            Rule::when(vec![icmp(version, None, true)], Action::Accept),
        ]
    };
    let web =
        ["80", "90-101", "443"].map(|ports| format!("tcp dport {ports} counter accept comment \"web\""));
    let four = [
        "icmp type destination-unreachable icmp code frag-needed counter accept",
        "icmp type != destination-unreachable counter accept",
        "icmp type destination-unreachable icmp code != frag-needed counter accept",
        "icmp type != destination-unreachable counter accept",
    ];
    let six = [
        "icmpv6 type time-exceeded icmpv6 code port-unreachable counter accept",
        "icmpv6 type != time-exceeded counter accept",
        "icmpv6 type time-exceeded icmpv6 code != port-unreachable counter accept",
        "icmpv6 type != time-exceeded counter accept",
    ];
    for (version, icmp) in [(IpVersion::V4, four), (IpVersion::V6, six)] {
        let wanted: Vec<String> = web.iter().cloned().chain(icmp.map(str::to_owned)).collect();
        assert_eq!(listed(version, Table::Filter, "FORWARD", rules(version)), wanted);
    }
}

fn routes_are_asked_where_packets_have_them() {
    for version in IpVersion::BOTH {
        let fails = vec![Rule::when(vec![Match::ReversePathFails], Action::Drop)];
        assert_eq!(
            listed(version, Table::Raw, "PREROUTING", fails),
            ["fib saddr . mark . iif oif 0 counter drop"]
        );
        let translated = vec![Rule::when(
            vec![Match::NotFromOutInterface, Match::Local(Side::Source)],
            Action::Masquerade { ports: None },
        )];
        assert_eq!(
            listed(version, Table::Nat, "POSTROUTING", translated),
            ["fib saddr . oif type != local fib saddr type local counter masquerade fully-random"]
        );
    }
}

fn programmed(version: IpVersion) -> NftTable {
    let mut driver = driver(version);
    want_classic(&mut driver);
    driver
}

/// The rules that every node has.
fn want_classic(driver: &mut NftTable) {
    let config = Config { versions: vec![driver.version()], ..Config::default() };
    let mut classic = Classic::new(config, Features::default());
    for change in classic.poll_sets() {
        assert!(driver.change_set(&change));
    }
    classic.poll_typed().iter().for_each(|(_, table, change)| driver.change(*table, change));
}

fn what_felix_layout_needs_is_taken_as_it_is_and_nothing_is_done_twice() {
    for version in IpVersion::BOTH {
        let mut first = programmed(version);
        assert_eq!(apply(&mut first).problems, []);
        assert!(settled(&first));
        assert_eq!(apply(&mut first), Report::default());
        let text = sh("nft list ruleset");
        let mut second = programmed(version);
        second.observe().unwrap();
        assert!(settled(&second), "{}", second.plan(Phase::Enforce));
        assert_eq!(apply(&mut second).changed, 0);
        assert_eq!(sh("nft list ruleset"), text);
    }
}

/// What a watch heard of others, brought to the driver, and the repair.
fn repair(driver: &mut NftTable, watch: &mut Watch) -> Report {
    let port = driver.port().unwrap();
    for (version, touch) in touches(&watch.poll(), &[port]) {
        if version == driver.version() {
            driver.touch(touch);
        }
    }
    driver.observe_touched().unwrap();
    apply(driver)
}

fn what_others_do_to_the_table_is_undone_in_one_transaction() {
    for (version, family) in [(IpVersion::V4, "ip"), (IpVersion::V6, "ip6")] {
        let digit = version.number();
        let mut watch = Watch::open().unwrap();
        let mut driver = programmed(version);
        want_set(&mut driver, &format!("cali{digit}0x"), SetType::Address, Vec::new());
        apply(&mut driver);
        assert_eq!(repair(&mut driver, &mut watch), Report::default(), "our own commits concern nobody");
        let text = sh("nft list table {family} calico".replace("{family}", family).as_str());
        for meddling in [
            "flush ruleset".to_owned(),
            format!("flush table {family} calico"),
            format!("delete table {family} calico"),
            format!("flush chain {family} calico filter-cali-FORWARD"),
            format!("insert rule {family} calico filter-cali-FORWARD accept"),
            format!("add rule {family} calico filter-FORWARD accept"),
            format!("add set {family} calico stranger '{{ type inet_proto; elements = {{ tcp }}; }}'"),
            format!(
                "add chain {family} calico stranger '{{ type filter hook input priority -5; policy drop; }}'"
            ),
            format!(
                "add element {family} calico cali{digit}0all-ipam-pools '{{ {} }}'",
                if digit == 4 { "10.0.0.1" } else { "fd00::1" }
            ),
        ] {
            sh(&format!("nft {meddling}"));
            let before = driver.commits().0;
            let report = repair(&mut driver, &mut watch);
            assert_eq!(report.problems, [], "{meddling}");
            let is_addition = meddling.contains("stranger");
            assert_eq!(driver.commits().0 - before, 1, "{meddling}: {report:?}");
            assert!(settled(&driver) && (report.changed > 0 || is_addition), "{meddling}");
            let now = sh(&format!("nft list table {family} calico"));
            assert_eq!(sorted(&now), sorted(&text), "{meddling}");
        }
    }
}

/// The parts of a table, in whatever order they were made.
fn sorted(text: &str) -> Vec<String> {
    let is_inside =
        |line: &&str| !line.starts_with("table ") && !line.starts_with("\tcomment ") && *line != "}";
    let inside: Vec<&str> = text.lines().filter(is_inside).collect();
    let mut parts: Vec<String> = inside.join("\n").split("\n\n").map(|part| part.trim().to_owned()).collect();
    parts.sort();
    parts
}

fn tables_of_others_are_left_alone() {
    sh(
        "nft add table ip others; nft 'add chain ip others c { type filter hook forward priority 0; }';          nft add rule ip others c drop; nft add table inet calico; nft add chain inet calico filter-cali-x",
    );
    let before = sh("nft list table ip others; nft list table inet calico");
    let mut driver = programmed(IpVersion::V4);
    let mut watch = Watch::open().unwrap();
    apply(&mut driver);
    sh(
        "nft add rule ip others c accept; nft delete rule ip others c handle $(nft -a list chain ip others c | sed -n 's/.*accept # handle //p')",
    );
    assert_eq!(repair(&mut driver, &mut watch), Report::default());
    assert_eq!(sh("nft list table ip others; nft list table inet calico"), before);
}

fn a_leftover_rule_takes_a_set_of_its_own_along() {
    sh("nft add table ip calico; nft add chain ip calico filter-cali-old; \
         nft 'add rule ip calico filter-cali-old tcp dport { 80, 443 } drop'");
    let mut driver = driver(IpVersion::V4);
    want_chain(&mut driver, Table::Filter, "cali-new", Vec::new());
    driver.observe().unwrap();
    assert_eq!(apply(&mut driver).problems, []);
    assert!(settled(&driver));
    let listed = sh("nft list table ip calico");
    assert!(listed.contains("filter-cali-new") && !listed.contains("filter-cali-old"), "{listed}");
}

fn host(number: u32) -> Member {
    Member::Net(IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))))
}

fn update(driver: &mut NftTable, name: &str, set_type: SetType, added: Vec<Member>, removed: Vec<Member>) {
    let change = SetChange::Update { name: name.to_owned(), set_type, added, removed };
    assert!(driver.change_set(&change));
}

fn elements(set: &str) -> Vec<String> {
    let text = sh(&format!("nft list set ip calico {set}"));
    let Some((_, rest)) = text.split_once("elements = {") else { return Vec::new() };
    rest.split('}').next().unwrap().split(',').map(|element| element.trim().to_owned()).collect()
}

fn a_member_more_is_one_send_however_large_the_set() {
    let mut driver = driver(IpVersion::V4);
    want_set(&mut driver, "cali40s:many", SetType::Net, (0..20_000).map(host).collect());
    assert_eq!(apply(&mut driver).problems, []);
    update(&mut driver, "cali40s:many", SetType::Net, vec![host(70_000)], vec![host(1)]);
    let report = apply(&mut driver);
    assert_eq!((report.calls, report.changed), (1, 1));
    update(&mut driver, "cali40s:many", SetType::Net, vec![host(70_000)], vec![host(1)]);
    assert_eq!(apply(&mut driver), Report::default(), "nothing new");
    let held = elements("cali40s-many");
    assert_eq!(held.len(), 20_000);
    assert!(held.contains(&"10.1.17.112".to_owned()) && !held.contains(&"10.0.0.1".to_owned()));
    driver.observe().unwrap();
    assert!(settled(&driver));
}

fn uses_set(driver: &mut NftTable, set: &str) {
    let m = Match::Set { name: set.to_owned(), side: Side::Source, key: SetKey::Address, negate: false };
    want_chain(driver, Table::Filter, "cali-x", vec![Rule::when(vec![m], Action::Accept)]);
    let inserted = vec![Rule::always(Action::Jump("cali-x".to_owned()))];
    let hook = Hook { chain: "FORWARD", inserted, appended: Vec::new() };
    driver.change(Table::Filter, &Change::Hooks(vec![hook]));
}

fn a_set_of_addresses_becomes_one_of_ranges_under_the_rules_that_use_it() {
    let mut driver = driver(IpVersion::V4);
    want_set(&mut driver, "cali40s:x", SetType::Net, vec![host(1)]);
    uses_set(&mut driver, "cali40s:x");
    assert_eq!(apply(&mut driver).problems, []);
    assert!(!sh("nft list set ip calico cali40s-x").contains("interval"));
    let wide = Member::Net(net("10.0.1.0/24"));
    update(&mut driver, "cali40s:x", SetType::Net, vec![wide], Vec::new());
    let before = driver.commits().0;
    assert_eq!(apply(&mut driver).problems, []);
    assert_eq!(driver.commits().0 - before, 1, "packets see the one or the other");
    assert!(sh("nft list set ip calico cali40s-x").contains("flags interval"));
    assert_eq!(elements("cali40s-x"), ["10.0.0.1", "10.0.1.0/24"]);
    assert_eq!(list("ip", "filter-cali-x"), ["ip saddr @cali40s-x counter accept"]);
    // It stays so: who gets a network once may get it again.
    update(&mut driver, "cali40s:x", SetType::Net, Vec::new(), vec![wide]);
    apply(&mut driver);
    assert_eq!(elements("cali40s-x"), ["10.0.0.1"]);
    driver.observe().unwrap();
    assert!(settled(&driver));
}

fn networks_within_networks_are_one_range() {
    let mut driver = driver(IpVersion::V4);
    let nets = |texts: &[&str]| texts.iter().map(|text| Member::Net(net(text))).collect::<Vec<_>>();
    want_set(&mut driver, "cali40s:x", SetType::Net, nets(&["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"]));
    assert_eq!(apply(&mut driver).problems, []);
    assert_eq!(elements("cali40s-x"), ["10.0.0.0/8", "11.0.0.0/8"]);
    update(&mut driver, "cali40s:x", SetType::Net, nets(&["0.0.0.0/0"]), Vec::new());
    assert_eq!(apply(&mut driver).problems, []);
    assert_eq!(elements("cali40s-x"), ["0.0.0.0/0"]);
    update(&mut driver, "cali40s:x", SetType::Net, Vec::new(), nets(&["0.0.0.0/0", "10.0.0.0/8"]));
    assert_eq!(apply(&mut driver).problems, []);
    assert_eq!(elements("cali40s-x"), ["10.1.0.0/16", "11.0.0.0/8"]);
    let mut other = driver_like(&["10.1.0.0/16", "11.0.0.0/8"]);
    other.observe().unwrap();
    assert_eq!(apply(&mut other).changed, 0);
}

fn driver_like(texts: &[&str]) -> NftTable {
    let mut other = driver(IpVersion::V4);
    let members = texts.iter().map(|text| Member::Net(net(text))).collect();
    want_set(&mut other, "cali40s:x", SetType::Net, members);
    other
}

fn a_refused_chain_is_closed_and_the_rest_is_in_force() {
    let mut driver = programmed(IpVersion::V4);
    uses_set(&mut driver, "cali40all-ipam-pools");
    let to = Rule::always(Action::Jump("cali-tw-cali1".to_owned()));
    want_chain(&mut driver, Table::Filter, "cali-x", vec![to]);
    // The kernel takes no translation outside nat.
    let bad = vec![Rule::always(Action::Masquerade { ports: None })];
    want_chain(&mut driver, Table::Filter, "cali-tw-cali1", bad);
    let report = apply(&mut driver);
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(report.problems[0].object.contains("filter-cali-tw-cali1"), "{report:?}");
    assert_eq!(
        list("ip", "filter-cali-tw-cali1"),
        ["counter drop comment \"closed: its rules were refused\""]
    );
    assert!(try_sh("nft list chain ip calico filter-cali-FORWARD").0);
    assert!(settled(&driver));
    want_chain(&mut driver, Table::Filter, "cali-tw-cali1", vec![Rule::always(Action::Accept)]);
    assert_eq!(apply(&mut driver).problems, []);
    assert_eq!(list("ip", "filter-cali-tw-cali1"), ["counter accept"]);
}

fn a_refused_set_closes_the_chains_that_look_into_it() {
    let mut driver = driver(IpVersion::V4);
    // Six bytes, where the set has four.
    let bad = Element::new(Data::new(&[1, 2, 3, 4, 5, 6]));
    driver.want_set(Set::new("cali40s-x", [FieldType::Ipv4]), vec![bad]);
    uses_set(&mut driver, "cali40s:x");
    let report = apply(&mut driver);
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(report.problems[0].object.contains("set cali40s-x"), "{report:?}");
    assert_eq!(list("ip", "filter-cali-x"), ["counter drop comment \"closed: its rules were refused\""]);
    want_set(&mut driver, "cali40s:x", SetType::Net, vec![host(1)]);
    assert_eq!(apply(&mut driver).problems, []);
    assert_eq!(list("ip", "filter-cali-x"), ["ip saddr @cali40s-x counter accept"]);
}

fn what_is_not_wanted_goes_with_the_table() {
    let mut first = programmed(IpVersion::V4);
    apply(&mut first);
    let mut second = driver(IpVersion::V4);
    second.observe().unwrap();
    assert_eq!(apply(&mut second).problems, []);
    assert_eq!(sh("nft list ruleset").trim(), "");
    assert!(settled(&second));
}

fn verdicts_of_a_map_change_in_place() {
    let mut driver = driver(IpVersion::V4);
    let map = Set::verdict_map("filter-cali-dispatch", [FieldType::Interface]);
    let to = |name: &str, chain: &str| {
        Element::new(Data::interface(name)).verdict(Verdict::Goto(format!("filter-{chain}")))
    };
    for chain in ["cali-a", "cali-b"] {
        want_chain(&mut driver, Table::Filter, chain, vec![Rule::always(Action::Drop)]);
    }
    driver.want_set(map.clone(), vec![to("cali1", "cali-a"), to("cali2", "cali-b")]);
    let key = vec![KeyField::InInterface];
    let rule = Rule::always(Action::Lookup { key, map: "cali-dispatch".to_owned(), all: None });
    let hook = Hook { chain: "FORWARD", inserted: vec![rule], appended: Vec::new() };
    driver.change(Table::Filter, &Change::Hooks(vec![hook]));
    assert_eq!(apply(&mut driver).problems, []);
    assert_eq!(list("ip", "filter-FORWARD")[1..], ["iifname vmap @filter-cali-dispatch"]);
    assert!(driver.update_set("filter-cali-dispatch", vec![to("cali1", "cali-b")], Vec::new()));
    driver.unwant_chain("filter-cali-a");
    let report = apply(&mut driver);
    assert_eq!((report.calls, report.problems), (2, Vec::new()));
    let text = sh("nft list map ip calico filter-cali-dispatch");
    assert!(text.contains("\"cali1\" : goto filter-cali-b"), "{text}");
    assert!(!try_sh("nft list chain ip calico filter-cali-a").0);
    driver.observe().unwrap();
    assert!(settled(&driver));
}

fn rules_that_stay_in_a_changed_chain_are_not_written_again() {
    let mut driver = driver(IpVersion::V4);
    let rule = |number: u16| {
        let matches =
            vec![Match::Protocol { protocol: Protocol::Tcp, negate: false }, Match::DestinationPort(number)];
        Rule::when(matches, Action::Accept)
    };
    let handles = || -> Vec<String> {
        let text = sh("nft -a list chain ip calico filter-cali-x");
        let lines = text.lines().filter(|line| line.contains("dport"));
        lines
            .map(|line| {
                let port = line.trim().split(' ').nth(2).unwrap();
                format!("{port} {}", line.rsplit(' ').next().unwrap())
            })
            .collect()
    };
    let mut ports: Vec<u16> = (1..=20).collect();
    want_chain(&mut driver, Table::Filter, "cali-x", ports.iter().copied().map(rule).collect());
    assert_eq!(apply(&mut driver).problems, []);
    let before = handles();
    let changes: [fn(&mut Vec<u16>); 5] = [
        |ports| ports.push(100),
        |ports| ports.insert(0, 101),
        |ports| drop(ports.splice(4..6, [102, 103, 104])),
        |ports| {
            ports.remove(9);
        },
        |ports| ports.truncate(15),
    ];
    for change in changes {
        change(&mut ports);
        want_chain(&mut driver, Table::Filter, "cali-x", ports.iter().copied().map(rule).collect());
        let report = apply(&mut driver);
        assert_eq!((report.calls, report.problems), (2, Vec::new()));
        let now = handles();
        let found: Vec<u16> =
            now.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(found, ports);
        let stayed = |line: &&String| line.split(' ').next().unwrap().parse::<u16>().unwrap() < 100;
        assert!(now.iter().filter(stayed).all(|line| before.contains(line)), "{now:?}");
        driver.observe().unwrap();
        assert!(settled(&driver));
    }
    // Somebody was there meanwhile: the chain is written as a whole.
    sh("nft insert rule ip calico filter-cali-x drop");
    ports.push(200);
    want_chain(&mut driver, Table::Filter, "cali-x", ports.iter().copied().map(rule).collect());
    assert_eq!(apply(&mut driver).problems, []);
    driver.observe().unwrap();
    assert!(settled(&driver));
}

/// The size of a node in production, or a thirtieth of it unless `TORTIE_SCALE` asks for all: what each step costs is
/// printed, for a person to read.
fn a_production_node_is_loaded_adopted_changed_and_repaired() {
    let share = if std::env::var_os("TORTIE_SCALE").is_some() { 1 } else { 30 };
    let (chains, rules, sets, members) = (294 / share, 68, 3708 / share, 70);
    let want = |driver: &mut NftTable| {
        for set in 0..sets {
            let first = u32::try_from(set * members).unwrap();
            let all = (first..first + u32::try_from(members).unwrap()).map(host).collect();
            want_set(driver, &format!("cali40s:{set}"), SetType::Net, all);
        }
        for chain in 0..chains {
            want_chain(driver, Table::Filter, &format!("cali-pi-{chain}"), scale_rules(chain, rules, sets));
        }
        let jump = |chain| Rule::always(Action::Jump(format!("cali-pi-{chain}")));
        let hook = Hook { chain: "FORWARD", inserted: (0..chains).map(jump).collect(), appended: Vec::new() };
        driver.change(Table::Filter, &Change::Hooks(vec![hook]));
    };
    let mut driver = driver(IpVersion::V4);
    want(&mut driver);
    let mut watch = Watch::open().unwrap();
    let timed = |what: &str, step: &mut dyn FnMut()| {
        let begun = std::time::Instant::now();
        step();
        eprintln!("{what}: {:?}", begun.elapsed());
    };
    timed("cold load", &mut || assert_eq!(apply(&mut driver).problems, []));
    let mut second = NftTable::new(IpVersion::V4, vec!["cali+".to_owned()]);
    want(&mut second);
    timed("read by another process", &mut || second.observe().unwrap());
    assert!(settled(&second), "{}", second.plan(Phase::Enforce));
    drop(second);
    watch.poll();
    timed("one member", &mut || {
        update(&mut driver, "cali40s:7", SetType::Net, vec![host(16_000_000)], Vec::new());
        assert_eq!(apply(&mut driver).calls, 1);
    });
    timed("one rule", &mut || {
        let mut list = scale_rules(3, rules, sets);
        list.push(Rule::always(Action::Return));
        want_chain(&mut driver, Table::Filter, "cali-pi-3", list);
        assert_eq!(apply(&mut driver).calls, 2, "a reading of the chain, and a transaction");
    });
    sh("nft flush chain ip calico filter-cali-pi-5");
    timed("a flushed chain", &mut || assert_eq!(repair(&mut driver, &mut watch).problems, []));
    sh("nft delete table ip calico");
    timed("a deleted table", &mut || assert_eq!(repair(&mut driver, &mut watch).problems, []));
    assert!(settled(&driver));
    timed("nothing", &mut || assert_eq!(apply(&mut driver), Report::default()));
}

fn scale_rules(chain: usize, count: usize, sets: usize) -> Vec<Rule> {
    let rule = |number: usize| {
        let name = format!("cali40s:{}", (chain * count + number) % sets);
        let matches = vec![
            Match::Protocol { protocol: Protocol::Tcp, negate: false },
            Match::Set { name, side: Side::Source, key: SetKey::Address, negate: false },
            Match::DestinationPort(u16::try_from(1000 + number).unwrap()),
        ];
        Rule::when(matches, Action::SetMark(0x10000))
    };
    (0..count).map(rule).collect()
}
