use tortie_rules::render::{RenderedRule, RuleId};

use super::super::save::{HookSlot, Slot};
use super::*;

fn id(name: &str, index: usize) -> RuleId {
    let mut id = [b'_'; 16];
    for (place, byte) in id.iter_mut().zip(format!("{name}{index}").bytes()) {
        *place = byte;
    }
    RuleId(id)
}

fn rule(name: &str, index: usize, action: &str) -> RenderedRule {
    let id = id(name, index);
    RenderedRule { id, text: format!("-m comment --comment \"cali:{id}\" {action}") }
}

fn chain(name: &str, actions: &[&str]) -> TableChange {
    let rules = actions.iter().enumerate().map(|(i, action)| rule(action, i, action)).collect();
    TableChange::Chain(Arc::new(RenderedChain { name: name.to_owned(), rules }))
}

fn hooks() -> TableChange {
    let inserted = vec![rule("hook", 0, "-j cali-FORWARD")];
    let hook = RenderedHook { chain: "FORWARD".to_owned(), inserted, appended: Vec::new() };
    TableChange::Hooks(vec![hook], InsertMode::Insert)
}

fn state(changes: impl IntoIterator<Item = TableChange>) -> State {
    let mut state = State::new(Table::Filter, vec!["cali+".to_owned()]);
    for change in changes {
        state.change(change);
    }
    state.observed(Snapshot::default());
    state
}

fn words(state: &State) -> Vec<String> {
    state.steps().unwrap().iter().map(ToString::to_string).collect()
}

fn done(state: &mut State) {
    let steps = state.steps().unwrap();
    state.believe(&steps);
}

#[test]
fn nothing_is_planned_before_the_table_is_read() {
    let mut state = State::new(Table::Filter, Vec::new());
    state.change(chain("cali-a", &["-j DROP"]));
    assert!(state.steps().is_none());
    state.observed(Snapshot::default());
    assert_eq!(words(&state), ["create cali-a (1 rules)"]);
}

#[test]
fn what_was_done_is_believed() {
    let mut state = state([chain("cali-a", &["-j DROP"]), hooks()]);
    assert_eq!(words(&state).len(), 2);
    done(&mut state);
    assert_eq!(words(&state), [""; 0]);
    state.change(chain("cali-a", &["-j DROP"]));
    assert_eq!(words(&state), [""; 0], "the same again is no change");
    state.change(chain("cali-a", &["-j ACCEPT"]));
    assert_eq!(words(&state), ["rewrite cali-a (1 rules)"]);
    state.change(chain("cali-a", &["-j DROP"]));
    assert_eq!(words(&state), [""; 0], "changed and changed back is no change");
    state.change(TableChange::NoChain("cali-a".to_owned()));
    assert_eq!(words(&state), ["delete cali-a"]);
    done(&mut state);
    assert_eq!(words(&state), [""; 0]);
}

#[test]
fn chains_of_ours_that_nobody_wants_are_deleted_unless_pinned() {
    let mut state = State::new(Table::Filter, Vec::new());
    let chains = ["cali-a", "cali-b", "cali-c"].map(|name| (name.to_owned(), vec![Slot::Unknown]));
    let pinned = [("cali-b".to_owned(), "admin".to_owned())];
    let snapshot = Snapshot { chains: chains.into(), pinned: pinned.into(), ..Snapshot::default() };
    state.change(chain("cali-c", &["-j DROP"]));
    state.observed(snapshot);
    assert_eq!(words(&state), ["rewrite cali-b (0 rules)", "rewrite cali-c (1 rules)", "delete cali-a"]);
    done(&mut state);
    assert_eq!(words(&state), [""; 0]);
    let faults = state.standing_faults();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].0.contains("cali-b") && faults[0].1.contains("admin"), "{faults:?}");
}

#[test]
fn foreign_names_are_refused_and_reported() {
    let state = state([
        chain("KUBE-SERVICES", &["-j DROP"]),
        chain("FORWARD", &["-j DROP"]),
        chain("cali-0123456789012345678901234", &[]),
        chain("cali-a b", &[]),
        chain("cali-ok", &[]),
    ]);
    assert_eq!(words(&state), ["create cali-ok (0 rules)"]);
    assert_eq!(state.standing_faults().len(), 4);
}

#[test]
fn a_rule_with_a_line_break_closes_its_chain_only() {
    let mut state = state([chain("cali-a", &["-j DROP\n-A INPUT -j ACCEPT"]), chain("cali-b", &["-j DROP"])]);
    for step in state.steps().unwrap() {
        let Step::Write(write) = step else { panic!("{step}") };
        assert!(write.chain.rules.iter().all(|rule| !rule.text.contains('\n')));
    }
    assert!(state.standing_faults()[0].1.contains("line break"));
    state.change(chain("cali-a", &["-j ACCEPT"]));
    assert!(state.standing_faults().is_empty());
}

#[test]
fn hooks_with_line_breaks_or_in_unknown_chains_are_refused() {
    let bad = |chain: &str, action: &str| RenderedHook {
        chain: chain.to_owned(),
        inserted: vec![rule("bad", 0, action)],
        appended: Vec::new(),
    };
    let change = |hooks| TableChange::Hooks(hooks, InsertMode::Insert);
    let mut state = state([change(vec![bad("POSTROUTING", "-j DROP"), bad("INPUT", "\nCOMMIT")])]);
    assert_eq!(words(&state), [""; 0]);
    assert_eq!(state.standing_faults().len(), 2);
    state.change(change(Vec::new()));
    assert!(state.standing_faults().is_empty());
}

#[test]
fn a_closed_chain_opens_when_it_changes() {
    let mut state = state([chain("cali-a", &["-j BAD"])]);
    assert!(state.close("cali-a", "no such target".to_owned()));
    done(&mut state);
    assert_eq!(words(&state), [""; 0]);
    assert!(state.standing_faults()[0].1.contains("no such target"));
    state.change(chain("cali-a", &["-j BAD"]));
    assert_eq!(words(&state), [""; 0], "the same is not tried again");
    state.change(chain("cali-a", &["-j DROP"]));
    assert_eq!(words(&state), ["rewrite cali-a (1 rules)"]);
    assert!(state.standing_faults().is_empty());
}

#[test]
fn a_closed_chain_is_tried_once_per_resync() {
    let mut state = state([chain("cali-a", &["-j BAD"])]);
    state.close("cali-a", "no set".to_owned());
    done(&mut state);
    assert!(state.retries().is_empty());
    let closed = state.steps().unwrap();
    assert!(closed.is_empty());
    let slots = vec![Slot::Rule(RuleId(*b"quarantine-drop-"))];
    let snapshot =
        || Snapshot { chains: [("cali-a".to_owned(), slots.clone())].into(), ..Snapshot::default() };
    state.observed(snapshot());
    assert_eq!(words(&state), [""; 0], "it stays closed meanwhile");
    assert_eq!(state.retries().len(), 1);
    let retries = state.take_retries();
    assert_eq!((retries.len(), state.take_retries().len()), (1, 0));
    state.believe(&retries);
    assert!(state.standing_faults().is_empty());
    assert_eq!(words(&state), [""; 0]);
}

#[test]
fn what_was_read_replaces_what_was_believed() {
    let mut state = state([chain("cali-a", &["-j DROP"]), hooks()]);
    done(&mut state);
    let kernel = [("FORWARD", vec![HookSlot::Foreign])];
    state.observed(Snapshot { kernel: kernel.into(), ..Snapshot::default() });
    assert_eq!(words(&state), ["hook FORWARD (-0 +1 top +0 end)", "create cali-a (1 rules)"]);
}
