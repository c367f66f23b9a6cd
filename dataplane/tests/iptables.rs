//! The iptables driver against the real kernel: both back ends, both IP versions.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::{Outcome, Test, sh, try_sh};
use tortie_api::net::IpVersion;
use tortie_dataplane::feature::{
    Backend, BackendChoice, BackendProbe, SystemProbe, detect_backend, detect_features,
};
use tortie_dataplane::iptables::{IptablesTable, Options, Tools, sweep_other_backend};
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_rules::render::{
    InsertMode, RenderedChain, RenderedHook, RenderedRule, RuleId, Table, TableChange,
};

/// A back end and an IP version.
#[derive(Clone, Copy, Debug)]
struct Case {
    backend: Backend,
    version: IpVersion,
}

const LEGACY_V4: Case = Case { backend: Backend::Legacy, version: IpVersion::V4 };
const LEGACY_V6: Case = Case { backend: Backend::Legacy, version: IpVersion::V6 };
const NFT_V4: Case = Case { backend: Backend::Nft, version: IpVersion::V4 };
const NFT_V6: Case = Case { backend: Backend::Nft, version: IpVersion::V6 };

/// One test for each of the cases.
macro_rules! matrix {
    ($($name:ident),+ $(,)?) => {
        vec![$(
            Test::new(concat!("legacy_v4::", stringify!($name)), &[], || LEGACY_V4.run($name)),
            Test::new(concat!("legacy_v6::", stringify!($name)), &[], || LEGACY_V6.run($name)),
            Test::new(concat!("nft_v4::", stringify!($name)), &[], || NFT_V4.run($name)),
            Test::new(concat!("nft_v6::", stringify!($name)), &[], || NFT_V6.run($name)),
        )+]
    };
}

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
        a_chain_that_a_foreign_chain_uses_is_emptied_and_reported,
        a_rule_that_does_not_parse_closes_its_chain_only,
        a_rule_that_the_kernel_refuses_closes_its_chain_only,
        a_refused_chain_is_tried_again_after_a_resync_and_when_it_changes,
        a_refused_chain_behind_a_hook_is_closed_for_workloads_only,
        many_refused_chains_do_not_stop_the_others,
        a_loop_of_chains_does_not_stop_the_others,
        a_refused_chain_in_nat_drops_nothing,
        a_refused_hook_is_reported_and_the_rest_is_in_force,
        the_order_of_changes_does_not_matter,
        a_random_walk_of_changes_and_drift_ends_as_wanted,
        five_thousand_chains_are_one_restore,
        every_table_that_was_never_used_reads_as_empty,
        a_restore_that_always_fails_is_a_problem_of_the_table,
        a_program_that_hangs_is_a_problem_of_the_table,
        leftovers_in_the_other_back_end_are_swept,
    ];
    tests.extend(common_tests());
    common::run(tests)
}

fn common_tests() -> Vec<Test> {
    vec![
        Test::new("a_held_lock_is_a_problem_and_not_a_refused_rule", &["flock"], || LEGACY_V4.run(held_lock)),
        Test::new("a_table_that_only_nft_can_show_is_an_error", &["nft"], || NFT_V4.run(incompatible)),
        Test::new(
            "the_back_end_with_rules_is_detected",
            &["iptables-nft-save", "iptables-legacy-save"],
            || NFT_V4.run(detection),
        ),
    ]
}

impl Case {
    fn run(self, body: fn(Case)) -> Outcome {
        for backend in [self.backend, Backend::Nft, Backend::Legacy] {
            let command = Case { backend, ..self }.program("");
            let (works, text) = try_sh(&format!("{command} -t filter -L -n"));
            if !works {
                return Outcome::Skipped(format!("{command}: {}", text.trim()));
            }
        }
        body(self);
        Outcome::Done
    }

