//! What endpoints have in chains that they share: kept by value, so that any change of it is seen.

use tortie_api::net::IpVersion;
use tortie_api::qos::{Limits, Qos};

use super::{Classic, SetType};
use crate::compile::shared::{self, Share};
use crate::compile::statics;
use crate::graph::model::{HostEndpoint, HostInterface, LocalEndpoint};
use crate::render::Table;

/// Whose share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sharer {
    Workload(std::sync::Arc<str>),
    Host(HostInterface),
}

impl Classic {
    pub(super) fn share_of_workload(&mut self, endpoint: &LocalEndpoint) {
        let addresses = || endpoint.addresses.iter().map(ipnet::IpNet::addr).collect();
        let share = Share {
            sources: if self.config.source_spoofing { endpoint.spoofed_sources.to_vec() } else { Vec::new() },
            floating: endpoint.floating(self.config.floating_ips).to_vec(),
            dscp: endpoint.qos.dscp.map(|value| (value, addresses())),
            not_offloaded: if self.config.flow_offload && has_rules_for_each_packet(&endpoint.qos) {
                addresses()
            } else {
                Vec::new()
            },
        };
        self.set_share(Sharer::Workload(endpoint.interface.clone()), share);
    }

    pub(super) fn share_of_host(&mut self, endpoint: &HostEndpoint) {
        let share = Share { dscp: endpoint.dscp.clone(), ..Share::default() };
        self.set_share(Sharer::Host(endpoint.interface.clone()), share);
    }

    pub(super) fn drop_share(&mut self, sharer: Sharer) {
        self.set_share(sharer, Share::default());
    }

    fn set_share(&mut self, sharer: Sharer, share: Share) {
        let old = self.shares.get(&sharer);
        if old.map_or(share.is_empty(), |old| *old == share) {
            return;
        }
        self.shares_dirty = true;
        if share.is_empty() {
            self.shares.remove(&sharer);
        } else {
            self.shares.insert(sharer, share);
        }
    }

    /// Brings the shared chains and the set that goes with them up to date.
    pub(super) fn compile_shares(&mut self) {
        if !std::mem::take(&mut self.shares_dirty) {
            return;
        }
        let sources = shared::dscp_sources(self.shares.values());
        self.want_static_set(statics::DSCP_SOURCES, SetType::Net, &sources);
        if self.config.flow_offload {
            let spared = shared::not_offloaded(self.shares.values());
            self.want_static_set(statics::NO_OFFLOAD, SetType::Address, &spared);
        }
        let versions: Vec<IpVersion> = self.config.versions.clone();
        for version in versions {
            let workloads = self.shares.iter().filter_map(|(sharer, share)| match sharer {
                Sharer::Workload(interface) => Some((&**interface, share)),
                Sharer::Host(_) => None,
            });
            let [dnat, snat] = shared::floating_addresses(version, self.shares.values());
            let chains = [
                (Table::Raw, shared::allowed_sources(version, workloads)),
                (Table::Mangle, shared::dscp(version, self.shares.values())),
                (Table::Nat, dnat),
                (Table::Nat, snat),
            ];
            let Some(ruleset) = self.rulesets.iter_mut().find(|r| r.version == version) else { continue };
            for (table, chain) in chains {
                ruleset.table(table).set(chain);
            }
        }
    }
}

/// A DSCP value is written behind the forward chain, and limits are kept in it: neither sees what skips it.
fn has_rules_for_each_packet(qos: &Qos) -> bool {
    let is_limited = |limits: &Limits| limits.packet_rate.is_some() || limits.max_connections.is_some();
    qos.dscp.is_some() || is_limited(&qos.ingress) || is_limited(&qos.egress)
}
