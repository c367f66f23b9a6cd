//! Parts of packets, by where they stand.

/// From where an offset counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadBase {
    /// The link's header.
    Link,
    /// The IP header.
    Network,
    /// The header behind it.
    Transport,
}

/// Some bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload {
    /// From where.
    pub base: PayloadBase,
    /// So many bytes on.
    pub offset: u32,
    /// So many bytes.
    pub len: u32,
}

impl Payload {
    /// `ether saddr`.
    pub const ETHER_SOURCE: Self = Self::link(6, 6);
    /// `ether daddr`.
    pub const ETHER_DESTINATION: Self = Self::link(0, 6);
    /// The byte of an IPv4 header whose upper six bits are `ip dscp`.
    pub const IPV4_DSCP: Self = Self::network(1, 1);
    /// The same with the byte before it: what is written, since the checksum is mended for whole words. Bits `0x00fc`.
    pub const IPV4_DSCP_WORD: Self = Self::network(0, 2);
    /// `ip protocol`.
    pub const IPV4_PROTOCOL: Self = Self::network(9, 1);
    /// `ip saddr`.
    pub const IPV4_SOURCE: Self = Self::network(12, 4);
    /// `ip daddr`.
    pub const IPV4_DESTINATION: Self = Self::network(16, 4);
    /// The two bytes of an IPv6 header whose bits `0x0fc0` are `ip6 dscp`.
    pub const IPV6_DSCP: Self = Self::network(0, 2);
    /// `ip6 nexthdr`.
    pub const IPV6_NEXT_HEADER: Self = Self::network(6, 1);
    /// `ip6 saddr`.
    pub const IPV6_SOURCE: Self = Self::network(8, 16);
    /// `ip6 daddr`.
    pub const IPV6_DESTINATION: Self = Self::network(24, 16);
    /// `arp operation`.
    pub const ARP_OPERATION: Self = Self::network(6, 2);
    /// `arp saddr ether`.
    pub const ARP_SOURCE_ETHER: Self = Self::network(8, 6);
    /// `arp saddr ip`.
    pub const ARP_SOURCE_IPV4: Self = Self::network(14, 4);
    /// `th sport`: of TCP, UDP, SCTP, DCCP and UDP-Lite.
    pub const SOURCE_PORT: Self = Self::transport(0, 2);
    /// `th dport`.
    pub const DESTINATION_PORT: Self = Self::transport(2, 2);
    /// `icmp type`, `icmpv6 type`.
    pub const ICMP_TYPE: Self = Self::transport(0, 1);
    /// `icmp code`, `icmpv6 code`.
    pub const ICMP_CODE: Self = Self::transport(1, 1);
    /// `tcp flags`: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub const TCP_FLAGS: Self = Self::transport(13, 1);

    const fn link(offset: u32, len: u32) -> Self {
        Self { base: PayloadBase::Link, offset, len }
    }

    const fn network(offset: u32, len: u32) -> Self {
        Self { base: PayloadBase::Network, offset, len }
    }

    const fn transport(offset: u32, len: u32) -> Self {
        Self { base: PayloadBase::Transport, offset, len }
    }
}

/// The Internet checksum that a change of the payload has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum {
    /// Where it stands, from the payload's base on.
    pub offset: u32,
    /// The bytes written are a part of the transport's pseudo header (addresses), so its checksum follows too.
    pub pseudo_header: bool,
}

impl Checksum {
    /// That of an IPv4 header, for fields that are no addresses.
    pub const IPV4_HEADER: Self = Self { offset: 10, pseudo_header: false };
}
