//! Tables instead of lists of rules: what a new connection costs does not grow with the number of policies.
//!
//! For nftables. Everything but workloads is as [`classic`](super::classic) compiles it, which this builds on.
//! Dispatch to workloads is a verdict map; a list of policies is one chain for all endpoints that have it; and in the
//! list the address of the peer is looked up, which leads to the row of its class: what is said of each protocol and
//! port, computed here, first match first. Rows that are equal are one chain, whatever lists they come from.
//!
//! ```text
//! cali-FORWARD ─jump► cali-to-wl-dispatch ─goto► cali-pl-… ──────────► allowed: return, with the accept mark
//!                     interface                  address, port  └goto► cali-row-…  where there are more cells
//! ```
//!
//! The junction with the rest is that of `classic`: who jumps into dispatch gets back what policy allows, with the
//! accept mark set, and nothing else. All ways from there on are `goto`, so one return leads back. With limits of an
//! endpoint and a list in pieces chains nest nine deep, of sixteen that the kernel follows.
//!
//! What tables cannot express stays a rule (see `list`); what would grow beyond measure falls back ([`Budget`]): a
//! list whose pieces between barriers are too complex is compiled with whole tiers only, then policy by policy in the
//! chains of `classic`. It is tried again when its policies change. Which lists fall back for want of elements depends
//! on which came first; all else is the same for the same cluster, whatever was before.
//!
//! Changes cost what they touch: members that come and go change their elements in the blocks that ask for their set;
//! an edit of a policy looks again at those whom the changed rules name, in the lists that hold it. What comes out the
//! same is no change.

mod block;
mod dispatch;
mod key;
mod list;
mod members;
mod outcome;
mod own;
mod row;
mod row_chain;
mod sets;
mod step;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::net::IpVersion;
use tortie_api::policy::Action;
use tortie_api::qos::Limits as QosLimits;

pub use self::block::Limits;
use self::key::ListKey;
use self::version::Version;
use super::chains::Change;
use super::classic::{Classic, SetChange, TableContent};
use super::config::Config;
use super::names::Direction;
use crate::graph::model::{Event, LocalEndpoint, PolicyKey, PolicyRules, ProfileRules};
use crate::render::Table;

/// What may be spent on tables.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// On one block.
    pub block: Limits,
    /// Maps and sets of a table, with which the kernel becomes slow. Beyond, rows get no maps of their own. A list has
    /// its maps all the same: as rules it would need a set for each selector.
    pub lookups: usize,
    /// Elements of all maps of a table. Beyond, further lists are compiled policy by policy: rules share sets.
    pub elements: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { block: Limits::default(), lookups: 500, elements: 2_000_000 }
    }
}

/// A change of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Of which IP version.
    pub version: IpVersion,
    /// Which table of iptables its content would be in.
    pub table: Table,
    /// What changes.
    pub change: Change,
}

/// Changes since the last poll: one transaction for each IP version. Sets that are wanted or get members come first,
/// then `tables` in their order, then sets that go or lose members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of named sets. Only sets that rules look into are wanted.
    pub sets: Vec<SetChange>,
    /// Of chains, maps and hooks.
    pub tables: Vec<Update>,
}

/// How large the compiled tables of one IP version are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Chains.
    pub chains: usize,
    /// Rules in these.
    pub rules: usize,
    /// Verdict maps.
    pub maps: usize,
    /// Elements of these.
    pub elements: usize,
    /// Named sets.
    pub sets: usize,
    /// Lists of policies that are compiled policy by policy.
    pub linear_lists: usize,
    /// Lists of policies.
    pub lists: usize,
}

/// An endpoint and the lists that it uses, ingress first.
#[derive(Debug)]
struct Endpoint {
    desired: Arc<LocalEndpoint>,
    lists: [String; 2],
}

impl Endpoint {
    fn limits(&self) -> [QosLimits; 2] {
        [self.desired.qos.ingress, self.desired.qos.egress]
    }
}

