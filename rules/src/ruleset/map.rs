//! Verdict maps: what nftables looks a packet up in, where iptables would ask rule after rule.
//!
//! A rule with [`Action::Lookup`](super::Action::Lookup) loads the fields that it names and takes the verdict of the
//! element that holds them. Without such an element, or where a field cannot be loaded (no transport header, a later
//! fragment), evaluation goes on with the next rule.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_api::net::PortRange;

use super::Side;

/// A field of a packet that is part of what is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyField {
    /// The name of the interface that the packet came in by.
    InInterface,
    /// The name of the interface that it goes out by.
    OutInterface,
    /// The address of one side.
    Address(Side),
    /// The IP protocol (`meta l4proto`).
    Protocol,
    /// The destination port (`th dport`). Next to a protocol with ports, or in a rule that matches one.
    DestinationPort,
}

/// What the keys of a map are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapType {
    /// Names of interfaces.
    Interface,
    /// Single addresses.
    Address,
    /// Disjoint ranges of addresses: an interval map.
    AddressRange,
    /// Protocol and destination port.
    ProtocolPort,
    /// Disjoint ranges of destination ports: an interval map.
    PortRange,
    /// Address, protocol and destination port.
    AddressProtocolPort,
}

impl MapType {
    /// Whether a rule may look these fields up in such a map.
    pub fn fits(self, fields: &[KeyField]) -> bool {
        use KeyField::{Address, DestinationPort, InInterface, OutInterface, Protocol};
        match self {
            Self::Interface => matches!(fields, [InInterface | OutInterface]),
            Self::Address | Self::AddressRange => matches!(fields, [Address(_)]),
            Self::ProtocolPort => matches!(fields, [Protocol, DestinationPort]),
            Self::PortRange => matches!(fields, [DestinationPort]),
            Self::AddressProtocolPort => matches!(fields, [Address(_), Protocol, DestinationPort]),
        }
    }

    /// Whether it is an interval map.
    pub const fn is_interval(self) -> bool {
        matches!(self, Self::AddressRange | Self::PortRange)
    }
}

/// The key of an element, of the type of its map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Of [`MapType::Interface`].
    Interface(Arc<str>),
    /// Of [`MapType::Address`].
    Address(IpAddr),
    /// Of [`MapType::AddressRange`]: the first and the last address, both included.
    AddressRange(IpAddr, IpAddr),
    /// Of [`MapType::ProtocolPort`].
    ProtocolPort(u8, u16),
    /// Of [`MapType::PortRange`].
    PortRange(PortRange),
    /// Of [`MapType::AddressProtocolPort`].
    AddressProtocolPort(IpAddr, u8, u16),
}

impl Key {
    /// The type of maps that have such keys.
    pub const fn map_type(&self) -> MapType {
        match self {
            Self::Interface(_) => MapType::Interface,
            Self::Address(_) => MapType::Address,
            Self::AddressRange(..) => MapType::AddressRange,
            Self::ProtocolPort(..) => MapType::ProtocolPort,
            Self::PortRange(_) => MapType::PortRange,
            Self::AddressProtocolPort(..) => MapType::AddressProtocolPort,
        }
    }
}

/// What happens to a packet that an element holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Accepted by this table.
    Accept,
    /// Silently dropped.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Into a chain, and back at its end.
    Jump(Arc<str>),
    /// Into a chain, without coming back.
    Goto(Arc<str>),
}

impl Verdict {
    /// The chain that it leads to.
    pub const fn target(&self) -> Option<&Arc<str>> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Return => None,
        }
    }
}

/// A verdict map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its name; sets and maps of a table share their names.
    pub name: String,
    /// What its keys are.
    pub holds: MapType,
    /// What all its elements say, if all say the same and lead to no chain. Then it is a plain set, of which the kernel
    /// follows no element when a rule begins to look into it.
    pub all: Option<Verdict>,
    /// Its elements.
    pub elements: BTreeMap<Key, Verdict>,
}
