//! Properties of the selector language, over random expressions, spellings and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::{Expr, Selector};

/// Few labels and values, so that random tests and random labels meet.
const LABELS: [&str; 5] = ["a", "b", "in", "all", "x.io/y-z_1"];
const VALUES: [&str; 8] = ["", "v", "vw", "wv", "v && w", "it's", "\"v\"", "{v}, ü"];

fn label() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(&LABELS[..]).prop_map(Arc::from)
}

fn value() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(&VALUES[..]).prop_map(Arc::from)
}

fn values() -> impl Strategy<Value = BTreeSet<Arc<str>>> {
    btree_set(value(), 0..3)
}

fn label_test() -> impl Strategy<Value = Expr> {
    prop_oneof![
        Just(Expr::All),
        Just(Expr::Global),
        label().prop_map(Expr::Has),
        (label(), value()).prop_map(|(k, v)| Expr::Eq(k, v)),
        (label(), value()).prop_map(|(k, v)| Expr::NotEq(k, v)),
        (label(), value()).prop_map(|(k, v)| Expr::Contains(k, v)),
        (label(), value()).prop_map(|(k, v)| Expr::StartsWith(k, v)),
        (label(), value()).prop_map(|(k, v)| Expr::EndsWith(k, v)),
        (label(), values()).prop_map(|(k, set)| Expr::In(k, set)),
        (label(), values()).prop_map(|(k, set)| Expr::NotIn(k, set)),
    ]
}

/// Expressions as they come from a parser: `And` and `Or` have two operands or more.
fn expr() -> impl Strategy<Value = Expr> {
    label_test().prop_recursive(5, 32, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|x| Expr::Not(Box::new(x))),
            vec(inner.clone(), 2..4).prop_map(Expr::And),
            vec(inner, 2..4).prop_map(Expr::Or),
        ]
    })
}

fn label_map() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop::sample::select(&LABELS[..]).prop_map(str::to_owned);
    let value = prop::sample::select(&VALUES[..]).prop_map(str::to_owned);
    btree_map(key, value, 0..4)
}

/// Writes an expression with the freedom that the grammar leaves; each choice consumes a number.
struct Speller<'a> {
    choices: std::iter::Cycle<std::slice::Iter<'a, u8>>,
}

impl Speller<'_> {
    fn choose<'t>(&mut self, among: &[&'t str]) -> &'t str {
        let n = self.choices.next().map_or(0, |n| usize::from(*n));
        among[n % among.len()]
    }

    fn blank(&mut self) -> &'static str {
        self.choose(&["", " ", "\t", "  "])
    }

    fn gap(&mut self) -> &'static str {
        self.choose(&[" ", "\t", " \t "])
    }

    fn quoted(&mut self, value: &str) -> String {
        let quote = match (value.contains('"'), value.contains('\'')) {
            (true, _) => "'",
            (_, true) => "\"",
            _ => self.choose(&["'", "\""]),
        };
        format!("{}{quote}{value}{quote}", self.blank())
    }

    fn set(&mut self, values: &BTreeSet<Arc<str>>) -> String {
        let mut items: Vec<String> = values.iter().map(|v| self.quoted(v) + self.blank()).collect();
        items.reverse();
        let comma = if items.is_empty() { "" } else { self.choose(&["", ","]) };
        format!("{}{{{}{comma}{}}}", self.blank(), items.join(","), self.blank())
    }

    fn spell(&mut self, expr: &Expr) -> String {
        let text = match expr {
            Expr::All => format!("all({})", self.blank()),
            Expr::Global => format!("global({})", self.blank()),
            Expr::Has(k) => format!("has({}{k}{})", self.blank(), self.blank()),
            Expr::Eq(k, v) => format!("{k}{}=={}", self.blank(), self.quoted(v)),
            Expr::NotEq(k, v) => format!("{k}{}!={}", self.blank(), self.quoted(v)),
            Expr::Contains(k, v) => format!("{k}{}contains{}", self.gap(), self.quoted(v)),
            Expr::StartsWith(k, v) => {
                format!("{k}{}starts{}with{}", self.gap(), self.blank(), self.quoted(v))
            }
            Expr::EndsWith(k, v) => format!("{k}{}ends{}with{}", self.gap(), self.blank(), self.quoted(v)),
            Expr::In(k, set) => format!("{k}{}in{}", self.gap(), self.set(set)),
            Expr::NotIn(k, set) => format!("{k}{}not{}in{}", self.gap(), self.blank(), self.set(set)),
            // Parentheses, since a row of `!` would count by parity.
            Expr::Not(x) => format!("{}({})", self.choose(&["!", " ! ! !"]), self.spell(x)),
            Expr::And(xs) => self.joined(xs, "&&", |x| matches!(x, Expr::And(_) | Expr::Or(_))),
            Expr::Or(xs) => self.joined(xs, "||", |x| matches!(x, Expr::Or(_))),
        };
        match self.choose(&["", "", "", "("]) {
            "(" => format!("{}({text}{}){}", self.blank(), self.blank(), self.blank()),
            _ => format!("{}{text}{}", self.blank(), self.blank()),
        }
    }

    fn joined(&mut self, operands: &[Expr], connective: &str, enclose: fn(&Expr) -> bool) -> String {
        let operands: Vec<String> = operands
            .iter()
            .map(|x| if enclose(x) { format!("({})", self.spell(x)) } else { self.spell(x) })
            .collect();
        operands.join(connective)
    }
}

