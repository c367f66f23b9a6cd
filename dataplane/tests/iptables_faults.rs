//! The iptables driver against the real kernel when something is wrong: rules that are refused, programs that fail,
//! a lock that is held.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/tables.rs"]
mod tables;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use common::{Test, sh};
use tables::{
    Case, LEGACY_V4, LEGACY_V6, MARK_ACCEPT, NFT_V4, NFT_V6, POLICY, add_foreign_rules, chain, enforce, hook,
    ids_of, is_closed, matrix, problem_of, want_policy,
};
use tortie_dataplane::iptables::{IptablesTable, Options, Tools};
use tortie_dataplane::reconcile::{Driver, Phase};
use tortie_rules::render::{InsertMode, Table, TableChange};

fn main() -> ExitCode {
    let mut tests = matrix![
        a_chain_that_a_foreign_chain_uses_is_emptied_and_reported,
        a_rule_that_does_not_parse_closes_its_chain_only,
        a_rule_that_the_kernel_refuses_closes_its_chain_only,
        a_refused_chain_is_tried_again_after_a_resync_and_when_it_changes,
        a_refused_chain_behind_a_hook_is_closed_for_workloads_only,
        many_refused_chains_do_not_stop_the_others,
        a_loop_of_chains_does_not_stop_the_others,
        a_refused_chain_in_nat_drops_nothing,
        a_refused_hook_is_reported_and_the_rest_is_in_force,
        a_restore_that_always_fails_is_a_problem_of_the_table,
        a_program_that_hangs_is_a_problem_of_the_table,
        a_restore_that_fails_now_and_then_ends_as_wanted,
    ];
    tests.push(Test::new("a_held_lock_is_a_problem_and_not_a_refused_rule", &["flock"], || {
        LEGACY_V4.run(held_lock)
    }));
    tests
        .push(Test::new("a_table_that_only_nft_can_show_is_an_error", &["nft"], || NFT_V4.run(incompatible)));
    tests.push(Test::new("a_full_disk_is_a_problem_until_there_is_room", &[], || LEGACY_V4.run(a_full_disk)));
    common::run(tests)
}

fn a_chain_that_a_foreign_chain_uses_is_emptied_and_reported(case: Case) {
    case.ipt("-N cali-gone");
    case.ipt("-A cali-gone -j DROP");
    case.ipt("-N admin");
    case.ipt("-A admin -j cali-gone");
    let mut driver = case.driver(Table::Filter);
    want_policy(&mut driver);
    driver.observe().unwrap();
    let report = driver.apply(Phase::Enforce);
    assert_eq!((report.calls, report.problems.len()), (1, 1));
    assert!(problem_of(&report, "chain cali-gone").contains("admin"));
    case.assert_policy_is_in_force();
    assert_eq!(case.rules(Table::Filter, "cali-gone"), [""; 0]);
    assert_eq!(case.rules(Table::Filter, "admin"), ["-j cali-gone"]);
    case.ipt("-F admin");
    driver.observe().unwrap();
    enforce(&mut driver);
    assert!(!case.chains(Table::Filter).contains(&"cali-gone".to_owned()));
}

fn a_rule_that_does_not_parse_closes_its_chain_only(case: Case) {
    for bad in ["-m set --match-set cali40nosuch src -j ACCEPT", "-j NOSUCHTARGET", "-j cali-no-such-chain"] {
        let mut driver = case.driver(Table::Filter);
        want_policy(&mut driver);
        driver.change(chain("cali-bad", &["-p udp -j ACCEPT", bad]));
        driver.observe().unwrap();
        let report = driver.apply(Phase::Enforce);
        assert_eq!(report.problems.len(), 1, "{bad}: {:?}", report.problems);
        assert!(report.problems[0].object.contains("cali-bad"), "{bad}: {:?}", report.problems);
        case.assert_policy_is_in_force();
        assert!(is_closed(case, Table::Filter, "cali-bad"), "{bad}");
    }
}

/// A rule that parses in every table and that the kernel takes in `nat` only.
const REFUSED: &str = "-p tcp -j REDIRECT --to-ports 8080";

