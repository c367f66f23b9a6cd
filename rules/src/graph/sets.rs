//! Membership of ip sets: which endpoints, network sets and services contribute what.
//!
//! A member stays as long as somebody contributes it. Changes within one flush cancel out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tortie_api::net::Protocol;
use tortie_api::selector::Selector;

use super::contributors::{Contributor, Contributors, Filter, Held};
use super::convert::{SetDefinition, SetNeed};
use super::counted::Counted;
use super::cover::{NetCounts, Visible};
use super::label_index::{ItemId, ItemLabels, Label, LabelIndex, MatchChange, SelectorId, Texts};
use super::model::{Event, Member, SetId, SetKind};
use super::shared_selectors::SharedSelectors;
use super::slab::Slab;

/// Addresses and ports behind a service, from its endpoint slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceBackends {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<(Protocol, u16)>,
}

/// `(namespace, service)`.
pub(crate) type ServiceKey = (Arc<str>, Arc<str>);
/// A profile, as long as it is held or has items.
pub(crate) type ProfileNumber = super::label_index::ParentId;
/// A set, as long as it lives.
type SetNumber = u32;

#[derive(Clone, Debug)]
enum Origin {
    Selector(SelectorId, Filter),
    Service(ServiceKey),
}

#[derive(Debug)]
struct IpSet {
    id: SetId,
    kind: SetKind,
    origin: Origin,
    users: u32,
    nets: NetCounts,
    ports: Counted<Member>,
    /// Visible changes since the last flush; only kept once the set was put out.
    pending: BTreeMap<Member, bool>,
    published: bool,
    is_dirty: bool,
}

/// All ip sets that active policies use.
#[derive(Debug)]
pub(crate) struct IpSets {
    index: LabelIndex,
    items: Contributors,
    members: Members,
    by_id: FxHashMap<SetId, SetNumber>,
    selectors: SharedSelectors,
    services: BTreeMap<ServiceKey, BTreeMap<Arc<str>, ServiceBackends>>,
    service_sets: BTreeMap<ServiceKey, Vec<SetNumber>>,
}

/// The sets with their members.
#[derive(Debug)]
struct Members {
    suppress_covered: bool,
    sets: Slab<IpSet>,
    dirty: Vec<SetNumber>,
    /// Kept for its memory.
    visible: Vec<Visible>,
}

impl IpSets {
    /// With `suppress_covered`, members inside another member's network are left out.
    pub(crate) fn new(suppress_covered: bool) -> Self {
        let (sets, dirty, visible) = (Slab::default(), Vec::new(), Vec::new());
        Self {
            index: LabelIndex::default(),
            items: Contributors::default(),
            members: Members { suppress_covered, sets, dirty, visible },
            by_id: FxHashMap::default(),
            selectors: SharedSelectors::default(),
            services: BTreeMap::new(),
            service_sets: BTreeMap::new(),
        }
    }

