//! The drivers against the libraries that others use: libnftnl, libmnl and libipset read what we wrote, and act as
//! the foreign tool. The `iptables` crate stands for the many programs that call `iptables` rule by rule.
//!
//! Of nf_tables' objects the safe API of `nftnl` reads tables only, so chains and rules come in by `mnl`, which checks
//! and splits messages, and two attributes of each are read here. What it can write it writes for our codec to read; what
//! libnftnl makes of each shape of ours `nft --debug=netlink` prints, in the tests named `nft`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/tables.rs"]
mod tables;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};

use common::Test;
use ipset::types::{HashIp, HashIpPort, HashNet, ListResult, NetDataType, SetType as LibrarySet};
use ipset::{IPSet, Session};
use iptables::IPTables;
use mnl::{Bus, CbResult, Socket};
use nftnl::expr::InterfaceName;
use nftnl::{Batch, Chain, MsgType, ProtoFamily, Rule, nft_expr};
use tables::{
    Case, LEGACY_V4, LEGACY_V6, NFT_V4, NFT_V6, POLICY, Watched, add_foreign_rules, enforce, ids_of, matrix,
    nft,
};
use tortie_api::net::IpVersion;
use tortie_dataplane::feature::Backend;
use tortie_dataplane::ipset::{IpSets, Member, SetSpec, SetType};
use tortie_dataplane::nft::{Socket as NftSocket, Transaction};
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_rules::render::Table;
use tortie_rules::ruleset::nft;

fn main() -> ExitCode {
    let mut tests = matrix![
        the_iptables_crate_reads_the_rules_that_we_wrote,
        rules_that_the_iptables_crate_puts_between_ours_stay,
        what_the_iptables_crate_does_to_our_chains_is_mended,
    ];
    tests.extend(nft![
        libmnl_reads_the_chains_and_rules_that_we_wrote,
        a_chain_flushed_through_libnftnl_is_mended,
        a_rule_added_through_libnftnl_goes,
        chains_deleted_through_libnftnl_come_back,
        a_table_deleted_through_libnftnl_comes_back,
    ]);
    tests.extend(tests![[];
        libipset_reads_the_members_that_our_codec_wrote,
        what_libipset_does_to_our_sets_is_mended,
        a_set_that_libipset_made_is_taken_over_without_a_write,
        what_libnftnl_wrote_our_codec_reads,
        libnftnl_and_libmnl_read_what_our_codec_wrote,
    ]);
    common::run(tests)
}

/// From linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NFTA_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_CHAIN: u16 = 2;
/// A netlink message's header, and nf_tables' own behind it.
const HEADER: usize = 16 + 4;

fn family(version: IpVersion) -> ProtoFamily {
    if version == IpVersion::V4 { ProtoFamily::Ipv4 } else { ProtoFamily::Ipv6 }
}

