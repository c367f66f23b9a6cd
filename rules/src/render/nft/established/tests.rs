//! What happens to packets of connections, by running the rules.

use super::*;
use crate::compile::MarkUses;

const MASK: Bits = 0x0ff0_0f00;
/// A bit of connections' marks that is somebody else's.
const FOREIGN: Bits = 0x8000_0001;

fn revocation() -> Revocation {
    let uses = MarkUses { revocation: true, ..MarkUses::default() };
    Revocation::new(&Marks::with(MASK, uses).expect("bits enough")).expect("a bit for it")
}

/// A packet and its connection.
#[derive(Clone, Copy, Debug)]
struct Packet {
    state: Bits,
    is_reply: bool,
    status: Bits,
    mark: Bits,
    /// Of the connection; none without one.
    conn: Option<Bits>,
    interface: &'static str,
}

const AROUND: Surroundings = Surroundings { is_ipvs: false, is_asked_early: true };

const NEW: Bits = 8;
const INVALID: Bits = 1;

fn packet(conn: u32) -> Packet {
    let conn = Some(revocation().value(conn) | FOREIGN);
    Packet { state: STATE_ESTABLISHED, is_reply: false, status: 0, mark: 0, conn, interface: "eth0" }
}

/// Runs the chains of a hook; `false` if the packet is dropped.
fn run(chains: &[Content], name: &str, packet: &mut Packet) -> bool {
    run_chain(chains, name, packet) != Some(Verdict::Drop)
}

/// What ends the hook, if it is this chain.
fn run_chain(chains: &[Content], name: &str, packet: &mut Packet) -> Option<Verdict> {
    let content = chains.iter().find(|content| content.chain.name == name).expect("a chain");
    for rule in &content.rules {
        let end = match run_rule(&rule.expressions, packet) {
            Some(Verdict::Return) => return None,
            Some(Verdict::Jump(to)) => run_chain(chains, &to, packet),
            end => end,
        };
        if end.is_some() {
            return end;
        }
    }
    None
}

/// One register is enough for these rules.
fn run_rule(expressions: &[Expression], packet: &mut Packet) -> Option<Verdict> {
    let mut register: Vec<u8> = Vec::new();
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
    for expression in expressions {
        match expression {
            Expression::Meta { key: MetaKey::Mark, .. } => register = packet.mark.to_ne_bytes().into(),
            Expression::Meta { key: MetaKey::InInterface | MetaKey::OutInterface, .. } => {
                register = Data::interface(packet.interface).as_bytes().into();
            }
            Expression::SetMeta { key: MetaKey::Mark, .. } => packet.mark = word(&register),
            Expression::Conntrack { key, .. } => {
                register = match key {
                    ConntrackKey::State => packet.state.to_ne_bytes().into(),
                    ConntrackKey::Status => packet.conn.map(|_| packet.status)?.to_ne_bytes().into(),
                    ConntrackKey::Mark => packet.conn?.to_ne_bytes().into(),
                    ConntrackKey::Direction => packet.conn.map(|_| vec![packet.is_reply.into()])?,
                    other => panic!("{other:?}"),
                };
            }
            Expression::SetConntrack { key: ConntrackKey::Mark, .. } => {
                packet.conn = packet.conn.map(|_| word(&register));
            }
            Expression::Bitwise { mask, xor, .. } => {
                let (mask, xor) = (mask.as_bytes(), xor.as_bytes());
                register = register.iter().zip(mask).zip(xor).map(|((byte, m), x)| byte & m ^ x).collect();
            }
            Expression::Compare { comparison, value, .. } => {
                let is_equal = &register[..value.len()] == value.as_bytes();
                if is_equal != (*comparison == Comparison::Equal) {
                    return None;
                }
            }
            Expression::Counter => {}
            Expression::Verdict(verdict) => return Some(verdict.clone()),
            other => panic!("{other:?}"),
        }
    }
    None
}

/// What becomes of a packet that is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Policy is not asked.
    Known,
    /// Policy was asked and allowed it.
    Allowed,
    /// Policy was asked and denied it.
    Denied,
    /// Dropped without asking policy.
    Dropped,
}

