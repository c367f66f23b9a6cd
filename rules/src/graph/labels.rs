//! Labels in as few bytes as they need: for each the number of its key, the length of its value, the value.
//!
//! Values are not numbered: most values of a large cluster belong to one thing only, and nobody asks for them.

use super::intern::KeyId;

/// Appends a label.
pub(crate) fn push(to: &mut Vec<u8>, key: KeyId, value: &str) {
    push_number(to, key.0 as usize);
    push_number(to, value.len());
    to.extend_from_slice(value.as_bytes());
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
pub(crate) fn push_number(to: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

/// Takes a number off the front.
pub(crate) fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
}

/// The labels in the order in which they were pushed.
pub(crate) fn iter(mut bytes: &[u8]) -> impl Iterator<Item = (KeyId, &[u8])> + Clone {
    std::iter::from_fn(move || {
        let key = KeyId(u32::try_from(take_number(&mut bytes)?).ok()?);
        let length = take_number(&mut bytes)?;
        let (value, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some((key, value))
    })
}

/// The value of a label.
pub(crate) fn find(bytes: &[u8], key: KeyId) -> Option<&[u8]> {
    iter(bytes).find(|(k, _)| *k == key).map(|(_, value)| value)
}
