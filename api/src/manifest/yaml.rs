//! From YAML text to a tree of nodes, within bounds.
//!
//! Structures nest at most [`HEIGHT_MAX`] levels, and a document holds at most [`SIZE_MAX`] values, where an
//! alias counts as all that it stands for; so a short text cannot stand for a huge tree.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::Value;

use super::node::{Data, Entry, Node};
use super::scalar;
use crate::kind::Key;
use crate::resource::key_of;

/// The most levels of a document.
const HEIGHT_MAX: usize = 64;

/// The most values of a document: more than fit into one in any sensible way.
const SIZE_MAX: usize = 500_000;

/// What is wrong with a text.
#[derive(Debug)]
pub(super) struct Fault {
    /// Line within the text, counted from 1.
    pub(super) line: usize,
    /// Path of the field, if it is about one.
    pub(super) field: String,
    pub(super) message: String,
    /// What was read before.
    pub(super) partial: Option<Partial>,
}

/// The beginning of a document.
#[derive(Debug)]
pub(super) struct Partial {
    value: Value,
    /// The key of the top-level mapping whose value may be incomplete.
    open: Option<String>,
}

impl Partial {
    /// The object's key, if the part that was read tells it for sure.
    pub(super) fn key(&self) -> Option<Key> {
        let key = key_of(&self.value)?;
        let has_namespace = self.value.pointer("/metadata/namespace").is_some_and(Value::is_string);
        let is_complete = self.open.as_deref() != Some("metadata");
        (is_complete || has_namespace || !key.kind.is_namespaced()).then_some(key)
    }
}

/// Parses a text of one document. `None` if it is empty.
pub(super) fn parse(text: &str) -> Result<Option<Rc<Node>>, Fault> {
    let mut builder = Builder::default();
    match builder.run(text) {
        Ok(()) => Ok(builder.root.filter(|root| !matches!(root.data, Data::Scalar(Value::Null)))),
        Err((line, field, message)) => Err(Fault { line, field, message, partial: builder.into_partial() }),
    }
}

/// Parses the beginning of a document as far as that is possible.
pub(super) fn parse_beginning(text: &str) -> Option<Partial> {
    let mut builder = Builder::default();
    if builder.run(text).is_err() {
        return builder.into_partial();
    }
    let root = builder.root?;
    let Data::Map(entries) = &root.data else { return None };
    Some(Partial { value: root.to_value(), open: entries.last().map(|entry| entry.key.clone()) })
}

/// Line, field, message.
type Problem = (usize, String, String);

/// A structure that is not yet closed.
struct Frame {
    line: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    /// Entries, their keys, and the key whose value comes next.
    Map {
        entries: Vec<Entry>,
        keys: BTreeSet<String>,
        next: Option<(usize, String)>,
        merges: Vec<Rc<Node>>,
    },
}

#[derive(Default)]
struct Builder {
    frames: Vec<Frame>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    size: usize,
}

