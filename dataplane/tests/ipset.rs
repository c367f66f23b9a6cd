//! The ip set driver against the real kernel, checked with the real `ipset`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Instant;

use common::{sh, try_sh};
use tortie_api::net::IpVersion;
use tortie_dataplane::ipset::{IpSets, Member, SetSpec, SetType};
use tortie_dataplane::reconcile::{Driver, Phase, Report};

fn main() -> ExitCode {
    common::run(tests![["ipset"];
        created_sets_print_as_calico_prints_them,
        every_type_and_family_holds_its_members,
        a_set_of_100_000_members_is_filled_and_read_back,
        ten_members_more_in_a_large_set_cost_one_send,
        small_changes_of_many_sets_cost_one_send,
        an_unchanged_state_costs_no_call,
        members_of_real_ipset_are_read_and_not_written_again,
        observing_again_after_an_apply_finds_nothing_to_do,
        the_whole_address_space_is_two_halves_and_they_are_counted_right,
        another_size_is_swapped_under_a_rule,
        another_type_replaces_an_unused_set,
        another_type_of_a_used_set_is_a_problem_and_is_done_once_it_is_free,
        a_mostly_different_set_is_swapped,
        a_set_with_a_timeout_is_made_anew,
        a_set_with_more_members_than_its_limit_is_made_larger,
        a_set_that_outgrows_its_limit_under_a_rule_is_swapped_for_a_larger_one,
        a_thousand_sets_go_in_a_few_passes,
        the_empty_address_is_a_problem_and_the_rest_goes_in,
        a_member_of_the_wrong_kind_is_a_problem_without_a_call,
        a_set_in_use_is_destroyed_once_it_is_free,
        foreign_sets_are_not_touched,
        leftover_temporary_sets_go,
        a_taken_temporary_name_is_passed_over,
        members_changed_by_others_are_repaired_in_the_same_apply,
        a_set_destroyed_by_others_is_made_again_in_the_same_apply,
        a_set_made_by_others_meanwhile_is_brought_in_step,
        a_large_set_made_by_others_meanwhile_floods_no_buffer,
        an_unwanted_set_that_is_wanted_again_is_read_first,
        nothing_is_written_before_the_kernel_was_read,
        the_plan_says_what_apply_does,
        random_changes_with_interference_end_in_step,
    ])
}

fn spec(name: &str, family: IpVersion, set_type: SetType) -> SetSpec {
    SetSpec { name: name.to_owned(), family, set_type, max_elements: 1_048_576 }
}

fn nets4(name: &str) -> SetSpec {
    spec(name, IpVersion::V4, SetType::HashNet)
}

fn net(text: &str) -> Member {
    Member::Net(text.parse().unwrap())
}

fn addr(text: &str) -> Member {
    Member::Addr(text.parse().unwrap())
}

/// The `number`th address of 10.0.0.0/8 as a network.
fn numbered(number: u32) -> Member {
    Member::Net(ipnet::IpNet::from(std::net::IpAddr::from((0x0a00_0001 + number).to_be_bytes())))
}

fn observed() -> IpSets {
    let mut sets = IpSets::new();
    sets.observe().unwrap();
    sets
}

fn apply_both(sets: &mut IpSets) -> Report {
    let mut report = sets.apply(Phase::Provide);
    report.merge(sets.apply(Phase::Withdraw));
    report
}

/// Applies and expects no problem.
fn apply(sets: &mut IpSets) -> Report {
    let report = apply_both(sets);
    assert_eq!(report.problems, [], "no problems");
    report
}

/// Members as `ipset` lists them, sorted as text.
fn listed(name: &str) -> Vec<String> {
    let text = sh(&format!("ipset save '{name}'"));
    let prefix = format!("add {name} ");
    let mut members: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(ToOwned::to_owned).collect();
    members.sort();
    members
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = sh("ipset list -n").lines().map(ToOwned::to_owned).collect();
    names.sort();
    names
}

fn assert_in_step(sets: &IpSets) {
    let mut fresh = String::new();
    for phase in Phase::ALL {
        fresh.push_str(&sets.plan(phase).to_string());
    }
    assert_eq!(fresh, "");
}

