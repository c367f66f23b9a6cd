//! Chains, maps and what keeps them.

use super::*;
use crate::ruleset::{KeyField, Match};

fn chain(name: &str, to: &[&str]) -> Chain {
    let rules = to.iter().map(|t| Rule::always(Action::Jump((*t).to_owned()))).collect();
    Chain { name: name.to_owned(), rules }
}

fn hook(to: &str) -> Hook {
    let inserted = vec![Rule::always(Action::Jump(to.to_owned()))];
    Hook { chain: "FORWARD", inserted, appended: Vec::new() }
}

fn names(chains: &mut Chains) -> Vec<String> {
    let changes = chains.changes(InsertMode::Insert, iptables::Features::default(), &Marks::default());
    let name = |c| match c {
        TableChange::Chain(c) => format!("+{}:{}", c.name, c.rules.len()),
        TableChange::NoChain(n) => format!("-{n}"),
        TableChange::Hooks(..) => "hooks".to_owned(),
    };
    changes.into_iter().map(name).collect()
}

#[test]
fn only_chains_that_a_packet_can_reach_are_programmed() {
    let mut chains = Chains::default();
    chains.set(chain("a", &["b"]));
    chains.set(chain("b", &[]));
    chains.set(chain("unused", &["b"]));
    assert!(names(&mut chains).is_empty());
    chains.set_hooks(vec![hook("a")]);
    assert_eq!(names(&mut chains), ["+a:1", "+b:0", "hooks"]);
    chains.set(chain("a", &[]));
    assert_eq!(names(&mut chains), ["+a:0", "-b"]);
    chains.pin("unused", true);
    assert_eq!(names(&mut chains), ["+b:0", "+unused:1"]);
    chains.pin("unused", false);
    assert_eq!(names(&mut chains), ["-b", "-unused"]);
}

#[test]
fn a_missing_chain_is_closed_until_it_comes() {
    let mut chains = Chains::default();
    chains.set_hooks(vec![hook("a")]);
    assert_eq!(names(&mut chains), ["+a:1", "hooks"]);
    chains.set(chain("a", &[]));
    assert_eq!(names(&mut chains), ["+a:0"]);
    chains.remove("a");
    assert_eq!(names(&mut chains), ["+a:1"]);
}

#[test]
fn an_equal_chain_is_no_change() {
    let mut chains = Chains::default();
    chains.set_hooks(vec![hook("a")]);
    chains.set(chain("a", &["b"]));
    names(&mut chains);
    chains.set(chain("a", &["b"]));
    assert!(names(&mut chains).is_empty());
}

fn with_set(negate: bool, bit: u32) -> Rule {
    let side = crate::ruleset::Side::Source;
    let m = Match::Set { name: "s".to_owned(), side, key: crate::ruleset::SetKey::Address, negate };
    Rule::when(vec![m], Action::SetMark(bit))
}

#[test]
fn a_chain_is_closed_where_missing_members_would_open_it() {
    let marks = Marks::default();
    let cases = [
        (false, marks.accept, false),
        (true, marks.accept, true),
        (false, marks.drop, true),
        (true, marks.drop, false),
        (false, marks.pass, true),
        (false, marks.scratch0, true),
    ];
    for (negate, bit, is_closed) in cases {
        let mut chains = Chains::default();
        chains.set_hooks(vec![hook("a")]);
        let rules = vec![with_set(negate, bit), Rule::always(Action::Return)];
        chains.set(Chain { name: "a".to_owned(), rules });
        assert_eq!(names(&mut chains), ["+a:2", "hooks"]);
        let names_of_s = BTreeSet::from(["s".to_owned()]);
        let incomplete = BrokenSets { incomplete: names_of_s.clone(), ..BrokenSets::default() };
        chains.set_broken_sets(&incomplete);
        let rules = if is_closed { 1 } else { 2 };
        assert_eq!(names(&mut chains), [format!("+a:{rules}")], "{negate} {bit:#x}");
        chains.set_broken_sets(&BrokenSets { strange: names_of_s, ..incomplete });
        assert_eq!(names(&mut chains), ["+a:1"], "{negate} {bit:#x}: whatever is in the set");
        chains.set_broken_sets(&BrokenSets::default());
        assert_eq!(names(&mut chains), ["+a:2"]);
    }
}

