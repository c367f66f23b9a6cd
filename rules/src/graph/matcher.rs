//! Selectors over labels whose keys are numbers.

use tortie_api::selector::Expr;

use super::intern::{Interner, KeyId};

/// A selector expression, ready to be evaluated.
#[derive(Debug)]
pub(crate) enum Matcher {
    True,
    Has(KeyId),
    Equals(KeyId, Box<str>),
    /// Sorted.
    In(KeyId, Box<[Box<str>]>),
    Text(KeyId, TextTest, Box<str>),
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
    /// Prepares an expression. Its keys are to be acquired.
    pub(crate) fn new(expr: &Expr, keys: &mut Interner) -> Self {
        let list = |keys: &mut Interner, exprs: &[Expr]| exprs.iter().map(|e| Self::new(e, keys)).collect();
        match expr {
            Expr::All | Expr::Global => Self::True,
            Expr::Has(k) => Self::Has(keys.intern(k)),
            Expr::Eq(k, v) => Self::Equals(keys.intern(k), (**v).into()),
            Expr::NotEq(k, v) => Self::Equals(keys.intern(k), (**v).into()).negated(),
            Expr::In(k, values) => Self::In(keys.intern(k), values.iter().map(|v| (**v).into()).collect()),
            Expr::NotIn(k, values) => {
                Self::In(keys.intern(k), values.iter().map(|v| (**v).into()).collect()).negated()
            }
            Expr::Contains(k, v) => Self::Text(keys.intern(k), TextTest::Contains, (**v).into()),
            Expr::StartsWith(k, v) => Self::Text(keys.intern(k), TextTest::StartsWith, (**v).into()),
            Expr::EndsWith(k, v) => Self::Text(keys.intern(k), TextTest::EndsWith, (**v).into()),
            Expr::Not(inner) => Self::new(inner, keys).negated(),
            Expr::And(exprs) => Self::And(list(keys, exprs)),
            Expr::Or(exprs) => Self::Or(list(keys, exprs)),
        }
    }

    fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Whether labels match; `label` gives the value of a key.
    pub(crate) fn matches<'a>(&self, label: &dyn Fn(KeyId) -> Option<&'a [u8]>) -> bool {
        match self {
            Self::True => true,
            Self::Has(k) => label(*k).is_some(),
            Self::Equals(k, v) => label(*k).is_some_and(|value| value == v.as_bytes()),
            Self::In(k, values) => {
                label(*k).is_some_and(|value| values.binary_search_by(|v| v.as_bytes().cmp(value)).is_ok())
            }
            Self::Text(k, test, text) => {
                // Values are texts: what was cut out of a list of them is one as well.
                label(*k).and_then(|value| std::str::from_utf8(value).ok()).is_some_and(|value| match test {
                    TextTest::Contains => value.contains(&**text),
                    TextTest::StartsWith => value.starts_with(&**text),
                    TextTest::EndsWith => value.ends_with(&**text),
                })
            }
            Self::Not(inner) => !inner.matches(label),
            Self::And(all) => all.iter().all(|m| m.matches(label)),
            Self::Or(any) => any.iter().any(|m| m.matches(label)),
        }
    }

    /// Calls `visit` with every key, as often as it occurs.
    pub(crate) fn keys(&self, visit: &mut dyn FnMut(KeyId)) {
        match self {
            Self::True => {}
            Self::Has(k) | Self::Equals(k, _) | Self::In(k, _) | Self::Text(k, ..) => visit(*k),
            Self::Not(inner) => inner.keys(visit),
            Self::And(list) | Self::Or(list) => list.iter().for_each(|m| m.keys(visit)),
        }
    }

    /// Labels of which everything that matches has one: `None` in place of the values for any value.
    ///
    /// What must hold in every branch of an `||` is found only where the branches ask for the same key.
    pub(crate) fn demands(&self) -> Vec<Demand<'_>> {
        match self {
            Self::Has(key) | Self::Text(key, ..) => vec![Demand { key: *key, values: None }],
            Self::Equals(key, value) => {
                vec![Demand { key: *key, values: Some(vec![value]) }]
            }
            Self::In(key, values) => {
                vec![Demand { key: *key, values: Some(values.iter().map(|v| &**v).collect()) }]
            }
            Self::And(all) => all.iter().flat_map(Self::demands).collect(),
            Self::Or(any) => {
                let mut branches = any.iter().map(Self::demands);
                let first = branches.next().unwrap_or_default();
                branches.fold(first, |known, branch| {
                    known.into_iter().filter_map(|demand| demand.or_one_of(&branch)).collect()
                })
            }
            Self::True | Self::Not(_) => Vec::new(),
        }
    }
}

/// A label that must be there.
#[derive(Debug)]
pub(crate) struct Demand<'a> {
    pub(crate) key: KeyId,
    /// With one of these values.
    pub(crate) values: Option<Vec<&'a str>>,
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