fn a_rule_that_the_kernel_refuses_closes_its_chain_only(case: Case) {
    add_foreign_rules(case);
    let before = case.save(Table::Filter);
    let mut driver = case.driver(Table::Filter);
    want_policy(&mut driver);
    driver.change(chain("cali-to-wl", &["-j cali-bad", "-j DROP"]));
    driver.change(chain("cali-bad", &["-p udp -j ACCEPT", REFUSED]));
    driver.change(chain("cali-good", &["-j DROP"]));
    driver.observe().unwrap();
    let report = driver.apply(Phase::Enforce);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    problem_of(&report, "chain cali-bad (filter, ");
    assert!(is_closed(case, Table::Filter, "cali-bad"));
    driver.change(chain("cali-to-wl", POLICY[3].1));
    driver.apply(Phase::Enforce);
    case.assert_policy_is_in_force();
    assert_eq!(case.ids(Table::Filter, "cali-good"), ids_of("cali-good", &["-j DROP"]));
    assert_eq!(case.foreign(Table::Filter), before);
}

fn a_refused_chain_is_tried_again_after_a_resync_and_when_it_changes(case: Case) {
    let mut driver = case.programmed();
    driver.change(chain("cali-to-wl", &["-j cali-bad", "-j DROP"]));
    driver.change(chain("cali-bad", &[REFUSED]));
    assert_eq!(driver.apply(Phase::Enforce).problems.len(), 1);
    let again = driver.apply(Phase::Enforce);
    assert_eq!((again.calls, again.problems.len()), (0, 1), "it is reported, but not tried for ever");
    driver.observe().unwrap();
    assert!(driver.plan(Phase::Enforce).to_string().contains("cali-bad"));
    let resynced = driver.apply(Phase::Enforce);
    assert_eq!((resynced.calls, resynced.problems.len()), (1, 1));
    assert_eq!(driver.apply(Phase::Enforce).calls, 0);
    driver.change(chain("cali-bad", &["-j ACCEPT"]));
    let report = enforce(&mut driver);
    assert_eq!((report.calls, report.changed), (1, 1));
    assert_eq!(case.ids(Table::Filter, "cali-bad"), ids_of("cali-bad", &["-j ACCEPT"]));
}

fn a_refused_chain_behind_a_hook_is_closed_for_workloads_only(case: Case) {
    let mut driver = case.driver(Table::Filter);
    want_policy(&mut driver);
    driver.change(chain("cali-INPUT", &["-j cali-from-wl", "-m nosuchmatch"]));
    driver.observe().unwrap();
    let report = driver.apply(Phase::Enforce);
    problem_of(&report, "chain cali-INPUT");
    let ends: Vec<String> = case
        .rules(Table::Filter, "cali-INPUT")
        .iter()
        .map(|rule| rule.replace(" -m comment", "\n"))
        .collect();
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(ends[0].starts_with("-i cali+") && ends[1].starts_with("-o cali+"), "{ends:?}");
    assert_eq!(case.ids(Table::Filter, "cali-FORWARD"), ids_of("cali-FORWARD", POLICY[0].1));
}

fn many_refused_chains_do_not_stop_the_others(case: Case) {
    let mut driver = case.driver(Table::Filter);
    want_policy(&mut driver);
    let mut dispatch = Vec::new();
    for index in 0..60 {
        let name = format!("cali-tw-{index:02}");
        dispatch.push(format!("-o cali{index} -g {name}"));
        let last = if index % 20 == 7 { REFUSED } else { "-j DROP" };
        driver.change(chain(&name, &["-p icmp -j ACCEPT", last]));
    }
    let dispatch: Vec<&str> = dispatch.iter().map(String::as_str).collect();
    driver.change(chain("cali-to-wl", &dispatch));
    driver.observe().unwrap();
    let report = driver.apply(Phase::Enforce);
    let objects: Vec<&str> = report.problems.iter().map(|problem| &problem.object[..16]).collect();
    assert_eq!(
        objects,
        ["chain cali-tw-07", "chain cali-tw-27", "chain cali-tw-47"],
        "{:?}",
        report.problems
    );
    for index in 0..60 {
        let name = format!("cali-tw-{index:02}");
        if index % 20 == 7 {
            assert!(is_closed(case, Table::Filter, &name), "{name}");
        } else {
            assert_eq!(case.ids(Table::Filter, &name), ids_of(&name, &["-p icmp -j ACCEPT", "-j DROP"]));
        }
    }
    assert_eq!(case.ids(Table::Filter, "FORWARD").len(), 2);
    assert_eq!(driver.apply(Phase::Enforce).calls, 0);
}

