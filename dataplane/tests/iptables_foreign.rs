//! The iptables driver beside other programs that write to the same tables, against the real kernel.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/tables.rs"]
mod tables;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Test, sh, wait_for};
use tables::{
    Case, LEGACY_V4, LEGACY_V6, NFT_V4, NFT_V6, POLICY, Watched, add_foreign_rules, chain, enforce, hooks,
    ids_of, matrix, nft, want_nothing, want_policy,
};
use tortie_dataplane::iptables::{IptablesTable, Options, RuleWatch, Tools};
use tortie_dataplane::reconcile::{Driver, Report};
use tortie_rules::render::{InsertMode, Table, TableChange};

fn main() -> ExitCode {
    let mut tests = matrix![
        twenty_thousand_foreign_rules_are_not_read_for_a_change_of_ours,
        foreign_rules_keep_their_order_while_ours_come_and_go,
    ];
    tests.extend(nft![
        a_hundred_foreign_changes_are_heard_of_and_mended,
        a_flush_among_twenty_thousand_rules_is_mended_without_reading_them,
        our_own_writes_are_no_news,
        our_own_writes_through_a_wrapper_cost_a_look_and_no_write,
        what_others_do_in_chains_of_their_own_is_no_news,
        lost_events_make_every_table_be_read,
    ]);
    tests.push(Test::new("legacy::two_writers_lose_nothing", &["flock"], || LEGACY_V4.run(two_writers)));
    tests.push(Test::new("legacy::a_lock_that_is_let_go_is_waited_for", &["flock"], || {
        LEGACY_V4.run(a_lock_that_is_let_go_is_waited_for)
    }));
    common::run(tests)
}

/// Prints durations; for a person to read, nothing depends on them.
fn print(what: &str, case: Case, mut times: Vec<Duration>) {
    times.sort_unstable();
    let millis = |at: usize| times[at].as_secs_f64() * 1e3;
    let (median, worst) = (millis(times.len() / 2), millis(times.len() - 1));
    eprintln!("{what} ({} {}): median {median:.1} ms, worst {worst:.1} ms", case.backend, case.version);
}

fn a_hundred_foreign_changes_are_heard_of_and_mended(case: Case) {
    add_foreign_rules(case);
    let before = case.save(Table::Filter);
    let mut watched = Watched::programmed(case);
    let drifts = [
        "-F cali-from-wl",
        "-F FORWARD",
        "-D FORWARD 1",
        "-I cali-to-wl -j ACCEPT",
        "-A cali-to-wl -j LOG",
        "-D cali-from-wl 2",
        "-I FORWARD -j cali-to-wl",
        "-N cali-unwanted",
        "-R cali-from-wl 3 -j ACCEPT",
        "-F",
    ];
    let mut times = Vec::new();
    for round in 0..100 {
        let drift = drifts[round % drifts.len()];
        case.ipt(drift);
        if drift.starts_with("-F") && drift != "-F cali-from-wl" {
            // What they flushed of their own, they bring back.
            case.ipt("-F FORWARD");
            case.ipt("-A FORWARD -j KUBE-FORWARD");
            case.ipt("-A FORWARD -i docker0 -j ACCEPT");
        }
        let begun = Instant::now();
        let report = watched.mend(case).unwrap_or_else(|| panic!("{drift}: not heard of"));
        times.push(begun.elapsed());
        assert_eq!(report.calls, 1, "{drift}");
        case.assert_policy_is_in_force();
        assert_eq!(watched.mend(case), None, "{drift}: what was mended is no news");
    }
    print("mended after", case, times);
    watched.driver.observe().unwrap();
    assert_eq!(enforce(&mut watched.driver), Report::default(), "nothing was left over");
    let chains = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| line.starts_with("-A FORWARD") || line.starts_with(':')).collect()
    };
    assert_eq!(chains(case.foreign(Table::Filter)), chains(before));
}

/// Rules as kube-proxy might have them: 400 chains of 50. On the nft back end chain by chain, since within a user
/// namespace it takes no such amount at once.
fn add_twenty_thousand_rules(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules");
    let restore = |lines: &str| {
        std::fs::write(&file, format!("*filter\n{lines}COMMIT\n")).unwrap();
        sh(&format!("{} --noflush < {}", case.program("-restore"), file.display()));
    };
    let mut chains = Vec::new();
    for chain in 0..400 {
        let mut text = String::new();
        for port in 1..=50 {
            let comment = format!("-m comment --comment \"ns/svc{chain}:{port}\"");
            writeln!(text, "-A KUBE-SVC-{chain:03} -p tcp {comment} -m tcp --dport {port} -j ACCEPT")
                .unwrap();
        }
        chains.push((format!(":KUBE-SVC-{chain:03} - [0:0]\n"), text));
    }
    chains.push((String::new(), "-A FORWARD -j KUBE-SVC-001\n".to_owned()));
    let at_once = if case.backend == tortie_dataplane::feature::Backend::Nft { 4 } else { chains.len() };
    for some in chains.chunks(at_once) {
        let (names, rules): (String, String) = some.iter().cloned().unzip();
        restore(&(names + &rules));
    }
}