    /// Adds or changes an endpoint, a network set or a node.
    pub(crate) fn set_item<'a>(
        &mut self,
        id: ItemId,
        contributor: Contributor<'_>,
        labels: ItemLabels<impl Iterator<Item = Label<'a>>, impl Iterator<Item = Label<'a>>>,
        parents: impl Iterator<Item = &'a str>,
    ) {
        if let Some(old) = self.items.set(id, contributor) {
            for selector in self.index.selectors_of(id) {
                let sets = || self.selectors.users(*selector);
                sets().for_each(|set| self.members.contribute(set, &self.items, &old, false));
                if let Some(new) = self.items.get(id) {
                    sets().for_each(|set| self.members.contribute(set, &self.items, new, true));
                }
            }
            self.items.forget(&old);
        }
        let mut changes = Vec::new();
        self.index.set_item(id, labels, parents, &|_| Vec::new(), &mut changes);
        self.follow(&changes);
    }

    /// Removes an endpoint, a network set or a node.
    pub(crate) fn remove_item(&mut self, id: ItemId) {
        let mut changes = Vec::new();
        self.index.remove_item(id, &mut changes);
        self.follow(&changes);
        self.items.remove(id);
    }

    /// An item's labels, parents, and what it contributes.
    pub(crate) fn describe(&self, id: ItemId) -> Option<Description> {
        let (labels, parents) = self.index.describe(id)?;
        let held = self.items.get(id)?;
        let (nets, ports) = (held.nets().collect(), self.items.ports_of(held).to_vec());
        Some(Description { labels, parents, nets, ports })
    }

    /// Sets the labels that items inherit from a profile.
    pub(crate) fn set_profile_labels<'a>(&mut self, name: &str, labels: impl Iterator<Item = Label<'a>>) {
        let mut changes = Vec::new();
        self.index.set_parent_labels(name, labels, &mut changes);
        self.follow(&changes);
    }

    /// The number of a profile that is held or has items.
    pub(crate) fn profile(&self, name: &str) -> Option<ProfileNumber> {
        self.index.find_parent(name)
    }

    /// Keeps a profile, so that it can have labels.
    pub(crate) fn hold_profile(&mut self, name: &str) -> ProfileNumber {
        self.index.hold_parent(name)
    }

    /// Ceases to keep a profile.
    pub(crate) fn drop_profile(&mut self, profile: ProfileNumber) {
        self.index.drop_parent(profile);
    }

    /// The labels that items inherit from a profile.
    pub(crate) fn profile_labels(&self, name: &str) -> Texts {
        self.index.parent_labels(name)
    }

    /// Sets what one endpoint slice of a service holds; `None` removes it.
    pub(crate) fn set_slice(
        &mut self,
        service: &ServiceKey,
        slice: &Arc<str>,
        backends: Option<&ServiceBackends>,
    ) {
        let slices = self.services.entry(service.clone()).or_default();
        let old = match backends {
            Some(new) => slices.insert(slice.clone(), new.clone()),
            None => slices.remove(slice),
        };
        if slices.is_empty() {
            self.services.remove(service);
        }
        if old.as_ref() == backends {
            return;
        }
        for number in self.service_sets.get(service).into_iter().flatten() {
            let kind = self.members.sets[*number].kind;
            for (backends, on) in [(old.as_ref(), false), (backends, true)] {
                for member in backends.into_iter().flat_map(|b| service_members(kind, b)) {
                    self.members.count(*number, member, on);
                }
            }
        }
    }

    /// A rule began to use a set.
    pub(crate) fn acquire(&mut self, need: &SetNeed) -> SetId {
        let id = need.id.clone();
        if let Some(number) = self.by_id.get(&id) {
            self.members.sets[*number].users += 1;
            self.members.mark(*number);
            return id;
        }
        let number = self.members.sets.add(IpSet {
            id: id.clone(),
            kind: need.definition.kind(),
            // Replaced below, where the set's number is known.
            origin: Origin::Service((Arc::default(), Arc::default())),
            users: 1,
            nets: NetCounts::default(),
            ports: Counted::default(),
            pending: BTreeMap::new(),
            published: false,
            is_dirty: false,
        });
        self.by_id.insert(id.clone(), number);
        self.members.mark(number);
        match &need.definition {
            SetDefinition::Selected(selector) => self.fill(number, selector, Filter::Addresses),
            SetDefinition::Nodes(selector) => self.fill(number, selector, Filter::Nodes),
            SetDefinition::NamedPort { selector, protocol, port } => {
                self.fill(number, selector, Filter::NamedPort(*protocol, port.clone()));
            }
            SetDefinition::Service { namespace, name }
            | SetDefinition::ServiceAddresses { namespace, name } => {
                self.fill_from_service(number, (namespace.clone(), name.clone()));
            }
        }
        id
    }

    /// A rule ceased to use a set. The set goes at the next flush unless somebody uses it again.
    pub(crate) fn release(&mut self, id: &SetId) {
        if let Some(number) = self.by_id.get(id) {
            self.members.sets[*number].users -= 1;
            self.members.mark(*number);
        }
    }

    /// New sets and changes of members go to `added`, sets that nobody uses any more to `gone`.
    pub(crate) fn flush(&mut self, added: &mut Vec<Event>, gone: &mut Vec<Event>) {
        let mut dirty = std::mem::take(&mut self.members.dirty);
        dirty.sort_unstable_by(|a, b| self.members.sets[*a].id.cmp(&self.members.sets[*b].id));
        for number in dirty {
            let set = &mut self.members.sets[number];
            set.is_dirty = false;
            if set.users > 0 {
                added.extend(set.flush(self.members.suppress_covered));
            } else {
                if set.published {
                    gone.push(Event::SetGone(set.id.clone()));
                }
                self.forget(number);
            }
        }
    }

    /// Sets as of the last flush.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many things of each kind are kept for items.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 5] {
        self.index.sizes()
    }

    fn fill(&mut self, number: SetNumber, selector: &Selector, filter: Filter) {
        let (id, new) = self.index.acquire_selector(selector.expr());
        self.selectors.add(id, number);
        let items = new.unwrap_or_else(|| self.index.items_of(id));
        self.members.sets[number].origin = Origin::Selector(id, filter);
        self.members.fill(number, &self.items, items.iter().filter_map(|item| self.items.get(*item)));
    }

    fn fill_from_service(&mut self, number: SetNumber, key: ServiceKey) {
        let kind = self.members.sets[number].kind;
        for backends in self.services.get(&key).into_iter().flat_map(BTreeMap::values) {
            for member in service_members(kind, backends) {
                self.members.count(number, member, true);
            }
        }
        self.service_sets.entry(key.clone()).or_default().push(number);
        self.members.sets[number].origin = Origin::Service(key);
    }

    fn follow(&mut self, changes: &[MatchChange]) {
        for change in changes {
            let Some(held) = self.items.get(change.item) else { continue };
            for set in self.selectors.users(change.selector) {
                self.members.contribute(set, &self.items, held, change.matched);
            }
        }
    }

    fn forget(&mut self, number: SetNumber) {
        let set = self.members.sets.remove(number);
        self.by_id.remove(&set.id);
        match set.origin {
            Origin::Selector(selector, _) => {
                self.selectors.remove(selector, number);
                self.index.release_selector(selector);
            }
            Origin::Service(key) => {
                if let Some(sets) = self.service_sets.get_mut(&key) {
                    sets.retain(|other| *other != number);
                    if sets.is_empty() {
                        self.service_sets.remove(&key);
                    }
                }
            }
        }
    }
}