fn a_loop_of_chains_does_not_stop_the_others(case: Case) {
    let mut driver = case.driver(Table::Filter);
    want_policy(&mut driver);
    driver.change(chain("cali-to-wl", &["-j cali-loop-a", "-j DROP"]));
    driver.change(chain("cali-loop-a", &["-j cali-loop-b"]));
    driver.change(chain("cali-loop-b", &["-j cali-loop-a"]));
    driver.observe().unwrap();
    let report = driver.apply(Phase::Enforce);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    problem_of(&report, "chain cali-loop-");
    assert_eq!(case.ids(Table::Filter, "cali-from-wl"), ids_of("cali-from-wl", POLICY[2].1));
    assert_eq!(case.ids(Table::Filter, "FORWARD").len(), 2);
}

fn a_refused_chain_in_nat_drops_nothing(case: Case) {
    let mut driver = case.driver(Table::Nat);
    driver.change(chain("cali-nat-outgoing", &["-m set --match-set nosuch src -j MASQUERADE"]));
    driver.change(chain("cali-POSTROUTING", &["-j cali-nat-outgoing"]));
    let hooks = vec![hook("POSTROUTING", &[], &["-j cali-POSTROUTING"])];
    driver.change(TableChange::Hooks(hooks, InsertMode::Insert));
    driver.observe().unwrap();
    let report = driver.apply(Phase::Enforce);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    problem_of(&report, "chain cali-nat-outgoing (nat, ");
    let rules = case.rules(Table::Nat, "cali-nat-outgoing");
    assert!(rules.len() == 1 && rules[0].ends_with("-j RETURN"), "{rules:?}");
    assert_eq!(case.ids(Table::Nat, "POSTROUTING"), ids_of("POSTROUTING-end", &["-j cali-POSTROUTING"]));
}

fn a_refused_hook_is_reported_and_the_rest_is_in_force(case: Case) {
    let mut driver = case.driver(Table::Filter);
    want_policy(&mut driver);
    let forward = hook("FORWARD", &["-j cali-FORWARD"], &[MARK_ACCEPT]);
    let bad = hook("OUTPUT", &["-j cali-no-such-chain"], &[]);
    let input = hook("INPUT", &["-j cali-INPUT"], &[]);
    driver.change(TableChange::Hooks(vec![forward, bad, input], InsertMode::Insert));
    driver.observe().unwrap();
    let report = driver.apply(Phase::Enforce);
    problem_of(&report, "hook OUTPUT");
    case.assert_policy_is_in_force();
}

fn a_restore_that_always_fails_is_a_problem_of_the_table(case: Case) {
    case.programmed();
    for program in ["/bin/false", "/nonexistent/restore"] {
        let tools = Tools { restore: PathBuf::from(program), ..case.tools() };
        let mut driver = IptablesTable::new(case.version, Table::Filter, tools, Options::default());
        driver.change(chain("cali-new", &["-j DROP"]));
        driver.observe().unwrap();
        let report = driver.apply(Phase::Enforce);
        problem_of(&report, "table filter (IPv");
        assert!(report.calls < 10, "{} programs run", report.calls);
    }
    case.assert_policy_is_in_force();
}

fn a_program_that_hangs_is_a_problem_of_the_table(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("restore");
    sh(&format!("printf '#!/bin/sh\\nexec sleep 600\\n' > {0} && chmod +x {0}", script.display()));
    let options = Options { command_timeout: Duration::from_millis(500), ..Options::default() };
    let hanging = Tools { restore: script.clone(), ..case.tools() };
    let mut driver = IptablesTable::new(case.version, Table::Filter, hanging, options.clone());
    driver.change(chain("cali-new", &["-j DROP"]));
    let report = driver.apply(Phase::Enforce);
    assert!(problem_of(&report, "table filter").contains("killed"));
    let hanging = Tools { save: script, ..case.tools() };
    let mut driver = IptablesTable::new(case.version, Table::Filter, hanging, options);
    assert!(driver.observe().unwrap_err().to_string().contains("killed"));
    assert!(problem_of(&driver.apply(Phase::Enforce), "table filter").contains("killed"));
}