/// What is in a message, by attribute; strings without their end.
fn attributes(message: &[u8]) -> BTreeMap<u16, String> {
    let mut rest = message.get(HEADER..).unwrap_or_default();
    let mut found = BTreeMap::new();
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & 0x3fff;
        let text = String::from_utf8_lossy(&rest[4..length]);
        found.insert(kind, text.trim_end_matches('\0').to_owned());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// What is there of a kind, as (table, chain).
fn dump(version: IpVersion, message: u16, chain: u16) -> Vec<(String, String)> {
    let socket = Socket::new(Bus::Netfilter).unwrap();
    let mut request = Vec::new();
    request.extend(u32::try_from(HEADER).unwrap().to_ne_bytes());
    request.extend((NFNL_SUBSYS_NFTABLES << 8 | message).to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend(1u32.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend([u8::try_from(family(version) as u16).unwrap(), 0, 0, 0]);
    socket.send(&request).unwrap();
    let mut buffer = vec![0; nftnl::nft_nlmsg_maxsize() as usize];
    let mut found = Vec::new();
    loop {
        for message in socket.recv(&mut buffer).unwrap() {
            let message = message.unwrap();
            if matches!(mnl::cb_run(message, 1, socket.portid()).unwrap(), CbResult::Stop) {
                return found;
            }
            let mut attributes = attributes(message);
            let mut text = |kind| attributes.remove(&kind).unwrap();
            found.push((text(NFTA_TABLE), text(chain)));
        }
    }
}

/// The chains of nf_tables with their numbers of rules, by table.
fn chains(version: IpVersion) -> BTreeMap<(String, String), usize> {
    let chains = dump(version, NFT_MSG_GETCHAIN, NFTA_CHAIN_NAME);
    let mut counts: BTreeMap<_, _> = chains.into_iter().map(|chain| (chain, 0)).collect();
    for chain in dump(version, NFT_MSG_GETRULE, NFTA_RULE_CHAIN) {
        *counts.get_mut(&chain).expect("rules are in chains that are there") += 1;
    }
    counts
}

/// The tables of all families.
fn table_names() -> BTreeSet<CString> {
    let socket = Socket::new(Bus::Netfilter).unwrap();
    socket.send(&nftnl::table::get_tables_nlmsg(1)).unwrap();
    let mut buffer = vec![0; nftnl::nft_nlmsg_maxsize() as usize];
    let mut names = HashSet::new();
    loop {
        for message in socket.recv(&mut buffer).unwrap() {
            let message = message.unwrap();
            let result = mnl::cb_run2(message, 1, socket.portid(), nftnl::table::get_tables_cb, &mut names);
            if matches!(result.unwrap(), CbResult::Stop) {
                return names.into_iter().collect();
            }
        }
    }
}

/// Commits, and reads the kernel's answers until it has answered all.
fn commit(batch: Batch) {
    let batch = batch.finalize();
    let socket = Socket::new(Bus::Netfilter).unwrap();
    socket.send_all(&batch).unwrap();
    let mut buffer = vec![0; nftnl::nft_nlmsg_maxsize() as usize];
    let mut numbers = batch.sequence_numbers();
    while !numbers.is_empty() {
        for message in socket.recv(&mut buffer).unwrap() {
            let number = numbers.next().expect("no more answers than messages");
            mnl::cb_run(message.unwrap(), number, socket.portid()).unwrap();
        }
    }
}

fn filter(case: Case) -> nftnl::Table {
    nftnl::Table::new(c"filter", family(case.version))
}

/// Deletes all rules of a chain: a rule that names nothing but its chain stands for all.
fn flush(batch: &mut Batch, table: &nftnl::Table, chain: &CStr) {
    let chain = Chain::new(chain, table);
    batch.add(&Rule::new(&chain), MsgType::Del);
}

/// What `iptables-save` says, in the form of [`chains`]. It prints the kernel's three chains whether or not they are there.
fn saved(case: Case) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    let lines = case.save(Table::Filter);
    for line in lines.iter().filter_map(|line| line.strip_prefix(':')) {
        counts.insert(("filter".to_owned(), line.split(' ').next().unwrap().to_owned()), 0);
    }
    for line in lines.iter().filter_map(|line| line.strip_prefix("-A ")) {
        *counts.get_mut(&("filter".to_owned(), line.split(' ').next().unwrap().to_owned())).unwrap() += 1;
    }
    counts.retain(|(_, chain), rules| chain != "OUTPUT" || *rules > 0);
    counts
}

fn libmnl_reads_the_chains_and_rules_that_we_wrote(case: Case) {
    add_foreign_rules(case);
    let mut driver = case.programmed();
    let read = chains(case.version);
    for (name, actions) in POLICY {
        assert_eq!(read[&("filter".to_owned(), name.to_owned())], actions.len(), "{name}");
    }
    assert_eq!(read, saved(case));
    assert_eq!(table_names(), BTreeSet::from([c"filter".to_owned()]));
    driver.observe().unwrap();
    assert_eq!(enforce(&mut driver), Report::default(), "our reader sees what libmnl sees");
}

fn a_chain_flushed_through_libnftnl_is_mended(case: Case) {
    let mut watched = Watched::programmed(case);
    let before = chains(case.version);
    for name in [c"cali-from-wl", c"cali-FORWARD", c"FORWARD"] {
        let (mut batch, table) = (Batch::new(), filter(case));
        flush(&mut batch, &table, name);
        commit(batch);
        assert_eq!(chains(case.version)[&("filter".to_owned(), name.to_str().unwrap().to_owned())], 0);
        assert_eq!(watched.mend(case).expect("it is heard of").calls, 1, "{name:?}");
        assert_eq!(chains(case.version), before, "{name:?}");
        case.assert_policy_is_in_force();
        assert_eq!(watched.mend(case), None, "what was mended is no news");
    }
}

fn a_rule_added_through_libnftnl_goes(case: Case) {
    let mut watched = Watched::programmed(case);
    let before = chains(case.version);
    let (mut batch, table) = (Batch::new(), filter(case));
    let chain = Chain::new(c"cali-to-wl", &table);
    let mut rule = Rule::new(&chain);
    rule.add_expr(&nft_expr!(counter));
    rule.add_expr(&nft_expr!(verdict accept));
    batch.add(&rule, MsgType::Add);
    commit(batch);
    assert_eq!(chains(case.version)[&("filter".to_owned(), "cali-to-wl".to_owned())], POLICY[3].1.len() + 1);
    assert_eq!(watched.mend(case).expect("it is heard of").calls, 1);
    assert_eq!(chains(case.version), before);
    case.assert_policy_is_in_force();
}

fn chains_deleted_through_libnftnl_come_back(case: Case) {
    let mut watched = Watched::programmed(case);
    let before = chains(case.version);
    let (mut batch, table) = (Batch::new(), filter(case));
    // A chain can go only when no rule leads to it.
    for name in [c"cali-FORWARD", c"cali-INPUT", c"cali-from-wl", c"cali-to-wl"] {
        flush(&mut batch, &table, name);
    }
    for name in [c"cali-from-wl", c"cali-to-wl"] {
        batch.add(&Chain::new(name, &table), MsgType::Del);
    }
    commit(batch);
    assert_eq!(chains(case.version).len(), before.len() - 2);
    assert_eq!(watched.mend(case).expect("it is heard of").calls, 1);
    assert_eq!(chains(case.version), before);
    case.assert_policy_is_in_force();
}

fn a_table_deleted_through_libnftnl_comes_back(case: Case) {
    let mut watched = Watched::programmed(case);
    let (mut batch, table) = (Batch::new(), filter(case));
    batch.add(&table, MsgType::Del);
    commit(batch);
    assert_eq!(table_names(), BTreeSet::new());
    assert_eq!(watched.mend(case).expect("it is heard of").calls, 1);
    assert_eq!(chains(case.version), saved(case));
    case.assert_policy_is_in_force();
}

fn id(version: IpVersion) -> nft::TableId {
    let family = if version == IpVersion::V4 { nft::Family::Ipv4 } else { nft::Family::Ipv6 };
    nft::TableId::new(family, "cali-library")
}

/// A rule of the crate's words, and the same as a tree.
struct Twin<'a> {
    theirs: Rule<'a>,
    ours: Vec<nft::Expression>,
}

impl<'a> Twin<'a> {
    fn new(chain: &'a Chain<'a>) -> Self {
        Self { theirs: Rule::new(chain), ours: Vec::new() }
    }

    fn with(mut self, theirs: &impl nftnl::expr::Expression, ours: nft::Expression) -> Self {
        self.theirs.add_expr(theirs);
        self.ours.push(ours);
        self
    }
}

/// What the crate has words for.
fn twins<'a>(chain: &'a Chain<'a>, set: &nftnl::set::Set<'_, Ipv4Addr>) -> Vec<Twin<'a>> {
    let to = nft::Register::FIRST;
    let meta = |key| nft::Expression::Meta { key, to };
    let compare = |comparison, value| nft::Expression::Compare { comparison, from: to, value };
    let load = |payload| nft::Expression::Payload { payload, to };
    let bits = |mask, xor| nft::Expression::Bitwise {
        from: to,
        to,
        mask: nft::Data::host32(mask),
        xor: nft::Data::host32(xor),
    };
    let state = nft::Expression::Conntrack { key: nft::ConntrackKey::State, direction: None, to };
    let twin = || Twin::new(chain);
    let equal = nft::Comparison::Equal;
    vec![
        twin()
            .with(&nft_expr!(meta l4proto), meta(nft::MetaKey::Protocol))
            .with(&nft_expr!(cmp == 6u8), compare(equal, nft::Data::u8(6)))
            .with(&nft_expr!(payload tcp dport), load(nft::Payload::DESTINATION_PORT))
            .with(
                &nft_expr!(cmp >= 80u16.to_be()),
                compare(nft::Comparison::GreaterOrEqual, nft::Data::be16(80)),
            )
            .with(&nft_expr!(counter), nft::Expression::Counter)
            .with(&nft_expr!(verdict drop), nft::Expression::Verdict(nft::Verdict::Drop)),
        twin()
            .with(&nft_expr!(payload ipv4 saddr), load(nft::Payload::IPV4_SOURCE))
            .with(
                &nft_expr!(lookup set),
                nft::Expression::Lookup { set: "cali-s".to_owned(), key: to, negate: false },
            )
            .with(
                &nft_expr!(verdict jump c"cali-target".into()),
                nft::Expression::Verdict(nft::Verdict::Jump("cali-target".to_owned())),
            ),
        twin()
            .with(&nft_expr!(ct state), state)
            .with(&nft_expr!(bitwise mask 6u32, xor 0u32), bits(6, 0))
            .with(&nft_expr!(cmp != 0u32), compare(nft::Comparison::NotEqual, nft::Data::host32(0)))
            .with(&nft_expr!(verdict accept), nft::Expression::Verdict(nft::Verdict::Accept)),
        twin()
            .with(&nft_expr!(meta mark), meta(nft::MetaKey::Mark))
            .with(&nft_expr!(bitwise mask !0x10000u32, xor 0x10000u32), bits(!0x10000, 0x10000))
            .with(&nft_expr!(meta mark set), nft::Expression::SetMeta { key: nft::MetaKey::Mark, from: to }),
        twin()
            .with(&nft_expr!(meta iifname), meta(nft::MetaKey::InInterface))
            .with(
                &nft_expr!(cmp == InterfaceName::StartingWith(c"cali".into())),
                compare(equal, nft::Data::interface_prefix("cali")),
            )
            .with(&nft_expr!(verdict return), nft::Expression::Verdict(nft::Verdict::Return)),
    ]
}