fn created_sets_print_as_calico_prints_them() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40all-ipam-pools"), [net("10.65.0.0/16")]).unwrap();
    let host = spec("cali60this-host", IpVersion::V6, SetType::HashIp);
    sets.set_wanted(host, [addr("::1"), addr("fd00:18::2")]).unwrap();
    let port = spec("cali40n:cl9_Kgeu4H0OGLbhovVR3NB", IpVersion::V4, SetType::HashIpPort);
    let member = Member::AddrPort { addr: "10.65.0.2".parse().unwrap(), protocol: 6, port: 8080 };
    sets.set_wanted(port, [member]).unwrap();
    apply(&mut sets);
    let mut lines: Vec<String> = sh("ipset save").lines().map(ToOwned::to_owned).collect();
    lines.sort();
    let seed = |line: &str| line.split(" initval").next().unwrap().to_owned();
    assert_eq!(
        lines.iter().map(|line| seed(line)).collect::<Vec<_>>(),
        [
            "add cali40all-ipam-pools 10.65.0.0/16",
            "add cali40n:cl9_Kgeu4H0OGLbhovVR3NB 10.65.0.2,tcp:8080",
            "add cali60this-host ::1",
            "add cali60this-host fd00:18::2",
            "create cali40all-ipam-pools hash:net family inet hashsize 1024 maxelem 1048576 bucketsize 12",
            "create cali40n:cl9_Kgeu4H0OGLbhovVR3NB hash:ip,port family inet hashsize 1024 maxelem 1048576 bucketsize 12",
            "create cali60this-host hash:ip family inet6 hashsize 1024 maxelem 1048576 bucketsize 12",
        ]
    );
}

/// Every type and family with members at the edges of what it can hold.
fn samples() -> Vec<(SetSpec, Vec<Member>)> {
    let port = |addr: &str, protocol, port| Member::AddrPort { addr: addr.parse().unwrap(), protocol, port };
    vec![
        (spec("cali40ip", IpVersion::V4, SetType::HashIp), vec![addr("0.0.0.1"), addr("255.255.255.255")]),
        (spec("cali60ip", IpVersion::V6, SetType::HashIp), vec![addr("::1"), addr("fe80::ff:fe00:1")]),
        (
            spec("cali40net", IpVersion::V4, SetType::HashNet),
            vec![net("10.0.0.0/8"), net("10.1.2.3/32"), net("128.0.0.0/1"), net("0.0.0.0/32")],
        ),
        (
            spec("cali60net", IpVersion::V6, SetType::HashNet),
            vec![net("fd00::/8"), net("fd00::1/128"), net("8000::/1"), net("fd00:1::/127")],
        ),
        (
            spec("cali40port", IpVersion::V4, SetType::HashIpPort),
            vec![
                port("10.0.0.1", 6, 80),
                port("10.0.0.1", 17, 53),
                port("10.0.0.2", 132, 65535),
                port("10.0.0.3", 136, 7),
            ],
        ),
        (
            spec("cali60port", IpVersion::V6, SetType::HashIpPort),
            vec![port("fd00::1", 17, 53), port("fd00::1", 6, 1)],
        ),
        (
            spec("cali40bits", IpVersion::V4, SetType::BitmapPort),
            vec![Member::Port(0), Member::Port(80), Member::Port(65535)],
        ),
    ]
}

fn every_type_and_family_holds_its_members() {
    let mut sets = observed();
    for (spec, members) in samples() {
        sets.set_wanted(spec, members).unwrap();
    }
    apply(&mut sets);
    for (spec, members) in samples() {
        let mut expected: Vec<String> = members.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(listed(&spec.name), expected, "{}", spec.name);
        assert!(sets.is_programmed(&spec.name), "{}", spec.name);
    }
    sets.observe().unwrap();
    assert_in_step(&sets);
    for (spec, members) in samples() {
        sets.update_members(&spec.name, [], members).unwrap();
    }
    apply(&mut sets);
    for (spec, _) in samples() {
        assert_eq!(listed(&spec.name), [""; 0], "{} is empty", spec.name);
    }
}

fn large() -> IpSets {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40large"), (0..100_000).map(numbered)).unwrap();
    apply(&mut sets);
    sets
}

