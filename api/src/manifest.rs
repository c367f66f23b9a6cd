//! Manifests: from the text of a file to objects, with the line of every fault.
//!
//! ```text
//! bytes ──split──► chunks ──yaml──► node tree with lines ──► JSON value ──► typed, defaulted, validated
//!         at ---     │ not UTF-8, too large     │ List: its items          │ field path
//!                    ▼                          ▼                          ▼ + tree = line
//!               DocumentError              one Document each          DocumentError
//! ```
//!
//! Documents are separated before anything is parsed, so that a broken one hurts no other. JSON is read as the
//! YAML that it is.

mod json;
mod node;
mod scalar;
mod split;
mod yaml;

use std::fmt;
use std::rc::Rc;

use serde_json::Value;

use crate::kind::{Key, Kind};
use crate::resource::{FieldError, Resource, key_of};
use node::{Data, Node};
use split::Chunk;

/// The largest document that is read, in bytes: more than an API server takes.
pub const DOCUMENT_MAX_BYTES: usize = 3 << 20;

/// How much of an unreadable document is searched for its name.
const KEY_SEARCH_BYTES: usize = 512 << 10;

/// One object of a text: a document, or an item of a document that is a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it begins, counted from 1.
    pub first_line: usize,
    /// The object, or what is wrong with it.
    pub outcome: Result<Manifest, DocumentError>,
}

/// An object as written and as understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What identifies it.
    pub key: Key,
    /// As written, as JSON. An item of a typed list has the list's `apiVersion` and `kind` if it names none.
    pub value: Value,
    /// Typed, with defaults, validated.
    pub resource: Resource,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// Where, counted from 1.
    pub line: usize,
    /// Which object it would have been, if that can be told: its last good version can stay in force.
    pub key: Option<Key>,
    /// Path of the field, `spec.ingress[0].source.selector`; empty if it is no single field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for DocumentError {
    /// `line 12: spec.ingress[0].source.selector: expected …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Reads all objects of a text. Documents without content are skipped; two objects of the same key are both
/// returned.
pub fn parse_documents(text: &[u8]) -> Vec<Document> {
    split::chunks(text).into_iter().flat_map(|chunk| read_chunk(&chunk)).collect()
}

fn read_chunk(chunk: &Chunk<'_>) -> Vec<Document> {
    let broken = |line: usize, key: Option<Key>, field: String, message: String| {
        let error = DocumentError { line, key, field, message };
        vec![Document { first_line: chunk.content_line, outcome: Err(error) }]
    };
    if chunk.bytes.len() > DOCUMENT_MAX_BYTES {
        let message =
            format!("is larger than {DOCUMENT_MAX_BYTES} bytes, the most that one document may have");
        return broken(chunk.content_line, key_of_beginning(chunk.bytes), String::new(), message);
    }
    let text = match std::str::from_utf8(chunk.bytes) {
        Ok(text) => text,
        Err(error) => {
            let (good, bad) = chunk.bytes.split_at(error.valid_up_to());
            let line = chunk.first_line + line_feeds(good);
            let message =
                format!("byte 0x{:02x} is not valid UTF-8", bad.first().copied().unwrap_or_default());
            return broken(line, key_of_beginning(good), String::new(), message);
        }
    };
    if let Some(at) = lone_carriage_return(text) {
        let (before, _) = text.split_at(at);
        let line = chunk.first_line + line_feeds(before.as_bytes());
        let message = "a carriage return stands here without a line feed after it";
        return broken(line, key_of_beginning(before.as_bytes()), String::new(), message.to_owned());
    }
    match parse(text) {
        Ok(None) => Vec::new(),
        Ok(Some(root)) => {
            let mut documents = Vec::new();
            read_node(&root, chunk.first_line - 1, None, &mut documents);
            documents
        }
        Err(fault) => {
            let key = fault.partial.as_ref().and_then(yaml::Partial::key);
            // What is missing at the end is reported where the text ends, not on the line after.
            let line = fault.line.min(text.trim_ascii_end().lines().count());
            broken(chunk.first_line - 1 + line, key, fault.field, fault.message)
        }
    }
}

