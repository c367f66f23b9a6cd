//! Ip sets, by our own netlink codec on one socket: both families, four types.
//!
//! ```text
//!   set_wanted / update_members / unwant ──► state (wanted, difference) ──► apply
//!                              observe ──────┘      per set: create, add and delete, rebuild and swap, destroy
//! ```
//!
//! Messages are not a transaction: packets may see a set between two of them. Deletions go before
//! additions, and a set that changes mostly, or changes its kind, is filled under a temporary name and swapped.

mod apply;
mod codec;
mod errors;
mod fill;
mod member;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use tortie_api::net::IpVersion;

use crate::netlink::NetlinkError;
use crate::reconcile::{Driver, DriverError, Phase, Plan, Problem, Report};

use codec::Connection;
use state::{Action, Actual, Set};

pub use member::{Member, SetSpec, SetType};

/// The longest name of a set in bytes (`IPSET_MAXNAMELEN` with its zero is 32).
pub const MAX_NAME_LEN: usize = 31;

/// Names that are ours: today's sets, temporary ones, and those of early Calico versions.
const OUR_PREFIXES: [&str; 8] = [
    "cali40",
    "cali4t",
    "cali60",
    "cali6t",
    "felix-4",
    "felix-6",
    "felix-masq-ipam-pools",
    "felix-all-ipam-pools",
];

