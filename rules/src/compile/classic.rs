//! Felix's layout: a chain for each direction of each endpoint, policy and profile.
//!
//! Takes the graph's events one by one; only chains that an event touches are compiled and rendered again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::net::IpVersion;

use super::chains::Chains;
use super::config::Config;
use super::names::{self, Direction};
use super::rule::{self, Owner};
use super::{dispatch, endpoint, statics};
use crate::graph::model::{
    Event, LocalEndpoint, Member, PolicyRules, ProfileRules, RuleSpec, SetId, SetKind,
};
use crate::render::iptables::Features;
use crate::render::{Table, TableChange};
use crate::ruleset::{Action, Chain, Rule};

/// What members of a kernel set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetType {
    /// Addresses: `hash:ip`.
    Address,
    /// Networks: `hash:net`.
    Net,
    /// Address, protocol and port: `hash:ip,port`.
    AddressPort,
}

/// A change of one ip set of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// The set shall exist with exactly these members.
    Want {
        /// Name in the kernel, at most 31 bytes.
        name: String,
        /// Family.
        version: IpVersion,
        /// Type.
        set_type: SetType,
        /// All members.
        members: Vec<Member>,
    },
    /// Members of a wanted set change.
    Update {
        /// Which.
        name: String,
        /// New members.
        added: Vec<Member>,
        /// Members that leave.
        removed: Vec<Member>,
    },
    /// The set shall not exist.
    Unwant {
        /// Which.
        name: String,
    },
}

/// A change of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableUpdate {
    /// Of iptables or ip6tables.
    pub version: IpVersion,
    /// Which table.
    pub table: Table,
    /// What changes.
    pub change: TableChange,
}

/// The ruleset of one IP version.
#[derive(Debug)]
struct Ruleset {
    version: IpVersion,
    tables: BTreeMap<Table, Chains>,
}