fn what_libnftnl_wrote_our_codec_reads() {
    let id = id(IpVersion::V4);
    let table = nftnl::Table::new(c"cali-library", ProtoFamily::Ipv4);
    let (chain, target) = (Chain::new(c"cali-rules", &table), Chain::new(c"cali-target", &table));
    let mut set = nftnl::set::Set::new_named(c"cali-s", 1, &table, ProtoFamily::Ipv4);
    let members: [Ipv4Addr; 2] = [[10, 65, 0, 2].into(), [10, 65, 0, 3].into()];
    members.iter().for_each(|member| set.add(member));
    let twins = twins(&chain, &set);
    let mut batch = Batch::new();
    batch.add(&table, MsgType::Add);
    batch.add(&target, MsgType::Add);
    batch.add(&chain, MsgType::Add);
    batch.add(&set, MsgType::Add);
    batch.add_iter(set.elems_iter(), MsgType::Add);
    twins.iter().for_each(|twin| batch.add(&twin.theirs, MsgType::Add));
    commit(batch);

    let mut socket = NftSocket::new();
    let rules = socket.rules(&id, Some("cali-rules")).unwrap();
    assert_eq!(rules.len(), twins.len());
    for (entry, twin) in rules.into_iter().zip(twins) {
        assert_eq!(entry.rule.unwrap().expressions, twin.ours);
    }
    let read = nft::Set::new("cali-s", [nft::FieldType::Ipv4]);
    assert_eq!(socket.sets(&id).unwrap()[0].set, Ok(read.clone()));
    let elements = members.map(|member| nft::Element::new(member.into()));
    assert_eq!(socket.elements(&id, &read).unwrap(), elements);
}

