//! Reading nf_tables, and programming it, while somebody else commits to a table of theirs without a pause.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use ipnet::IpNet;
use tortie_api::net::IpVersion;
use tortie_dataplane::netlink::NetlinkError;
use tortie_dataplane::nft::driver::{NftTable, Touch, touches};
use tortie_dataplane::nft::{Removal, Socket, Transaction, Watch};
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_rules::compile::Change;
use tortie_rules::compile::classic::{SetChange, SetType};
use tortie_rules::graph::model::Member;
use tortie_rules::render::Table as IptablesTable;
use tortie_rules::ruleset::nft::{
    Chain, Data, Element, Expression, Family, FieldType, Rule, Set, Table, TableId, Verdict,
};
use tortie_rules::ruleset::{self, Action, Hook, Key, Map, MapType, Match, SetKey, Side};

fn main() -> ExitCode {
    common::run(tests![[];
        rules_elements_sets_and_chains_are_read_as_they_were_written,
        chains_are_found_by_name_and_none_is_listed_twice,
        a_table_that_others_change_as_well_is_read_again_until_it_stands,
        a_table_is_taken_over_changed_and_repaired,
        a_table_is_loaded_in_bulk_while_it_is_listened_to,
        a_large_load_of_sets_and_rules_is_not_told_to_ourselves,
        a_large_load_of_maps_is_not_told_to_ourselves,
    ])
}

fn others() -> TableId {
    TableId::new(Family::Ipv4, "others")
}

fn table(id: &TableId) -> Table {
    Table { id: id.clone(), comment: None }
}

fn commit(socket: &mut Socket, transaction: &mut Transaction) {
    if let Err(error) = socket.commit(transaction, None) {
        panic!("{error}: {error:?}");
    }
}

/// Does something while others add chains to their table and delete them again; once more if they have not meanwhile.
fn while_others_write(mut work: impl FnMut()) {
    let (stop, commits) = (AtomicBool::new(false), AtomicUsize::new(0));
    let names: Vec<String> = (0..40).map(|number| format!("other-{number}")).collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut socket = Socket::new();
            while !stop.load(Ordering::Relaxed) {
                let mut transaction = Transaction::new();
                transaction.add_table(&table(&others()));
                names.iter().for_each(|name| transaction.add_chain(&others(), &Chain::plain(name)));
                commit(&mut socket, &mut transaction);
                transaction.clear();
                for name in &names {
                    transaction.remove_chain(&others(), name, Removal::MustExist);
                }
                commit(&mut socket, &mut transaction);
                commits.fetch_add(2, Ordering::Relaxed);
            }
        });
        while commits.load(Ordering::Relaxed) == 0 && !writer.is_finished() {
            thread::yield_now();
        }
        let before = commits.load(Ordering::Relaxed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work();
            while commits.load(Ordering::Relaxed) == before && !writer.is_finished() {
                work();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// The table of others, in the list before whatever comes later.
fn add_others() {
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&others()));
    commit(&mut Socket::new(), &mut transaction);
}

fn numbered(number: usize) -> Rule {
    let comment = Some(format!("rule {number}"));
    Rule { expressions: vec![Expression::Counter, Expression::Verdict(Verdict::Return)], comment }
}

fn chain_name(number: usize) -> String {
    format!("cali-{number:04}")
}

