//! Membership of ip sets: which endpoints, network sets and services contribute what.
//!
//! A member stays as long as somebody contributes it. Changes within one flush cancel out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use tortie_api::net::Protocol;

use super::convert::{PortProtocol, SetDefinition};
use super::cover::{NetCounts, Visible};
use super::label_index::{ItemId, LabelIndex, MatchChange, SelectorId};
use super::model::{Event, Member, SetId, SetKind};

/// Something with labels and addresses: an endpoint or a network set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contributor {
    /// Addresses and networks.
    pub(crate) nets: Vec<IpNet>,
    /// Named ports.
    pub(crate) ports: Vec<NamedPort>,
}

/// A port of an endpoint that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Addresses and ports behind a service, from its endpoint slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceBackends {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<(Protocol, u16)>,
}

/// `(namespace, service)`.
pub(crate) type ServiceKey = (Arc<str>, Arc<str>);

#[derive(Debug)]
enum Filter {
    Addresses,
    NamedPort(PortProtocol, Arc<str>),
}

#[derive(Debug)]
enum Origin {
    Selector(SelectorId, Filter),
    Service(ServiceKey),
}

#[derive(Debug)]
struct IpSet {
    kind: SetKind,
    origin: Origin,
    users: u32,
    nets: NetCounts,
    ports: BTreeMap<Member, u32>,
    /// Visible changes since the last flush; only kept once the set was put out.
    pending: BTreeMap<Member, bool>,
    published: bool,
}

#[derive(Debug)]
struct SharedSelector {
    id: SelectorId,
    sets: BTreeSet<SetId>,
}

/// All ip sets that active policies use.
#[derive(Debug)]
pub(crate) struct IpSets {
    suppress_covered: bool,
    index: LabelIndex,
    items: FxHashMap<ItemId, Contributor>,
    sets: BTreeMap<SetId, IpSet>,
    selectors: FxHashMap<Arc<str>, SharedSelector>,
    selector_texts: FxHashMap<SelectorId, Arc<str>>,
    next_selector: SelectorId,
    services: BTreeMap<ServiceKey, BTreeMap<Arc<str>, ServiceBackends>>,
    service_sets: BTreeMap<ServiceKey, BTreeSet<SetId>>,
    dirty: BTreeSet<SetId>,
}

impl IpSets {
    /// With `suppress_covered`, members inside another member's network are left out.
    pub(crate) fn new(suppress_covered: bool) -> Self {
        Self {
            suppress_covered,
            index: LabelIndex::default(),
            items: FxHashMap::default(),
            sets: BTreeMap::new(),
            selectors: FxHashMap::default(),
            selector_texts: FxHashMap::default(),
            next_selector: 0,
            services: BTreeMap::new(),
            service_sets: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Adds or changes an endpoint or network set.
    pub(crate) fn set_item<'a>(
        &mut self,
        id: ItemId,
        contributor: Contributor,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        parents: impl Iterator<Item = &'a str>,
    ) {
        let mut changes = Vec::new();
        if let Some(old) = self.items.get(&id).filter(|old| **old != contributor).cloned() {
            for selector in self.index.selectors_of(id).to_vec() {
                self.contribute_by_selector(selector, &old, false);
                self.contribute_by_selector(selector, &contributor, true);
            }
        }
        self.items.insert(id, contributor);
        self.index.set_item(id, labels, parents, &mut changes);
        self.follow(&changes);
    }

    /// Removes an endpoint or network set.
    pub(crate) fn remove_item(&mut self, id: ItemId) {
        let mut changes = Vec::new();
        self.index.remove_item(id, &mut changes);
        self.follow(&changes);
        self.items.remove(&id);
    }

    /// Sets the labels that items inherit from a profile.
    pub(crate) fn set_profile_labels<'a>(
        &mut self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut changes = Vec::new();
        self.index.set_parent_labels(name, labels, &mut changes);
        self.follow(&changes);
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
        for id in self.service_sets.get(service).cloned().unwrap_or_default() {
            let kind = self.sets[&id].kind;
            for (backends, on) in [(old.as_ref(), false), (backends, true)] {
                for member in backends.into_iter().flat_map(|b| service_members(kind, b)) {
                    self.count(&id, member, on);
                }
            }
        }
    }

    /// A rule began to use a set.
    pub(crate) fn acquire(&mut self, definition: &SetDefinition) -> SetId {
        let id = definition.id();
        self.dirty.insert(id.clone());
        if let Some(set) = self.sets.get_mut(&id) {
            set.users += 1;
            return id;
        }
        let origin = match definition {
            SetDefinition::Selected(selector) => {
                Origin::Selector(self.share_selector(selector, &id), Filter::Addresses)
            }
            SetDefinition::NamedPort { selector, protocol, port } => Origin::Selector(
                self.share_selector(selector, &id),
                Filter::NamedPort(*protocol, port.clone()),
            ),
            SetDefinition::Service { namespace, name }
            | SetDefinition::ServiceAddresses { namespace, name } => {
                let key = (namespace.clone(), name.clone());
                self.service_sets.entry(key.clone()).or_default().insert(id.clone());
                Origin::Service(key)
            }
        };
        let set = IpSet {
            kind: definition.kind(),
            origin,
            users: 1,
            nets: NetCounts::default(),
            ports: BTreeMap::new(),
            pending: BTreeMap::new(),
            published: false,
        };
        self.sets.insert(id.clone(), set);
        self.fill(&id);
        id
    }

    /// A rule ceased to use a set. The set goes at the next flush unless somebody uses it again.
    pub(crate) fn release(&mut self, id: &SetId) {
        if let Some(set) = self.sets.get_mut(id) {
            set.users -= 1;
            self.dirty.insert(id.clone());
        }
    }

