//! Policies and tiers: which are active on this node, and in which order they apply.
//!
//! A policy is active while it selects an endpoint of this node; then its rules are converted and hold their
//! ip sets. The order of an endpoint's policies is worked out when the endpoint is put out.

mod entry;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_api::policy::{BUILT_IN_TIERS, DefaultAction, Rule};
use tortie_api::selector::Selector;

use self::entry::{Active, Entry, Extra, is_needed, order_of};
pub(crate) use self::entry::{Flavour, Policy};
use super::convert;
use super::label_index::{ItemId, ItemLabels, Label, LabelIndex, MatchChange, SelectorId};
use super::model::{Event, PolicyKey, PolicyRef, PolicyRules, Problem, SetId, TierKind, TierPolicies, Tiers};
use super::packed_rules::{PackedRules, Parsed};
use super::policy_table::{PolicyNumber, PolicyTable};
use super::pool::Pool;
use super::sets::IpSets;
use super::shared_selectors::SharedSelectors;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tier {
    pub(crate) order: f64,
    pub(crate) default_action: DefaultAction,
}

/// All policies, and the labels of this node's endpoints.
#[derive(Debug)]
pub(crate) struct Policies {
    index: LabelIndex,
    /// Which items of the index are host endpoints.
    hosts: BTreeSet<ItemId>,
    entries: PolicyTable<Entry>,
    selectors: SharedSelectors,
    tiers: BTreeMap<Arc<str>, Tier>,
    /// Tiers of policies, whether they exist or not.
    tier_names: Pool<Arc<str>>,
    /// Until the next flush.
    parsed: Parsed,
    dirty: BTreeSet<PolicyKey>,
    published: BTreeSet<PolicyKey>,
    /// Endpoints whose policy list may have changed.
    pub(crate) dirty_endpoints: BTreeSet<ItemId>,
}

impl Policies {
    pub(crate) fn new() -> Self {
        let built_in =
            BUILT_IN_TIERS.map(|(name, order, default_action)| (name.into(), Tier { order, default_action }));
        Self {
            index: LabelIndex::default(),
            hosts: BTreeSet::new(),
            entries: PolicyTable::default(),
            selectors: SharedSelectors::default(),
            tiers: built_in.into(),
            tier_names: Pool::default(),
            parsed: Parsed::default(),
            dirty: BTreeSet::new(),
            published: BTreeSet::new(),
            dirty_endpoints: BTreeSet::new(),
        }
    }

