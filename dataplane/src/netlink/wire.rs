//! The bytes: an append-only writer of messages and attributes, and readers that never look past the end.
//!
//! ```text
//!   nlmsghdr   length u32 | type u16 | flags u16 | sequence u32 | port u32 | payload, padded to 4
//!   nlattr     length u16 | type u16 (with NESTED, NET_BYTEORDER)            | value,   padded to 4
//! ```
//!
//! Lengths are written when the end is known (back-patched), so nothing is measured beforehand.
//! Header fields are in host order (`linux/netlink.h`).

use std::ops::Range;

use super::NetlinkError;

pub(super) const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// `NLM_F_REQUEST`: on every message that goes to the kernel.
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
const ACK: u16 = 0x4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_F_NET_BYTEORDER`.
const NET_BYTEORDER: u16 = 0x4000;
/// `NLA_TYPE_MASK`.
const TYPE_MASK: u16 = !(NESTED | NET_BYTEORDER);

/// Messages that go to the kernel in one send, in order.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    /// The message whose acknowledgement ends the wait, where that is not the last one.
    awaited: Option<usize>,
}

impl Batch {
    /// A send stays below this many bytes, but for the last message: well under the default send
    /// buffer (212,992) even with a message of 64 KiB on top.
    const BYTES: usize = 96 * 1024;
    /// And below this many messages, so that the errors of all of them fit into the receive buffer.
    const MESSAGES: usize = 256;

    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message; `flags` without `NLM_F_REQUEST`, which is always set.
    ///
    /// # Panics
    /// When the message is 4 GiB long.
    pub fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer<'_>)) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.resize(start + HEADER_LEN, 0);
        body(&mut Writer { bytes: &mut self.bytes });
        pad(&mut self.bytes);
        let len = u32::try_from(self.bytes.len() - start).expect("a message is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[start + 4..start + 6].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[start + 6..start + 8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
    }

    /// What comes after the message that is the last one now is not acknowledged: this one is waited for.
    pub fn await_last(&mut self) {
        self.awaited = self.starts.len().checked_sub(1);
    }

    /// The message, by index, whose acknowledgement ends the wait.
    pub(crate) fn awaited(&self) -> usize {
        self.awaited.unwrap_or(self.starts.len().saturating_sub(1))
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// No messages.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Time to send before another message is added.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= Self::BYTES || self.starts.len() >= Self::MESSAGES
    }

    /// Forgets the messages, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        self.awaited = None;
    }

    /// Numbers these messages from `first` on and returns their bytes.
    pub(crate) fn number(&mut self, messages: Range<usize>, first: u32) -> &[u8] {
        let mut sequence = first;
        for &start in &self.starts[messages.clone()] {
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            sequence = sequence.wrapping_add(1);
        }
        &self.bytes[self.offset(messages.start)..self.offset(messages.end)]
    }

    /// The bytes of a message, with its header.
    pub(crate) fn bytes_of(&self, message: usize) -> Option<&[u8]> {
        self.starts.get(message).map(|start| &self.bytes[*start..self.offset(message + 1)])
    }

    /// Where a message begins, or where the last one ends.
    pub(crate) fn offset(&self, message: usize) -> usize {
        self.starts.get(message).copied().unwrap_or(self.bytes.len())
    }

    /// Numbers the messages from `first` on and asks for an acknowledgement of the last one, or of
    /// [the one to wait for](Self::await_last).
    pub(crate) fn seal(&mut self, first: u32) -> &[u8] {
        self.number(0..self.len(), first);
        if let Some(&start) = self.starts.get(self.awaited()) {
            let flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]) | ACK;
            self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        &self.bytes
    }
}

/// Appends a message's fixed header and attributes.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Bytes as they are, padded: the fixed header of a subsystem.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        pad(self.bytes);
    }

    /// Room for `len` bytes that `fill` writes.
    pub fn raw_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        fill(&mut self.bytes[start..]);
        pad(self.bytes);
    }

    /// An attribute with this value.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// An attribute with a value of four bytes: most are, so it is written at once.
    fn word(&mut self, kind: u16, value: [u8; 4]) {
        let [k0, k1] = kind.to_ne_bytes();
        let [l0, l1] = 8u16.to_ne_bytes();
        let [v0, v1, v2, v3] = value;
        self.bytes.extend_from_slice(&[l0, l1, k0, k1, v0, v1, v2, v3]);
    }

    /// A byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// 32 bits in host order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.word(kind, value.to_ne_bytes());
    }

    /// 16 bits in network order, marked as such.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind | NET_BYTEORDER, &value.to_be_bytes());
    }

    /// 32 bits in network order, marked as such.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.word(kind | NET_BYTEORDER, value.to_be_bytes());
    }

    /// Bytes in network order, marked as such: an address.
    pub fn be_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NET_BYTEORDER, value);
    }

    /// 16 bits in network order, not marked: nf_tables takes them so.
    pub fn plain_be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// 32 bits in network order, not marked.
    pub fn plain_be32(&mut self, kind: u16, value: u32) {
        self.word(kind, value.to_be_bytes());
    }

    /// 64 bits in network order, not marked.
    pub fn plain_be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Text with the terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// An attribute made of attributes.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Writer<'_>)) {
        let start = self.open(kind | NESTED);
        body(&mut Writer { bytes: self.bytes });
        self.close(start);
    }

    /// Bytes in the whole batch so far, for callers that must stop before a limit.
    pub fn position(&self) -> usize {
        self.bytes.len()
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        let [k0, k1] = kind.to_ne_bytes();
        self.bytes.extend_from_slice(&[0, 0, k0, k1]);
        start
    }

    fn close(&mut self, start: usize) {
        let len = u16::try_from(self.bytes.len() - start)
            .expect("an attribute is at most 64 KiB long: callers split their lists");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        pad(self.bytes);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    let missing = bytes.len().next_multiple_of(4) - bytes.len();
    bytes.extend_from_slice(&[0; 3][..missing]);
}

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: 0 for events.
    pub sequence: u32,
    /// `nlmsg_pid`: the port of who asked for it; in events, of who caused it.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram.
#[derive(Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Reads from the start of a datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let Some(header) = bytes.get(..HEADER_LEN) else {
            return Some(Err(NetlinkError::Malformed("header cut short")));
        };
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if len < HEADER_LEN {
            return Some(Err(NetlinkError::Malformed("length below that of a header")));
        }
        let Some(payload) = bytes.get(HEADER_LEN..len) else {
            return Some(Err(NetlinkError::Malformed("message cut short")));
        };
        self.0 = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            port: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
            payload,
        }))
    }
}

/// An attribute that was received.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Its type, without the flag bits.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes inside.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }

    /// A byte.
    pub fn u8(&self) -> Result<u8, NetlinkError> {
        self.value.first().copied().ok_or(NetlinkError::Malformed("empty attribute"))
    }

    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], NetlinkError> {
        self.value.try_into().map_err(|_| NetlinkError::Malformed("attribute of another length"))
    }

    /// Text up to the terminating zero.
    pub fn text(&self) -> Result<&'a str, NetlinkError> {
        let end = self.value.iter().position(|&byte| byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).map_err(|_| NetlinkError::Malformed("text is not UTF-8"))
    }
}

/// 16 bits in network order.
pub fn be16(attribute: &Attribute<'_>) -> Result<u16, NetlinkError> {
    attribute.array().map(u16::from_be_bytes)
}

/// 32 bits in network order.
pub fn be32(attribute: &Attribute<'_>) -> Result<u32, NetlinkError> {
    attribute.array().map(u32::from_be_bytes)
}

/// 64 bits in network order.
pub fn be64(attribute: &Attribute<'_>) -> Result<u64, NetlinkError> {
    attribute.array().map(u64::from_be_bytes)
}

/// Attributes one after the other.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Reads from the first attribute on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads what follows a fixed header of `skip` bytes.
    pub fn after(payload: &'a [u8], skip: usize) -> Result<Self, NetlinkError> {
        payload.get(skip..).map(Self).ok_or(NetlinkError::Malformed("payload cut short"))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        // Fewer bytes than a header are padding.
        let header = bytes.get(..ATTRIBUTE_HEADER_LEN)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if len < ATTRIBUTE_HEADER_LEN {
            return Some(Err(NetlinkError::Malformed("attribute length below that of a header")));
        }
        let Some(value) = bytes.get(ATTRIBUTE_HEADER_LEN..len) else {
            return Some(Err(NetlinkError::Malformed("attribute cut short")));
        };
        self.0 = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Attribute { kind: u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK, value }))
    }
}