/// An item as it was given.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) labels: ItemLabels<Texts, Texts>,
    pub(crate) parents: Vec<String>,
    pub(crate) nets: Vec<ipnet::IpNet>,
    pub(crate) ports: Vec<super::contributors::NamedPort>,
}

impl Members {
    fn mark(&mut self, number: SetNumber) {
        let set = &mut self.sets[number];
        if !set.is_dirty {
            set.is_dirty = true;
            self.dirty.push(number);
        }
    }

    /// Counts what many items contribute to a set that was not put out yet.
    fn fill<'a>(&mut self, number: SetNumber, items: &Contributors, all: impl Iterator<Item = &'a Held>) {
        let set = &mut self.sets[number];
        let Origin::Selector(_, filter) = &set.origin else { return };
        for held in all {
            items.members(held, filter, |member| match member {
                Member::Net(net) => {
                    set.nets.count(net, true);
                }
                Member::AddressPort(..) => {
                    set.ports.add(member);
                }
            });
        }
    }

    /// Counts what an item contributes to a set, or takes it back.
    fn contribute(&mut self, number: SetNumber, items: &Contributors, held: &Held, on: bool) {
        let Origin::Selector(_, filter) = &self.sets[number].origin else { return };
        match filter {
            filter @ (Filter::Addresses | Filter::Nodes) => {
                if held.is_node() == matches!(filter, Filter::Nodes) {
                    held.nets().for_each(|net| self.count(number, Member::Net(net), on));
                }
            }
            filter @ Filter::NamedPort(..) => {
                let filter = filter.clone();
                items.members(held, &filter, |member| self.count(number, member, on));
            }
        }
    }

    /// Counts one contribution of a member, or takes it back.
    fn count(&mut self, number: SetNumber, member: Member, on: bool) {
        self.mark(number);
        let set = &mut self.sets[number];
        match member {
            Member::Net(net) if !set.published => {
                set.nets.count(net, on);
            }
            Member::Net(net) => {
                self.visible.clear();
                if on {
                    set.nets.add(net, self.suppress_covered, &mut self.visible);
                } else {
                    set.nets.remove(net, self.suppress_covered, &mut self.visible);
                }
                for Visible(net, on) in &self.visible {
                    set.note(Member::Net(*net), *on);
                }
            }
            Member::AddressPort(..) => {
                if if on { set.ports.add(member) } else { set.ports.remove(member) } {
                    set.note(member, on);
                }
            }
        }
    }
}

impl IpSet {
    /// Notes a visible change; one that undoes another cancels it.
    fn note(&mut self, member: Member, on: bool) {
        if self.published && self.pending.remove(&member) != Some(!on) {
            self.pending.insert(member, on);
        }
    }

    fn flush(&mut self, suppress: bool) -> Option<Event> {
        let id = self.id.clone();
        if self.published {
            let pending = std::mem::take(&mut self.pending);
            let pick = |on: bool| pending.iter().filter(|(_, v)| **v == on).map(|(m, _)| *m).collect();
            let (added, removed) = (pick(true), pick(false));
            return (!pending.is_empty()).then_some(Event::SetChanged { id, added, removed });
        }
        self.published = true;
        let mut members = Vec::with_capacity(self.nets.len() + self.ports.values().len());
        match self.kind {
            // Almost all sets have single addresses only: no need to merge, nor to look for what is covered.
            SetKind::Net if let Some(hosts) = self.nets.only_hosts() => {
                members.extend(hosts.map(Member::Net));
            }
            SetKind::Net => members.extend(self.nets.visible(suppress).map(Member::Net)),
            SetKind::AddressPort => members.extend(self.ports.values().iter()),
        }
        self.nets.shrink();
        self.ports.shrink();
        Some(Event::SetAdded { id, kind: self.kind, members })
    }
}

fn service_members(kind: SetKind, backends: &ServiceBackends) -> Vec<Member> {
    let addresses = backends.addresses.iter();
    match kind {
        SetKind::Net => addresses.map(|a| Member::Net((*a).into())).collect(),
        SetKind::AddressPort => addresses
            .flat_map(|a| backends.ports.iter().map(|(p, n)| Member::AddressPort(*a, p.number(), *n)))
            .collect(),
    }
}
