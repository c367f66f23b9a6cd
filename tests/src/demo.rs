//! The example shop (`examples/shop`): its manifests as a lab, who may reach whom, and what the demo shows of it.
//!
//! * [`shop`]: the folder of manifests, and the nodes and pods that it describes;
//! * [`reach`]: the table of who reaches which port of whom, and the truth about the shop;
//! * [`readme`]: the same table as the folder's README has it;
//! * [`excerpt`]: what a user would look for in the kernel, cut out of `iptables-save` and `ipset list`;
//! * [`stopwatch`]: the time from a changed file to the enforced rule;
//! * [`screen`]: how the demo prints.

mod error;
pub mod excerpt;
pub mod reach;
pub mod readme;
pub mod screen;
pub mod shop;
pub mod stopwatch;

pub use error::DemoError;
