//! The codec of nf_tables against the kernel, against both `nft` that are about, and against what `nft` sends for the same
//! words.
//!
//! Each shape is written and read back, and the same words go through `nft`: the bytes that it sends, and what is read of
//! its table, must be the same, and both listings too.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/layout.rs"]
mod layout;
#[path = "common/newer_nft.rs"]
mod newer_nft;
#[path = "common/sent.rs"]
mod sent;
#[path = "common/shapes.rs"]
mod shapes;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Outcome, sh, try_sh};
use layout::{Layout, rare_layout};
use nix::errno::Errno;
use tortie_dataplane::nft::{Change, CommitError, ObjectKind, Removal, Socket, Transaction, Watch};
use tortie_rules::ruleset::nft::{
    Chain, Data, Element, Expression, Family, FieldType, Flowtable, Rule, Set, Table, TableId, Verdict,
};

fn main() -> ExitCode {
    let mut tests = tests![["nft", "ip"];
        what_we_send_for_ipv4_is_what_nft_sends,
        what_we_send_for_ipv6_is_what_nft_sends,
        what_we_send_for_other_families_is_what_nft_sends,
        what_we_send_is_what_the_newer_nft_sends,
        what_was_written_is_read_back,
        what_nft_wrote_is_read_as_the_same_tree,
        nft_lists_what_we_wrote_as_it_lists_its_own,
        the_newer_nft_lists_what_we_wrote_as_it_lists_its_own,
        libnftnl_reads_what_we_wrote_as_it_reads_what_nft_wrote,
        a_foreign_rule_is_read_as_such_and_hides_no_other,
    ];
    tests.extend(tests![[];
        a_refused_transaction_names_its_objects_and_changes_nothing,
        a_transaction_planned_from_an_older_generation_is_refused,
        rules_are_replaced_inserted_and_removed_by_handle,
        elements_in_many_messages_all_arrive,
        a_value_of_a_map_changes_by_taking_it_out_first,
        what_is_not_there_can_be_removed_if_that_is_wanted,
        what_is_too_large_for_the_socket_goes_ahead_in_parts,
        what_may_not_be_split_is_refused_unsent,
        a_probe_says_what_the_kernel_lacks_and_leaves_nothing,
        a_transaction_that_the_socket_does_not_take_is_not_sent,
        a_catch_all_and_neighbouring_intervals_stay_apart,
        sixteen_bytes_behind_sixteen_bytes_make_a_key,
        a_watch_tells_who_touched_what,
        lost_events_are_told,
        what_is_committed_unheard_is_not_told_and_nothing_of_others_is_missed,
    ]);
    common::run(tests)
}

fn committed(socket: &mut Socket, transaction: &mut Transaction) {
    if let Err(error) = socket.commit(transaction, None) {
        panic!("{error}: {error:?}");
    }
}

/// What a layout sends, put into the kernel.
fn written(layout: &Layout) -> Socket {
    let mut socket = Socket::new();
    committed(&mut socket, &mut layout.transaction());
    socket
}

fn what_we_send_for_ipv4_is_what_nft_sends() {
    sent::compare(&Layout::new(Family::Ipv4));
    sent::compare(&rare_layout());
}

fn what_we_send_for_ipv6_is_what_nft_sends() {
    sent::compare(&Layout::new(Family::Ipv6));
}

fn what_we_send_for_other_families_is_what_nft_sends() {
    add_bridge();
    sent::compare(&Layout::new(Family::Netdev));
    sent::compare(&Layout::new(Family::Arp));
}

fn what_we_send_is_what_the_newer_nft_sends() -> Outcome {
    add_bridge();
    match newer_nft::find() {
        Ok(program) => {
            for family in FAMILIES {
                sent::compare_unordered(&program, &Layout::new(family).in_newer_words());
            }
            sent::compare_unordered(&program, &rare_layout());
            Outcome::Done
        }
        Err(reason) => Outcome::Skipped(reason),
    }
}