fn a_set_of_100_000_members_is_filled_and_read_back() {
    let mut sets = large();
    assert_eq!(listed("cali40large").len(), 100_000);
    sets.observe().unwrap();
    assert!(sets.is_programmed("cali40large"));
    assert_in_step(&sets);
    // A fresh process that wants one member less and one more finds just that.
    let mut fresh = observed();
    fresh.set_wanted(nets4("cali40large"), (1..100_001).map(numbered)).unwrap();
    let report = apply(&mut fresh);
    assert!(report.calls <= 2, "one dump and one send, not {}", report.calls);
    let members = listed("cali40large");
    assert_eq!(members.len(), 100_000);
    assert!(!members.contains(&"10.0.0.1".to_owned()));
    assert!(members.contains(&numbered(100_000).to_string()));
}

fn ten_members_more_in_a_large_set_cost_one_send() {
    let mut sets = large();
    let added = (200_000..200_010).map(numbered);
    sets.update_members("cali40large", added, [numbered(0)]).unwrap();
    let report = apply(&mut sets);
    assert_eq!(report.calls, 1);
    assert_eq!(listed("cali40large").len(), 100_009);
}

fn small_changes_of_many_sets_cost_one_send() {
    let mut sets = observed();
    let name = |number: u32| format!("cali40s:{number}");
    for number in 0..100 {
        sets.set_wanted(nets4(&name(number)), [numbered(number)]).unwrap();
    }
    apply(&mut sets);
    for number in 0..100 {
        sets.update_members(&name(number), [numbered(1000)], [numbered(number)]).unwrap();
    }
    assert_eq!(apply(&mut sets).calls, 1);
    for number in 0..100 {
        assert_eq!(listed(&name(number)), [numbered(1000).to_string()]);
    }
}

fn an_unchanged_state_costs_no_call() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    apply(&mut sets);
    assert_eq!(apply(&mut sets), Report::default());
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    assert_eq!(apply(&mut sets), Report::default(), "the same set wanted once more");
    sets.update_members("cali40a", [net("10.1.0.0/16")], []).unwrap();
    sets.update_members("cali40a", [], [net("10.1.0.0/16")]).unwrap();
    assert_eq!(apply(&mut sets), Report::default(), "a change that was taken back");
}

fn members_of_real_ipset_are_read_and_not_written_again() {
    sh("ipset create cali40ip hash:ip maxelem 1048576");
    sh("ipset create cali60ip hash:ip family inet6 maxelem 1048576");
    sh("ipset create cali40net hash:net maxelem 1048576");
    sh("ipset create cali60net hash:net family inet6 maxelem 1048576");
    sh("ipset create cali40port hash:ip,port maxelem 1048576");
    sh("ipset create cali60port hash:ip,port family inet6 maxelem 1048576");
    sh("ipset create cali40bits bitmap:port range 0-65535");
    for (spec, members) in samples() {
        for member in members {
            sh(&format!("ipset add {} {member}", spec.name));
        }
    }
    let mut sets = observed();
    for (spec, members) in samples() {
        sets.set_wanted(spec, members).unwrap();
    }
    let report = apply(&mut sets);
    assert_eq!(report.calls, samples().len(), "one listing for each, nothing written");
    assert_eq!(report.changed, 0);
    for (spec, _) in samples() {
        assert!(sets.is_programmed(&spec.name), "{}", spec.name);
    }
}

fn observing_again_after_an_apply_finds_nothing_to_do() {
    let mut sets = observed();
    for (spec, members) in samples() {
        sets.set_wanted(spec, members).unwrap();
    }
    apply(&mut sets);
    sets.observe().unwrap();
    assert_in_step(&sets);
    assert_eq!(apply(&mut sets), Report::default());
}

fn the_whole_address_space_is_two_halves_and_they_are_counted_right() {
    let mut sets = observed();
    let v6 = spec("cali60all", IpVersion::V6, SetType::HashNet);
    sets.set_wanted(v6, [net("::/0")]).unwrap();
    sets.set_wanted(nets4("cali40all"), [net("0.0.0.0/0"), net("0.0.0.0/1")]).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali60all"), ["8000::/1", "::/1"]);
    assert_eq!(listed("cali40all"), ["0.0.0.0/1", "128.0.0.0/1"]);
    sets.update_members("cali40all", [], [net("0.0.0.0/1")]).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40all"), ["0.0.0.0/1", "128.0.0.0/1"], "still part of 0.0.0.0/0");
    sets.update_members("cali40all", [net("128.0.0.0/1")], [net("0.0.0.0/0")]).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40all"), ["128.0.0.0/1"], "wanted for itself");
}