fn rules_elements_sets_and_chains_are_read_as_they_were_written() {
    let id = TableId::new(Family::Ipv4, "calico");
    let hosts = Set::new("hosts", [FieldType::Ipv4]);
    let elements: Vec<Element> = (0..100_000u32).map(|n| Element::new(Data::be32(0x0a00_0000 + n))).collect();
    let ranges = Set::new("ranges", [FieldType::Ipv4]).of_intervals();
    let interval = |n: u32| Element::interval(Data::be32(n * 10), Data::be32(n * 10 + 4));
    let intervals: Vec<Element> = (1..20_000).map(interval).collect();
    let (chains, rules) = (1000, 20);
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&id));
    for (set, elements) in [(&hosts, &elements), (&ranges, &intervals)] {
        transaction.add_set(&id, set);
        transaction.add_elements(&id, set, elements);
    }
    let more: Vec<String> = (0..1000).map(|number| format!("set-{number:04}")).collect();
    more.iter().for_each(|name| transaction.add_set(&id, &Set::new(name, [FieldType::Port])));
    for number in 0..chains {
        transaction.add_chain(&id, &Chain::plain(chain_name(number)));
        (0..rules).for_each(|rule| transaction.add_rule(&id, &chain_name(number), &numbered(rule)));
    }
    let mut socket = Socket::new();
    commit(&mut socket, &mut transaction);
    while_others_write(|| {
        let read = socket.rules(&id, None).unwrap();
        let read: Vec<(String, Rule)> =
            read.into_iter().map(|entry| (entry.chain, entry.rule.unwrap())).collect();
        let of_chain = |chain| (0..rules).map(move |rule| (chain_name(chain), numbered(rule)));
        assert!(read == (0..chains).flat_map(of_chain).collect::<Vec<_>>(), "{} rules", read.len());
        assert_eq!(socket.rules(&id, Some(&chain_name(7))).unwrap().len(), rules);
        assert!(socket.elements(&id, &hosts).unwrap() == elements);
        assert!(socket.elements(&id, &ranges).unwrap() == intervals);
        let sets: Vec<String> = socket.sets(&id).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(sets, [vec!["hosts".to_owned(), "ranges".to_owned()], more.clone()].concat());
        // The table of others comes behind ours.
        let read: Vec<String> = socket.chains(&id).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(read, (0..chains).map(chain_name).collect::<Vec<_>>());
        assert_eq!(socket.table(&id).unwrap().unwrap().table.id, id);
        assert_eq!(socket.tables().unwrap().len(), 2);
        assert_eq!(socket.flowtables(&id).unwrap(), []);
    });
}

fn chains_are_found_by_name_and_none_is_listed_twice() {
    add_others();
    let id = TableId::new(Family::Ipv4, "calico");
    let mut socket = Socket::new();
    assert_eq!(socket.table(&id).unwrap(), None);
    assert_eq!(socket.chains_named(&id, [&"x".to_owned()]).unwrap(), []);
    let names: Vec<String> = (0..1000).map(chain_name).collect();
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&id));
    names.iter().for_each(|name| transaction.add_chain(&id, &Chain::plain(name)));
    commit(&mut socket, &mut transaction);
    let asked: Vec<String> = (500..1500).map(chain_name).collect();
    while_others_write(|| {
        for _ in 0..10 {
            let found = socket.chains_named(&id, &asked).unwrap();
            let found: Vec<&String> = found.iter().map(|entry| &entry.name).collect();
            assert_eq!(found, names[500..].iter().collect::<Vec<_>>());
            let listed: Vec<String> = socket.chains(&id).unwrap().into_iter().map(|e| e.name).collect();
            assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len());
        }
    });
}

/// Who changes the very table that is read, and then stops, leaves a reading of it as it is then.
fn a_table_that_others_change_as_well_is_read_again_until_it_stands() {
    add_others();
    let mut socket = Socket::new();
    while_others_write(|| {
        for _ in 0..200 {
            match socket.chains(&others()) {
                Ok(chains) => assert!(chains.len() <= 40, "{}", chains.len()),
                Err(error) => assert!(matches!(error, NetlinkError::Unsteady), "{error}"),
            }
            assert!(socket.table(&others()).unwrap().is_some());
        }
    });
    assert_eq!(socket.chains(&others()).unwrap(), []);
}

fn host(number: u32) -> Member {
    Member::Net(IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))))
}

/// Wants so many chains, each with rules that look into a set of its own.
fn wanting(chains: u32) -> NftTable {
    let mut driver = NftTable::new(IpVersion::V4, vec!["cali+".to_owned()]);
    for number in 0..chains {
        let name = format!("cali40s:{number}");
        let members = (number * 50..number * 50 + 50).map(host).collect();
        let (version, set_type) = (IpVersion::V4, SetType::Net);
        driver.change_set(&SetChange::Want { name, version, set_type, members });
        want_chain(&mut driver, number, 20);
    }
    let jump = |number| ruleset::Rule::always(Action::Jump(format!("cali-pi-{number}")));
    let hook = Hook { chain: "FORWARD", inserted: (0..chains).map(jump).collect(), appended: Vec::new() };
    driver.change(IptablesTable::Filter, &Change::Hooks(vec![hook]));
    driver
}

fn want_chain(driver: &mut NftTable, number: u32, rules: usize) {
    let set = Match::Set {
        name: format!("cali40s:{number}"),
        side: Side::Source,
        key: SetKey::Address,
        negate: false,
    };
    let rule = ruleset::Rule::when(vec![set], Action::SetMark(0x10000));
    let chain = ruleset::Chain { name: format!("cali-pi-{number}"), rules: vec![rule; rules] };
    driver.change(IptablesTable::Filter, &Change::Chain(chain));
}

/// Both phases.
fn apply(driver: &mut NftTable) -> Report {
    let mut report = driver.apply(Phase::Enforce);
    report.merge(driver.apply(Phase::Withdraw));
    report
}