fn look_up(name: &str, map: &str) -> Chain {
    let key = vec![KeyField::OutInterface];
    Chain {
        name: name.to_owned(),
        rules: vec![Rule::always(Action::Lookup { key, map: map.to_owned(), all: None })],
    }
}

fn key(name: &str) -> Key {
    Key::Interface(name.into())
}

fn to(chain: &str) -> Verdict {
    Verdict::Goto(chain.into())
}

fn typed(chains: &mut Chains) -> Vec<String> {
    let name = |change| match change {
        Change::Map(map) => format!("+map {}:{}", map.name, map.elements.len()),
        Change::Chain(c) => format!("+{}:{}", c.name, c.rules.len()),
        Change::Elements { map, removed, added } => format!("{map} -{} +{}", removed.len(), added.len()),
        Change::Hooks(_) => "hooks".to_owned(),
        Change::NoChain(n) => format!("-{n}"),
        Change::NoMap(n) => format!("-map {n}"),
    };
    chains.typed_changes(&Marks::default()).into_iter().map(name).collect()
}

#[test]
fn a_map_keeps_the_chains_that_its_elements_lead_to() {
    let mut chains = Chains::default();
    chains.want_map("m", MapType::Interface);
    chains.set(look_up("a", "m"));
    chains.set(chain("b", &[]));
    chains.set(chain("c", &[]));
    chains.set_element("m", key("x"), Some(to("b")));
    assert!(typed(&mut chains).is_empty(), "nothing leads there");
    chains.set_hooks(vec![hook("a")]);
    assert_eq!(typed(&mut chains), ["+map m:1", "+a:1", "+b:0", "hooks"]);
    chains.set_element("m", key("y"), Some(to("b")));
    chains.set_element("m", key("x"), Some(to("c")));
    assert_eq!(typed(&mut chains), ["+c:0", "m -1 +2"]);
    chains.set_element("m", key("x"), Some(to("b")));
    chains.set_element("m", key("x"), Some(to("c")));
    assert!(typed(&mut chains).is_empty(), "there and back");
    chains.set_element("m", key("y"), None);
    assert_eq!(typed(&mut chains), ["m -1 +0", "-b"]);
    chains.set(chain("a", &[]));
    assert_eq!(typed(&mut chains), ["+a:0", "-c", "-map m"]);
    chains.set_element("m", key("z"), Some(to("b")));
    chains.set(look_up("a", "m"));
    assert_eq!(typed(&mut chains), ["+map m:2", "+a:1", "+b:0", "+c:0"], "all of it is told again");
}

#[test]
fn what_stands_for_its_content_is_forgotten_with_its_last_reference() {
    let mut chains = Chains::default();
    chains.want_map("m", MapType::Interface);
    chains.set(look_up("a", "m"));
    chains.set_hooks(vec![hook("a")]);
    chains.intern("row", || {
        vec![Rule::always(Action::Lookup { key: vec![], map: "ports".to_owned(), all: None })]
    });
    chains.intern_map("ports", MapType::ProtocolPort, vec![(Key::ProtocolPort(6, 80), Verdict::Drop)]);
    chains.intern("unused", Vec::new);
    chains.set_element("m", key("x"), Some(to("row")));
    typed(&mut chains);
    assert!(chains.has("row") && !chains.has("unused"));
    chains.set_element("m", key("x"), None);
    assert_eq!(typed(&mut chains), ["m -1 +0", "-row", "-map ports"]);
    assert!(!chains.has("row") && chains.map("ports").is_none());
}

#[test]
fn sets_are_in_use_where_a_programmed_chain_looks_into_them() {
    let mut chains = Chains::default();
    chains.set(Chain { name: "a".to_owned(), rules: vec![with_set(false, 1)] });
    assert!(!chains.uses_set("s"));
    chains.set_hooks(vec![hook("a")]);
    assert!(chains.uses_set("s"));
    assert!(chains.take_dirty_sets().contains("s"));
    chains.set(chain("a", &[]));
    assert!(!chains.uses_set("s"));
}

