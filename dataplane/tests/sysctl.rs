//! The settings driver against the real kernel, and against a folder that stands in for it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use common::sh;
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_dataplane::sysctl::{InterfaceSettings, Sysctls};

fn main() -> ExitCode {
    common::run(tests![["ip"];
        a_workload_interface_gets_calicos_settings,
        settings_are_written_only_when_they_differ,
        the_reverse_path_filter_is_the_default_one_unless_spoofing_is_allowed,
        an_interface_that_has_gone_is_no_problem,
        missing_files_are_no_problem,
        a_refused_setting_that_traffic_needs_is_a_problem_until_it_is_right,
        a_refused_setting_that_nothing_needs_is_a_note_and_tried_again_when_read,
        settings_of_ipv6_are_notes_where_there_is_no_ipv6,
        the_plan_names_files_and_values,
        a_strange_interface_name_does_not_lead_out_of_the_folder,
    ])
}

fn value(path: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap_or_default().trim().to_owned()
}

fn veth() -> Sysctls {
    sh("ip link add cali1 type veth peer name p1; ip link set p1 up; ip link set cali1 up");
    let mut sysctls = Sysctls::new("/proc/sys");
    sysctls.interface_up("cali1", InterfaceSettings::default());
    sysctls
}

fn apply(sysctls: &mut Sysctls) -> Report {
    let report = sysctls.apply(Phase::Connect);
    assert_eq!(report.problems, []);
    report
}

fn a_workload_interface_gets_calicos_settings() {
    let mut sysctls = veth();
    apply(&mut sysctls);
    for (path, expected) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/cali1/route_localnet", "1"),
        ("ipv4/conf/cali1/proxy_arp", "1"),
        ("ipv4/conf/cali1/forwarding", "1"),
        ("ipv4/neigh/cali1/proxy_delay", "0"),
        ("ipv6/conf/cali1/accept_ra", "0"),
        ("ipv6/conf/cali1/proxy_ndp", "1"),
        ("ipv6/conf/cali1/forwarding", "1"),
    ] {
        assert_eq!(value(path), expected, "{path}");
    }
}

fn settings_are_written_only_when_they_differ() {
    let mut sysctls = veth();
    assert!(apply(&mut sysctls).calls > 5);
    assert_eq!(apply(&mut sysctls), Report::default());
    sysctls.observe().unwrap();
    assert!(sysctls.plan(Phase::Connect).is_empty(), "{}", sysctls.plan(Phase::Connect));
    fs::write("/proc/sys/net/ipv4/conf/cali1/proxy_arp", "0").unwrap();
    sysctls.observe().unwrap();
    assert_eq!(apply(&mut sysctls).calls, 1);
    assert_eq!(value("ipv4/conf/cali1/proxy_arp"), "1");
    // Made anew, it begins with the kernel's defaults.
    sh("ip link del cali1; ip link add cali1 type veth peer name p1");
    sysctls.interface_up("cali1", InterfaceSettings::default());
    apply(&mut sysctls);
    assert_eq!(value("ipv4/conf/cali1/proxy_arp"), "1");
}

fn the_reverse_path_filter_is_the_default_one_unless_spoofing_is_allowed() {
    let mut sysctls = veth();
    fs::write("/proc/sys/net/ipv4/conf/default/rp_filter", "2").unwrap();
    fs::write("/proc/sys/net/ipv4/conf/cali1/rp_filter", "1").unwrap();
    apply(&mut sysctls);
    assert_eq!(value("ipv4/conf/cali1/rp_filter"), "2");
    sysctls.interface_up("cali1", InterfaceSettings { source_spoofing: true });
    apply(&mut sysctls);
    assert_eq!(value("ipv4/conf/cali1/rp_filter"), "0");
}

fn an_interface_that_has_gone_is_no_problem() {
    let mut sysctls = veth();
    sysctls.observe().unwrap();
    sh("ip link del cali1");
    apply(&mut sysctls);
    sysctls.interface_up("cali2", InterfaceSettings::default());
    sysctls.interface_gone("cali2");
    assert_eq!(apply(&mut sysctls), Report::default());
}

/// A folder with the files that a kernel without IPv6 has.
fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (file, value) in [
        ("net/ipv4/ip_forward", "0\n"),
        ("net/netfilter/nf_conntrack_acct", "0\n"),
        ("net/ipv4/conf/default/rp_filter", "1\n"),
        ("net/ipv4/conf/cali1/rp_filter", "0\n"),
        ("net/ipv4/conf/cali1/proxy_arp", "0\n"),
    ] {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }
    root
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).unwrap()
}