/// An interface beside `lo`, for chains of several.
fn add_bridge() {
    sh(ADD_BRIDGE);
}

const ADD_BRIDGE: &str = "ip link add br0 type bridge";

/// Families of which there are shapes.
const FAMILIES: [Family; 4] = [Family::Ipv4, Family::Ipv6, Family::Netdev, Family::Arp];

fn assert_is_there(socket: &mut Socket, layout: &Layout) {
    let table = &layout.table.id;
    let chains: Vec<Chain> =
        socket.chains(table).unwrap().into_iter().map(|entry| entry.chain.unwrap()).collect();
    let mut expected: Vec<Chain> = layout.chains.iter().map(|(chain, _)| chain.clone()).collect();
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    let mut sorted = chains;
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(sorted, expected);
    for (chain, shapes) in &layout.chains {
        let rules = socket.rules(table, Some(&chain.name)).unwrap();
        assert_eq!(rules.len(), shapes.len(), "{}", chain.name);
        for (entry, shape) in rules.into_iter().zip(shapes) {
            assert_eq!(entry.rule.as_ref(), Ok(&shape.rule), "{}", shape.text);
        }
    }
    let sets = socket.sets(table).unwrap();
    assert_eq!(sets.len(), layout.sets.len());
    for shape in &layout.sets {
        let entry = sets.iter().find(|entry| entry.name == shape.set.name).unwrap();
        assert_eq!(entry.set.as_ref(), Ok(&shape.set));
        let mut elements = shape.elements.clone();
        elements.sort();
        assert_eq!(socket.elements(table, &shape.set).unwrap(), elements, "{}", shape.set.name);
    }
}

fn what_was_written_is_read_back() {
    add_bridge();
    for family in FAMILIES {
        let layout = Layout::new(family);
        let mut socket = written(&layout);
        let tables: Vec<Table> = socket.tables().unwrap().into_iter().map(|entry| entry.table).collect();
        assert!(tables.contains(&layout.table), "{tables:?}");
        assert_is_there(&mut socket, &layout);
    }
}

fn what_nft_wrote_is_read_as_the_same_tree() {
    add_bridge();
    for family in FAMILIES {
        let layout = Layout::new(family);
        layout.load_by_nft("nft");
        assert_is_there(&mut Socket::new(), &layout);
    }
}

/// How a program lists a layout, in words and as JSON without handles, when we wrote it and when `nft` did.
fn assert_listings_agree(program: &str) {
    add_bridge();
    let layouts =
        FAMILIES.into_iter().flat_map(|family| [Layout::new(family), Layout::new(family).in_newer_words()]);
    for layout in layouts {
        let _socket = written(&layout);
        let file = layout.text_file();
        for options in ["", "-j", "-s", "-n -n -n"] {
            let list = format!("{program} {options} list ruleset");
            let (listed, ours) = try_sh(&list);
            assert!(listed, "{list}: {ours}");
            let path = file.path().display();
            let theirs = sh(&format!("unshare --net sh -c '{ADD_BRIDGE}; nft -f {path} && {list}'"));
            assert_same_lines(&without_handles(&ours), &without_handles(&theirs), &list);
        }
        sh(&format!("{program} delete table {}", layout.table.id));
    }
}

/// Says the first line that differs: the whole is long.
fn assert_same_lines(ours: &str, theirs: &str, what: &str) {
    for (our, their) in ours.lines().zip(theirs.lines()) {
        assert_eq!(our, their, "{what}");
    }
    assert_eq!(ours.lines().count(), theirs.lines().count(), "{what}");
}

/// Handles depend on what was there before, and time goes by.
fn without_handles(listing: &str) -> String {
    let mut text = listing.to_owned();
    for word in ["\"handle\": ", "\"expires\": ", " expires "] {
        let mut parts = text.split(word);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept.push_str(word);
            kept.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
        }
        text = kept;
    }
    text
}

