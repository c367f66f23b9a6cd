//! Which items match which selectors, kept up to date change by change.
//!
//! ```text
//!   item ──► own labels ────────────────┐                      ┌── anchor ── selector
//!   item ──► family ──► given labels ───┼──► postings by key ◄─┤
//!                  └──► parents' labels ┘    and value         └── (evaluate) ──► MatchChange
//! ```
//!
//! Equal sets of labels are kept once, and so are equal families (what items inherit) and equal lists of matched
//! selectors. What an item itself takes are three numbers.
//!
//! A selector that can only match where a certain label is present is anchored there ([`anchors`]), and is not
//! looked at for items without that label. Items have their own labels first, then those given to the whole
//! family, then those of the parents (profiles) in order; a parent's change is looked at for its children only.

mod anchors;
mod kept;
mod postings;

use std::cell::Cell;

use tortie_api::selector::Expr;

use self::anchors::{Anchor, Anchors};
use self::kept::{Family, Item, LabelSet, Parent, User};
use self::postings::Posting;
use super::intern::{Interner, KeyId};
use super::labels;
use super::matcher::Matcher;
use super::pool::{Pool, is_same};
use super::slab::Pages;

/// An item, numbered by the caller.
pub(crate) type ItemId = u32;
/// A selector, numbered by the caller.
pub(crate) type SelectorId = u32;
/// A label as callers give it.
pub(crate) type Label<'a> = (&'a str, &'a str);
/// The labels of an item, in order of their keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemLabels<O, G> {
    /// Its own.
    pub(crate) own: O,
    /// Those that many items have alike.
    pub(crate) given: G,
}

type LabelsId = u32;
type FamilyId = u32;
type ParentId = u32;
type ListId = u32;

/// An item began or ceased to match a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MatchChange {
    pub(crate) item: ItemId,
    pub(crate) selector: SelectorId,
    pub(crate) matched: bool,
}

#[derive(Debug)]
struct Indexed {
    matcher: Matcher,
    anchor: Anchor,
    /// Evaluations in vain since the anchor was chosen, and how many of them make it be chosen again.
    misses: u32,
    patience: u32,
}

/// Evaluations in vain after which an anchor is thought over for the first time.
const PATIENCE: u32 = 64;
/// The most that it grows to.
const MOST_PATIENCE: u32 = 1 << 20;

/// Gives the labels of a parent that the index does not know yet.
pub(crate) type LabelsOf<'a> = &'a dyn Fn(&str) -> Texts;
/// Labels as texts of their own.
pub(crate) type Texts = Vec<(String, String)>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    /// Whether parents without children are forgotten. Then their labels come from elsewhere when they get some.
    forgets_parents: bool,
    keys: Interner,
    items: Pages<Item>,
    labels: Pool<LabelSet>,
    families: Pool<Family>,
    parents: Pool<Parent>,
    lists: Pool<Box<[SelectorId]>>,
    selectors: Pages<Indexed>,
    anchors: Anchors,
    /// Kept for their memory.
    buffer: Vec<u8>,
    form: Vec<u32>,
    candidates: Vec<SelectorId>,
    /// Selectors that were evaluated in vain, to be looked at when there is time.
    missed: Vec<SelectorId>,
}

impl LabelIndex {
    /// An index that knows only the parents of its items.
    pub(crate) fn of_few() -> Self {
        Self { forgets_parents: true, ..Self::default() }
    }

