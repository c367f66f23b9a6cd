//! Elements of sets, whose lists are cut where an attribute's length ends.
//!
//! ```text
//!   interval set of one field     KEY first | DATA ..        FLAGS(end) KEY last + 1      (none at the highest value)
//!   interval set of several       KEY firsts KEY_END lasts | DATA ..
//!   any other                     KEY | DATA ..
//! ```
//!
//! The tree has both ends of an interval, and both are included.

mod read;

use std::iter::Peekable;

use tortie_rules::ruleset::nft::{Data, Element, ElementExtras, ElementKey, ElementValue, Set, TableId};

use super::expression::{write_value, write_verdict};
use super::object::{SET_NAME, write_table_name};
use super::userdata;
use crate::netlink::Writer;

pub use read::ElementReader;

/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
const ELEMENTS: u16 = 3;
/// `NFTA_SET_ELEM_*`.
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const TIMEOUT: u16 = 4;
const USERDATA: u16 = 6;
const KEY_END: u16 = 10;
/// `NFT_SET_ELEM_INTERVAL_END`, `NFT_SET_ELEM_CATCHALL`.
const FLAG_END: u32 = 1;
const FLAG_CATCH_ALL: u32 = 2;

/// A list is closed when it is longer than this: the largest element fits behind it.
const LIST_MAX: usize = 64_000;

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// All of them.
    Whole,
    /// Their keys: enough to take them out.
    Key,
}

/// Writes one message: as many of the elements as fit. Returns how many they are.
pub(super) fn write_elements<'a>(
    w: &mut Writer<'_>,
    table: &TableId,
    set: &Set,
    elements: &mut Peekable<impl Iterator<Item = &'a Element>>,
    detail: Detail,
) -> usize {
    write_table_name(w, table);
    w.text(SET_NAME, &set.name);
    let mut count = 0;
    w.nested(ELEMENTS, |list| {
        let start = list.position();
        // The kernel does not look at these numbers. libnftnl counts from 1.
        let mut number = 0;
        while list.position() - start < LIST_MAX
            && let Some(element) = elements.next()
        {
            write_element(list, &mut number, set, element, detail);
            count += 1;
        }
    });
    count
}

fn write_element(list: &mut Writer<'_>, number: &mut u16, set: &Set, element: &Element, detail: Detail) {
    match &element.key {
        ElementKey::CatchAll => {
            write_start(list, number, element, detail, (FLAG_CATCH_ALL, None, None), false);
        }
        ElementKey::Value(key) if !set.interval => {
            write_start(list, number, element, detail, (0, Some(key), None), false);
        }
        key => {
            let (first, last) = match key {
                ElementKey::Interval(ends) => (&ends.0, &ends.1),
                ElementKey::Value(key) => (key, key),
                ElementKey::CatchAll => return,
            };
            if set.key.len() > 1 {
                write_start(list, number, element, detail, (0, Some(first), Some(last)), false);
            } else {
                let end = successor(last);
                write_start(list, number, element, detail, (0, Some(first), None), end.is_none());
                if let Some(end) = end {
                    write_end(list, number, &end);
                }
            }
        }
    }
}

/// An element, or the beginning of one.
fn write_start(
    list: &mut Writer<'_>,
    number: &mut u16,
    element: &Element,
    detail: Detail,
    (flags, key, key_end): (u32, Option<&Data>, Option<&Data>),
    is_open: bool,
) {
    *number += 1;
    list.nested(*number, |w| {
        if flags != 0 {
            w.plain_be32(FLAGS, flags);
        }
        let none = ElementExtras::default();
        let extras = element.extras.as_deref().filter(|_| detail == Detail::Whole).unwrap_or(&none);
        if let Some(timeout) = extras.timeout {
            w.plain_be64(TIMEOUT, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(key) = key {
            write_value(w, KEY, key.as_bytes());
        }
        if let Some(key_end) = key_end {
            write_value(w, KEY_END, key_end.as_bytes());
        }
        if detail == Detail::Whole {
            match &element.value {
                None => {}
                Some(ElementValue::Verdict(verdict)) => write_verdict(w, DATA, verdict),
                Some(ElementValue::Data(data)) => write_value(w, DATA, data.as_bytes()),
            }
            userdata::write_element(w, USERDATA, extras.comment.as_deref(), is_open);
        }
    });
}

/// Where an interval ends: the first value behind it.
fn write_end(list: &mut Writer<'_>, number: &mut u16, end: &Data) {
    *number += 1;
    list.nested(*number, |w| {
        w.plain_be32(FLAGS, FLAG_END);
        write_value(w, KEY, end.as_bytes());
    });
}

/// The value behind this one, the most significant byte first; `None` behind the highest.
fn successor(value: &Data) -> Option<Data> {
    let mut bytes = value.as_bytes().to_vec();
    for byte in bytes.iter_mut().rev() {
        let (next, overflows) = byte.overflowing_add(1);
        *byte = next;
        if !overflows {
            return Some(Data::new(&bytes));
        }
    }
    None
}

/// The value before this one; `None` before the lowest.
fn predecessor(value: &Data) -> Option<Data> {
    let mut bytes = value.as_bytes().to_vec();
    for byte in bytes.iter_mut().rev() {
        let (next, underflows) = byte.overflowing_sub(1);
        *byte = next;
        if !underflows {
            return Some(Data::new(&bytes));
        }
    }
    None
}

#[cfg(test)]
mod tests;
