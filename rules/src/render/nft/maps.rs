//! Verdict maps, and the rules that look into them.

use tortie_api::net::IpVersion;

use super::base::chain_name;
use super::matches::{address, port_of};
use crate::render::Table;
use crate::ruleset::nft::{
    Data, Element, ElementKey, Expression, FieldType, MetaKey, Register, Set, Verdict,
};
use crate::ruleset::{self, Key, KeyField, MapType, Side};

/// The name here of a map of one of iptables' tables.
pub fn map_name(table: Table, name: &str) -> String {
    chain_name(table, name)
}

/// A map without its elements, or a set if all of these say the same.
pub fn map(table: Table, version: IpVersion, map: &ruleset::Map) -> Set {
    let address = match version {
        IpVersion::V4 => FieldType::Ipv4,
        IpVersion::V6 => FieldType::Ipv6,
    };
    let key = match map.holds {
        MapType::Interface => vec![FieldType::Interface],
        MapType::Address | MapType::AddressRange => vec![address],
        MapType::ProtocolPort => vec![FieldType::Protocol, FieldType::Port],
        MapType::PortRange => vec![FieldType::Port],
        MapType::AddressProtocolPort => vec![address, FieldType::Protocol, FieldType::Port],
    };
    let name = map_name(table, &map.name);
    let set = if map.all.is_some() { Set::new(name, key) } else { Set::verdict_map(name, key) };
    if map.holds.is_interval() { set.of_intervals() } else { set }
}

/// The key of an element.
pub fn map_key(key: &Key) -> ElementKey {
    let ports = |protocol: u8, port: u16| [Data::u8(protocol), Data::be16(port)];
    match key {
        Key::Interface(name) => ElementKey::Value(Data::interface(name)),
        Key::Address(address) => ElementKey::Value(Data::address(*address)),
        Key::AddressRange(first, last) => {
            ElementKey::Interval(Box::new((Data::address(*first), Data::address(*last))))
        }
        Key::ProtocolPort(protocol, port) => ElementKey::Value(Data::concat(ports(*protocol, *port))),
        Key::PortRange(range) => {
            ElementKey::Interval(Box::new((Data::be16(range.first()), Data::be16(range.last()))))
        }
        Key::AddressProtocolPort(address, protocol, port) => {
            let [protocol, port] = ports(*protocol, *port);
            ElementKey::Value(Data::concat([Data::address(*address), protocol, port]))
        }
    }
}

/// An element with its verdict.
pub fn map_element(table: Table, key: &Key, said: &ruleset::Verdict) -> Element {
    set_element(key).verdict(verdict(table, said))
}

/// An element of a map all of whose elements say the same.
pub fn set_element(key: &Key) -> Element {
    Element { key: map_key(key), value: None, extras: None }
}

fn verdict(table: Table, verdict: &ruleset::Verdict) -> Verdict {
    match verdict {
        ruleset::Verdict::Accept => Verdict::Accept,
        ruleset::Verdict::Drop => Verdict::Drop,
        ruleset::Verdict::Return => Verdict::Return,
        ruleset::Verdict::Jump(chain) => Verdict::Jump(chain_name(table, chain)),
        ruleset::Verdict::Goto(chain) => Verdict::Goto(chain_name(table, chain)),
    }
}

/// `meta l4proto . th dport vmap @map`, or `… @map return`.
pub(super) fn push_lookup(
    table: Table,
    version: IpVersion,
    (fields, map, all): (&[KeyField], &str, Option<&ruleset::Verdict>),
    out: &mut Vec<Expression>,
) -> Result<(), &'static str> {
    let mut to = Some(Register::FIRST);
    for field in fields {
        let here = to.ok_or("a key longer than the registers")?;
        let (load, len) = match field {
            KeyField::InInterface => (Expression::Meta { key: MetaKey::InInterface, to: here }, 16),
            KeyField::OutInterface => (Expression::Meta { key: MetaKey::OutInterface, to: here }, 16),
            KeyField::Address(side) => {
                let payload = address(version, *side);
                (Expression::Payload { payload, to: here }, payload.len as usize)
            }
            KeyField::Protocol => (Expression::Meta { key: MetaKey::Protocol, to: here }, 1),
            KeyField::DestinationPort => {
                (Expression::Payload { payload: port_of(Side::Destination), to: here }, 2)
            }
        };
        out.push(load);
        to = here.after(len);
    }
    let (name, key) = (map_name(table, map), Register::FIRST);
    match all {
        None => out.push(Expression::VerdictMap { map: name, key }),
        Some(all) => {
            out.push(Expression::Lookup { set: name, key, negate: false });
            out.push(Expression::Verdict(verdict(table, all)));
        }
    }
    Ok(())
}
