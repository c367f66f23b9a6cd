//! The kernel's rules of the game.

use tortie_api::net::{PortRange, Protocol};

use super::*;
use crate::compile::classic::{SetChange, SetType};
use crate::graph::model::Member;
use crate::ruleset::{
    Chain, ConntrackState, Hook, Key, KeyField, Map, MapType, Match, Rule, SetKey, Side, Verdict,
};

const V4: IpVersion = IpVersion::V4;

fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), rules }
}

fn table(table: Table, hook: &'static str, rules: Vec<Rule>, chains: Vec<Chain>) -> TableContent {
    let hooks = vec![Hook { chain: hook, inserted: rules, appended: Vec::new() }];
    TableContent { table, hooks, chains, maps: Vec::new() }
}

fn forward(rules: Vec<Rule>, chains: Vec<Chain>) -> Result<Machine, MachineError> {
    Machine::new(V4, &[table(Table::Filter, "FORWARD", rules, chains)], &sets())
}

fn sets() -> Sets {
    let net = |text: &str| Member::Net(text.parse().unwrap());
    let mut sets = Sets::default();
    let mut want = |name: &str, set_type, members| {
        sets.apply(&SetChange::Want { name: name.to_owned(), version: V4, set_type, members });
    };
    want("nets", SetType::Net, vec![net("10.0.0.0/8"), net("192.0.2.1/32")]);
    want("ports", SetType::AddressPort, vec![Member::AddressPort("10.0.0.1".parse().unwrap(), 6, 80)]);
    sets
}

fn packet() -> Packet {
    Packet {
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        protocol: 6,
        source_port: Some(80),
        destination_port: Some(8080),
        icmp: None,
        in_interface: Some("cali1".to_owned()),
        out_interface: Some("eth0".to_owned()),
        conntrack: ConnectionState::New,
        dnat: None,
        mark: 0,
        reverse_path_is_good: true,
    }
}

fn jump(to: &str) -> Action {
    Action::Jump(to.to_owned())
}

fn mark_of(rules: Vec<Rule>, chains: Vec<Chain>) -> Bits {
    forward(rules, chains).unwrap().run(&packet()).mark
}

#[test]
fn a_jump_comes_back_and_a_goto_does_not() {
    let mark = |bit| Rule::always(Action::SetMark(bit));
    let chains = || vec![chain("a", vec![mark(1), Rule::always(Action::Return), mark(2)])];
    assert_eq!(mark_of(vec![Rule::always(jump("a")), mark(4)], chains()), 5);
    assert_eq!(mark_of(vec![Rule::always(Action::Goto("a".to_owned())), mark(4)], chains()), 1);
    // Out of a chain that was gone to, the way back is that of the last jump.
    let nested = vec![
        chain("outer", vec![Rule::always(Action::Goto("a".to_owned())), mark(8)]),
        chain("a", vec![mark(1)]),
    ];
    assert_eq!(mark_of(vec![Rule::always(jump("outer")), mark(4)], nested), 5);
}

#[test]
fn a_verdict_ends_the_table_and_a_denial_the_way() {
    let drop_later = vec![Rule::always(Action::Accept), Rule::always(Action::Drop)];
    assert_eq!(forward(drop_later, Vec::new()).unwrap().run(&packet()).fate, Fate::Accepted);
    let raw = table(Table::Raw, "PREROUTING", vec![Rule::always(Action::Accept)], Vec::new());
    let filter = table(Table::Filter, "FORWARD", vec![Rule::always(Action::Reject)], Vec::new());
    let machine = Machine::new(V4, &[raw, filter], &sets()).unwrap();
    assert_eq!(machine.run(&packet()).fate, Fate::Rejected);
    let (_, steps) = machine.trace(&packet());
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(steps, ["raw PREROUTING[0] Accept", "filter FORWARD[0] Reject"]);
}

