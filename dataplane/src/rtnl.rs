//! Routes and neighbours in `netlink-packet-route`'s types, over our blocking channel.
//!
//! Requests are pipelined (many in one send); dumps are filtered by the kernel, which checks them strictly.

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;

use crate::netlink::{Batch, Channel, DumpSink, Message, NetlinkError};

/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: an existing object is an error.
pub const EXCL: u16 = 0x200;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;

/// Appends a message to a batch.
pub fn push(batch: &mut Batch, message: &RouteNetlinkMessage, flags: u16) {
    batch.push(message.message_type(), flags, |writer| {
        writer.raw_with(message.buffer_len(), |bytes| message.serialize(bytes));
    });
}

/// Dumps what `request` selects and keeps what `pick` makes of each object.
pub fn dump<T>(
    channel: &mut Channel,
    request: &RouteNetlinkMessage,
    pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let mut sink = Sink { pick, found: Vec::new() };
    let body = |writer: &mut crate::netlink::Writer<'_>| {
        writer.raw_with(request.buffer_len(), |bytes| request.serialize(bytes));
    };
    channel.dump(request.message_type(), &body, &mut sink)?;
    Ok(sink.found)
}

struct Sink<T, F> {
    pick: F,
    found: Vec<T>,
}

impl<T, F: Fn(RouteNetlinkMessage) -> Option<T>> DumpSink for Sink<T, F> {
    fn restart(&mut self) {
        self.found.clear();
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        let mut header = NetlinkHeader::default();
        header.message_type = message.kind;
        match RouteNetlinkMessage::deserialize(&header, message.payload) {
            Ok(parsed) => self.found.extend((self.pick)(parsed)),
            // An exotic object of someone else must not hide all the others.
            Err(error) => tracing::debug!(%error, kind = message.kind, "rtnetlink object not understood"),
        }
        Ok(())
    }
}
