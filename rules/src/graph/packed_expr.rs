//! Selector expressions in few bytes, over labels whose keys are numbers.
//!
//! ```text
//! expression = TEST | TEST key | TEST key text | LIST key count { text } | GROUP length { expression }
//! text       = length bytes
//! ```
//!
//! Equal expressions have equal bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tortie_api::selector::Expr;

use super::intern::{Interner, KeyId};
use super::labels::{push_number, take_number};

/// A selector expression.
#[derive(Debug, Default)]
pub(crate) struct PackedExpr(Box<[u8]>);

mod op {
    pub(super) const ALL: u8 = 0;
    pub(super) const GLOBAL: u8 = 1;
    pub(super) const HAS: u8 = 2;
    pub(super) const EQ: u8 = 3;
    pub(super) const NOT_EQ: u8 = 4;
    pub(super) const CONTAINS: u8 = 5;
    pub(super) const STARTS_WITH: u8 = 6;
    pub(super) const ENDS_WITH: u8 = 7;
    pub(super) const IN: u8 = 8;
    pub(super) const NOT_IN: u8 = 9;
    pub(super) const NOT: u8 = 10;
    pub(super) const AND: u8 = 11;
    pub(super) const OR: u8 = 12;
}

/// One expression, with what stands in it still packed.
enum Step<'a> {
    True(u8),
    Has(KeyId),
    /// Equality and tests that look into a value.
    Text(u8, KeyId, &'a [u8]),
    List(u8, KeyId, Texts<'a>),
    Group(u8, Steps<'a>),
}

/// Texts in a row.
#[derive(Clone)]
struct Texts<'a>(&'a [u8]);

/// Expressions in a row.
#[derive(Clone)]
struct Steps<'a>(&'a [u8]);

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_number(from)?;
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

fn take_key(from: &mut &[u8]) -> Option<KeyId> {
    Some(KeyId(u32::try_from(take_number(from)?).ok()?))
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        take_bytes(&mut self.0)
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let from = &mut self.0;
        let (op, rest) = from.split_first()?;
        *from = rest;
        Some(match *op {
            op::ALL | op::GLOBAL => Step::True(*op),
            op::HAS => Step::Has(take_key(from)?),
            op::EQ..=op::ENDS_WITH => Step::Text(*op, take_key(from)?, take_bytes(from)?),
            op::IN | op::NOT_IN => Step::List(*op, take_key(from)?, Texts(take_bytes(from)?)),
            op => Step::Group(op, Steps(take_bytes(from)?)),
        })
    }
}

/// Appends an expression. Its keys are to be acquired.
pub(crate) fn pack(to: &mut Vec<u8>, expr: &Expr, keys: &mut Interner) {
    let mut key = |to: &mut Vec<u8>, op: u8, key: &str| {
        to.push(op);
        push_number(to, keys.intern(key).0 as usize);
    };
    let text = |to: &mut Vec<u8>, text: &str| {
        push_number(to, text.len());
        to.extend_from_slice(text.as_bytes());
    };
    let (op, operands) = match expr {
        Expr::All => return to.push(op::ALL),
        Expr::Global => return to.push(op::GLOBAL),
        Expr::Has(k) => return key(to, op::HAS, k),
        Expr::Eq(k, v) => return (key(to, op::EQ, k), text(to, v)).1,
        Expr::NotEq(k, v) => return (key(to, op::NOT_EQ, k), text(to, v)).1,
        Expr::Contains(k, v) => return (key(to, op::CONTAINS, k), text(to, v)).1,
        Expr::StartsWith(k, v) => return (key(to, op::STARTS_WITH, k), text(to, v)).1,
        Expr::EndsWith(k, v) => return (key(to, op::ENDS_WITH, k), text(to, v)).1,
        Expr::In(k, values) | Expr::NotIn(k, values) => {
            key(to, if matches!(expr, Expr::In(..)) { op::IN } else { op::NOT_IN }, k);
            return group(to, |to| values.iter().for_each(|value| text(to, value)));
        }
        Expr::Not(inner) => (op::NOT, std::slice::from_ref(&**inner)),
        Expr::And(all) => (op::AND, &**all),
        Expr::Or(any) => (op::OR, &**any),
    };
    to.push(op);
    group(to, |to| operands.iter().for_each(|operand| pack(to, operand, keys)));
}