#[test]
fn marks_are_written_under_their_masks() {
    let rules = vec![
        Rule::always(Action::SetMark(0b1100)),
        Rule::always(Action::ClearMark(0b0100)),
        Rule::always(Action::SetMaskedMark { value: 0b01, mask: 0b11 }),
        Rule::when(vec![Match::Mark { value: 0b1000, mask: 0b1100 }], Action::SetMark(0x10)),
        Rule::when(vec![Match::MarkClear(0b0110)], Action::SetMark(0x20)),
        Rule::when(vec![Match::MarkAnySet(0b0110)], Action::SetMark(0x40)),
        Rule::when(vec![Match::MarkNot { value: 0b1000, mask: 0b1100 }], Action::SetMark(0x80)),
        Rule::when(vec![Match::MarkNot { value: 0b1100, mask: 0b1100 }], Action::SetMark(0x100)),
    ];
    assert_eq!(mark_of(rules, Vec::new()), 0x139);
}

fn matches(m: Match, packet: &Packet) -> bool {
    let protocol = Match::Protocol { protocol: Protocol::Number(packet.protocol), negate: false };
    let is_protocol = matches!(m, Match::Protocol { .. });
    let all = if is_protocol { vec![m] } else { vec![protocol, m] };
    let machine = forward(vec![Rule::when(all, Action::Drop)], Vec::new()).unwrap();
    machine.run(packet).fate == Fate::Dropped
}

#[test]
fn sets_hold_networks_and_ports() {
    let set = |name: &str, side, key, negate| Match::Set { name: name.to_owned(), side, key, negate };
    let nets = |side, negate| set("nets", side, SetKey::Address, negate);
    let outside = Packet { destination: "192.0.2.2".parse().unwrap(), ..packet() };
    assert!(
        matches(nets(Side::Source, false), &outside) && !matches(nets(Side::Destination, false), &outside)
    );
    assert!(matches(nets(Side::Destination, true), &outside));
    let exact = Packet { destination: "192.0.2.1".parse().unwrap(), ..packet() };
    assert!(matches(nets(Side::Destination, false), &exact));
    let ports = |side, negate| set("ports", side, SetKey::AddressPort, negate);
    assert!(matches(ports(Side::Source, false), &packet()));
    assert!(!matches(ports(Side::Source, false), &Packet { protocol: 17, ..packet() }));
    let portless = Packet { protocol: 47, source_port: None, destination_port: None, ..packet() };
    assert!(!matches(ports(Side::Source, false), &portless) && matches(ports(Side::Source, true), &portless));
}

#[test]
fn the_other_matches_are_the_kernels() {
    let ports = |negate| Match::Ports {
        side: Side::Destination,
        ports: vec![PortRange::single(1), PortRange::new(8000, 8080).unwrap()],
        negate,
    };
    assert!(matches(ports(false), &packet()) && !matches(ports(true), &packet()));
    assert!(!matches(ports(false), &Packet { destination_port: Some(8081), ..packet() }));
    let icmp = |code, negate| Match::Icmp { version: V4, icmp_type: 8, code, negate };
    let ping =
        Packet { protocol: 1, source_port: None, destination_port: None, icmp: Some((8, 1)), ..packet() };
    assert!(matches(icmp(None, false), &ping) && matches(icmp(Some(1), false), &ping));
    assert!(!matches(icmp(Some(0), false), &ping) && matches(icmp(Some(0), true), &ping));
    assert!(matches(Match::InInterface("cali+".to_owned()), &packet()));
    assert!(matches(Match::OutInterface("eth0".to_owned()), &packet()));
    assert!(!matches(Match::OutInterface("eth".to_owned()), &packet()));
    let net = |negate| Match::Net { side: Side::Source, net: "10.0.0.0/31".parse().unwrap(), negate };
    assert!(matches(net(false), &packet()) && !matches(net(true), &packet()));
    let everything = Match::Net { side: Side::Source, net: "0.0.0.0/0".parse().unwrap(), negate: false };
    assert!(matches(everything, &packet()));
    assert!(!matches(Match::ReversePathFails, &packet()));
    let address = |side, text: &str| Match::Address { side, address: text.parse().unwrap() };
    assert!(matches(address(Side::Source, "10.0.0.1"), &packet()));
    assert!(!matches(address(Side::Destination, "10.0.0.1"), &packet()));
    assert!(matches(Match::TcpSyn, &packet()) && !matches(Match::ConnectionsAbove(0), &packet()));
}

