use super::*;

const WORKED_EXAMPLE: &str = include_str!("../../../tests/data/iptables-save/worked-example.txt");
const APPEND: &str = include_str!("../../../tests/data/iptables-save/append.txt");
const DUAL_STACK_IPV6: &str = include_str!("../../../tests/data/iptables-save/dual-stack-ipv6.txt");

fn parse(table: Table, text: &str) -> Snapshot {
    let mut parser = SaveParser::new(table);
    parser.feed(text.as_bytes());
    parser.finish()
}

fn id(text: &str) -> Slot {
    Slot::Rule(RuleId::parse(text).unwrap())
}

fn ours(id: &str, text: &str) -> HookSlot {
    HookSlot::Ours { id: RuleId::parse(id), text: text.to_owned() }
}

#[test]
fn a_table_written_by_felix_is_read_with_its_ids() {
    let nat = parse(Table::Nat, WORKED_EXAMPLE);
    assert_eq!(nat.chains["cali-nat-outgoing"], [id("flqWnvo8yq4ULQLa")]);
    assert_eq!(
        nat.kernel["POSTROUTING"],
        [ours("0i8pjzKKPyA34aQD", "-m comment --comment \"cali:0i8pjzKKPyA34aQD\" -j cali-POSTROUTING")]
    );
    assert!(nat.pinned.is_empty() && !nat.incompatible);
}

#[test]
fn every_rule_of_every_table_is_counted_once() {
    for text in [WORKED_EXAMPLE, APPEND, DUAL_STACK_IPV6] {
        let (mut chains, mut rules) = (0, 0);
        for table in Table::ALL {
            let snapshot = parse(table, text);
            chains += snapshot.chains.len();
            rules += snapshot.chains.values().map(Vec::len).sum::<usize>();
            rules += snapshot.kernel.values().map(Vec::len).sum::<usize>();
            assert!(snapshot.chains.values().flatten().all(|slot| *slot != Slot::Unknown));
        }
        assert_eq!(chains, text.lines().filter(|line| line.starts_with(":cali-")).count());
        assert_eq!(rules, text.lines().filter(|line| line.starts_with("-A")).count());
    }
}

#[test]
fn foreign_rules_keep_their_place_among_ours() {
    let filter = parse(Table::Filter, APPEND);
    let forward: Vec<bool> = filter.kernel["FORWARD"].iter().map(|slot| *slot == HookSlot::Foreign).collect();
    assert_eq!(forward, [true, false, false, false]);
}

#[test]
fn pieces_may_be_cut_anywhere() {
    let whole = parse(Table::Filter, WORKED_EXAMPLE);
    for size in [1, 7, 100] {
        let mut parser = SaveParser::new(Table::Filter);
        for piece in WORKED_EXAMPLE.as_bytes().chunks(size) {
            parser.feed(piece);
        }
        assert_eq!(parser.finish(), whole, "pieces of {size}");
    }
}

#[test]
fn only_a_comment_makes_a_rule_ours() {
    let text = r#"*filter
:FORWARD DROP [1:2]
-A FORWARD -m comment --comment "see cali:wUHhoiAYhphO9Mso" -j ACCEPT
-A FORWARD -m comment --comment "say --comment cali:wUHhoiAYhphO9Mso" -j ACCEPT
-A FORWARD -m comment --comment "a \"quoted\" --comment \"cali:x\"" -j ACCEPT
-A FORWARD -m comment --comment cali:wUHhoiAYhphO9Mso -j ACCEPT
-A FORWARD -m comment --comment "cali: is a dog" -j ACCEPT
-A FORWARD -m comment --comment "cali:short" -j ACCEPT
COMMIT
"#;
    let slots = parse(Table::Filter, text).kernel.remove("FORWARD").unwrap();
    assert_eq!(slots[..3], [HookSlot::Foreign, HookSlot::Foreign, HookSlot::Foreign]);
    let bare = "-m comment --comment cali:wUHhoiAYhphO9Mso -j ACCEPT";
    assert_eq!(slots[3], ours("wUHhoiAYhphO9Mso", bare));
    assert_eq!(slots[4], HookSlot::Foreign);
    assert_eq!(slots[5], ours("-", "-m comment --comment \"cali:short\" -j ACCEPT"));
}

#[test]
fn rules_of_older_releases_are_known_without_an_id() {
    let text = "*nat
:POSTROUTING ACCEPT [0:0]
:felix-POSTROUTING - [0:0]
-A POSTROUTING -j felix-POSTROUTING
-A POSTROUTING -m set --match-set felix-masq-ipam-pools src -j MASQUERADE
-A POSTROUTING -o tunl0 -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE
-A POSTROUTING -o tunl0 -j MASQUERADE
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
-A felix-POSTROUTING -j ACCEPT
COMMIT
";
    let nat = parse(Table::Nat, text);
    let is_ours: Vec<bool> =
        nat.kernel["POSTROUTING"].iter().map(|slot| *slot != HookSlot::Foreign).collect();
    assert_eq!(is_ours, [true, true, true, false, false]);
    assert_eq!(nat.chains["felix-POSTROUTING"], [Slot::Unknown]);
}

#[test]
fn chains_that_foreign_chains_refer_to_are_known() {
    let text = "*filter
:FORWARD ACCEPT [0:0]
:admin - [0:0]
:cali-a - [0:0]
-A FORWARD -g cali-a
-A admin -p tcp -j cali-a
-A admin -m comment --comment \"-j cali-b\" -j ACCEPT
COMMIT
";
    let filter = parse(Table::Filter, text);
    assert_eq!(filter.pinned.into_iter().collect::<Vec<_>>(), [("cali-a".to_owned(), "admin".to_owned())]);
    assert!(matches!(&filter.kernel["FORWARD"][0], HookSlot::Ours { id: None, .. }));
}

#[test]
fn a_table_that_only_nft_can_show_is_named() {
    let text = "# Table `filter' is incompatible, use 'nft' tool.\n";
    assert!(parse(Table::Filter, text).incompatible);
    assert!(!parse(Table::Nat, text).incompatible);
    assert!(!parse(Table::Filter, "# Warning: iptables-legacy tables present\n").incompatible);
}

#[test]
fn nothing_at_all_is_an_empty_table() {
    assert_eq!(parse(Table::Filter, ""), Snapshot::default());
    assert_eq!(parse(Table::Filter, "\u{0}\n-A\n:\n*\n-A x"), Snapshot::default());
}
