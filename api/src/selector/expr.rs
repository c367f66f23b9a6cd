//! The expression of a selector: evaluation, canonical text, rewriting.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::cursor::is_label_byte;
use super::{Labels, SelectorError};
use crate::labels::NAMESPACE_LABEL;

/// An expression over labels.
///
/// Where two fields stand, the first is the label, the second what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// `all()`: always true.
    All,
    /// `global()`: true, until [`super::Selector::namespace_clause`] gives it its meaning.
    Global,
    /// `has(k)`: the label is present.
    Has(Arc<str>),
    /// `k == "v"`: present and equal.
    Eq(Arc<str>, Arc<str>),
    /// `k != "v"`: absent or different.
    NotEq(Arc<str>, Arc<str>),
    /// `k contains "v"`: present, with this part.
    Contains(Arc<str>, Arc<str>),
    /// `k starts with "v"`: present, with this beginning.
    StartsWith(Arc<str>, Arc<str>),
    /// `k ends with "v"`: present, with this end.
    EndsWith(Arc<str>, Arc<str>),
    /// `k in {"v", "w"}`: present and one of these.
    In(Arc<str>, BTreeSet<Arc<str>>),
    /// `k not in {"v", "w"}`: absent or none of these.
    NotIn(Arc<str>, BTreeSet<Arc<str>>),
    /// `!x`.
    Not(Box<Self>),
    /// `(x && y)`; true if empty.
    And(Vec<Self>),
    /// `(x || y)`; false if empty.
    Or(Vec<Self>),
}

impl Expr {
    /// Whether the expression holds for something with these labels.
    pub fn matches(&self, labels: &dyn Labels) -> bool {
        let holds = |label: &str, test: &dyn Fn(&str) -> bool| labels.get(label).is_some_and(test);
        match self {
            Self::All | Self::Global => true,
            Self::Has(k) => labels.get(k).is_some(),
            Self::Eq(k, v) => holds(k, &|have| *have == **v),
            Self::NotEq(k, v) => !holds(k, &|have| *have == **v),
            Self::Contains(k, v) => holds(k, &|have| have.contains(&**v)),
            Self::StartsWith(k, v) => holds(k, &|have| have.starts_with(&**v)),
            Self::EndsWith(k, v) => holds(k, &|have| have.ends_with(&**v)),
            Self::In(k, set) => holds(k, &|have| set.contains(have)),
            Self::NotIn(k, set) => !holds(k, &|have| set.contains(have)),
            Self::Not(x) => !x.matches(labels),
            Self::And(all) => all.iter().all(|x| x.matches(labels)),
            Self::Or(any) => any.iter().any(|x| x.matches(labels)),
        }
    }

    /// Whether `global()` occurs.
    pub fn contains_global(&self) -> bool {
        *self == Self::Global || self.operands().iter().any(Self::contains_global)
    }

    /// A copy with `prefix` before every label.
    pub fn prefix_labels(&self, prefix: &str) -> Self {
        let with = |label: &str| Arc::from(format!("{prefix}{label}"));
        self.map_tests(&|test| match test {
            Self::Has(k) => Self::Has(with(k)),
            Self::Eq(k, v) => Self::Eq(with(k), v.clone()),
            Self::NotEq(k, v) => Self::NotEq(with(k), v.clone()),
            Self::Contains(k, v) => Self::Contains(with(k), v.clone()),
            Self::StartsWith(k, v) => Self::StartsWith(with(k), v.clone()),
            Self::EndsWith(k, v) => Self::EndsWith(with(k), v.clone()),
            Self::In(k, set) => Self::In(with(k), set.clone()),
            Self::NotIn(k, set) => Self::NotIn(with(k), set.clone()),
            other => other.clone(),
        })
    }

    /// A copy with `all()` as "has a namespace" and `global()` as "has none".
    pub(super) fn constants_as_namespace_tests(&self) -> Self {
        let has_namespace = || Self::Has(NAMESPACE_LABEL.into());
        self.map_tests(&|test| match test {
            Self::All => has_namespace(),
            Self::Global => Self::Not(Box::new(has_namespace())),
            other => other.clone(),
        })
    }

