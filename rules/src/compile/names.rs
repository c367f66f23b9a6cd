//! Names of chains and sets in the kernel.

use tortie_api::id::length_limited;
use tortie_api::net::IpVersion;

use crate::graph::model::{HostInterface, PolicyKey, SetId};

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

/// What stands for all interfaces in the names of chains. Too long to be an interface's name.
const ANY_INTERFACE: &str = "any-interface-at-all";

/// `cali-fh-` and `cali-th-`: traffic of the host itself that comes in and goes out.
pub(crate) fn host_chain(direction: Direction, interface: &HostInterface) -> String {
    length_limited(direction.pick("cali-fh-", "cali-th-"), interface_text(interface), CHAIN_MAX)
}

/// `cali-fhfw-` and `cali-thfw-`: forwarded traffic that comes in and goes out.
pub(crate) fn forward_chain(direction: Direction, interface: &HostInterface) -> String {
    length_limited(direction.pick("cali-fhfw-", "cali-thfw-"), interface_text(interface), CHAIN_MAX)
}

/// The name of an interface, or what stands for all of them.
pub(crate) fn interface_text(interface: &HostInterface) -> &str {
    match interface {
        HostInterface::Named(name) => name,
        HostInterface::Any => ANY_INTERFACE,
    }
}

/// `cali-from-host-endpoint` and `cali-to-host-endpoint`.
pub(crate) const fn host_dispatch_chain(direction: Direction) -> &'static str {
    direction.pick("cali-from-host-endpoint", "cali-to-host-endpoint")
}

/// `cali-from-hep-forward` and `cali-to-hep-forward`.
pub(crate) const fn forward_dispatch_chain(direction: Direction) -> &'static str {
    direction.pick("cali-from-hep-forward", "cali-to-hep-forward")
}

/// Where packets that IPVS is to send on get the mark of the endpoint that they came from.
pub(crate) const SET_ENDPOINT_MARK: &str = "cali-set-endpoint-mark";

/// Where packets that IPVS sends on meet the policy of the endpoint that they came from.
pub(crate) const FROM_ENDPOINT_MARK: &str = "cali-from-endpoint-mark";

/// `cali-sm-`: sets an endpoint's mark.
pub(crate) fn set_mark_chain(interface: &HostInterface) -> String {
    length_limited("cali-sm-", interface_text(interface), CHAIN_MAX)
}

/// `cali-failsafe-in` and `cali-failsafe-out`.
pub(crate) const fn failsafe_chain(direction: Direction) -> &'static str {
    direction.pick("cali-failsafe-in", "cali-failsafe-out")
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
    fn names_of_all_interfaces_are_felixs() {
        let any = HostInterface::Any;
        assert_eq!(host_chain(Direction::Egress, &any), "cali-th-any-interface-at-all");
        assert_eq!(forward_chain(Direction::Egress, &any), "cali-thfw-_Nqh4HyA73udmyanQI");
        assert_eq!(forward_chain(Direction::Ingress, &any), "cali-fhfw-_Nqh4HyA73udmyanQI");
    }

    #[test]
    fn names_are_felixs() {
        assert_eq!(workload_chain(Direction::Ingress, "cali12345"), "cali-tw-cali12345");
        let id = SetId("s:Djx4jfRE_TwnMVpqaxS1NR3o9coFLerM7iAUzw".into());
        assert_eq!(graph_set_name(IpVersion::V4, &id), "cali40s:Djx4jfRE_TwnMVpqaxS1NR3");
        assert_eq!(set_name(IpVersion::V6, "all-ipam-pools"), "cali60all-ipam-pools");
    }
}