/// A list and how many endpoints use it.
#[derive(Debug)]
struct Used {
    key: ListKey,
    users: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Fast {
    classic: Classic,
    budget: Budget,
    versions: Vec<Version>,
    endpoints: BTreeMap<Arc<str>, Endpoint>,
    lists: BTreeMap<String, Used>,
    by_policy: BTreeMap<PolicyKey, BTreeSet<String>>,
    by_profile: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// Lists to be compiled, or to be removed if nobody uses them.
    dirty: BTreeSet<String>,
    /// Lists of which only policies changed, and these.
    edited: BTreeMap<String, BTreeSet<PolicyKey>>,
    /// A policy began or ended to pass packets on: endpoints may have other lists.
    lists_dirty: bool,
}

impl Fast {
    /// The static rules, without endpoints.
    pub fn new(config: Config) -> Self {
        Self::with_budget(config, Budget::default())
    }

    /// The same with another budget.
    pub fn with_budget(config: Config, budget: Budget) -> Self {
        let versions =
            config.versions.iter().map(|version| Version::new(*version, &config, &budget)).collect();
        let mut fast = Self {
            classic: Classic::without_workloads(config),
            budget,
            versions,
            endpoints: BTreeMap::new(),
            lists: BTreeMap::new(),
            by_policy: BTreeMap::new(),
            by_profile: BTreeMap::new(),
            dirty: BTreeSet::new(),
            edited: BTreeMap::new(),
            lists_dirty: false,
        };
        fast.program_dispatch();
        fast
    }

    /// Takes a change of the desired state.
    pub fn handle(&mut self, event: &Event) {
        match event {
            Event::SetAdded { id, kind, members } => {
                self.versions.iter_mut().for_each(|version| version.add_set(id, *kind, members));
            }
            Event::SetChanged { id, added, removed } => {
                self.versions.iter_mut().for_each(|version| version.change_set(id, added, removed));
            }
            Event::SetGone(id) => self.versions.iter_mut().for_each(|version| version.remove_set(id)),
            Event::Policy(policy) => self.policy_changes(policy),
            Event::Profile(profile) => self.profile_changes(profile),
            Event::PolicyGone(key) => {
                self.lists_dirty |= self.by_policy.contains_key(key);
                self.dirty.extend(self.by_policy.get(key).into_iter().flatten().cloned());
            }
            Event::ProfileGone(name) => {
                self.dirty.extend(self.by_profile.get(name).into_iter().flatten().cloned());
            }
            Event::Endpoint(endpoint) => self.handle_endpoint(endpoint),
            Event::EndpointGone(interface) => self.drop_endpoint(interface),
            Event::HostEndpoint(_) | Event::HostEndpointGone(_) | Event::Network(_) | Event::Pools { .. } => {
            }
        }
        if !matches!(event, Event::SetAdded { .. } | Event::SetChanged { .. } | Event::SetGone(_)) {
            self.classic.handle(event);
        }
    }

    /// Sets this host's own addresses: those of interfaces that are no workload's.
    pub fn set_host_addresses(&mut self, addresses: &[IpNet]) {
        self.classic.set_host_addresses(addresses);
    }

    /// Notes whether kube-proxy uses IPVS on this node.
    pub fn set_ipvs(&mut self, is_ipvs: bool) {
        self.classic.set_ipvs(is_ipvs);
    }

    /// Interfaces of endpoints for which no mark is left; see [`Classic::unmarked_endpoints`].
    pub fn unmarked_endpoints(&self) -> Vec<String> {
        self.classic.unmarked_endpoints()
    }

    /// Changes since the last call.
    pub fn poll(&mut self) -> Changes {
        self.compile();
        let mut sets = self.classic.take_own_sets();
        for version in &mut self.versions {
            sets.extend(version.take_set_changes(&mut self.classic));
        }
        let update = |(version, table, change)| Update { version, table, change };
        Changes { sets, tables: self.classic.take_changes().into_iter().map(update).collect() }
    }

