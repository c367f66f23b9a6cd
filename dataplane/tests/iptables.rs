//! The iptables driver against the real kernel: both back ends, both IP versions. What it does when all goes well.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/tables.rs"]
mod tables;

use std::collections::BTreeMap;
use std::process::ExitCode;

use common::{Test, try_sh};
use tables::{
    Case, LEGACY_V4, LEGACY_V6, MARK_ACCEPT, NFT_V4, NFT_V6, POLICY, add_foreign_rules, chain, enforce, hook,
    hooks, ids_of, matrix, want_nothing, want_policy,
};
use tortie_api::net::IpVersion;
use tortie_dataplane::feature::{
    Backend, BackendChoice, BackendProbe, SystemProbe, detect_backend, detect_features,
};
use tortie_dataplane::iptables::{IptablesTable, Options, sweep_other_backend};
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_rules::render::{InsertMode, Table, TableChange};

fn main() -> ExitCode {
    let mut tests = matrix![
        a_fresh_table_is_filled_by_one_restore,
        nothing_to_do_runs_no_program,
        one_changed_chain_is_one_restore,
        drift_is_repaired_after_it_is_seen,
        a_stale_belief_is_corrected_in_the_same_apply,
        foreign_rules_and_chains_stay_as_they_are,
        insert_mode_stands_above_foreign_rules,
        append_mode_stands_below_foreign_rules,
        a_fresh_process_takes_over_without_a_write,
        chains_are_deleted_together_with_what_referred_to_them,
        chains_of_older_releases_go,
        the_order_of_changes_does_not_matter,
        a_random_walk_of_changes_and_drift_ends_as_wanted,
        five_thousand_chains_are_one_restore,
        every_table_that_was_never_used_reads_as_empty,
        leftovers_in_the_other_back_end_are_swept,
        four_tables_are_read_by_one_program,
    ];
    tests.push(Test::new(
        "the_back_end_with_rules_is_detected",
        &["iptables-nft-save", "iptables-legacy-save"],
        || NFT_V4.run(detection),
    ));
    common::run(tests)
}

fn a_fresh_table_is_filled_by_one_restore(case: Case) {
    let mut driver = case.driver(Table::Filter);
    want_policy(&mut driver);
    driver.observe().unwrap();
    assert!(!driver.plan(Phase::Enforce).is_empty());
    let report = enforce(&mut driver);
    assert_eq!((report.calls, report.changed), (1, 6));
    case.assert_policy_is_in_force();
}

fn nothing_to_do_runs_no_program(case: Case) {
    let mut driver = case.programmed();
    let before = driver.commands_run();
    want_policy(&mut driver);
    assert_eq!(enforce(&mut driver), Report::default());
    for phase in [Phase::Provide, Phase::Withdraw, Phase::Connect] {
        assert_eq!(driver.apply(phase), Report::default());
    }
    assert_eq!(driver.commands_run(), before);
    driver.observe().unwrap();
    assert_eq!(enforce(&mut driver), Report::default(), "what was written reads as wanted");
}

fn one_changed_chain_is_one_restore(case: Case) {
    let mut driver = case.programmed();
    let actions = ["-p tcp --dport 443 -j RETURN", "-j DROP"];
    driver.change(chain("cali-from-wl", &actions));
    let report = enforce(&mut driver);
    assert_eq!((report.calls, report.changed), (1, 1));
    assert_eq!(case.ids(Table::Filter, "cali-from-wl"), ids_of("cali-from-wl", &actions));
    assert_eq!(case.ids(Table::Filter, "cali-to-wl"), ids_of("cali-to-wl", POLICY[3].1));
}

