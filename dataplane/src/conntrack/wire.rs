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

pub(super) const SUBSYSTEM: u16 = 1;
pub(super) const NEW: u16 = 0;
pub(super) const GET: u16 = 1;
const DELETE: u16 = 2;

/// `struct nfgenmsg`: family, version, resource.
pub(super) const HEADER_LEN: usize = 4;

pub(super) const ATTR_TUPLE_ORIG: u16 = 1;
const ATTR_TUPLE_REPLY: u16 = 2;
const ATTR_ID: u16 = 12;
pub(super) const ATTR_ZONE: u16 = 18;
const ATTR_FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const IP_V4_SRC: u16 = 1;
const IP_V6_SRC: u16 = 3;
const IP_V4_DST: u16 = 2;
const IP_V6_DST: u16 = 4;
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
    /// The destination of the original direction, if it was asked for.
    pub(super) destination: Option<IpAddr>,
    original: Vec<u8>,
    zone: Option<[u8; 2]>,
    /// Another entry of the same tuple, made meanwhile, has another number.
    id: Option<[u8; 4]>,
}

/// Which entries are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Those with one of these as a source, of either direction.
    pub(super) sources: &'a BTreeSet<IpAddr>,
    /// Those that were sent to one of these, whoever answers.
    pub(super) destinations: &'a BTreeSet<IpAddr>,
}

impl Wanted<'_> {
    fn fits(&self, sources: &[IpAddr; 2], destination: Option<IpAddr>) -> bool {
        sources.iter().any(|source| self.sources.contains(source))
            || destination.is_some_and(|destination| self.destinations.contains(&destination))
    }
}

/// Dumps a family's entries, only those with this IPv4 source in this direction where the kernel can filter
/// (since Linux 5.8; older ones list all), and returns those that are wanted.
pub(super) fn list(
    channel: &mut Channel,
    version: IpVersion,
    filter: Option<(Direction, Ipv4Addr)>,
    wanted: Wanted<'_>,
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

pub(super) fn header(version: IpVersion) -> [u8; HEADER_LEN] {
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

/// Keeps the entries that are wanted. A full dump is far larger than what is looked for.
struct Finder<'a> {
    wanted: Wanted<'a>,
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

/// An entry, if it is wanted.
pub(super) fn read_entry(payload: &[u8], wanted: Wanted<'_>) -> Result<Option<Entry>, NetlinkError> {
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
    let sources = [read_address(&original, SOURCE)?, read_address(&reply, SOURCE)?];
    let destination =
        if wanted.destinations.is_empty() { None } else { Some(read_address(&original, DESTINATION)?) };
    let is_wanted = wanted.fits(&sources, destination);
    Ok(is_wanted.then(|| Entry { sources, destination, original: original.value.to_vec(), zone, id }))
}

/// Attributes of a source address, for IPv4 and IPv6.
const SOURCE: (u16, u16) = (IP_V4_SRC, IP_V6_SRC);
/// The same of a destination.
const DESTINATION: (u16, u16) = (IP_V4_DST, IP_V6_DST);

fn read_address(tuple: &Attribute<'_>, (v4, v6): (u16, u16)) -> Result<IpAddr, NetlinkError> {
    for part in tuple.nested() {
        let part = part?;
        if part.kind != TUPLE_IP {
            continue;
        }
        for address in part.nested() {
            let address = address?;
            if address.kind == v4 {
                return Ok(IpAddr::from(address.array::<4>()?));
            }
            if address.kind == v6 {
                return Ok(IpAddr::from(address.array::<16>()?));
            }
        }
    }
    Err(NetlinkError::Malformed("conntrack entry without an address"))
}
