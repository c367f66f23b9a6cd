//! What a selector demands of single labels, so that an index can find the few things that it may select.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Expr;

/// A necessary condition on one label: whatever the expression selects fulfils it.
///
/// Not a sufficient one; candidates found by it are to be checked with [`Expr::matches`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction {
    /// The label must be there.
    pub present: bool,
    /// The label must not be there. With `present`, the expression selects nothing.
    pub absent: bool,
    /// The label must have one of these values; then `present` is set, too. Empty: the expression selects nothing.
    pub values: Option<BTreeSet<Arc<str>>>,
}

impl Restriction {
    fn present() -> Self {
        Self { present: true, ..Self::default() }
    }

    fn absent() -> Self {
        Self { absent: true, ..Self::default() }
    }

    fn one_of(values: BTreeSet<Arc<str>>) -> Self {
        Self { present: true, absent: false, values: Some(values) }
    }

    /// Whether a label with this value, or the absence of the label (`None`), is allowed.
    pub fn allows(&self, value: Option<&str>) -> bool {
        match value {
            None => !self.present,
            Some(value) => !self.absent && self.values.as_ref().is_none_or(|values| values.contains(value)),
        }
    }

    /// Whether nothing can fulfil this.
    pub fn is_impossible(&self) -> bool {
        self.present && (self.absent || self.values.as_ref().is_some_and(BTreeSet::is_empty))
    }

    /// Both conditions hold.
    fn and(self, other: Self) -> Self {
        let values = match (self.values, other.values) {
            (Some(mine), Some(theirs)) => Some(mine.intersection(&theirs).cloned().collect()),
            (mine, theirs) => mine.or(theirs),
        };
        Self { present: self.present || other.present, absent: self.absent || other.absent, values }
    }

    /// At least one of the conditions holds. `None` if that says nothing.
    fn or(self, other: Self) -> Option<Self> {
        let values = self.values.zip(other.values).map(|(mut mine, theirs)| {
            mine.extend(theirs);
            mine
        });
        let joined =
            Self { present: self.present && other.present, absent: self.absent && other.absent, values };
        (joined.present || joined.absent).then_some(joined)
    }
}

/// Conditions by label.
type Restrictions = BTreeMap<Arc<str>, Restriction>;

impl Expr {
    /// What labels must look like for this expression to hold. Labels that are not in the map may be anything.
    pub fn restrictions(&self) -> BTreeMap<Arc<str>, Restriction> {
        let only = |label: &Arc<str>, restriction| Restrictions::from([(label.clone(), restriction)]);
        match self {
            Self::Eq(k, v) => only(k, Restriction::one_of(BTreeSet::from([v.clone()]))),
            Self::In(k, set) => only(k, Restriction::one_of(set.clone())),
            Self::Has(k) | Self::Contains(k, _) | Self::StartsWith(k, _) | Self::EndsWith(k, _) => {
                only(k, Restriction::present())
            }
            Self::Not(x) => match &**x {
                Self::Has(k) => only(k, Restriction::absent()),
                _ => Restrictions::new(),
            },
            Self::And(all) => all.iter().map(Self::restrictions).fold(Restrictions::new(), all_of),
            Self::Or(any) => any.iter().map(Self::restrictions).reduce(one_of).unwrap_or_default(),
            Self::All | Self::Global | Self::NotEq(..) | Self::NotIn(..) => Restrictions::new(),
        }
    }
}

fn all_of(mut all: Restrictions, more: Restrictions) -> Restrictions {
    for (label, restriction) in more {
        let joined = match all.remove(&label) {
            Some(known) => known.and(restriction),
            None => restriction,
        };
        all.insert(label, joined);
    }
    all
}

fn one_of(mine: Restrictions, mut theirs: Restrictions) -> Restrictions {
    mine.into_iter().filter_map(|(label, r)| Some((label.clone(), r.or(theirs.remove(&label)?)?))).collect()
}