#[test]
fn a_translated_destination_is_seen_from_the_filter_table_on() {
    let to = |net: &str| Match::Net { side: Side::Destination, net: net.parse().unwrap(), negate: false };
    let mark = |m, bit| Rule::when(vec![m], Action::SetMark(bit));
    let rules = |shift: u32| vec![mark(to("10.0.0.2/32"), 1 << shift), mark(to("10.0.0.3/32"), 2 << shift)];
    let dnat = Match::Conntrack { states: &[ConntrackState::Dnat], negate: false };
    let mut filter = rules(4);
    filter.push(mark(dnat, 0x100));
    let tables = [
        table(Table::Mangle, "PREROUTING", rules(0), Vec::new()),
        table(Table::Filter, "FORWARD", filter, Vec::new()),
    ];
    let machine = Machine::new(V4, &tables, &sets()).unwrap();
    let dnat = Some(("10.0.0.3".parse().unwrap(), Some(80)));
    assert_eq!(machine.run(&Packet { dnat, ..packet() }).mark, 0x121);
    assert_eq!(machine.run(&packet()).mark, 0x11);
}

#[test]
fn what_the_kernel_would_refuse_is_refused() {
    let error = |rule: Rule| forward(vec![rule], Vec::new()).unwrap_err().to_string();
    assert_eq!(error(Rule::always(jump("nowhere"))), "there is no chain nowhere");
    let ports = Match::Ports { side: Side::Source, ports: vec![PortRange::single(1)], negate: false };
    let without_protocol = error(Rule::when(vec![ports], Action::Drop));
    assert_eq!(without_protocol, "filter: FORWARD[0]: a port match needs a protocol that has ports");
    let set = Match::Set { name: "x".to_owned(), side: Side::Source, key: SetKey::Address, negate: false };
    assert_eq!(error(Rule::when(vec![set], Action::Drop)), "there is no set x of this IP version");
    let raw = table(Table::Raw, "OUTPUT", vec![Rule::always(Action::Reject)], Vec::new());
    assert!(Machine::new(V4, &[raw], &sets()).is_err());
    let other = Match::Address { side: Side::Source, address: "fd00::1".parse().unwrap() };
    let other = error(Rule::when(vec![other], Action::Drop));
    assert_eq!(other, "filter: FORWARD[0]: an address is of the other IP version");
    for action in [Action::ResetConnection, Action::SetDscp(46), Action::Dnat("10.0.0.1".parse().unwrap())] {
        assert!(forward(vec![Rule::always(action.clone())], Vec::new()).is_err(), "{action:?}");
    }
    assert!(error(Rule::when(vec![Match::TcpSyn], Action::Drop)).contains("flags"));
}

fn with_map(lookup: Rule, holds: MapType, elements: Vec<(Key, Verdict)>) -> Result<Machine, MachineError> {
    let mark = |bit| chain(&format!("bit{bit}"), vec![Rule::always(Action::SetMark(bit))]);
    let rules = vec![lookup, Rule::always(Action::SetMark(0x100))];
    let mut filter = table(Table::Filter, "FORWARD", rules, vec![mark(1), mark(2)]);
    filter.maps =
        vec![Map { name: "m".to_owned(), holds, all: None, elements: elements.into_iter().collect() }];
    Machine::new(V4, &[filter], &sets())
}

fn look_up(key: &[KeyField]) -> Rule {
    Rule::always(Action::Lookup { key: key.to_vec(), map: "m".to_owned(), all: None })
}