fn libnftnl_and_libmnl_read_what_our_codec_wrote() {
    for version in IpVersion::BOTH {
        let id = id(version);
        let mut transaction = Transaction::new();
        transaction.add_table(&nft::Table { id: id.clone(), comment: Some("ours".to_owned()) });
        let rule = nft::Rule {
            expressions: vec![nft::Expression::Counter, nft::Expression::Verdict(nft::Verdict::Return)],
            comment: Some("cali:0123456789abcdef".to_owned()),
        };
        for name in ["cali-a", "cali-b"] {
            transaction.add_chain(&id, &nft::Chain::plain(name));
            transaction.add_rule(&id, name, &rule);
        }
        let mut socket = NftSocket::new();
        socket.commit(&mut transaction, None).unwrap();
        assert!(table_names().contains(c"cali-library"));
        let chain = |name: &str| ("cali-library".to_owned(), name.to_owned());
        assert_eq!(chains(version), BTreeMap::from([(chain("cali-a"), 1), (chain("cali-b"), 1)]));
        let (mut batch, table) = (Batch::new(), nftnl::Table::new(c"cali-library", family(version)));
        flush(&mut batch, &table, c"cali-a");
        commit(batch);
        let left: Vec<String> =
            socket.rules(&id, None).unwrap().into_iter().map(|entry| entry.chain).collect();
        assert_eq!(left, ["cali-b"]);
    }
}

