//! Names of chains and sets in the kernel.

use tortie_api::id::length_limited;
use tortie_api::net::IpVersion;

use crate::graph::model::{PolicyKey, SetId};

/// The longest chain name that iptables takes.
const CHAIN_MAX: usize = 28;
/// The longest set name that ipset takes (`IPSET_MAXNAMELEN` - 1).
const SET_MAX: usize = 31;

/// A direction, seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn pick(self, ingress: &'static str, egress: &'static str) -> &'static str {
        match self {
            Self::Ingress => ingress,
            Self::Egress => egress,
        }
    }
}

/// `cali-tw-` and `cali-fw-`: traffic to and from a workload.
pub(crate) fn workload_chain(direction: Direction, interface: &str) -> String {
    length_limited(direction.pick("cali-tw-", "cali-fw-"), interface, CHAIN_MAX)
}

/// `cali-pi-` and `cali-po-`.
pub(crate) fn policy_chain(direction: Direction, policy: &PolicyKey) -> String {
    length_limited(direction.pick("cali-pi-", "cali-po-"), &policy.id(), CHAIN_MAX)
}

/// `cali-pri-` and `cali-pro-`.
pub(crate) fn profile_chain(direction: Direction, profile: &str) -> String {
    length_limited(direction.pick("cali-pri-", "cali-pro-"), profile, CHAIN_MAX)
}

/// `cali-gi-` and `cali-go-`; a group's id always fits.
pub(crate) fn group_chain(direction: Direction, id: &str) -> String {
    format!("{}{id}", direction.pick("cali-gi-", "cali-go-"))
}

/// `cali-to-wl-dispatch` and `cali-from-wl-dispatch`.
pub(crate) const fn dispatch_chain(direction: Direction) -> &'static str {
    direction.pick("cali-to-wl-dispatch", "cali-from-wl-dispatch")
}

/// The kernel's name of a set: `cali40s:…`, cut to what fits.
pub(crate) fn set_name(version: IpVersion, id: &str) -> String {
    let mut name = format!("cali{}0{id}", version.number());
    name.truncate(name.floor_char_boundary(SET_MAX));
    name
}

/// The kernel's name of a set of the graph.
pub(crate) fn graph_set_name(version: IpVersion, id: &SetId) -> String {
    set_name(version, &id.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_felixs() {
        assert_eq!(workload_chain(Direction::Ingress, "cali12345"), "cali-tw-cali12345");
        let id = SetId("s:Djx4jfRE_TwnMVpqaxS1NR3o9coFLerM7iAUzw".into());
        assert_eq!(graph_set_name(IpVersion::V4, &id), "cali40s:Djx4jfRE_TwnMVpqaxS1NR3");
        assert_eq!(set_name(IpVersion::V6, "all-ipam-pools"), "cali60all-ipam-pools");
    }
}