    /// New sets and changes of members go to `added`, sets that nobody uses any more to `gone`.
    pub(crate) fn flush(&mut self, added: &mut Vec<Event>, gone: &mut Vec<Event>) {
        for id in std::mem::take(&mut self.dirty) {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            if set.users == 0 {
                if set.published {
                    gone.push(Event::SetGone(id.clone()));
                }
                self.forget(&id);
            } else if set.published {
                let pending = std::mem::take(&mut set.pending);
                let pick = |on: bool| pending.iter().filter(|(_, v)| **v == on).map(|(m, _)| *m).collect();
                let (in_, out): (Vec<_>, Vec<_>) = (pick(true), pick(false));
                if !pending.is_empty() {
                    added.push(Event::SetChanged { id, added: in_, removed: out });
                }
            } else {
                set.published = true;
                set.pending.clear();
                added.push(set.as_event(&id, self.suppress_covered));
            }
        }
    }

    /// Sets as of the last flush.
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    fn share_selector(&mut self, selector: &tortie_api::selector::Selector, set: &SetId) -> SelectorId {
        let text: Arc<str> = selector.canonical().into();
        if let Some(shared) = self.selectors.get_mut(&text) {
            shared.sets.insert(set.clone());
            return shared.id;
        }
        let id = self.next_selector;
        self.next_selector += 1;
        // The caller fills the set from the index, so the matches need not be followed one by one.
        self.index.add_selector(id, selector.expr(), &mut Vec::new());
        self.selector_texts.insert(id, text.clone());
        self.selectors.insert(text, SharedSelector { id, sets: BTreeSet::from([set.clone()]) });
        id
    }

    fn fill(&mut self, id: &SetId) {
        let members: Vec<Member> = match &self.sets[id].origin {
            Origin::Selector(selector, filter) => self
                .index
                .items_of(*selector)
                .filter_map(|item| self.items.get(&item))
                .flat_map(|item| members_of(item, filter))
                .collect(),
            Origin::Service(key) => {
                let kind = self.sets[id].kind;
                self.services
                    .get(key)
                    .into_iter()
                    .flatten()
                    .flat_map(|(_, b)| service_members(kind, b))
                    .collect()
            }
        };
        for member in members {
            self.count(id, member, true);
        }
    }

    fn follow(&mut self, changes: &[MatchChange]) {
        for change in changes {
            if let Some(contributor) = self.items.get(&change.item).cloned() {
                self.contribute_by_selector(change.selector, &contributor, change.matched);
            }
        }
    }

    fn contribute_by_selector(&mut self, selector: SelectorId, contributor: &Contributor, on: bool) {
        let sets = self.selectors[&self.selector_texts[&selector]].sets.clone();
        for id in sets {
            let members = match &self.sets[&id].origin {
                Origin::Selector(_, filter) => members_of(contributor, filter),
                Origin::Service(_) => Vec::new(),
            };
            for member in members {
                self.count(&id, member, on);
            }
        }
    }

    /// Counts one contribution of a member, or takes it back.
    fn count(&mut self, id: &SetId, member: Member, on: bool) {
        let set = self.sets.get_mut(id).expect("only known sets are counted");
        match member {
            Member::Net(net) => {
                let mut visible = Vec::new();
                if on {
                    set.nets.add(net, self.suppress_covered, &mut visible);
                } else {
                    set.nets.remove(net, self.suppress_covered, &mut visible);
                }
                for Visible(net, on) in visible {
                    set.note(Member::Net(net), on);
                }
            }
            Member::AddressPort(..) => {
                let count = set.ports.entry(member).or_insert(0);
                let before = *count;
                *count = if on { before + 1 } else { before.saturating_sub(1) };
                let after = *count;
                if after == 0 {
                    set.ports.remove(&member);
                }
                if (before == 0) != (after == 0) {
                    set.note(member, on);
                }
            }
        }
        self.dirty.insert(id.clone());
    }

    fn forget(&mut self, id: &SetId) {
        let Some(set) = self.sets.remove(id) else { return };
        match set.origin {
            Origin::Selector(selector, _) => {
                let text = self.selector_texts[&selector].clone();
                let shared = self.selectors.get_mut(&text).expect("a set's selector is shared");
                shared.sets.remove(id);
                if shared.sets.is_empty() {
                    self.selectors.remove(&text);
                    self.selector_texts.remove(&selector);
                    self.index.remove_selector(selector);
                }
            }
            Origin::Service(key) => {
                if let Some(sets) = self.service_sets.get_mut(&key) {
                    sets.remove(id);
                    if sets.is_empty() {
                        self.service_sets.remove(&key);
                    }
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

    fn as_event(&self, id: &SetId, suppress: bool) -> Event {
        let members = match self.kind {
            SetKind::Net => self.nets.visible(suppress).into_iter().map(Member::Net).collect(),
            SetKind::AddressPort => self.ports.keys().copied().collect(),
        };
        Event::SetAdded { id: id.clone(), kind: self.kind, members }
    }
}

fn members_of(contributor: &Contributor, filter: &Filter) -> Vec<Member> {
    match filter {
        Filter::Addresses => contributor.nets.iter().map(|n| Member::Net(*n)).collect(),
        Filter::NamedPort(protocol, name) => {
            let wanted = contributor.ports.iter().filter(|p| p.name == *name && protocol.admits(p.protocol));
            wanted
                .flat_map(|p| {
                    contributor
                        .nets
                        .iter()
                        .map(|n| Member::AddressPort(n.addr(), p.protocol.number(), p.port))
                })
                .collect()
        }
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
