//! Members, differences and outcomes, without a kernel.

use std::collections::BTreeSet;

use tortie_api::net::IpVersion;

use super::codec::{Change, Strictness, change, failed_line};
use super::fill::{Job, Outcome};
use super::member::{Fit, MemberSet, fit};
use super::state::{Action, Actual, Difference, Set};
use super::*;
use crate::netlink::{Attributes, Batch, Messages, Refusal};

fn spec(set_type: SetType, family: IpVersion) -> SetSpec {
    SetSpec { name: "cali40a".to_owned(), family, set_type, max_elements: 100 }
}

fn net(text: &str) -> Member {
    Member::Net(text.parse().unwrap())
}

fn tracked(members: &[Member]) -> Set {
    let mut set = Set::new(Actual::Absent);
    set.want(spec(SetType::HashNet, IpVersion::V4), &mut members.iter().copied());
    set.actual = Actual::Tracked(Difference::default());
    set
}

fn difference(set: &Set) -> (Vec<String>, Vec<String>) {
    let texts = |members: &BTreeSet<Member>| members.iter().map(ToString::to_string).collect();
    match &set.actual {
        Actual::Tracked(difference) => (texts(&difference.add), texts(&difference.delete)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wanted_sets_are_counted_by_family() {
    let mut sets = IpSets::new();
    let counts = |sets: &IpSets| IpVersion::BOTH.map(|family| sets.count(family));
    let named = |name: &str, family| SetSpec { name: name.to_owned(), ..spec(SetType::HashNet, family) };
    for (name, family) in [("cali40a", IpVersion::V4), ("cali40b", IpVersion::V4), ("cali60a", IpVersion::V6)]
    {
        sets.set_wanted(named(name, family), []).unwrap();
    }
    assert_eq!(counts(&sets), [2, 1]);
    sets.set_wanted(named("cali40a", IpVersion::V4), [net("10.0.0.0/8")]).unwrap();
    assert_eq!(counts(&sets), [2, 1], "wanted anew");
    sets.set_wanted(named("cali40b", IpVersion::V6), []).unwrap();
    assert_eq!(counts(&sets), [1, 2], "of the other family");
    sets.unwant("cali40a");
    sets.unwant("cali40a");
    sets.unwant("cali40nobody");
    assert_eq!(counts(&sets), [0, 2]);
}

#[test]
fn members_print_as_ipset_prints_them() {
    let port = |protocol| Member::AddrPort { addr: "fd00::1".parse().unwrap(), protocol, port: 53 };
    assert_eq!(net("10.65.0.2/32").to_string(), "10.65.0.2");
    assert_eq!(net("10.65.0.0/16").to_string(), "10.65.0.0/16");
    assert_eq!(port(17).to_string(), "fd00::1,udp:53");
    assert_eq!(port(132).to_string(), "fd00::1,sctp:53");
    assert_eq!(Member::Port(80).to_string(), "80");
}

#[test]
fn members_are_brought_into_the_form_of_the_set() {
    let nets = spec(SetType::HashNet, IpVersion::V4);
    let addrs = spec(SetType::HashIp, IpVersion::V4);
    assert_eq!(fit(&nets, Member::Addr("10.0.0.1".parse().unwrap())), Fit::One(net("10.0.0.1/32")));
    assert_eq!(fit(&nets, net("10.0.0.1/8")), Fit::One(net("10.0.0.0/8")), "host bits are cleared");
    assert_eq!(fit(&nets, net("0.0.0.0/0")), Fit::Everything);
    assert_eq!(fit(&nets, net("fd00::/8")), Fit::No);
    assert_eq!(fit(&addrs, net("10.0.0.1/32")), Fit::One(Member::Addr("10.0.0.1".parse().unwrap())));
    assert_eq!(fit(&addrs, net("10.0.0.0/31")), Fit::No, "the kernel would add both addresses");
    let ports = spec(SetType::HashIpPort, IpVersion::V4);
    let port = |protocol, port| Member::AddrPort { addr: "10.0.0.1".parse().unwrap(), protocol, port };
    assert_eq!(fit(&ports, port(0, 80)), Fit::No);
    assert_eq!(fit(&ports, port(47, 80)), Fit::No, "the kernel would put 0 for 80");
    assert_eq!(fit(&ports, port(47, 0)), Fit::One(port(47, 0)));
}

#[test]
fn members_survive_packing_in_order() {
    for family in IpVersion::BOTH {
        let text =
            |low: u8| if family == IpVersion::V4 { format!("10.0.0.{low}") } else { format!("fd00::{low}") };
        let addr = |low: u8| -> std::net::IpAddr { text(low).parse().unwrap() };
        let samples = [
            (SetType::HashIp, vec![Member::Addr(addr(1)), Member::Addr(addr(2))]),
            (SetType::HashNet, vec![Member::Net(addr(1).into()), Member::Net(addr(2).into())]),
            (SetType::BitmapPort, vec![Member::Port(0), Member::Port(443), Member::Port(65535)]),
            (
                SetType::HashIpPort,
                vec![
                    Member::AddrPort { addr: addr(1), protocol: 6, port: 65535 },
                    Member::AddrPort { addr: addr(1), protocol: 132, port: 1 },
                ],
            ),
        ];
        for (set_type, members) in samples {
            let mut set = MemberSet::new(&spec(set_type, family));
            for member in members.iter().rev() {
                assert!(set.insert(member) && !set.insert(member));
            }
            assert_eq!(set.sorted(|_| true), members);
            assert!(set.remove(&members[0]) && !set.contains(&members[0]));
            assert_eq!(set.len(), members.len() - 1);
        }
    }
}

#[test]
fn a_change_that_is_taken_back_leaves_no_difference() {
    let mut set = tracked(&[net("10.0.0.0/8")]);
    let (one, two) = (net("10.0.0.0/8"), net("11.0.0.0/8"));
    set.update(&mut [two].into_iter(), &mut [one].into_iter());
    assert_eq!(difference(&set), (vec!["11.0.0.0/8".to_owned()], vec!["10.0.0.0/8".to_owned()]));
    assert_eq!(set.action(), Action::Update);
    set.update(&mut [one].into_iter(), &mut [two].into_iter());
    assert_eq!(difference(&set), (vec![], vec![]));
    assert!(set.is_programmed());
}

#[test]
fn wanting_a_new_list_keeps_what_is_known_of_the_kernel() {
    let mut set = tracked(&[net("10.0.0.0/8"), net("11.0.0.0/8")]);
    set.update(&mut [net("12.0.0.0/8")].into_iter(), &mut [net("11.0.0.0/8")].into_iter());
    // The kernel still has 10 and 11.
    let list = [net("11.0.0.0/8"), net("13.0.0.0/8")];
    set.want(spec(SetType::HashNet, IpVersion::V4), &mut list.into_iter());
    assert_eq!(difference(&set), (vec!["13.0.0.0/8".to_owned()], vec!["10.0.0.0/8".to_owned()]));
}

#[test]
fn another_kind_of_set_is_looked_at_anew() {
    let mut set = tracked(&[net("10.0.0.0/8")]);
    set.want(spec(SetType::HashIp, IpVersion::V4), &mut std::iter::empty());
    assert_eq!(set.action(), Action::Read);
}

#[test]
fn only_large_changes_with_deletions_are_rewrites() {
    let number = |low: u32| Member::Net(std::net::IpAddr::from((0x0a00_0000 + low).to_be_bytes()).into());
    let mut set = tracked(&(0..100).map(number).collect::<Vec<_>>());
    set.update(&mut (100..400).map(number), &mut std::iter::empty());
    assert_eq!(set.action(), Action::Update, "nothing is deleted");
    set.update(&mut std::iter::empty(), &mut (0..90).map(number));
    assert_eq!(set.action(), Action::Rebuild);
    let mut small = tracked(&[number(1), number(2)]);
    small.update(&mut [number(3)].into_iter(), &mut [number(1), number(2)].into_iter());
    assert_eq!(small.action(), Action::Update, "a few members are changed in place");
}

/// A job of six members that were sent in one message, after a refusal.
fn refused(errno: i32, line: Option<usize>) -> Outcome {
    let add: Vec<Member> = (1..7).map(|low| net(&format!("10.0.0.{low}/32"))).collect();
    let mut job = Job {
        target: "cali40a".to_owned(),
        spec: spec(SetType::HashNet, IpVersion::V4),
        create: None,
        delete: Vec::new(),
        add,
        outcome: Outcome::default(),
    };
    job.refuse_members(Change::Add, 0, 6, &Refusal { errno, explanation: None }, line);
    job.outcome
}

#[test]
fn members_before_the_refused_one_are_in() {
    let outcome = refused(4353, Some(3));
    assert_eq!(outcome.not_added.len(), 4, "the third and those after it");
    assert_eq!(outcome.refused.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.3"]);
    assert!(!outcome.drifted && !outcome.full && outcome.failure.is_none());
}

#[test]
fn refusals_are_told_apart() {
    assert!(refused(4103, Some(1)).drifted, "a member was there already");
    assert!(refused(2, None).drifted, "the set was not there");
    assert!(refused(4352, Some(2)).full);
    assert!(refused(4352, Some(2)).refused.is_empty(), "the member itself is not to blame");
    let other = refused(12, Some(2));
    assert!(other.failure.is_some() && other.refused.is_empty(), "no memory: {other:?}");
    assert_eq!(refused(12, None).not_added.len(), 6, "nothing is known to be in");
}

#[test]
fn the_failed_line_is_read_from_the_request() {
    let mut batch = Batch::new();
    let members = [net("10.0.0.0/8"), net("fd00::/8")];
    assert_eq!(change(&mut batch, 7, "cali40a", Change::Add, &members, Strictness::Strict), 2);
    let bytes = batch_bytes(&mut batch);
    let message = Messages::new(&bytes).next().unwrap().unwrap();
    assert_eq!(failed_line(message.payload), None, "the line is 0 as long as none has failed");
    let mut request = message.payload.to_vec();
    let position = request.windows(4).position(|window| window == [8, 0, 9, 0]).unwrap();
    request[position + 4] = 2;
    assert_eq!(failed_line(&request), Some(2));
    assert_eq!(failed_line(&request[..3]), None);
}

#[test]
fn long_lists_are_cut_into_messages_below_64_kib() {
    let members: Vec<Member> =
        (0..5000_u128).map(|low| Member::Addr(std::net::Ipv6Addr::from_bits(low + 1).into())).collect();
    let mut batch = Batch::new();
    let taken = change(&mut batch, 7, "cali60a", Change::Add, &members, Strictness::Strict);
    assert!(taken > 1000 && taken < 5000);
    let bytes = batch_bytes(&mut batch);
    let message = Messages::new(&bytes).next().unwrap().unwrap();
    assert!(message.payload.len() < 65_000);
    let list = Attributes::after(message.payload, 4).unwrap().map(Result::unwrap).last().unwrap();
    assert_eq!(list.nested().count(), taken);
}

fn batch_bytes(batch: &mut Batch) -> Vec<u8> {
    batch.seal(1).to_vec()
}

#[test]
fn only_our_names_are_ours() {
    for name in
        ["cali40s:abc", "cali60all-ipam-pools", "cali4t12", "cali6t0", "felix-4x", "felix-masq-ipam-pools"]
    {
        assert!(is_ours(name), "{name}");
    }
    for name in ["", "cali", "calico", "cali50x", "KUBE-CLUSTER-IP", "xcali40", "felix"] {
        assert!(!is_ours(name), "{name}");
    }
}
