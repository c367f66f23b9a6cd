//! Sets, maps and their elements.

use std::time::Duration;

use super::{Data, Expression, FieldType, Verdict};

/// A named set, or a map if there is `data`.
///
/// Never give it a size without need: the kernel then allocates for it, and refuses what is more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What is looked up: one field, or several one after the other.
    pub key: Vec<FieldType>,
    /// What a map says for it.
    pub data: Option<MapData>,
    /// Its elements are ranges.
    pub interval: bool,
    /// Its elements may have a timeout.
    pub timeouts: bool,
    /// That of elements which have none of their own; with `timeouts` only. Milliseconds count.
    pub timeout: Option<Duration>,
    /// Rules may add elements.
    pub dynamic: bool,
    /// At most so many elements. A dynamic set that rules add to has one always: 65,535 where none was given.
    pub size: Option<u32>,
    /// Each of its elements counts, limits and so on; stateful expressions only.
    pub expressions: Vec<Expression>,
    /// Words for people.
    pub comment: Option<String>,
}

/// What a map holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapData {
    /// Verdicts.
    Verdict,
    /// Values of these fields.
    Fields(Vec<FieldType>),
}

impl Set {
    /// A set of single keys.
    pub fn new(name: impl Into<String>, key: impl Into<Vec<FieldType>>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            data: None,
            interval: false,
            timeouts: false,
            timeout: None,
            dynamic: false,
            size: None,
            expressions: Vec::new(),
            comment: None,
        }
    }

    /// A map to verdicts.
    pub fn verdict_map(name: impl Into<String>, key: impl Into<Vec<FieldType>>) -> Self {
        Self { data: Some(MapData::Verdict), ..Self::new(name, key) }
    }

    /// A map to values.
    pub fn map(
        name: impl Into<String>,
        key: impl Into<Vec<FieldType>>,
        data: impl Into<Vec<FieldType>>,
    ) -> Self {
        Self { data: Some(MapData::Fields(data.into())), ..Self::new(name, key) }
    }

    /// The same of ranges.
    pub fn of_intervals(self) -> Self {
        Self { interval: true, ..self }
    }

    /// The same with a comment.
    pub fn with_comment(self, comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Its key. No two of a set have the same, and no two intervals overlap.
    pub key: ElementKey,
    /// In a map, what is held for it.
    pub value: Option<ElementValue>,
    /// What few elements have.
    pub extras: Option<Box<ElementExtras>>,
}

/// What an element stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementKey {
    /// This value.
    Value(Data),
    /// In a set of intervals: from the first to the second, both included; of several fields, in each of them.
    Interval(Box<(Data, Data)>),
    /// `*`: whatever no other element stands for.
    CatchAll,
}

/// What a map holds for a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementValue {
    /// A verdict.
    Verdict(Verdict),
    /// A value.
    Data(Data),
}

/// What few elements have.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementExtras {
    /// Goes after this time; milliseconds count.
    pub timeout: Option<Duration>,
    /// Words for people.
    pub comment: Option<String>,
}

impl Element {
    /// An element of a set.
    pub fn new(key: Data) -> Self {
        Self { key: ElementKey::Value(key), value: None, extras: None }
    }

    /// An element of a set of intervals; both ends are included. One value has both ends the same.
    pub fn interval(first: Data, last: Data) -> Self {
        Self { key: ElementKey::Interval(Box::new((first, last))), value: None, extras: None }
    }

    /// What no other element stands for.
    pub const fn catch_all() -> Self {
        Self { key: ElementKey::CatchAll, value: None, extras: None }
    }

    /// The same as an element of a verdict map.
    pub fn verdict(self, verdict: Verdict) -> Self {
        Self { value: Some(ElementValue::Verdict(verdict)), ..self }
    }

    /// The same as an element of a map of values.
    pub fn data(self, data: Data) -> Self {
        Self { value: Some(ElementValue::Data(data)), ..self }
    }

    /// The same with a comment.
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.extras.get_or_insert_default().comment = Some(comment.into());
        self
    }

    /// The same, to go after this time.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.extras.get_or_insert_default().timeout = Some(timeout);
        self
    }
}
