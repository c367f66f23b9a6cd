use tortie_api::net::IpVersion;
use tortie_rules::ruleset::nft::{Chain, Rule};

use super::super::plan::Step;
use super::*;
use crate::reconcile::Phase;

fn state() -> State {
    state_with(0)
}

/// With so many rules behind the one that names the table.
fn state_with(more: usize) -> State {
    let mut state = State::new(IpVersion::V4, Vec::new());
    let offload = Expression::FlowOffload { flowtable: lower::FLOWTABLE.to_owned() };
    let mut rules = vec![Rule { expressions: vec![offload], comment: None }];
    rules.resize(1 + more, Rule { expressions: vec![Expression::Counter], comment: None });
    state.want_chain(lower::Content { chain: Chain::plain("filter-cali-FORWARD"), rules });
    state.want_chain(lower::Content { chain: Chain::plain("filter-cali-other"), rules: Vec::new() });
    state.offload.is_wanted = true;
    state.is_known = true;
    state
}

/// The state with its steps carried out.
fn done(mut state: State) -> State {
    let steps = state.steps(Phase::Enforce);
    state.believe(&steps);
    assert!(!state.has_work(Phase::Enforce) && !state.has_work(Phase::Withdraw));
    state
}

fn words(state: &State, phase: Phase) -> Vec<String> {
    state.steps(phase).iter().map(ToString::to_string).collect()
}

fn found(name: &str, devices: &[&str], priority: i32) -> FlowtableEntry {
    let devices = devices.iter().map(|&name| name.to_owned()).collect();
    let flowtable = Flowtable { name: name.to_owned(), priority, devices, counter: false };
    FlowtableEntry { flowtable, handle: 1 }
}

#[test]
fn the_table_comes_before_the_rules_that_name_it() {
    let steps = state().steps(Phase::Enforce);
    let at = |wanted: fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
    assert!(at(|step| matches!(step, Step::AddTable(_))) < at(|step| *step == Step::AddFlowtable));
    assert!(at(|step| *step == Step::AddFlowtable) < at(|step| matches!(step, Step::AddRules(_))));
}

#[test]
fn recalled_connections_meet_the_rules_since_the_table_is_replaced_with_the_rules_that_name_it() {
    // However many of its chain's rules stay as they are.
    for more in [0, 20] {
        let mut state = done(state_with(more));
        state.offload.recall();
        let expected = [
            "flush chain filter-cali-FORWARD",
            "delete flowtable calico",
            "add the flowtable",
            &format!("{} rules of filter-cali-FORWARD", 1 + more),
        ];
        assert_eq!(words(&state, Phase::Enforce), expected);
        done(state);
    }
}

#[test]
fn interfaces_come_and_go_one_by_one() {
    let mut offload = Offload { is_wanted: true, ..Offload::default() };
    offload.add("cali1");
    offload.created();
    assert_eq!(offload.devices(), [Device::Add("cali1".to_owned())]);
    offload.done(&Device::Add("cali1".to_owned()));
    offload.add("cali2");
    assert_eq!(offload.devices(), [Device::Add("cali2".to_owned())]);
    // The kernel takes out what goes.
    offload.gone("cali1");
    assert_eq!(offload.devices(), [Device::Add("cali2".to_owned())]);
    // It came back under its name.
    offload.add("cali1");
    assert_eq!(offload.devices().len(), 2);
    // An empty table takes the place of the old one.
    offload.observed(vec![found("calico", &["cali1", "cali2", "eth7"], 0)]);
    assert_eq!(offload.devices(), [Device::Remove("eth7".to_owned())]);
    offload.recall();
    offload.created();
    assert_eq!(offload.devices().len(), 2);
}

#[test]
fn what_another_agent_left_is_used_if_it_is_the_same_and_replaced_if_not() {
    let mut state = done(state());
    state.offload.observed(vec![found("calico", &["cali1"], 0)]);
    assert_eq!(words(&state, Phase::Enforce), [""; 0]);
    state.offload.observed(vec![found("calico", &["cali1"], 5), found("old", &[], 0)]);
    assert_eq!(words(&state, Phase::Enforce)[1..3], ["delete flowtable calico", "add the flowtable"]);
    assert_eq!(words(&state, Phase::Withdraw), ["delete flowtable old"]);
}

#[test]
fn what_is_no_longer_wanted_goes_once_no_rule_names_it() {
    let mut state = done(state());
    state.offload.is_wanted = false;
    state.want_chain(lower::Content { chain: Chain::plain("filter-cali-FORWARD"), rules: Vec::new() });
    assert_eq!(words(&state, Phase::Enforce), ["flush chain filter-cali-FORWARD"]);
    assert_eq!(words(&state, Phase::Withdraw), ["delete flowtable calico"]);
}
