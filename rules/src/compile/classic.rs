//! Felix's layout: a chain for each direction of each endpoint, policy and profile.
//!
//! Takes the graph's events one by one; only chains that an event touches are compiled and rendered again.

mod embed;
mod endpoints;
mod network;
mod policies;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::net::IpVersion;

use self::endpoints::EndpointChains;
use self::shared::Sharer;
pub use super::chains::BrokenSets;
use super::chains::{Chains, Change};
use super::config::{Config, DenyAction};
use super::dispatch::Extras;
use super::endpoint_marks::EndpointMarks;
use super::shared::Share;
use super::statics::Surroundings;
use super::{names, statics};
use crate::graph::model::{
    Event, HostInterface, MESH_WORKLOADS, Member, PolicyKey, PolicyRules, ProfileRules, SetId, SetKind,
};
use crate::render::iptables::Features;
use crate::render::{Table, TableChange};
use crate::ruleset::{Chain, Hook, Map};

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
        /// Its type.
        set_type: SetType,
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

/// One table as it is to be, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableContent {
    /// Which.
    pub table: Table,
    /// Our rules in the kernel's own chains.
    pub hooks: Vec<Hook>,
    /// Our chains by name, those that a packet can reach.
    pub chains: Vec<Chain>,
    /// Verdict maps that these look into, by name; none in iptables.
    pub maps: Vec<Map>,
}

/// The ruleset of one IP version.
#[derive(Debug)]
struct Ruleset {
    version: IpVersion,
    tables: BTreeMap<Table, Chains>,
}

impl Ruleset {
    fn table(&mut self, table: Table) -> &mut Chains {
        self.tables.entry(table).or_default()
    }
}

/// A chain of a table.
type ChainName = (Table, String);

/// See the module's documentation.
#[derive(Debug)]
pub struct Classic {
    config: Config,
    features: Features,
    rulesets: Vec<Ruleset>,
    /// The same without REJECT, which the kernel takes in the filter table only.
    outside_filter: Config,
    /// With [`DenyAction::Drop`], and without flow logs: what is decided on before connections are tracked belongs to no flow.
    in_raw: Config,
    endpoints: BTreeMap<Arc<str>, EndpointChains>,
    hosts: BTreeMap<HostInterface, (EndpointChains, Extras)>,
    policies: BTreeMap<PolicyKey, Arc<PolicyRules>>,
    profiles: BTreeMap<Arc<str>, Arc<ProfileRules>>,
    /// Group chains and the number of endpoint chains that use them.
    groups: BTreeMap<ChainName, usize>,
    sets: Vec<SetChange>,
    surroundings: Surroundings,
    /// The wanted ones of the sets that are not always there.
    optional_sets: BTreeMap<String, Vec<IpNet>>,
    endpoint_marks: EndpointMarks,
    /// What endpoints have in chains that they share; only those that have something.
    shares: BTreeMap<Sharer, Share>,
    shares_dirty: bool,
    dispatch_dirty: bool,
    dispatch_chains: BTreeSet<ChainName>,
    /// Workloads have chains of their own here. Without, another compiler makes them, with what it needs of ours.
    has_workloads: bool,
}

