//! nf_tables over netlink: the tree of [`tortie_rules::ruleset::nft`] as messages, and back.
//!
//! ```text
//!   Transaction ──Socket::commit──► kernel ──► all of it is in force, or nothing: CommitError names the objects
//!   Socket::{tables, chains, rules, sets, elements, flowtables} ──dump──► the same tree, with handles
//!   Watch ──poll──► who committed, and what of which table was touched
//! ```
//!
//! Attributes stand in the order in which libnftnl writes them, so that messages can be compared byte by byte with those of
//! `nft`. Nothing here decides what is in a table.

pub mod driver;

mod element;
mod entry;
mod expression;
mod numbers;
mod object;
mod probe;
mod socket;
mod transaction;
mod userdata;
mod watch;

use tortie_rules::ruleset::nft::Family;

pub use element::ElementReader;
pub use entry::{ChainEntry, Counters, FlowtableEntry, Foreign, RuleEntry, SetEntry, TableEntry};
pub use expression::{read_expressions, read_rule};
pub use object::{read_chain, read_flowtable, read_set, read_table};
pub use probe::{lacks_connection_marks, lacks_flowtables};
pub use socket::{CommitError, Failure, Generation, Socket};
pub use transaction::{Object, ObjectKind, Removal, Transaction};
pub use watch::{Change, Commit, Ear, Heard, Watch};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// `struct nfgenmsg`: family, version, resource id.
const HEADER_LEN: usize = 4;

/// The header of a message about something in this family.
fn header(family: Family) -> [u8; HEADER_LEN] {
    [numbers::family(family), 0, 0, 0]
}
