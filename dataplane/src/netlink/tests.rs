//! The format, byte by byte, and what a hostile or broken datagram does.

use super::*;

fn sample() -> Batch {
    let mut batch = Batch::new();
    batch.push(0x0609, 0x200, |writer| {
        writer.raw(&[2, 0, 0, 0]);
        writer.text(2, "cali40x");
        writer.nested(7, |inner| {
            inner.be16(4, 8080);
            inner.u8(3, 24);
        });
    });
    batch.push(0x0602, 0, |writer| writer.u32(9, 7));
    batch
}

#[test]
fn lengths_are_patched_and_values_padded() {
    let mut batch = sample();
    let bytes = batch.seal(5).to_vec();
    let expected: Vec<u8> = [
        &52_u32.to_ne_bytes()[..],
        &0x0609_u16.to_ne_bytes(),
        &0x0201_u16.to_ne_bytes(),
        &5_u32.to_ne_bytes(),
        &[0; 4],
        &[2, 0, 0, 0],
        &12_u16.to_ne_bytes(),
        &2_u16.to_ne_bytes(),
        b"cali40x\0",
        &20_u16.to_ne_bytes(),
        &0x8007_u16.to_ne_bytes(),
        &6_u16.to_ne_bytes(),
        &0x4004_u16.to_ne_bytes(),
        &[0x1f, 0x90, 0, 0],
        &5_u16.to_ne_bytes(),
        &3_u16.to_ne_bytes(),
        &[24, 0, 0, 0],
    ]
    .concat();
    assert_eq!(bytes[..52], expected[..]);
}

#[test]
fn messages_are_numbered_and_only_the_last_asks_for_an_ack() {
    let mut batch = sample();
    let bytes = batch.seal(41).to_vec();
    let messages: Vec<_> = Messages::new(&bytes).map(Result::unwrap).collect();
    assert_eq!(messages.iter().map(|m| m.sequence).collect::<Vec<_>>(), [41, 42]);
    assert_eq!(messages[0].flags & 4, 0);
    assert_eq!(messages[1].flags & 4, 4);
}

#[test]
fn what_was_written_is_read_back() {
    let mut batch = sample();
    let bytes = batch.seal(1).to_vec();
    let message = Messages::new(&bytes).next().unwrap().unwrap();
    let attributes: Vec<_> = Attributes::after(message.payload, 4).unwrap().map(Result::unwrap).collect();
    assert_eq!(attributes[0].text().unwrap(), "cali40x");
    let inner: Vec<_> = attributes[1].nested().map(Result::unwrap).collect();
    assert_eq!(be16(&inner[0]).unwrap(), 8080);
    assert_eq!(inner[1].u8().unwrap(), 24);
}

/// Walks everything that can be walked; the assertion is that nothing panics and that it ends.
fn walk(bytes: &[u8]) -> usize {
    let mut seen = 0;
    for message in Messages::new(bytes).map_while(Result::ok) {
        for attribute in Attributes::new(message.payload).map_while(Result::ok) {
            let _ = (attribute.text(), be16(&attribute), be32(&attribute), attribute.u8());
            seen += 1 + attribute.nested().map_while(Result::ok).count();
        }
    }
    seen
}

#[test]
fn cut_or_altered_datagrams_are_errors_and_never_a_panic() {
    let mut batch = sample();
    let bytes = batch.seal(1).to_vec();
    for end in 0..bytes.len() {
        walk(&bytes[..end]);
    }
    for position in 0..bytes.len() {
        for value in [0, 1, 3, 4, 15, 16, 127, 255] {
            let mut altered = bytes.clone();
            altered[position] = value;
            walk(&altered);
        }
    }
    assert!(Messages::new(&bytes[..20]).next().unwrap().is_err(), "a cut message is an error");
}

#[test]
fn a_batch_is_full_by_bytes_and_by_count() {
    let mut batch = Batch::new();
    for _ in 0..255 {
        batch.push(1, 0, |_| {});
    }
    assert!(!batch.is_full());
    batch.push(1, 0, |_| {});
    assert!(batch.is_full(), "256 messages");
    batch.clear();
    assert!(batch.is_empty() && !batch.is_full());
    batch.push(1, 0, |writer| writer.raw(&vec![0; 96 * 1024]));
    assert!(batch.is_full(), "96 KiB");
}