fn missing_files_are_no_problem() {
    let root = folder();
    let mut sysctls = Sysctls::new(root.path());
    sysctls.interface_up("cali1", InterfaceSettings::default());
    assert_eq!(apply(&mut sysctls).calls, 4);
    assert_eq!(read(root.path(), "net/ipv4/conf/cali1/rp_filter"), "1");
    sysctls.observe().unwrap();
    assert!(sysctls.plan(Phase::Connect).is_empty());
    assert_eq!(sysctls.notes(), []);
    assert!(!root.path().join("net/ipv6").exists(), "nothing is made");
}

/// A folder in a file's place: reading fails for root too.
fn block(root: &Path, file: &str) {
    fs::remove_file(root.join(file)).unwrap();
    fs::create_dir(root.join(file)).unwrap();
}

fn unblock(root: &Path, file: &str, value: &str) {
    fs::remove_dir(root.join(file)).unwrap();
    fs::write(root.join(file), value).unwrap();
}

fn a_refused_setting_that_traffic_needs_is_a_problem_until_it_is_right() {
    let (root, file) = (folder(), "net/ipv4/conf/cali1/proxy_arp");
    block(root.path(), file);
    let mut sysctls = Sysctls::new(root.path());
    sysctls.interface_up("cali1", InterfaceSettings::default());
    let report = sysctls.apply(Phase::Connect);
    assert_eq!(report.changed, 3, "the others are written all the same");
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert_eq!(problem.object, format!("sysctl {file} (interface cali1)"));
    assert!(problem.error.contains("\"1\" is wanted: Is a directory"), "{problem}");
    // It is told again and costs nothing until it is read again.
    let again = sysctls.apply(Phase::Connect);
    assert_eq!((again.calls, again.problems), (0, report.problems));
    // Somebody else has set it.
    unblock(root.path(), file, "1\n");
    sysctls.observe().unwrap();
    assert_eq!(apply(&mut sysctls), Report::default());
    // Or the interface has gone.
    block(root.path(), file);
    sysctls.observe().unwrap();
    assert_eq!(sysctls.apply(Phase::Connect).problems.len(), 1);
    sysctls.interface_gone("cali1");
    assert_eq!(apply(&mut sysctls), Report::default());
}

fn a_refused_setting_that_nothing_needs_is_a_note_and_tried_again_when_read() {
    let (root, file) = (folder(), "net/netfilter/nf_conntrack_acct");
    block(root.path(), file);
    let mut sysctls = Sysctls::new(root.path());
    assert_eq!(apply(&mut sysctls).changed, 1, "the other one is written all the same");
    let notes = sysctls.notes();
    assert_eq!((notes.len(), notes[0].object.as_str()), (1, "sysctl net/netfilter/nf_conntrack_acct"));
    assert_eq!(apply(&mut sysctls), Report::default());
    unblock(root.path(), file, "0\n");
    sysctls.observe().unwrap();
    assert_eq!(apply(&mut sysctls).changed, 1);
    assert_eq!(sysctls.notes(), []);
    assert_eq!(read(root.path(), file), "1");
}

fn settings_of_ipv6_are_notes_where_there_is_no_ipv6() {
    for has_ipv6 in [true, false] {
        let root = folder();
        fs::create_dir_all(root.path().join("net/ipv6/conf/all/forwarding")).unwrap();
        let mut sysctls = Sysctls::new(root.path()).with_ipv6(has_ipv6);
        let problems = sysctls.apply(Phase::Connect).problems.len();
        assert_eq!((problems, sysctls.notes().len()), if has_ipv6 { (1, 0) } else { (0, 1) });
    }
}

fn the_plan_names_files_and_values() {
    let root = folder();
    let mut sysctls = Sysctls::new(root.path());
    assert_eq!(sysctls.plan(Phase::Connect).to_string(), "check settings of the node");
    sysctls.observe().unwrap();
    let plan = sysctls.plan(Phase::Connect).to_string();
    assert!(plan.contains("net/ipv4/ip_forward = 1") && plan.contains("nf_conntrack_acct = 1"), "{plan}");
    assert!(sysctls.plan(Phase::Enforce).is_empty());
    assert_eq!(sysctls.apply(Phase::Provide), Report::default());
    assert_eq!(read(root.path(), "net/ipv4/ip_forward"), "0\n", "not in this phase");
}

fn a_strange_interface_name_does_not_lead_out_of_the_folder() {
    let root = folder();
    let mut sysctls = Sysctls::new(root.path());
    apply(&mut sysctls);
    for name in ["..", ".", "", "../default", "a/b"] {
        sysctls.interface_up(name, InterfaceSettings { source_spoofing: true });
    }
    assert_eq!(apply(&mut sysctls), Report::default());
}