fn another_size_is_swapped_under_a_rule() -> common::Outcome {
    sh("ipset create cali40a hash:net maxelem 1000");
    sh("ipset add cali40a 192.0.2.0/24");
    let (works, text) = try_sh("iptables -A INPUT -m set --match-set cali40a src -j DROP");
    if !works {
        return common::Outcome::Skipped(format!("iptables -m set: {text}"));
    }
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40a"), ["10.0.0.0/8"]);
    assert!(sh("ipset list -t cali40a").contains("maxelem 1048576"));
    assert!(sh("ipset list -t cali40a").contains("References: 1"), "the rule refers to the new set");
    assert_eq!(names(), ["cali40a"], "the temporary set has gone");
    common::Outcome::Done
}

fn another_type_replaces_an_unused_set() {
    sh("ipset create cali40a hash:ip");
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40a"), ["10.0.0.0/8"]);
    assert_eq!(names(), ["cali40a"]);
    let ports = spec("cali40a", IpVersion::V4, SetType::BitmapPort);
    sets.set_wanted(ports, [Member::Port(80)]).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40a"), ["80"]);
    assert_eq!(names(), ["cali40a"]);
}

fn another_type_of_a_used_set_is_a_problem_and_is_done_once_it_is_free() -> common::Outcome {
    sh("ipset create cali40a hash:ip");
    let (works, text) = try_sh("iptables -A INPUT -m set --match-set cali40a src -j DROP");
    if !works {
        return common::Outcome::Skipped(format!("iptables -m set: {text}"));
    }
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    sets.set_wanted(nets4("cali40b"), [net("10.0.0.0/8")]).unwrap();
    let report = apply_both(&mut sets);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(report.problems[0].object, "set cali40a");
    assert!(!sets.is_programmed("cali40a") && sets.is_programmed("cali40b"));
    sh("iptables -F INPUT");
    apply(&mut sets);
    assert_eq!(listed("cali40a"), ["10.0.0.0/8"]);
    assert_eq!(names(), ["cali40a", "cali40b"]);
    common::Outcome::Done
}

fn a_mostly_different_set_is_swapped() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), (0..1000).map(numbered)).unwrap();
    apply(&mut sets);
    sets.set_wanted(nets4("cali40a"), (900..2000).map(numbered)).unwrap();
    let plan = sets.plan(Phase::Provide).to_string();
    assert_eq!(plan, "rebuild set cali40a with 1100 members and swap");
    apply(&mut sets);
    let mut expected: Vec<String> = (900..2000).map(|number| numbered(number).to_string()).collect();
    expected.sort();
    assert_eq!(listed("cali40a"), expected);
    assert_eq!(names(), ["cali40a"]);
    sets.observe().unwrap();
    assert_in_step(&sets);
}

fn a_set_with_a_timeout_is_made_anew() {
    sh("ipset create cali40a hash:net maxelem 1048576 timeout 600");
    sh("ipset add cali40a 10.0.0.0/8");
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    apply(&mut sets);
    assert!(!sh("ipset list cali40a").contains("timeout"));
    assert_eq!(listed("cali40a"), ["10.0.0.0/8"]);
}