fn drift_is_repaired_after_it_is_seen(case: Case) {
    let mut driver = case.programmed();
    let top = case.rules(Table::Filter, "FORWARD")[0].clone();
    let first = case.rules(Table::Filter, "cali-from-wl")[0].clone();
    let drifts = [
        "-F cali-from-wl".to_owned(),
        "-I cali-from-wl -j ACCEPT".to_owned(),
        "-A cali-to-wl -j LOG".to_owned(),
        "-D cali-from-wl 2".to_owned(),
        format!("-D cali-from-wl 1 && {} -A cali-from-wl {first}", case.program("")),
        format!("-D FORWARD {top}"),
        format!("-A FORWARD {top}"),
        "-I FORWARD -s ::/0 -j ACCEPT"
            .replace("::/0", if case.version == IpVersion::V4 { "0.0.0.0/0" } else { "::/0" }),
        "-A FORWARD -p udp -j ACCEPT".to_owned(),
        "-I FORWARD -j cali-to-wl".to_owned(),
        "-F FORWARD".to_owned(),
        format!("-F && {} -X", case.program("")),
        "-N cali-unwanted".to_owned(),
    ];
    for drift in drifts {
        case.ipt(&drift);
        assert_eq!(driver.apply(Phase::Enforce).calls, 0, "{drift}: not seen yet");
        driver.observe().unwrap();
        assert!(!driver.plan(Phase::Enforce).is_empty(), "{drift}");
        assert_eq!(enforce(&mut driver).calls, 1, "{drift}");
        case.assert_policy_is_in_force();
    }
    assert!(!case.chains(Table::Filter).contains(&"cali-unwanted".to_owned()));
}

fn a_stale_belief_is_corrected_in_the_same_apply(case: Case) {
    let mut driver = case.programmed();
    case.ipt("-F FORWARD");
    case.ipt("-A FORWARD -p icmp -j ACCEPT");
    let inserted = ["-j cali-FORWARD", "-j cali-to-wl"];
    let forward = hook("FORWARD", &inserted, &[]);
    driver.change(TableChange::Hooks(vec![forward], InsertMode::Insert));
    enforce(&mut driver);
    let mut expected = ids_of("FORWARD", &inserted);
    expected.push("-".to_owned());
    assert_eq!(case.ids(Table::Filter, "FORWARD"), expected);
}

fn foreign_rules_and_chains_stay_as_they_are(case: Case) {
    add_foreign_rules(case);
    let before = case.save(Table::Filter);
    let mut driver = case.programmed();
    assert_eq!(case.foreign(Table::Filter), before);
    driver.change(chain("cali-from-wl", &["-j DROP"]));
    driver.change(hooks(InsertMode::Append));
    enforce(&mut driver);
    assert_eq!(case.foreign(Table::Filter), before);
    want_nothing(&mut driver);
    assert_eq!(enforce(&mut driver).calls, 1);
    assert_eq!(case.save(Table::Filter), before);
}

fn insert_mode_stands_above_foreign_rules(case: Case) {
    add_foreign_rules(case);
    case.programmed();
    let forward = case.rules(Table::Filter, "FORWARD");
    assert!(forward[0].ends_with("-j cali-FORWARD"), "{forward:?}");
    assert_eq!(forward[1..3], ["-j KUBE-FORWARD", "-i docker0 -j ACCEPT"]);
    assert!(forward[3].ends_with("-j ACCEPT") && forward.len() == 4, "{forward:?}");
}

fn append_mode_stands_below_foreign_rules(case: Case) {
    add_foreign_rules(case);
    let mut driver = case.programmed();
    driver.change(hooks(InsertMode::Append));
    assert_eq!(enforce(&mut driver).calls, 1);
    let mut expected = vec!["-".to_owned(), "-".to_owned()];
    expected.extend(ids_of("FORWARD", &["-j cali-FORWARD"]));
    expected.extend(ids_of("FORWARD-end", &[MARK_ACCEPT]));
    assert_eq!(case.ids(Table::Filter, "FORWARD"), expected);
    case.ipt("-A FORWARD -p udp -j ACCEPT");
    driver.observe().unwrap();
    enforce(&mut driver);
    expected.insert(2, "-".to_owned());
    assert_eq!(case.ids(Table::Filter, "FORWARD"), expected);
}

