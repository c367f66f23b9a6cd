//! What expressions look at, and how: keys, kinds and flags.

use std::time::Duration;

use super::Expression;
use super::Register;

/// What the kernel knows of a packet (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    /// Its length; host order.
    Length,
    /// The protocol of the link's payload; 2 bytes, network order.
    EtherType,
    /// Its class for traffic control; host order.
    Priority,
    /// Its mark; host order.
    Mark,
    /// The index of the interface it came by; host order.
    InIndex,
    /// The index of the interface it goes by; host order.
    OutIndex,
    /// The name of the interface it came by; 16 bytes.
    InInterface,
    /// The name of the interface it goes by; 16 bytes.
    OutInterface,
    /// The hardware type of the interface it came by; 2 bytes, host order.
    InType,
    /// The hardware type of the interface it goes by; 2 bytes, host order.
    OutType,
    /// The user who sent it; host order.
    SocketUser,
    /// That user's group; host order.
    SocketGroup,
    /// `nftrace`: 1 byte.
    Trace,
    /// `nfproto`, the number of its address family: 1 byte.
    Family,
    /// `l4proto`, the protocol behind the IP header and its extensions: 1 byte.
    Protocol,
    /// Unicast, broadcast and so on: 1 byte.
    PacketType,
    /// The processor; host order.
    Processor,
    /// The group of the interface it came by; host order.
    InGroup,
    /// The group of the interface it goes by; host order.
    OutGroup,
    /// A random number; 4 bytes.
    Random,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Less; the most significant byte first.
    Less,
    /// Less or the same.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or the same.
    GreaterOrEqual,
}

/// What connection tracking knows (`enum nft_ct_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConntrackKey {
    /// `ct state`, host order: invalid 1, established 2, related 4, new 8, untracked 64.
    State,
    /// `ct direction`, 1 byte: original 0, reply 1.
    Direction,
    /// `ct status`, host order; bits of `enum ip_conntrack_status`: snat 16, dnat 32.
    Status,
    /// `ct mark`; host order.
    Mark,
    /// Milliseconds left; host order.
    Expiration,
    /// The number of the address family; 1 byte.
    Family,
    /// The protocol; 1 byte.
    Protocol,
    /// The source port of a direction; network order.
    SourcePort,
    /// The destination port of a direction; network order.
    DestinationPort,
    /// Packets of a direction, or of both; 8 bytes, host order.
    Packets,
    /// Bytes of a direction, or of both; 8 bytes, host order.
    Bytes,
    /// The zone; 2 bytes, host order.
    Zone,
    /// The source address of a direction, IPv4.
    SourceIpv4,
    /// The destination address of a direction, IPv4.
    DestinationIpv4,
    /// The source address of a direction, IPv6.
    SourceIpv6,
    /// The destination address of a direction, IPv6.
    DestinationIpv6,
    /// A number for the connection; host order.
    Id,
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From who began it.
    Original,
    /// From who answers.
    Reply,
}

/// What the routing tables are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibResult {
    /// `oif`: the interface's index, 0 if there is no route; host order.
    OutIndex,
    /// `oifname`: its name.
    OutInterface,
    /// `type`: what kind of address it is (`RTN_*`: unicast 1, local 2); host order.
    AddressType,
    /// `check`, `oif` used as "exists": 1 or 0; 4 bytes, of which the first counts.
    Exists,
}

/// By what the routing tables are asked. One of `source` and `destination`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibSelector {
    /// By the source address.
    pub source: bool,
    /// By the destination address.
    pub destination: bool,
    /// With the packet's mark.
    pub mark: bool,
    /// Only by the interface the packet came by.
    pub in_interface: bool,
    /// Only by the interface the packet goes by.
    pub out_interface: bool,
}

/// What is known of the packet's route (`enum nft_rt_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKey {
    /// Its realm; host order.
    ClassId,
    /// Next hop, IPv4.
    NextHopIpv4,
    /// Next hop, IPv6.
    NextHopIpv6,
    /// The largest TCP segment; 2 bytes, host order.
    TcpMss,
}

/// Per how long a rate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitUnit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
}

impl LimitUnit {
    /// All, the shortest first.
    pub const ALL: [Self; 5] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week];

    /// Its length.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
            Self::Week => 7 * 24 * 60 * 60,
        }
    }
}

/// Who is told of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogTarget {
    /// The kernel's log.
    Kernel {
        /// Of this level: 4 is a warning, nft's default.
        level: u32,
        /// What else is told (`NF_LOG_*`); 0 is nothing.
        flags: u32,
    },
    /// Who listens to a group of nfnetlink_log.
    Group {
        /// The group.
        group: u16,
        /// At most so many bytes of the packet; 0 is all.
        snap_len: Option<u32>,
        /// So many packets at once.
        queue_threshold: Option<u16>,
    },
}

/// What is answered to a rejected packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectKind {
    /// An ICMP error (of the packet's IP version) of this code: ICMP port unreachable is 3, ICMPv6 port unreachable 4.
    Icmp(u8),
    /// The end of the TCP connection.
    TcpReset,
    /// An ICMP error by `NFT_REJECT_ICMPX_*`, in tables of both versions: port unreachable is 1.
    Icmpx(u8),
}

/// Which address is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// How a new port is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatFlags {
    /// `random`.
    pub random: bool,
    /// `fully-random`.
    pub fully_random: bool,
    /// `persistent`: a client keeps its address.
    pub persistent: bool,
}

/// What a rule does to a dynamic set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DynamicSet {
    /// What.
    pub operation: SetOperation,
    /// The set.
    pub set: String,
    /// The element's key.
    pub key: Register,
    /// In a map, its value.
    pub value: Option<Register>,
    /// How long it stays; milliseconds count.
    pub timeout: Option<Duration>,
    /// Matches when it could not be done.
    pub negate: bool,
    /// Carried out for the element, with its own state: counter, limit.
    pub expressions: Vec<Expression>,
}

/// What a rule does to a dynamic set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetOperation {
    /// Adds the element, if it is not there.
    Add,
    /// The same, and its time begins anew.
    Update,
    /// Takes it out.
    Delete,
}

/// What a hash is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashSource {
    /// `jhash` of a value.
    Jenkins {
        /// The value.
        from: Register,
        /// How many bytes.
        len: u32,
    },
    /// `symhash`: the connection's, the same in both directions.
    Symmetric,
}
