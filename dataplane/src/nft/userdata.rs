//! What the kernel keeps for user space without looking at it: comments, and nft's notes of byte orders.
//!
//! ```text
//!   type u8 | length u8 | value        one after the other (libnftnl's udata)
//! ```

use tortie_rules::ruleset::nft::{FieldType, MapData, Set};

use crate::netlink::Writer;

/// Comment of a table, chain, rule or element.
pub(super) const COMMENT: u8 = 0;
/// Comment of a set.
pub(super) const SET_COMMENT: u8 = 7;
/// Byte order of a set's key: without it, nft lists marks with their bytes turned round.
const SET_KEY_BYTE_ORDER: u8 = 0;
/// Byte order of a map's data.
const SET_DATA_BYTE_ORDER: u8 = 1;
/// A map's data are ranges; nft asks for it.
const SET_DATA_INTERVAL: u8 = 6;
/// Flags of an element.
const ELEMENT_FLAGS: u8 = 1;
/// The interval has no end: it goes to the highest value.
const INTERVAL_OPEN: u32 = 1;

/// The longest comment that nft takes (`NFTNL_UDATA_COMMENT_MAXLEN` with its zero).
const COMMENT_MAX: usize = 127;

/// nft's `enum byteorder`.
const ORDER_NONE: u32 = 0;
const ORDER_HOST: u32 = 1;
const ORDER_NETWORK: u32 = 2;

/// Writes an attribute with this comment, cut to what nft takes; nothing without one.
pub(super) fn write_comment(writer: &mut Writer<'_>, attribute: u16, comment: Option<&str>) {
    if let Some(comment) = comment {
        let mut bytes = Vec::with_capacity(comment.len() + 3);
        push_text(&mut bytes, COMMENT, comment);
        writer.bytes(attribute, &bytes);
    }
}

/// Writes what nft notes of a set.
pub(super) fn write_set(writer: &mut Writer<'_>, attribute: u16, set: &Set) {
    let mut bytes = Vec::with_capacity(24);
    push_u32(&mut bytes, SET_KEY_BYTE_ORDER, byte_order(&set.key));
    if let Some(data) = &set.data {
        let order = match data {
            MapData::Verdict => ORDER_NONE,
            MapData::Fields(fields) => byte_order(fields),
        };
        push_u32(&mut bytes, SET_DATA_BYTE_ORDER, order);
        push_u32(&mut bytes, SET_DATA_INTERVAL, 0);
    }
    if let Some(comment) = &set.comment {
        push_text(&mut bytes, SET_COMMENT, comment);
    }
    writer.bytes(attribute, &bytes);
}

/// Writes what nft notes of an element.
pub(super) fn write_element(writer: &mut Writer<'_>, attribute: u16, comment: Option<&str>, is_open: bool) {
    if comment.is_none() && !is_open {
        return;
    }
    let mut bytes = Vec::with_capacity(24);
    if let Some(comment) = comment {
        push_text(&mut bytes, COMMENT, comment);
    }
    if is_open {
        push_u32(&mut bytes, ELEMENT_FLAGS, INTERVAL_OPEN);
    }
    writer.bytes(attribute, &bytes);
}

/// The comment in userdata, if there is one that is text.
pub(super) fn comment(mut bytes: &[u8], kind: u8) -> Option<String> {
    while let [found, len, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*len))?;
        if *found == kind {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return std::str::from_utf8(text).ok().map(ToOwned::to_owned);
        }
        bytes = &rest[usize::from(*len)..];
    }
    None
}

/// The order of a key or data of these fields. nft knows that of each field of several by itself.
fn byte_order(fields: &[FieldType]) -> u32 {
    match fields {
        [field] if field.is_host_order() => ORDER_HOST,
        [_] => ORDER_NETWORK,
        _ => ORDER_NONE,
    }
}

fn push_u32(bytes: &mut Vec<u8>, kind: u8, value: u32) {
    bytes.extend_from_slice(&[kind, 4]);
    bytes.extend_from_slice(&value.to_ne_bytes());
}

fn push_text(bytes: &mut Vec<u8>, kind: u8, text: &str) {
    let text = &text[..text.floor_char_boundary(COMMENT_MAX)];
    let len = u8::try_from(text.len() + 1).expect("a comment was cut to less than 255 bytes");
    bytes.extend_from_slice(&[kind, len]);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}
