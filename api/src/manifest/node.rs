//! A parsed document that knows on which line everything stands.

use std::rc::Rc;

use serde_json::{Map, Value};

/// A value with its line.
#[derive(Debug)]
pub(super) struct Node {
    /// Line within the chunk, counted from 1.
    pub(super) line: usize,
    /// The value.
    pub(super) data: Data,
    /// Levels below and including this one.
    pub(super) height: usize,
    /// Values below and including this one, each alias counted with all that it stands for.
    pub(super) size: usize,
}

#[derive(Debug)]
pub(super) enum Data {
    Scalar(Value),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A key with its value. The value of an alias is shared.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Rc<Node>,
}

impl Node {
    pub(super) fn new(line: usize, data: Data) -> Self {
        let children: &mut dyn Iterator<Item = &Rc<Self>> = match &data {
            Data::Scalar(_) => &mut std::iter::empty(),
            Data::List(items) => &mut items.iter(),
            Data::Map(entries) => &mut entries.iter().map(|entry| &entry.node),
        };
        let (height, size) = children
            .fold((0, 0_usize), |(height, size), n| (n.height.max(height), size.saturating_add(n.size)));
        Self { line, data, height: height + 1, size: size.saturating_add(1) }
    }

    pub(super) fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Array(items.iter().map(|item| item.to_value()).collect()),
            Data::Map(entries) => {
                let entries = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_value()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// The line of a field: of its key, or of the closest structure around it that is there.
    ///
    /// Keys may hold dots themselves (`metadata.labels.example.com/app`): the longest key that fits is meant.
    pub(super) fn line_of(&self, field: &str) -> usize {
        let mut node = self;
        let mut line = self.line;
        let mut rest = field;
        while let Some((next, next_line, next_rest)) = node.step(rest) {
            (node, line, rest) = (next, next_line, next_rest);
        }
        line
    }

    fn step<'a>(&self, path: &'a str) -> Option<(&Self, usize, &'a str)> {
        match &self.data {
            Data::Scalar(_) => None,
            Data::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, item.line, rest))
            }
            Data::Map(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let rest_after = |entry: &Entry| {
                    path.strip_prefix(entry.key.as_str())
                        .filter(|rest| matches!(rest.bytes().next(), None | Some(b'.' | b'[')))
                };
                let fitting =
                    entries.iter().filter(|entry| !entry.key.is_empty() && rest_after(entry).is_some());
                let entry = fitting.max_by_key(|entry| entry.key.len())?;
                Some((&entry.node, entry.line, rest_after(entry)?))
            }
        }
    }
}
