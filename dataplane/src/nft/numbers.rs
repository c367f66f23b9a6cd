//! The kernel's numbers for what the tree names (`linux/netfilter/nf_tables.h`, `linux/netfilter.h`).

use tortie_rules::ruleset::nft::{
    ChainKind, Comparison, ConntrackKey, Direction, Family, FieldType, Hook, MetaKey, PayloadBase, Policy,
    RouteKey, SetOperation,
};

/// Types of messages (`enum nf_tables_msg_types`).
pub(super) mod message {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DEL_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const DEL_CHAIN: u16 = 5;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DEL_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const DEL_SET: u16 = 11;
    pub(crate) const NEW_ELEMENT: u16 = 12;
    pub(crate) const GET_ELEMENT: u16 = 13;
    pub(crate) const DEL_ELEMENT: u16 = 14;
    pub(crate) const NEW_GENERATION: u16 = 15;
    pub(crate) const GET_GENERATION: u16 = 16;
    pub(crate) const NEW_OBJECT: u16 = 18;
    pub(crate) const NEW_FLOWTABLE: u16 = 22;
    pub(crate) const GET_FLOWTABLE: u16 = 23;
    pub(crate) const DEL_FLOWTABLE: u16 = 24;
    pub(crate) const DESTROY_TABLE: u16 = 26;
    pub(crate) const DESTROY_CHAIN: u16 = 27;
    pub(crate) const DESTROY_SET: u16 = 29;
    pub(crate) const DESTROY_ELEMENT: u16 = 30;
    pub(crate) const DESTROY_FLOWTABLE: u16 = 32;
}

/// The number of something in a table that lists all.
fn number<T: PartialEq + Copy>(table: &[(T, u32)], value: T) -> u32 {
    table.iter().find(|(known, _)| *known == value).map_or(u32::MAX, |(_, number)| *number)
}

fn value<T: Copy>(table: &[(T, u32)], wanted: u32) -> Option<T> {
    table.iter().find(|(_, number)| *number == wanted).map(|(value, _)| *value)
}

/// Both ways between a type and its numbers.
macro_rules! numbered {
    ($to:ident, $from:ident, $kind:ty, $table:ident: $($variant:ident = $number:expr),+ $(,)?) => {
        const $table: &[($kind, u32)] = &[$((<$kind>::$variant, $number)),+];

        /// The kernel's number.
        pub(super) fn $to(value: $kind) -> u32 {
            number($table, value)
        }

        /// What has this number.
        pub(super) fn $from(number: u32) -> Option<$kind> {
            value($table, number)
        }
    };
}

numbered!(family_number, family_of, Family, FAMILIES:
    Inet = 1, Ipv4 = 2, Arp = 3, Netdev = 5, Bridge = 7, Ipv6 = 10);

/// `NFPROTO_*`.
#[allow(clippy::cast_possible_truncation, reason = "all are below 256")]
pub(super) fn family(family: Family) -> u8 {
    family_number(family) as u8
}

numbered!(meta_key, meta_key_of, MetaKey, META_KEYS:
    Length = 0, EtherType = 1, Priority = 2, Mark = 3, InIndex = 4, OutIndex = 5, InInterface = 6, OutInterface = 7,
    InType = 8, OutType = 9, SocketUser = 10, SocketGroup = 11, Trace = 12, Family = 15, Protocol = 16, PacketType = 19,
    Processor = 20, InGroup = 21, OutGroup = 22, Random = 24);

numbered!(conntrack_key, conntrack_key_of, ConntrackKey, CONNTRACK_KEYS:
    State = 0, Direction = 1, Status = 2, Mark = 3, Expiration = 5, Family = 7, Protocol = 10, SourcePort = 11,
    DestinationPort = 12, Packets = 14, Bytes = 15, Zone = 17, SourceIpv4 = 19, DestinationIpv4 = 20, SourceIpv6 = 21,
    DestinationIpv6 = 22, Id = 24);

numbered!(direction, direction_of, Direction, DIRECTIONS: Original = 0, Reply = 1);

numbered!(route_key, route_key_of, RouteKey, ROUTE_KEYS:
    ClassId = 0, NextHopIpv4 = 1, NextHopIpv6 = 2, TcpMss = 3);

numbered!(comparison, comparison_of, Comparison, COMPARISONS:
    Equal = 0, NotEqual = 1, Less = 2, LessOrEqual = 3, Greater = 4, GreaterOrEqual = 5);

numbered!(payload_base, payload_base_of, PayloadBase, PAYLOAD_BASES: Link = 0, Network = 1, Transport = 2);

numbered!(set_operation, set_operation_of, SetOperation, SET_OPERATIONS: Add = 0, Update = 1, Delete = 2);

numbered!(policy, policy_of, Policy, POLICIES: Drop = 0, Accept = 1);

numbered!(inet_hook, inet_hook_of, Hook, INET_HOOKS:
    Prerouting = 0, Input = 1, Forward = 2, Output = 3, Postrouting = 4, Ingress = 5);
numbered!(arp_hook, arp_hook_of, Hook, ARP_HOOKS: Input = 0, Output = 1, Forward = 2);
numbered!(netdev_hook, netdev_hook_of, Hook, NETDEV_HOOKS: Ingress = 0, Egress = 1);

/// Hooks are numbered by family. One that the family lacks has a number that the kernel refuses.
pub(super) fn hook(family: Family, hook: Hook) -> u32 {
    match family {
        Family::Netdev => netdev_hook(hook),
        Family::Arp => arp_hook(hook),
        _ => inet_hook(hook),
    }
}

/// The hook of this number.
pub(super) fn hook_of(family: Family, number: u32) -> Option<Hook> {
    match family {
        Family::Netdev => netdev_hook_of(number),
        Family::Arp => arp_hook_of(number),
        _ => inet_hook_of(number),
    }
}

/// The kernel names kinds of chains.
pub(super) const fn chain_kind(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}

/// The kind of this name.
pub(super) fn chain_kind_of(name: &str) -> Option<ChainKind> {
    [ChainKind::Filter, ChainKind::Nat, ChainKind::Route].into_iter().find(|kind| chain_kind(*kind) == name)
}

// nft's numbers for data types (`enum datatypes`); the kernel only keeps them.
numbered!(field_type, field_type_of, FieldType, FIELD_TYPES:
    Family = 2, Ipv4 = 7, Ipv6 = 8, Ether = 9, EtherType = 10, Protocol = 12, Port = 13, IcmpType = 14, Mark = 19,
    InterfaceIndex = 20, ConntrackState = 26, Icmpv6Type = 29, IcmpCode = 32, Icmpv6Code = 33, Dscp = 36, AddressType = 38, Interface = 41);

/// Bits of a type's number in that of a concatenation.
const FIELD_TYPE_BITS: u32 = 6;

/// nft's number for a concatenation: the first field's in the highest bits.
pub(super) fn concatenation(fields: &[FieldType]) -> u32 {
    fields.iter().fold(0, |all, field| all << FIELD_TYPE_BITS | field_type(*field))
}

/// The fields of a concatenation's number.
pub(super) fn concatenation_of(mut number: u32) -> Option<Vec<FieldType>> {
    let mut fields = Vec::new();
    while number != 0 {
        fields.push(field_type_of(number & ((1 << FIELD_TYPE_BITS) - 1))?);
        number >>= FIELD_TYPE_BITS;
    }
    fields.reverse();
    if fields.is_empty() { None } else { Some(fields) }
}
