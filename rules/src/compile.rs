//! From the desired state to a ruleset.
//!
//! [`classic`] lays chains out as Felix does, so that `iptables-save` of a node reads the same under both. [`fast`] makes
//! tables of the policies of workloads, for nftables.
//! What must be programmed and what not is decided here, by references from the kernel's own chains;
//! the kernel drivers only compare and apply.

mod chains;
pub mod classic;
pub mod config;
mod dispatch;
mod endpoint;
mod endpoint_marks;
mod failsafe;
pub mod fast;
mod flowlog;
mod group;
mod limits;
mod names;
mod rule;
mod shared;
mod statics;

pub use chains::Change;
pub use config::{Config, MarkUses, Marks};
pub(crate) use endpoint_marks::spread;
pub(crate) use statics::not_offloaded_set;