fn nft_lists_what_we_wrote_as_it_lists_its_own() {
    assert_listings_agree("nft");
}

fn the_newer_nft_lists_what_we_wrote_as_it_lists_its_own() -> Outcome {
    match newer_nft::find() {
        Ok(program) => {
            assert_listings_agree(&program);
            Outcome::Done
        }
        Err(reason) => Outcome::Skipped(reason),
    }
}

fn libnftnl_reads_what_we_wrote_as_it_reads_what_nft_wrote() {
    add_bridge();
    for family in FAMILIES {
        let layout = Layout::new(family);
        let _socket = written(&layout);
        let file = layout.text_file();
        // What `nft` prints so is what libnftnl makes of the kernel's messages.
        let list = "nft --debug=netlink list ruleset 2>&1";
        let ours = sh(list);
        let known =
            if layout.sets.is_empty() { "[ meta load " } else { "[ lookup reg 1 set verdicts dreg 0 " };
        assert!(ours.contains(known), "a rule is not understood");
        let theirs =
            sh(&format!("unshare --net sh -c '{ADD_BRIDGE}; nft -f {} && {list}'", file.path().display()));
        let [ours, theirs] = [ours, theirs].map(|text| without_numbers(&without_handles(&text)));
        assert_same_lines(&ours, &theirs, list);
        sh(&format!("nft delete table {}", layout.table.id));
    }
}

/// Rules are headed by their handles. `nft` begins a set of intervals with an empty one, and listed as an element of a set
/// is what is left of its time.
fn without_numbers(listing: &str) -> String {
    let strip = |line: &str| {
        let words = line.split(' ').filter(|word| !word.chars().all(|c| c.is_ascii_digit()));
        words.collect::<Vec<_>>().join(" ")
    };
    let is_header =
        |line: &str| FAMILIES.iter().any(|family| line.starts_with(&format!("{} ", family.name())));
    let is_empty_interval = |line: &&str| line.starts_with("\telement 0000") && line.ends_with(": 1 [end]");
    let lines = listing.lines().filter(|line| !is_empty_interval(line));
    let lines = lines.map(|line| if is_header(line) { strip(line) } else { line.to_owned() });
    let mut lines: Vec<String> = lines.collect();
    // The kernel lists the elements of a hash in an order of its own.
    lines.sort();
    lines.join("\n")
}

fn a_foreign_rule_is_read_as_such_and_hides_no_other() {
    let layout = small();
    let mut socket = written_small(&layout);
    let table = &layout.0;
    sh("nft add rule ip calico cali-a quota over 10 mbytes drop");
    sh("nft add rule ip calico cali-a counter accept");
    sh("nft 'add set ip calico strange { typeof osf name; }'");
    sh("nft 'add chain ip calico strange { type filter hook prerouting priority 5; }'");
    let rules = socket.rules(table, Some("cali-a")).unwrap();
    let last = rules.last().unwrap();
    let foreign = &rules[rules.len() - 2];
    assert_eq!(foreign.rule.as_ref().unwrap_err().to_string(), "made by others: expression quota");
    let expected = [Expression::Counter, Expression::Verdict(Verdict::Accept)];
    assert_eq!(last.rule.as_ref().unwrap().expressions, expected);
    assert_eq!(last.counters.len(), 1);
    let sets = socket.sets(table).unwrap();
    let strange = sets.iter().find(|entry| entry.name == "strange").unwrap();
    assert!(strange.set.is_err(), "{strange:?}");
    assert_eq!(socket.chains(table).unwrap().len(), 3);
}

fn table(name: &str) -> Table {
    Table { id: TableId::new(Family::Ipv4, name), comment: None }
}

fn rule(verdict: Verdict) -> Rule {
    Rule { expressions: vec![Expression::Counter, Expression::Verdict(verdict)], comment: None }
}