/// The expression as its canonical text reads: `!!x` is `x` there.
fn without_double_negation(expr: &Expr) -> Expr {
    match expr {
        Expr::Not(x) => match without_double_negation(x) {
            Expr::Not(y) => *y,
            y => Expr::Not(Box::new(y)),
        },
        Expr::And(xs) => Expr::And(xs.iter().map(without_double_negation).collect()),
        Expr::Or(xs) => Expr::Or(xs.iter().map(without_double_negation).collect()),
        test => test.clone(),
    }
}

/// Calico's own way to the clause: replacement in the canonical text.
fn namespace_clause_by_text(selector: &Selector) -> Selector {
    let prefixed = selector.expr().prefix_labels("pcns.").to_string();
    let replaced = prefixed
        .replace("all()", "has(projectcalico.org/namespace)")
        .replace("global()", "!has(projectcalico.org/namespace)");
    Selector::parse(&replaced).expect("the replaced text parses")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn every_spelling_parses_to_the_expression_that_was_spelt(
        expr in expr(), choices in vec(any::<u8>(), 1..64),
    ) {
        let text = Speller { choices: choices.iter().cycle() }.spell(&expr);
        let selector = Selector::parse(&text).map_err(|e| TestCaseError::fail(format!("{text:?}: {e}")))?;
        prop_assert_eq!(selector.expr(), &expr, "{:?}", text);
        prop_assert_eq!(selector.source(), text);
    }

    #[test]
    fn canonical_text_parses_to_the_same_but_for_double_negation(expr in expr(), labels in label_map()) {
        let reparsed = Selector::parse(&expr.to_string()).expect("canonical text parses");
        prop_assert_eq!(reparsed.expr(), &without_double_negation(&expr));
        prop_assert_eq!(reparsed.matches(&labels), expr.matches(&labels));
        let again = Selector::parse(reparsed.canonical()).expect("canonical text parses");
        prop_assert_eq!(again.canonical(), reparsed.canonical());
        prop_assert_eq!(again.source(), again.canonical());
        prop_assert_eq!(again.id(), reparsed.id());
    }

    #[test]
    fn code_made_expressions_become_selectors_with_the_same_verdicts(expr in expr(), labels in label_map()) {
        let selector = Selector::from_expr(&expr).expect("the expression has a text");
        prop_assert_eq!(selector.matches(&labels), expr.matches(&labels));
        prop_assert_eq!(selector.expr(), &without_double_negation(&expr));
    }

    #[test]
    fn restrictions_hold_for_all_that_is_selected(expr in expr(), labels in label_map()) {
        let restrictions = expr.restrictions();
        for (label, restriction) in &restrictions {
            prop_assert!(restriction.values.is_none() || restriction.present);
            if expr.matches(&labels) {
                let value = labels.get(&**label).map(String::as_str);
                prop_assert!(restriction.allows(value), "{} is {:?}: {:?}", label, value, restriction);
                prop_assert!(!restriction.is_impossible());
            }
        }
    }

    #[test]
    fn namespace_clauses_are_those_of_replacing_text(expr in expr()) {
        let selector = Selector::from_expr(&expr).expect("the expression has a text");
        let clause = selector.namespace_clause().expect("the labels are short");
        prop_assert_eq!(clause, namespace_clause_by_text(&selector));
    }

    #[test]
    fn selectors_joined_as_text_hold_when_both_do(a in expr(), b in expr(), labels in label_map()) {
        let joined = Selector::parse(&format!("({a}) && ({b})")).expect("joined texts parse");
        prop_assert_eq!(joined.matches(&labels), a.matches(&labels) && b.matches(&labels));
    }

    #[test]
    fn any_text_is_parsed_or_refused_at_a_column_within_it(
        text in "([ab'\"(){},!&|= \t\nü]|in |not|has\\(|all\\(|global\\(\\)|== 'v'|&&|\\|\\|){0,24}",
    ) {
        match Selector::parse(&text) {
            Ok(selector) => {
                let reparsed = Selector::parse(selector.canonical()).expect("canonical text parses");
                prop_assert_eq!(reparsed.expr(), &without_double_negation(selector.expr()));
            }
            Err(error) => {
                let column = error.column().expect("a fault in a text has a column");
                prop_assert!((1..=text.chars().count() + 1).contains(&column), "{:?}: {}", text, error);
            }
        }
    }
}