fn held_lock(case: Case) {
    // The legacy programs make the lock file; other tests of this program only wait a little longer.
    let lock = std::env::var("XTABLES_LOCKFILE").unwrap_or("/run/xtables.lock".to_owned());
    case.programmed();
    let options = Options { lock_timeout: Duration::from_secs(1), ..Options::default() };
    let mut driver = IptablesTable::new(case.version, Table::Filter, case.tools(), options);
    want_policy(&mut driver);
    driver.change(chain("cali-new", &["-j DROP"]));
    driver.observe().unwrap();
    let file = std::fs::File::open(&lock).unwrap();
    file.lock().unwrap();
    let report = driver.apply(Phase::Enforce);
    drop(file);
    assert!(problem_of(&report, "table filter").contains("lock"), "{:?}", report.problems);
    assert_eq!((report.calls, report.problems.len()), (1, 1));
    enforce(&mut driver);
    case.assert_policy_is_in_force();
}

fn incompatible(case: Case) {
    let mut driver = case.programmed();
    sh("nft add rule ip filter FORWARD quota over 5 mbytes drop");
    let error = driver.observe().unwrap_err().to_string();
    assert!(error.contains("table filter is incompatible"), "{error}");
    // What was programmed before can still be changed. That it cannot be read is kept by who asked for it.
    driver.change(chain("cali-new", &["-j DROP"]));
    assert!(driver.can_go_on());
    assert_eq!(enforce(&mut driver).changed, 1);
    assert!(sh("nft list chain ip filter cali-new").contains("drop"));
    // A fresh process cannot tell what is there, and so writes nothing.
    let mut fresh = case.driver(Table::Filter);
    want_policy(&mut fresh);
    let report = fresh.apply(Phase::Enforce);
    assert!(problem_of(&report, "table filter").contains("incompatible"));
    assert_eq!(report.changed, 0);
    case.driver(Table::Nat).observe().unwrap();
    sh("nft flush chain ip filter FORWARD");
    driver.observe().unwrap();
    enforce(&mut driver);
    case.assert_policy_is_in_force();
}

/// A program in the place of the real restore: what it does first may end it.
fn doctored(case: Case, folder: &Path, first: &str) -> IptablesTable {
    let tools = case.tools();
    let script = folder.join("restore");
    let text = format!("#!/bin/sh\n{first}\nexec {} \"$@\"\n", tools.restore.display());
    std::fs::write(&script, text).unwrap();
    sh(&format!("chmod +x {}", script.display()));
    let tools = Tools { restore: script, ..tools };
    IptablesTable::new(case.version, Table::Filter, tools, Options::default())
}

fn a_full_disk(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // Room for no file but the folder itself.
    sh(&format!("mount -t tmpfs -o nr_inodes=1,size=4k none {}", disk.display()));
    let lock = format!("export XTABLES_LOCKFILE={}/lock", disk.display());
    let mut driver = doctored(case, folder.path(), &lock);
    want_policy(&mut driver);
    driver.observe().unwrap();
    for _ in 0..3 {
        let report = driver.apply(Phase::Enforce);
        assert!(problem_of(&report, "table filter").contains("lock file"), "{:?}", report.problems);
        assert_eq!(report.problems.len(), 1, "no chain is to blame");
    }
    assert_eq!(case.chains(Table::Filter), [""; 0]);
    sh(&format!("mount -o remount,nr_inodes=10 {}", disk.display()));
    enforce(&mut driver);
    case.assert_policy_is_in_force();
    sh(&format!("umount {}", disk.display()));
}

/// Fails in the first two of three runs, each time in another way, the last after it has done its work.
fn a_restore_that_fails_now_and_then_ends_as_wanted(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let real = case.tools().restore;
    let first = format!(
        "echo >> {0}\ncase $(($(wc -l < {0}) % 3)) in\n1) exit 1;;\n2) {1} \"$@\"; exit 1;;\nesac",
        count.display(),
        real.display()
    );
    let mut driver = doctored(case, folder.path(), &first);
    want_policy(&mut driver);
    driver.observe().unwrap();
    for round in 0..20 {
        let actions = [format!("-p tcp --dport {} -j RETURN", round + 1), "-j DROP".to_owned()];
        let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
        driver.change(chain("cali-to-wl", &actions));
        let mut tries = 0;
        while !driver.apply(Phase::Enforce).problems.is_empty() {
            // What the loop does after a failure.
            driver.observe().unwrap();
            tries += 1;
            assert!(tries < 20, "round {round}");
        }
        assert_eq!(case.ids(Table::Filter, "cali-to-wl"), ids_of("cali-to-wl", &actions), "round {round}");
    }
    driver.change(chain("cali-to-wl", POLICY[3].1));
    while !driver.apply(Phase::Enforce).problems.is_empty() {
        driver.observe().unwrap();
    }
    case.assert_policy_is_in_force();
}
