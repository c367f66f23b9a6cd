//! One datastore trait, with the Kubernetes API's semantics, and its backends.
//!
//! ```text
//!  backend                 trait                      consumers
//!  local (YAML folder) ──► Datastore ──► Mirror ────► agent: every object of some kinds, kept up to date
//!  (kube, etcd: later)         └───────────────────► tortiectl, ipam: get, list, create, update, delete
//! ```
//!
//! This crate knows nothing of policy: it moves objects and says when they changed.

mod error;
pub mod local;
pub mod mirror;
mod store;
mod yaml;

pub use error::Error;
pub use local::LocalStore;
pub use mirror::{Mirror, MirrorEvent};
pub use store::{Datastore, List, Problem, Revision, Sink, Stored, WatchEvent, WatchHandle};
pub use yaml::to_yaml;
