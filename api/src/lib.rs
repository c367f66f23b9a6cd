//! Resource types of `projectcalico.org/v3` and the Kubernetes types that Tortie reads, with defaulting,
//! validation and conversion. Selectors are parsed once, here. No I/O.

pub mod bgp;
pub mod control;
pub mod convert;
pub mod defaults;
pub mod endpoint;
pub mod felix;
pub mod id;
pub mod ippool;
pub mod kind;
pub mod kube;
pub mod labels;
pub mod manifest;
pub mod meta;
pub mod net;
pub mod node;
pub mod policy;
pub mod qos;
pub mod resource;
pub mod selector;
pub mod staged;
pub mod validate;

mod crd;
mod nulls;

pub use kind::{Key, Kind};
pub use meta::Metadata;
pub use resource::{FieldError, Object, Resource};