/// The limit that the kernel's set has.
fn limit(name: &str) -> String {
    let text = sh(&format!("ipset list -t {name}"));
    text.split("maxelem ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

fn a_set_with_more_members_than_its_limit_is_made_larger() {
    let mut sets = observed();
    for (family, name) in [(IpVersion::V4, "cali40a"), (IpVersion::V6, "cali60a")] {
        let small = SetSpec { max_elements: 64, ..spec(name, family, SetType::HashNet) };
        let member = |number| match family {
            IpVersion::V4 => numbered(number),
            IpVersion::V6 => net(&format!("fd00::{number:x}/128")),
        };
        sets.set_wanted(small.clone(), (0..1000).map(member)).unwrap();
        apply(&mut sets);
        assert_eq!((listed(name).len(), limit(name).as_str()), (1000, "1024"));
        assert!(sets.is_programmed(name));
        // Few enough again: the limit is what was asked for.
        sets.update_members(name, [], (20..1000).map(member)).unwrap();
        apply(&mut sets);
        sets.observe().unwrap();
        apply_both(&mut sets);
        assert_eq!((listed(name).len(), limit(name).as_str()), (20, "64"));
    }
    assert_in_step(&sets);
}

fn a_set_that_outgrows_its_limit_under_a_rule_is_swapped_for_a_larger_one() -> common::Outcome {
    let mut sets = observed();
    let small = SetSpec { max_elements: 64, ..nets4("cali40a") };
    sets.set_wanted(small, (0..64).map(numbered)).unwrap();
    apply(&mut sets);
    let (works, text) = try_sh("iptables -A INPUT -m set --match-set cali40a src -j DROP");
    if !works {
        return common::Outcome::Skipped(format!("iptables -m set: {text}"));
    }
    assert_eq!(limit("cali40a"), "64");
    for (add, larger) in [(64..65, "128"), (65..128, "128"), (128..129, "256"), (129..5000, "8192")] {
        let count = usize::try_from(add.end).unwrap();
        sets.update_members("cali40a", add.map(numbered), []).unwrap();
        apply_both(&mut sets);
        assert_eq!((listed("cali40a").len(), limit("cali40a").as_str()), (count, larger));
        assert!(sh("ipset list -t cali40a").contains("References: 1"), "the rule refers to the new set");
        sets.observe().unwrap();
        assert_in_step(&sets);
    }
    // The next process, asked for the same small limit, leaves it alone.
    let mut fresh = observed();
    let small = SetSpec { max_elements: 64, ..nets4("cali40a") };
    fresh.set_wanted(small, (0..5000).map(numbered)).unwrap();
    fresh.observe().unwrap();
    assert_in_step(&fresh);
    assert_eq!(names(), ["cali40a"], "temporary sets have gone");
    common::Outcome::Done
}

fn a_thousand_sets_go_in_a_few_passes() {
    let mut sets = observed();
    for number in 0..1000 {
        sets.set_wanted(nets4(&format!("cali40s:{number}")), (0..10).map(numbered)).unwrap();
    }
    let begun = Instant::now();
    apply(&mut sets);
    let made = begun.elapsed();
    assert_eq!(names().len(), 1000);
    for number in 0..1000 {
        sets.unwant(&format!("cali40s:{number}"));
    }
    let (begun, mut passes, mut calls) = (Instant::now(), 0, 0);
    while !sets.plan(Phase::Withdraw).is_empty() {
        let report = sets.apply(Phase::Withdraw);
        assert_eq!(report.problems, []);
        assert!(report.changed > 0, "each pass gets on");
        (passes, calls) = (passes + 1, calls + report.calls);
    }
    eprintln!("1,000 sets made in {made:?}, gone in {:?}: {passes} passes, {calls} calls", begun.elapsed());
    assert!(calls < 100, "not one call for each set");
    assert_eq!(names(), [""; 0]);
}

fn the_empty_address_is_a_problem_and_the_rest_goes_in() {
    let mut sets = observed();
    let bad = [addr("0.0.0.0"), addr("10.0.0.1"), addr("10.0.0.2")];
    sets.set_wanted(spec("cali40a", IpVersion::V4, SetType::HashIp), bad).unwrap();
    let report = apply_both(&mut sets);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].error.contains("0.0.0.0"));
    assert_eq!(listed("cali40a"), ["10.0.0.1", "10.0.0.2"]);
    assert!(!sets.is_programmed("cali40a"), "a member is missing");
}

fn a_member_of_the_wrong_kind_is_a_problem_without_a_call() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8"), net("fd00::/8"), Member::Port(1)]).unwrap();
    assert_eq!(apply_both(&mut sets).problems.len(), 2);
    let report = apply_both(&mut sets);
    assert_eq!((report.calls, report.problems.len()), (0, 2), "still said, at no cost");
    sets.update_members("cali40a", [], [net("fd00::/8"), Member::Port(1)]).unwrap();
    apply(&mut sets);
    assert!(sets.is_programmed("cali40a"));
}

fn a_set_in_use_is_destroyed_once_it_is_free() -> common::Outcome {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    sets.set_wanted(nets4("cali40b"), [net("10.0.0.0/8")]).unwrap();
    apply(&mut sets);
    let (works, text) = try_sh("iptables -A INPUT -m set --match-set cali40a src -j DROP");
    if !works {
        return common::Outcome::Skipped(format!("iptables -m set: {text}"));
    }
    sets.unwant("cali40a");
    sets.unwant("cali40b");
    apply(&mut sets);
    assert_eq!(names(), ["cali40a"], "in use: no problem yet, and the other one has gone");
    assert_eq!(sets.plan(Phase::Withdraw).to_string(), "destroy set cali40a");
    for _ in 0..5 {
        apply_both(&mut sets);
    }
    assert_eq!(apply_both(&mut sets).problems.len(), 1, "in use for too long");
    sh("iptables -F INPUT");
    apply(&mut sets);
    assert_eq!(names(), [""; 0]);
    assert_in_step(&sets);
    common::Outcome::Done
}

