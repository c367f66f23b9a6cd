//! Generations of policy in the marks of connections, against the kernel, seen by `nft` and `conntrack`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::process::ExitCode;

use tortie_api::net::{IpVersion, Protocol};
use tortie_dataplane::nft::driver::NftTable;
use tortie_dataplane::reconcile::{Driver, Phase};
use tortie_rules::compile::{Change, MarkUses, Marks};
use tortie_rules::render::Table;
use tortie_rules::render::nft::established::Revocation;
use tortie_rules::ruleset::{Action, Chain, Match, Rule};

use crate::common::{run, sh};

fn main() -> ExitCode {
    run(tests![["nft", "conntrack"];
        the_chains_read_as_a_person_would_write_them,
        a_change_begins_a_generation_and_what_is_no_change_does_not,
        what_is_known_is_told_early_only_where_policy_is_asked_before_addresses_are_translated,
        the_next_process_begins_the_next_generation_once,
        what_others_remove_is_put_back_and_begins_a_generation,
        numbers_that_are_used_again_are_taken_from_old_connections_before_and_nothing_else_is,
        where_no_generation_is_in_force_connections_lose_what_is_left_of_earlier_ones,
    ])
}

/// Six bits: numbers from 6 to 63.
const NARROW: u32 = 0x003f_0000;
const WIDE: u32 = 0xffff_0000;

fn driver(version: IpVersion, mask: u32) -> NftTable {
    let uses = MarkUses { revocation: true, ..MarkUses::default() };
    let mut driver = NftTable::new(version, vec!["cali+".to_owned()]);
    driver.want_revocation(Revocation::new(&Marks::with(mask, uses).unwrap()).unwrap());
    want(&mut driver, 0);
    driver
}

/// Wants rules of this number.
fn want(driver: &mut NftTable, number: u8) {
    let matches = vec![Match::Protocol { protocol: Protocol::Number(number), negate: false }];
    let rules = vec![Rule::when(matches, Action::Drop)];
    driver.change(Table::Filter, &Change::Chain(Chain { name: "cali-FORWARD".to_owned(), rules }));
}

fn apply(driver: &mut NftTable) {
    for phase in [Phase::Enforce, Phase::Withdraw] {
        let report = driver.apply(phase);
        assert_eq!(report.problems, [], "{phase:?}");
        assert!(driver.plan(phase).is_empty(), "{phase:?}");
    }
}

fn lines(family: &str, chain: &str) -> Vec<String> {
    sh("nft -j list ruleset");
    let text = sh(&format!("nft list chain {family} calico {chain}"));
    let lines = text.lines().filter_map(|line| line.strip_prefix("\t\t")).map(str::to_owned);
    lines.map(|line| line.replace("counter packets 0 bytes 0", "counter")).collect()
}

/// The number that a connection gets that comes through.
fn generation(family: &str) -> u32 {
    let line = &lines(family, "cali-conn-known")[0];
    // `ct mark & 0x003f0000 == 0x00060000`, and where the mask is one of the highest bits, `ct mark 0x00060000/16`.
    let mut value = line.split(' ').filter_map(|word| word.split('/').next()?.strip_prefix("0x"));
    let value = value.nth(usize::from(line.contains("==")));
    u32::from_str_radix(value.unwrap(), 16).unwrap() >> 16
}

/// Makes a connection of IPv4 or IPv6 from a port, with a mark.
fn connection(version: IpVersion, port: u16, mark: u32) {
    let (from, to) = match version {
        IpVersion::V4 => ("10.0.0.1", "10.0.0.2"),
        IpVersion::V6 => ("fd00::1", "fd00::2"),
    };
    sh(&format!("conntrack -I -t 1000 -s {from} -d {to} -p udp --sport {port} --dport 53 -m {mark}"));
}

/// The marks by port.
fn marks(family: &str) -> BTreeMap<u16, u32> {
    let text = sh(&format!("conntrack -L -f {family} 2>/dev/null"));
    let word = |line: &str, name: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or("0");
        word.parse::<u32>().unwrap()
    };
    text.lines().map(|line| (u16::try_from(word(line, "sport=")).unwrap(), word(line, "mark="))).collect()
}

