//! Connections that are established and policy that has changed since: the chains that tell whether policy is asked
//! again (`NftablesInstantRevocation`).
//!
//! A connection that policy has accepted carries the number of the generation of policy in its mark. A change of policy
//! begins a new generation: from then on each connection is judged once more, by its next packet from who began it.
//!
//! ```text
//!   forward input output  cali-conn-known     what is known gets a bit of the packet's mark, which our rules ask for
//!   (prerouting)                              where they would ask for "established"
//!                         cali-conn-judge     what is not known begins to be judged: "pending", or "revoked"
//!     ... our rules ...                       what they drop stays so
//!   postrouting, input    cali-conn-passed    what came through is known from now on
//! ```
//!
//! ```text
//!   packet's mark         0x00200000          known; told anew at each hook, so that others may write the mark between
//!   connection's mark     0xffff0000          a number, all bits of the mask; bits of others stay
//! ```
//!
//! | mark of the connection | its packets, from who began it | answers |
//! |---|---|---|
//! | this generation | known | known |
//! | none, an earlier generation | judged; the mark becomes *pending* | known |
//! | pending | judged; the mark becomes *revoked* | known |
//! | revoked | judged | dropped |
//!
//! Policy of the table `mangle` is asked before its packet is judged here, or behind; what it denies is marked as revoked
//! where it is dropped. In `filter` most is dropped by verdicts of maps, which cannot mark anything.
//!
//! What is judged and comes through gets this generation. So a connection that policy still allows loses no packet, one
//! that it denies ends with its next packet in one direction and with the one after that in the other, and one that it
//! allows again goes on. Answers cannot be judged themselves: policy is about who began.
//!
//! A packet may be judged by the rules before a change and come through after it. So *pending* and *revoked* come in
//! two kinds, for even and odd generations, and only those of this generation become known. Errors by ICMP about a
//! connection, and connections that a helper of the kernel expects, are as known as without all this. What another
//! program of the node sends round through the loopback device is judged twice, and known after the second time.

use super::Content;
use super::actions::{set_connection_mark, set_mark};
use super::matches::{compare, interface, mark, only};
use crate::compile::{Marks, spread};
use crate::ruleset::Bits;
use crate::ruleset::nft::{
    Chain, ChainKind, Comparison, ConntrackKey, Data, Expression, Hook, MetaKey, Register, Rule, Verdict,
};

/// How the names of these chains begin.
pub const PREFIX: &str = "cali-conn-";
/// The chain that tells what is known. Its rules say which generation is in force.
pub const KNOWN: &str = "cali-conn-known";
/// The chain for those who ask early; not there without them.
pub const EARLY: &str = "cali-conn-prerouting";
/// How the names of the chains begin that ask early: policy of host endpoints before addresses are translated.
pub const ASK_EARLY: &str = "mangle-cali-fh-";
const JUDGE: &str = "cali-conn-judge";
const PASSED: &str = "cali-conn-passed";

const REG: Register = Register::FIRST;

/// Numbers in marks: pending and revoked, of even and odd generations.
const PENDING: [u32; 2] = [1, 2];
const REVOKED: [u32; 2] = [3, 4];
/// The first generation; even, as the last is odd.
const FIRST: u32 = 6;

/// Bits of `ct state`, `ct status` and values of `ct direction`.
const STATE_ESTABLISHED: Bits = 2;
const STATE_RELATED: Bits = 4;
const STATUS_EXPECTED: Bits = 1;
const ORIGINAL: u8 = 0;

/// Priorities: what is known is told before anything asks; what came through is noted behind all that may drop.
const BEFORE_MANGLE: i32 = -151;
const BEFORE_FILTER: i32 = -1;
const BEHIND_FILTER: i32 = 1;
const BEHIND_MANGLE: i32 = -149;

/// A generation of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

/// Marks of connections: those that have this value under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkFilter {
    /// The value.
    pub value: Bits,
    /// Bits looked at.
    pub mask: Bits,
}

/// What else is asked on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// kube-proxy uses IPVS on this node.
    pub is_ipvs: bool,
    /// There is policy before addresses are translated, which asks for what is known.
    pub is_asked_early: bool,
}

/// Which bits tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The bit of packets' marks that stands for a known connection.
    known: Bits,
    /// The bits of connections' marks that are ours.
    mask: Bits,
    /// The bits of packets' marks that say that IPVS sends them on.
    endpoint: Bits,
}

impl Revocation {
    /// With these marks. `None` if they have no bit for it.
    pub const fn new(marks: &Marks) -> Option<Self> {
        match marks.known {
            0 => None,
            known => Some(Self { known, mask: marks.mask(), endpoint: marks.endpoint }),
        }
    }

