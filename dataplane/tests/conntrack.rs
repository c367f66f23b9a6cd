//! The conntrack driver against the real kernel, checked with the real `conntrack`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;

use common::{Outcome, sh, try_sh, wait_for};
use tortie_dataplane::conntrack::Conntrack;
use tortie_dataplane::reconcile::{Driver, Phase, Report};

fn main() -> ExitCode {
    let mut tests = tests![["conntrack"];
        entries_go_by_either_source_whatever_the_protocol_and_others_stay,
        entries_sent_to_a_floating_address_go_whoever_answers,
        ipv6_entries_go_by_either_source_and_others_stay,
        addresses_of_both_families_go_in_one_apply,
        an_entry_between_two_addresses_is_deleted_once,
        entries_in_zones_go_too,
        one_address_is_searched_for_by_the_kernel,
        many_addresses_are_one_dump_and_one_send_for_each_family,
        ten_thousand_entries_go_and_the_rest_stays,
        ten_thousand_entries_of_ten_thousand_addresses_go,
        without_an_address_there_is_no_call,
        only_the_last_phase_deletes,
        the_plan_names_the_addresses_until_they_are_done,
        what_comes_after_an_apply_stays,
        random_tables_lose_what_a_filter_of_the_listing_would_lose,
    ];
    tests.extend(tests![["conntrack", "ip", "iptables", "ip6tables"];
        packets_to_a_forgotten_server_are_no_longer_established,
        packets_to_a_forgotten_client_are_no_longer_established,
        ipv6_packets_to_a_forgotten_address_are_no_longer_established,
        tcp_connections_are_forgotten_on_both_sides,
        entries_with_a_zone_for_one_direction_go_too,
    ]);
    common::run(tests)
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn forget(texts: &[&str]) -> Conntrack {
    let mut conntrack = Conntrack::new();
    conntrack.observe().unwrap();
    conntrack.forget(addresses(texts));
    conntrack
}

/// Applies and expects no problem.
fn apply(conntrack: &mut Conntrack) -> Report {
    let report = conntrack.apply(Phase::Connect);
    assert_eq!(report.problems, [], "no problems");
    assert!(conntrack.plan(Phase::Connect).is_empty());
    report
}

/// Makes entries, each from the options of `conntrack`.
fn insert(entries: &[String]) {
    let mut text = String::new();
    for entry in entries {
        writeln!(text, "-A -t 1000 {entry}").unwrap();
    }
    let file = tempfile::NamedTempFile::new_in("/run").unwrap();
    std::fs::write(file.path(), text).unwrap();
    sh(&format!("conntrack -R {}", file.path().display()));
}

fn insert_text(entries: &[&str]) {
    insert(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>());
}

/// An unanswered UDP flow.
fn udp(source: &str, dest: &str, port: usize) -> String {
    format!("-s {source} -d {dest} -p udp --sport {port} --dport 53")
}

/// A UDP flow to a service that `backend` answers.
fn udp_service(source: &str, service: &str, backend: &str, port: usize) -> String {
    format!(
        "-s {source} -d {service} -r {backend} -q {source} -p udp --sport {port} --dport 53 \
         --reply-port-src 1053 --reply-port-dst {port}"
    )
}

/// All entries as `conntrack` lists them, without what changes with time.
fn listed() -> BTreeSet<String> {
    let text = sh("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
    text.lines()
        .map(|line| {
            let words = line.split_whitespace().enumerate();
            let kept = words.filter(|(at, word)| *at == 0 || word.contains('=') && !word.starts_with("use="));
            kept.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// The two sources of a listed entry.
fn sources(entry: &str) -> BTreeSet<IpAddr> {
    entry.split(' ').filter_map(|word| word.strip_prefix("src=")).map(|addr| addr.parse().unwrap()).collect()
}

/// What stays of a listing when the addresses are forgotten.
fn without(listing: &BTreeSet<String>, gone: &[IpAddr]) -> BTreeSet<String> {
    let stays = |entry: &&String| sources(entry).iter().all(|source| !gone.contains(source));
    listing.iter().filter(stays).cloned().collect()
}

/// Forgets the addresses; exactly `count` entries go, those that the real listing says.
fn assert_forgets(texts: &[&str], count: usize) -> Report {
    let before = listed();
    let expected = without(&before, &addresses(texts));
    assert_eq!(before.len() - expected.len(), count, "in {before:#?}");
    let report = apply(&mut forget(texts));
    assert_eq!(listed(), expected);
    assert_eq!(report.changed, count);
    report
}

fn entries_go_by_either_source_whatever_the_protocol_and_others_stay() {
    insert(&[
        udp("10.65.0.2", "1.1.1.1", 1),
        udp("1.1.1.1", "10.65.0.2", 2),
        udp_service("10.65.0.9", "10.96.0.10", "10.65.0.2", 3),
        udp_service("10.65.0.2", "10.96.0.10", "10.65.0.2", 5),
        // Neighbours in number and name, and a destination that is a source of nothing.
        udp("10.65.0.20", "1.1.1.1", 1),
        udp("10.65.0.3", "1.1.1.1", 1),
        udp_service("10.65.0.9", "10.65.0.2", "10.65.0.4", 4),
        udp("fd00::2", "fd00::9", 1),
    ]);
    insert_text(&[
        "-s 10.65.0.2 -d 1.1.1.1 -p tcp --sport 1 --dport 80 --state ESTABLISHED",
        "-s 10.65.0.2 -d 1.1.1.1 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 7",
        "-s 10.65.0.2 -d 1.1.1.1 -p sctp --sport 1 --dport 2 --state ESTABLISHED \
         --orig-vtag 1 --reply-vtag 2",
        "-s 10.65.0.2 -d 1.1.1.1 -p gre --srckey 1 --dstkey 2",
        "-s 10.65.0.2 -d 1.1.1.1 -p 115",
    ]);
    assert_forgets(&["10.65.0.2"], 9);
}

fn entries_sent_to_a_floating_address_go_whoever_answers() {
    let kept = [
        udp_service("10.65.0.9", "10.96.0.10", "10.65.0.2", 1),
        udp("10.65.0.9", "10.65.0.2", 2),
        udp_service("fd00::9", "2001:db8::6", "fd00::2", 3),
    ];
    insert(&kept);
    let expected = listed();
    insert(&[
        udp_service("10.65.0.9", "192.0.2.5", "10.65.0.2", 4),
        udp("10.65.0.9", "192.0.2.5", 5),
        udp("192.0.2.5", "10.65.0.9", 6),
        udp_service("fd00::9", "2001:db8::5", "fd00::2", 7),
    ]);
    let mut conntrack = forget(&[]);
    conntrack.forget_floating(addresses(&["192.0.2.5", "2001:db8::5"]));
    let report = apply(&mut conntrack);
    assert_eq!((listed(), report.changed), (expected, 4));
    // Once, and not for whoever is forgotten later.
    insert(&[udp_service("10.65.0.9", "192.0.2.5", "10.65.0.2", 8)]);
    conntrack.forget(addresses(&["192.0.2.5"]));
    assert_eq!(apply(&mut conntrack).changed, 0);
}

fn ipv6_entries_go_by_either_source_and_others_stay() {
    insert(&[
        udp("fd00::2", "fd00::9", 1),
        udp("fd00::9", "fd00::2", 2),
        udp_service("fd00::9", "fd00:96::10", "fd00::2", 3),
        // Answered by the one who asks.
        udp_service("fd00::2", "fd00:96::10", "fd00::2", 4),
        udp("fd00::3", "fd00::9", 1),
        udp("fd00::2:0", "fd00::9", 1),
        udp("10.65.0.2", "1.1.1.1", 1),
    ]);
    insert_text(&[
        "-s fd00::2 -d fd00::9 -p tcp --sport 1 --dport 80 --state ESTABLISHED",
        "-s fd00::2 -d fd00::9 -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7",
    ]);
    let report = assert_forgets(&["fd00::2"], 6);
    assert_eq!(report.calls, 2, "a dump and a send");
}

fn addresses_of_both_families_go_in_one_apply() {
    insert(&[
        udp("10.65.0.2", "1.1.1.1", 1),
        udp("fd00::9", "fd00::2", 2),
        udp("10.65.0.3", "1.1.1.1", 1),
        udp("fd00::3", "fd00::9", 1),
    ]);
    assert_forgets(&["fd00::2", "10.65.0.2"], 2);
}

fn an_entry_between_two_addresses_is_deleted_once() {
    insert(&[udp("10.65.0.2", "10.65.0.3", 1), udp("10.65.0.4", "10.65.0.5", 1)]);
    assert_forgets(&["10.65.0.2", "10.65.0.3"], 1);
}

fn entries_in_zones_go_too() {
    insert(&[
        udp("10.65.0.2", "1.1.1.1", 1),
        format!("{} --zone 5", udp("10.65.0.2", "1.1.1.1", 1)),
        format!("{} --zone 6", udp("1.1.1.1", "10.65.0.2", 1)),
        format!("{} --zone 5", udp("10.65.0.3", "1.1.1.1", 1)),
    ]);
    assert_forgets(&["10.65.0.2"], 3);
}

fn one_address_is_searched_for_by_the_kernel() {
    insert(&[udp("10.65.0.2", "1.1.1.1", 1), udp("1.1.1.1", "10.65.0.2", 2)]);
    let report = assert_forgets(&["10.65.0.2"], 2);
    assert_eq!(report.calls, 3, "a search for each direction, a send of deletions");
    let report = assert_forgets(&["10.65.0.2"], 0);
    assert_eq!(report.calls, 2, "nothing is there to delete");
}

fn many_addresses_are_one_dump_and_one_send_for_each_family() {
    let mut entries = Vec::new();
    for number in 0..40 {
        entries.push(udp(&format!("10.65.0.{number}"), "1.1.1.1", 1));
        entries.push(udp("fd00:1::1", &format!("fd00::{number}"), 1));
    }
    insert(&entries);
    let texts: Vec<String> =
        (0..30).flat_map(|number| [format!("10.65.0.{number}"), format!("fd00::{number}")]).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let report = assert_forgets(&texts, 60);
    assert_eq!(report.calls, 4);
}

fn ten_thousand_entries_go_and_the_rest_stays() {
    let mut entries: Vec<String> =
        (0..10_000).map(|port| udp("10.65.0.2", "1.1.1.1", 10_000 + port)).collect();
    entries.extend((0..100).map(|port| udp("10.65.0.3", "1.1.1.1", 10_000 + port)));
    insert(&entries);
    let report = assert_forgets(&["10.65.0.2"], 10_000);
    assert!(report.calls < 100, "deletions go together: {report:?}");
}

fn ten_thousand_entries_of_ten_thousand_addresses_go() {
    let numbered: Vec<String> =
        (0..10_000).map(|number| format!("10.66.{}.{}", number / 250, number % 250)).collect();
    let mut entries: Vec<String> = numbered.iter().map(|address| udp(address, "1.1.1.1", 1)).collect();
    entries.extend((0..100).map(|port| udp("10.65.0.3", "1.1.1.1", 10_000 + port)));
    insert(&entries);
    let mut conntrack = forget(&numbered.iter().map(String::as_str).collect::<Vec<_>>());
    let report = apply(&mut conntrack);
    assert_eq!(report.changed, 10_000);
    assert!(report.calls < 100, "one dump, and deletions go together: {report:?}");
    assert_eq!(listed().len(), 100);
}

fn without_an_address_there_is_no_call() {
    insert(&[udp("10.65.0.2", "1.1.1.1", 1)]);
    let mut conntrack = forget(&[]);
    assert_eq!(apply(&mut conntrack), Report::default());
    conntrack.forget(addresses(&["10.65.0.2"]));
    assert_eq!(apply(&mut conntrack).changed, 1);
    assert_eq!(apply(&mut conntrack), Report::default());
}

fn only_the_last_phase_deletes() {
    insert(&[udp("10.65.0.2", "1.1.1.1", 1)]);
    let mut conntrack = forget(&["10.65.0.2"]);
    for phase in [Phase::Provide, Phase::Enforce, Phase::Withdraw] {
        assert!(conntrack.plan(phase).is_empty());
        assert_eq!(conntrack.apply(phase), Report::default());
    }
    assert_eq!(listed().len(), 1);
    apply(&mut conntrack);
    assert_eq!(listed().len(), 0);
}

fn the_plan_names_the_addresses_until_they_are_done() {
    let mut conntrack = forget(&["fd00::2", "10.65.0.3", "10.65.0.2", "10.65.0.3"]);
    let plan = conntrack.plan(Phase::Connect);
    assert!(!plan.is_empty());
    let expected = "delete the conntrack entries of 10.65.0.2\n\
                    delete the conntrack entries of 10.65.0.3\n\
                    delete the conntrack entries of fd00::2";
    assert_eq!(plan.to_string(), expected);
    apply(&mut conntrack);
    assert_eq!(conntrack.plan(Phase::Connect).to_string(), "");
}

fn what_comes_after_an_apply_stays() {
    insert(&[udp("10.65.0.2", "1.1.1.1", 1)]);
    let mut conntrack = forget(&["10.65.0.2"]);
    apply(&mut conntrack);
    insert(&[udp("10.65.0.2", "1.1.1.1", 1)]);
    conntrack.forget(addresses(&["10.65.0.7"]));
    assert_eq!(apply(&mut conntrack).changed, 0);
    assert_eq!(listed().len(), 1);
}

fn random_tables_lose_what_a_filter_of_the_listing_would_lose() {
    // A linear congruential generator (Knuth's constants): the same tables every time.
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..30 {
        let prefix = if round % 2 == 0 { "10.65.0." } else { "fd00::" };
        let mut address = || format!("{prefix}{}", 1 + random(12));
        let entries: Vec<String> = (0..60)
            .map(|port| match port % 2 {
                0 => udp(&address(), &address(), 1000 * (round + 1) + port),
                _ => udp_service(&address(), &address(), &address(), 1000 * (round + 1) + port),
            })
            .collect();
        insert(&entries);
        let count = 1 + random(4);
        let gone: Vec<IpAddr> =
            (0..count).map(|_| format!("{prefix}{}", 1 + random(12)).parse().unwrap()).collect();
        let before = listed();
        let mut conntrack = Conntrack::new();
        conntrack.forget(gone.clone());
        let report = apply(&mut conntrack);
        let after = listed();
        let expected = without(&before, &gone);
        let difference: Vec<&String> = after.symmetric_difference(&expected).collect();
        assert!(difference.is_empty(), "round {round}: {gone:?}: {difference:#?}");
        assert_eq!(report.changed, before.len() - after.len(), "round {round}: {gone:?}");
    }
}

/// Addresses on the loopback interface, and a first rule, which turns connection tracking on.
fn start_tracking(iptables: &str, texts: &[&str]) {
    sh("ip link set lo up");
    for text in texts {
        let length = if text.contains(':') { "128 nodad" } else { "32" };
        sh(&format!("ip addr add {text}/{length} dev lo"));
    }
    // The kernel puts an IPv6 address into the local table a little later. Before, packets to it are forwarded.
    for text in texts.iter().filter(|text| text.contains(':')) {
        wait_for("the address is local", || !sh(&format!("ip -6 route show table local {text}")).is_empty());
    }
    sh(&format!("{iptables} -w -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"));
}

/// Two UDP sockets that have heard from each other; the first began.
struct Flow {
    client: UdpSocket,
    server: UdpSocket,
}

impl Flow {
    fn begin(client: &str, server: &str) -> Self {
        let bind = |text: &str| {
            let socket = UdpSocket::bind(SocketAddr::new(text.parse().unwrap(), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let flow = Self { client: bind(client), server: bind(server) };
        assert_passes(&flow.client, &flow.server);
        assert_passes(&flow.server, &flow.client);
        flow
    }
}

/// Sends a packet, which arrives.
fn assert_passes(from: &UdpSocket, to: &UdpSocket) {
    let mut buffer = [0; 16];
    from.send_to(b"packet", to.local_addr().unwrap()).unwrap();
    wait_for("a packet", || to.recv_from(&mut buffer).is_ok());
}

/// Packets that the last rule dropped.
fn dropped(iptables: &str) -> u32 {
    let rules = sh(&format!("{iptables}-save -c -t filter"));
    let rule = rules.lines().find(|line| line.ends_with("-j DROP")).unwrap();
    rule.trim_start_matches('[').split(':').next().unwrap().parse().unwrap()
}

/// Sends a packet that is dropped, as a new connection would be.
fn assert_drops(iptables: &str, from: &UdpSocket, to: &UdpSocket) {
    let before = dropped(iptables);
    from.send_to(b"packet", to.local_addr().unwrap()).unwrap();
    wait_for("the packet is dropped", || dropped(iptables) == before + 1);
    let mut buffer = [0; 16];
    assert_eq!(to.recv_from(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// Forgets one side of a flow: packets to that side pass before and not after, those of another flow pass.
fn assert_flow_ends(iptables: &str, [client, server, other]: [&str; 3], gone: &str) {
    start_tracking(iptables, &[client, server, other]);
    let flow = Flow::begin(client, server);
    let stays = Flow::begin(other, if gone == server { client } else { server });
    sh(&format!("{iptables} -w -A INPUT -j DROP"));
    let (from, to) = if gone == server { (&flow.client, &flow.server) } else { (&flow.server, &flow.client) };
    assert_passes(from, to);
    let report = apply(&mut forget(&[gone]));
    assert_eq!(report.changed, 1);
    assert_drops(iptables, from, to);
    assert_passes(&stays.client, &stays.server);
    assert_passes(&stays.server, &stays.client);
}

fn packets_to_a_forgotten_server_are_no_longer_established() {
    assert_flow_ends("iptables", ["10.65.0.2", "10.65.0.3", "10.65.0.4"], "10.65.0.3");
}

fn packets_to_a_forgotten_client_are_no_longer_established() {
    assert_flow_ends("iptables", ["10.65.0.2", "10.65.0.3", "10.65.0.4"], "10.65.0.2");
}

fn ipv6_packets_to_a_forgotten_address_are_no_longer_established() {
    assert_flow_ends("ip6tables", ["fd00::2", "fd00::3", "fd00::4"], "fd00::3");
}

fn tcp_connections_are_forgotten_on_both_sides() {
    start_tracking("iptables", &["10.65.0.2", "10.65.0.3", "10.65.0.4"]);
    let mut connections = Vec::new();
    for server in ["10.65.0.2", "10.65.0.3", "10.65.0.4"] {
        let listener = TcpListener::bind(format!("{server}:0")).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        connections.push((client, accepted));
    }
    assert_eq!(sh("conntrack -L -p tcp --state ESTABLISHED 2>/dev/null").lines().count(), 3);
    assert_forgets(&["10.65.0.2", "10.65.0.3"], 2);
}

fn entries_with_a_zone_for_one_direction_go_too() -> Outcome {
    start_tracking("iptables", &["10.65.0.2", "10.65.0.3", "10.65.0.4"]);
    let (works, text) = try_sh(
        "iptables -w -t raw -A OUTPUT -s 10.65.0.2 -j CT --zone-orig 3 && \
         iptables -w -t raw -A OUTPUT -d 10.65.0.2 -j CT --zone-reply 4",
    );
    if !works {
        return Outcome::Skipped(format!("zones: {text}"));
    }
    let socket = |text: &str| UdpSocket::bind((text, 0)).unwrap();
    let (first, second, other) = (socket("10.65.0.2"), socket("10.65.0.3"), socket("10.65.0.4"));
    first.send_to(b"packet", second.local_addr().unwrap()).unwrap();
    second.send_to(b"packet", first.local_addr().unwrap()).unwrap();
    other.send_to(b"packet", second.local_addr().unwrap()).unwrap();
    let zones = listed();
    assert!(zones.iter().any(|entry| entry.contains("zone-orig=3")), "{zones:#?}");
    assert!(zones.iter().any(|entry| entry.contains("zone-reply=4")), "{zones:#?}");
    assert_forgets(&["10.65.0.2"], 2);
    Outcome::Done
}