fn port(number: u16) -> Element {
    Element::new(Data::be16(number))
}

/// A table with the chains `cali-a` and `cali-b`, where one jumps to the other, and the set `cali-s` of ports.
fn small() -> (TableId, Set) {
    (TableId::new(Family::Ipv4, "calico"), Set::new("cali-s", [FieldType::Port]))
}

fn written_small((table_id, set): &(TableId, Set)) -> Socket {
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&table_id.name));
    for name in ["cali-a", "cali-b"] {
        transaction.add_chain(table_id, &Chain::plain(name));
    }
    transaction.add_set(table_id, set);
    transaction.add_elements(table_id, set, &[port(80), port(443)]);
    transaction.add_rule(table_id, "cali-a", &rule(Verdict::Jump("cali-b".to_owned())));
    transaction.add_rule(table_id, "cali-b", &rule(Verdict::Return));
    let mut socket = Socket::new();
    committed(&mut socket, &mut transaction);
    socket
}

fn a_refused_transaction_names_its_objects_and_changes_nothing() {
    let small = small();
    let mut socket = written_small(&small);
    let (table, set) = &small;
    let before = socket.generation().unwrap();
    let mut transaction = Transaction::new();
    transaction.add_chain(table, &Chain::plain("cali-c"));
    transaction.add_rule(table, "cali-c", &rule(Verdict::Accept));
    transaction.add_rule(table, "cali-c", &rule(Verdict::Jump("nowhere".to_owned())));
    transaction.add_rule(table, "absent", &rule(Verdict::Accept));
    transaction.remove_elements(table, set, &[port(1)], Removal::MustExist);
    let error = socket.commit(&mut transaction, None).unwrap_err();
    let CommitError::Refused { failures, ahead: 0 } = &error else { panic!("{error:?}") };
    let objects: Vec<ObjectKind> =
        failures.iter().map(|failure| failure.object.clone().unwrap().kind).collect();
    assert_eq!(
        objects,
        [
            ObjectKind::Rule { chain: "cali-c".to_owned(), number: 1 },
            ObjectKind::Rule { chain: "absent".to_owned(), number: 0 },
            ObjectKind::Elements { set: "cali-s".to_owned(), first: 0, count: 1 },
        ]
    );
    assert!(failures.iter().all(|failure| failure.refusal.is(Errno::ENOENT)), "{failures:?}");
    assert!(error.to_string().contains("rule 1 of chain ip calico cali-c: "), "{error}");
    assert_eq!(socket.generation().unwrap(), before);
    assert_eq!(socket.chains(table).unwrap().len(), 2);
    assert_eq!(socket.elements(table, set).unwrap().len(), 2);
}

fn a_transaction_planned_from_an_older_generation_is_refused() {
    let small = small();
    let mut socket = written_small(&small);
    let read = socket.generation().unwrap();
    committed(&mut Socket::new(), Transaction::new().add_another());
    let mut transaction = Transaction::new();
    transaction.flush_chain(&small.0, "cali-a");
    let error = socket.commit(&mut transaction, Some(read)).unwrap_err();
    assert!(matches!(error, CommitError::Stale { ahead: 0 }), "{error:?}");
    assert_eq!(socket.rules(&small.0, Some("cali-a")).unwrap().len(), 1);
    let now = socket.generation().unwrap();
    socket.commit(&mut transaction, Some(now)).unwrap();
    assert_eq!(socket.rules(&small.0, Some("cali-a")).unwrap(), []);
}

/// What somebody else might do.
trait Other {
    fn add_another(&mut self) -> &mut Self;
}

impl Other for Transaction {
    fn add_another(&mut self) -> &mut Self {
        self.add_table(&table("other"));
        self
    }
}

