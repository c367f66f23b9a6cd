//! Reading the table.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use tortie_rules::render::nft::Content;
use tortie_rules::ruleset::nft::Rule;

use super::NftTable;
use super::quarantine::Thing;
use super::set::{Actual, Set};
use super::state::{ChainState, Held};
use crate::netlink::NetlinkError;
use crate::nft::{ChainEntry, SetEntry};
use crate::reconcile::DriverError;

/// So many chains are read one by one; where others have changed more, reading the rules of all is quicker.
const FEW_CHAINS: usize = 32;

/// Rules of chains as they are in the kernel; `None` where one is not of our making.
type Rules = BTreeMap<String, Option<Vec<Rule>>>;

fn failed(error: NetlinkError) -> DriverError {
    DriverError::Netlink { what: "read nftables".to_owned(), source: io::Error::other(error) }
}

impl NftTable {
    /// Reads everything. What was refused before is tried again.
    pub(super) fn read_all(&mut self) -> Result<(), DriverError> {
        self.state.is_known = false;
        let released = self.state.quarantine.release_all();
        self.read_everything().map_err(failed)?;
        self.state.is_known = true;
        for thing in released {
            if let Thing::Set(name) = thing {
                self.state.dirty_sets.insert(name);
            }
        }
        self.state.settle_all();
        Ok(())
    }

    fn read_everything(&mut self) -> Result<(), NetlinkError> {
        let table = self.socket.table(&self.id)?;
        self.state.forget_all();
        if table.is_none() {
            return Ok(());
        }
        self.state.has_table = true;
        let mut rules = self.read_rules(None)?;
        for entry in self.socket.chains(&self.id)? {
            let rules = rules.remove(&entry.name).unwrap_or(Some(Vec::new()));
            self.take_chain(entry, rules);
        }
        let missed = self.missed_chains(&rules);
        for entry in self.socket.chains_named(&self.id, &missed)? {
            let rules = rules.remove(&entry.name).unwrap_or(Some(Vec::new()));
            self.take_chain(entry, rules);
        }
        for entry in self.socket.sets(&self.id)? {
            self.take_set(&entry);
        }
        self.state.offload.observed(self.socket.flowtables(&self.id)?);
        self.read_elements()
    }

    /// What a list of chains may lack that others have disturbed: those that have rules, which are left here, and wanted
    /// ones. An empty one that nobody wants can wait for the next reading.
    fn missed_chains(&self, rules: &Rules) -> BTreeSet<String> {
        let is_missed = |state: &ChainState| state.wanted.is_some() && !state.held.is_there();
        let wanted = self.state.chains.iter().filter(|(_, state)| is_missed(state)).map(|(name, _)| name);
        wanted.chain(rules.keys()).cloned().collect()
    }

    /// Reads these chains and sets only.
    pub(super) fn read_parts(
        &mut self,
        chains: &BTreeSet<String>,
        sets: &BTreeSet<String>,
    ) -> Result<(), DriverError> {
        let read = self.read_chains(chains).and_then(|()| self.read_sets(sets));
        read.map_err(|error| {
            self.state.is_known = false;
            failed(error)
        })
    }

    fn read_chains(&mut self, names: &BTreeSet<String>) -> Result<(), NetlinkError> {
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            self.state.chains.entry(name.clone()).or_default().held = Held::Absent;
        }
        let mut all = if names.len() > FEW_CHAINS { Some(self.read_rules(None)?) } else { None };
        for entry in self.socket.chains_named(&self.id, names)? {
            let of_chain = match &mut all {
                Some(all) => all.remove(&entry.name),
                None => self.read_rules(Some(&entry.name))?.remove(&entry.name),
            };
            self.take_chain(entry, of_chain.unwrap_or(Some(Vec::new())));
        }
        names.iter().for_each(|name| self.state.settle_chain(name));
        Ok(())
    }

    fn read_sets(&mut self, names: &BTreeSet<String>) -> Result<(), NetlinkError> {
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            self.state.sets.entry(name.clone()).or_insert_with(|| Set::new(Actual::Absent)).actual =
                Actual::Absent;
        }
        let found = self.socket.sets(&self.id)?;
        found.iter().filter(|entry| names.contains(&entry.name)).for_each(|entry| self.take_set(entry));
        names.iter().for_each(|name| self.state.settle_set(name));
        self.read_elements()
    }

    fn read_rules(&mut self, chain: Option<&str>) -> Result<Rules, NetlinkError> {
        let mut rules = Rules::new();
        for entry in self.socket.rules(&self.id, chain)? {
            let list = rules.entry(entry.chain).or_insert_with(|| Some(Vec::new()));
            match (list.as_mut(), entry.rule) {
                (Some(list), Ok(rule)) => list.push(rule),
                _ => *list = None,
            }
        }
        Ok(rules)
    }

    fn take_chain(&mut self, entry: ChainEntry, rules: Option<Vec<Rule>>) {
        let state: &mut ChainState = self.state.chains.entry(entry.name).or_default();
        state.held = match (entry.chain, rules) {
            (Ok(chain), Some(rules)) => {
                let content = Content { chain, rules };
                match &state.wanted {
                    // Kept once.
                    Some(wanted) if **wanted == content => Held::Content(Arc::clone(wanted)),
                    Some(_) | None => Held::Other(content.chain.base),
                }
            }
            (Ok(chain), None) => Held::Other(chain.base),
            (Err(_), _) => Held::Foreign,
        };
    }

    fn take_set(&mut self, entry: &SetEntry) {
        // It comes and goes with its rule, and cannot be deleted.
        if entry.is_anonymous {
            return;
        }
        let set = self.state.sets.entry(entry.name.clone()).or_insert_with(|| Set::new(Actual::Absent));
        match &entry.set {
            Ok(found) => set.observed(found),
            Err(_) if set.is_wanted() => set.actual = Actual::Unlike,
            Err(_) => set.actual = Actual::Unread,
        }
        self.state.dirty_sets.insert(entry.name.clone());
    }

    /// Reads the elements of wanted sets that have not been looked into.
    pub(super) fn read_unread(&mut self) -> Result<(), crate::reconcile::DriverError> {
        self.read_elements().map_err(failed)
    }

    fn read_elements(&mut self) -> Result<(), NetlinkError> {
        let is_unread = |name: &&String| {
            self.state
                .sets
                .get(*name)
                .is_some_and(|set| set.is_wanted() && matches!(set.actual, Actual::Unread))
        };
        let unread: Vec<String> = self.state.dirty_sets.iter().filter(is_unread).cloned().collect();
        for name in unread {
            let Some(set) = self.state.sets.get_mut(&name) else { continue };
            let Some(declaration) = set.declaration() else { continue };
            match self.socket.elements(&self.id, &declaration) {
                Ok(held) => set.compare(&held),
                // It went since it was listed.
                Err(error)
                    if error.refusal().is_some_and(|refusal| refusal.is(nix::errno::Errno::ENOENT)) =>
                {
                    set.actual = Actual::Absent;
                }
                Err(error) => return Err(error),
            }
            self.state.settle_set(&name);
        }
        Ok(())
    }
}
