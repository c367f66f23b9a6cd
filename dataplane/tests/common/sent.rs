//! What `nft` sends for some words, and what we send for the same.
//!
//! `nft --debug=mnl` prints its messages word by word. Left out of the comparison is what has no effect on a named object:
//! the numbers of sets within a transaction, notes of nft about where a set's type came from, the empty interval that it
//! puts before the first of a new set, and that `bitwise` works with constants.

use std::collections::BTreeMap;
use std::process::Command;

use crate::layout::Layout;

const NESTED: u16 = 0x8000;
/// Types of messages.
const KINDS: [(u16, &str); 6] =
    [(0, "table"), (3, "chain"), (6, "rule"), (9, "set"), (12, "elements"), (22, "flowtable")];

/// An attribute.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Nested(Vec<(u16, Value)>),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => {
                let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(f, "{}", hex.join(" "))
            }
            Self::Nested(list) => f.debug_list().entries(list).finish(),
        }
    }
}

type Fields = Vec<(u16, Value)>;

/// Compares all messages of a layout with those of the `nft` that is installed.
pub(crate) fn compare(layout: &Layout) {
    compare_with("nft", layout, |_| {});
}

/// The same with those of a newer one, which puts attributes into another order.
pub(crate) fn compare_unordered(program: &str, layout: &Layout) {
    compare_with(program, layout, sort);
}

/// Puts attributes in the order of their types, and leaves lists as they are.
fn sort(fields: &mut Fields) {
    fields.sort_by_key(|(kind, _)| *kind & !NESTED);
    for (_, value) in fields {
        if let Value::Nested(fields) = value {
            sort(fields);
        }
    }
}

fn compare_with(program: &str, layout: &Layout, order: impl Fn(&mut Fields)) {
    let in_order = |mut groups: BTreeMap<_, Vec<Fields>>| {
        groups.values_mut().flatten().for_each(&order);
        groups
    };
    let theirs = in_order(group(by_nft(program, layout)));
    let transaction = layout.transaction();
    let messages = (0..transaction.len()).map(|number| transaction.message(number).unwrap().to_vec());
    let ours = in_order(group(messages));
    let names: Vec<_> = ours.keys().collect();
    assert_eq!(names, theirs.keys().collect::<Vec<_>>());
    for (name, messages) in &ours {
        assert_eq!(messages.len(), theirs[name].len(), "{name:?}");
        for (number, (our, their)) in messages.iter().zip(&theirs[name]).enumerate() {
            let text = layout.chains.iter().find(|(chain, _)| chain.name == name.1);
            let text = text.and_then(|(_, shapes)| shapes.get(number)).map_or("", |shape| shape.text);
            assert_eq!(our, their, "{name:?} {number} {text}");
        }
    }
}

/// Messages by kind and name, in order.
fn group(messages: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<(&'static str, String), Vec<Fields>> {
    let mut groups: BTreeMap<_, Vec<Fields>> = BTreeMap::new();
    for message in messages {
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let Some((_, word)) = KINDS.iter().find(|(number, _)| kind == 10 << 8 | number) else { continue };
        let mut fields = read(&message[20..]);
        normalise(word, &mut fields);
        let name = match *word {
            "table" => text(&fields, 1),
            "chain" => text(&fields, 3),
            _ => text(&fields, 2),
        };
        groups.entry((*word, name)).or_default().push(fields);
    }
    groups
}

fn read(mut bytes: &[u8]) -> Fields {
    let mut fields = Vec::new();
    while let [l0, l1, k0, k1, ..] = *bytes {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]);
        let value = bytes[4..len].to_vec();
        let value = if kind & NESTED == 0 { Value::Bytes(value) } else { Value::Nested(read(&value)) };
        fields.push((kind, value));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    fields
}

fn text(fields: &Fields, kind: u16) -> String {
    match fields.iter().find(|(known, _)| *known == kind) {
        Some((_, Value::Bytes(bytes))) => String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned(),
        other => panic!("{other:?}"),
    }
}

