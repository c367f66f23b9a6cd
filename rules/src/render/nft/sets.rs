//! Ip sets as named sets.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::net::IpVersion;

use crate::compile::classic::SetType;
use crate::graph::model::Member;
use crate::ruleset::nft::{Data, Element, FieldType, Set};

/// The name here of an ip set: nft's language has no colon in names. The same as Felix's.
pub fn set_name(name: &str) -> String {
    name.replace(':', "-")
}

/// The named set for an ip set. `interval` is for sets of networks that hold more than single addresses.
pub fn set(name: &str, version: IpVersion, set_type: SetType, interval: bool) -> Set {
    let address = match version {
        IpVersion::V4 => FieldType::Ipv4,
        IpVersion::V6 => FieldType::Ipv6,
    };
    let key = match set_type {
        SetType::Address | SetType::Net => vec![address],
        SetType::AddressPort => vec![address, FieldType::Protocol, FieldType::Port],
    };
    let set = Set::new(set_name(name), key);
    if interval { set.of_intervals() } else { set }
}

/// The element for a member: of a set of intervals, a range.
pub fn element(member: &Member, interval: bool) -> Element {
    match member {
        Member::Net(net) if interval => {
            let (first, last) = bounds(net);
            Element::interval(Data::address(first), Data::address(last))
        }
        Member::Net(net) => Element::new(Data::address(net.addr())),
        Member::AddressPort(address, protocol, port) => {
            Element::new(Data::concat([Data::address(*address), Data::u8(*protocol), Data::be16(*port)]))
        }
    }
}

/// First and last address.
fn bounds(net: &IpNet) -> (IpAddr, IpAddr) {
    (net.network(), net.broadcast())
}