fn restrictions(text: &str) -> Vec<String> {
    let describe = |(label, r): (Arc<str>, super::Restriction)| {
        let state = match (r.present, r.absent) {
            (true, true) => "impossible",
            (true, false) => "present",
            (false, true) => "absent",
            (false, false) => "free",
        };
        let values = r.values.map(|v| format!(" in {v:?}")).unwrap_or_default();
        format!("{label} {state}{values}")
    };
    Selector::parse(text).unwrap().expr().restrictions().into_iter().map(describe).collect()
}

#[test]
fn restrictions_say_what_the_index_needs() {
    let cases: [(&str, &[&str]); 20] = [
        ("a == 'v'", &["a present in {\"v\"}"]),
        ("a in {'v', 'w'}", &["a present in {\"v\", \"w\"}"]),
        ("a in {}", &["a present in {}"]),
        ("has(a)", &["a present"]),
        ("a contains 'v'", &["a present"]),
        ("a starts with 'v'", &["a present"]),
        ("a ends with 'v'", &["a present"]),
        ("!has(a)", &["a absent"]),
        ("a != 'v'", &[]),
        ("a not in {'v'}", &[]),
        ("!a == 'v'", &[]),
        ("all()", &[]),
        ("global()", &[]),
        ("a in {'v', 'w'} && a in {'w', 'x'} && has(b)", &["a present in {\"w\"}", "b present"]),
        ("has(a) && a == 'v'", &["a present in {\"v\"}"]),
        ("has(a) && !has(a)", &["a impossible"]),
        ("a == 'v' || a == 'w'", &["a present in {\"v\", \"w\"}"]),
        ("a == 'v' || has(a)", &["a present"]),
        ("a == 'v' && has(b) || a == 'w' && !has(b)", &["a present in {\"v\", \"w\"}"]),
        ("a == 'v' || all()", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(restrictions(text), expected, "restrictions of {text}");
    }
}
