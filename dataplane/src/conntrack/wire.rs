//! Conntrack messages (`NFNL_SUBSYS_CTNETLINK`, `linux/netfilter/nfnetlink_conntrack.h`).
//!
//! ```text
//!   GET     TUPLE_REPLY{ IP{ V4_SRC } } FILTER{ REPLY_FLAGS }       with a dump: all that match, else all
//!   NEW     TUPLE_ORIG{ IP{ V4_SRC V4_DST } PROTO{..} } TUPLE_REPLY{..} ZONE ID ...          the answers
//!   DELETE  TUPLE_ORIG ZONE ID                                     one entry, as it was listed
//! ```
//!
//! A deletion without a tuple empties the whole table. Here a tuple is always one that the kernel listed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use tortie_api::net::IpVersion;

use crate::netlink::{Attribute, Attributes, Batch, Channel, DumpSink, Message, NetlinkError, Writer};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;

/// `struct nfgenmsg`: family, version, resource.
const HEADER_LEN: usize = 4;

const ATTR_TUPLE_ORIG: u16 = 1;
const ATTR_TUPLE_REPLY: u16 = 2;
const ATTR_ID: u16 = 12;
const ATTR_ZONE: u16 = 18;
const ATTR_FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const IP_V4_SRC: u16 = 1;
const IP_V6_SRC: u16 = 3;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
/// The filter compares the source address and nothing else (`CTA_FILTER_FLAG(CTA_IP_SRC)` in the kernel).
const FILTER_IP_SRC: u32 = 1;

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From who began it.
    Original,
    /// From who answers.
    Reply,
}

/// An entry, with what it takes to delete exactly this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The sources of the original and of the reply direction.
    pub(super) sources: [IpAddr; 2],
    original: Vec<u8>,
    zone: Option<[u8; 2]>,
    /// Another entry of the same tuple, made meanwhile, has another number.
    id: Option<[u8; 4]>,
}

/// Dumps a family's entries, only those with this IPv4 source in this direction where the kernel can filter
/// (since Linux 5.8; older ones list all), and returns those of which a source is in `wanted`.
pub(super) fn list(
    channel: &mut Channel,
    version: IpVersion,
    filter: Option<(Direction, Ipv4Addr)>,
    wanted: &BTreeSet<IpAddr>,
) -> Result<Vec<Entry>, NetlinkError> {
    let mut finder = Finder { wanted, entries: Vec::new() };
    let body = |writer: &mut Writer<'_>| {
        writer.raw(&header(version));
        if let Some((direction, source)) = filter {
            write_filter(writer, direction, source);
        }
    };
    channel.dump(SUBSYSTEM << 8 | GET, &body, &mut finder)?;
    Ok(finder.entries)
}

/// Appends the deletion of an entry.
pub(super) fn delete(batch: &mut Batch, entry: &Entry) {
    let version = if entry.sources[0].is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    batch.push(SUBSYSTEM << 8 | DELETE, 0, |writer| {
        writer.raw(&header(version));
        writer.nested(ATTR_TUPLE_ORIG, |tuple| tuple.raw(&entry.original));
        if let Some(zone) = &entry.zone {
            writer.bytes(ATTR_ZONE, zone);
        }
        if let Some(id) = &entry.id {
            writer.bytes(ATTR_ID, id);
        }
    });
}

fn header(version: IpVersion) -> [u8; HEADER_LEN] {
    let family = match version {
        IpVersion::V4 => 2,
        IpVersion::V6 => 10,
    };
    [family, 0, 0, 0]
}

fn write_filter(writer: &mut Writer<'_>, direction: Direction, source: Ipv4Addr) {
    let (tuple, flags) = match direction {
        Direction::Original => (ATTR_TUPLE_ORIG, FILTER_ORIG_FLAGS),
        Direction::Reply => (ATTR_TUPLE_REPLY, FILTER_REPLY_FLAGS),
    };
    writer.nested(tuple, |tuple| {
        tuple.nested(TUPLE_IP, |ip| ip.bytes(IP_V4_SRC, &source.octets()));
    });
    writer.nested(ATTR_FILTER, |filter| filter.u32(flags, FILTER_IP_SRC));
}

/// Keeps the entries that have a wanted source. A full dump is far larger than what is looked for.
struct Finder<'a> {
    wanted: &'a BTreeSet<IpAddr>,
    entries: Vec<Entry>,
}

impl DumpSink for Finder<'_> {
    fn restart(&mut self) {
        self.entries.clear();
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        if message.kind == SUBSYSTEM << 8 | NEW {
            self.entries.extend(read_entry(message.payload, self.wanted)?);
        }
        Ok(())
    }
}

/// An entry, if it has a wanted source.
pub(super) fn read_entry(payload: &[u8], wanted: &BTreeSet<IpAddr>) -> Result<Option<Entry>, NetlinkError> {
    let (mut original, mut reply, mut zone, mut id) = (None, None, None, None);
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            ATTR_TUPLE_ORIG => original = Some(attribute),
            ATTR_TUPLE_REPLY => reply = Some(attribute),
            ATTR_ZONE => zone = Some(attribute.array()?),
            ATTR_ID => id = Some(attribute.array()?),
            _ => {}
        }
    }
    let (Some(original), Some(reply)) = (original, reply) else {
        return Err(NetlinkError::Malformed("conntrack entry without both directions"));
    };
    let sources = [read_source(&original)?, read_source(&reply)?];
    let is_wanted = sources.iter().any(|source| wanted.contains(source));
    Ok(is_wanted.then(|| Entry { sources, original: original.value.to_vec(), zone, id }))
}

fn read_source(tuple: &Attribute<'_>) -> Result<IpAddr, NetlinkError> {
    for part in tuple.nested() {
        let part = part?;
        if part.kind != TUPLE_IP {
            continue;
        }
        for address in part.nested() {
            let address = address?;
            match address.kind {
                IP_V4_SRC => return Ok(IpAddr::from(address.array::<4>()?)),
                IP_V6_SRC => return Ok(IpAddr::from(address.array::<16>()?)),
                _ => {}
            }
        }
    }
    Err(NetlinkError::Malformed("conntrack entry without a source"))
}
