//! The policy cases of `conformance/policy`: reading them, following their states, and playing them on the lab.
//!
//! ```text
//! case file ─ format ─ state after each action ─ render ─ manifests in a datastore directory ─ agents
//!                              └─ expect ─ probes with the truth ──────────────── play ─ report
//! ```

mod catalog;
mod expect;
mod format;
mod play;
mod render;
mod report;
mod self_test;
mod state;

pub use catalog::{CaseFile, CatalogError, Supported, cases_dir, find_cases};
pub use expect::Expected;
pub use format::{
    AccountEntry, Action, Case, CaseError, Expect, ExternalEntry, Labels, MatrixEntry, NamedPort,
    NamespaceEntry, NodeEntry, Pod, Served, StatedEntry, Step, Text, Topology,
};
pub use play::{Mode, PlayOptions, play};
pub use render::objects;
pub use report::{CaseReport, StepReport, Summary, Wrong};
pub use state::State;
