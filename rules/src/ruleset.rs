//! The ruleset as a typed tree: chains of rules, each a list of matches, an action and comments.
//!
//! Renderers turn it into text or netlink and decide nothing. Nothing here is a string that means
//! something, but for names of chains, sets and interfaces.

mod map;
pub mod nft;

use ipnet::IpNet;
use tortie_api::net::{IpVersion, PortRange, Protocol};

pub use self::map::{Key, KeyField, Map, MapType, Verdict};

/// One chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// One rule. All matches must hold; without matches it applies to every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What a packet must be.
    pub matches: Vec<Match>,
    /// What happens to it; nothing but counting if absent.
    pub action: Option<Action>,
    /// Words for people, in order.
    pub comments: Vec<String>,
}

impl Rule {
    /// A rule for every packet.
    pub fn always(action: Action) -> Self {
        Self { action: Some(action), ..Self::default() }
    }

    /// A rule for packets that match.
    pub fn when(matches: Vec<Match>, action: Action) -> Self {
        Self { matches, action: Some(action), comments: Vec::new() }
    }

    /// The same with one more comment.
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comments.push(text.into());
        self
    }
}

/// One or more bits of the packet mark.
pub type Bits = u32;

/// Which side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl Side {
    /// Both, source first.
    pub const BOTH: [Self; 2] = [Self::Source, Self::Destination];
}

/// What of a packet is looked up in an ip set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKey {
    /// The address.
    Address,
    /// Address, protocol and port.
    AddressPort,
}

/// A condition. `negate` asks for the opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// All of these mark bits are clear.
    MarkClear(Bits),
    /// At least one of these mark bits is set.
    MarkAnySet(Bits),
    /// The mark bits under `mask` have this value.
    Mark {
        /// Wanted value.
        value: Bits,
        /// Bits looked at.
        mask: Bits,
    },
    /// The mark bits under `mask` have another value than this.
    MarkNot {
        /// Unwanted value.
        value: Bits,
        /// Bits looked at.
        mask: Bits,
    },
    /// Came in by this interface; a name that ends in `+` stands for all that begin so.
    InInterface(String),
    /// Goes out by this interface; `+` as above.
    OutInterface(String),
    /// The source address is not routed back to the interface the packet came from.
    ReversePathFails,
    /// Connection tracking state is one of these.
    Conntrack {
        /// The states.
        states: &'static [ConntrackState],
        /// Is none of these instead.
        negate: bool,
    },
    /// IP protocol.
    Protocol {
        /// By name or number, as the policy has it.
        protocol: Protocol,
        /// Any other protocol instead.
        negate: bool,
    },
    /// Address in a network.
    Net {
        /// Which address.
        side: Side,
        /// The network.
        net: IpNet,
        /// Not in it instead.
        negate: bool,
    },
    /// This address.
    Address {
        /// Which address.
        side: Side,
        /// The wanted one.
        address: std::net::IpAddr,
    },
    /// The address on this side is one of this host's.
    Local(Side),
    /// The source address is none of those of the interface that the packet leaves by.
    NotFromOutInterface,
    /// In an ip set.
    Set {
        /// The set's name in the kernel.
        name: String,
        /// Which side of the packet.
        side: Side,
        /// What is looked up.
        key: SetKey,
        /// Not in it instead.
        negate: bool,
    },
    /// Port is one of these; at most 15 slots, a range takes two.
    Ports {
        /// Which port.
        side: Side,
        /// Ports and ranges.
        ports: Vec<PortRange>,
        /// None of them instead.
        negate: bool,
    },
    /// The destination port, where a rule needs one port only; the protocol must be one with ports.
    DestinationPort(u16),
    /// ICMP type, and code if given.
    Icmp {
        /// ICMP or ICMPv6.
        version: IpVersion,
        /// Type.
        icmp_type: u8,
        /// Code.
        code: Option<u8>,
        /// Any other instead.
        negate: bool,
    },
    /// No more often than this.
    Limit {
        /// `N/second`, `N/minute`, `N/hour` or `N/day`.
        rate: String,
        /// Packets let through at once; 0 leaves it to the kernel's default.
        burst: u32,
    },
    /// Asks for a new TCP connection: of the flags FIN, SYN, RST and ACK it has SYN alone.
    TcpSyn,
    /// With its own, there are more connections than this of those that this rule has seen.
    ConnectionsAbove(u32),
}

/// Connection tracking states that rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackState {
    /// Nothing of it has been seen before.
    New,
    /// Belongs to another connection.
    Related,
    /// Both directions seen.
    Established,
    /// Not trackable.
    Invalid,
    /// Destination was translated.
    Dnat,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Accepted by this table.
    Accept,
    /// Silently dropped.
    Drop,
    /// Dropped with an ICMP error.
    Reject,
    /// Dropped, and its TCP connection reset.
    ResetConnection,
    /// Back to the calling chain.
    Return,
    /// Its connection is not tracked.
    NoTrack,
    /// Into a chain, and back at its end.
    Jump(String),
    /// Into a chain, without coming back.
    Goto(String),
    /// Set mark bits.
    SetMark(Bits),
    /// Clear mark bits.
    ClearMark(Bits),
    /// Write a value under a mask.
    SetMaskedMark {
        /// The value.
        value: Bits,
        /// Bits written.
        mask: Bits,
    },
    /// Write a value under a mask into the mark of the packet's connection; nothing if it has none. For nftables only.
    SetConnectionMark {
        /// The value.
        value: Bits,
        /// Bits written.
        mask: Bits,
    },
    /// Kernel log line with this prefix.
    Log {
        /// Without the `: ` that follows it.
        prefix: String,
    },
    /// The beginning of the packet goes to who listens to a group of `NFLOG`.
    Nflog {
        /// The group.
        group: u16,
        /// At most 63 bytes, without blanks and quotes.
        prefix: String,
    },
    /// Replace the source address by that of the outgoing interface.
    Masquerade {
        /// Source ports to use.
        ports: Option<PortRange>,
    },
    /// Replace the source address.
    Snat {
        /// New address.
        address: std::net::IpAddr,
        /// Source ports to use.
        ports: Option<PortRange>,
    },
    /// Replace destination address and port.
    DnatPort(std::net::SocketAddr),
    /// Replace the destination address.
    Dnat(std::net::IpAddr),
    /// Write the DSCP field, 0 to 63.
    SetDscp(u8),
    /// The rest of the connection skips the rules, if the kernel can take it on; the packet itself goes on to the next
    /// rule either way. For nftables only.
    Offload,
    /// What a verdict map says of the packet; nothing if it says nothing. For nftables only.
    Lookup {
        /// What is looked up.
        key: Vec<KeyField>,
        /// The map's name.
        map: String,
        /// See [`Map::all`].
        all: Option<Verdict>,
    },
}

/// Our rules in one of the kernel's own chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The kernel's chain.
    pub chain: &'static str,
    /// Rules placed as the configured insert mode says.
    pub inserted: Vec<Rule>,
    /// Rules that always stand at the end.
    pub appended: Vec<Rule>,
}

impl Action {
    /// The chain this action leads to.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}