fn a_fresh_process_takes_over_without_a_write(case: Case) {
    add_foreign_rules(case);
    case.programmed();
    let before = case.save(Table::Filter);
    let mut fresh = case.driver(Table::Filter);
    want_policy(&mut fresh);
    assert!(fresh.plan(Phase::Enforce).to_string().contains("to be read"));
    fresh.observe().unwrap();
    assert!(fresh.plan(Phase::Enforce).is_empty(), "{}", fresh.plan(Phase::Enforce));
    assert_eq!(enforce(&mut fresh), Report::default());
    assert_eq!(case.save(Table::Filter), before);
}

fn chains_are_deleted_together_with_what_referred_to_them(case: Case) {
    let mut driver = case.programmed();
    driver.change(chain("cali-old-a", &["-j cali-old-b", "-j DROP"]));
    driver.change(chain("cali-old-b", &["-j DROP"]));
    driver.change(chain("cali-to-wl", &["-j cali-old-a", "-j cali-old-b"]));
    enforce(&mut driver);
    driver.change(TableChange::NoChain("cali-old-b".to_owned()));
    driver.change(TableChange::NoChain("cali-old-a".to_owned()));
    driver.change(chain("cali-to-wl", POLICY[3].1));
    let report = enforce(&mut driver);
    assert_eq!((report.calls, report.changed), (1, 3));
    case.assert_policy_is_in_force();
    assert_eq!(case.chains(Table::Filter).len(), POLICY.len());
    want_nothing(&mut driver);
    assert_eq!(enforce(&mut driver).calls, 1);
    assert_eq!(case.chains(Table::Filter), [""; 0]);
}

fn chains_of_older_releases_go(case: Case) {
    for name in ["felix-FORWARD", "califw-eth0", "calipo-x", "cali-gone"] {
        case.ipt(&format!("-N {name}"));
        case.ipt(&format!("-A {name} -j DROP"));
        case.ipt(&format!("-I FORWARD -j {name}"));
    }
    case.ipt("-A felix-FORWARD -j califw-eth0");
    case.programmed();
    case.assert_policy_is_in_force();
    let left = case.save(Table::Filter).join("\n");
    assert!(!left.contains("felix") && !left.contains("califw") && !left.contains("calipo"), "{left}");
    assert_eq!(case.chains(Table::Filter).len(), POLICY.len());
}

