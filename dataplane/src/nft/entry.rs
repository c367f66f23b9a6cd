//! What is read back: objects of the tree with what only the kernel knows of them.

use tortie_rules::ruleset::nft::{Chain, Flowtable, Rule, Set, Table};

use crate::netlink::NetlinkError;

/// A table in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// It.
    pub table: Table,
    /// Its number.
    pub handle: u64,
}

/// A chain in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEntry {
    /// Its name.
    pub name: String,
    /// Its number.
    pub handle: u64,
    /// It, if it is something that we could have made.
    pub chain: Result<Chain, Foreign>,
}

/// A rule in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    /// Its chain.
    pub chain: String,
    /// Its number.
    pub handle: u64,
    /// It, if it is something that we could have made.
    pub rule: Result<Rule, Foreign>,
    /// What its counters say, in order.
    pub counters: Vec<Counters>,
}

/// What a counter says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A set or map in the kernel, without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetEntry {
    /// Its name.
    pub name: String,
    /// Its number.
    pub handle: u64,
    /// A rule's own, without a name that counts: it goes with that rule. We make none.
    pub is_anonymous: bool,
    /// How many elements it has. Kernels before 6.16 do not tell.
    pub count: Option<u32>,
    /// It, if it is something that we could have made.
    pub set: Result<Set, Foreign>,
}

/// A flowtable in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowtableEntry {
    /// It.
    pub flowtable: Flowtable,
    /// Its number.
    pub handle: u64,
}

/// Something that the tree has no word for, so it was made by others. The text says what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("made by others: {0}")]
pub struct Foreign(pub String);

/// Why something is not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The tree has no word for it.
    Foreign(Foreign),
    /// It does not follow the format.
    Malformed(NetlinkError),
}

impl From<NetlinkError> for Unread {
    fn from(error: NetlinkError) -> Self {
        Self::Malformed(error)
    }
}

impl Unread {
    /// Something that the tree has no word for.
    pub(super) fn foreign(what: impl Into<String>) -> Self {
        Self::Foreign(Foreign(what.into()))
    }

    /// Tells apart what others made from what nobody can read.
    pub(super) fn split<T>(result: Result<T, Self>) -> Result<Result<T, Foreign>, NetlinkError> {
        match result {
            Ok(read) => Ok(Ok(read)),
            Err(Self::Foreign(foreign)) => Ok(Err(foreign)),
            Err(Self::Malformed(error)) => Err(error),
        }
    }
}