    /// Adds or changes an item. Changes of matches go to `out`.
    ///
    /// `labels_of` is asked for parents that are new.
    pub(crate) fn set_item<'a>(
        &mut self,
        id: ItemId,
        labels: ItemLabels<impl Iterator<Item = Label<'a>>, impl Iterator<Item = Label<'a>>>,
        parents: impl Iterator<Item = &'a str>,
        labels_of: LabelsOf<'_>,
        out: &mut Vec<MatchChange>,
    ) {
        let family = self.acquire_family(labels.given, parents, labels_of);
        let labels = self.acquire_labels(labels.own);
        let matched = match self.items.get(id).copied() {
            Some(old) if (old.labels, old.family) == (labels, family) => {
                self.release_labels(labels);
                self.release_family(family);
                return;
            }
            Some(old) => {
                self.unlink(id, old);
                old.matched
            }
            None => self.acquire_list(&[]),
        };
        self.labels[labels].users.insert(User::Item(id).number());
        self.families[family].items.insert(id);
        self.items.insert(id, Item { labels, family, matched });
        self.rematch(id, out);
        self.settle();
    }

    /// Removes an item. Its lost matches go to `out`.
    pub(crate) fn remove_item(&mut self, id: ItemId, out: &mut Vec<MatchChange>) {
        let Some(item) = self.items.remove(id) else { return };
        self.unlink(id, item);
        let matched = self.lists[item.matched].iter();
        out.extend(matched.map(|selector| MatchChange { item: id, selector: *selector, matched: false }));
        self.release_list(item.matched);
    }

    /// Sets the labels that children of a parent inherit. A parent that goes away has none.
    pub(crate) fn set_parent_labels<'a>(
        &mut self,
        name: &str,
        labels: impl Iterator<Item = Label<'a>>,
        out: &mut Vec<MatchChange>,
    ) {
        if self.forgets_parents && self.parents.find(name).is_none() {
            return;
        }
        let parent = self.acquire_parent(name, &|_| Vec::new());
        let labels = self.acquire_labels(labels);
        let old = self.parents[parent].labels;
        if old == labels {
            self.release_labels(labels);
        } else {
            self.labels[labels].users.insert(User::Parent(parent).number());
            self.labels[old].users.remove(User::Parent(parent).number());
            self.parents[parent].labels = labels;
            if self.is_asked_difference(old, labels) {
                let families = self.parents[parent].families.iter();
                let children: Vec<ItemId> = families.flat_map(|f| self.families[f].items.iter()).collect();
                for child in children {
                    self.rematch(child, out);
                }
                self.settle();
            }
            let keeps = |id| !self.forgets_parents && !self.labels[id].bytes.is_empty();
            let (kept, keeps) = (keeps(old), keeps(labels));
            self.release_labels(old);
            // Labels keep their parent alive as its children do.
            match (kept, keeps) {
                (false, true) => return,
                (true, false) => self.release_parent(parent),
                _ => {}
            }
        }
        self.release_parent(parent);
    }

    /// The labels that children of a parent inherit.
    pub(crate) fn parent_labels(&self, name: &str) -> Texts {
        self.parents.find(name).map_or_else(Vec::new, |parent| self.texts(self.parents[parent].labels))
    }

    /// An item's own labels, those given to it, and its parents.
    pub(crate) fn describe(&self, id: ItemId) -> Option<(ItemLabels<Texts, Texts>, Vec<String>)> {
        let item = self.items.get(id)?;
        let family = &self.families[item.family];
        let labels = ItemLabels { own: self.texts(item.labels), given: self.texts(family.given()) };
        let parents = family.parents().iter().map(|parent| self.parents[*parent].name.to_string());
        Some((labels, parents.collect()))
    }

    fn texts(&self, id: LabelsId) -> Texts {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        let labels = labels::iter(&self.labels[id].bytes);
        labels.map(|(key, value)| (self.keys.text(key).to_owned(), text(value))).collect()
    }

    /// Adds a selector; the id must be new. The items that match it, in order.
    pub(crate) fn add_selector(&mut self, id: SelectorId, expr: &Expr) -> Vec<ItemId> {
        let matcher = Matcher::new(expr, &mut self.keys);
        matcher.keys(&mut |key| {
            self.keys.acquire(key);
            self.anchors.ask(key);
        });
        let anchor = self.choose(&matcher);
        let mut items = self.items_at(&anchor);
        self.retain_matching(&matcher, &mut items);
        self.anchors.add(&anchor, id);
        self.selectors.insert(id, Indexed { matcher, anchor, misses: 0, patience: PATIENCE });
        self.relist(&items, |list| match list.binary_search(&id) {
            Ok(_) => list.to_vec(),
            Err(at) => [&list[..at], &[id], &list[at..]].concat(),
        });
        items
    }

    /// Removes a selector. Its matches simply end; nothing is reported.
    pub(crate) fn remove_selector(&mut self, id: SelectorId) {
        let items = self.items_of(id);
        self.relist(&items, |list| list.iter().copied().filter(|s| *s != id).collect());
        let Some(indexed) = self.selectors.remove(id) else { return };
        self.anchors.remove(&indexed.anchor, id);
        indexed.matcher.keys(&mut |key| {
            self.anchors.cease(key);
            if self.keys.release(key) {
                self.anchors.forget(key);
            }
        });
    }

    /// The items that match a selector, in order.
    pub(crate) fn items_of(&self, selector: SelectorId) -> Vec<ItemId> {
        let Some(indexed) = self.selectors.get(selector) else { return Vec::new() };
        let mut items = self.items_at(&indexed.anchor);
        let (mut last, mut is_in) = (None, false);
        items.retain(|item| {
            let list = self.items.get(*item).map(|item| item.matched);
            if last != list {
                is_in = list.is_some_and(|list| self.lists[list].binary_search(&selector).is_ok());
                last = list;
            }
            is_in
        });
        items
    }

    /// The selectors that an item matches, in order.
    pub(crate) fn selectors_of(&self, item: ItemId) -> &[SelectorId] {
        self.items.get(item).map_or(&[], |item| &self.lists[item.matched])
    }

    /// How many keys, sets of labels, families, parents and lists of selectors are kept.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 5] {
        let (labels, families) = (self.labels.len(), self.families.len());
        [self.keys.len(), labels, families, self.parents.len(), self.lists.len()]
    }

    fn unlink(&mut self, id: ItemId, item: Item) {
        self.labels[item.labels].users.remove(User::Item(id).number());
        self.release_labels(item.labels);
        self.families[item.family].items.remove(id);
        self.release_family(item.family);
    }

    /// The sets of labels of an item, in order of precedence.
    fn label_sets(&self, item: Item) -> impl Iterator<Item = &[u8]> + '_ {
        let family = &self.families[item.family];
        let parents = family.parents().iter().map(|parent| self.parents[*parent].labels);
        [item.labels, family.given()].into_iter().chain(parents).map(|id| &*self.labels[id].bytes)
    }

    /// Leaves the items that match. Of those with equal labels only the first is looked at, where its own labels
    /// answer all that is asked.
    fn retain_matching(&self, matcher: &Matcher, items: &mut Vec<ItemId>) {
        let mut last: Option<(LabelsId, bool)> = None;
        items.retain(|id| {
            let Some(item) = self.items.get(*id).copied() else { return false };
            if let Some((labels, is_match)) = last
                && labels == item.labels
            {
                return is_match;
            }
            let is_inherited = Cell::new(false);
            let is_match = matcher.matches(&|key| {
                labels::find(&self.labels[item.labels].bytes, key).or_else(|| {
                    is_inherited.set(true);
                    self.label_sets(item).skip(1).find_map(|bytes| labels::find(bytes, key))
                })
            });
            last = (!is_inherited.get()).then_some((item.labels, is_match));
            is_match
        });
    }

    fn evaluate(&self, matcher: &Matcher, id: ItemId) -> bool {
        let Some(item) = self.items.get(id) else { return false };
        matcher.matches(&|key| self.label_sets(*item).find_map(|bytes| labels::find(bytes, key)))
    }

    /// Evaluates again what could match an item, and reports what changed.
    fn rematch(&mut self, id: ItemId, out: &mut Vec<MatchChange>) {
        let Some(item) = self.items.get(id).copied() else { return };
        let mut found = std::mem::take(&mut self.candidates);
        let mut missed = std::mem::take(&mut self.missed);
        found.clear();
        let all = self.label_sets(item).flat_map(labels::iter);
        self.anchors.candidates(all, &mut found);
        found.sort_unstable();
        found.dedup();
        found.retain(|selector| {
            let is_match =
                self.selectors.get(*selector).is_some_and(|indexed| self.evaluate(&indexed.matcher, id));
            if !is_match {
                missed.push(*selector);
            }
            is_match
        });
        self.missed = missed;
        let before = &self.lists[item.matched];
        if !is_same(&**before, &found[..]) {
            let change =
                |selector: &SelectorId, matched| MatchChange { item: id, selector: *selector, matched };
            let gone = before.iter().filter(|s| found.binary_search(s).is_err());
            out.extend(gone.map(|s| change(s, false)));
            let new = found.iter().filter(|s| before.binary_search(s).is_err());
            out.extend(new.map(|s| change(s, true)));
            let matched = self.acquire_list(&found);
            self.release_list(item.matched);
            self.items.insert(id, Item { matched, ..item });
        }
        self.candidates = found;
    }

    /// Thinks over the anchors of selectors that were evaluated in vain too often.
    fn settle(&mut self) {
        for id in std::mem::take(&mut self.missed) {
            let Some(indexed) = self.selectors.get_mut(id) else { continue };
            indexed.misses += 1;
            if indexed.misses < indexed.patience {
                continue;
            }
            indexed.misses = 0;
            indexed.patience = (indexed.patience * 2).min(MOST_PATIENCE);
            let Some(indexed) = self.selectors.remove(id) else { continue };
            self.anchors.remove(&indexed.anchor, id);
            let anchor = self.choose(&indexed.matcher);
            self.anchors.add(&anchor, id);
            self.selectors.insert(id, Indexed { anchor, ..indexed });
        }
    }

    /// Replaces the lists of matched selectors of items.
    fn relist(&mut self, items: &[ItemId], change: impl Fn(&[SelectorId]) -> Vec<SelectorId>) {
        let list_of = |items: &Pages<Item>, id: ItemId| items.get(id).map(|item| item.matched);
        let mut rest = items;
        while let Some(old) = rest.first().and_then(|first| list_of(&self.items, *first)) {
            // Items that match the same mostly stand in a row.
            let length = rest.iter().take_while(|id| list_of(&self.items, **id) == Some(old)).count();
            let (run, others) = rest.split_at(length);
            rest = others;
            let list = change(&self.lists[old]);
            let new = self.acquire_list(&list);
            for id in run {
                if let Some(item) = self.items.get_mut(*id) {
                    item.matched = new;
                }
            }
            // The first user of the new list is counted already, and the last of the old one releases it.
            self.lists.pass_on(old, new, length - 1);
            self.release_list(old);
        }
    }

    /// Whether a selector asks for a label in which two sets differ.
    fn is_asked_difference(&self, a: LabelsId, b: LabelsId) -> bool {
        let (a, b) = (&*self.labels[a].bytes, &*self.labels[b].bytes);
        let differs = |one: &[u8], other: &[u8]| {
            labels::iter(one)
                .any(|(key, value)| self.anchors.is_asked(key) && labels::find(other, key) != Some(value))
        };
        differs(a, b) || differs(b, a)
    }

    /// The place for a selector where the fewest items are met; of several, the one with the fewest selectors:
    /// before there are items, selectors that ask for different labels shall not all stand at one that they share.
    fn choose(&mut self, matcher: &Matcher) -> Anchor {
        let mut best = (usize::MAX, usize::MAX, Anchor::Everywhere);
        for demand in matcher.demands() {
            if demand.values.is_some() {
                self.anchors.index_values(demand.key, |id| &self.labels[id].bytes);
            }
            let anchor = Anchor::of(&demand);
            let (weight, load) = (self.weight(&anchor), self.anchors.load(&anchor));
            if (weight, load) < (best.0, best.1) {
                best = (weight, load, anchor);
            }
        }
        best.2
    }

    /// About how many items are met at a place.
    fn weight(&self, anchor: &Anchor) -> usize {
        const LOOKED_AT: usize = 64;
        let of_family = |id| self.families[id].items.len();
        let of_parent = |id| self.parents[id].families.iter().map(of_family).sum::<usize>();
        let of_user = |number| match User::of(number) {
            User::Item(_) => 1,
            User::Family(id) => of_family(id),
            User::Parent(id) => of_parent(id),
        };
        let of_labels = |id: LabelsId| self.labels[id].users.iter().map(of_user).sum::<usize>();
        let of_holders = |holders: Posting<'_>| {
            let seen = holders.iter().take(LOOKED_AT).map(of_labels).sum::<usize>();
            if holders.len() > LOOKED_AT { seen * holders.len() / LOOKED_AT } else { seen }
        };
        self.anchors.holders(anchor).map_or(self.items.len(), |list| list.into_iter().map(of_holders).sum())
    }

    /// Every item that is met at a place, in order.
    fn items_at(&self, anchor: &Anchor) -> Vec<ItemId> {
        let Some(holders) = self.anchors.holders(anchor) else {
            return self.items.iter().map(|(id, _)| id).collect();
        };
        let mut items = Vec::new();
        for id in holders.into_iter().flat_map(Posting::iter) {
            for number in self.labels[id].users.iter() {
                match User::of(number) {
                    User::Item(id) => items.push(id),
                    User::Family(id) => items.extend(self.families[id].items.iter()),
                    User::Parent(id) => {
                        let families = self.parents[id].families.iter();
                        items.extend(families.flat_map(|id| self.families[id].items.iter()));
                    }
                }
            }
        }
        items.sort_unstable();
        items.dedup();
        items
    }
}

#[cfg(test)]
mod tests;