fn twenty_thousand_foreign_rules_are_not_read_for_a_change_of_ours(case: Case) {
    add_twenty_thousand_rules(case);
    let mut driver = case.programmed();
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for port in 1..=20 {
        let actions = [format!("-p tcp --dport {port} -j RETURN"), "-j DROP".to_owned()];
        let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
        driver.change(chain("cali-from-wl", &actions));
        let before = (driver.commands_run(), driver.restores_run());
        let begun = Instant::now();
        enforce(&mut driver);
        ours.push(begun.elapsed());
        let run = (driver.commands_run() - before.0, driver.restores_run() - before.1);
        assert_eq!(run, (1, 1), "one restore, and nothing read");
        // The floor: the same lines, handed to the program by somebody else.
        let text = format!(
            "*filter\n:cali-by-hand - -\n-A cali-by-hand {}\n-A cali-by-hand {}\nCOMMIT\n",
            actions[0], actions[1]
        );
        let file = folder.path().join("rules");
        std::fs::write(&file, text).unwrap();
        let command = format!("exec {} --noflush < {}", case.program("-restore"), file.display());
        let begun = Instant::now();
        sh(&command);
        by_hand.push(begun.elapsed());
    }
    print("one chain changed among 20,000 rules", case, ours);
    print("  the same lines by hand", case, by_hand);
}

fn a_flush_among_twenty_thousand_rules_is_mended_without_reading_them(case: Case) {
    add_twenty_thousand_rules(case);
    let mut watched = Watched::programmed(case);
    let mut times = Vec::new();
    for round in 0..20 {
        case.ipt(if round % 2 == 0 { "-F cali-from-wl" } else { "-F FORWARD" });
        let before = watched.driver.commands_run();
        let begun = Instant::now();
        watched.mend(case).expect("it is heard of");
        times.push(begun.elapsed());
        let run = watched.driver.commands_run() - before;
        assert_eq!(run, 2, "one chain is listed, and one restore");
        let chain = if round % 2 == 0 { "cali-from-wl" } else { "FORWARD" };
        let actions = if round % 2 == 0 { POLICY[2].1 } else { &["-j cali-FORWARD"] };
        let listed = sh(&format!("{} -S {chain}", case.program("")));
        for id in ids_of(chain, actions) {
            assert!(listed.contains(&id), "{listed}");
        }
    }
    print("a flush mended among 20,000 rules", case, times);
}

fn our_own_writes_are_no_news(case: Case) {
    let mut watched = Watched::programmed(case);
    watched.driver.change(chain("cali-new", &["-j DROP"]));
    watched.driver.change(chain("cali-to-wl", &["-j cali-new"]));
    enforce(&mut watched.driver);
    assert_eq!(watched.mend(case), None);
    // Two commits in one restore.
    want_policy(&mut watched.driver);
    watched.driver.change(TableChange::NoChain("cali-new".to_owned()));
    assert_eq!(enforce(&mut watched.driver).changed, 2);
    assert_eq!(watched.mend(case), None);
    want_nothing(&mut watched.driver);
    enforce(&mut watched.driver);
    assert_eq!(watched.mend(case), None);
    // The id of a program of ours may one day be somebody else's.
    case.ipt("-N cali-unwanted");
    assert_eq!(watched.mend(case).expect("it is heard of").changed, 1);
}

/// What a script starts has another process id than the script: it looks like somebody else.
fn our_own_writes_through_a_wrapper_cost_a_look_and_no_write(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let mut watched = Watched::programmed(case);
    let tools = case.tools();
    let (restore, writers) = (tools.restore.clone(), tools.writers.clone());
    let script = wrapper(folder.path(), &restore, &format!("{} \"$@\"; exit $?", restore.display()));
    let tools = Tools { restore: script, ..tools };
    watched.watch = RuleWatch::open(writers).unwrap();
    watched.driver = IptablesTable::new(case.version, Table::Filter, tools, Options::default());
    want_policy(&mut watched.driver);
    watched.driver.observe().unwrap();
    for actions in [["-p tcp -j RETURN", "-j DROP"], ["-p udp -j RETURN", "-j DROP"]] {
        watched.driver.change(chain("cali-to-wl", &actions));
        watched.driver.change(chain("cali-new", &actions));
        enforce(&mut watched.driver);
        assert_eq!(watched.mend(case), Some(Report::default()), "looked at, and found as written");
        assert_eq!(watched.mend(case), None);
    }
}

fn what_others_do_in_chains_of_their_own_is_no_news(case: Case) {
    add_foreign_rules(case);
    let mut watched = Watched::programmed(case);
    case.ipt("-A KUBE-FORWARD -p udp -j ACCEPT");
    case.ipt("-F admin");
    case.ipt("-N KUBE-SVC-X");
    case.ipt("-t nat -A POSTROUTING -j RETURN");
    assert_eq!(watched.mend(case), None);
    // In the kernel's chains it has to be looked at; where it does not matter, nothing is written.
    case.ipt("-I FORWARD 2 -p udp -j KUBE-FORWARD");
    assert_eq!(watched.mend(case), Some(Report::default()));
    case.assert_policy_is_in_force();
}

