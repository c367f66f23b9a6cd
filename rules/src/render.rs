//! Rendered rules: the text that a kernel driver programs, with the ids by which it knows them again.

pub mod iptables;
pub mod nft;

use std::fmt;
use std::sync::Arc;

/// Felix's rule id: 16 characters of URL-safe base64, carried in the rule's comment as `cali:<id>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub [u8; 16]);

impl RuleId {
    /// Reads an id as it stands in a comment. `None` unless it is 16 characters of the alphabet.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).then_some(Self(bytes))
    }

    /// The 16 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("????????????????")
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One rule, ready for `iptables-restore` behind `-A CHAIN ` or `-I CHAIN `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedRule {
    /// Its id, which is also in `text`.
    pub id: RuleId,
    /// `-m comment --comment "cali:<id>" …`, without chain and newline.
    pub text: String,
}

/// A chain of ours: it holds exactly these rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedChain {
    /// At most 28 characters.
    pub name: String,
    /// The rules in order.
    pub rules: Vec<RenderedRule>,
}

/// Our rules in a chain of the kernel (`FORWARD`, `INPUT`, …), which others use as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedHook {
    /// The kernel's chain.
    pub chain: String,
    /// Rules placed as the configured insert mode says.
    pub inserted: Vec<RenderedRule>,
    /// Rules that always stand at the end.
    pub appended: Vec<RenderedRule>,
}

/// Where [`RenderedHook::inserted`] goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InsertMode {
    /// At the top, before everybody else's rules.
    #[default]
    Insert,
    /// At the end.
    Append,
}

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `raw`
    Raw,
    /// `mangle`
    Mangle,
    /// `nat`
    Nat,
    /// `filter`
    Filter,
}

impl Table {
    /// All tables in the order in which a packet meets them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    /// The kernel's chains in this table.
    pub const fn kernel_chains(self) -> &'static [&'static str] {
        match self {
            Self::Raw => &["PREROUTING", "OUTPUT"],
            Self::Mangle => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
            Self::Nat => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
            Self::Filter => &["INPUT", "FORWARD", "OUTPUT"],
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A change of one table's wanted content, as the compiler hands it to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// The chain shall hold exactly these rules.
    Chain(Arc<RenderedChain>),
    /// The chain of this name shall not exist.
    NoChain(String),
    /// Our rules in the kernel's chains, all of them.
    Hooks(Vec<RenderedHook>, InsertMode),
}
