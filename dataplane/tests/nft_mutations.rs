//! What the codec writes, damaged in many ways, and read: without a kernel, and always in the same way.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
mod common;
#[path = "common/decode.rs"]
mod decode;
#[path = "common/layout.rs"]
mod layout;
#[path = "common/shapes.rs"]
mod shapes;

use decode::{NETLINK_HEADER, check};
use layout::{Layout, rare_layout};
use tortie_rules::ruleset::nft::Family;

/// Numbers that are the same every time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// All messages of all shapes: type and payload.
fn messages() -> Vec<(u8, Vec<u8>)> {
    let layouts = [Layout::new(Family::Ipv4), Layout::new(Family::Ipv6), rare_layout()];
    let transactions = layouts.iter().map(Layout::transaction);
    transactions
        .flat_map(|transaction| {
            let messages = (0..transaction.len()).map(|number| transaction.message(number).unwrap().to_vec());
            messages.collect::<Vec<_>>()
        })
        .map(|message| (message[4], message[NETLINK_HEADER..].to_vec()))
        .collect()
}

/// Damages bytes: a bit, a byte, two bytes as of a length, a piece that goes or comes twice, the end.
fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    let place = numbers.below(bytes.len());
    match numbers.below(6) {
        0 => bytes[place] ^= 1 << numbers.below(8),
        1 => bytes[place] = [0, 1, 2, 3, 4, 5, 0x7f, 0xff][numbers.below(8)],
        2 => {
            let place = place & !3;
            if let Some(length) = bytes.get_mut(place..place + 2) {
                let value = u16::try_from(numbers.below(64)).unwrap();
                length.copy_from_slice(&value.to_ne_bytes());
            }
        }
        3 => {
            let end = (place + numbers.below(16)).min(bytes.len());
            bytes.drain(place..end);
        }
        4 => {
            let piece = bytes[place..(place + 4 * numbers.below(8)).min(bytes.len())].to_vec();
            bytes.splice(place..place, piece);
        }
        _ => bytes.truncate(place),
    }
}

#[test]
fn no_damage_to_a_message_makes_the_reader_fail() {
    let mut numbers = Numbers(0x5eed_0001);
    let (mut read, mut refused) = (0, 0);
    for (kind, payload) in messages() {
        for _ in 0..1000 {
            let mut damaged = payload.clone();
            for _ in 0..=numbers.below(3) {
                if !damaged.is_empty() {
                    damage(&mut damaged, &mut numbers);
                }
            }
            if check(kind, &damaged) { read += 1 } else { refused += 1 }
        }
    }
    // Neither does it refuse everything, nor take everything.
    assert!(read > 5_000 && refused > 5_000, "{read} read, {refused} refused");
}

#[test]
fn a_message_of_another_type_is_read_or_refused() {
    for (_, payload) in messages() {
        for kind in [0, 3, 6, 9, 12, 22] {
            check(kind, &payload);
        }
    }
}

#[test]
#[ignore = "writes what the fuzzer begins with, into the folder TORTIE_SEEDS"]
fn messages_become_seeds() {
    let folder = std::env::var_os("TORTIE_SEEDS").expect("TORTIE_SEEDS names a folder");
    for (number, (kind, payload)) in messages().into_iter().enumerate() {
        let seed = [&[kind], payload.as_slice()].concat();
        std::fs::write(std::path::Path::new(&folder).join(format!("nft-{number}")), seed).unwrap();
    }
}

#[test]
fn a_dynset_within_a_dynset_a_thousand_times_is_refused() {
    // NAME "dynset", DATA { SET_NAME, OP, SREG_KEY, EXPRESSIONS { ELEM { ... } } }
    let attribute = |kind: u16, value: &[u8]| {
        let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut element = Vec::new();
    while element.len() < 60_000 {
        let inner = if element.is_empty() { Vec::new() } else { attribute(10, &element) };
        let fields =
            [attribute(1, b"s\0"), attribute(3, &[0; 4]), attribute(4, &[0, 0, 0, 1]), inner].concat();
        element = attribute(1, &[attribute(1, b"dynset\0"), attribute(2, &fields)].concat());
    }
    let error = tortie_dataplane::nft::read_expressions(&element).unwrap_err();
    assert_eq!(error.to_string(), "malformed message: expression within an expression is too long");
}