fn the_chains_read_as_a_person_would_write_them() {
    for (version, family) in [(IpVersion::V4, "ip"), (IpVersion::V6, "ip6")] {
        let mut driver = driver(version, WIDE);
        driver.set_ipvs(true);
        apply(&mut driver);
        assert_eq!(
            lines(family, "cali-conn-known"),
            [
                "ct mark 0x00060000/16 ct state established,related meta mark set meta mark | 0x00200000 accept \
                 comment \"Came through since policy last changed\"",
                "meta mark set meta mark & 0xffdfffff comment \"Nothing is known of the packet\"",
                "ct state ! established,related return comment \"Begins a connection, or belongs to none\"",
                "ct state related meta mark set meta mark | 0x00200000 accept comment \"About a connection\"",
                "ct status expected meta mark set meta mark | 0x00200000 accept \
                 comment \"Part of another connection\"",
                "ct direction original return comment \"Policy is asked again\"",
                "ct mark 0x00030000/16 counter drop \
                 comment \"Answer on a connection that policy denies\"",
                "ct mark 0x00040000/16 counter drop \
                 comment \"Answer on a connection that policy denies\"",
                "meta mark set meta mark | 0x00200000 accept comment \"Answer\"",
            ]
        );
        assert_eq!(
            lines(family, "cali-conn-judge"),
            [
                "ct mark 0x00060000/16 return comment \"Came through since policy last changed\"",
                "ct mark 0x00010000/16 ct mark set ct mark & 0x0003ffff | 0x00030000 return \
                 comment \"The packet before did not come through: denied\"",
                "ct mark 0x00030000/16 return comment \"Denied\"",
                "ct mark 0x00040000/16 ct mark set ct mark & 0x0003ffff | 0x00030000 return \
                 comment \"Denied before policy changed\"",
                "ct mark set ct mark & 0x0001ffff | 0x00010000 comment \"Judged for the first time since policy changed\"",
            ]
        );
        assert_eq!(
            lines(family, "cali-conn-passed"),
            [
                "ct direction != original return comment \"Answer\"",
                "ct state related return comment \"About a connection\"",
                "ct mark 0x00010000/16 ct mark set ct mark & 0x0006ffff | 0x00060000 return comment \"Came through\"",
                "ct mark 0x00030000/16 ct mark set ct mark & 0x0006ffff | 0x00060000 return \
                 comment \"Came through after all\"",
            ]
        );
        let sent_on = "meta mark != 0x00000000/10 accept comment \"IPVS sends it on\"";
        let (known, judge, passed) =
            ("jump cali-conn-known", "jump cali-conn-judge", "jump cali-conn-passed");
        let is_known = "meta mark & 0x00200000 != 0x00000000 accept comment \"Known\"";
        let places: [(&str, &str, &[&str]); 5] = [
            ("forward", "filter - 1", &[known, judge]),
            ("input", "filter - 1", &[known, "iifname \"lo\" accept comment \"Comes in again\"", judge]),
            ("output", "filter - 1", &[sent_on, known, judge]),
            ("end-input", "filter + 1", &[is_known, sent_on, passed]),
            (
                "end-postrouting",
                "mangle + 1",
                &[is_known, "oifname \"lo\" accept comment \"Comes in again\"", passed],
            ),
        ];
        for (name, priority, rules) in places {
            let hook = name.trim_start_matches("end-");
            let base = format!("type filter hook {hook} priority {priority}; policy accept;");
            let wanted: Vec<&str> = [base.as_str()].into_iter().chain(rules.iter().copied()).collect();
            assert_eq!(lines(family, &format!("cali-conn-{name}")), wanted);
        }
    }
}

fn a_change_begins_a_generation_and_what_is_no_change_does_not() {
    let mut driver = driver(IpVersion::V4, WIDE);
    apply(&mut driver);
    assert_eq!(generation("ip"), 6);
    let commits = driver.commits();
    want(&mut driver, 0);
    apply(&mut driver);
    driver.observe().unwrap();
    apply(&mut driver);
    assert_eq!((generation("ip"), driver.commits()), (6, commits));
    want(&mut driver, 1);
    apply(&mut driver);
    assert_eq!(generation("ip"), 7);
}

