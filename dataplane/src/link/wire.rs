//! Link and address messages, read by hand: five attributes of a link are needed, and an attribute that a
//! general parser does not know or takes for malformed must not make an interface invisible.
//!
//! Numbers are from `linux/rtnetlink.h`, `if_link.h` and `if_addr.h`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::MacAddr;
use crate::netlink::{Attributes, Channel, DumpSink, Message, NetlinkError};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;

/// `struct ifinfomsg`: family u8, pad u8, type u16, index i32, flags u32, change u32.
const LINK_HEADER_LEN: usize = 16;
/// `struct ifaddrmsg`: family u8, prefix length u8, flags u8, scope u8, index u32.
const ADDRESS_HEADER_LEN: usize = 8;

const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 1 << 6;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATS: u32 = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const AF_UNSPEC: u8 = 0;

/// What a message says about a link itself.
#[derive(Debug)]
pub(super) struct LinkFields {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) running: bool,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: u32,
}

/// A message's meaning.
#[derive(Debug)]
pub(super) enum Change {
    Link(LinkFields),
    LinkGone { index: u32 },
    Address { index: u32, address: IpNet, present: bool },
}

/// The meaning of an event or of a dump's message; `None` for those that do not concern us.
pub(super) fn parse(message: &Message<'_>) -> Result<Option<Change>, NetlinkError> {
    match message.kind {
        NEWLINK | DELLINK => parse_link(message),
        NEWADDR | DELADDR => parse_address(message),
        _ => Ok(None),
    }
}

pub(super) fn dump_links(channel: &mut Channel) -> Result<Vec<Change>, NetlinkError> {
    let mut sink = Sink(Vec::new());
    channel.dump(
        GETLINK,
        &|writer| {
            writer.raw(&[0; LINK_HEADER_LEN]);
            writer.u32(IFLA_EXT_MASK, SKIP_STATS);
        },
        &mut sink,
    )?;
    Ok(sink.0)
}

pub(super) fn dump_addresses(channel: &mut Channel) -> Result<Vec<Change>, NetlinkError> {
    let mut sink = Sink(Vec::new());
    channel.dump(GETADDR, &|writer| writer.raw(&[0; ADDRESS_HEADER_LEN]), &mut sink)?;
    Ok(sink.0)
}

struct Sink(Vec<Change>);

impl DumpSink for Sink {
    fn restart(&mut self) {
        self.0.clear();
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        self.0.extend(parse(&message)?);
        Ok(())
    }
}

fn parse_link(message: &Message<'_>) -> Result<Option<Change>, NetlinkError> {
    let Some(header) = message.payload.first_chunk::<LINK_HEADER_LEN>() else {
        return Err(NetlinkError::Malformed("link header cut short"));
    };
    // Bridges announce their ports with a family of their own; a port that leaves is not a link that goes.
    if header[0] != AF_UNSPEC {
        return Ok(None);
    }
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    if message.kind == DELLINK {
        return Ok(Some(Change::LinkGone { index }));
    }
    let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    let mut fields = LinkFields {
        index,
        name: String::new(),
        up: flags & IFF_UP != 0,
        running: flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING,
        mac: None,
        mtu: 0,
    };
    for attribute in Attributes::after(message.payload, LINK_HEADER_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_ADDRESS => fields.mac = attribute.array().ok().map(MacAddr::new),
            IFLA_IFNAME => attribute.text()?.clone_into(&mut fields.name),
            IFLA_MTU => fields.mtu = u32::from_ne_bytes(attribute.array()?),
            _ => {}
        }
    }
    // Notices about one aspect of a link (wireless) have no name.
    Ok((!fields.name.is_empty()).then_some(Change::Link(fields)))
}

fn parse_address(message: &Message<'_>) -> Result<Option<Change>, NetlinkError> {
    let Some(header) = message.payload.first_chunk::<ADDRESS_HEADER_LEN>() else {
        return Err(NetlinkError::Malformed("address header cut short"));
    };
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let (mut address, mut local) = (None, None);
    for attribute in Attributes::after(message.payload, ADDRESS_HEADER_LEN)? {
        let attribute = attribute?;
        let target = match attribute.kind {
            IFA_ADDRESS => &mut address,
            IFA_LOCAL => &mut local,
            _ => continue,
        };
        *target = match attribute.value.len() {
            4 => Some(IpAddr::from(attribute.array::<4>()?)),
            16 => Some(IpAddr::from(attribute.array::<16>()?)),
            _ => None,
        };
    }
    // On a point-to-point link `IFA_ADDRESS` is the other end's.
    let address = local.or(address).and_then(|addr| IpNet::new(addr, header[1]).ok());
    Ok(address.map(|address| Change::Address { index, address, present: message.kind == NEWADDR }))
}