/// Sends a packet through; the connection's number afterwards.
fn forward(generation: Generation, is_allowed: bool, mut packet: Packet) -> (Fate, Option<u32>) {
    let of = revocation();
    let chains = of.chains(generation, AROUND);
    let number = |packet: &Packet| {
        packet.conn.inspect(|conn| assert_eq!(conn & !MASK, FOREIGN)).map(|conn| gather(conn, MASK))
    };
    for hook in ["prerouting", "forward"] {
        // What others leave in the packet's mark between hooks counts for nothing.
        packet.mark ^= of.known;
        if !run(&chains, &format!("{PREFIX}{hook}"), &mut packet) {
            return (Fate::Dropped, number(&packet));
        }
    }
    let is_known = packet.mark & of.known != 0;
    if !is_known && !is_allowed {
        return (Fate::Denied, number(&packet));
    }
    if !is_known {
        packet.mark &= !of.known;
    }
    assert!(run(&chains, &format!("{PREFIX}end-postrouting"), &mut packet));
    (if is_known { Fate::Known } else { Fate::Allowed }, number(&packet))
}

const EVEN: Generation = Generation(FIRST);
const ODD: Generation = Generation(FIRST + 1);

#[test]
fn a_connection_that_policy_still_allows_is_asked_about_once() {
    for mark in [0, PENDING[0], PENDING[1], REVOKED[0], REVOKED[1], ODD.0, ODD.0 + 1] {
        assert_eq!(forward(EVEN, true, packet(mark)), (Fate::Allowed, Some(EVEN.0)), "{mark}");
    }
    assert_eq!(forward(EVEN, true, packet(EVEN.0)), (Fate::Known, Some(EVEN.0)));
}

#[test]
fn a_connection_that_policy_denies_ends_in_one_direction_and_then_in_the_other() {
    let reply = |mark| forward(ODD, false, Packet { is_reply: true, ..packet(mark) });
    let mut mark = EVEN.0;
    for wanted in [PENDING[1], REVOKED[1], REVOKED[1]] {
        assert_eq!(reply(mark), (Fate::Known, Some(mark)));
        let (fate, Some(next)) = forward(ODD, false, packet(mark)) else { panic!("a connection") };
        assert_eq!((fate, next), (Fate::Denied, wanted));
        if next == REVOKED[1] {
            assert_eq!(reply(next), (Fate::Dropped, Some(next)));
            break;
        }
        mark = next;
    }
    // Another change does not open it; a packet that policy allows does.
    let later = Generation(ODD.0 + 1);
    let reply = |mark| forward(later, false, Packet { is_reply: true, ..packet(mark) });
    assert_eq!(reply(REVOKED[1]), (Fate::Dropped, Some(REVOKED[1])));
    assert_eq!(forward(later, false, packet(REVOKED[1])), (Fate::Denied, Some(REVOKED[0])));
    assert_eq!(forward(later, true, packet(REVOKED[0])), (Fate::Allowed, Some(later.0)));
    assert_eq!(reply(later.0), (Fate::Known, Some(later.0)));
}

#[test]
fn what_was_judged_before_a_change_does_not_become_known_after_it() {
    for stale in [PENDING[0], REVOKED[0]] {
        let mut late = packet(stale);
        let chains = revocation().chains(ODD, AROUND);
        assert!(run(&chains, &format!("{PREFIX}end-postrouting"), &mut late));
        assert_eq!(late.conn.map(|conn| gather(conn, MASK)), Some(stale));
    }
    // And the first packet after the change is the first.
    assert_eq!(forward(ODD, false, packet(PENDING[0])), (Fate::Denied, Some(PENDING[1])));
}

#[test]
fn errors_and_expected_connections_are_as_known_as_ever_and_errors_change_nothing() {
    for mark in [0, EVEN.0, ODD.0, PENDING[0], REVOKED[0], REVOKED[1]] {
        for is_reply in [false, true] {
            let error = Packet { state: STATE_RELATED, is_reply, ..packet(mark) };
            assert_eq!(forward(EVEN, false, error), (Fate::Known, Some(mark)), "{error:?}");
            let expected = Packet { status: STATUS_EXPECTED, is_reply, ..packet(mark) };
            assert_eq!(forward(EVEN, false, expected).0, Fate::Known, "{expected:?}");
        }
    }
}