impl Builder {
    fn run(&mut self, text: &str) -> Result<(), Problem> {
        let mut documents = 0;
        for step in Parser::new_from_str(text) {
            let (event, span) =
                step.map_err(|error| syntax_problem(text, error.marker().line(), error.info()))?;
            let line = span.start.line();
            match event {
                Event::DocumentStart(_) if documents > 0 => {
                    let message = "a second document begins here without a line --- before it";
                    return Err((line, String::new(), message.to_owned()));
                }
                Event::DocumentStart(_) => documents += 1,
                event => self.take(event, line)?,
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.expects_key() {
                    return self.key(line, &text, style);
                }
                let value = resolve(&text, style, tag.as_deref()).map_err(|m| self.problem(line, m))?;
                self.value(line, anchor, Rc::new(Node::new(line, Data::Scalar(value))))
            }
            Event::SequenceStart(anchor, tag) => {
                let content = Content::List(Vec::new());
                self.open(line, anchor, tag.as_deref(), content)
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map {
                    entries: Vec::new(),
                    keys: BTreeSet::new(),
                    next: None,
                    merges: Vec::new(),
                };
                self.open(line, anchor, tag.as_deref(), content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.problem(line, "an alias cannot stand for a value that it is part of"));
                };
                if self.expects_key() {
                    return match &node.data {
                        Data::Scalar(Value::String(text)) => self.key(line, text, ScalarStyle::DoubleQuoted),
                        _ => Err(self.problem(line, "a key must be a text")),
                    };
                }
                self.value(line, 0, node)
            }
            _ => Ok(()),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { content: Content::Map { next: None, .. }, .. }))
    }

    fn key(&mut self, line: usize, text: &str, style: ScalarStyle) -> Result<(), Problem> {
        let is_plain = style == ScalarStyle::Plain;
        if is_plain && matches!(scalar::resolve(text), Ok(Value::Null)) {
            return Err(self.problem(line, "a key must be a text"));
        }
        let Some(Frame { content: Content::Map { keys, next, .. }, .. }) = self.frames.last_mut() else {
            return Ok(());
        };
        *next = Some((line, text.to_owned()));
        let is_merge = is_plain && text == MERGE;
        if is_merge || keys.insert(text.to_owned()) {
            Ok(())
        } else {
            Err(self.problem(line, format!("the key {text:?} is there twice")))
        }
    }

    fn open(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<&Tag>,
        content: Content,
    ) -> Result<(), Problem> {
        if self.expects_key() {
            return Err(self.problem(line, "a key must be a text"));
        }
        if let Some(tag) =
            tag.filter(|tag| !(tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "map" | "seq")))
        {
            return Err(self.problem(line, format!("the tag {tag} means nothing here")));
        }
        if self.frames.len() >= HEIGHT_MAX {
            return Err((line, String::new(), too_deep()));
        }
        self.frames.push(Frame { line, anchor, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let (line, anchor) = (frame.line, frame.anchor);
        let node = Rc::new(frame.into_node());
        // Its parts were counted one by one; those that << brought in are counted with it.
        self.size = self.size.saturating_sub(node.size - 1);
        self.value(line, anchor, node)
    }

    /// Puts a complete value where it belongs.
    fn value(&mut self, line: usize, anchor: usize, node: Rc<Node>) -> Result<(), Problem> {
        self.size = self.size.saturating_add(node.size);
        if self.size > SIZE_MAX {
            return Err((line, String::new(), format!("holds more than {SIZE_MAX} values")));
        }
        if self.frames.len() + node.height > HEIGHT_MAX {
            return Err((line, String::new(), too_deep()));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.frames.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, next, merges, .. }) => match next.take() {
                Some((_, key)) if key == MERGE => match merge_sources(&node) {
                    Some(sources) => merges.extend(sources),
                    None => return Err(self.problem(line, "the key << takes a mapping or a list of them")),
                },
                Some((line, key)) => entries.push(Entry { line, key, node }),
                None => {}
            },
        }
        Ok(())
    }

    /// A problem at the value or key that was just read.
    fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.content {
                Content::List(items) => path = format!("{path}[{}]", items.len()),
                Content::Map { next: Some((_, key)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Content::Map { .. } => {}
            }
        }
        (line, path, message.into())
    }

    /// What was read, as if all open structures ended here.
    fn into_partial(mut self) -> Option<Partial> {
        let open = match self.frames.first().map(|frame| &frame.content) {
            Some(Content::Map { next, .. }) => next.as_ref().map(|(_, key)| key.clone()),
            _ => None,
        };
        while let Some(frame) = self.frames.pop() {
            let node = Rc::new(frame.into_node());
            match self.frames.last_mut().map(|parent| &mut parent.content) {
                None => self.root = Some(node),
                Some(Content::List(items)) => items.push(node),
                Some(Content::Map { entries, next, .. }) => {
                    if let Some((line, key)) = next.take() {
                        entries.push(Entry { line, key, node });
                    }
                }
            }
        }
        Some(Partial { value: self.root?.to_value(), open })
    }
}

/// What the parser says. It notices a tab in the indentation of a line only from what comes before.
fn syntax_problem(text: &str, line: usize, message: &str) -> Problem {
    let is_indented_by_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    let tab =
        text.lines().enumerate().skip(line.saturating_sub(1)).find(|(_, line)| is_indented_by_tab(line));
    match tab {
        Some((index, _)) if message.contains("tab") => {
            (index + 1, String::new(), "a tab cannot indent a line: use spaces".to_owned())
        }
        _ => (line, String::new(), message.to_owned()),
    }
}

/// The key that takes over the entries of another mapping (YAML 1.1, still in use with anchors).
const MERGE: &str = "<<";

fn merge_sources(node: &Rc<Node>) -> Option<Vec<Rc<Node>>> {
    match &node.data {
        Data::Map(_) => Some(vec![Rc::clone(node)]),
        Data::List(items) => {
            items.iter().all(|item| matches!(item.data, Data::Map(_))).then(|| items.clone())
        }
        Data::Scalar(_) => None,
    }
}

impl Frame {
    fn into_node(self) -> Node {
        let data = match self.content {
            Content::List(items) => Data::List(items),
            Content::Map { mut entries, mut keys, merges, .. } => {
                // Own entries win over merged ones, and earlier sources over later ones.
                for source in merges {
                    if let Data::Map(merged) = &source.data {
                        entries.extend(merged.iter().filter(|entry| keys.insert(entry.key.clone())).cloned());
                    }
                }
                Data::Map(entries)
            }
        };
        Node::new(self.line, data)
    }
}

fn too_deep() -> String {
    format!("is nested more than {HEIGHT_MAX} levels deep")
}

/// What a scalar stands for, by its style and tag.
fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => scalar::resolve(text),
            _ => Ok(Value::String(text.to_owned())),
        };
    };
    if tag.handle.is_empty() && tag.suffix == "!" {
        return Ok(Value::String(text.to_owned()));
    }
    let is_core = tag.is_yaml_core_schema();
    match tag.suffix.as_str() {
        "str" if is_core => Ok(Value::String(text.to_owned())),
        "int" | "float" | "bool" | "null" if is_core => match (tag.suffix.as_str(), scalar::resolve(text)?) {
            ("int" | "float", value @ Value::Number(_))
            | ("bool", value @ Value::Bool(_))
            | ("null", value @ Value::Null) => Ok(value),
            (wanted, _) => Err(format!("{text:?} is no {wanted}")),
        },
        _ => Err(format!("the tag {tag} means nothing here")),
    }
}