fn rules_are_replaced_inserted_and_removed_by_handle() {
    let small = small();
    let mut socket = written_small(&small);
    let table = &small.0;
    let verdicts = |socket: &mut Socket| -> Vec<(u64, Verdict)> {
        let rules = socket.rules(table, Some("cali-b")).unwrap();
        let verdict = |rule: Rule| match rule.expressions.last() {
            Some(Expression::Verdict(verdict)) => verdict.clone(),
            other => panic!("{other:?}"),
        };
        rules.into_iter().map(|entry| (entry.handle, verdict(entry.rule.unwrap()))).collect()
    };
    let first = verdicts(&mut socket)[0].0;
    let mut transaction = Transaction::new();
    transaction.insert_rule(table, "cali-b", &rule(Verdict::Accept));
    transaction.add_rule_behind(table, "cali-b", first, &rule(Verdict::Drop));
    transaction.insert_rule_before(table, "cali-b", first, &rule(Verdict::Continue));
    committed(&mut socket, &mut transaction);
    let found = verdicts(&mut socket);
    let kinds: Vec<&Verdict> = found.iter().map(|(_, verdict)| verdict).collect();
    assert_eq!(kinds, [&Verdict::Accept, &Verdict::Continue, &Verdict::Return, &Verdict::Drop]);
    let mut transaction = Transaction::new();
    transaction.replace_rule(table, "cali-b", first, &rule(Verdict::Accept));
    transaction.remove_rule(table, "cali-b", found[1].0);
    committed(&mut socket, &mut transaction);
    let kinds: Vec<Verdict> = verdicts(&mut socket).into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!(kinds, [Verdict::Accept, Verdict::Accept, Verdict::Drop]);
    let mut transaction = Transaction::new();
    transaction.flush_table(table);
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.rules(table, None).unwrap(), []);
}

fn elements_in_many_messages_all_arrive() {
    let (id, _) = small();
    let set = Set::new("hosts", [FieldType::Ipv4]);
    let elements: Vec<Element> =
        (0..20_000u32).map(|number| Element::new(Data::be32(0x0a00_0000 + number))).collect();
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&id.name));
    transaction.add_set(&id, &set);
    transaction.add_elements(&id, &set, &elements);
    assert!(transaction.len() > 5, "{} messages", transaction.len());
    let ObjectKind::Elements { first, count, .. } = transaction.object(3).unwrap().kind else { panic!() };
    assert!(first > 1000 && count == first, "{first} {count}");
    let mut socket = Socket::new();
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.elements(&id, &set).unwrap(), elements);
    let mut transaction = Transaction::new();
    transaction.remove_elements(&id, &set, &elements[10..], Removal::MustExist);
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.elements(&id, &set).unwrap(), elements[..10]);
    let mut transaction = Transaction::new();
    transaction.flush_set(&id, "hosts");
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.elements(&id, &set).unwrap(), []);
}

fn a_value_of_a_map_changes_by_taking_it_out_first() {
    let (id, _) = small();
    let map = Set::verdict_map("map", [FieldType::Port]);
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&id.name));
    transaction.add_set(&id, &map);
    transaction.add_elements(&id, &map, &[port(80).verdict(Verdict::Accept)]);
    let mut socket = Socket::new();
    committed(&mut socket, &mut transaction);
    let drop = port(80).verdict(Verdict::Drop);
    let mut transaction = Transaction::new();
    transaction.add_elements(&id, &map, [&drop]);
    let error = socket.commit(&mut transaction, None).unwrap_err();
    let CommitError::Refused { failures, .. } = &error else { panic!("{error:?}") };
    assert!(failures[0].refusal.is(Errno::EEXIST));
    let mut transaction = Transaction::new();
    transaction.remove_elements(&id, &map, [&drop], Removal::MustExist);
    transaction.add_elements(&id, &map, [&drop]);
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.elements(&id, &map).unwrap(), [drop]);
}