/// Appends what `write` does, behind its length.
fn group(to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    write(to);
    let mut length = Vec::new();
    push_number(&mut length, to.len() - start);
    to.splice(start..start, length);
}

impl std::borrow::Borrow<[u8]> for PackedExpr {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl PackedExpr {
    /// Of what [`pack`] made.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    fn step(&self) -> Step<'_> {
        Steps(&self.0).next().expect("an expression was packed")
    }

    /// Whether labels match; `label` gives the value of a key.
    pub(crate) fn matches<'l>(&self, label: &dyn Fn(KeyId) -> Option<&'l [u8]>) -> bool {
        matches(self.step(), label)
    }

    /// Calls `visit` with every key, as often as it occurs.
    pub(crate) fn keys(&self, visit: &mut dyn FnMut(KeyId)) {
        keys(self.step(), visit);
    }

    /// Labels of which everything that matches has one: `None` in place of the values for any value.
    ///
    /// What must hold in every branch of an `||` is found only where the branches ask for the same key.
    pub(crate) fn demands(&self) -> Vec<Demand<'_>> {
        demands(self.step())
    }

    /// The expression; `text` gives the text of a key.
    pub(crate) fn unpack(&self, text: &dyn Fn(KeyId) -> Arc<str>) -> Expr {
        unpack(self.step(), text)
    }
}

fn matches<'l>(step: Step<'_>, label: &dyn Fn(KeyId) -> Option<&'l [u8]>) -> bool {
    let holds = |key, test: &dyn Fn(&[u8]) -> bool| label(key).is_some_and(test);
    match step {
        Step::True(_) => true,
        Step::Has(key) => label(key).is_some(),
        Step::Text(op::EQ, key, text) => holds(key, &|value| value == text),
        Step::Text(op::NOT_EQ, key, text) => !holds(key, &|value| value == text),
        // Values and texts are valid UTF-8, in which no character has another's bytes in it.
        Step::Text(op::CONTAINS, key, text) => {
            holds(key, &|value| text.is_empty() || value.windows(text.len()).any(|part| part == text))
        }
        Step::Text(op::STARTS_WITH, key, text) => holds(key, &|value| value.starts_with(text)),
        Step::Text(_, key, text) => holds(key, &|value| value.ends_with(text)),
        Step::List(op, key, texts) => {
            holds(key, &|value| texts.clone().any(|text| text == value)) == (op == op::IN)
        }
        Step::Group(op::NOT, steps) => !steps.into_iter().any(|step| matches(step, label)),
        Step::Group(op::AND, mut steps) => steps.all(|step| matches(step, label)),
        Step::Group(_, mut steps) => steps.any(|step| matches(step, label)),
    }
}

fn keys(step: Step<'_>, visit: &mut dyn FnMut(KeyId)) {
    match step {
        Step::True(_) => {}
        Step::Has(key) | Step::Text(_, key, _) | Step::List(_, key, _) => visit(key),
        Step::Group(_, steps) => steps.for_each(|step| keys(step, visit)),
    }
}

