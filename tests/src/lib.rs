//! What Tortie is tested with: a lab of network namespaces, and the programs that use it.
//!
//! * [`lab`]: nodes, pods and outside hosts made of network namespaces, agents on the nodes, probes between them
//!   and the matrix of what got through;
//! * [`manifests`]: a datastore directory of one file per object, written the way an agent may watch it;
//! * [`cases`]: the policy cases under `conformance/policy`, and playing them on the lab;
//! * [`demo`]: the example shop, and what the demo shows of it;
//! * [`bench`]: measuring the agent and its drivers on the lab, beside the kernel's own tools;
//! * [`mutants`]: faults planted in the sources, to see whether the tests notice.
//!
//! Nothing here links to the agent: the lab starts it as a user would, as a program.

pub mod bench;
pub mod cases;
pub mod demo;
pub mod lab;
pub mod manifests;
pub mod mutants;
