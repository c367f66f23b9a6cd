//! Driver of our table of one IP version: rules, sets and maps, in one transaction for each change.
//!
//! ```text
//!  want ──► state (desired | actual, pure) ──steps──► transaction ──► kernel
//!             ▲          ▲                                 │ refused
//!    dump ────┘          └── what others touched           └──► quarantine, or read again
//! ```
//!
//! The table is known by its name, which is Calico's in nftables mode as well. All that is in it is ours: what an
//! agent before us left there, Felix too, is replaced in one transaction, in which chains that are as wanted stay as
//! they are. What is no longer used goes in a second one. Other tables are never touched.

mod apply;
mod generation;
mod isolate;
mod nets;
mod observe;
mod offload;
mod plan;
mod quarantine;
mod set;
mod state;
mod watch;

use std::collections::BTreeSet;

use tortie_api::net::IpVersion;
use tortie_rules::compile::Change;
use tortie_rules::compile::classic::SetChange;
use tortie_rules::render::Table;
use tortie_rules::render::nft::{self as lower, Content};
use tortie_rules::ruleset::nft::{Element, ElementKey, Set as Declaration, TableId};
use tortie_rules::ruleset::{Chain, Hook, Key, Verdict};

use self::generation::Revoker;
use self::plan::TablePlan;
use self::quarantine::Thing;
use self::set::Set;
use self::state::State;
pub use self::watch::{Touches, touches};
use super::{Ear, Socket};
use crate::netlink::NetlinkError;
use crate::reconcile::{Driver, DriverError, Phase, Plan, Report};

/// What others have changed in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// These chains and sets.
    Parts {
        /// Chains, by their names in the kernel.
        chains: BTreeSet<String>,
        /// Sets and maps.
        sets: BTreeSet<String>,
    },
    /// The table came, or went, or events were lost.
    Whole,
}

impl Touch {
    /// Takes in another touch of the same table.
    fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Parts { chains, sets }, Self::Parts { chains: more_chains, sets: more_sets }) => {
                chains.extend(more_chains);
                sets.extend(more_sets);
            }
            (Self::Whole, _) => {}
            (_, Self::Whole) => *self = Self::Whole,
        }
    }
}

/// Our table of one IP version.
#[derive(Debug)]
pub struct NftTable {
    version: IpVersion,
    id: TableId,
    socket: Socket,
    state: State,
    touched: Option<Touch>,
    /// What the agent listens with to what others change.
    ear: Option<Ear>,
    /// Others have changed something while it was closed.
    is_disturbed: bool,
    /// Others have damaged the table: what they let pass must be stopped at once.
    is_repairing: bool,
    /// Established connections are judged anew when rules change.
    revoker: Option<Revoker>,
    commits: usize,
    failures: usize,
    /// Rules of ours that nftables has no words for: their chains are closed.
    unsayable: std::collections::BTreeMap<String, String>,
}

impl NftTable {
    /// A driver that wants nothing and has read nothing. `workloads` are patterns of interfaces such as `cali+`.
    pub fn new(version: IpVersion, workloads: Vec<String>) -> Self {
        Self {
            version,
            id: lower::table(version),
            socket: Socket::new(),
            state: State::new(version, workloads),
            touched: None,
            ear: None,
            is_disturbed: false,
            is_repairing: false,
            revoker: None,
            commits: 0,
            failures: 0,
            unsayable: std::collections::BTreeMap::new(),
        }
    }

    /// Which IP version.
    pub const fn version(&self) -> IpVersion {
        self.version
    }

    /// Takes a change of what one of iptables' tables would hold. No kernel call.
    pub fn change(&mut self, table: Table, change: &Change) {
        match change {
            Change::Chain(chain) => self.change_chain(table, chain),
            Change::NoChain(name) => self.unwant_chain(&lower::chain_name(table, name)),
            Change::Hooks(hooks) => self.change_hooks(table, hooks),
            Change::Map(map) => {
                let set = lower::map(table, self.version, map);
                let is_map = set.data.is_some();
                let elements = map.elements.iter();
                let elements = elements.map(|(key, verdict)| element(table, key, verdict, is_map));
                self.want_set(set, elements.collect());
            }
            Change::Elements { map, removed, added } => {
                let name = lower::map_name(table, map);
                let set = self.state.sets.get(&name).and_then(Set::declaration);
                let is_map = set.is_none_or(|set| set.data.is_some());
                let added = added.iter().map(|(key, verdict)| element(table, key, verdict, is_map));
                let removed = removed.iter().map(lower::map_key);
                self.update_set(&name, added.collect(), removed.collect());
            }
            Change::NoMap(name) => self.unwant_set(&lower::map_name(table, name)),
        }
    }

    fn change_chain(&mut self, table: Table, chain: &Chain) {
        match lower::chain(table, self.version, chain) {
            Ok(content) => self.want_chain(content),
            Err(error) => {
                let name = lower::chain_name(table, &chain.name);
                self.state.want_chain(self.state.stand_in(&name));
                self.unsayable.insert(name, error.to_string());
            }
        }
    }

