//! Columns of Calico's kinds.

use tortie_api::resource::Resource;

use super::{AGE, Column, NONE, Row, column, joined, pairs, wide};

/// How much of a list of networks is shown, in characters: as much as calicoctl shows.
const NETS_CHARS: usize = 80;

const TIER_OF_POLICY: Column = column("TIER", |row| row.text_or("/spec/tier", "default"));
const ORDER: Column = column("ORDER", |row| row.text_or_none("/spec/order"));
const SELECTOR: Column = wide("SELECTOR", |row| row.text_or_none("/spec/selector"));
const NODE_NAME: Column = column("NODE", |row| row.text_or_none("/spec/node"));
const PROFILES: Column = wide("PROFILES", |row| row.joined("/spec/profiles"));

pub(super) const NETWORK_POLICY: &[Column] = &[TIER_OF_POLICY, ORDER, SELECTOR];

pub(super) const GLOBAL_NETWORK_POLICY: &[Column] = &[TIER_OF_POLICY, ORDER, AGE, SELECTOR];

pub(super) const NETWORK_SET: &[Column] = &[AGE, wide("NETS", nets)];

pub(super) const TIER: &[Column] = &[
    ORDER,
    column("DEFAULTACTION", |row| row.text_or("/spec/defaultAction", "Deny")),
    column("STATUS", |row| row.condition("Ready", "reason").unwrap_or_else(|| NONE.to_owned())),
];

pub(super) const IP_POOL: &[Column] = &[
    column("CIDR", |row| row.text_or_none("/spec/cidr")),
    column("VXLAN", |row| row.text_or("/spec/vxlanMode", "Never")),
    column("IPIP", |row| row.text_or("/spec/ipipMode", "Never")),
    column("NAT", |row| row.text_or("/spec/natOutgoing", "false")),
    column("ALLOCATABLE", |row| row.condition("Allocatable", "status").unwrap_or_else(|| NONE.to_owned())),
    AGE,
    wide("DISABLED", |row| row.text_or("/spec/disabled", "false")),
    wide("DISABLEBGPEXPORT", |row| row.text_or("/spec/disableBGPExport", "false")),
    wide("SELECTOR", |row| row.text_or("/spec/nodeSelector", "all()")),
    wide("ASSIGNMENTMODE", |row| row.text_or("/spec/assignmentMode", "Automatic")),
];

pub(super) const WORKLOAD_ENDPOINT: &[Column] = &[
    column("WORKLOAD", |row| row.text("/spec/pod").unwrap_or_else(|| row.text_or_none("/spec/workload"))),
    NODE_NAME,
    column("NETWORKS", |row| row.joined("/spec/ipNetworks")),
    column("INTERFACE", |row| row.text_or_none("/spec/interfaceName")),
    PROFILES,
    wide("NATS", nats),
];

pub(super) const HOST_ENDPOINT: &[Column] = &[
    NODE_NAME,
    column("INTERFACE", |row| row.text_or_none("/spec/interfaceName")),
    wide("IPS", |row| row.joined("/spec/expectedIPs")),
    PROFILES,
];

pub(super) const PROFILE: &[Column] =
    &[AGE, wide("LABELS", |row| joined(pairs(row.value.pointer("/spec/labelsToApply")).into_iter()))];

pub(super) const NODE: &[Column] = &[
    AGE,
    wide("ASN", |row| row.text_or_none("/spec/bgp/asNumber")),
    wide("IPV4", |row| row.text_or_none("/spec/bgp/ipv4Address")),
    wide("IPV6", |row| row.text_or_none("/spec/bgp/ipv6Address")),
];

/// The networks of a set in their canonical form.
fn nets(row: &Row<'_>) -> String {
    let (Resource::NetworkSet(set) | Resource::GlobalNetworkSet(set)) = &*row.stored.resource else {
        return NONE.to_owned();
    };
    let text = joined(set.spec.nets.iter().map(ToString::to_string));
    if text.chars().count() <= NETS_CHARS {
        return text;
    }
    text.chars().take(NETS_CHARS - 3).chain("...".chars()).collect()
}

/// `external->internal` of the floating addresses.
fn nats(row: &Row<'_>) -> String {
    let Resource::WorkloadEndpoint(endpoint) = &*row.stored.resource else { return NONE.to_owned() };
    joined(endpoint.spec.ip_nats.iter().map(|nat| format!("{}->{}", nat.external_ip, nat.internal_ip)))
}
