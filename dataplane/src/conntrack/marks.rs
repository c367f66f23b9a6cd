//! Marks of connections: taking bits of ours back.
//!
//! ```text
//!   GET   MARK MARK_MASK                              with a dump: all that have this value under the mask
//!   NEW   TUPLE_ORIG ZONE MARK{ 0 } MARK_MASK{ bits } without "create": the entry's bits, and no others
//! ```

use nix::errno::Errno;
use tortie_api::net::IpVersion;
use tortie_rules::render::nft::established::MarkFilter;
use tortie_rules::ruleset::Bits;

use super::wire::{ATTR_TUPLE_ORIG, ATTR_ZONE, GET, HEADER_LEN, NEW, SUBSYSTEM, header};
use crate::netlink::{Attributes, Batch, Channel, DumpSink, Message, NetlinkError, Reply, be32};

const ATTR_MARK: u16 = 8;
const ATTR_MARK_MASK: u16 = 21;

/// Which bits of which connections.
pub(crate) struct Clearing<'a> {
    /// Bits that become 0.
    pub(crate) bits: Bits,
    /// What the kernel lists; all connections without it.
    pub(crate) filter: Option<MarkFilter>,
    /// Which of these are meant, by their marks.
    pub(crate) is_meant: &'a dyn Fn(Bits) -> bool,
}

/// Clears bits of the marks of connections of an IP version. Returns how many there were.
///
/// # Errors
/// When they cannot be listed, or the kernel refuses to change one. What is left is the same when that is tried again.
pub(crate) fn clear(
    channel: &mut Channel,
    version: IpVersion,
    clearing: &Clearing<'_>,
) -> Result<usize, NetlinkError> {
    let mut finder = Finder { is_meant: clearing.is_meant, found: Vec::new() };
    channel.dump(
        SUBSYSTEM << 8 | GET,
        &|writer| {
            writer.raw(&header(version));
            if let Some(MarkFilter { value, mask }) = clearing.filter {
                writer.plain_be32(ATTR_MARK, value);
                writer.plain_be32(ATTR_MARK_MASK, mask);
            }
        },
        &mut finder,
    )?;
    let mut batch = Batch::new();
    for (index, found) in finder.found.iter().enumerate() {
        batch.push(SUBSYSTEM << 8 | NEW, 0, |writer| {
            writer.raw(&header(version));
            writer.nested(ATTR_TUPLE_ORIG, |tuple| tuple.raw(&found.original));
            if let Some(zone) = &found.zone {
                writer.bytes(ATTR_ZONE, zone);
            }
            writer.plain_be32(ATTR_MARK, 0);
            writer.plain_be32(ATTR_MARK_MASK, clearing.bits);
        });
        if batch.is_full() || index + 1 == finder.found.len() {
            send(channel, &mut batch)?;
            batch.clear();
        }
    }
    Ok(finder.found.len())
}

fn send(channel: &mut Channel, batch: &mut Batch) -> Result<(), NetlinkError> {
    let mut refused = None;
    channel.execute(batch, &mut |reply| {
        // One that has ended meanwhile is no connection any more.
        if let Reply::Refused { refusal, .. } = reply
            && !refusal.is(Errno::ENOENT)
        {
            refused = Some(refusal);
        }
    })?;
    refused.map_or(Ok(()), |refusal| Err(NetlinkError::Refused(refusal)))
}

/// An entry, with what it takes to change it.
struct Found {
    original: Vec<u8>,
    zone: Option<[u8; 2]>,
}

struct Finder<'a> {
    is_meant: &'a dyn Fn(Bits) -> bool,
    found: Vec<Found>,
}

impl DumpSink for Finder<'_> {
    fn restart(&mut self) {
        self.found.clear();
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        if message.kind != SUBSYSTEM << 8 | NEW {
            return Ok(());
        }
        let (mut original, mut zone, mut mark) = (None, None, 0);
        for attribute in Attributes::after(message.payload, HEADER_LEN)? {
            let attribute = attribute?;
            match attribute.kind {
                ATTR_TUPLE_ORIG => original = Some(attribute.value.to_vec()),
                ATTR_ZONE => zone = Some(attribute.array()?),
                ATTR_MARK => mark = be32(&attribute)?,
                _ => {}
            }
        }
        let original =
            original.ok_or(NetlinkError::Malformed("conntrack entry without its first direction"))?;
        if (self.is_meant)(mark) {
            self.found.push(Found { original, zone });
        }
        Ok(())
    }
}