fn foreign_sets_are_not_touched() {
    sh("ipset create KUBE-CLUSTER-IP hash:ip,port");
    sh("ipset create calico hash:ip");
    sh("ipset create cali5x hash:ip");
    sh("ipset create felix-4old hash:ip");
    sh("ipset add calico 10.0.0.1");
    let before = sh("ipset save calico");
    let mut sets = observed();
    apply(&mut sets);
    assert_eq!(names(), ["KUBE-CLUSTER-IP", "cali5x", "calico"], "only the old set of ours has gone");
    assert_eq!(sh("ipset save calico"), before);
    assert!(sets.set_wanted(nets4("calico"), []).is_err());
    assert!(sets.set_wanted(nets4("cali40a-name-of-more-than-31-bytes"), []).is_err());
}

fn leftover_temporary_sets_go() {
    sh("ipset create cali4t0 hash:ip");
    sh("ipset create cali6t17 hash:ip family inet6");
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), []).unwrap();
    apply(&mut sets);
    assert_eq!(names(), ["cali40a"]);
}

fn a_taken_temporary_name_is_passed_over() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), (0..100).map(numbered)).unwrap();
    apply(&mut sets);
    sh("ipset create cali4t0 hash:net");
    sh("ipset add cali4t0 203.0.113.0/24");
    sets.set_wanted(nets4("cali40a"), (100..200).map(numbered)).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40a").len(), 100);
    assert!(!listed("cali40a").contains(&"203.0.113.0/24".to_owned()), "not the other set's members");
    assert_eq!(names(), ["cali40a"]);
}

fn members_changed_by_others_are_repaired_in_the_same_apply() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), (0..10).map(numbered)).unwrap();
    apply(&mut sets);
    sh("ipset add cali40a 10.9.9.9; ipset add cali40a 203.0.113.0/24; ipset del cali40a 10.0.0.1");
    // 10.9.9.9 is there already, 10.0.0.1 is not there any more.
    sets.update_members("cali40a", [net("10.9.9.9/32"), net("10.8.8.8/32")], [numbered(0), numbered(1)])
        .unwrap();
    apply(&mut sets);
    let mut expected: Vec<String> = (2..10).map(|number| numbered(number).to_string()).collect();
    expected.extend(["10.8.8.8".to_owned(), "10.9.9.9".to_owned()]);
    expected.sort();
    assert_eq!(listed("cali40a"), expected, "the foreign member has gone too");
    assert!(sets.is_programmed("cali40a"));
}

fn a_set_destroyed_by_others_is_made_again_in_the_same_apply() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), (0..10).map(numbered)).unwrap();
    apply(&mut sets);
    sh("ipset destroy cali40a");
    sets.update_members("cali40a", [numbered(10)], []).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40a").len(), 11);
}

fn a_set_made_by_others_meanwhile_is_brought_in_step() {
    let mut sets = observed();
    sh("ipset create cali40a hash:net maxelem 1048576; ipset add cali40a 203.0.113.0/24");
    sh("ipset create cali40b hash:ip");
    sets.set_wanted(nets4("cali40a"), [net("10.0.0.0/8")]).unwrap();
    sets.set_wanted(nets4("cali40b"), [net("10.0.0.0/8")]).unwrap();
    apply(&mut sets);
    assert_eq!(listed("cali40a"), ["10.0.0.0/8"]);
    assert_eq!(listed("cali40b"), ["10.0.0.0/8"]);
}

fn a_large_set_made_by_others_meanwhile_floods_no_buffer() {
    let mut sets = observed();
    let members = || (0..100_000).map(numbered);
    let mut lines = vec!["create cali40a hash:net maxelem 1048576".to_owned()];
    lines.extend(members().map(|member| format!("add cali40a {member}")));
    std::fs::write("/run/large-set", lines.join("\n")).unwrap();
    sh("ipset restore < /run/large-set");
    // Every message fails, and each error repeats 60 kB of request.
    sets.set_wanted(nets4("cali40a"), members().chain([net("203.0.113.0/24")])).unwrap();
    apply(&mut sets);
    assert!(sets.is_programmed("cali40a"));
    assert_eq!(listed("cali40a").len(), 100_001);
}

