//! Address pools.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::policy::no_global;
use super::{Result, at_most, ensure};
use crate::ippool::{EncapMode, IPPoolSpec, PoolUse};
use crate::selector::Selector;

/// 169.254.0.0/16 (RFC 3927).
const LINK_LOCAL_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
/// fe80::/10 (RFC 4291).
const LINK_LOCAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

pub(super) fn check(spec: &IPPoolSpec) -> Result {
    range(spec)?;
    encapsulation(spec)?;
    no_global("nodeSelector", spec.node_selector.as_ref())?;
    no_global("namespaceSelector", spec.namespace_selector.as_ref())?;
    uses(spec)
}

fn range(spec: &IPPoolSpec) -> Result {
    let (link_local, sizes) = match spec.cidr {
        IpNet::V4(_) => (IpNet::V4(LINK_LOCAL_V4), 20..=32),
        IpNet::V6(_) => (IpNet::V6(LINK_LOCAL_V6), 116..=128),
    };
    let overlaps = spec.cidr.contains(&link_local) || link_local.contains(&spec.cidr);
    ensure(!overlaps, "cidr", || format!("{} overlaps {link_local}, the link-local addresses", spec.cidr))?;
    ensure(sizes.contains(&spec.block_size), "blockSize", || {
        format!("{} is outside {} to {}", spec.block_size, sizes.start(), sizes.end())
    })?;
    // A pool without new allocations needs no room for a block.
    ensure(spec.disabled || spec.cidr.prefix_len() <= spec.block_size, "cidr", || {
        format!("{} is smaller than one block of /{}", spec.cidr, spec.block_size)
    })
}

fn encapsulation(spec: &IPPoolSpec) -> Result {
    let has_ipip = spec.ipip_mode != EncapMode::Never;
    let has_vxlan = spec.vxlan_mode != EncapMode::Never;
    ensure(!(has_ipip && has_vxlan), "vxlanMode", || "IPIP and VXLAN cannot both be used".to_owned())?;
    ensure(!has_ipip || matches!(spec.cidr, IpNet::V4(_)), "ipipMode", || "IPIP is for IPv4 only".to_owned())
}

fn uses(spec: &IPPoolSpec) -> Result {
    at_most(&spec.allowed_uses, 10, "allowedUses")?;
    let is_for_tunnels = spec.allowed_uses.contains(&PoolUse::Tunnel);
    ensure(!(is_for_tunnels && spec.namespace_selector.is_some()), "namespaceSelector", || {
        "is not possible with the use Tunnel".to_owned()
    })?;
    if !spec.allowed_uses.contains(&PoolUse::LoadBalancer) {
        return Ok(());
    }
    let is_alone = spec.allowed_uses.iter().all(|one| *one == PoolUse::LoadBalancer);
    ensure(is_alone, "allowedUses", || "LoadBalancer cannot be combined with other uses".to_owned())?;
    ensure(spec.node_selector.as_ref().is_none_or(Selector::is_all), "nodeSelector", || {
        "must be all() for the use LoadBalancer".to_owned()
    })?;
    ensure(!spec.disable_bgp_export, "disableBGPExport", || {
        "is not possible with the use LoadBalancer".to_owned()
    })?;
    for (field, mode) in [("ipipMode", spec.ipip_mode), ("vxlanMode", spec.vxlan_mode)] {
        ensure(mode == EncapMode::Never, field, || "must be Never for the use LoadBalancer".to_owned())?;
    }
    Ok(())
}
