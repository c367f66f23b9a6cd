//! From policy to a typed netfilter ruleset. Pure: no clock, no I/O, no hash order.
//!
//! ```text
//!  resources ──► graph ──► endpoint policy lists, ip sets ──► compile ──► ruleset ──► render
//! ```

pub mod compile;
pub mod graph;
pub mod render;
pub mod ruleset;