/// Whether a set of this name belongs to us. Others are never changed, nor listed.
pub fn is_ours(name: &str) -> bool {
    OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A set cannot be wanted like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSet {
    /// The kernel has no room for the name.
    #[error("the set name {0:?} is longer than {MAX_NAME_LEN} bytes or has a zero byte")]
    Name(String),
    /// A set of this name would not be recognised as ours by the next process.
    #[error("the set name {0:?} has none of our prefixes")]
    NotOurs(String),
    /// There is no such set.
    #[error("the set {0:?} is not wanted: it has no members to update")]
    Unknown(String),
}

/// The driver of all ip sets of both families.
#[derive(Debug)]
pub struct IpSets {
    connection: Connection,
    sets: BTreeMap<String, Set>,
    /// Wanted sets that may not be in step. The others cost nothing.
    dirty: BTreeSet<String>,
    /// Sets in the kernel that are not wanted.
    doomed: BTreeSet<String>,
    /// How many are wanted, by family.
    counts: BTreeMap<IpVersion, usize>,
    observed: bool,
}

impl Default for IpSets {
    fn default() -> Self {
        Self::new()
    }
}

impl IpSets {
    /// A driver for the network namespace of the thread that first uses it. No kernel call is made here.
    pub fn new() -> Self {
        Self {
            connection: Connection::new(),
            sets: BTreeMap::new(),
            dirty: BTreeSet::new(),
            doomed: BTreeSet::new(),
            counts: BTreeMap::new(),
            observed: false,
        }
    }

    /// Wants a set with exactly these members. Members that such a set cannot hold are reported by `apply`.
    pub fn set_wanted(
        &mut self,
        spec: SetSpec,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<(), InvalidSet> {
        if spec.name.len() > MAX_NAME_LEN || spec.name.contains('\0') {
            return Err(InvalidSet::Name(spec.name));
        }
        if !is_ours(&spec.name) {
            return Err(InvalidSet::NotOurs(spec.name));
        }
        let name = spec.name.clone();
        let set = self.sets.entry(name.clone()).or_insert_with(|| Set::new(Actual::Absent));
        let before = set.family();
        *self.counts.entry(spec.family).or_default() += 1;
        set.want(spec, &mut members.into_iter());
        self.discount(before);
        self.doomed.remove(&name);
        self.dirty.insert(name);
        Ok(())
    }

    /// Changes a wanted set's members; what is in both lists is added. The cost is that of the change.
    pub fn update_members(
        &mut self,
        name: &str,
        added: impl IntoIterator<Item = Member>,
        removed: impl IntoIterator<Item = Member>,
    ) -> Result<(), InvalidSet> {
        let known = self
            .sets
            .get_mut(name)
            .is_some_and(|set| set.update(&mut added.into_iter(), &mut removed.into_iter()));
        if !known {
            return Err(InvalidSet::Unknown(name.to_owned()));
        }
        self.dirty.insert(name.to_owned());
        Ok(())
    }

    /// No longer wants a set; it goes in [`Phase::Withdraw`].
    pub fn unwant(&mut self, name: &str) {
        self.dirty.remove(name);
        if let Some(set) = self.sets.get_mut(name) {
            let before = set.family();
            set.unwant();
            self.discount(before);
            self.settle(name);
        }
    }

    fn discount(&mut self, family: Option<IpVersion>) {
        if let Some(count) = family.and_then(|family| self.counts.get_mut(&family)) {
            *count -= 1;
        }
    }

    /// How many sets of a family are wanted.
    pub fn count(&self, family: IpVersion) -> usize {
        self.counts.get(&family).copied().unwrap_or_default()
    }

    /// Whether the kernel has this set with exactly the wanted members, as far as is known.
    pub fn is_programmed(&self, name: &str) -> bool {
        self.observed && self.sets.get(name).is_some_and(Set::is_programmed)
    }

    /// Wanted sets that the kernel does not hold as wanted, as far as is known.
    pub fn incomplete(&self) -> BTreeSet<String> {
        let is_incomplete = |name: &&String| self.sets.get(*name).is_some_and(|set| !set.is_programmed());
        self.dirty.iter().filter(is_incomplete).cloned().collect()
    }

    /// Wanted sets in whose place the kernel has something else, or that hold what could not be taken out.
    pub fn strange(&self) -> BTreeSet<String> {
        let is_strange = |name: &&String| self.sets.get(*name).is_some_and(Set::is_strange);
        self.dirty.iter().filter(is_strange).cloned().collect()
    }

    /// Puts a set into the right worklist, or forgets it.
    fn settle(&mut self, name: &str) {
        let Some(set) = self.sets.get(name) else { return };
        self.dirty.remove(name);
        self.doomed.remove(name);
        match set.action() {
            Action::Destroy => {
                self.doomed.insert(name.to_owned());
            }
            Action::Nothing if set.wanted.is_none() => {
                self.sets.remove(name);
            }
            Action::Nothing if set.problems().is_empty() => {}
            _ => {
                self.dirty.insert(name.to_owned());
            }
        }
    }

    /// Reads one set that is wanted. An error is noted with the set.
    fn read_set(&mut self, name: &str) {
        let Some(set) = self.sets.get_mut(name) else { return };
        let Some(wanted) = &set.wanted else { return };
        match self.connection.list(&wanted.spec) {
            Ok(listing) => set.read(listing),
            Err(error) => {
                set.actual = Actual::Unread;
                set.failure = Some(format!("cannot list its members: {}", error.words()));
            }
        }
    }

    fn observe_names(&mut self) -> Result<Vec<String>, NetlinkError> {
        self.connection.negotiate()?;
        let mut names = self.connection.names()?;
        names.retain(|name| is_ours(name));
        Ok(names)
    }
}

impl Driver for IpSets {
    fn name(&self) -> String {
        "ipset".to_owned()
    }

    fn observe(&mut self) -> Result<(), DriverError> {
        self.observed = false;
        let names = self.observe_names().map_err(|error| DriverError::Netlink {
            what: "list ip sets".to_owned(),
            source: io::Error::other(error),
        })?;
        for set in self.sets.values_mut() {
            set.actual = Actual::Absent;
            set.failure = None;
        }
        for name in names {
            self.sets.entry(name).or_insert_with(|| Set::new(Actual::Absent)).actual = Actual::Unread;
        }
        let all: Vec<String> = self.sets.keys().cloned().collect();
        for name in all {
            if self.sets.get(&name).is_some_and(|set| set.action() == Action::Read) {
                self.read_set(&name);
            }
            self.settle(&name);
        }
        self.observed = true;
        Ok(())
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        let names = match phase {
            Phase::Provide => &self.dirty,
            Phase::Withdraw => &self.doomed,
            Phase::Enforce | Phase::Connect => return Box::new(SetsPlan(Vec::new())),
        };
        let steps = names.iter().filter_map(|name| {
            let set = self.sets.get(name)?;
            Some((name.clone(), set.action(), set.change_counts()))
        });
        Box::new(SetsPlan(steps.filter(|(_, action, _)| *action != Action::Nothing).collect()))
    }

    fn apply(&mut self, phase: Phase) -> Report {
        let before = self.connection.channel.requests();
        let mut report = match phase {
            Phase::Provide | Phase::Withdraw if !self.observed => Report {
                problems: vec![Problem {
                    object: "ip sets".to_owned(),
                    error: "the kernel's sets have not been read yet".to_owned(),
                }],
                ..Report::default()
            },
            Phase::Provide => self.provide(),
            Phase::Withdraw => self.withdraw(),
            Phase::Enforce | Phase::Connect => Report::default(),
        };
        report.calls = self.connection.channel.requests() - before;
        report
    }
}

/// What is to be done, set by set: name, action, members to add and to delete.
struct SetsPlan(Vec<(String, Action, (usize, usize))>);

impl Plan for SetsPlan {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SetsPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, (name, action, (add, delete))) in self.0.iter().enumerate() {
            if line > 0 {
                writeln!(f)?;
            }
            match action {
                Action::Nothing => {}
                Action::Read => write!(f, "read set {name} and bring it in step")?,
                Action::Create => write!(f, "create set {name} with {add} members")?,
                Action::Update => write!(f, "update set {name}: delete {delete} members, add {add}")?,
                Action::Rebuild => write!(f, "rebuild set {name} with {add} members and swap")?,
                Action::Destroy => write!(f, "destroy set {name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