    /// Adds or changes an endpoint of this node.
    pub(crate) fn set_endpoint<'a>(
        &mut self,
        id: ItemId,
        labels: ItemLabels<impl Iterator<Item = Label<'a>>, impl Iterator<Item = Label<'a>>>,
        parents: impl Iterator<Item = &'a str>,
        sets: &mut IpSets,
    ) {
        let mut changes = Vec::new();
        self.index.set_item(id, labels, parents, &|name| sets.profile_labels(name), &mut changes);
        self.dirty_endpoints.insert(id);
        self.follow(&changes, sets);
    }

    /// Removes an endpoint of this node.
    pub(crate) fn remove_endpoint(&mut self, id: ItemId, sets: &mut IpSets) {
        let mut changes = Vec::new();
        self.index.remove_item(id, &mut changes);
        self.dirty_endpoints.remove(&id);
        self.follow(&changes, sets);
        self.dirty_endpoints.remove(&id);
    }

    /// Adds or changes a host endpoint of this node.
    pub(crate) fn set_host_endpoint<'a>(
        &mut self,
        id: ItemId,
        labels: ItemLabels<impl Iterator<Item = Label<'a>>, impl Iterator<Item = Label<'a>>>,
        parents: impl Iterator<Item = &'a str>,
        sets: &mut IpSets,
    ) {
        self.hosts.insert(id);
        self.set_endpoint(id, labels, parents, sets);
    }

    /// Removes a host endpoint of this node.
    pub(crate) fn remove_host_endpoint(&mut self, id: ItemId, sets: &mut IpSets) {
        self.remove_endpoint(id, sets);
        self.hosts.remove(&id);
    }

    /// Sets the labels that endpoints inherit from a profile.
    pub(crate) fn set_profile_labels<'a>(
        &mut self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        sets: &mut IpSets,
    ) {
        let mut changes = Vec::new();
        self.index.set_parent_labels(name, labels, &mut changes);
        self.follow(&changes, sets);
    }

    /// Adds or changes a policy. `selects` are its endpoints, namespace included.
    pub(crate) fn set_policy(
        &mut self,
        key: &PolicyKey,
        selects: &Selector,
        policy: Policy,
        sets: &mut IpSets,
    ) {
        let (selector, new) = self.index.acquire_selector(selects.expr());
        if let Some(number) = self.entries.find(key)
            && self.entries[number].selector == selector
        {
            self.index.release_selector(selector);
            self.change_policy(number, policy, sets);
            return;
        }
        self.remove_policy(key, sets);
        let is_noted = policy.everywhere || !policy.notes.is_empty();
        let entry = self.entry(policy, selector);
        let number = self.entries.add(key, entry);
        self.selectors.add(selector, number);
        if let Some(matched) = &new {
            let hosts = matched.iter().filter(|item| self.hosts.contains(item)).count();
            self.selectors.start_count(selector, matched.len(), hosts);
        }
        let matched = new.unwrap_or_else(|| self.index.items_of(selector));
        let is_needed = !matched.is_empty() || is_noted;
        self.dirty_endpoints.extend(matched);
        if is_needed {
            self.refresh(number, sets);
        }
    }

    fn entry(&mut self, policy: Policy, selector: SelectorId) -> Entry {
        let order = order_of(&policy);
        let (tier, _) = self.tier_names.acquire(&*policy.tier, || policy.tier.clone());
        let Policy { rules, flavour, everywhere, staged, notes, .. } = policy;
        let mut entry = Entry { rules, order, extra: None, selector, tier, flavour, everywhere, staged };
        entry.set_extra(Extra { notes, ..Extra::default() });
        entry
    }

    /// Takes a policy that selects what it selected before.
    fn change_policy(&mut self, number: PolicyNumber, policy: Policy, sets: &mut IpSets) {
        let entry = &self.entries[number];
        let has_same_tier = self.tier_names[entry.tier] == policy.tier;
        // Where only its place changed, its rules need not be put out again.
        let has_same_rules = has_same_tier && entry.has_same_rules(&policy);
        if has_same_rules && entry.order.total_cmp(&order_of(&policy)).is_eq() {
            return;
        }
        let selector = entry.selector;
        let mut new = self.entry(policy, selector);
        let entry = &mut self.entries[number];
        std::mem::swap(entry, &mut new);
        let (tier, old) = (new.tier, new.extra.unwrap_or_default());
        let notes = entry.extra.take().unwrap_or_default().notes;
        entry.set_extra(Extra { notes, ..*old });
        self.tier_names.release::<str>(tier);
        if !has_same_rules {
            self.refresh(number, sets);
        }
        self.dirty_endpoints.extend(self.index.items_of(selector));
    }

    /// Removes a policy.
    pub(crate) fn remove_policy(&mut self, key: &PolicyKey, sets: &mut IpSets) {
        let Some(number) = self.entries.find(key) else { return };
        let entry = self.entries.remove(number);
        self.dirty_endpoints.extend(self.index.items_of(entry.selector));
        self.tier_names.release::<str>(entry.tier);
        if let Some(active) = entry.extra.and_then(|extra| extra.active) {
            active.sets.iter().for_each(|id| sets.release(id));
            self.dirty.insert(active.key);
        }
        self.selectors.remove(entry.selector, number);
        self.index.release_selector(entry.selector);
    }

    /// Adds, changes or removes a tier. Built-in tiers come back with their own values.
    pub(crate) fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        let built_in = BUILT_IN_TIERS
            .iter()
            .find(|(n, ..)| *n == name)
            .map(|(_, order, default_action)| Tier { order: *order, default_action: *default_action });
        match tier.or(built_in) {
            Some(tier) => self.tiers.insert(name.into(), tier),
            None => self.tiers.remove(name),
        };
        let index = &self.index;
        let number = self.tier_names.find(name);
        let affected = self.entries.iter().filter(|(_, e)| Some(e.tier) == number);
        self.dirty_endpoints.extend(affected.flat_map(|(_, e)| index.items_of(e.selector)));
    }

    /// How many things of each kind are kept for endpoints.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 5] {
        self.index.sizes()
    }

    /// What decides on the policy list of an endpoint.
    pub(crate) fn selectors_of(&self, endpoint: ItemId) -> &[SelectorId] {
        self.index.selectors_of(endpoint)
    }

    /// The policy list of an endpoint for some of its traffic: its tiers in order, each with its policies in order.
    pub(crate) fn tiers_of(&self, endpoint: ItemId, kind: TierKind) -> Tiers {
        let mut found: Vec<(PolicyRef, &Entry)> = self
            .index
            .selectors_of(endpoint)
            .iter()
            .flat_map(|selector| self.selectors.users(*selector))
            .map(|number| (number, &self.entries[number]))
            .filter(|(_, entry)| entry.flavour.is_in(kind))
            .map(|(number, entry)| (self.reference(number, entry), entry))
            .collect();
        found.sort_by(|a, b| self.compare(a, b));
        let mut tiers: Vec<TierPolicies> = Vec::new();
        for (reference, entry) in found {
            let name = &self.tier_names[entry.tier];
            if tiers.last().is_none_or(|t| t.name != *name) {
                let default_action = self.tiers.get(name).map_or(DefaultAction::Deny, |t| t.default_action);
                let (ingress, egress) = (Vec::new(), Vec::new());
                tiers.push(TierPolicies { name: name.clone(), default_action, ingress, egress });
            }
            let tier = tiers.last_mut().expect("pushed above");
            if entry.rules.has_ingress() {
                tier.ingress.push(reference.clone());
            }
            if entry.rules.has_egress() {
                tier.egress.push(reference);
            }
        }
        tiers.into()
    }

    fn reference(&self, number: PolicyNumber, entry: &Entry) -> PolicyRef {
        let (key, selector) = match entry.active() {
            Some(active) => (active.key.clone(), active.selector.clone()),
            None => (self.entries.key(number), self.index.selector_text(entry.selector).into()),
        };
        PolicyRef { key, selector, staged: entry.staged }
    }

    /// Tiers that exist come before those that do not; then by order and name. Within a tier by order, absent
    /// last, then by key.
    fn compare(&self, a: &(PolicyRef, &Entry), b: &(PolicyRef, &Entry)) -> Ordering {
        let name = |e: &Entry| &self.tier_names[e.tier];
        let tier = |e: &Entry| self.tiers.get(name(e)).map_or(f64::INFINITY, |t| t.order);
        let exists = |e: &Entry| self.tiers.contains_key(name(e));
        exists(b.1)
            .cmp(&exists(a.1))
            .then_with(|| tier(a.1).total_cmp(&tier(b.1)))
            .then_with(|| name(a.1).cmp(name(b.1)))
            .then_with(|| a.1.order.total_cmp(&b.1.order))
            .then_with(|| a.0.key.cmp(&b.0.key))
    }

    /// Changed policies go to `added`, those no longer active to `gone`.
    pub(crate) fn flush(&mut self, added: &mut Vec<Event>, gone: &mut Vec<Event>) {
        self.parsed = Parsed::default();
        for key in std::mem::take(&mut self.dirty) {
            let number = self.entries.find(&key);
            let extra = number.and_then(|number| self.entries[number].extra.as_mut());
            match extra.and_then(|extra| extra.active.as_mut()) {
                Some(active) => {
                    added.extend(active.rules.take().map(Event::Policy));
                    self.published.insert(key);
                }
                None if self.published.remove(&key) => gone.push(Event::PolicyGone(key)),
                None => {}
            }
        }
    }

    /// Active policies as of the last flush.
    pub(crate) fn count(&self) -> usize {
        self.published.len()
    }

    /// What cannot be followed to the letter.
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        self.entries.iter().flat_map(|(number, entry)| {
            let tier = &self.tier_names[entry.tier];
            let missing = (!self.tiers.contains_key(tier)).then(|| {
                let key = self.entries.key(number);
                Problem {
                    object: key.to_string(),
                    key: Some(key.resource_key()),
                    field: "spec.tier".to_owned(),
                    message: format!(
                        "tier {tier:?} does not exist; the policy comes after all tiers that do"
                    ),
                }
            });
            missing.into_iter().chain(entry.problems().iter().cloned())
        })
    }

    fn follow(&mut self, changes: &[MatchChange], sets: &mut IpSets) {
        for change in changes {
            self.dirty_endpoints.insert(change.item);
            let is_host = self.hosts.contains(&change.item);
            if self.selectors.count(change.selector, change.matched, is_host) {
                for policy in self.selectors.users(change.selector).collect::<Vec<_>>() {
                    self.refresh_if_changed(policy, sets);
                }
            }
        }
    }

    /// Follows the first match of a policy, or the end of the last.
    fn refresh_if_changed(&mut self, number: PolicyNumber, sets: &mut IpSets) {
        let entry = &self.entries[number];
        if is_needed(&self.selectors, entry) != entry.active().is_some() {
            self.refresh(number, sets);
        }
    }

    /// Converts a policy's rules again, or puts it to rest.
    fn refresh(&mut self, number: PolicyNumber, sets: &mut IpSets) {
        let key = self.entries.key(number);
        let entry = &mut self.entries[number];
        let mut extra = entry.extra.take().unwrap_or_default();
        let old = extra.active.take();
        let noted = extra.notes.iter().map(|(field, message)| Problem {
            object: key.to_string(),
            key: Some(key.resource_key()),
            field: field.clone(),
            message: message.clone(),
        });
        let mut problems: Vec<Problem> = noted.collect();
        if is_needed(&self.selectors, entry) {
            let mut definitions = Vec::new();
            let object = key.to_string();
            let selector: Arc<str> = self.index.selector_text(entry.selector).into();
            let [ingress, egress] = entry.rules.unpack(&selector, &mut self.parsed);
            let mut convert = |rules: &[Rule], direction| {
                convert::rules(rules, direction, &object, &key.namespace, &mut definitions, &mut problems)
            };
            let ingress = convert(&ingress, "ingress");
            let egress = convert(&egress, "egress");
            problems.iter_mut().for_each(|problem| problem.key = Some(key.resource_key()));
            let rules = Some(Arc::new(PolicyRules {
                key: key.clone(),
                tier: self.tier_names[entry.tier].clone(),
                ingress,
                egress,
                everywhere: entry.everywhere,
                staged: entry.staged,
            }));
            let sets = definitions.iter().map(|d| sets.acquire(d)).collect();
            extra.active = Some(Active { key: key.clone(), selector, rules, sets });
        }
        let is_active = extra.active.is_some();
        entry.set_extra(Extra { problems, ..*extra });
        if old.is_some() || is_active {
            self.dirty.insert(key);
        }
        // Only now, so that a set that stays in use never lacks a user.
        old.iter().flat_map(|a| &*a.sets).for_each(|id| sets.release(id));
    }
}