    /// The tables of one IP version, typed; for evaluation, and without effect on what is polled.
    pub fn tables(&mut self, version: IpVersion) -> Vec<TableContent> {
        self.compile();
        self.classic.content(version)
    }

    /// How large the tables of one IP version are.
    pub fn size(&mut self, version: IpVersion) -> Size {
        let tables = self.tables(version);
        let mut size = Size::default();
        for table in &tables {
            size.chains += table.chains.len();
            size.rules += table.chains.iter().map(|chain| chain.rules.len()).sum::<usize>();
            size.maps += table.maps.len();
            size.elements += table.maps.iter().map(|map| map.elements.len()).sum::<usize>();
        }
        if let Some(version) = self.versions.iter().find(|of| of.number() == version) {
            size.sets = version.sets_in_use();
            size.lists = self.lists.len();
            size.linear_lists = version.linear_lists();
        }
        size
    }

    /// Whether a policy passes packets on; one that is not known may.
    fn may_pass(&self, key: &PolicyKey, direction: Direction) -> bool {
        self.classic.policy(key).is_none_or(|policy| passes(policy, direction))
    }

    /// The policy is not there yet while this is called, or is as before.
    fn policy_changes(&mut self, policy: &PolicyRules) {
        let Some(lists) = self.by_policy.get(&policy.key) else { return };
        let old = self.classic.policy(&policy.key);
        let old_passes = |direction| old.is_none_or(|old| passes(old, direction));
        self.lists_dirty |= Direction::BOTH.into_iter().any(|d| old_passes(d) != passes(policy, d));
        let is_same = |direction: Direction| match (old, direction) {
            (Some(old), Direction::Ingress) => old.ingress == policy.ingress && old.tier == policy.tier,
            (Some(old), Direction::Egress) => old.egress == policy.egress && old.tier == policy.tier,
            (None, _) => false,
        };
        let changed = |name: &&String| self.lists.get(*name).is_some_and(|used| !is_same(used.key.direction));
        for list in lists.iter().filter(changed) {
            self.edited.entry(list.clone()).or_default().insert(policy.key.clone());
        }
    }

    fn profile_changes(&mut self, profile: &ProfileRules) {
        if self.classic.profile(&profile.name).is_none_or(|old| **old != *profile) {
            self.dirty.extend(self.by_profile.get(&profile.name).into_iter().flatten().cloned());
        }
    }

    fn handle_endpoint(&mut self, endpoint: &Arc<LocalEndpoint>) {
        self.lead(endpoint);
        self.program_dispatch();
    }

    /// Leads packets of an endpoint to its lists.
    fn lead(&mut self, endpoint: &Arc<LocalEndpoint>) {
        let lists = Direction::BOTH.map(|direction| {
            let key = ListKey::new(endpoint, direction, |policy| self.may_pass(policy, direction));
            let name = key.name();
            self.use_list(&name, key);
            name
        });
        let new = Endpoint { desired: endpoint.clone(), lists };
        for (at, direction) in Direction::BOTH.into_iter().enumerate() {
            for version in self.config_versions() {
                let config = self.classic.config().clone();
                let chains = self.classic.filter(version);
                let limits = &new.limits()[at];
                dispatch::add(direction, &endpoint.interface, limits, &new.lists[at], &config, chains);
            }
        }
        if let Some(old) = self.endpoints.insert(endpoint.interface.clone(), new) {
            old.lists.iter().for_each(|list| self.release_list(list));
        }
    }

    fn drop_endpoint(&mut self, interface: &Arc<str>) {
        let Some(old) = self.endpoints.remove(interface) else { return };
        for direction in Direction::BOTH {
            for version in self.config_versions() {
                dispatch::remove(direction, interface, self.classic.filter(version));
            }
        }
        old.lists.iter().for_each(|list| self.release_list(list));
        self.program_dispatch();
    }