fn what_is_not_there_can_be_removed_if_that_is_wanted() {
    let small = small();
    let mut socket = written_small(&small);
    let (table, set) = &small;
    let mut transaction = Transaction::new();
    transaction.remove_elements(table, set, &[port(1)], Removal::IfPresent);
    transaction.remove_set(table, "absent", Removal::IfPresent);
    transaction.remove_chain(table, "absent", Removal::IfPresent);
    transaction.remove_table(&TableId::new(Family::Ipv6, "absent"), Removal::IfPresent);
    committed(&mut socket, &mut transaction);
    let mut transaction = Transaction::new();
    transaction.remove_table(table, Removal::MustExist);
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.tables().unwrap(), []);
    assert!(matches!(socket.commit(&mut transaction, None), Err(CommitError::Refused { .. })));
}

/// A new table with ten chains of a hundred rules each, and at the end a rule that leads to them.
fn large(table_id: &TableId) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&table_id.name));
    transaction.add_chain(table_id, &Chain::plain("cali-main"));
    for chain in 0..10 {
        let name = format!("cali-{chain}");
        transaction.add_chain(table_id, &Chain::plain(&name));
        for _ in 0..100 {
            transaction.add_rule(table_id, &name, &rule(Verdict::Return));
        }
    }
    transaction.split_here();
    transaction.add_rule(table_id, "cali-main", &rule(Verdict::Jump("cali-9".to_owned())));
    transaction
}

fn what_is_too_large_for_the_socket_goes_ahead_in_parts() {
    let (id, _) = small();
    let mut transaction = large(&id);
    // The kernel keeps twice what is asked for.
    let mut socket = Socket::with_send_buffer(20_000);
    assert!(transaction.bytes() > 2 * 40_000);
    let before = socket.generation().unwrap();
    socket.commit(&mut transaction, Some(before)).unwrap();
    let commits = socket.generation().unwrap().0 - before.0;
    assert!((2..=5).contains(&commits), "{commits}");
    assert_eq!(socket.rules(&id, None).unwrap().len(), 1001);
    // Through a socket that takes all of it, it is one.
    let mut socket = Socket::new();
    let before = socket.generation().unwrap();
    committed(&mut socket, &mut large(&TableId::new(Family::Ipv4, "other")));
    assert_eq!(socket.generation().unwrap().0 - before.0, 1);
}

fn what_may_not_be_split_is_refused_unsent() {
    let (id, _) = small();
    let mut transaction = large(&id);
    for _ in 0..1000 {
        transaction.add_rule(&id, "cali-main", &rule(Verdict::Accept));
    }
    let mut socket = Socket::with_send_buffer(20_000);
    let error = socket.commit(&mut transaction, None).unwrap_err();
    assert!(matches!(error, CommitError::TooLarge { bytes: 100_000.., .. }), "{error:?}");
    assert_eq!(socket.tables().unwrap(), []);
}

fn a_probe_says_what_the_kernel_lacks_and_leaves_nothing() {
    let (id, _) = small();
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&id.name));
    transaction.add_chain(&id, &Chain::plain("cali-a"));
    transaction.add_rule(&id, "cali-a", &rule(Verdict::Accept));
    let offload = Expression::FlowOffload { flowtable: "absent".to_owned() };
    transaction.add_rule(&id, "cali-a", &Rule { expressions: vec![offload], comment: None });
    let flowtable = Flowtable { name: "cali-f".to_owned(), priority: 0, devices: vec![], counter: false };
    transaction.add_flowtable(&id, &flowtable);
    let mut socket = Socket::new();
    let failures = socket.probe(&mut transaction).unwrap();
    let kinds: Vec<ObjectKind> = failures.into_iter().map(|failure| failure.object.unwrap().kind).collect();
    assert!(kinds.contains(&ObjectKind::Rule { chain: "cali-a".to_owned(), number: 1 }), "{kinds:?}");
    assert!(!kinds.contains(&ObjectKind::Rule { chain: "cali-a".to_owned(), number: 0 }), "{kinds:?}");
    assert_eq!(socket.tables().unwrap(), []);
}

