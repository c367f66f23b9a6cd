use super::*;

fn ids(seed: &str, list: &[Rule]) -> Vec<String> {
    rules(seed, list, Features::default()).iter().map(|r| r.id.to_string()).collect()
}

fn jump(chain: &str) -> Rule {
    Rule::always(Action::Jump(chain.into()))
}

#[test]
fn ids_of_hooks_are_felixs() {
    for (chain, ours, id) in [
        ("PREROUTING", "cali-PREROUTING", "6gwbT8clXdHdC1b1"),
        ("OUTPUT", "cali-OUTPUT", "tVnHkvAo15HuiPy0"),
        ("INPUT", "cali-INPUT", "Cz_u1IQiXIMmKD4c"),
        ("FORWARD", "cali-FORWARD", "wUHhoiAYhphO9Mso"),
        ("POSTROUTING", "cali-POSTROUTING", "O3lYWMrLQYEMJtB5"),
        ("FORWARD", "cali-foobar", "JttcEuxbGad9jG6N"),
    ] {
        assert_eq!(ids(chain, &[jump(ours)]), [id], "{chain}");
    }
}

#[test]
fn appended_rules_have_a_hash_chain_of_their_own() {
    let hook = Hook {
        chain: "FORWARD",
        inserted: vec![jump("cali-FORWARD")],
        appended: vec![
            Rule::when(vec![Match::Mark { value: 0x10000, mask: 0x10000 }], Action::Accept)
                .comment("Policy explicitly accepted packet."),
            Rule::always(Action::SetMark(0x10000)),
        ],
    };
    let rendered = super::hook(&hook, Features::default());
    let appended: Vec<_> = rendered.appended.iter().map(|r| r.id.to_string()).collect();
    assert_eq!(appended, ["S93hcgKJrXEqnTfs", "mp77cMpurHhyjLrM"]);
    assert_eq!(rendered.inserted[0].id.as_str(), "wUHhoiAYhphO9Mso");
}

#[test]
fn an_id_depends_on_the_rules_before_it() {
    let list = |actions: &[Action]| actions.iter().cloned().map(Rule::always).collect::<Vec<_>>();
    assert_eq!(
        ids("FORWARD", &list(&[Action::Drop, Action::Accept, Action::Drop, Action::Accept])),
        ["hecdSCslEjdBPBPo", "plvr29-ZiKUwbzDV", "BMJ7gfua-eMLZ8Gu", "rmnR1gc8haxMy_0W"]
    );
    assert_eq!(
        ids("cali-foobar", &list(&[Action::Accept, Action::Drop, Action::Return])),
        ["42h7Q64_2XDzpwKe", "0sUFHicPNNqNyNx8", "yilSOZ62PxMhMnS9"]
    );
}

#[test]
fn nat_outgoing_is_the_rule_that_every_user_of_calico_knows() {
    let set = |name: &str, side, negate| Match::Set { name: name.into(), side, key: SetKey::Address, negate };
    let rule = Rule::when(
        vec![
            set("cali40masq-ipam-pools", Side::Source, false),
            set("cali40all-ipam-pools", Side::Destination, true),
        ],
        Action::Masquerade { ports: None },
    );
    let rendered = rules("cali-nat-outgoing", &[rule], Features::default());
    assert_eq!(
        rendered[0].text,
        "-m comment --comment \"cali:flqWnvo8yq4ULQLa\" -m set --match-set cali40masq-ipam-pools src \
         -m set ! --match-set cali40all-ipam-pools dst --jump MASQUERADE --random-fully"
    );
}

#[test]
fn a_comment_cannot_leave_its_quotes() {
    let rule = Rule::always(Action::Drop).comment("a\" -j ACCEPT\n\u{e9}");
    assert!(
        rules("c", &[rule], Features::default())[0].text.contains("--comment \"a_ -j ACCEPT__\" --jump DROP")
    );
    let long = Rule::always(Action::Drop).comment("x".repeat(300));
    let text = rules("c", &[long], Features::default())[0].text.clone();
    assert!(text.contains(&format!("\"{}\"", "x".repeat(256))), "{text}");
}
