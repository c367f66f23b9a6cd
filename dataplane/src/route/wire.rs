//! Route messages: reading the main table, adding and deleting routes of an interface.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use nix::errno::Errno;
use tortie_api::net::IpVersion;

use crate::neigh::family;
use crate::netlink::{Batch, Channel, NetlinkError};
use crate::rtnl;

/// A unicast route of the main table through one interface, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) dest: IpNet,
    pub(super) metric: u32,
    pub(super) tos: u8,
    /// `RTPROT_*`: who made it.
    pub(super) protocol: u8,
    /// `RT_SCOPE_*`.
    pub(super) scope: u8,
    pub(super) gateway: Option<IpAddr>,
    pub(super) src: Option<IpAddr>,
}

impl Found {
    /// What the kernel allows only once: another route with the same is replaced.
    pub(super) fn is_same_slot(&self, other: &Self) -> bool {
        self.dest == other.dest && self.metric == other.metric && self.tos == other.tos
    }
}

/// Reads the unicast routes of the main table, of one interface or of all, with the interface's index.
pub(super) fn list(
    channel: &mut Channel,
    version: IpVersion,
    ifindex: Option<u32>,
) -> Result<Vec<(u32, Found)>, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(version);
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    if let Some(ifindex) = ifindex {
        request.attributes.push(RouteAttribute::Oif(ifindex));
    }
    let listed = rtnl::dump(channel, &RouteNetlinkMessage::GetRoute(request), |message| {
        let RouteNetlinkMessage::NewRoute(message) = message else { return None };
        // Kernels that do not filter send everything.
        parse(version, &message).filter(|(found, _)| ifindex.is_none_or(|wanted| *found == wanted))
    });
    match listed {
        // Where there has never been a route there is no table.
        Err(error) if error.refusal().is_some_and(|refusal| refusal.is(Errno::ENOENT)) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Appends the creation of a route; without `replace` another one in its slot makes it fail.
pub(super) fn add(batch: &mut Batch, version: IpVersion, ifindex: u32, route: &Found, replace: bool) {
    let flags = rtnl::CREATE | if replace { rtnl::REPLACE } else { rtnl::EXCL };
    rtnl::push(batch, &RouteNetlinkMessage::NewRoute(message(version, ifindex, route)), flags);
}

/// Appends the deletion of exactly this route.
pub(super) fn delete(batch: &mut Batch, version: IpVersion, ifindex: u32, route: &Found) {
    rtnl::push(batch, &RouteNetlinkMessage::DelRoute(message(version, ifindex, route)), 0);
}

fn message(version: IpVersion, ifindex: u32, route: &Found) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(version),
        destination_prefix_length: route.dest.prefix_len(),
        source_prefix_length: 0,
        tos: route.tos,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(route.protocol),
        scope: RouteScope::from(route.scope),
        kind: RouteType::Unicast,
        flags: RouteFlags::empty(),
    };
    message.attributes.push(RouteAttribute::Destination(route.dest.network().into()));
    message.attributes.push(RouteAttribute::Oif(ifindex));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    message.attributes.extend(route.gateway.map(|addr| RouteAttribute::Gateway(addr.into())));
    message.attributes.extend(route.src.map(|addr| RouteAttribute::PrefSource(addr.into())));
    message
}

fn parse(version: IpVersion, message: &RouteMessage) -> Option<(u32, Found)> {
    let header = &message.header;
    let is_ours_to_judge = header.address_family == family(version)
        && header.kind == RouteType::Unicast
        && header.source_prefix_length == 0
        && !header.flags.contains(RouteFlags::Cloned);
    if !is_ours_to_judge {
        return None;
    }
    let unspecified = match version {
        IpVersion::V4 => IpAddr::from([0; 4]),
        IpVersion::V6 => IpAddr::from([0; 16]),
    };
    let (mut dest, mut oif, mut table) = (unspecified, None, u32::from(header.table));
    let (mut metric, mut gateway, mut src) = (0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => dest = address(addr)?,
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Gateway(addr) => gateway = address(addr),
            RouteAttribute::PrefSource(addr) => src = address(addr),
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let found = Found {
        dest: IpNet::new(dest, header.destination_prefix_length).ok()?,
        metric,
        tos: header.tos,
        protocol: header.protocol.into(),
        scope: header.scope.into(),
        gateway,
        src,
    };
    // Several next hops have no interface of their own in the message: such a route is not a workload's.
    Some((oif?, found))
}

fn address(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some(IpAddr::from(*addr)),
        RouteAddress::Inet6(addr) => Some(IpAddr::from(*addr)),
        _ => None,
    }
}