fn a_transaction_that_the_socket_does_not_take_is_not_sent() {
    let (id, _) = small();
    let mut socket = Socket::with_send_buffer(20_000);
    // A probe goes in one datagram, whatever the transaction allows.
    let error = socket.probe(&mut large(&id)).unwrap_err();
    assert!(matches!(error, CommitError::NotSent(_)), "{error:?}");
    assert_eq!(socket.tables().unwrap(), []);
}

fn a_catch_all_and_neighbouring_intervals_stay_apart() {
    let (id, _) = small();
    let map = Set::verdict_map("map", [FieldType::Ipv4]).of_intervals();
    let interval = |first: u32, last: u32| Element::interval(Data::be32(first), Data::be32(last));
    let elements = [
        interval(0, 9).verdict(Verdict::Accept),
        interval(10, 10).verdict(Verdict::Drop),
        interval(11, 19).verdict(Verdict::Return).comment("the last of three"),
        interval(0xffff_ff00, u32::MAX).verdict(Verdict::Drop),
    ];
    let mut transaction = Transaction::new();
    transaction.add_table(&table(&id.name));
    transaction.add_set(&id, &map);
    transaction.add_elements(&id, &map, &elements);
    transaction.add_elements(&id, &map, &[Element::catch_all().verdict(Verdict::Return)]);
    let mut socket = Socket::new();
    committed(&mut socket, &mut transaction);
    let mut read = socket.elements(&id, &map).unwrap();
    assert_eq!(read.pop(), Some(Element::catch_all().verdict(Verdict::Return)));
    assert_eq!(read, elements);
    let mut transaction = Transaction::new();
    transaction.remove_elements(&id, &map, [&elements[1], &elements[3]], Removal::MustExist);
    transaction.remove_elements(&id, &map, &[Element::catch_all()], Removal::MustExist);
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.elements(&id, &map).unwrap(), [elements[0].clone(), elements[2].clone()]);
}

