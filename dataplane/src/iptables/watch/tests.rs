use super::*;

/// `AF_INET` and `AF_INET6`.
const V4: u8 = 2;
const V6: u8 = 10;
const FOREIGN: u32 = 77;

/// An event as the kernel sends it.
fn event(kind: u16, port: u32, family: u8, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes.extend([family, 0, 0, 0]);
    for (kind, text) in attributes {
        let len = u16::try_from(text.len() + 5).unwrap();
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..6].copy_from_slice(&(SUBSYSTEM << 8 | kind).to_ne_bytes());
    bytes[12..16].copy_from_slice(&port.to_ne_bytes());
    bytes
}

fn found(bytes: &[u8], ours: &[u32]) -> Found {
    let message = Messages::new(bytes).next().unwrap().unwrap();
    read(&message, &ours.iter().copied().collect()).unwrap()
}

fn chains(names: &[&str]) -> Touch {
    Touch::Chains(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn a_rule_of_others_in_our_chain_or_in_the_kernels_is_a_touch_of_that_chain() {
    let ours = event(DEL_RULE, FOREIGN, V4, &[(1, "filter"), (2, "cali-FORWARD")]);
    assert_eq!(found(&ours, &[]), Some(((IpVersion::V4, Table::Filter), chains(&["cali-FORWARD"]))));
    let kernel = event(NEW_RULE, FOREIGN, V6, &[(1, "nat"), (2, "POSTROUTING")]);
    assert_eq!(found(&kernel, &[]), Some(((IpVersion::V6, Table::Nat), chains(&["POSTROUTING"]))));
    let gone = event(DEL_CHAIN, FOREIGN, V4, &[(1, "raw"), (3, "cali-x")]);
    assert_eq!(found(&gone, &[]), Some(((IpVersion::V4, Table::Raw), chains(&["cali-x"]))));
}

#[test]
fn a_table_that_comes_or_goes_is_touched_as_a_whole() {
    for kind in [NEW_TABLE, DEL_TABLE] {
        let table = event(kind, FOREIGN, V4, &[(1, "mangle")]);
        assert_eq!(found(&table, &[]), Some(((IpVersion::V4, Table::Mangle), Touch::Whole)));
    }
}

#[test]
fn what_we_write_and_what_is_in_chains_of_others_is_passed_over() {
    let written = event(NEW_RULE, 12, V4, &[(1, "filter"), (2, "cali-FORWARD")]);
    assert_eq!(found(&written, &[11, 12]), None);
    let others = [
        event(NEW_RULE, FOREIGN, V4, &[(1, "filter"), (2, "KUBE-FORWARD")]),
        event(NEW_CHAIN, FOREIGN, V4, &[(1, "nat"), (3, "KUBE-SVC-X")]),
        event(NEW_RULE, FOREIGN, V4, &[(1, "calico"), (2, "cali-FORWARD")]),
        event(NEW_RULE, FOREIGN, 1, &[(1, "filter"), (2, "FORWARD")]),
        event(15, FOREIGN, 0, &[]),
    ];
    for event in others {
        assert_eq!(found(&event, &[]), None, "{event:?}");
    }
}

#[test]
fn a_program_that_has_ended_is_known_until_its_events_were_read() {
    let writers = Writers::default();
    writers.started(1);
    writers.started(2);
    writers.ended(1);
    let (known, ended) = writers.known();
    assert_eq!((known.len(), ended.len()), (2, 1));
    // Ends while events are being read: some of its own may still be unread.
    writers.ended(2);
    writers.forget(&ended);
    assert_eq!(writers.known(), (BTreeSet::from([2]), BTreeSet::from([2])));
}

#[test]
fn touches_add_up() {
    let mut touch = chains(&["a"]);
    touch.merge(chains(&["b"]));
    assert_eq!(touch, chains(&["a", "b"]));
    touch.merge(Touch::Whole);
    touch.merge(chains(&["c"]));
    assert_eq!(touch, Touch::Whole);
}