fn the_order_of_changes_does_not_matter(case: Case) {
    let mut changes: Vec<TableChange> = POLICY.iter().map(|(name, actions)| chain(name, actions)).collect();
    changes.push(hooks(InsertMode::Insert));
    changes.push(chain("cali-x", &["-j cali-to-wl"]));
    let mut seen = BTreeMap::new();
    for round in 0..changes.len() * 2 {
        if round == changes.len() {
            changes.reverse();
        }
        changes.rotate_left(1);
        let mut driver = case.driver(Table::Filter);
        driver.observe().unwrap();
        for change in changes.clone() {
            // One apply each: references to chains that do not exist yet are closed until they do.
            driver.change(change);
            driver.apply(Phase::Enforce);
            driver.observe().unwrap();
        }
        driver.apply(Phase::Enforce);
        driver.observe().unwrap();
        enforce(&mut driver);
        *seen.entry(case.save(Table::Filter)).or_insert(0) += 1;
        case.assert_policy_is_in_force();
        case.ipt("-F");
        case.ipt("-X");
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// A few chains that refer only to later ones, as wanted now; `None` for one that shall not exist.
type Model = [Option<Vec<String>>; 6];

fn name_of(index: usize) -> String {
    format!("cali-walk-{index}")
}

/// Changes one chain of the model, and those that refer to it when it goes.
fn random_change(model: &mut Model, random: &mut impl FnMut(usize) -> usize) {
    let index = random(model.len());
    if random(4) == 0 {
        model[index] = None;
        let reference = format!("-j {}", name_of(index));
        for actions in model.iter_mut().flatten() {
            actions.retain(|action| *action != reference);
        }
        return;
    }
    let later: Vec<usize> = (index + 1..model.len()).filter(|later| model[*later].is_some()).collect();
    let action = |random: &mut dyn FnMut(usize) -> usize| match later.get(random(later.len() + 3)) {
        Some(later) => format!("-j {}", name_of(*later)),
        None => format!("-p tcp --dport {} -j ACCEPT", 1 + random(9)),
    };
    model[index] = Some((0..random(5)).map(|_| action(random)).collect());
}

fn a_random_walk_of_changes_and_drift_ends_as_wanted(case: Case) {
    add_foreign_rules(case);
    let before = case.save(Table::Filter);
    let mut state = 42_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut driver = case.programmed();
    let mut model = Model::default();
    for round in 0..40 {
        for _ in 0..=random(3) {
            random_change(&mut model, &mut random);
        }
        for (index, wanted) in model.iter().enumerate() {
            let name = name_of(index);
            driver.change(wanted.as_ref().map_or(TableChange::NoChain(name.clone()), |actions| {
                chain(&name, &actions.iter().map(String::as_str).collect::<Vec<_>>())
            }));
        }
        driver.change(hooks(if random(2) == 0 { InsertMode::Insert } else { InsertMode::Append }));
        if random(2) == 0 {
            let name = name_of(random(model.len()));
            let drift = [
                format!("-F {name}"),
                format!("-X {name}"),
                format!("-I {name} -j DROP"),
                format!("-D {name} 1"),
            ][random(4)]
            .clone();
            // Some of these are refused: all that matters is that the table may have changed.
            try_sh(&format!("{} {drift}; {0} -D FORWARD {}", case.program(""), 1 + random(3)));
            case.ipt("-F FORWARD");
            case.ipt("-A FORWARD -j KUBE-FORWARD");
            case.ipt("-A FORWARD -i docker0 -j ACCEPT");
            driver.observe().unwrap();
        }
        enforce(&mut driver);
        for (index, wanted) in model.iter().enumerate() {
            let name = name_of(index);
            let actions: Vec<&str> = wanted.iter().flatten().map(String::as_str).collect();
            assert_eq!(case.ids(Table::Filter, &name), ids_of(&name, &actions), "round {round}, {name}");
            assert_eq!(case.chains(Table::Filter).contains(&name), wanted.is_some(), "round {round}, {name}");
        }
        assert_eq!(case.foreign(Table::Filter), before, "round {round}");
        let mut forward = case.save(Table::Filter);
        driver.observe().unwrap();
        assert_eq!(enforce(&mut driver), Report::default(), "round {round}");
        forward.retain(|line| line.starts_with("-A FORWARD") && line.contains("cali:"));
        assert_eq!(forward.len(), 2, "round {round}");
    }
}

/// One restore, or some where messages to nftables are limited: inside a user namespace.
fn assert_no_restore_per_chain(case: Case, report: &Report) {
    let uids = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_limited = case.backend == Backend::Nft && !uids.contains("4294967295");
    assert!(report.calls == 1 || is_limited && report.calls < 400, "{} programs run", report.calls);
}

fn five_thousand_chains_are_one_restore(case: Case) {
    let mut driver = case.programmed();
    let names: Vec<String> = (0..5000).map(|index| format!("cali-tw-cali{index:04}")).collect();
    let actions =
        ["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-p tcp --dport 80 -j ACCEPT", "-j DROP"];
    for name in &names {
        driver.change(chain(name, &actions));
    }
    assert_no_restore_per_chain(case, &enforce(&mut driver));
    for index in [0, 2500, 4999] {
        assert_eq!(case.ids(Table::Filter, &names[index]), ids_of(&names[index], &actions));
    }
    driver.change(chain(&names[2500], &actions[1..]));
    let report = enforce(&mut driver);
    assert_eq!((report.calls, report.changed), (1, 1));
    assert_eq!(case.ids(Table::Filter, &names[2500]), ids_of(&names[2500], &actions[1..]));
    driver.observe().unwrap();
    assert_eq!(enforce(&mut driver), Report::default());
    for name in &names {
        driver.change(TableChange::NoChain(name.clone()));
    }
    assert_no_restore_per_chain(case, &enforce(&mut driver));
    assert_eq!(case.chains(Table::Filter).len(), POLICY.len());
}

fn every_table_that_was_never_used_reads_as_empty(case: Case) {
    for table in Table::ALL {
        let mut driver = case.driver(table);
        driver.observe().unwrap();
        assert!(driver.plan(Phase::Enforce).is_empty(), "{table}");
        assert_eq!(driver.apply(Phase::Enforce), Report::default());
        let chains = table.kernel_chains().iter().map(|chain| hook(chain, &["-j cali-x"], &[]));
        driver.change(TableChange::Hooks(chains.collect(), InsertMode::Insert));
        driver.change(chain("cali-x", &["-j RETURN"]));
        assert_eq!(enforce(&mut driver).calls, 1);
        for chain in table.kernel_chains() {
            assert_eq!(case.ids(table, chain), ids_of(chain, &["-j cali-x"]), "{table} {chain}");
        }
    }
}

fn leftovers_in_the_other_back_end_are_swept(case: Case) {
    let options = Options::default();
    let other = Case { backend: case.backend.other(), ..case };
    let features = detect_features(case.backend);
    add_foreign_rules(other);
    let before = other.save(Table::Filter);
    other.programmed();
    let report = sweep_other_backend(&Table::ALL, case.backend, features, &options);
    assert_eq!(report.problems, []);
    assert_eq!(report.changed, 6);
    assert_eq!(other.save(Table::Filter), before);
    case.programmed();
    let again = sweep_other_backend(&Table::ALL, case.backend, features, &options);
    assert_eq!((again.changed, again.problems), (0, Vec::new()));
    case.assert_policy_is_in_force();
}

fn detection(case: Case) {
    let legacy = Case { backend: Backend::Legacy, ..case };
    let detect = || detect_backend(BackendChoice::Auto, &mut SystemProbe);
    // Without a rule the node's own programs decide.
    assert_eq!(Some(detect().backend), SystemProbe.node_default(), "{:?}", detect());
    case.ipt("-A INPUT -j ACCEPT");
    assert_eq!(detect().backend, Backend::Nft, "{:?}", detect());
    legacy.ipt("-A INPUT -j ACCEPT");
    assert_eq!(detect().backend, Backend::Legacy, "{:?}", detect());
    case.ipt("-t mangle -N KUBE-KUBELET-CANARY");
    assert_eq!(detect().backend, Backend::Nft, "{:?}", detect());
    assert!(detect_features(Backend::Nft).nflog_size);
}

fn four_tables_are_read_by_one_program(case: Case) {
    add_foreign_rules(case);
    let mut first = case.programmed();
    let tables =
        || Table::ALL.map(|table| IptablesTable::new(case.version, table, case.tools(), Options::default()));
    for table in [Table::Nat, Table::Mangle] {
        let mut driver = case.driver(table);
        driver.change(chain("cali-x", &["-j RETURN"]));
        driver.observe().unwrap();
        enforce(&mut driver);
    }
    let mut drivers = tables();
    IptablesTable::read_together(&mut drivers.each_mut());
    for (driver, table) in drivers.iter_mut().zip(Table::ALL) {
        match table {
            Table::Filter => want_policy(driver),
            Table::Nat | Table::Mangle => driver.change(chain("cali-x", &["-j RETURN"])),
            Table::Raw => {}
        }
        driver.observe().unwrap();
        assert_eq!(enforce(driver), Report::default(), "{table}: it is all there");
    }
    assert_eq!(drivers.iter().map(IptablesTable::commands_run).sum::<usize>(), 1);
    // What was read together is believed once; the next reading is a new one.
    case.ipt("-F cali-from-wl");
    let filter = &mut drivers[Table::ALL.iter().position(|table| *table == Table::Filter).unwrap()];
    filter.observe().unwrap();
    assert_eq!(enforce(filter).changed, 1);
    first.observe().unwrap();
    case.assert_policy_is_in_force();
}
