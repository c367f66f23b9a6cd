//! Selectors over interned labels: a comparison of two labels is a comparison of two numbers.

use std::sync::Arc;

use tortie_api::selector::Expr;

use super::intern::{Interner, Symbol};

/// A selector expression, ready to be evaluated.
#[derive(Debug)]
pub(crate) enum Matcher {
    True,
    Has(Symbol),
    Equals(Symbol, Symbol),
    In(Symbol, Box<[Symbol]>),
    Text(Symbol, TextTest, Arc<str>),
    Not(Box<Matcher>),
    And(Box<[Matcher]>),
    Or(Box<[Matcher]>),
}

/// Tests that look into a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

impl Matcher {
    /// Prepares an expression.
    pub(crate) fn new(expr: &Expr, symbols: &mut Interner) -> Self {
        let list =
            |symbols: &mut Interner, exprs: &[Expr]| exprs.iter().map(|e| Self::new(e, symbols)).collect();
        match expr {
            Expr::All | Expr::Global => Self::True,
            Expr::Has(k) => Self::Has(symbols.intern(k)),
            Expr::Eq(k, v) => Self::Equals(symbols.intern(k), symbols.intern(v)),
            Expr::NotEq(k, v) => Self::Equals(symbols.intern(k), symbols.intern(v)).negated(),
            Expr::In(k, values) => Self::any_of(k, values, symbols),
            Expr::NotIn(k, values) => Self::any_of(k, values, symbols).negated(),
            Expr::Contains(k, v) => Self::Text(symbols.intern(k), TextTest::Contains, v.clone()),
            Expr::StartsWith(k, v) => Self::Text(symbols.intern(k), TextTest::StartsWith, v.clone()),
            Expr::EndsWith(k, v) => Self::Text(symbols.intern(k), TextTest::EndsWith, v.clone()),
            Expr::Not(inner) => Self::new(inner, symbols).negated(),
            Expr::And(exprs) => Self::And(list(symbols, exprs)),
            Expr::Or(exprs) => Self::Or(list(symbols, exprs)),
        }
    }

    fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    fn any_of<'a>(key: &str, values: impl IntoIterator<Item = &'a Arc<str>>, symbols: &mut Interner) -> Self {
        let key = symbols.intern(key);
        let mut values: Vec<Symbol> = values.into_iter().map(|v| symbols.intern(v)).collect();
        values.sort_unstable();
        Self::In(key, values.into())
    }

    /// Whether labels match; `label` gives the value of a key.
    pub(crate) fn matches(&self, label: &dyn Fn(Symbol) -> Option<Symbol>, symbols: &Interner) -> bool {
        match self {
            Self::True => true,
            Self::Has(k) => label(*k).is_some(),
            Self::Equals(k, v) => label(*k) == Some(*v),
            Self::In(k, values) => label(*k).is_some_and(|v| values.binary_search(&v).is_ok()),
            Self::Text(k, test, text) => label(*k).is_some_and(|v| {
                let value = symbols.text(v);
                match test {
                    TextTest::Contains => value.contains(&**text),
                    TextTest::StartsWith => value.starts_with(&**text),
                    TextTest::EndsWith => value.ends_with(&**text),
                }
            }),
            Self::Not(inner) => !inner.matches(label, symbols),
            Self::And(all) => all.iter().all(|m| m.matches(label, symbols)),
            Self::Or(any) => any.iter().any(|m| m.matches(label, symbols)),
        }
    }
}
