//! Chains of endpoints and of policy groups, and dispatch to them.

use std::collections::BTreeSet;

use super::shared::Sharer;
use super::{ChainName, Classic};
use crate::compile::config::Config;
use crate::compile::dispatch::{self, Extras};
use crate::compile::endpoint::{self, EndpointChain};
use crate::compile::names::Direction;
use crate::graph::model::{HostEndpoint, HostInterface, LocalEndpoint};
use crate::render::Table;

/// What an endpoint has in the tables.
#[derive(Debug, Default)]
pub(super) struct EndpointChains {
    /// Its own chains.
    own: BTreeSet<ChainName>,
    /// Chains of groups that these refer to.
    groups: Vec<ChainName>,
}

impl Classic {
    pub(super) fn handle_endpoint(&mut self, endpoint: &LocalEndpoint) {
        self.share_of_workload(endpoint);
        let chains = if self.has_workloads {
            self.compile_endpoint(&endpoint::workload(endpoint))
        } else {
            EndpointChains::default()
        };
        match self.endpoints.insert(endpoint.interface.clone(), chains) {
            Some(old) => self.release_groups(&old),
            None => self.dispatch_dirty = true,
        }
    }

    pub(super) fn drop_endpoint(&mut self, interface: &str) {
        let Some((interface, old)) = self.endpoints.remove_entry(interface) else { return };
        self.drop_share(Sharer::Workload(interface));
        self.dispatch_dirty = true;
        self.drop_chains(&old, &EndpointChains::default());
    }

    pub(super) fn handle_host_endpoint(&mut self, endpoint: &HostEndpoint) {
        self.share_of_host(endpoint);
        let chains = endpoint::host(endpoint);
        chains.iter().for_each(|chain| self.offer_rules(chain));
        let new = self.compile_endpoint(&chains);
        let extras =
            Extras { pre_dnat: !endpoint.pre_dnat.is_empty(), untracked: !endpoint.untracked.is_empty() };
        let interface = endpoint.interface.clone();
        if let Some((old, old_extras)) = self.hosts.remove(&interface) {
            self.dispatch_dirty |= old_extras != extras;
            self.drop_chains(&old, &new);
        } else {
            self.dispatch_dirty = true;
        }
        self.hosts.insert(interface, (new, extras));
    }

    pub(super) fn drop_host_endpoint(&mut self, interface: &HostInterface) {
        let Some((old, _)) = self.hosts.remove(interface) else { return };
        self.drop_share(Sharer::Host(interface.clone()));
        self.dispatch_dirty = true;
        self.drop_chains(&old, &EndpointChains::default());
    }

    /// Options as they are in a table.
    pub(super) fn config_of(&self, table: Table) -> &Config {
        match table {
            Table::Filter => &self.config,
            Table::Raw => &self.in_raw,
            Table::Mangle | Table::Nat => &self.outside_filter,
        }
    }

    fn compile_endpoint(&mut self, chains: &[EndpointChain<'_>]) -> EndpointChains {
        let mut compiled = EndpointChains::default();
        let marks = self.config.marks;
        for spec in chains {
            let table = spec.table;
            let (chain, groups) = spec.compile(self.config_of(table));
            for group in groups.iter().filter_map(|g| g.chain(&marks)) {
                let name = (table, group.name.clone());
                *self.groups.entry(name.clone()).or_insert(0) += 1;
                compiled.groups.push(name);
                self.each(table).for_each(|chains| chains.set(group.clone()));
            }
            compiled.own.insert((table, chain.name.clone()));
            self.each(table).for_each(|chains| chains.set(chain.clone()));
        }
        compiled
    }

    /// Removes what an endpoint had and has no more.
    fn drop_chains(&mut self, old: &EndpointChains, new: &EndpointChains) {
        for (table, name) in old.own.difference(&new.own) {
            self.each(*table).for_each(|chains| chains.remove(name));
        }
        self.release_groups(old);
    }

    fn release_groups(&mut self, old: &EndpointChains) {
        for group in &old.groups {
            let Some(users) = self.groups.get_mut(group) else { continue };
            *users -= 1;
            if *users == 0 {
                self.groups.remove(group);
                let (table, name) = group;
                self.each(*table).for_each(|chains| chains.remove(name));
            }
        }
    }

    pub(super) fn compile_dispatch(&mut self) {
        let interfaces: Vec<&str> = self.endpoints.keys().map(|k| &**k).collect();
        let hosts = self.hosts.iter().map(|(interface, (_, extras))| (interface.clone(), *extras)).collect();
        let directions = Direction::BOTH.into_iter().filter(|_| self.has_workloads);
        let workloads = directions.flat_map(|d| dispatch::workloads(&interfaces, d, &self.config));
        let mut wanted: Vec<_> = workloads.map(|chain| (Table::Filter, chain)).collect();
        for table in Table::ALL {
            let chains = dispatch::hosts(table, &hosts, &self.config);
            wanted.extend(chains.into_iter().map(|chain| (table, chain)));
        }
        if self.surroundings.is_ipvs {
            let hosts: Vec<&HostInterface> = self.hosts.keys().collect();
            let endpoints = self.marked_endpoints();
            self.endpoint_marks.assign(&endpoints);
            let marks = self.endpoint_marks.chains(&interfaces, &hosts, &self.config);
            wanted.extend(marks.into_iter().map(|chain| (Table::Filter, chain)));
        }
        let mut names = BTreeSet::new();
        for (table, chain) in wanted {
            names.insert((table, chain.name.clone()));
            self.each(table).for_each(|chains| chains.set(chain.clone()));
        }
        let old = std::mem::replace(&mut self.dispatch_chains, names);
        let gone: Vec<ChainName> = old.difference(&self.dispatch_chains).cloned().collect();
        for (table, name) in gone {
            self.each(table).for_each(|chains| chains.remove(&name));
        }
    }
}