    fn program(self, verb: &str) -> String {
        let stem = if self.version == IpVersion::V4 { "iptables" } else { "ip6tables" };
        format!("{stem}-{}{verb}", self.backend)
    }

    /// Runs `iptables`.
    fn ipt(self, args: &str) {
        sh(&format!("{} {args}", self.program("")));
    }

    /// The table's lines, without comments and header.
    fn save(self, table: Table) -> Vec<String> {
        let text = sh(&format!("{} -t {table}", self.program("-save")));
        text.lines().filter(|line| line.starts_with(['-', ':'])).map(str::to_owned).collect()
    }

    fn foreign(self, table: Table) -> Vec<String> {
        self.save(table).into_iter().filter(|line| !line.contains("cali")).collect()
    }

    /// The rules of a chain as saved.
    fn rules(self, table: Table, chain: &str) -> Vec<String> {
        let start = format!("-A {chain} ");
        self.save(table).iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    /// The ids of a chain's rules, `-` for those without.
    fn ids(self, table: Table, chain: &str) -> Vec<String> {
        let id = |rule: &String| {
            rule.split_once("\"cali:").map_or("-".to_owned(), |(_, tail)| tail[..16].to_owned())
        };
        self.rules(table, chain).iter().map(id).collect()
    }

    fn chains(self, table: Table) -> Vec<String> {
        let lines = self.save(table);
        let names = lines.iter().filter_map(|line| line.strip_prefix(":cali"));
        names.map(|rest| format!("cali{}", rest.split(' ').next().unwrap())).collect()
    }

    fn tools(self) -> Tools {
        Tools::find(self.version, self.backend, detect_features(self.backend)).expect("programs")
    }

    fn driver(self, table: Table) -> IptablesTable {
        IptablesTable::new(self.version, table, self.tools(), Options::default())
    }

    /// A filter table with a little policy, programmed.
    fn programmed(self) -> IptablesTable {
        let mut driver = self.driver(Table::Filter);
        want_policy(&mut driver);
        driver.observe().unwrap();
        enforce(&mut driver);
        driver
    }

    fn assert_policy_is_in_force(self) {
        for (name, actions) in POLICY {
            assert_eq!(self.ids(Table::Filter, name), ids_of(name, actions), "{name}");
        }
        let (top, end) = (ids_of("FORWARD", &["-j cali-FORWARD"]), ids_of("FORWARD-end", &[MARK_ACCEPT]));
        let forward = self.ids(Table::Filter, "FORWARD");
        assert_eq!((forward.first(), forward.last()), (top.first(), end.first()), "{forward:?}");
        assert_eq!(forward.iter().filter(|id| *id != "-").count(), 2, "{forward:?}");
        assert_eq!(self.ids(Table::Filter, "INPUT")[0], ids_of("INPUT", &["-j cali-INPUT"])[0]);
    }
}

const MARK_ACCEPT: &str = "-m mark --mark 0x10000/0x10000 -j ACCEPT";
const POLICY: [(&str, &[&str]); 4] = [
    ("cali-FORWARD", &["-i cali+ -j cali-from-wl", "-o cali+ -j cali-to-wl"]),
    ("cali-INPUT", &["-i cali+ -g cali-from-wl"]),
    (
        "cali-from-wl",
        &["-p tcp --dport 80 -j RETURN", "-p udp -m multiport --dports 53,123 -j RETURN", "-j DROP"],
    ),
    ("cali-to-wl", &["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j DROP"]),
];

fn rule(chain: &str, index: usize, action: &str) -> RenderedRule {
    let mut hasher = DefaultHasher::new();
    (chain, index, action).hash(&mut hasher);
    let id = RuleId::parse(&format!("{:016x}", hasher.finish())).unwrap();
    RenderedRule { id, text: format!("-m comment --comment \"cali:{id}\" {action}") }
}

fn rules_of(chain: &str, actions: &[&str]) -> Vec<RenderedRule> {
    actions.iter().enumerate().map(|(index, action)| rule(chain, index, action)).collect()
}

fn ids_of(chain: &str, actions: &[&str]) -> Vec<String> {
    rules_of(chain, actions).iter().map(|rule| rule.id.to_string()).collect()
}

fn chain(name: &str, actions: &[&str]) -> TableChange {
    TableChange::Chain(Arc::new(RenderedChain { name: name.to_owned(), rules: rules_of(name, actions) }))
}

fn hook(chain: &str, inserted: &[&str], appended: &[&str]) -> RenderedHook {
    RenderedHook {
        chain: chain.to_owned(),
        inserted: rules_of(chain, inserted),
        appended: rules_of(&format!("{chain}-end"), appended),
    }
}

fn hooks(mode: InsertMode) -> TableChange {
    let forward = hook("FORWARD", &["-j cali-FORWARD"], &[MARK_ACCEPT]);
    TableChange::Hooks(vec![forward, hook("INPUT", &["-j cali-INPUT"], &[])], mode)
}

fn want_policy(driver: &mut IptablesTable) {
    for (name, actions) in POLICY {
        driver.change(chain(name, actions));
    }
    driver.change(hooks(InsertMode::Insert));
}

fn want_nothing(driver: &mut IptablesTable) {
    driver.change(TableChange::Hooks(Vec::new(), InsertMode::Insert));
    for (name, _) in POLICY {
        driver.change(TableChange::NoChain(name.to_owned()));
    }
}

/// Applies and wants no problem.
fn enforce(driver: &mut IptablesTable) -> Report {
    let report = driver.apply(Phase::Enforce);
    assert_eq!(report.problems, [], "{}", driver.name());
    assert!(driver.plan(Phase::Enforce).is_empty(), "{}", driver.plan(Phase::Enforce));
    report
}

fn problem_of<'a>(report: &'a Report, part: &str) -> &'a str {
    let found = report.problems.iter().find(|problem| problem.object.starts_with(part));
    &found.unwrap_or_else(|| panic!("no problem of {part}: {:?}", report.problems)).error
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