/// The number of line feeds, and so of lines before what follows.
fn line_feeds(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

/// Where a carriage return stands that ends no line as people count them. YAML would begin a new line there.
fn lone_carriage_return(text: &str) -> Option<usize> {
    text.match_indices('\r').map(|(at, _)| at).find(|at| text.as_bytes().get(at + 1) != Some(&b'\n'))
}

/// Parses YAML. JSON is YAML but for one thing: its escapes of characters beyond the basic plane are pairs.
fn parse(text: &str) -> Result<Option<Rc<Node>>, yaml::Fault> {
    yaml::parse(text).or_else(|fault| match json::joined_surrogates(text) {
        Some(joined) => yaml::parse(&joined),
        None => Err(fault),
    })
}

/// The key of an unreadable document, from the part of it that can be read.
fn key_of_beginning(bytes: &[u8]) -> Option<Key> {
    let bytes = &bytes[..bytes.len().min(KEY_SEARCH_BYTES)];
    let end = bytes.iter().rposition(|byte| *byte == b'\n')?;
    yaml::parse_beginning(std::str::from_utf8(&bytes[..=end]).ok()?)?.key()
}

/// Reads one object, or the items of a list. `above` is the number of lines before the chunk.
fn read_node(node: &Node, above: usize, inherited: Option<Kind>, documents: &mut Vec<Document>) {
    let mut value = node.to_value();
    if let (Some(kind), Value::Object(map)) = (inherited, &mut value)
        && !map.contains_key("kind")
        && !map.contains_key("apiVersion")
    {
        map.insert("apiVersion".to_owned(), kind.api_version().into());
        map.insert("kind".to_owned(), kind.name().into());
    }
    if let Some(list) = list_of(&value) {
        return read_list(node, above, &list, documents);
    }
    let outcome = Resource::from_value(&value)
        .map_err(|error| located(node, above, key_of(&value), error))
        .map(|resource| Manifest { key: resource.key(), value, resource });
    documents.push(Document { first_line: above + node.line, outcome });
}

fn located(node: &Node, above: usize, key: Option<Key>, error: FieldError) -> DocumentError {
    DocumentError {
        line: above + node.line_of(&error.field),
        key,
        field: error.field,
        message: error.message,
    }
}

/// A list, with the kind of its items if that is told by the kind of the list.
struct List(Option<Kind>);

fn list_of(value: &Value) -> Option<List> {
    let api_version = value.get("apiVersion")?.as_str()?;
    let of = value.get("kind")?.as_str()?.strip_suffix("List")?;
    if of.is_empty() {
        return (api_version == "v1").then_some(List(None));
    }
    Kind::from_api(api_version, of).ok().map(|kind| List(Some(kind)))
}

fn read_list(node: &Node, above: usize, list: &List, documents: &mut Vec<Document>) {
    let Data::Map(entries) = &node.data else { return };
    let mut refuse = |line: usize, field: &str, message: &str| {
        let error = DocumentError {
            line: above + line,
            key: None,
            field: field.to_owned(),
            message: message.to_owned(),
        };
        documents.push(Document { first_line: above + node.line, outcome: Err(error) });
    };
    let mut items: &[Rc<Node>] = &[];
    for entry in entries {
        match (entry.key.as_str(), &entry.node.data) {
            ("apiVersion" | "kind" | "metadata", _) | ("items", Data::Scalar(Value::Null)) => {}
            ("items", Data::List(list)) => items = list,
            ("items", _) => refuse(entry.line, "items", "is a list of objects"),
            (other, _) => refuse(entry.line, other, &format!("unknown field `{other}` of a list")),
        }
    }
    for item in items {
        read_node(item, above, list.0, documents);
    }
}

#[cfg(test)]
mod tests;
