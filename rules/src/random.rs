//! Small clusters full of corners, and packets that go near them: for tests and benches.
//!
//! Everything follows from a seed, the same on every machine, so a seed is all that a failure need name. Objects
//! are made as manifests, so that they can be written down, cut smaller and applied to a real node, and every
//! one of them is valid.
//!
//! ```text
//! seed ──► manifests ──► resources
//!              └──► Landmarks: addresses, ports, protocols that they mention ──► Probes: flow and packet
//! ```

mod cluster;
mod dice;
mod landmarks;
mod policy;
mod probe;
mod rule;
mod words;

use serde_json::Value;
use tortie_api::resource::{FieldError, Resource};

pub use cluster::{NODE, OTHER_NODE, SIDE_LINK, UPLINK, cluster, interfaces};
pub use dice::Dice;
pub use landmarks::Landmarks;
pub use probe::{Probe, Probes};

/// The objects of manifests.
///
/// # Errors
/// The first that is not valid: none of those that [`cluster`] makes, but one that was cut may be.
pub fn resources(manifests: &[Value]) -> Result<Vec<Resource>, FieldError> {
    manifests.iter().map(Resource::from_value).collect()
}

#[cfg(test)]
mod tests;
