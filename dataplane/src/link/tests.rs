//! The state and its events, without a kernel.

use super::*;

fn fields(index: u32, name: &str, running: bool) -> Change {
    Change::Link(LinkFields { index, name: name.to_owned(), up: running, running, mac: None, mtu: 1500 })
}

fn play(changes: Vec<Change>) -> (BTreeMap<u32, Link>, Vec<String>) {
    let (mut links, mut events) = (BTreeMap::new(), Vec::new());
    for change in changes {
        apply(&mut links, change, &mut events);
    }
    let texts = events.iter().map(|event| match event {
        LinkEvent::Changed(link) => format!("{} {} {}", link.index, link.name, link.running),
        LinkEvent::Removed { index, name } => format!("{index} {name} gone"),
        LinkEvent::Resynced => "resynced".to_owned(),
    });
    (links, texts.collect())
}

#[test]
fn a_flap_between_two_polls_is_two_events() {
    let (_, events) =
        play(vec![fields(2, "cali1", true), fields(2, "cali1", false), fields(2, "cali1", true)]);
    assert_eq!(events, ["2 cali1 true", "2 cali1 false", "2 cali1 true"]);
}

#[test]
fn a_repeated_state_is_no_event() {
    let (_, events) = play(vec![fields(2, "cali1", true), fields(2, "cali1", true)]);
    assert_eq!(events, ["2 cali1 true"]);
}

#[test]
fn a_new_name_removes_the_old_one_first() {
    let (links, events) = play(vec![fields(2, "eth1", true), fields(2, "cali1", true)]);
    assert_eq!(events, ["2 eth1 true", "2 eth1 gone", "2 cali1 true"]);
    assert_eq!(links.len(), 1);
}

#[test]
fn addresses_stay_when_the_link_changes_and_go_with_it() {
    let address: IpNet = "10.0.0.1/24".parse().unwrap();
    let add = Change::Address { index: 2, address, present: true };
    let (links, events) = play(vec![fields(2, "eth0", true), add, fields(2, "eth0", false)]);
    assert_eq!(events.len(), 3);
    assert!(links[&2].addresses.contains(&address));
    let stray = Change::Address { index: 9, address, present: true };
    let (links, events) = play(vec![fields(2, "eth0", true), Change::LinkGone { index: 2 }, stray]);
    assert!(links.is_empty());
    assert_eq!(events, ["2 eth0 true", "2 eth0 gone"]);
}

#[test]
fn names_that_go_come_before_names_that_come() {
    let (before, _) = play(vec![fields(2, "cali1", true), fields(3, "cali2", true)]);
    let (after, _) = play(vec![fields(3, "cali2", true), fields(4, "cali1", false)]);
    let mut events = Vec::new();
    compare(&before, &after, &mut events);
    assert!(matches!(&events[0], LinkEvent::Removed { index: 2, .. }), "{events:?}");
    assert!(matches!(&events[1], LinkEvent::Changed(link) if link.index == 4), "{events:?}");
    assert_eq!(events.len(), 2);
}

#[test]
fn mac_addresses_are_parsed_strictly_and_printed_back() {
    let mac: MacAddr = "ca:fe:1d:52:BB:e9".parse().unwrap();
    assert_eq!(mac.to_string(), "ca:fe:1d:52:bb:e9");
    for bad in ["", "ca:fe:1d:52:bb", "ca:fe:1d:52:bb:e9:00", "ca:fe:1d:52:bb:+9", "ca:fe:1d:52:bb:e", "x"] {
        assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
    }
}