#[test]
fn a_new_connection_is_judged_and_then_known() {
    let new = |mark| Packet { state: NEW, ..packet(mark) };
    assert_eq!(forward(EVEN, true, new(0)), (Fate::Allowed, Some(EVEN.0)));
    assert_eq!(forward(EVEN, false, new(0)).0, Fate::Denied);
    // Not answered yet, each of its packets is judged, as without all this.
    assert_eq!(forward(EVEN, false, new(EVEN.0)), (Fate::Denied, Some(EVEN.0)));
    assert_eq!(forward(EVEN, true, new(EVEN.0)), (Fate::Allowed, Some(EVEN.0)));
}

#[test]
fn what_belongs_to_no_connection_is_judged() {
    for state in [INVALID, 64] {
        let none = Packet { state, conn: None, ..packet(0) };
        assert_eq!(forward(EVEN, true, none), (Fate::Allowed, None));
        assert_eq!(forward(EVEN, false, none), (Fate::Denied, None));
    }
}

#[test]
fn what_goes_round_through_the_loopback_device_is_known_after_the_second_judgement() {
    let chains = revocation().chains(ODD, AROUND);
    let hook = |name: &str, packet: &mut Packet| assert!(run(&chains, &format!("{PREFIX}{name}"), packet));
    let mut packet = Packet { interface: "lo", ..packet(EVEN.0) };
    for name in ["output", "end-postrouting", "prerouting", "input"] {
        hook(name, &mut packet);
        assert_eq!(packet.mark & revocation().known, 0, "{name}");
    }
    assert_eq!(packet.conn, Some(revocation().value(PENDING[1]) | FOREIGN));
    hook("end-input", &mut packet);
    assert_eq!(packet.conn, Some(revocation().value(ODD.0) | FOREIGN));
}

#[test]
fn what_ipvs_sends_on_is_judged_once_and_known_behind_its_way_out() {
    let of = revocation();
    let chains = of.chains(ODD, Surroundings { is_ipvs: true, ..AROUND });
    let hook = |name: &str, packet: &mut Packet| assert!(run(&chains, &format!("{PREFIX}{name}"), packet));
    let mut packet = packet(EVEN.0);
    ["prerouting", "input"].iter().for_each(|name| hook(name, &mut packet));
    packet.mark |= of.endpoint;
    ["end-input", "output"].iter().for_each(|name| hook(name, &mut packet));
    assert_eq!((packet.mark & of.known, packet.conn), (0, Some(of.value(PENDING[1]) | FOREIGN)));
    hook("end-postrouting", &mut packet);
    assert_eq!(packet.conn, Some(of.value(ODD.0) | FOREIGN));
}

#[test]
fn the_generation_is_read_from_the_rules_and_from_no_others() {
    let of = revocation();
    let rules = |generation| of.chains(generation, AROUND).swap_remove(0).rules;
    for generation in [EVEN, ODD, Generation(0x555), Generation(0xfff)] {
        assert_eq!(of.read(&rules(generation)), Some(generation));
    }
    let mut other = rules(EVEN);
    other.pop();
    assert_eq!((of.read(&other), of.read(&[])), (None, None));
    let wider = Revocation { mask: MASK | 0x1000_0000, ..of };
    assert_eq!(wider.read(&rules(EVEN)), None);
}

#[test]
fn numbers_go_round_and_each_half_is_made_free_before_it_is_used_again() {
    let of = Revocation { known: 1, mask: 0b11_1111, endpoint: 0 };
    let mut generation = of.first();
    let mut seen = vec![generation];
    let mut freed = Vec::new();
    loop {
        let next = of.next(generation);
        assert_ne!(parity(generation), parity(next), "{generation:?}");
        if let Some(filter) = of.reused(next) {
            assert_ne!(of.value(generation.0) & filter.mask, filter.value, "{generation:?} is in force");
            freed.push((next.0, filter.value, filter.mask));
        }
        if next == of.first() {
            break;
        }
        seen.push(next);
        generation = next;
    }
    assert_eq!(freed, [(32, 32, 32), (FIRST, 0, 32)]);
    assert_eq!(seen.len(), 64 - FIRST as usize);
    assert!(seen.iter().all(|generation| of.is_generation(of.value(generation.0) | !of.mask)));
    let special = [0].into_iter().chain(PENDING).chain(REVOKED);
    assert!(special.map(|number| of.value(number)).all(|mark| !of.is_generation(mark)));
}

#[test]
fn without_a_bit_there_is_none() {
    assert_eq!(Revocation::new(&Marks::default()), None);
}