    /// The bits of connections' marks that are ours.
    pub const fn mask(&self) -> Bits {
        self.mask
    }

    /// The connection's mark by which answers are dropped, whatever the generation.
    pub fn revoked(&self) -> Bits {
        self.value(REVOKED[0])
    }

    /// The generation to begin with.
    pub const fn first(&self) -> Generation {
        Generation(FIRST)
    }

    /// The one behind.
    pub const fn next(&self, generation: Generation) -> Generation {
        let Generation(number) = generation;
        if number == self.half() - 1 + self.half() { Generation(FIRST) } else { Generation(number + 1) }
    }

    /// Generations are numbered again and again. The lower and the upper half of the numbers are made free as a whole,
    /// before the first of them is used: connections whose marks fit and that [`Revocation::is_generation`] belong to
    /// generations long gone. `None` if the number is within a half.
    pub fn reused(&self, generation: Generation) -> Option<MarkFilter> {
        let top = 1 << self.mask.ilog2();
        let Generation(number) = generation;
        let value = if number == FIRST { 0 } else { top };
        (number == FIRST || number == self.half()).then_some(MarkFilter { value, mask: top })
    }

    /// Whether a connection's mark is that of a generation.
    pub fn is_generation(&self, mark: Bits) -> bool {
        gather(mark, self.mask) >= FIRST
    }

    /// The lowest number of the upper half.
    const fn half(&self) -> u32 {
        1 << (self.mask.count_ones() - 1)
    }

    /// The chains for a generation.
    pub fn chains(&self, generation: Generation, around: Surroundings) -> Vec<Content> {
        let accept = || vec![verdict(Verdict::Accept)];
        let lo = |key| Some(rule(&[interface(key, "lo"), accept()], "Comes in again"));
        let sent_on = || {
            let marked = mark(self.endpoint, Comparison::NotEqual, 0);
            around.is_ipvs.then(|| rule(&[marked, accept()], "IPVS sends it on"))
        };
        let is_known = || Some(rule(&[mark(self.known, Comparison::NotEqual, 0), accept()], "Known"));
        let known = || Some(lead(KNOWN));
        let judge = || Some(lead(JUDGE));
        let passed = || Some(lead(PASSED));
        let lo_in = lo(MetaKey::InInterface);
        let lo_out = lo(MetaKey::OutInterface);
        let mut chains = vec![
            Content { chain: Chain::plain(KNOWN), rules: self.known(generation) },
            Content { chain: Chain::plain(JUDGE), rules: self.judge(generation) },
            Content { chain: Chain::plain(PASSED), rules: self.passed(generation) },
            at("forward", Hook::Forward, BEFORE_FILTER, [known(), judge(), None]),
            at("input", Hook::Input, BEFORE_FILTER, [known(), lo_in, judge()]),
            // What IPVS sends on has come by INPUT, where this was told.
            at("output", Hook::Output, BEFORE_FILTER, [sent_on(), known(), judge()]),
            at("end-input", Hook::Input, BEHIND_FILTER, [is_known(), sent_on(), passed()]),
            at("end-postrouting", Hook::Postrouting, BEHIND_MANGLE, [is_known(), lo_out, passed()]),
        ];
        if around.is_asked_early {
            chains.push(at("prerouting", Hook::Prerouting, BEFORE_MANGLE, [known(), None, None]));
        }
        chains
    }

    /// The generation of which these are the rules of [`KNOWN`]; `None` if they are others.
    pub fn read(&self, rules: &[Rule]) -> Option<Generation> {
        let value = rules.first()?.expressions.iter().find_map(|expression| match expression {
            Expression::Compare { value, .. } => Some(u32::from_ne_bytes(value.as_bytes().try_into().ok()?)),
            _ => None,
        })?;
        let generation = Generation(gather(value, self.mask));
        (generation.0 >= FIRST && self.known(generation) == rules).then_some(generation)
    }