fn what_is_known_is_told_early_only_where_policy_is_asked_before_addresses_are_translated() {
    let mut driver = driver(IpVersion::V4, WIDE);
    let chain = || Chain { name: "cali-fh-eth0".to_owned(), rules: Vec::new() };
    let is_there = || sh("nft list table ip calico").contains("chain cali-conn-prerouting {");
    driver.change(Table::Filter, &Change::Chain(chain()));
    apply(&mut driver);
    assert!(!is_there());
    driver.change(Table::Mangle, &Change::Chain(chain()));
    apply(&mut driver);
    let base = "type filter hook prerouting priority mangle - 1; policy accept;";
    assert_eq!(lines("ip", "cali-conn-prerouting"), [base, "jump cali-conn-known"]);
    driver.change(Table::Mangle, &Change::NoChain("cali-fh-eth0".to_owned()));
    apply(&mut driver);
    assert!(!is_there());
}

fn the_next_process_begins_the_next_generation_once() {
    let mut first = driver(IpVersion::V6, WIDE);
    apply(&mut first);
    drop(first);
    connection(IpVersion::V6, 1, 0x0006_0001);
    let mut next = driver(IpVersion::V6, WIDE);
    next.observe().unwrap();
    assert!(!next.plan(Phase::Enforce).is_empty());
    apply(&mut next);
    apply(&mut next);
    assert_eq!(generation("ip6"), 7);
    assert_eq!(marks("ipv6"), BTreeMap::from([(1, 0x0006_0001)]));
}

fn what_others_remove_is_put_back_and_begins_a_generation() {
    let mut driver = driver(IpVersion::V4, WIDE);
    apply(&mut driver);
    sh("nft flush chain ip calico filter-cali-FORWARD; nft flush chain ip calico cali-conn-known");
    driver.observe().unwrap();
    apply(&mut driver);
    assert_eq!(generation("ip"), 7);
}

fn numbers_that_are_used_again_are_taken_from_old_connections_before_and_nothing_else_is() {
    let mut driver = driver(IpVersion::V4, NARROW);
    apply(&mut driver);
    let foreign = 0x8000_0007;
    let number = |number: u32| number << 16 | foreign;
    // Never seen, pending, revoked, generations of both halves, and of the other IP version.
    for (port, mark) in [(1, 0), (2, 1), (3, 4), (4, 6), (5, 31), (6, 32), (7, 63)] {
        connection(IpVersion::V4, port, number(mark));
    }
    connection(IpVersion::V6, 8, number(32));
    let numbers = || {
        let marks = marks("ipv4");
        assert!(marks.values().all(|mark| mark & !NARROW == foreign), "{marks:x?}");
        marks.values().map(|mark| (mark & NARROW) >> 16).collect::<Vec<_>>()
    };
    let mut seen = Vec::new();
    for change in 1..=58 {
        let before = numbers();
        want(&mut driver, change);
        apply(&mut driver);
        seen.push(generation("ip"));
        let now = generation("ip");
        let wanted = match now {
            32 => vec![0, 1, 4, 6, 31, 0, 0],
            6 => vec![0, 1, 4, 0, 0, 0, 0],
            _ => before,
        };
        assert_eq!(numbers(), wanted, "generation {now}");
    }
    assert_eq!(seen, (7..=63).chain([6]).collect::<Vec<_>>());
    assert_eq!(marks("ipv6"), BTreeMap::from([(8, number(32))]));
}

fn where_no_generation_is_in_force_connections_lose_what_is_left_of_earlier_ones() {
    for (port, mark) in [(1, 0x0006_0001), (2, 0x0003_0000), (3, 0x0000_ffff), (4, 0xffff_0000)] {
        connection(IpVersion::V4, port, mark);
    }
    sh("conntrack -I -t 1000 -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 5 --dport 53 -m 458753 -w 7");
    let mut driver = driver(IpVersion::V4, WIDE);
    apply(&mut driver);
    assert_eq!(marks("ipv4"), BTreeMap::from([(1, 1), (2, 0), (3, 0xffff), (4, 0), (5, 1)]));
    assert_eq!(generation("ip"), 6);
}
