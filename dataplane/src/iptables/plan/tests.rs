use tortie_rules::render::RuleId;

use super::*;

fn rule(id: u8) -> RenderedRule {
    let id = RuleId([b'a' + id; 16]);
    RenderedRule { id, text: format!("-m comment --comment \"cali:{id}\" -j X") }
}

fn slot(id: u8) -> HookSlot {
    HookSlot::Ours { id: Some(rule(id).id), text: format!("saved {id}") }
}

fn hook(inserted: &[u8], appended: &[u8]) -> RenderedHook {
    let rules = |ids: &[u8]| ids.iter().map(|id| rule(*id)).collect();
    RenderedHook { chain: "FORWARD".to_owned(), inserted: rules(inserted), appended: rules(appended) }
}

fn plan(mode: InsertMode, hook: &RenderedHook, actual: &[HookSlot]) -> Option<HookWrite> {
    HookWrite::plan("FORWARD", Some(hook), mode, actual)
}

const F: HookSlot = HookSlot::Foreign;

#[test]
fn hooks_in_place_need_nothing() {
    let wanted = hook(&[0, 1], &[2]);
    assert_eq!(plan(InsertMode::Insert, &wanted, &[slot(0), slot(1), F, F, slot(2)]), None);
    assert_eq!(plan(InsertMode::Append, &wanted, &[F, slot(0), slot(1), slot(2)]), None);
    assert_eq!(HookWrite::plan("FORWARD", None, InsertMode::Insert, &[F, F]), None);
}

#[test]
fn hooks_out_of_place_are_all_replaced() {
    let wanted = hook(&[0, 1], &[2]);
    let cases = [
        vec![F, slot(0), slot(1), slot(2)],
        vec![slot(1), slot(0), F, slot(2)],
        vec![slot(0), slot(1), slot(2), F],
        vec![slot(0), slot(0), slot(1), F, slot(2)],
        vec![slot(0), F, slot(2)],
        vec![HookSlot::Ours { id: None, text: "old".to_owned() }, slot(0), slot(1), slot(2)],
    ];
    for actual in cases {
        let write = plan(InsertMode::Insert, &wanted, &actual).unwrap();
        let ours = actual.iter().filter(|slot| **slot != F).count();
        assert_eq!(write.remove.len(), ours, "{actual:?}");
        assert_eq!(plan(InsertMode::Insert, &wanted, &write.after()), None, "fixed point of {actual:?}");
    }
}

#[test]
fn append_mode_puts_everything_at_the_end_in_order() {
    let write = plan(InsertMode::Append, &hook(&[0, 1], &[2]), &[F]).unwrap();
    assert!(write.top.is_empty());
    assert_eq!(write.bottom, [rule(0), rule(1), rule(2)]);
}

#[test]
fn hooks_no_longer_wanted_are_removed() {
    let write = HookWrite::plan("FORWARD", None, InsertMode::Insert, &[slot(0), F]).unwrap();
    assert_eq!(write.remove, ["saved 0"]);
    assert_eq!(write.after(), [F]);
}

#[test]
fn a_rule_with_a_list_of_addresses_reads_as_several() {
    let mut listed = rule(0);
    listed.text = "--source 10.0.0.1,10.0.0.2 --jump DSCP".to_owned();
    let chain = Arc::new(RenderedChain { name: "cali-x".to_owned(), rules: vec![listed, rule(1)] });
    let (a, b) = (Slot::Rule(rule(0).id), Slot::Rule(rule(1).id));
    assert!(Held::Read(vec![a, a, b]).is(&chain));
    assert!(!Held::Read(vec![a, a, a, b]).is(&chain));
    assert!(!Held::Read(vec![a, b, b]).is(&chain));
}

#[test]
fn a_chain_reads_as_wanted_only_if_every_position_does() {
    let chain = Arc::new(RenderedChain { name: "cali-x".to_owned(), rules: vec![rule(0), rule(1)] });
    let (a, b) = (Slot::Rule(rule(0).id), Slot::Rule(rule(1).id));
    assert!(Held::Read(vec![a, b]).is(&chain));
    for other in
        [vec![], vec![a], vec![b, a], vec![a, b, Slot::Unknown], vec![a, Slot::Unknown], vec![a, a, b]]
    {
        assert!(!Held::Read(other.clone()).is(&chain), "{other:?}");
    }
}

#[test]
fn a_plan_says_what_it_does_in_one_line_or_in_full() {
    let chain = Arc::new(RenderedChain { name: "cali-x".to_owned(), rules: vec![rule(0)] });
    let plan = TablePlan {
        driver: "iptables IPv4 filter".to_owned(),
        is_unread: false,
        steps: vec![
            Step::Hook(plan(InsertMode::Insert, &hook(&[0], &[1]), &[slot(3)]).unwrap()),
            Step::Write(ChainWrite { chain, created: true }),
            Step::Delete("cali-y".to_owned()),
        ],
    };
    assert_eq!(
        plan.to_string(),
        "iptables IPv4 filter: hook FORWARD (-1 +1 top +1 end), create cali-x (1 rules), delete cali-y"
    );
    assert_eq!(format!("{plan:#}").lines().count(), 7);
}