/// libipset keeps types and names of sets for the whole process, and no lock over them.
fn libipset() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn spec(name: &str, family: IpVersion, set_type: SetType) -> SetSpec {
    SetSpec { name: name.to_owned(), family, set_type, max_elements: 1_048_576 }
}

/// Has these networks in a set of their own, and nothing else wanted.
fn want_nets(sets: &mut IpSets, name: &str, version: IpVersion, nets: &[&str]) {
    let members = nets.iter().map(|net| Member::Net(net.parse().unwrap()));
    sets.set_wanted(spec(name, version, SetType::HashNet), members).unwrap();
}

fn apply(sets: &mut IpSets) -> Report {
    let mut report = sets.apply(Phase::Provide);
    report.merge(sets.apply(Phase::Withdraw));
    assert_eq!(report.problems, []);
    report
}

fn library_net(text: &str) -> NetDataType {
    let net: ipnet::IpNet = text.parse().unwrap();
    NetDataType::new(net.addr(), net.prefix_len())
}

/// Type and members of a set as libipset lists them. The crate loses a character of each kilobyte: small sets only.
fn listed<T: LibrarySet>(name: &str, text: fn(&T::DataType) -> String) -> (String, BTreeSet<String>) {
    match Session::<T>::new(name.to_owned()).list().unwrap() {
        ListResult::Normal(list) => {
            let members: BTreeSet<String> =
                list.items.iter().flatten().map(|(member, _)| text(member)).collect();
            assert_eq!(list.entry_size as usize, members.len(), "{name}");
            (list.typ, members)
        }
        ListResult::Terse(names) => panic!("names only: {names:?}"),
    }
}

fn listed_nets(name: &str) -> BTreeSet<String> {
    listed::<HashNet>(name, |net| format!("{}/{}", net.ip(), net.cidr())).1
}

fn texts(members: &[&str]) -> BTreeSet<String> {
    members.iter().map(|&text| text.to_owned()).collect()
}

const NETS4: [&str; 5] =
    ["10.0.0.0/8", "10.65.0.0/16", "192.0.2.7/32", "198.51.100.128/25", "203.0.113.4/31"];
/// No single address: the crate takes one in a list for a /32.
const NETS6: [&str; 3] = ["fd00:65::/32", "2001:db8::/127", "fe80::/10"];

fn libipset_reads_the_members_that_our_codec_wrote() {
    let _alone = libipset();
    let mut sets = IpSets::new();
    sets.observe().unwrap();
    want_nets(&mut sets, "cali40s:read-nets", IpVersion::V4, &NETS4);
    want_nets(&mut sets, "cali60s:read-nets", IpVersion::V6, &NETS6);
    let hosts: [IpAddr; 3] = ["192.0.2.1", "192.0.2.2", "224.0.0.1"].map(|text| text.parse().unwrap());
    let members = hosts.map(Member::Addr);
    sets.set_wanted(spec("cali40read-hosts", IpVersion::V4, SetType::HashIp), members).unwrap();
    let port = |addr: &str, protocol, port| Member::AddrPort { addr: addr.parse().unwrap(), protocol, port };
    let members = [port("10.65.0.2", 6, 8080), port("10.65.0.2", 6, 8081), port("10.65.0.3", 17, 53)];
    sets.set_wanted(spec("cali40n:read-ports", IpVersion::V4, SetType::HashIpPort), members).unwrap();
    let members = [port("fd00:65::2", 6, 443)];
    sets.set_wanted(spec("cali60n:read-ports", IpVersion::V6, SetType::HashIpPort), members).unwrap();
    apply(&mut sets);

    assert_eq!(listed_nets("cali40s:read-nets"), texts(&NETS4));
    assert_eq!(listed_nets("cali60s:read-nets"), texts(&NETS6));
    let (set_type, members) = listed::<HashIp>("cali40read-hosts", |ip| ip.to_ip_addr().to_string());
    assert_eq!(set_type, "hash:ip");
    assert_eq!(members, hosts.iter().map(ToString::to_string).collect());
    assert_eq!(
        saved_members("cali40n:read-ports"),
        texts(&["10.65.0.2,tcp:8080", "10.65.0.2,tcp:8081", "10.65.0.3,udp:53"])
    );
    assert_eq!(saved_members("cali60n:read-ports"), texts(&["fd00:65::2,tcp:443"]));
}