    fn config_versions(&self) -> Vec<IpVersion> {
        self.classic.config().versions.clone()
    }

    /// The dispatch chains, which depend on whether packets are counted somewhere.
    fn program_dispatch(&mut self) {
        let counts = [0, 1].map(|at| self.endpoints.values().any(|e| e.limits()[at].packet_rate.is_some()));
        let config = self.classic.config().clone();
        for version in self.config_versions() {
            for (direction, counts) in Direction::BOTH.into_iter().zip(counts) {
                dispatch::program(direction, counts, &config, self.classic.filter(version));
            }
        }
        self.classic.set_known_first(!counts.contains(&true));
    }

    fn use_list(&mut self, name: &str, key: ListKey) {
        if let Some(used) = self.lists.get_mut(name) {
            used.users += 1;
            return;
        }
        for policy in key.policies() {
            self.by_policy.entry(policy.clone()).or_default().insert(name.to_owned());
        }
        for profile in &key.profiles {
            self.by_profile.entry(profile.clone()).or_default().insert(name.to_owned());
        }
        self.lists.insert(name.to_owned(), Used { key, users: 1 });
        self.dirty.insert(name.to_owned());
    }

    fn release_list(&mut self, name: &str) {
        if let Some(used) = self.lists.get_mut(name) {
            used.users -= 1;
            if used.users == 0 {
                self.dirty.insert(name.to_owned());
            }
        }
    }

    /// Brings all chains and maps up to date.
    fn compile(&mut self) {
        self.classic.settle();
        if std::mem::take(&mut self.lists_dirty) {
            let endpoints: Vec<Arc<LocalEndpoint>> =
                self.endpoints.values().map(|endpoint| endpoint.desired.clone()).collect();
            endpoints.iter().for_each(|endpoint| self.lead(endpoint));
        }
        for (name, policies) in std::mem::take(&mut self.edited) {
            let Some(used) = self.lists.get(&name).filter(|used| used.users > 0) else { continue };
            let (list, classic) = ((name.as_str(), &used.key), &mut self.classic);
            if !self.dirty.contains(&name)
                && !self.versions.iter_mut().all(|version| version.edit(list, &policies, classic))
            {
                self.dirty.insert(name);
            }
        }
        for name in std::mem::take(&mut self.dirty) {
            let Some(used) = self.lists.get(&name) else { continue };
            if used.users > 0 {
                for version in &mut self.versions {
                    version.build(&name, &used.key, &mut self.classic, &self.budget);
                }
                continue;
            }
            if let Some(Used { key, .. }) = self.lists.remove(&name) {
                self.forget_list(&name, &key);
            }
        }
        for version in &mut self.versions {
            for name in version.take_touched(&mut self.classic) {
                if let Some(used) = self.lists.get(&name) {
                    version.build(&name, &used.key, &mut self.classic, &self.budget);
                }
            }
        }
        self.classic.find_idle();
    }

    fn forget_list(&mut self, name: &str, key: &ListKey) {
        for version in &mut self.versions {
            version.remove(name, &mut self.classic);
        }
        for policy in key.policies() {
            if let Some(lists) = self.by_policy.get_mut(policy) {
                lists.remove(name);
                if lists.is_empty() {
                    self.by_policy.remove(policy);
                }
            }
        }
        for profile in &key.profiles {
            if let Some(lists) = self.by_profile.get_mut(profile) {
                lists.remove(name);
                if lists.is_empty() {
                    self.by_profile.remove(profile);
                }
            }
        }
    }
}

/// Whether a rule of the policy passes packets on to the next tier.
fn passes(policy: &PolicyRules, direction: Direction) -> bool {
    let rules = match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    };
    rules.iter().any(|rule| rule.action == Action::Pass)
}

#[cfg(test)]
mod tests;