fn lost_events_make_every_table_be_read(case: Case) {
    let tools = case.tools();
    let mut watch = RuleWatch::with_event_buffer(tools.writers.clone(), 1).unwrap();
    let mut driver = IptablesTable::new(case.version, Table::Filter, tools, Options::default());
    want_policy(&mut driver);
    driver.observe().unwrap();
    enforce(&mut driver);
    watch.poll();
    for port in 1..200 {
        case.ipt(&format!("-A cali-from-wl -p tcp --dport {port} -j ACCEPT"));
    }
    let touched = watch.poll();
    assert_eq!(touched.len(), Table::ALL.len() * 2, "{touched:?}");
    driver.touch(touched[&(case.version, Table::Filter)].clone());
    driver.observe_touched().unwrap();
    enforce(&mut driver);
    case.assert_policy_is_in_force();
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn foreign_rules_keep_their_order_while_ours_come_and_go(case: Case) {
    let mut dice = Dice(5);
    let mut driver = case.programmed();
    let mut foreign: Vec<String> = Vec::new();
    for round in 0..30 {
        // Somebody puts a rule anywhere, or takes one away; between ours too.
        let length = case.rules(Table::Filter, "FORWARD").len();
        let place = 1 + dice.below(length + 1);
        case.ipt(&format!("-I FORWARD {place} -p tcp --dport {} -j ACCEPT", round + 1));
        if dice.below(4) == 0 {
            case.ipt(&format!("-D FORWARD {}", 1 + dice.below(length)));
        }
        foreign.clear();
        let rules = case.rules(Table::Filter, "FORWARD");
        foreign.extend(rules.into_iter().filter(|rule| !rule.contains("cali:")));
        let mode = if dice.below(2) == 0 { InsertMode::Insert } else { InsertMode::Append };
        driver.change(hooks(mode));
        driver.observe().unwrap();
        let report = enforce(&mut driver);
        assert!(report.calls <= 1, "round {round}");
        let rules = case.rules(Table::Filter, "FORWARD");
        let (ours, kept): (Vec<String>, Vec<String>) =
            rules.into_iter().partition(|rule| rule.contains("cali:"));
        assert_eq!(kept, foreign, "round {round}");
        assert_eq!(ours.len(), 2, "round {round}");
    }
}

/// A program that does something first, in a folder of its own.
fn wrapper(folder: &Path, real: &Path, first: &str) -> PathBuf {
    let script = folder.join("restore");
    std::fs::write(&script, format!("#!/bin/sh\n{first}\nexec {} \"$@\"\n", real.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn lock_file() -> String {
    std::env::var("XTABLES_LOCKFILE").unwrap_or("/run/xtables.lock".to_owned())
}

fn a_lock_that_is_let_go_is_waited_for(case: Case) {
    case.programmed();
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    let tools = case.tools();
    let restore = wrapper(folder.path(), &tools.restore, &format!(": > {}", begun.display()));
    let mut driver =
        IptablesTable::new(case.version, Table::Filter, Tools { restore, ..tools }, Options::default());
    want_policy(&mut driver);
    driver.change(chain("cali-new", &["-j DROP"]));
    driver.observe().unwrap();
    let lock = std::fs::File::open(lock_file()).unwrap();
    lock.lock().unwrap();
    let holder = std::thread::spawn(move || {
        wait_for("the restore begins", || begun.exists());
        drop(lock);
    });
    assert_eq!(enforce(&mut driver).calls, 1, "it waited, and did not fail");
    holder.join().unwrap();
    assert!(case.chains(Table::Filter).contains(&"cali-new".to_owned()));
}

fn two_writers(case: Case) {
    let mut driver = case.programmed();
    case.ipt("-N OTHERS");
    // The thread has this one's network namespace.
    let other = std::thread::spawn(move || {
        for port in 1..=100 {
            case.ipt(&format!("-w 10 -A OTHERS -p tcp --dport {port} -j ACCEPT"));
        }
    });
    let mut last = Vec::new();
    let mut port = 1;
    while !other.is_finished() || port < 50 {
        last = vec![format!("-p tcp --dport {} -j RETURN", port % 60_000), "-j DROP".to_owned()];
        driver.change(chain("cali-from-wl", &last.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(enforce(&mut driver).calls, 1);
        port += 1;
    }
    other.join().unwrap();
    assert_eq!(case.rules(Table::Filter, "OTHERS").len(), 100);
    let last: Vec<&str> = last.iter().map(String::as_str).collect();
    assert_eq!(case.ids(Table::Filter, "cali-from-wl"), ids_of("cali-from-wl", &last));
    driver.observe().unwrap();
    assert_eq!(enforce(&mut driver), Report::default());
}