/// Members with ports. The crate cannot take `tcp:8080` apart, nor name a protocol when it adds or deletes; what libipset
/// itself writes to a file and reads from there, says all.
fn saved_members(name: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved");
    assert!(Session::<HashIpPort>::new(name.to_owned()).save(file.display().to_string()).unwrap());
    let text = std::fs::read_to_string(file).unwrap();
    let start = format!("add {name} ");
    text.lines().filter_map(|line| line.strip_prefix(&start)).map(|line| line.trim().to_owned()).collect()
}

/// Has libipset carry out lines of a save.
fn restore(lines: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    std::fs::write(&file, lines).unwrap();
    IPSet::new().restore(file.display().to_string()).unwrap();
}

fn what_libipset_does_to_our_sets_is_mended() {
    let _alone = libipset();
    let mut sets = IpSets::new();
    sets.observe().unwrap();
    want_nets(&mut sets, "cali40s:mended", IpVersion::V4, &NETS4);
    want_nets(&mut sets, "cali60s:mended", IpVersion::V6, &NETS6);
    let addr: IpAddr = "10.65.0.2".parse().unwrap();
    let members = [Member::AddrPort { addr, protocol: 6, port: 8080 }];
    sets.set_wanted(spec("cali40n:mended", IpVersion::V4, SetType::HashIpPort), members).unwrap();
    apply(&mut sets);

    for (set, stranger, ours) in
        [("cali40s:mended", "172.16.0.0/12", NETS4[1]), ("cali60s:mended", "fd00:bad::/48", NETS6[0])]
    {
        let mut session = Session::<HashNet>::new(set.to_owned());
        assert!(session.add(library_net(stranger), &[]).unwrap());
        assert!(session.del(library_net(ours)).unwrap());
        assert!(listed_nets(set).contains(stranger) && !listed_nets(set).contains(ours));
    }
    restore("add cali40n:mended 10.65.0.2,tcp:22\ndel cali40n:mended 10.65.0.2,tcp:8080\nCOMMIT\n");
    assert_eq!(saved_members("cali40n:mended"), texts(&["10.65.0.2,tcp:22"]));

    sets.observe().unwrap();
    assert!(apply(&mut sets).changed > 0);
    assert_eq!(listed_nets("cali40s:mended"), texts(&NETS4));
    assert_eq!(listed_nets("cali60s:mended"), texts(&NETS6));
    assert_eq!(saved_members("cali40n:mended"), texts(&["10.65.0.2,tcp:8080"]));

    assert!(Session::<HashNet>::new("cali40s:mended".to_owned()).flush().unwrap());
    assert!(Session::<HashNet>::new("cali60s:mended".to_owned()).destroy().unwrap());
    sets.observe().unwrap();
    apply(&mut sets);
    assert_eq!(listed_nets("cali40s:mended"), texts(&NETS4));
    assert_eq!(listed_nets("cali60s:mended"), texts(&NETS6));
    sets.observe().unwrap();
    assert_eq!(apply(&mut sets), Report::default());
}

