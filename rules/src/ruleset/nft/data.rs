//! Values, the registers that hold them, their types, and verdicts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

/// The kernel's room for an interface's name, with the zero at its end (`IFNAMSIZ`).
const INTERFACE_LEN: usize = 16;

/// A value as a register holds it: bytes, in the order that its [`FieldType`] says. A concatenation is its fields one
/// after the other, each filled up with zeros to a multiple of four bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Data(SmallVec<[u8; 24]>);

impl Data {
    /// These bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// One byte: a protocol, an ICMP type, TCP flags.
    pub fn u8(value: u8) -> Self {
        Self::new(&[value])
    }

    /// Two bytes in network order: a port.
    pub fn be16(value: u16) -> Self {
        Self::new(&value.to_be_bytes())
    }

    /// Four bytes in network order.
    pub fn be32(value: u32) -> Self {
        Self::new(&value.to_be_bytes())
    }

    /// Four bytes in the host's order: a mark, a conntrack state, an interface's index.
    pub fn host32(value: u32) -> Self {
        Self::new(&value.to_ne_bytes())
    }

    /// An address.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }

    /// The whole name of an interface; the kernel knows none above 15 bytes, and what is longer is cut.
    pub fn interface(name: &str) -> Self {
        let mut bytes = [0; INTERFACE_LEN];
        let len = name.len().min(INTERFACE_LEN - 1);
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        Self::new(&bytes)
    }

    /// How an interface's name begins: only for [`super::Expression::Compare`], which looks at these bytes alone.
    pub fn interface_prefix(start: &str) -> Self {
        Self::new(start.as_bytes())
    }

    /// Fields one after the other, for the key of a set with several.
    pub fn concat(fields: impl IntoIterator<Item = Self>) -> Self {
        let mut bytes = SmallVec::new();
        for field in fields {
            bytes.extend_from_slice(&field.0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Ipv4Addr> for Data {
    fn from(address: Ipv4Addr) -> Self {
        Self::new(&address.octets())
    }
}

impl From<Ipv6Addr> for Data {
    fn from(address: Ipv6Addr) -> Self {
        Self::new(&address.octets())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One of the sixteen 4-byte words that a rule computes with. A value takes as many as it needs, from this one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(u8);

impl Register {
    /// How many there are.
    pub const COUNT: u8 = 16;
    /// The first: what a rule without concatenations needs.
    pub const FIRST: Self = Self(0);

    /// The word of this number, 0 to 15.
    pub const fn word(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The first one behind a value of `len` bytes that begins here; `None` behind the last.
    pub const fn after(self, len: usize) -> Option<Self> {
        let words = len.div_ceil(4);
        if words < Self::COUNT as usize {
            #[allow(clippy::cast_possible_truncation, reason = "below 16")]
            Self::word(self.0 + words as u8)
        } else {
            None
        }
    }

    /// Its number, 0 to 15.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What a verdict tells the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// No further rule of this base chain.
    Accept,
    /// The packet is gone.
    Drop,
    /// The next rule: what a map says for keys that are to be passed over.
    Continue,
    /// Back to the calling chain.
    Return,
    /// Into a chain, and back at its end.
    Jump(String),
    /// Into a chain, without coming back.
    Goto(String),
}

impl Verdict {
    /// The chain it leads to.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// What one field of a set's key, or of a map's data, is: nft's data types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldType {
    /// `nf_proto`: the IP version, by the number of its address family.
    Family,
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `ether_addr`.
    Ether,
    /// `ether_type`.
    EtherType,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
    /// `icmp_type`.
    IcmpType,
    /// `icmpv6_type`.
    Icmpv6Type,
    /// `icmp_code`.
    IcmpCode,
    /// `icmpv6_code`.
    Icmpv6Code,
    /// `mark`.
    Mark,
    /// `iface_index`.
    InterfaceIndex,
    /// `ifname`.
    Interface,
    /// `ct_state`.
    ConntrackState,
    /// `dscp`.
    Dscp,
    /// `fib_addrtype`.
    AddressType,
}

impl FieldType {
    /// All.
    pub const ALL: [Self; 17] = [
        Self::Family,
        Self::Ipv4,
        Self::Ipv6,
        Self::Ether,
        Self::EtherType,
        Self::Protocol,
        Self::Port,
        Self::IcmpType,
        Self::Icmpv6Type,
        Self::IcmpCode,
        Self::Icmpv6Code,
        Self::Mark,
        Self::InterfaceIndex,
        Self::Interface,
        Self::ConntrackState,
        Self::Dscp,
        Self::AddressType,
    ];

    /// How many bytes a value has.
    #[allow(clippy::len_without_is_empty, reason = "a type is not a collection")]
    pub const fn len(self) -> usize {
        match self {
            Self::Family
            | Self::Protocol
            | Self::IcmpType
            | Self::Icmpv6Type
            | Self::IcmpCode
            | Self::Icmpv6Code
            | Self::Dscp => 1,
            Self::EtherType | Self::Port => 2,
            Self::Ipv4 | Self::Mark | Self::InterfaceIndex | Self::ConntrackState | Self::AddressType => 4,
            Self::Ether => 6,
            Self::Ipv6 | Self::Interface => 16,
        }
    }

    /// Whether values are in the host's byte order, not the network's. Of single bytes and names, what nft takes them for.
    pub const fn is_host_order(self) -> bool {
        matches!(
            self,
            Self::Family
                | Self::Mark
                | Self::InterfaceIndex
                | Self::Interface
                | Self::ConntrackState
                | Self::AddressType
        )
    }
}