    fn change_hooks(&mut self, table: Table, hooks: &[Hook]) {
        for chain in table.kernel_chains() {
            let hook = hooks.iter().find(|hook| hook.chain == *chain);
            let name = lower::chain_name(table, chain);
            match hook.map(|hook| lower::hook(table, self.version, hook)) {
                Some(Ok(Some(content))) => self.want_chain(content),
                Some(Err(error)) => {
                    self.unsayable.insert(name, error.to_string());
                }
                Some(Ok(None)) | None => self.unwant_chain(&name),
            }
        }
    }

    /// Wants a chain with exactly these rules. No kernel call.
    pub fn want_chain(&mut self, content: Content) {
        self.unsayable.remove(&content.chain.name);
        self.state.want_chain(content);
    }

    /// No longer wants a chain.
    pub fn unwant_chain(&mut self, name: &str) {
        self.unsayable.remove(name);
        self.state.unwant_chain(name);
    }

    /// Takes a change of an ip set. No kernel call. `false` if members change of a set that is not wanted.
    pub fn change_set(&mut self, change: &SetChange) -> bool {
        match change {
            SetChange::Want { name, set_type, members, .. } => {
                let version = self.version;
                let name = lower::set_name(name);
                self.state.set_mut(&name).want_members(&name, version, *set_type, members);
                self.state.settle_set(&name);
                if name == lower::not_offloaded(version) && self.state.dirty_sets.contains(&name) {
                    // Who is in it now may have connections that skip the rules.
                    self.state.offload.recall();
                }
                true
            }
            SetChange::Update { name, added, removed, .. } => {
                let name = lower::set_name(name);
                let Some(set) = self.state.known_set_mut(&name) else { return false };
                let is_known = set.update_members(added, removed);
                self.state.settle_set(&name);
                is_known
            }
            SetChange::Unwant { name } => {
                self.unwant_set(&lower::set_name(name));
                true
            }
        }
    }

    /// Wants a set or map with exactly these elements.
    pub fn want_set(&mut self, set: Declaration, elements: Vec<Element>) {
        let name = set.name.clone();
        self.state.set_mut(&name).want_elements(set, elements);
        self.state.settle_set(&name);
    }

    /// Adds or changes elements of a wanted set or map, and takes others out. `false` if it is not wanted.
    pub fn update_set(&mut self, name: &str, added: Vec<Element>, removed: Vec<ElementKey>) -> bool {
        let Some(set) = self.state.known_set_mut(name) else { return false };
        let is_known = set.update_elements(added, removed);
        self.state.settle_set(name);
        is_known
    }

    /// No longer wants a set or map.
    pub fn unwant_set(&mut self, name: &str) {
        if let Some(set) = self.state.known_set_mut(name) {
            set.unwant();
            self.state.settle_set(name);
        }
    }

    /// Takes note that others have changed the table; [`Driver::observe_touched`] then looks at that part. No kernel
    /// call.
    pub fn touch(&mut self, touch: Touch) {
        match &mut self.touched {
            Some(known) => known.merge(touch),
            None => self.touched = Some(touch),
        }
    }

    /// Closes this ear during large transactions, of which the kernel would tell us element by element. What others
    /// change meanwhile is found all the same.
    pub fn close_in_bulk(&mut self, ear: Ear) {
        self.ear = Some(ear);
    }

    /// The netlink port by which the kernel tells our own commits from others'.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn port(&mut self) -> Result<u32, NetlinkError> {
        self.socket.port()
    }

    /// Transactions sent so far, and how many of them were refused.
    pub const fn commits(&self) -> (usize, usize) {
        (self.commits, self.failures)
    }

    /// How many sets and maps are wanted.
    pub fn set_count(&self) -> usize {
        self.state.sets.values().filter(|set| set.is_wanted()).count()
    }

    fn is_closed(&self, thing: &Thing) -> bool {
        self.state.quarantine.has(thing)
    }
}

/// An element of a map, or of a set that stands for one.
fn element(table: Table, key: &Key, verdict: &Verdict, is_map: bool) -> Element {
    if is_map { lower::map_element(table, key, verdict) } else { lower::set_element(key) }
}

impl Driver for NftTable {
    fn name(&self) -> String {
        format!("nftables {}", self.version)
    }

    fn observe(&mut self) -> Result<(), DriverError> {
        self.touched = None;
        self.read_all()
    }

    fn observe_touched(&mut self) -> Result<(), DriverError> {
        self.is_repairing |= self.touched.is_some();
        match self.touched.take() {
            Some(Touch::Parts { chains, sets }) if self.state.is_known => self.read_parts(&chains, &sets),
            Some(_) => self.observe(),
            None => Ok(()),
        }
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        let is_ours = matches!(phase, Phase::Enforce | Phase::Withdraw);
        let is_unread = is_ours && !self.state.is_known;
        let mut changes = if is_unread { Vec::new() } else { self.state.changes(phase) };
        if phase == Phase::Enforce && self.revoker.as_ref().is_some_and(Revoker::is_new) {
            changes.push("find the generation of policy".to_owned());
        }
        Box::new(TablePlan { driver: self.name(), is_unread, changes })
    }

    fn apply(&mut self, phase: Phase) -> Report {
        match phase {
            Phase::Enforce | Phase::Withdraw => self.run(phase),
            Phase::Provide | Phase::Connect => Report::default(),
        }
    }
}
