//! What comes back from listing sets: names, headers, members.

use std::net::IpAddr;

use super::{
    ATTR_ADT, ATTR_DATA, ATTR_FAMILY, ATTR_SETNAME, ATTR_TYPENAME, DATA_CIDR, DATA_IP, DATA_MAXELEM,
    DATA_PORT, DATA_PORT_TO, DATA_PROTO, HEADER_LEN, IPADDR_V4, IPADDR_V6, family_number,
};
use crate::ipset::member::{Member, MemberSet, SetSpec, SetType};
use crate::netlink::{Attribute, Attributes, DumpSink, Message, NetlinkError, be16, be32};

const DATA_TIMEOUT: u16 = 6;
const DATA_FLAGS: u16 = 8;
const DATA_MARKMASK: u16 = 11;
const DATA_BITMASK: u16 = 12;
const DATA_NETMASK: u16 = 20;

/// What the kernel says a set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ipset) struct Header {
    type_name: String,
    family: u8,
    max_elements: Option<u32>,
    /// Timeouts, counters, comments, a mask or a range: a set that behaves differently from ours.
    has_options: bool,
}

impl Header {
    /// Whether the set is of the wanted kind, however many members it can hold.
    pub(in crate::ipset) fn is(&self, spec: &SetSpec) -> bool {
        self.type_name == spec.set_type.name()
            && !self.has_options
            && (spec.set_type == SetType::BitmapPort || self.family == family_number(spec.family))
    }

    /// The most members that it can hold.
    pub(in crate::ipset) fn capacity(&self) -> u32 {
        self.max_elements.unwrap_or(u32::MAX)
    }
}

/// Contents of a set as listed.
#[derive(Debug)]
pub(in crate::ipset) struct Listing {
    pub(in crate::ipset) header: Header,
    /// Empty when the header is not that of the wanted set.
    pub(in crate::ipset) members: MemberSet,
}

/// Collects names.
#[derive(Default)]
pub(super) struct Names(pub(super) Vec<String>);

impl DumpSink for Names {
    fn restart(&mut self) {
        self.0.clear();
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        for attribute in Attributes::after(message.payload, HEADER_LEN)? {
            let attribute = attribute?;
            if attribute.kind == ATTR_SETNAME {
                // A name that is not text cannot be ours.
                self.0.extend(attribute.text().ok().map(ToOwned::to_owned));
            }
        }
        Ok(())
    }
}

/// Collects one set. A large one comes in many messages; the first has the header, all have the name.
pub(super) struct Lister<'a> {
    pub(super) spec: &'a SetSpec,
    pub(super) header: Option<Header>,
    pub(super) members: MemberSet,
}

impl DumpSink for Lister<'_> {
    fn restart(&mut self) {
        self.header = None;
        self.members = MemberSet::new(self.spec);
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        let attributes = Attributes::after(message.payload, HEADER_LEN)?;
        if self.header.is_none() {
            self.header = read_header(attributes.clone())?;
        }
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == ATTR_ADT {
                self.read_members(&attribute)?;
            }
        }
        Ok(())
    }
}

impl Lister<'_> {
    fn read_members(&mut self, list: &Attribute<'_>) -> Result<(), NetlinkError> {
        let Some(header) = &mut self.header else {
            return Err(NetlinkError::Malformed("members before the set's header"));
        };
        if !header.is(self.spec) {
            return Ok(());
        }
        for data in list.nested() {
            let (member, plain) = read_member(self.spec.set_type, &data?)?;
            // An exception (`nomatch`) or the like: such a set is made anew.
            header.has_options |= !plain;
            self.members.insert(&member);
        }
        Ok(())
    }
}

fn read_header(attributes: Attributes<'_>) -> Result<Option<Header>, NetlinkError> {
    let mut header = Header { type_name: String::new(), family: 0, max_elements: None, has_options: false };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            ATTR_TYPENAME => attribute.text()?.clone_into(&mut header.type_name),
            ATTR_FAMILY => header.family = attribute.u8()?,
            ATTR_DATA => read_options(&attribute, &mut header)?,
            _ => {}
        }
    }
    Ok((!header.type_name.is_empty()).then_some(header))
}

fn read_options(data: &Attribute<'_>, header: &mut Header) -> Result<(), NetlinkError> {
    for attribute in data.nested() {
        let attribute = attribute?;
        match attribute.kind {
            DATA_MAXELEM => header.max_elements = Some(be32(&attribute)?),
            DATA_PORT => header.has_options |= be16(&attribute)? != 0,
            DATA_PORT_TO => header.has_options |= be16(&attribute)? != u16::MAX,
            DATA_TIMEOUT | DATA_FLAGS | DATA_NETMASK | DATA_BITMASK | DATA_MARKMASK => {
                header.has_options = true;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A member, and whether it is nothing but that.
fn read_member(set_type: SetType, data: &Attribute<'_>) -> Result<(Member, bool), NetlinkError> {
    let (mut addr, mut cidr, mut port, mut protocol, mut plain) = (None, None, None, None, true);
    for attribute in data.nested() {
        let attribute = attribute?;
        match attribute.kind {
            DATA_IP => addr = Some(read_address(&attribute)?),
            DATA_CIDR => cidr = Some(attribute.u8()?),
            DATA_PORT => port = Some(be16(&attribute)?),
            DATA_PROTO => protocol = Some(attribute.u8()?),
            DATA_FLAGS | DATA_TIMEOUT => plain = false,
            _ => {}
        }
    }
    let member = match (set_type, addr, port, protocol) {
        (SetType::HashIp, Some(addr), ..) => Some(Member::Addr(addr)),
        (SetType::HashNet, Some(addr), ..) => {
            let host = if addr.is_ipv4() { 32 } else { 128 };
            ipnet::IpNet::new(addr, cidr.unwrap_or(host)).ok().map(Member::Net)
        }
        (SetType::HashIpPort, Some(addr), Some(port), Some(protocol)) => {
            Some(Member::AddrPort { addr, protocol, port })
        }
        (SetType::BitmapPort, _, Some(port), _) => Some(Member::Port(port)),
        _ => None,
    };
    member.map(|member| (member, plain)).ok_or(NetlinkError::Malformed("incomplete member"))
}

fn read_address(attribute: &Attribute<'_>) -> Result<IpAddr, NetlinkError> {
    for inner in attribute.nested() {
        let inner = inner?;
        match inner.kind {
            IPADDR_V4 => return Ok(IpAddr::from(inner.array::<4>()?)),
            IPADDR_V6 => return Ok(IpAddr::from(inner.array::<16>()?)),
            _ => {}
        }
    }
    Err(NetlinkError::Malformed("address missing"))
}