fn an_unwanted_set_that_is_wanted_again_is_read_first() {
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), (0..10).map(numbered)).unwrap();
    apply(&mut sets);
    sets.unwant("cali40a");
    assert!(!sets.is_programmed("cali40a"));
    sets.set_wanted(nets4("cali40a"), (5..12).map(numbered)).unwrap();
    assert_eq!(sets.plan(Phase::Withdraw).to_string(), "");
    apply(&mut sets);
    assert_eq!(listed("cali40a").len(), 7);
    sets.unwant("cali40never");
    assert!(sets.update_members("cali40never", [numbered(1)], []).is_err());
}

fn nothing_is_written_before_the_kernel_was_read() {
    sh("ipset create cali40old hash:ip");
    let mut sets = IpSets::new();
    sets.set_wanted(nets4("cali40a"), [numbered(1)]).unwrap();
    assert_eq!(apply_both(&mut sets).problems.len(), 2);
    assert_eq!(names(), ["cali40old"]);
    sets.observe().unwrap();
    apply(&mut sets);
    assert_eq!(names(), ["cali40a"]);
}

fn the_plan_says_what_apply_does() {
    sh("ipset create cali40old hash:ip");
    let mut sets = observed();
    sets.set_wanted(nets4("cali40a"), [numbered(1)]).unwrap();
    assert_eq!(sets.plan(Phase::Provide).to_string(), "create set cali40a with 1 members");
    assert_eq!(sets.plan(Phase::Withdraw).to_string(), "destroy set cali40old");
    assert!(sets.plan(Phase::Enforce).is_empty() && sets.plan(Phase::Connect).is_empty());
    apply(&mut sets);
    sets.update_members("cali40a", [numbered(2), numbered(3)], [numbered(1)]).unwrap();
    assert_eq!(sets.plan(Phase::Provide).to_string(), "update set cali40a: delete 1 members, add 2");
    apply(&mut sets);
    assert_in_step(&sets);
}

/// A small generator of numbers, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// A thousand steps: wanting, changing, dropping, applying, observing, and someone else at work in between.
fn random_changes_with_interference_end_in_step() {
    let mut random = Random(7);
    let mut sets = observed();
    let mut model: BTreeMap<String, BTreeSet<Member>> = BTreeMap::default();
    for step in 0..1000 {
        let name = format!("cali40s:{}", random.below(4));
        let some: Vec<Member> = (0..random.below(60)).map(|_| numbered(random.below(200))).collect();
        match random.below(8) {
            0 => {
                sets.set_wanted(nets4(&name), some.iter().copied()).unwrap();
                model.insert(name, some.into_iter().collect());
            }
            1 => {
                sets.unwant(&name);
                model.remove(&name);
            }
            2 | 3 => {
                let Some(members) = model.get_mut(&name) else { continue };
                let (added, removed) = some.split_at(some.len() / 2);
                sets.update_members(&name, added.to_vec(), removed.to_vec()).unwrap();
                members.retain(|member| !removed.contains(member));
                members.extend(added);
            }
            4 => drop(try_sh(&format!("ipset add {name} {} -exist", numbered(random.below(200))))),
            5 => drop(try_sh(&format!("ipset del {name} {} -exist", numbered(random.below(200))))),
            6 => {
                drop(try_sh(&format!("ipset destroy {name}")));
                sets.observe().unwrap();
            }
            _ => {
                // What others did to sets that have nothing to change is found by reading.
                if random.below(2) == 0 {
                    sets.observe().unwrap();
                    apply(&mut sets);
                    assert_eq!(names(), model.keys().cloned().collect::<Vec<_>>(), "step {step}");
                    for (name, members) in &model {
                        let mut expected: Vec<String> = members.iter().map(ToString::to_string).collect();
                        expected.sort();
                        assert_eq!(listed(name), expected, "step {step}, {name}");
                    }
                } else {
                    apply(&mut sets);
                }
                assert_in_step(&sets);
            }
        }
    }
}
