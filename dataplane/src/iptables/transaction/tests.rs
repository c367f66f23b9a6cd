use std::sync::Arc;

use tortie_rules::render::{InsertMode, RenderedChain, RenderedHook, RenderedRule, RuleId};

use super::super::plan::{ChainWrite, HookWrite};
use super::super::save::HookSlot;
use super::*;

fn rule(text: &str) -> RenderedRule {
    RenderedRule { id: RuleId(*b"aaaaaaaaaaaaaaaa"), text: text.to_owned() }
}

fn write(name: &str, rules: &[&str]) -> Step {
    let rules = rules.iter().map(|text| rule(text)).collect();
    Step::Write(ChainWrite { chain: Arc::new(RenderedChain { name: name.to_owned(), rules }), created: true })
}

fn steps() -> Vec<Step> {
    let hook = RenderedHook {
        chain: "FORWARD".to_owned(),
        inserted: vec![rule("-j cali-a"), rule("-j cali-b")],
        appended: vec![rule("-j LOG")],
    };
    let old = [HookSlot::Ours { id: None, text: "-j felix-FORWARD".to_owned() }];
    vec![
        Step::Hook(HookWrite::plan("FORWARD", Some(&hook), InsertMode::Insert, &old).unwrap()),
        write("cali-a", &["-j cali-b", "-j DROP"]),
        write("cali-b", &[]),
        Step::Delete("cali-old".to_owned()),
        Step::Delete("felix-FORWARD".to_owned()),
    ]
}

#[test]
fn the_nft_back_end_deletes_in_a_transaction_of_its_own() {
    let expected = "*filter
:cali-a - -
:cali-b - -
-D FORWARD -j felix-FORWARD
-I FORWARD -j cali-b
-I FORWARD -j cali-a
-A FORWARD -j LOG
-A cali-a -j cali-b
-A cali-a -j DROP
COMMIT
*filter
:cali-old - -
:felix-FORWARD - -
--delete-chain cali-old
--delete-chain felix-FORWARD
COMMIT
";
    assert_eq!(Transaction::new(Table::Filter, Backend::Nft, &steps()).text(), expected);
    let one = expected.replace("COMMIT\n*filter\n:cali-old", ":cali-old");
    assert_eq!(Transaction::new(Table::Filter, Backend::Legacy, &steps()).text(), one);
}

#[test]
fn deletions_alone_are_one_transaction() {
    let text = Transaction::new(Table::Nat, Backend::Nft, &steps()[3..4]).text().to_owned();
    assert_eq!(text, "*nat\n:cali-old - -\n--delete-chain cali-old\nCOMMIT\n");
}

#[test]
fn every_line_knows_its_step() {
    let transaction = Transaction::new(Table::Filter, Backend::Nft, &steps());
    let owners: Vec<Option<usize>> = (0..=17).map(|line| transaction.owner(line)).collect();
    let n = None;
    let expected = [
        n,
        n,
        Some(1),
        Some(2),
        Some(0),
        Some(0),
        Some(0),
        Some(0),
        Some(1),
        Some(1),
        n,
        n,
        Some(3),
        Some(4),
        Some(3),
        Some(4),
        n,
        n,
    ];
    assert_eq!(owners, expected);
}

#[test]
fn complaints_of_all_versions_name_their_lines() {
    let lines = |text: &str| complaints(text).into_iter().map(|c| c.line).collect::<Vec<_>>();
    let parse_error = "Ignoring deprecated --wait-interval option.
iptables-restore v1.8.9 (legacy): Set nosuch doesn't exist.

Error occurred at line: 3
Try `iptables-restore -h' or 'iptables-restore --help' for more information.
";
    assert_eq!(
        complaints(parse_error),
        [Complaint {
            line: 3,
            message: "iptables-restore v1.8.9 (legacy): Set nosuch doesn't exist.".to_owned()
        }]
    );
    assert_eq!(lines("iptables-restore: line 7 failed\n"), [7]);
    assert_eq!(lines("iptables-nft-restore: line 2 failed: No chain/target/match by that name.\n"), [2]);
    let kernel = "iptables-nft-restore v1.8.9 (nf_tables): 
line 4: RULE_APPEND failed (Invalid argument): rule in chain cali-a
line 5: RULE_APPEND failed (Invalid argument): rule in chain cali-b
";
    assert_eq!(lines(kernel), [4, 5]);
    assert_eq!(
        complaints(kernel)[1].message,
        "line 5: RULE_APPEND failed (Invalid argument): rule in chain cali-b"
    );
    assert_eq!(lines("iptables-restore v1.8.9 (legacy): Permission denied\n"), [0; 0]);
    assert_eq!(lines(""), [0; 0]);
}

#[test]
fn a_summary_has_no_hints_on_usage() {
    let text = "Ignoring deprecated --wait-interval option.\nbad\n\n Error occurred at line: 3\nTry `x -h' for more\n";
    assert_eq!(summary(text), "bad");
    assert_eq!(summary(""), "no error output");
}
