//! nf_tables objects as a typed tree: tables, chains, rules of expressions, sets and their elements.
//!
//! ```text
//!   Table ─┬─ Chain (plain, or at a hook) ── Rule ── Expression, Expression, ...
//!          ├─ Set (plain, or a map) ── Element
//!          └─ Flowtable
//! ```
//!
//! What stands here is what the kernel stores (`linux/netfilter/nf_tables.h`) and what `nft` calls it. Nothing here
//! knows how it is encoded. What the kernel counts (packets, bytes, time left) is no part of it, so that a tree which
//! was written equals the one that is read back.

mod data;
mod expression;
mod field;
mod set;

use std::fmt;

pub use data::{Data, FieldType, Register, Verdict};
pub use expression::{
    Comparison, ConntrackKey, Direction, DynamicSet, Expression, FibResult, FibSelector, HashSource,
    LimitUnit, LogTarget, MetaKey, NatFlags, NatKind, RejectKind, RouteKey, SetOperation,
};
pub use field::{Checksum, Payload, PayloadBase};
pub use set::{Element, ElementExtras, ElementKey, ElementValue, MapData, Set};

/// What packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `inet`: both IP versions.
    Inet,
    /// `ip`.
    Ipv4,
    /// `arp`.
    Arp,
    /// `netdev`: of given interfaces, before everything else.
    Netdev,
    /// `bridge`.
    Bridge,
    /// `ip6`.
    Ipv6,
}

impl Family {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Inet, Self::Ipv4, Self::Arp, Self::Netdev, Self::Bridge, Self::Ipv6];

    /// nft's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ipv6 => "ip6",
        }
    }
}

/// Names a table: names are unique within a family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
}

impl TableId {
    /// A table's name.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which.
    pub id: TableId,
    /// Words for people; at most 127 bytes, as everywhere.
    pub comment: Option<String>,
}

/// A chain, without its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where the kernel enters it; `None` for one that only other chains lead to.
    pub base: Option<BaseChain>,
    /// Words for people.
    pub comment: Option<String>,
}

impl Chain {
    /// A chain that other chains lead to.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), base: None, comment: None }
    }

    /// A chain that the kernel enters, with policy `accept`.
    pub fn at_hook(name: impl Into<String>, kind: ChainKind, hook: Hook, priority: i32) -> Self {
        let base = BaseChain { kind, hook, priority, policy: Policy::Accept, devices: Vec::new() };
        Self { name: name.into(), base: Some(base), comment: None }
    }
}

/// Where and when the kernel enters a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// What its rules may do.
    pub kind: ChainKind,
    /// The place.
    pub hook: Hook,
    /// Lower ones come first; iptables' `filter` is 0.
    pub priority: i32,
    /// What happens at its end.
    pub policy: Policy,
    /// Of which interfaces, sorted: for [`Hook::Ingress`] and [`Hook::Egress`] only.
    pub devices: Vec<String>,
}

/// What the rules of a chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// `filter`.
    Filter,
    /// `nat`: sees the first packet of a connection.
    Nat,
    /// `route`: packets that it changes are routed again.
    Route,
}

/// A place in the kernel's way of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// `ingress`, of interfaces.
    Ingress,
    /// `egress`, of interfaces.
    Egress,
    /// `prerouting`.
    Prerouting,
    /// `input`.
    Input,
    /// `forward`.
    Forward,
    /// `output`.
    Output,
    /// `postrouting`.
    Postrouting,
}

/// What happens at the end of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// The next chain sees the packet.
    Accept,
    /// The packet is gone.
    Drop,
}

/// A rule: expressions are carried out in order until one does not match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it looks at and does.
    pub expressions: Vec<Expression>,
    /// Words for people, and marks of ours; at most 127 bytes.
    pub comment: Option<String>,
}

/// A table of connections that skip the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flowtable {
    /// Its name.
    pub name: String,
    /// Lower ones come first.
    pub priority: i32,
    /// Of which interfaces, sorted.
    pub devices: Vec<String>,
    /// Keeps counting the packets of connections.
    pub counter: bool,
}