    fn known(&self, generation: Generation) -> Vec<Rule> {
        let mut clear = Vec::new();
        set_mark(0, self.known, &mut clear);
        let mut known = Vec::new();
        set_mark(self.known, self.known, &mut known);
        let known_when = |when: &[Vec<Expression>], comment| {
            rule(&[&when.concat(), known.as_slice(), &[verdict(Verdict::Accept)]].map(<[_]>::to_vec), comment)
        };
        let revoked = |number| {
            let drop = vec![Expression::Counter, verdict(Verdict::Drop)];
            rule(&[self.is(number), drop], "Answer on a connection that policy denies")
        };
        let state = |bits, comparison| conntrack(ConntrackKey::State, bits, comparison);
        vec![
            // Most packets need no other rule.
            known_when(
                &[self.is(generation.0), state(STATE_ESTABLISHED | STATE_RELATED, Comparison::NotEqual)],
                "Came through since policy last changed",
            ),
            rule(&[clear], "Nothing is known of the packet"),
            rule(
                &[
                    state(STATE_ESTABLISHED | STATE_RELATED, Comparison::Equal),
                    vec![verdict(Verdict::Return)],
                ],
                "Begins a connection, or belongs to none",
            ),
            known_when(&[state(STATE_RELATED, Comparison::NotEqual)], "About a connection"),
            known_when(
                &[conntrack(ConntrackKey::Status, STATUS_EXPECTED, Comparison::NotEqual)],
                "Part of another connection",
            ),
            rule(&[direction(Comparison::Equal), vec![verdict(Verdict::Return)]], "Policy is asked again"),
            revoked(REVOKED[0]),
            revoked(REVOKED[1]),
            known_when(&[], "Answer"),
        ]
    }

    fn judge(&self, generation: Generation) -> Vec<Rule> {
        let at = parity(generation);
        let back = || vec![verdict(Verdict::Return)];
        vec![
            rule(&[self.is(generation.0), back()], "Came through since policy last changed"),
            rule(
                &[self.is(PENDING[at]), self.set(REVOKED[at]), back()],
                "The packet before did not come through: denied",
            ),
            rule(&[self.is(REVOKED[at]), back()], "Denied"),
            rule(&[self.is(REVOKED[1 - at]), self.set(REVOKED[at]), back()], "Denied before policy changed"),
            rule(&[self.set(PENDING[at])], "Judged for the first time since policy changed"),
        ]
    }

    fn passed(&self, generation: Generation) -> Vec<Rule> {
        let at = parity(generation);
        let passed = |number| vec![self.is(number), self.set(generation.0), vec![verdict(Verdict::Return)]];
        let related = conntrack(ConntrackKey::State, STATE_RELATED, Comparison::NotEqual);
        vec![
            rule(&[direction(Comparison::NotEqual), vec![verdict(Verdict::Return)]], "Answer"),
            rule(&[related, vec![verdict(Verdict::Return)]], "About a connection"),
            rule(&passed(PENDING[at]), "Came through"),
            rule(&passed(REVOKED[at]), "Came through after all"),
        ]
    }

    /// `ct mark & mask == number`; does not match what belongs to no connection.
    fn is(&self, number: u32) -> Vec<Expression> {
        let load = Expression::Conntrack { key: ConntrackKey::Mark, direction: None, to: REG };
        vec![load, only(self.mask), compare(Comparison::Equal, Data::host32(self.value(number)))]
    }

    /// `ct mark set ct mark & ~mask | number`.
    fn set(&self, number: u32) -> Vec<Expression> {
        let mut out = Vec::new();
        set_connection_mark(self.value(number), self.mask, &mut out);
        out
    }

    fn value(&self, number: u32) -> Bits {
        spread(number.into(), self.mask)
    }
}

/// Which kind of pending and revoked is this generation's.
const fn parity(generation: Generation) -> usize {
    (generation.0 & 1) as usize
}

/// The inverse of [`spread`].
fn gather(bits: Bits, mask: Bits) -> u32 {
    let places = (0..32).filter(|place| mask >> place & 1 != 0);
    places.enumerate().map(|(at, place)| (bits >> place & 1) << at).sum()
}

/// Some of these bits of what connection tracking knows, or with [`Comparison::Equal`] none of them.
fn conntrack(key: ConntrackKey, bits: Bits, comparison: Comparison) -> Vec<Expression> {
    let load = Expression::Conntrack { key, direction: None, to: REG };
    vec![load, only(bits), compare(comparison, Data::host32(0))]
}

/// Whether it comes from who began the connection.
fn direction(comparison: Comparison) -> Vec<Expression> {
    let load = Expression::Conntrack { key: ConntrackKey::Direction, direction: None, to: REG };
    vec![load, compare(comparison, Data::u8(ORIGINAL))]
}

fn rule(parts: &[Vec<Expression>], comment: &str) -> Rule {
    Rule { expressions: parts.concat(), comment: Some(comment.to_owned()) }
}

fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}

fn lead(chain: &str) -> Rule {
    Rule { expressions: vec![verdict(Verdict::Jump(chain.to_owned()))], comment: None }
}

fn at(name: &str, hook: Hook, priority: i32, rules: [Option<Rule>; 3]) -> Content {
    let chain = Chain::at_hook(format!("{PREFIX}{name}"), ChainKind::Filter, hook, priority);
    Content { chain, rules: rules.into_iter().flatten().collect() }
}

#[cfg(test)]
mod tests;
