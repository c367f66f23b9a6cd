//! `tortiectl` as a user runs it: the built program on folders and sockets of the test.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod agent;
mod apply;
mod delete;
mod explain;
mod get;
mod preview;
mod support;
