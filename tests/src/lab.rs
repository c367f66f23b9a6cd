//! A small cluster in one process: nodes, pods and outside hosts are network namespaces, wired as Calico wires them.
//!
//! ```text
//! outside host eth0 ── fe0 ┐ fabric ┌ fn0 ── eth0 ┌─ node ─┐ caliXXXXXXXXXXX ── eth0 pod
//!                          └─ br0 ──┘             └────────┘ (169.254.1.1, fe80::1)
//! ```
//!
//! The namespaces are anonymous: each lives only as long as this process holds its descriptor. A program that uses
//! the lab calls [`enter`] first, so that it runs in a PID and mount namespace of its own and everything it started,
//! agents too, ends with it. See [`Lab`] for the rest:
//!
//! ```no_run
//! use tortie_tests::lab::{self, Lab, Probe, Traffic};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! lab::enter()?;
//! let mut lab = Lab::builder()
//!     .node("node-1", "172.18.0.11")
//!     .pod("shop", "frontend", "node-1", "10.65.1.2")
//!     .external("outside", "192.0.2.10")
//!     .build()?;
//! lab.start_agent("node-1", std::path::Path::new("examples/shop"))?;
//! lab.wait_applied(std::time::Duration::from_secs(20))?;
//! let passed = lab.probe(&[Probe::new("ext:outside".parse()?, "shop/frontend".parse()?, Traffic::tcp(80))])?;
//! assert_eq!(passed, [true]);
//! # Ok(())
//! # }
//! ```

mod agent;
mod builder;
mod cluster;
mod endpoint;
mod enter;
mod error;
mod host;
mod matrix;
mod netns;
mod probe;
mod tools;
mod wiring;

pub use agent::{Agent, AgentOptions, Programs};
pub use builder::{LabBuilder, LocalRoutes, PodSpec};
pub use cluster::Lab;
pub use endpoint::{Addresses, Endpoint, Family, host_interface};
pub use enter::enter;
pub use error::LabError;
pub use host::Host;
pub use matrix::{Cell, Difference, Matrix, Style};
pub use netns::Netns;
pub use probe::{DEFAULT_WAIT, Probe, Traffic};
