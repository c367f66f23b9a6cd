//! The table of connections that skip the rules, and the interfaces that it takes them from.
//!
//! ```text
//!   the table itself ── with the rules, in their transaction: a rule names it
//!   its interfaces ──── each by itself, behind the rules: one that has just gone must hold up no rule
//! ```
//!
//! An interface that goes takes its place in the table and the connections of the table with it; the kernel sees to
//! that. What the kernel no longer has is never taken out by us.
//!
//! When an endpoint is excluded, connections that already skip the rules have to come back. The table is then replaced
//! by an empty one: connections stay what they are, meet the rules again, and those that may leave again.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use tortie_rules::render::nft as lower;
use tortie_rules::ruleset::nft::{Expression, Flowtable};

use super::NftTable;
use super::state::State;
use crate::nft::{CommitError, FlowtableEntry, Removal, Transaction};
use crate::reconcile::{Driver as _, Problem};

/// What is wanted of the table, and what is there.
#[derive(Debug, Default)]
pub(super) struct Offload {
    pub(super) is_wanted: bool,
    /// Under our name.
    pub(super) is_there: bool,
    /// What is there has to be replaced.
    is_stale: bool,
    /// Other tables of this kind in our table.
    pub(super) strange: BTreeSet<String>,
    wanted: BTreeSet<String>,
    held: BTreeSet<String>,
    /// Interfaces that the kernel did not take, and why.
    refused: BTreeMap<String, String>,
}

/// A change of the interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Add(String),
    Remove(String),
}

impl Offload {
    /// Begins to take connections from an interface, which is there.
    pub(super) fn add(&mut self, name: &str) {
        self.refused.remove(name);
        self.wanted.insert(name.to_owned());
    }

    /// The kernel has taken the interface out.
    pub(super) fn gone(&mut self, name: &str) {
        self.refused.remove(name);
        self.wanted.remove(name);
        self.held.remove(name);
    }

    /// The table was replaced, or came.
    pub(super) fn created(&mut self) {
        (self.is_there, self.is_stale) = (true, false);
        self.held.clear();
    }

    /// A table was taken away.
    pub(super) fn deleted(&mut self, name: &str) {
        if !self.strange.remove(name) {
            self.is_there = false;
            self.held.clear();
        }
    }

    /// The table is not there.
    pub(super) fn absent(&mut self) {
        (self.is_there, self.is_stale) = (false, false);
        self.held.clear();
        self.strange.clear();
    }

    /// Connections that skip the rules have to meet them again.
    pub(super) fn recall(&mut self) {
        self.is_stale |= self.is_there;
    }

    /// What is there.
    pub(super) fn observed(&mut self, entries: Vec<FlowtableEntry>) {
        self.absent();
        self.refused.clear();
        for FlowtableEntry { flowtable, .. } in entries {
            if flowtable.name != lower::FLOWTABLE {
                self.strange.insert(flowtable.name);
                continue;
            }
            self.is_there = true;
            // An interface may stand there that was renamed.
            self.held = flowtable.devices.iter().cloned().collect();
            self.is_stale = Flowtable { devices: Vec::new(), ..flowtable } != lower::flowtable();
        }
    }

    /// To be made with the rules.
    pub(super) const fn is_due(&self) -> bool {
        self.is_wanted && (!self.is_there || self.is_stale)
    }

    /// To be replaced: rules that name it have to go first.
    pub(super) const fn is_rebuilt(&self) -> bool {
        self.is_wanted && self.is_there && self.is_stale
    }

    /// Tables that are to go, once no rule names them.
    pub(super) fn doomed(&self) -> Vec<String> {
        let own = (!self.is_wanted && self.is_there).then(|| lower::FLOWTABLE.to_owned());
        self.strange.iter().cloned().chain(own).collect()
    }

    /// What is to change of the interfaces once the table is there.
    pub(super) fn devices(&self) -> Vec<Device> {
        if !self.is_wanted {
            return Vec::new();
        }
        let is_refused = |name: &&String| self.refused.contains_key(*name);
        let add = self.wanted.difference(&self.held).filter(|name| !is_refused(name));
        let remove = self.held.difference(&self.wanted).filter(|name| !is_refused(name));
        remove.cloned().map(Device::Remove).chain(add.cloned().map(Device::Add)).collect()
    }

