//! Sets of the graph that rules look into: those of chains that `classic` compiles, and of barriers. What only
//! tables need is no set in the kernel.

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::net::IpVersion;

use super::members::Members;
use crate::compile::classic::{Classic, SetChange, of_version};
use crate::compile::names::graph_set_name;
use crate::graph::model::{Member, SetId};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct NamedSets {
    version: IpVersion,
    ids: BTreeMap<String, SetId>,
    wanted: BTreeSet<String>,
    /// Sets that came or went.
    dirty: BTreeSet<String>,
    /// Changes of members of wanted sets, in order.
    changes: Vec<(SetId, Vec<Member>, Vec<Member>)>,
}

impl NamedSets {
    pub(super) fn new(version: IpVersion) -> Self {
        let (ids, wanted, dirty, changes) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new(), Vec::new());
        Self { version, ids, wanted, dirty, changes }
    }

    /// The number of sets that rules look into.
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn add(&mut self, id: &SetId) {
        let name = graph_set_name(self.version, id);
        self.dirty.insert(name.clone());
        self.ids.insert(name, id.clone());
    }

    pub(super) fn change(&mut self, id: &SetId, added: &[Member], removed: &[Member]) {
        let name = graph_set_name(self.version, id);
        if self.wanted.contains(&name) && !self.dirty.contains(&name) {
            self.changes.push((id.clone(), added.to_vec(), removed.to_vec()));
        }
    }

    pub(super) fn remove(&mut self, id: &SetId) {
        let name = graph_set_name(self.version, id);
        self.ids.remove(&name);
        self.changes.retain(|(of, ..)| of != id);
        self.dirty.insert(name);
    }

    /// What changed since the last call.
    pub(super) fn take_changes(&mut self, members: &Members, classic: &mut Classic) -> Vec<SetChange> {
        let came = std::mem::take(&mut self.dirty);
        let mut names = came.clone();
        names.extend(classic.take_dirty_sets(self.version));
        let (mut out, mut gone) = (Vec::new(), Vec::new());
        for (id, added, removed) in std::mem::take(&mut self.changes) {
            let set = members.number(&id).and_then(|number| members.get(number));
            let name = graph_set_name(self.version, &id);
            if let Some(set) = set.filter(|_| !came.contains(&name)) {
                let of = |list: &[Member]| of_version(list, set.holds, self.version);
                let (added, removed) = (of(&added), of(&removed));
                if !(added.is_empty() && removed.is_empty()) {
                    out.push(SetChange::Update { name, set_type: set.holds, added, removed });
                }
            }
        }
        for name in names {
            let set = self.ids.get(&name).and_then(|id| members.get(members.number(id)?));
            let is_used = classic.uses_set(self.version, &name);
            match set.filter(|_| is_used) {
                Some(set) if came.contains(&name) || !self.wanted.contains(&name) => {
                    let (version, set_type) = (self.version, set.holds);
                    let members = set.all(version);
                    self.wanted.insert(name.clone());
                    out.push(SetChange::Want { name, version, set_type, members });
                }
                None if self.wanted.remove(&name) => gone.push(SetChange::Unwant { name }),
                _ => {}
            }
        }
        out.extend(gone);
        out
    }
}