impl Ruleset {
    fn filter(&mut self) -> &mut Chains {
        self.tables.entry(Table::Filter).or_default()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Classic {
    config: Config,
    features: Features,
    rulesets: Vec<Ruleset>,
    endpoints: BTreeMap<Arc<str>, Vec<String>>,
    /// Group chains and the number of endpoint chains that use them.
    groups: BTreeMap<String, usize>,
    sets: Vec<SetChange>,
    dispatch_dirty: bool,
    dispatch_chains: BTreeSet<String>,
}

impl Classic {
    /// The static rules, without endpoints.
    pub fn new(config: Config, features: Features) -> Self {
        let rulesets = config.versions.iter().map(|v| static_ruleset(*v, &config)).collect();
        let mut classic = Self {
            config,
            features,
            rulesets,
            endpoints: BTreeMap::new(),
            groups: BTreeMap::new(),
            sets: Vec::new(),
            dispatch_dirty: true,
            dispatch_chains: BTreeSet::new(),
        };
        classic.want_static_set(statics::THIS_HOST, SetType::Address, &[]);
        classic.want_static_set(statics::DSCP_SOURCES, SetType::Net, &[]);
        classic.handle_pools(&[], &[]);
        classic
    }

    /// Takes a change of the desired state.
    pub fn handle(&mut self, event: &Event) {
        match event {
            Event::SetAdded { id, kind, members } => self.want_set(id, *kind, members),
            Event::SetChanged { id, added, removed } => self.update_set(id, added, removed),
            Event::SetGone(id) => {
                for version in &self.config.versions {
                    self.sets.push(SetChange::Unwant { name: names::graph_set_name(*version, id) });
                }
            }
            Event::Policy(policy) if policy.staged => {}
            Event::Policy(policy) => self.handle_policy(policy),
            Event::PolicyGone(key) => {
                for name in Direction::BOTH.map(|d| names::policy_chain(d, key)) {
                    self.filters().for_each(|chains| {
                        chains.pin(&name, false);
                        chains.remove(&name);
                    });
                }
            }
            Event::Profile(profile) => self.handle_profile(profile),
            Event::ProfileGone(name) => {
                for name in Direction::BOTH.map(|d| names::profile_chain(d, name)) {
                    self.filters().for_each(|chains| chains.remove(&name));
                }
            }
            Event::Endpoint(endpoint) => self.handle_endpoint(endpoint),
            Event::EndpointGone(interface) => self.drop_endpoint(interface),
            Event::HostEndpoint(_) | Event::HostEndpointGone(_) => {}
            Event::Pools { all, nat_outgoing } => self.handle_pools(all, nat_outgoing),
        }
    }

    /// Sets this host's own addresses: those of interfaces that are no workload's.
    pub fn set_host_addresses(&mut self, addresses: &[IpNet]) {
        self.want_static_set(statics::THIS_HOST, SetType::Address, addresses);
    }

    /// Notes which sets the kernel does not hold as wanted: policies that would let more through by that are
    /// closed.
    pub fn set_broken_sets(&mut self, names: &BTreeSet<String>) {
        self.filters().for_each(|chains| chains.set_broken_sets(names));
    }

    /// Changes of sets since the last call, in order.
    pub fn poll_sets(&mut self) -> Vec<SetChange> {
        std::mem::take(&mut self.sets)
    }

    /// Changes of tables since the last call.
    pub fn poll_tables(&mut self) -> Vec<TableUpdate> {
        if std::mem::take(&mut self.dispatch_dirty) {
            self.compile_dispatch();
        }
        let (mode, features, marks) = (self.config.insert_mode, self.features, self.config.marks);
        let mut updates = Vec::new();
        for ruleset in &mut self.rulesets {
            let version = ruleset.version;
            for (table, chains) in &mut ruleset.tables {
                let changes = chains.changes(mode, features, &marks).into_iter();
                updates.extend(changes.map(|change| TableUpdate { version, table: *table, change }));
            }
        }
        updates
    }

    fn want_set(&mut self, id: &SetId, kind: SetKind, members: &[Member]) {
        let set_type = match kind {
            SetKind::Net => SetType::Net,
            SetKind::AddressPort => SetType::AddressPort,
        };
        for version in &self.config.versions {
            let name = names::graph_set_name(*version, id);
            let members = of_version(members, *version);
            self.sets.push(SetChange::Want { name, version: *version, set_type, members });
        }
    }

    fn update_set(&mut self, id: &SetId, added: &[Member], removed: &[Member]) {
        for version in &self.config.versions {
            let (added, removed) = (of_version(added, *version), of_version(removed, *version));
            if !added.is_empty() || !removed.is_empty() {
                self.sets.push(SetChange::Update {
                    name: names::graph_set_name(*version, id),
                    added,
                    removed,
                });
            }
        }
    }

    fn want_static_set(&mut self, id: &str, set_type: SetType, nets: &[IpNet]) {
        for version in &self.config.versions {
            let members =
                nets.iter().filter(|n| IpVersion::of(n) == *version).map(|n| Member::Net(*n)).collect();
            let name = names::set_name(*version, id);
            self.sets.push(SetChange::Want { name, version: *version, set_type, members });
        }
    }

    fn handle_pools(&mut self, all: &[IpNet], nat_outgoing: &[IpNet]) {
        self.want_static_set(statics::ALL_POOLS, SetType::Net, all);
        self.want_static_set(statics::NAT_POOLS, SetType::Net, nat_outgoing);
        for ruleset in &mut self.rulesets {
            let wanted = nat_outgoing.iter().any(|n| IpVersion::of(n) == ruleset.version);
            let chain = statics::nat_outgoing(ruleset.version, wanted, &self.config);
            ruleset.tables.entry(Table::Nat).or_default().set(chain);
        }
    }

    fn handle_policy(&mut self, policy: &PolicyRules) {
        let qualified_name = policy.key.qualified_name();
        let owner = Owner {
            tier: &policy.tier,
            kind: policy.key.kind.short(),
            name: &policy.key.name,
            qualified_name: &qualified_name,
        };
        let title = policy.key.to_string();
        for direction in Direction::BOTH {
            let rules = pick(direction, &policy.ingress, &policy.egress);
            let name = names::policy_chain(direction, &policy.key);
            self.set_rule_chain(&name, rules, &format!("{title} {}", direction.word()), owner);
            self.filters().for_each(|chains| chains.pin(&name, policy.everywhere));
        }
    }

    fn handle_profile(&mut self, profile: &ProfileRules) {
        let owner = Owner { tier: "", kind: "pro", name: &profile.name, qualified_name: &profile.name };
        for direction in Direction::BOTH {
            let rules = pick(direction, &profile.ingress, &profile.egress);
            let name = names::profile_chain(direction, &profile.name);
            let title = format!("Profile {} {}", profile.name, direction.word());
            self.set_rule_chain(&name, rules, &title, owner);
        }
    }

    fn set_rule_chain(&mut self, name: &str, rules: &[RuleSpec], title: &str, owner: Owner<'_>) {
        for ruleset in &mut self.rulesets {
            let chain = rule_chain(name, rules, title, owner, ruleset.version, &self.config);
            ruleset.filter().set(chain);
        }
    }

    /// The filter tables of all IP versions.
    fn filters(&mut self) -> impl Iterator<Item = &mut Chains> {
        self.rulesets.iter_mut().map(Ruleset::filter)
    }

    fn handle_endpoint(&mut self, endpoint: &LocalEndpoint) {
        let mut used = Vec::new();
        for direction in Direction::BOTH {
            let (chain, groups) = endpoint::workload(endpoint, direction, &self.config);
            let marks = self.config.marks;
            for group in groups.iter().filter_map(|g| g.chain(&marks)) {
                *self.groups.entry(group.name.clone()).or_insert(0) += 1;
                used.push(group.name.clone());
                self.filters().for_each(|chains| chains.set(group.clone()));
            }
            self.filters().for_each(|chains| chains.set(chain.clone()));
        }
        match self.endpoints.insert(endpoint.interface.clone(), used) {
            Some(old) => self.release_groups(&old),
            None => self.dispatch_dirty = true,
        }
    }

    fn drop_endpoint(&mut self, interface: &str) {
        let Some(groups) = self.endpoints.remove(interface) else { return };
        self.dispatch_dirty = true;
        for name in Direction::BOTH.map(|d| names::workload_chain(d, interface)) {
            self.filters().for_each(|chains| chains.remove(&name));
        }
        self.release_groups(&groups);
    }

    fn release_groups(&mut self, names: &[String]) {
        for name in names {
            let Some(users) = self.groups.get_mut(name) else { continue };
            *users -= 1;
            if *users == 0 {
                self.groups.remove(name);
                self.filters().for_each(|chains| chains.remove(name));
            }
        }
    }

    fn compile_dispatch(&mut self) {
        let interfaces: Vec<&str> = self.endpoints.keys().map(|k| &**k).collect();
        let mut names = BTreeSet::new();
        for direction in Direction::BOTH {
            for chain in dispatch::workloads(&interfaces, direction, &self.config) {
                names.insert(chain.name.clone());
                self.rulesets.iter_mut().for_each(|r| r.filter().set(chain.clone()));
            }
        }
        let old = std::mem::replace(&mut self.dispatch_chains, names);
        for gone in old.iter().filter(|n| !self.dispatch_chains.contains(*n)) {
            self.rulesets.iter_mut().for_each(|r| r.filter().remove(gone));
        }
    }
}

fn static_ruleset(version: IpVersion, config: &Config) -> Ruleset {
    let mut tables = BTreeMap::new();
    for table in Table::ALL {
        let mut chains = Chains::default();
        statics::chains(table, version, config).into_iter().for_each(|chain| chains.set(chain));
        chains.set_hooks(statics::hooks(table, config));
        tables.insert(table, chains);
    }
    Ruleset { version, tables }
}

/// The chain of a policy or profile. Its first rule says whose it is; a trailing RETURN says nothing.
fn rule_chain(
    name: &str,
    rules: &[RuleSpec],
    title: &str,
    owner: Owner<'_>,
    version: IpVersion,
    config: &Config,
) -> Chain {
    let mut compiled: Vec<Rule> =
        rules.iter().flat_map(|r| rule::compile(r, version, owner, config)).collect();
    while compiled.last().is_some_and(|r| r.action == Some(Action::Return)) {
        compiled.pop();
    }
    if compiled.is_empty() {
        compiled.push(Rule::default());
    }
    compiled[0].comments.push(title.to_owned());
    Chain { name: name.to_owned(), rules: compiled }
}

fn pick<'a, T>(direction: Direction, ingress: &'a [T], egress: &'a [T]) -> &'a [T] {
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}

fn of_version(members: &[Member], version: IpVersion) -> Vec<Member> {
    members.iter().filter(|m| m.version() == version).copied().collect()
}