    fn done(&mut self, device: &Device) {
        match device {
            Device::Add(name) => self.held.insert(name.clone()),
            Device::Remove(name) => self.held.remove(name),
        };
    }

    /// What is to change, in words.
    pub(super) fn changes(&self) -> Vec<String> {
        let table = self.is_due().then(|| "write the flowtable".to_owned());
        let device = |device: Device| match device {
            Device::Add(name) => format!("add {name} to the flowtable"),
            Device::Remove(name) => format!("take {name} out of the flowtable"),
        };
        table.into_iter().chain(self.devices().into_iter().map(device)).collect()
    }
}

/// Whether a rule of the chain names the table.
pub(super) fn offloads(content: &lower::Content) -> bool {
    let mut expressions = content.rules.iter().flat_map(|rule| &rule.expressions);
    expressions.any(|expression| matches!(expression, Expression::FlowOffload { .. }))
}

impl State {
    /// Chains with a rule that names the table.
    pub(super) fn offloading_chains(&self) -> Vec<String> {
        let wanted = self.chains.iter().filter(|(_, state)| state.wanted.as_deref().is_some_and(offloads));
        wanted.map(|(name, _)| name.clone()).collect()
    }
}

impl NftTable {
    /// Wants connections to be able to skip the rules, as rules say.
    pub fn want_offload(&mut self) {
        self.state.offload.is_wanted = true;
    }

    /// An interface is there from which connections may skip the rules. No kernel call.
    pub fn offload_from(&mut self, interface: &str) {
        self.state.offload.add(interface);
    }

    /// An interface is no longer there. No kernel call.
    pub fn offload_gone(&mut self, interface: &str) {
        self.state.offload.gone(interface);
    }

    /// Connections that skip the rules shall meet them again. No kernel call.
    pub fn recall_offloaded(&mut self) {
        self.state.offload.recall();
    }

    /// Interfaces from which connections cannot skip the rules, and why: they are slower and nothing else.
    pub fn offload_notes(&self) -> Vec<Problem> {
        let refused = self.state.offload.refused.iter();
        let note = |(name, error): (&String, &String)| Problem {
            object: format!("interface {name} in flowtable {} {}", self.id, lower::FLOWTABLE),
            error: error.clone(),
        };
        refused.map(note).collect()
    }

    /// Brings the interfaces in line: all in one transaction, and if the kernel refuses one, each in its own. Returns
    /// how many.
    pub(super) fn attach(&mut self) -> usize {
        let devices = self.state.offload.devices();
        if devices.is_empty() || self.commit_devices(&devices).is_ok() {
            return devices.len();
        }
        let mut changed = 0;
        for device in devices {
            match self.commit_devices(std::slice::from_ref(&device)) {
                Ok(()) => changed += 1,
                Err(error) => {
                    let is_gone = matches!(&error, CommitError::Refused { failures, .. }
                        if failures.iter().all(|failure| failure.refusal.is(Errno::ENOENT)));
                    let (Device::Add(name) | Device::Remove(name)) = &device;
                    if is_gone {
                        // Word of that comes; so will word of its return.
                        self.state.offload.gone(name);
                        continue;
                    }
                    let why = crate::steer::chain(&error);
                    tracing::warn!(driver = self.name(), interface = name, why, "not taken by the flowtable");
                    self.state.offload.refused.insert(name.clone(), why);
                }
            }
        }
        changed
    }

    fn commit_devices(&mut self, devices: &[Device]) -> Result<(), CommitError> {
        let mut transaction = Transaction::new();
        for device in devices {
            let of = |name: &String| Flowtable { devices: vec![name.clone()], ..lower::flowtable() };
            match device {
                Device::Add(name) => transaction.add_flowtable(&self.id, &of(name)),
                Device::Remove(name) => {
                    transaction.remove_flowtable_devices(&self.id, &of(name), Removal::MustExist);
                }
            }
        }
        self.commits += 1;
        self.socket.commit(&mut transaction, None)?;
        devices.iter().for_each(|device| self.state.offload.done(device));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
