//! The link observer against the real kernel.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::ExitCode;

use common::{sh, try_sh, wait_for};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tortie_dataplane::link::{Link, LinkEvent, Links};

fn main() -> ExitCode {
    common::run(tests![["ip"];
        what_is_there_is_read_at_the_start,
        events_lead_to_the_state_that_a_fresh_reading_finds,
        an_event_makes_the_descriptor_readable,
        going_down_and_up_between_two_polls_is_seen,
        leaving_a_bridge_is_not_going_away,
        lost_events_are_made_up_for,
    ])
}

fn state(links: &Links) -> BTreeMap<u32, Link> {
    links.iter().map(|link| (link.index, link.clone())).collect()
}

fn what_is_there_is_read_at_the_start() {
    sh("ip link add cali1 mtu 1400 address ee:ee:ee:ee:ee:ee type veth peer name p1");
    sh("ip addr add 10.0.0.1/24 dev cali1; ip addr add fd00::1/64 dev cali1 nodad");
    sh("ip link set cali1 up; ip link set p1 up");
    wait_for("the link runs", || sh("ip -o link show cali1").contains("LOWER_UP"));
    let links = Links::open().unwrap();
    let link = links.get("cali1").unwrap();
    assert_eq!((link.mtu, link.up, link.running), (1400, true, true));
    assert_eq!(link.mac.unwrap().to_string(), "ee:ee:ee:ee:ee:ee");
    assert!(link.addresses.contains(&"10.0.0.1/24".parse().unwrap()), "{:?}", link.addresses);
    assert!(link.addresses.contains(&"fd00::1/64".parse().unwrap()), "{:?}", link.addresses);
    let lo = links.get("lo").unwrap();
    assert!(!lo.up && !lo.running);
    assert!(links.get("none").is_none());
}

fn events_lead_to_the_state_that_a_fresh_reading_finds() {
    let mut links = Links::open().unwrap();
    sh("ip link add cali1 type veth peer name p1; ip link set p1 up; ip link set cali1 up");
    sh("ip addr add 10.0.0.1/32 dev cali1; ip link set cali1 mtu 1300; ip link add br0 type bridge");
    sh(
        "ip link add cali2 type veth peer name p2; ip link set p2 up; ip link set p2 name other; ip link del cali1",
    );
    // Addresses and states that the kernel itself makes come a little later.
    wait_for("the same state", || {
        links.poll_events().unwrap();
        state(&links) == state(&Links::open().unwrap())
    });
    assert!(links.get("other").is_some() && links.get("p2").is_none() && links.get("cali1").is_none());
}

fn is_readable(links: &Links) -> bool {
    let mut descriptors = [PollFd::new(links.as_fd(), PollFlags::POLLIN)];
    poll(&mut descriptors, PollTimeout::ZERO).unwrap() == 1
}

fn an_event_makes_the_descriptor_readable() {
    let mut links = Links::open().unwrap();
    links.poll_events().unwrap();
    assert!(!is_readable(&links));
    sh("ip link add cali1 type veth peer name p1");
    assert!(is_readable(&links));
    let events = links.poll_events().unwrap();
    assert!(events.iter().any(|event| matches!(event, LinkEvent::Changed(link) if link.name == "cali1")));
    assert!(!is_readable(&links));
}

fn going_down_and_up_between_two_polls_is_seen() {
    sh("ip link add cali1 type veth peer name p1; ip link set p1 up; ip link set cali1 up");
    let mut links = Links::open().unwrap();
    links.poll_events().unwrap();
    sh("ip link set cali1 down; ip link set cali1 up");
    let mut states = Vec::new();
    wait_for("up again", || {
        for event in links.poll_events().unwrap() {
            if let LinkEvent::Changed(link) = event
                && link.name == "cali1"
            {
                states.push(link.running);
            }
        }
        states.contains(&false) && states.last() == Some(&true)
    });
}

fn leaving_a_bridge_is_not_going_away() -> common::Outcome {
    sh("ip link add cali1 type veth peer name p1");
    let (works, text) = try_sh("ip link add br0 type bridge && ip link set cali1 master br0");
    if !works {
        return common::Outcome::Skipped(format!("bridges: {text}"));
    }
    let mut links = Links::open().unwrap();
    sh("ip link set cali1 nomaster");
    let events = links.poll_events().unwrap();
    assert!(!events.iter().any(|event| matches!(event, LinkEvent::Removed { .. })), "{events:?}");
    assert!(links.get("cali1").is_some());
    common::Outcome::Done
}

fn lost_events_are_made_up_for() {
    sh("ip link add gone type veth peer name p1");
    let mut links = Links::with_event_buffer(4096).unwrap();
    let commands: Vec<String> =
        (0..200).map(|number| format!("link add cali{number} type veth peer name q{number}")).collect();
    std::fs::write("/run/links-lost", commands.join("\n")).unwrap();
    sh("ip -batch /run/links-lost; ip link del gone");
    let events = links.poll_events().unwrap();
    let resynced = events.iter().position(|event| *event == LinkEvent::Resynced).expect("events were lost");
    let after = &events[resynced..];
    assert!(after.iter().any(|event| matches!(event, LinkEvent::Removed { name, .. } if name == "gone")));
    assert!(after.iter().any(|event| matches!(event, LinkEvent::Changed(link) if link.name == "cali199")));
    assert_eq!(state(&links), state(&Links::open().unwrap()));
    sh("ip link set cali7 mtu 1234");
    links.poll_events().unwrap();
    assert_eq!(links.get("cali7").unwrap().mtu, 1234, "events work again");
}