fn rules(name: &str, actions: Vec<Action>) -> Chain {
    Chain { name: name.to_owned(), rules: actions.into_iter().map(Rule::always).collect() }
}

fn jump(to: &str) -> Action {
    Action::Jump(to.to_owned())
}

fn trimming(hooks: Vec<Hook>) -> Chains {
    let mut chains = Chains::default();
    chains.trim();
    chains.set_hooks(hooks);
    chains
}

#[test]
fn chains_that_do_nothing_are_left_out_as_long_as_they_do_nothing() {
    let mut chains = trimming(vec![hook("a")]);
    chains.set(rules("a", vec![jump("b"), Action::Drop, Action::Goto("c".to_owned())]));
    chains.set(rules("b", vec![jump("c"), Action::Return]));
    chains.set(chain("c", &[]));
    assert_eq!(typed(&mut chains), ["+a:2", "hooks"]);
    let a = chains.content(&Marks::default()).1.remove(0);
    assert_eq!(a, rules("a", vec![Action::Drop, Action::Return]));
    chains.set(rules("c", vec![Action::Drop]));
    assert_eq!(typed(&mut chains), ["+a:3", "+b:2", "+c:1"]);
    chains.set(chain("c", &[]));
    assert_eq!(typed(&mut chains), ["+a:2", "-b", "-c"]);
    chains.remove("c");
    assert_eq!(typed(&mut chains), ["+a:3", "+b:2", "+c:1"], "closed");
}

#[test]
fn a_chain_that_only_counts_or_that_a_map_leads_to_is_there() {
    let mut chains = trimming(vec![hook("a")]);
    chains.want_map("m", MapType::Interface);
    chains.set_element("m", key("x"), Some(to("b")));
    chains.set(look_up("a", "m"));
    chains.set(chain("b", &["c", "d"]));
    chains.set(Chain { name: "c".to_owned(), rules: vec![Rule::default()] });
    chains.set(chain("d", &[]));
    assert_eq!(typed(&mut chains), ["+map m:1", "+a:1", "+b:1", "+c:1", "hooks"]);
    chains.set(chain("c", &[]));
    assert_eq!(typed(&mut chains), ["+b:0", "-c"]);
    chains.set_element("m", key("y"), Some(to("d")));
    assert_eq!(typed(&mut chains), ["+d:0", "m -0 +1"]);
}

#[test]
fn a_hook_that_only_accepts_is_left_out_and_one_that_clears_marks_only_behind_all_others() {
    let of = |chain, to: &str| Hook { chain, ..hook(to) };
    let mut chains = trimming(vec![of("PREROUTING", "a"), of("OUTPUT", "b"), of("POSTROUTING", "c")]);
    chains.set(rules("a", vec![jump("d"), Action::Accept]));
    chains.set(rules("b", vec![Action::ClearMark(1)]));
    chains.set(rules("c", vec![Action::ClearMark(1), Action::Return]));
    chains.set(chain("d", &[]));
    assert_eq!(typed(&mut chains), ["+b:1", "hooks"]);
    let hooks = |chains: &Chains| -> Vec<&str> {
        chains.content(&Marks::default()).0.iter().map(|hook| hook.chain).collect()
    };
    assert_eq!(hooks(&chains), ["OUTPUT"]);
    chains.set(rules("d", vec![Action::Drop]));
    assert_eq!(typed(&mut chains), ["+a:2", "+d:1", "hooks"]);
    assert_eq!(hooks(&chains), ["PREROUTING", "OUTPUT"]);
    chains.set(rules("c", vec![Action::SetMark(1)]));
    assert_eq!(typed(&mut chains), ["+c:1", "hooks"]);
    chains.set(chain("d", &[]));
    assert_eq!(typed(&mut chains), ["hooks", "-a", "-d"]);
}
