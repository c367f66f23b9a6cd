//! What becomes of addresses, and the messages byte by byte. The kernel itself: `tests/conntrack.rs`.

use std::io;

use super::*;
use crate::netlink::Messages;

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// After one family's work ended like this: what is reported, and what is still pending.
fn after(result: Result<(), NetlinkError>, refused: &[(&str, Errno)]) -> (Vec<Problem>, BTreeSet<IpAddr>) {
    let mut conntrack = Conntrack::new();
    let done = addresses(&["10.0.0.1", "10.0.0.2"]);
    conntrack.forget(done.clone());
    conntrack.forget(addresses(&["fd00::1"]));
    let refused = refused.iter().map(|(address, errno)| {
        (address.parse().unwrap(), Refusal { errno: *errno as i32, explanation: None })
    });
    let problems = conntrack.settle(IpVersion::V4, &done, &refused.collect(), result);
    (problems, conntrack.pending)
}

fn refused(errno: Errno) -> NetlinkError {
    NetlinkError::Refused(Refusal { errno: errno as i32, explanation: None })
}

#[test]
fn addresses_that_are_done_are_forgotten_and_the_other_family_waits() {
    assert_eq!(after(Ok(()), &[]), (Vec::new(), addresses(&["fd00::1"])));
}

#[test]
fn an_address_with_an_entry_that_stays_is_a_problem_and_is_tried_again() {
    let (problems, pending) = after(Ok(()), &[("10.0.0.2", Errno::EBUSY)]);
    assert_eq!(pending, addresses(&["10.0.0.2", "fd00::1"]));
    let [problem] = problems.as_slice() else { panic!("one problem: {problems:?}") };
    assert_eq!(problem.object, "conntrack entries of 10.0.0.2");
    assert!(problem.error.contains("busy"), "{problem}");
}

#[test]
fn an_error_is_a_problem_and_every_address_is_tried_again() {
    for error in [
        refused(Errno::EPERM),
        NetlinkError::Overrun,
        NetlinkError::Unsteady,
        NetlinkError::Send(io::Error::from_raw_os_error(Errno::EINVAL as i32)),
        NetlinkError::Open(io::Error::from_raw_os_error(Errno::EMFILE as i32)),
    ] {
        let text = error.to_string();
        let (problems, pending) = after(Err(error), &[]);
        assert_eq!(problems.len(), 1, "{text}");
        assert_eq!(problems[0].object, "IPv4 conntrack entries", "{text}");
        assert_eq!(pending, addresses(&["10.0.0.1", "10.0.0.2", "fd00::1"]), "{text}");
    }
}

#[test]
fn a_kernel_without_ctnetlink_is_no_problem_and_nothing_is_tried_again() {
    let open = |errno: Errno| NetlinkError::Open(io::Error::from_raw_os_error(errno as i32));
    for error in [refused(Errno::EINVAL), refused(Errno::EOPNOTSUPP), open(Errno::EPROTONOSUPPORT)] {
        assert_eq!(after(Err(error), &[]), (Vec::new(), addresses(&["fd00::1"])));
    }
}

/// An entry as the kernel lists it, with an attribute that does not matter here.
fn listed() -> Batch {
    let mut batch = Batch::new();
    batch.push(0x0100, 0, |writer| {
        writer.raw(&[2, 0, 0, 0]);
        for (direction, source) in [(1, [10, 0, 0, 1]), (2, [10, 0, 0, 2])] {
            writer.nested(direction, |tuple| {
                tuple.nested(1, |ip| {
                    ip.bytes(1, &source);
                    ip.bytes(2, &[10, 0, 0, 9]);
                });
                tuple.nested(2, |proto| proto.u8(1, 17));
            });
        }
        writer.bytes(3, &[0, 0, 0, 8]);
        writer.bytes(12, &[1, 2, 3, 4]);
        writer.bytes(18, &[0, 7]);
    });
    batch
}

fn payload(batch: &mut Batch) -> Vec<u8> {
    let message = batch.seal(1).to_vec();
    Messages::new(&message).next().unwrap().unwrap().payload.to_vec()
}

fn read(payload: &[u8], sources: &[&str], destinations: &[&str]) -> Result<Option<Entry>, NetlinkError> {
    let (sources, destinations) = (addresses(sources), addresses(destinations));
    wire::read_entry(payload, Wanted { sources: &sources, destinations: &destinations })
}

#[test]
fn an_entry_is_found_by_either_source_and_by_no_destination() {
    let payload = payload(&mut listed());
    for (address, is_found) in [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.9", false)] {
        assert_eq!(read(&payload, &[address], &[]).unwrap().is_some(), is_found, "{address}");
    }
}

#[test]
fn an_entry_to_a_floating_address_is_found_by_it() {
    let payload = payload(&mut listed());
    for (address, is_found) in [("10.0.0.9", true), ("10.0.0.1", false), ("10.0.0.8", false)] {
        assert_eq!(read(&payload, &[], &[address]).unwrap().is_some(), is_found, "{address}");
    }
}

#[test]
fn a_deletion_names_the_tuple_the_zone_and_the_number_of_the_entry() {
    let payload = payload(&mut listed());
    let entry = read(&payload, &["10.0.0.1"], &[]).unwrap().unwrap();
    let mut batch = Batch::new();
    wire::delete(&mut batch, &entry);
    let bytes = batch.seal(1).to_vec();
    let message = Messages::new(&bytes).next().unwrap().unwrap();
    assert_eq!(message.kind, 0x0102);
    // The family, the first tuple as it was listed (36 bytes), then number and zone.
    assert_eq!(message.payload[..40], payload[..40]);
    assert_eq!(
        &message.payload[40..48],
        [6_u16.to_ne_bytes(), 18_u16.to_ne_bytes(), [0, 7], [0, 0]].concat()
    );
    assert_eq!(&message.payload[48..], [8_u16.to_ne_bytes(), 12_u16.to_ne_bytes(), [1, 2], [3, 4]].concat());
}

#[test]
fn an_entry_cut_short_anywhere_is_an_error_or_found_but_never_a_panic() {
    let payload = payload(&mut listed());
    for len in 0..payload.len() {
        if let Ok(Some(entry)) = read(&payload[..len], &["10.0.0.1"], &["10.0.0.9"]) {
            assert_eq!(entry.sources[1], "10.0.0.2".parse::<IpAddr>().unwrap(), "cut to {len}");
        }
    }
    let cut = read(&payload[..44], &["10.0.0.1"], &[]);
    assert!(matches!(cut, Err(NetlinkError::Malformed(_))), "{cut:?}");
}
