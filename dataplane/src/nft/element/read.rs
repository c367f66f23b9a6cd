//! Reading elements, and putting the two ends of intervals together.

use std::time::Duration;

use tortie_rules::ruleset::nft::{Data, Element, ElementExtras, ElementKey, ElementValue, Set};

use super::super::HEADER_LEN;
use super::super::entry::Unread;
use super::super::expression::{read_value, read_verdict};
use super::super::userdata;
use super::{DATA, ELEMENTS, FLAG_CATCH_ALL, FLAG_END, FLAGS, KEY, KEY_END, TIMEOUT, USERDATA, predecessor};
use crate::netlink::{Attribute, Attributes, NetlinkError, be32, be64};

/// Takes the messages of a set's elements, and gives the elements.
#[derive(Debug)]
pub struct ElementReader {
    interval: bool,
    concatenation: bool,
    elements: Vec<Element>,
    /// Begins and ends of intervals of one field.
    edges: Vec<Edge>,
}

/// A begin or end of an interval.
#[derive(Debug)]
struct Edge {
    key: Data,
    /// `None` where an interval ends.
    start: Option<Element>,
}

/// An element as the kernel says it.
struct Raw {
    flags: u32,
    key: Option<Data>,
    key_end: Option<Data>,
    value: Option<ElementValue>,
    extras: ElementExtras,
}

impl ElementReader {
    /// For the elements of this set.
    pub fn new(set: &Set) -> Self {
        Self {
            interval: set.interval,
            concatenation: set.key.len() > 1,
            elements: Vec::new(),
            edges: Vec::new(),
        }
    }

    /// Forgets what it has read.
    pub fn clear(&mut self) {
        self.elements.clear();
        self.edges.clear();
    }

    /// Reads a message (`NFT_MSG_NEWSETELEM`), from behind the netlink header.
    ///
    /// # Errors
    /// When it does not follow the format, or holds a verdict that the tree has no word for.
    pub fn read(&mut self, payload: &[u8]) -> Result<(), NetlinkError> {
        for attribute in Attributes::after(payload, HEADER_LEN)? {
            let attribute = attribute?;
            if attribute.kind == ELEMENTS {
                for element in attribute.nested() {
                    let raw = read_raw(&element?)?;
                    self.take(raw)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, raw: Raw) -> Result<(), NetlinkError> {
        let extras = (raw.extras != ElementExtras::default()).then(|| Box::new(raw.extras));
        let element = |key| Element { key, value: raw.value, extras };
        if raw.flags & FLAG_CATCH_ALL != 0 {
            self.elements.push(element(ElementKey::CatchAll));
            return Ok(());
        }
        let key = raw.key.ok_or(NetlinkError::Malformed("element without a key"))?;
        if !self.interval {
            self.elements.push(element(ElementKey::Value(key)));
        } else if self.concatenation {
            let end = raw.key_end.unwrap_or_else(|| key.clone());
            self.elements.push(element(ElementKey::Interval(Box::new((key, end)))));
        } else if raw.flags & FLAG_END != 0 {
            self.edges.push(Edge { key, start: None });
        } else {
            let start = Some(element(ElementKey::Value(key.clone())));
            self.edges.push(Edge { key, start });
        }
        Ok(())
    }

    /// The elements, in the order of their keys.
    pub fn finish(mut self) -> Vec<Element> {
        // Where one interval ends and the next begins, the end comes first.
        self.edges.sort_by(|a, b| (&a.key, a.start.is_some()).cmp(&(&b.key, b.start.is_some())));
        let mut open: Option<(Data, Element)> = None;
        for edge in self.edges {
            if let Some((first, element)) = open.take() {
                // One that has no end reaches to the next, whatever that is.
                if let Some(last) = predecessor(&edge.key).filter(|last| *last >= first) {
                    self.elements.push(interval(first, last, element));
                }
            }
            open = edge.start.map(|element| (edge.key, element));
        }
        if let Some((first, element)) = open {
            let last = Data::new(&vec![u8::MAX; first.len()]);
            self.elements.push(interval(first, last, element));
        }
        self.elements.sort();
        // What a dump repeats is one element.
        self.elements.dedup();
        self.elements
    }
}

fn interval(first: Data, last: Data, element: Element) -> Element {
    Element { key: ElementKey::Interval(Box::new((first, last))), ..element }
}

fn read_raw(element: &Attribute<'_>) -> Result<Raw, NetlinkError> {
    let mut raw = Raw { flags: 0, key: None, key_end: None, value: None, extras: ElementExtras::default() };
    for part in element.nested() {
        let part = part?;
        match part.kind {
            KEY => raw.key = Some(read_value(&part)?),
            KEY_END => raw.key_end = Some(read_value(&part)?),
            FLAGS => raw.flags = be32(&part)?,
            DATA => raw.value = Some(read_element_value(&part)?),
            TIMEOUT => raw.extras.timeout = Some(Duration::from_millis(be64(&part)?)),
            USERDATA => raw.extras.comment = userdata::comment(part.value, userdata::COMMENT),
            _ => {}
        }
    }
    Ok(raw)
}

fn read_element_value(attribute: &Attribute<'_>) -> Result<ElementValue, NetlinkError> {
    match read_verdict(attribute) {
        Ok(Some(verdict)) => Ok(ElementValue::Verdict(verdict)),
        Ok(None) => Ok(ElementValue::Data(read_value(attribute)?)),
        Err(Unread::Malformed(error)) => Err(error),
        Err(Unread::Foreign(_)) => Err(NetlinkError::Malformed("a verdict that no map of ours holds")),
    }
}