fn demands(step: Step<'_>) -> Vec<Demand<'_>> {
    match step {
        Step::Text(op::EQ, key, text) => vec![Demand { key, values: Some(vec![text]) }],
        Step::Has(key) | Step::Text(op::CONTAINS..=op::ENDS_WITH, key, _) => {
            vec![Demand { key, values: None }]
        }
        Step::List(op::IN, key, texts) => vec![Demand { key, values: Some(texts.collect()) }],
        Step::Group(op::AND, steps) => steps.flat_map(demands).collect(),
        Step::Group(op::OR, steps) => {
            let mut branches = steps.map(demands);
            let first = branches.next().unwrap_or_default();
            branches.fold(first, |known, branch| {
                known.into_iter().filter_map(|demand| demand.or_one_of(&branch)).collect()
            })
        }
        Step::True(_) | Step::Text(..) | Step::List(..) | Step::Group(..) => Vec::new(),
    }
}

fn unpack(step: Step<'_>, key_text: &dyn Fn(KeyId) -> Arc<str>) -> Expr {
    let own = |bytes: &[u8]| -> Arc<str> { String::from_utf8_lossy(bytes).into() };
    let all = |steps: Steps<'_>| -> Vec<Expr> { steps.map(|step| unpack(step, key_text)).collect() };
    match step {
        Step::True(op::GLOBAL) => Expr::Global,
        Step::True(_) => Expr::All,
        Step::Has(key) => Expr::Has(key_text(key)),
        Step::Text(op::EQ, key, text) => Expr::Eq(key_text(key), own(text)),
        Step::Text(op::NOT_EQ, key, text) => Expr::NotEq(key_text(key), own(text)),
        Step::Text(op::CONTAINS, key, text) => Expr::Contains(key_text(key), own(text)),
        Step::Text(op::STARTS_WITH, key, text) => Expr::StartsWith(key_text(key), own(text)),
        Step::Text(_, key, text) => Expr::EndsWith(key_text(key), own(text)),
        Step::List(op, key, texts) => {
            let values: BTreeSet<Arc<str>> = texts.map(own).collect();
            if op == op::IN { Expr::In(key_text(key), values) } else { Expr::NotIn(key_text(key), values) }
        }
        Step::Group(op::NOT, mut steps) => {
            let inner = steps.next().expect("a negation has something to negate");
            Expr::Not(Box::new(unpack(inner, key_text)))
        }
        Step::Group(op::AND, steps) => Expr::And(all(steps)),
        Step::Group(_, steps) => Expr::Or(all(steps)),
    }
}

/// A label that must be there.
#[derive(Debug)]
pub(crate) struct Demand<'a> {
    pub(crate) key: KeyId,
    /// With one of these values.
    pub(crate) values: Option<Vec<&'a [u8]>>,
}

impl<'a> Demand<'a> {
    /// What is demanded if either this or one of the others is.
    fn or_one_of(mut self, others: &[Demand<'a>]) -> Option<Self> {
        let other = others.iter().find(|other| other.key == self.key)?;
        self.values = self.values.zip(other.values.as_ref()).map(|(mut mine, theirs)| {
            mine.extend(theirs);
            mine.sort_unstable();
            mine.dedup();
            mine
        });
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tortie_api::selector::Selector;

    use super::*;

    #[test]
    fn a_packed_expression_says_what_the_plain_one_says() {
        let texts = [
            "all()",
            "global()",
            "has(a)",
            "!has(a) && !(a == 'x' || b != 'y')",
            "a == ''",
            "a contains ''",
            "a contains 'x' || b starts with 'y' || b ends with 'z'",
            "a in {'x', 'xy'} && b not in {'y', 'z'}",
            "a in {} || !(b not in {})",
            "(a == 'x' || a in {'y', 'z'}) && (has(b) || b == 'x')",
        ];
        let values = ["", "x", "xy", "zxy", "yz"];
        let mut interner = Interner::default();
        for text in texts {
            let selector = Selector::parse(text).expect(text);
            let mut bytes = Vec::new();
            pack(&mut bytes, selector.expr(), &mut interner);
            let packed = PackedExpr::new(&bytes);
            let back = packed.unpack(&|key| interner.text(key).into());
            assert_eq!((&back, back.to_string().as_str()), (selector.expr(), selector.canonical()));
            for a in [None].into_iter().chain(values.map(Some)) {
                for b in [None].into_iter().chain(values.map(Some)) {
                    let labels: BTreeMap<String, String> = [("a", a), ("b", b)]
                        .into_iter()
                        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
                        .collect();
                    let of = |key| labels.get(interner.text(key)).map(String::as_bytes);
                    let wanted = selector.expr().matches(&labels);
                    assert_eq!(packed.matches(&of), wanted, "{text} for {a:?} and {b:?}");
                    // What matches has what is demanded.
                    for demand in packed.demands().iter().filter(|_| wanted) {
                        let value = of(demand.key).expect(text);
                        assert!(
                            demand.values.as_ref().is_none_or(|values| values.contains(&value)),
                            "{text}"
                        );
                    }
                }
            }
        }
    }
}
