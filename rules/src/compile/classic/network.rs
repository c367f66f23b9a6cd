//! What of the rules depends on the cluster's network and on what kube-proxy does.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::net::IpVersion;

use super::{Classic, SetChange, SetType};
use crate::compile::names::set_name;
use crate::compile::statics::{self, ALL_HOSTS, Tunnels, VXLAN_HOSTS};
use crate::graph::model::{ClusterNetwork, HostInterface, Member};
use crate::render::Table;

impl Classic {
    pub(super) fn handle_network(&mut self, network: &Arc<ClusterNetwork>) {
        self.surroundings.network = network.clone();
        self.compile_statics();
        for version in self.config.versions.clone() {
            let tunnels = Tunnels::new(version, &self.config, network);
            let (ipip, vxlan) = (tunnels.ipip, tunnels.vxlan);
            let members = |addresses: &[std::net::IpAddr], external: bool| -> Vec<IpNet> {
                let external = self.config.external_nodes.iter().filter(|_| external).copied();
                let all = addresses.iter().map(|address| IpNet::from(*address)).chain(external);
                all.filter(|net| IpVersion::of(net) == version).collect::<BTreeSet<_>>().into_iter().collect()
            };
            // Felix knows external nodes of IPv4 only.
            let hosts = (ipip || self.config.nat_spares_hosts)
                .then(|| members(&network.nodes, version == IpVersion::V4));
            let vxlan = vxlan.then(|| members(&network.vxlan_peers, true));
            self.set_optional_set(version, ALL_HOSTS, hosts);
            self.set_optional_set(version, VXLAN_HOSTS, vxlan);
        }
    }

    /// Notes whether kube-proxy uses IPVS on this node.
    pub fn set_ipvs(&mut self, is_ipvs: bool) {
        if self.surroundings.is_ipvs != is_ipvs {
            self.surroundings.is_ipvs = is_ipvs;
            self.compile_statics();
            self.dispatch_dirty = true;
        }
    }

    /// Interfaces of endpoints that have no mark, as of the last poll of tables: what they send to services by IPVS is
    /// denied.
    pub fn unmarked_endpoints(&self) -> Vec<String> {
        if !self.surroundings.is_ipvs {
            return Vec::new();
        }
        let endpoints = self.marked_endpoints();
        self.endpoint_marks.unmarked(&endpoints).into_iter().map(ToString::to_string).collect()
    }

    /// Endpoints that need a mark where kube-proxy uses IPVS.
    pub(super) fn marked_endpoints(&self) -> BTreeSet<HostInterface> {
        let workloads = self.endpoints.keys().map(|name| HostInterface::Named(name.clone()));
        workloads.chain(self.hosts.keys().cloned()).collect()
    }

    pub(super) fn compile_statics(&mut self) {
        for ruleset in &mut self.rulesets {
            for table in Table::ALL {
                let version = ruleset.version;
                for chain in statics::chains(table, version, &self.config, &self.surroundings) {
                    ruleset.table(table).set(chain);
                }
            }
        }
    }

    /// Wants one of the sets that are not always there, or wants it no more.
    fn set_optional_set(&mut self, version: IpVersion, id: &str, nets: Option<Vec<IpNet>>) {
        let name = set_name(version, id);
        let old = match &nets {
            Some(nets) => self.optional_sets.insert(name.clone(), nets.clone()),
            None => self.optional_sets.remove(&name),
        };
        if old == nets {
            return;
        }
        self.sets.push(match nets {
            Some(nets) => {
                let members = nets.into_iter().map(Member::Net).collect();
                SetChange::Want { name, version, set_type: SetType::Net, members }
            }
            None => SetChange::Unwant { name },
        });
    }
}