#[test]
fn a_map_that_says_nothing_leaves_it_to_the_next_rule() {
    let to = |text: &str| Key::Address(text.parse().unwrap());
    let elements = vec![
        (to("10.0.0.1"), Verdict::Goto("bit1".into())),
        (to("10.0.0.2"), Verdict::Jump("bit2".into())),
        (to("10.0.0.3"), Verdict::Drop),
    ];
    let machine = with_map(look_up(&[KeyField::Address(Side::Source)]), MapType::Address, elements).unwrap();
    let run = |source: &str| machine.run(&Packet { source: source.parse().unwrap(), ..packet() });
    assert_eq!(run("10.0.0.1").mark, 1, "gone for good");
    assert_eq!(run("10.0.0.2").mark, 0x102, "and back");
    assert_eq!(run("10.0.0.3").fate, Fate::Dropped);
    assert_eq!(run("10.0.0.4").mark, 0x100);
}

#[test]
fn keys_are_what_the_packet_has() {
    let lookup = [KeyField::Protocol, KeyField::DestinationPort];
    let elements = || vec![(Key::ProtocolPort(6, 8080), Verdict::Drop)];
    let machine = with_map(look_up(&lookup), MapType::ProtocolPort, elements()).unwrap();
    let fate = |packet: &Packet| machine.run(packet).fate;
    assert_eq!(fate(&packet()), Fate::Dropped);
    assert_eq!(fate(&Packet { protocol: 17, ..packet() }), Fate::Accepted);
    assert_eq!(fate(&Packet { destination_port: None, ..packet() }), Fate::Accepted);

    let range = |first: &str, last: &str| Key::AddressRange(first.parse().unwrap(), last.parse().unwrap());
    let elements = vec![
        (range("10.0.0.2", "10.0.0.9"), Verdict::Drop),
        (range("10.0.0.10", "10.0.0.10"), Verdict::Return),
    ];
    let key = [KeyField::Address(Side::Destination)];
    let machine = with_map(look_up(&key), MapType::AddressRange, elements).unwrap();
    let fate = |to: &str| machine.run(&Packet { destination: to.parse().unwrap(), ..packet() }).fate;
    let fates = ["10.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.10"].map(fate);
    assert_eq!(fates, [Fate::Accepted, Fate::Dropped, Fate::Dropped, Fate::Accepted]);

    let elements = vec![(Key::Interface("eth0".into()), Verdict::Drop)];
    let machine = with_map(look_up(&[KeyField::OutInterface]), MapType::Interface, elements).unwrap();
    assert_eq!(machine.run(&packet()).fate, Fate::Dropped);
}

#[test]
fn maps_that_the_kernel_would_refuse_are_refused() {
    let error =
        |key: &[KeyField], holds, elements| with_map(look_up(key), holds, elements).unwrap_err().to_string();
    let ports = [KeyField::Protocol, KeyField::DestinationPort];
    let icmp = vec![(Key::ProtocolPort(1, 5), Verdict::Drop)];
    assert_eq!(error(&ports, MapType::ProtocolPort, icmp), "map m: a port needs a protocol that has ports");
    let wrong = error(&ports, MapType::Address, Vec::new());
    assert_eq!(wrong, "set m holds something else than the rule asks for");
    let range = |first: &str, last: &str| Key::AddressRange(first.parse().unwrap(), last.parse().unwrap());
    let overlap = ["10.0.0.9", "10.0.0.8"].map(|to| (range("10.0.0.1", to), Verdict::Drop));
    let source = [KeyField::Address(Side::Source)];
    assert_eq!(error(&source, MapType::AddressRange, overlap.into()), "map m: ranges overlap");
    let nowhere = vec![(Key::Address("10.0.0.1".parse().unwrap()), Verdict::Goto("nowhere".into()))];
    assert_eq!(error(&source, MapType::Address, nowhere), "there is no chain nowhere");
    let without_protocol = error(&[KeyField::DestinationPort], MapType::PortRange, Vec::new());
    assert_eq!(without_protocol, "filter: FORWARD[0]: a port needs a protocol that has ports");
}
