//! From policy to a typed netfilter ruleset. Pure: no clock, no I/O, no hash order.
//!
//! ```text
//!  resources ──► graph ──► endpoint policy lists, ip sets ──► compile ──► ruleset ──► render
//! ```
//!
//! [`eval`] says what policy means without any of this, and why; and what a ruleset does: tests compare the two.

pub mod compile;
pub mod eval;
pub mod graph;
#[cfg(feature = "random")]
pub mod random;
pub mod render;
pub mod ruleset;