fn is_settled(driver: &NftTable) -> bool {
    driver.plan(Phase::Enforce).is_empty() && driver.plan(Phase::Withdraw).is_empty()
}

fn a_table_is_taken_over_changed_and_repaired() {
    add_others();
    let mut first = wanting(200);
    while_others_write(|| {
        assert_eq!(apply(&mut first).problems, []);
        assert!(is_settled(&first));
    });
    let mut driver = wanting(200);
    while_others_write(|| {
        for round in 1..10 {
            driver.observe().unwrap();
            assert!(is_settled(&driver), "{}", driver.plan(Phase::Enforce));
            want_chain(&mut driver, 7 * round, 10);
            assert_eq!(apply(&mut driver).problems, []);
            assert!(is_settled(&driver));
        }
    });
    let mut socket = Socket::new();
    let (ours, mut damage) = (tortie_rules::render::nft::table(IpVersion::V4), Transaction::new());
    (0..100).for_each(|number| damage.flush_chain(&ours, &format!("filter-cali-pi-{number}")));
    let damaged: BTreeSet<String> = (0..100).map(|number| format!("filter-cali-pi-{number}")).collect();
    while_others_write(|| {
        commit(&mut socket, &mut damage);
        driver.touch(Touch::Parts { chains: damaged.clone(), sets: BTreeSet::new() });
        driver.observe_touched().unwrap();
        let report = apply(&mut driver);
        assert_eq!((report.changed, report.problems), (100, Vec::new()));
        driver.observe().unwrap();
        assert!(is_settled(&driver));
    });
}

fn a_table_is_loaded_in_bulk_while_it_is_listened_to() {
    add_others();
    let mut watch = Watch::open().unwrap();
    let mut driver = wanting(400);
    driver.close_in_bulk(watch.ear());
    while_others_write(|| {
        driver.observe().unwrap();
        assert_eq!(apply(&mut driver).problems, []);
        assert!(is_settled(&driver));
    });
    // Whatever was missed, if anything was, does not show as a change of ours.
    let port = driver.port().unwrap();
    let heard = watch.poll();
    if !heard.lost {
        assert_eq!(touches(&heard, &[port]), BTreeMap::new());
    }
    driver.observe().unwrap();
    assert!(is_settled(&driver));
}

/// Loads what a driver wants; nobody else writes. Who listens all the time loses events of it.
fn assert_load_is_not_told(driver: &mut NftTable) {
    let (mut ours, mut loud) = (Watch::open().unwrap(), Watch::open().unwrap());
    driver.close_in_bulk(ours.ear());
    driver.observe().unwrap();
    assert_eq!(apply(driver).problems, []);
    assert!(is_settled(driver));
    let heard = ours.poll();
    assert!(!heard.lost);
    assert_eq!(touches(&heard, &[driver.port().unwrap()]), BTreeMap::new());
    assert!(loud.poll().lost, "the load is too small to say anything");
    let report = driver.observe_touched().map(|()| apply(driver));
    assert_eq!(report.unwrap(), Report::default(), "nothing is read again");
    // And it listens again.
    let mut transaction = Transaction::new();
    transaction.flush_chain(&tortie_rules::render::nft::table(IpVersion::V4), "filter-cali-pi-7");
    commit(&mut Socket::new(), &mut transaction);
    assert!(!touches(&ours.poll(), &[driver.port().unwrap()]).is_empty());
}

/// As chains with rules and sets have it.
fn a_large_load_of_sets_and_rules_is_not_told_to_ourselves() {
    let mut driver = wanting(200);
    for number in 0..220 {
        let name = format!("cali40s:large-{number}");
        let members = (number * 1000..number * 1000 + 1000).map(host).collect();
        let (version, set_type) = (IpVersion::V4, SetType::Net);
        driver.change_set(&SetChange::Want { name, version, set_type, members });
    }
    assert_load_is_not_told(&mut driver);
}

/// As tables of policy have it.
fn a_large_load_of_maps_is_not_told_to_ourselves() {
    let mut driver = wanting(200);
    for number in 0..24u32 {
        let key = |host: u32| Key::Address(std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).into());
        let to = |host: u32| ruleset::Verdict::Goto(format!("cali-pi-{}", host % 200).into());
        let elements = (0..10_000).map(|host| (key(host), to(host))).collect();
        let (name, holds) = (format!("cali-map-{number}"), MapType::Address);
        driver.change(IptablesTable::Filter, &Change::Map(Map { name, holds, all: None, elements }));
    }
    assert_load_is_not_told(&mut driver);
}