fn a_set_that_libipset_made_is_taken_over_without_a_write() {
    let _alone = libipset();
    let mut session = Session::<HashNet>::new("cali40s:taken-over".to_owned());
    let made = session.create(|new| new.with_ipv6(false)?.with_max_elem(1_048_576)?.build());
    assert!(made.unwrap());
    for net in NETS4 {
        assert!(session.add(library_net(net), &[]).unwrap());
    }
    let mut sets = IpSets::new();
    sets.observe().unwrap();
    want_nets(&mut sets, "cali40s:taken-over", IpVersion::V4, &NETS4);
    assert_eq!(apply(&mut sets).changed, 0);
    assert_eq!(listed_nets("cali40s:taken-over"), texts(&NETS4));
}

/// The crate, with the program of this back end.
fn foreign_tool(case: Case) -> IPTables {
    let tool = iptables::new(case.version == IpVersion::V6).unwrap();
    let cmd = match (case.backend, case.version) {
        (Backend::Nft, IpVersion::V4) => "iptables-nft",
        (Backend::Nft, IpVersion::V6) => "ip6tables-nft",
        (Backend::Legacy, IpVersion::V4) => "iptables-legacy",
        (Backend::Legacy, IpVersion::V6) => "ip6tables-legacy",
    };
    IPTables { cmd, ..tool }
}

/// The ids of a chain's rules as the crate lists them, `-` for rules of others.
fn listed_ids(tool: &IPTables, chain: &str) -> Vec<String> {
    let lines = tool.list("filter", chain).unwrap();
    let rules = lines.iter().filter(|line| line.starts_with("-A "));
    rules.map(|rule| rule.split_once("\"cali:").map_or("-", |(_, tail)| &tail[..16]).to_owned()).collect()
}

fn the_iptables_crate_reads_the_rules_that_we_wrote(case: Case) {
    case.programmed();
    let tool = foreign_tool(case);
    for (name, actions) in POLICY {
        assert_eq!(listed_ids(&tool, name), ids_of(name, actions), "{name}");
        assert!(tool.chain_exists("filter", name).unwrap());
    }
    let chains: BTreeSet<String> = tool.list_chains("filter").unwrap().into_iter().collect();
    let wanted = POLICY.iter().map(|(name, _)| *name).chain(["INPUT", "FORWARD", "OUTPUT"]);
    assert_eq!(chains, wanted.map(ToOwned::to_owned).collect());
}

fn rules_that_the_iptables_crate_puts_between_ours_stay(case: Case) {
    let mut driver = case.programmed();
    let tool = foreign_tool(case);
    let strangers = ["-p tcp --dport 22 -j ACCEPT", "-p udp -m comment --comment \"not ours\" -j ACCEPT"];
    tool.insert("filter", "FORWARD", strangers[0], 2).unwrap();
    tool.insert("filter", "FORWARD", strangers[1], 3).unwrap();
    let between = listed_ids(&tool, "FORWARD");
    assert_eq!(between[1..3], ["-", "-"], "between ours");
    driver.observe().unwrap();
    assert_eq!(enforce(&mut driver), Report::default(), "they do not bother us");
    assert_eq!(listed_ids(&tool, "FORWARD"), between);
    // One that stands before ours stays too, but behind.
    let first = "-p icmp -j ACCEPT";
    tool.insert("filter", "FORWARD", first, 1).unwrap();
    driver.observe().unwrap();
    assert_eq!(enforce(&mut driver).calls, 1);
    case.assert_policy_is_in_force();
    for rule in strangers.iter().chain([&first]) {
        assert!(tool.exists("filter", "FORWARD", rule).unwrap(), "{rule}");
    }
}

fn what_the_iptables_crate_does_to_our_chains_is_mended(case: Case) {
    let mut driver = case.programmed();
    let tool = foreign_tool(case);
    tool.insert("filter", "cali-from-wl", "-j ACCEPT", 1).unwrap();
    tool.replace("filter", "cali-to-wl", "-j ACCEPT", 2).unwrap();
    tool.flush_chain("filter", "cali-INPUT").unwrap();
    tool.new_chain("filter", "cali-unwanted").unwrap();
    driver.observe().unwrap();
    assert_eq!(enforce(&mut driver).calls, 1);
    case.assert_policy_is_in_force();
    assert!(!tool.chain_exists("filter", "cali-unwanted").unwrap());
    tool.flush_table("filter").unwrap();
    driver.observe().unwrap();
    enforce(&mut driver);
    case.assert_policy_is_in_force();
}