fn sixteen_bytes_behind_sixteen_bytes_make_a_key() {
    let id = TableId::new(Family::Ipv6, "calico");
    let set = Set::new("pairs", [FieldType::Ipv6, FieldType::Ipv6, FieldType::Protocol, FieldType::Port]);
    let address = |last: u8| Data::new(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let element =
        Element::new(Data::concat([address(1), address(2), Data::u8(6), Data::be16(80)])).comment("a pair");
    let mut transaction = Transaction::new();
    transaction.add_table(&Table { id: id.clone(), comment: Some("ours".to_owned()) });
    transaction.add_set(&id, &set);
    transaction.add_elements(&id, &set, [&element]);
    let mut socket = Socket::new();
    committed(&mut socket, &mut transaction);
    assert_eq!(socket.elements(&id, &set).unwrap(), [element]);
}

fn a_watch_tells_who_touched_what() {
    let small = small();
    let mut watch = Watch::open().unwrap();
    let mut socket = written_small(&small);
    let id = &small.0;
    let heard = watch.poll();
    assert!(!heard.lost);
    let [commit] = heard.commits.as_slice() else { panic!("{heard:?}") };
    assert_eq!(commit.port, socket.port().unwrap());
    assert_eq!(commit.generation, Some(socket.generation().unwrap().0));
    let chain = |name: &str| Change::Chain(id.clone(), name.to_owned());
    let rules = |name: &str| Change::Rules(id.clone(), name.to_owned());
    let expected = [
        Change::Table(id.clone()),
        chain("cali-a"),
        chain("cali-b"),
        rules("cali-a"),
        rules("cali-b"),
        Change::Set(id.clone(), "cali-s".to_owned()),
        Change::Elements(id.clone(), "cali-s".to_owned()),
    ];
    assert_eq!(commit.changes, BTreeSet::from(expected));
    let mut other = Socket::new();
    let mut transaction = Transaction::new();
    transaction.flush_chain(id, "cali-b");
    committed(&mut other, &mut transaction);
    transaction.clear();
    transaction.flush_set(id, "cali-s");
    committed(&mut other, &mut transaction);
    let heard = watch.poll();
    let ports: Vec<u32> = heard.commits.iter().map(|commit| commit.port).collect();
    assert_eq!(ports, [other.port().unwrap(); 2]);
    assert_eq!(heard.commits[0].changes, BTreeSet::from([rules("cali-b")]));
    assert_eq!(heard.commits[1].changes, BTreeSet::from([Change::Elements(id.clone(), "cali-s".to_owned())]));
    assert!(heard.commits[0].changes.iter().all(|change| change.table() == id));
    assert!(!heard.commits[1].program.is_empty());
    assert_eq!(watch.poll(), tortie_dataplane::nft::Heard::default());
}

fn lost_events_are_told() {
    let mut watch = Watch::with_event_buffer(4096).unwrap();
    let (id, _) = small();
    committed(&mut Socket::new(), &mut large(&id));
    committed(&mut Socket::new(), &mut large(&TableId::new(Family::Ipv4, "other")));
    assert!(watch.poll().lost);
    assert!(!watch.poll().lost, "it is told once");
}

/// Others commit all the time meanwhile, and each of their commits is heard of, or else it is said that some were not.
fn what_is_committed_unheard_is_not_told_and_nothing_of_others_is_missed() {
    let mut watch = Watch::open().unwrap();
    let (ear, mut socket, id) = (watch.ear(), Socket::new(), small().0);
    assert!(!socket.commit_unheard(&mut large(&id), &ear).unwrap(), "nobody else is here");
    assert_eq!(watch.poll(), tortie_dataplane::nft::Heard::default());
    let mut again = Transaction::new();
    for chain in 0..10 {
        let name = format!("cali-{chain}");
        again.flush_chain(&id, &name);
        (0..100).for_each(|_| again.add_rule(&id, &name, &rule(Verdict::Return)));
    }
    let (stop, has_begun) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut written, mut heard, mut undisturbed) = (BTreeSet::new(), BTreeSet::new(), 0);
    for round in 0..40 {
        stop.store(false, Ordering::Relaxed);
        has_begun.store(false, Ordering::Relaxed);
        let outcome = thread::scope(|scope| {
            let others = scope.spawn(|| write_until(&stop, &has_begun, round));
            while !has_begun.load(Ordering::Relaxed) && !others.is_finished() {
                thread::yield_now();
            }
            let outcome = socket.commit_unheard(&mut again, &ear);
            stop.store(true, Ordering::Relaxed);
            written.extend(others.join().unwrap());
            outcome
        });
        let told = watch.poll();
        assert!(!told.lost);
        let names = told.commits.iter().flat_map(|commit| &commit.changes);
        heard.extend(names.map(|change| change.table().name.clone()));
        match outcome {
            // What was missed is known to be missing.
            Ok(true) | Err(CommitError::Stale { ahead: 0 }) => heard.extend(written.iter().cloned()),
            Ok(false) => undisturbed += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(written.is_subset(&heard), "not heard of: {:?}", written.difference(&heard));
    }
    assert!(!written.is_empty() && undisturbed < 40, "{} by others, {undisturbed}", written.len());
}

/// Makes tables, one after the other. Returns their names.
fn write_until(stop: &AtomicBool, has_begun: &AtomicBool, round: usize) -> Vec<String> {
    let mut socket = Socket::new();
    let mut names = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("other-{round}-{}", names.len());
        let mut transaction = Transaction::new();
        transaction.add_table(&table(&name));
        committed(&mut socket, &mut transaction);
        names.push(name);
        has_begun.store(true, Ordering::Relaxed);
    }
    names
}