    /// A copy with every test (everything but `Not`, `And`, `Or`) replaced.
    fn map_tests(&self, f: &dyn Fn(&Self) -> Self) -> Self {
        match self {
            Self::Not(x) => Self::Not(Box::new(x.map_tests(f))),
            Self::And(all) => Self::And(all.iter().map(|x| x.map_tests(f)).collect()),
            Self::Or(any) => Self::Or(any.iter().map(|x| x.map_tests(f)).collect()),
            test => f(test),
        }
    }

    /// The expressions right below this one; none below a test.
    fn operands(&self) -> &[Self] {
        match self {
            Self::Not(x) => std::slice::from_ref(x),
            Self::And(xs) | Self::Or(xs) => xs,
            _ => &[],
        }
    }

    /// How many pairs of parentheses stand within each other in the canonical text.
    pub(super) fn group_depth(&self) -> usize {
        let below = self.operands().iter().map(Self::group_depth).max().unwrap_or(0);
        below + usize::from(matches!(self, Self::And(_) | Self::Or(_)))
    }

    /// Whether the canonical text says what the expression says. Without this check, a value or label that came
    /// from elsewhere could break out of its place in the text.
    pub(super) fn check_representable(&self) -> Result<(), SelectorError> {
        match self {
            Self::All | Self::Global => Ok(()),
            Self::Has(k) => check_label(k),
            Self::Eq(k, v)
            | Self::NotEq(k, v)
            | Self::Contains(k, v)
            | Self::StartsWith(k, v)
            | Self::EndsWith(k, v) => check_label(k).and_then(|()| check_value(v)),
            Self::In(k, set) | Self::NotIn(k, set) => {
                check_label(k)?;
                set.iter().try_for_each(|v| check_value(v))
            }
            Self::Not(_) | Self::And(_) | Self::Or(_) => {
                self.operands().iter().try_for_each(Self::check_representable)
            }
        }
    }
}

fn check_label(label: &str) -> Result<(), SelectorError> {
    if !label.is_empty() && label.bytes().all(is_label_byte) {
        Ok(())
    } else {
        Err(SelectorError::NotALabel(label.to_owned()))
    }
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if value.contains('"') && value.contains('\'') {
        Err(SelectorError::UnquotableValue(value.to_owned()))
    } else {
        Ok(())
    }
}

/// Canonical text.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(k) => write!(f, "has({k})"),
            Self::Eq(k, v) => write!(f, "{k} == {}", Quoted(v)),
            Self::NotEq(k, v) => write!(f, "{k} != {}", Quoted(v)),
            Self::Contains(k, v) => write!(f, "{k} contains {}", Quoted(v)),
            Self::StartsWith(k, v) => write!(f, "{k} starts with {}", Quoted(v)),
            Self::EndsWith(k, v) => write!(f, "{k} ends with {}", Quoted(v)),
            Self::In(k, set) => write!(f, "{k} in {}", QuotedSet(set)),
            Self::NotIn(k, set) => write!(f, "{k} not in {}", QuotedSet(set)),
            Self::Not(x) => write!(f, "!{x}"),
            Self::And(all) if all.is_empty() => f.write_str("all()"),
            Self::Or(any) if any.is_empty() => f.write_str("!all()"),
            Self::And(all) => group(f, all, " && "),
            Self::Or(any) => group(f, any, " || "),
        }
    }
}

fn group(f: &mut fmt::Formatter<'_>, operands: &[Expr], connective: &str) -> fmt::Result {
    if let [only] = operands {
        return write!(f, "{only}");
    }
    f.write_str("(")?;
    separated(f, operands, connective)?;
    f.write_str(")")
}

fn separated<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    separator: &str,
) -> fmt::Result {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains('"') { write!(f, "'{}'", self.0) } else { write!(f, "\"{}\"", self.0) }
    }
}

struct QuotedSet<'a>(&'a BTreeSet<Arc<str>>);

impl fmt::Display for QuotedSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        separated(f, self.0.iter().map(|v| Quoted(v)), ", ")?;
        f.write_str("}")
    }
}