fn add_foreign_rules(case: Case) {
    case.ipt("-P FORWARD DROP");
    case.ipt("-N KUBE-FORWARD");
    case.ipt("-N admin");
    case.ipt("-A admin -m comment --comment 'a \"quoted\" remark, not ours' -j LOG --log-prefix 'x y: '");
    case.ipt("-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT");
    case.ipt("-A FORWARD -j KUBE-FORWARD");
    case.ipt("-A FORWARD -i docker0 -j ACCEPT");
    case.ipt("-A INPUT -p tcp --dport 22 -j ACCEPT");
    case.ipt("-A INPUT -j admin");
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

fn is_closed(case: Case, table: Table, chain: &str) -> bool {
    let rules = case.rules(table, chain);
    rules.len() == 1 && rules[0].contains("closed") && rules[0].ends_with("-j DROP")
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

fn leftovers_in_the_other_back_end_are_swept(case: Case) {
    let options = Options::default();
    let other = Case { backend: case.backend.other(), ..case };
    let features = detect_features(case.backend);
    add_foreign_rules(other);
    let before = other.save(Table::Filter);
    other.programmed();
    let report = sweep_other_backend(case.backend, features, &options);
    assert_eq!(report.problems, []);
    assert_eq!(report.changed, 6);
    assert_eq!(other.save(Table::Filter), before);
    case.programmed();
    let again = sweep_other_backend(case.backend, features, &options);
    assert_eq!((again.changed, again.problems), (0, Vec::new()));
    case.assert_policy_is_in_force();
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
    // What was programmed before can still be changed, and the fault stays reported.
    driver.change(chain("cali-new", &["-j DROP"]));
    let report = driver.apply(Phase::Enforce);
    assert!(problem_of(&report, "table filter").contains("incompatible"));
    assert_eq!(report.changed, 1);
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
