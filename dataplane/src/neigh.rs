//! Permanent neighbour entries: the address of a workload and its MAC address, so that no ARP is needed.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, route::RouteType};
use tortie_api::net::IpVersion;

use crate::link::MacAddr;
use crate::netlink::{Batch, Channel, NetlinkError};
use crate::rtnl;

/// A permanent entry of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The interface's index.
    pub ifindex: u32,
    /// The address.
    pub addr: IpAddr,
    /// Where it is.
    pub mac: MacAddr,
}

/// Reads the permanent entries of one family, of one interface or of all.
pub fn list(
    channel: &mut Channel,
    version: IpVersion,
    ifindex: Option<u32>,
) -> Result<Vec<Neighbour>, NetlinkError> {
    let mut request = NeighbourMessage::default();
    request.header.family = family(version);
    if let Some(ifindex) = ifindex {
        request.attributes.push(NeighbourAttribute::IfIndex(ifindex));
    }
    rtnl::dump(channel, &RouteNetlinkMessage::GetNeighbour(request), |message| {
        let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
        // Kernels that do not filter send everything.
        parse(&message).filter(|found| ifindex.is_none_or(|wanted| found.ifindex == wanted))
    })
}

/// Appends the creation of an entry, in place of any other for the address.
pub fn set(batch: &mut Batch, neighbour: &Neighbour) {
    let mut message = message(neighbour);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.octets().to_vec()));
    rtnl::push(batch, &RouteNetlinkMessage::NewNeighbour(message), rtnl::CREATE | rtnl::REPLACE);
}

/// Appends the deletion of an entry.
pub fn delete(batch: &mut Batch, neighbour: &Neighbour) {
    rtnl::push(batch, &RouteNetlinkMessage::DelNeighbour(message(neighbour)), 0);
}

fn message(neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(IpVersion::of_addr(&neighbour.addr));
    message.header.ifindex = neighbour.ifindex;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(neighbour.addr.into()));
    message
}

fn parse(message: &NeighbourMessage) -> Option<Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut addr, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                addr = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                addr = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr::new);
            }
            _ => {}
        }
    }
    Some(Neighbour { ifindex: message.header.ifindex, addr: addr?, mac: mac? })
}

/// The address family of an IP version.
pub(crate) fn family(version: IpVersion) -> AddressFamily {
    match version {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    }
}
