//! Drivers that bring the wanted state into the kernel: iptables, ip sets, routes, links, sysctls, conntrack.
//!
//! Each is observe / plan / apply (see [`reconcile`]); none of them decides policy.

pub mod conntrack;
pub mod feature;
pub mod ipset;
pub mod iptables;
pub mod link;
pub mod neigh;
pub mod netlink;
pub mod nft;
pub mod nftables;
pub mod reconcile;
pub mod retry;
pub mod route;
pub mod rtnl;
pub mod steer;
pub mod sysctl;