fn normalise(word: &str, fields: &mut Fields) {
    match word {
        "set" => {
            fields.retain(|(kind, _)| *kind != 10);
            for (kind, value) in fields {
                if let (13, Value::Bytes(bytes)) = (*kind, value) {
                    *bytes = without_typeof(bytes);
                }
            }
        }
        "elements" => {
            fields.retain(|(kind, _)| *kind != 4);
            if let Some((_, Value::Nested(list))) = fields.iter_mut().find(|(kind, _)| *kind == NESTED | 3) {
                list.retain(|(_, element)| !is_empty_interval(element));
                list.iter_mut().for_each(|(number, _)| *number = NESTED | 1);
            }
        }
        "chain" | "flowtable" => fields.iter_mut().for_each(|(_, value)| sort_names(value)),
        "rule" => {
            for (_, value) in fields {
                forget_set_ids(value);
            }
        }
        _ => {}
    }
}

/// Of several interfaces, nft does not say the first one first.
fn sort_names(value: &mut Value) {
    let Value::Nested(list) = value else { return };
    if list.iter().all(|(kind, _)| *kind == 1) {
        list.sort_by_key(|(_, name)| format!("{name:?}"));
    }
    list.iter_mut().for_each(|(_, value)| sort_names(value));
}

/// A set's userdata without nft's notes of the expressions behind its types.
fn without_typeof(mut bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [kind, len, ..] = *bytes {
        let (field, rest) = bytes.split_at(2 + usize::from(len));
        if kind != 3 && kind != 4 {
            kept.extend_from_slice(field);
        }
        bytes = rest;
    }
    kept
}

fn is_empty_interval(element: &Value) -> bool {
    let Value::Nested(fields) = element else { return false };
    let [(3, Value::Bytes(flags)), (_, Value::Nested(key))] = fields.as_slice() else { return false };
    let is_zero = |value: &Value| matches!(value, Value::Bytes(bytes) if bytes.iter().all(|byte| *byte == 0));
    *flags == [0, 0, 0, 1] && key.iter().all(|(_, value)| is_zero(value))
}

/// Lookups name their set; the number is for anonymous ones. That a `bitwise` is one with constants, as it is anyway, nft
/// says sometimes.
fn forget_set_ids(value: &mut Value) {
    let Value::Nested(list) = value else { return };
    if let [(1, Value::Bytes(name)), (_, Value::Nested(data))] = list.as_mut_slice() {
        let needless = match name.as_slice() {
            b"lookup\0" => 4,
            b"dynset\0" => 2,
            b"bitwise\0" => 6,
            _ => return,
        };
        data.retain(|(kind, _)| *kind != needless);
        return;
    }
    for (_, value) in list {
        forget_set_ids(value);
    }
}

/// The messages that `nft` sends for a layout's words. They need not succeed.
fn by_nft(program: &str, layout: &Layout) -> Vec<Vec<u8>> {
    let file = layout.text_file();
    let output = Command::new(program).args(["--debug=mnl", "-f"]).arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("message length"), "{}", String::from_utf8_lossy(&output.stderr));
    let is_missing = |line: &&str| line.contains("rror:") && !line.contains("No such file");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(errors.lines().find(is_missing), None, "{errors}");
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for line in text.lines() {
        let line = plain(line);
        let Some(body) = line.strip_prefix('|') else { continue };
        let cells: Vec<&str> = body.split('|').map(str::trim).collect();
        match cells.as_slice() {
            [length, _, "message length", ..] => {
                messages.push(length.parse::<u32>().unwrap().to_ne_bytes().to_vec());
            }
            [kind, _, _, "type" | "type | flags", ..] => {
                let message = messages.last_mut().unwrap();
                message.extend(kind.parse::<u16>().unwrap().to_ne_bytes());
                message.extend([0; 10]);
            }
            [length, flags, kind, _, "len", ..] => {
                let message = messages.last_mut().unwrap();
                let nested = if flags.starts_with('N') { NESTED } else { 0 };
                message.extend(length.parse::<u16>().unwrap().to_ne_bytes());
                message.extend((kind.parse::<u16>().unwrap() | nested).to_ne_bytes());
            }
            [bytes, _, "data" | "extra header", ..] => {
                let bytes = bytes.split_whitespace().map(|hex| u8::from_str_radix(hex, 16).unwrap());
                messages.last_mut().unwrap().extend(bytes);
            }
            _ => {}
        }
    }
    messages
}

/// A line without colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    text
}