impl Classic {
    /// The static rules, without endpoints.
    pub fn new(config: Config, features: Features) -> Self {
        let endpoint_marks = EndpointMarks::new(&config.marks);
        let rulesets = config.versions.iter().map(|v| static_ruleset(*v, &config)).collect();
        let outside_filter = if config.marks.known == 0 { DenyAction::Drop } else { DenyAction::Cut };
        let mut classic = Self {
            in_raw: Config { flow_logs: false, filter_deny: DenyAction::Drop, ..config.clone() },
            outside_filter: Config { filter_deny: outside_filter, ..config.clone() },
            config,
            features,
            rulesets,
            endpoints: BTreeMap::new(),
            hosts: BTreeMap::new(),
            policies: BTreeMap::new(),
            profiles: BTreeMap::new(),
            groups: BTreeMap::new(),
            sets: Vec::new(),
            surroundings: Surroundings::default(),
            optional_sets: BTreeMap::new(),
            endpoint_marks,
            shares: BTreeMap::new(),
            shares_dirty: false,
            dispatch_dirty: true,
            dispatch_chains: BTreeSet::new(),
            has_workloads: true,
        };
        classic.want_static_set(statics::THIS_HOST, SetType::Address, &[]);
        classic.want_static_set(statics::DSCP_SOURCES, SetType::Net, &[]);
        if classic.config.flow_offload {
            classic.want_static_set(statics::NO_OFFLOAD, SetType::Address, &[]);
        }
        if classic.config.istio_dscp.is_some() {
            classic.want_static_set(MESH_WORKLOADS, SetType::Address, &[]);
        }
        classic.handle_pools(&[], &[]);
        classic.handle_network(&Arc::default());
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
            Event::Policy(policy) => self.handle_policy(policy),
            Event::PolicyGone(key) => self.drop_policy(key),
            Event::Profile(profile) => self.handle_profile(profile),
            Event::ProfileGone(name) => self.drop_profile(name),
            Event::Endpoint(endpoint) => self.handle_endpoint(endpoint),
            Event::EndpointGone(interface) => self.drop_endpoint(interface),
            Event::HostEndpoint(endpoint) => self.handle_host_endpoint(endpoint),
            Event::HostEndpointGone(interface) => self.drop_host_endpoint(interface),
            Event::Network(network) => self.handle_network(network),
            Event::Pools { all, nat_outgoing } => self.handle_pools(all, nat_outgoing),
        }
    }

    /// Sets this host's own addresses: those of interfaces that are no workload's.
    pub fn set_host_addresses(&mut self, addresses: &[IpNet]) {
        self.want_static_set(statics::THIS_HOST, SetType::Address, addresses);
    }

    /// Notes which sets the kernel does not hold as wanted: policies that would let more through by that are
    /// closed.
    pub fn set_broken_sets(&mut self, broken: &BrokenSets) {
        let tables = self.rulesets.iter_mut().flat_map(|ruleset| ruleset.tables.values_mut());
        tables.for_each(|chains| chains.set_broken_sets(broken));
    }

    /// Changes of sets since the last call, in order.
    pub fn poll_sets(&mut self) -> Vec<SetChange> {
        self.compile_shares();
        std::mem::take(&mut self.sets)
    }

    /// Changes of tables since the last call.
    pub fn poll_tables(&mut self) -> Vec<TableUpdate> {
        self.compile_what_all_share();
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

    /// The same, typed: for another renderer.
    pub fn poll_typed(&mut self) -> Vec<(IpVersion, Table, Change)> {
        self.compile_what_all_share();
        self.take_changes()
    }

    /// The tables of one IP version, typed; for evaluation, and without effect on what is polled.
    pub fn tables(&mut self, version: IpVersion) -> Vec<TableContent> {
        self.compile_what_all_share();
        let ruleset = self.rulesets.iter().filter(|ruleset| ruleset.version == version);
        let tables = ruleset.flat_map(|ruleset| &ruleset.tables);
        let content = tables.map(|(table, chains)| (*table, chains.content(&self.config.marks)));
        content
            .map(|(table, (hooks, chains))| TableContent { table, hooks, chains, maps: Vec::new() })
            .collect()
    }

    /// Dispatch, and chains in which many endpoints have rules: not compiled for each of a batch.
    fn compile_what_all_share(&mut self) {
        if std::mem::take(&mut self.dispatch_dirty) {
            self.compile_dispatch();
        }
        self.compile_shares();
    }

    /// A table in all IP versions.
    fn each(&mut self, table: Table) -> impl Iterator<Item = &mut Chains> {
        self.rulesets.iter_mut().map(move |ruleset| ruleset.table(table))
    }

    fn want_set(&mut self, id: &SetId, kind: SetKind, members: &[Member]) {
        let set_type = type_of(id, kind);
        for version in &self.config.versions {
            let name = names::graph_set_name(*version, id);
            let members = of_version(members, set_type, *version);
            self.sets.push(SetChange::Want { name, version: *version, set_type, members });
        }
    }

    fn update_set(&mut self, id: &SetId, added: &[Member], removed: &[Member]) {
        for version in &self.config.versions {
            let kind = match added.iter().chain(removed).next() {
                Some(Member::AddressPort(..)) => SetKind::AddressPort,
                Some(Member::Net(_)) | None => SetKind::Net,
            };
            let set_type = type_of(id, kind);
            let (added, removed) =
                (of_version(added, set_type, *version), of_version(removed, set_type, *version));
            if !added.is_empty() || !removed.is_empty() {
                self.sets.push(SetChange::Update {
                    name: names::graph_set_name(*version, id),
                    set_type,
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
            ruleset.table(Table::Nat).set(chain);
        }
    }
}

fn static_ruleset(version: IpVersion, config: &Config) -> Ruleset {
    let mut tables = BTreeMap::new();
    for table in Table::ALL {
        let mut chains = Chains::default();
        let chains_of = statics::chains(table, version, config, &Surroundings::default());
        chains_of.into_iter().for_each(|chain| chains.set(chain));
        chains.set_hooks(statics::hooks(table, config));
        tables.insert(table, chains);
    }
    Ruleset { version, tables }
}

/// The members of one IP version that a set of this type can have.
pub(in crate::compile) fn of_version(
    members: &[Member],
    set_type: SetType,
    version: IpVersion,
) -> Vec<Member> {
    let fits = |member: &Member| match member {
        Member::Net(net) => set_type != SetType::Address || net.prefix_len() == net.max_prefix_len(),
        Member::AddressPort(..) => true,
    };
    members.iter().filter(|m| m.version() == version && fits(m)).copied().collect()
}

/// The type of a set of the graph.
pub(in crate::compile) fn type_of(id: &SetId, kind: SetKind) -> SetType {
    match kind {
        SetKind::Net if *id.0 == *MESH_WORKLOADS => SetType::Address,
        SetKind::Net => SetType::Net,
        SetKind::AddressPort => SetType::AddressPort,
    }
}

#[cfg(test)]
mod tests;
