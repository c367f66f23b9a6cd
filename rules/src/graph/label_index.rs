//! Which items match which selectors, kept up to date change by change.
//!
//! ```text
//!   item ──► own labels ────────────────┐                      ┌── anchor ── selector
//!   item ──► family (given labels) ─────┼──► postings by key ◄─┤
//!                  └──► parent (labels) ┘    and value         └── (evaluate) ──► MatchChange
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
use self::kept::{Family, Holder, Item, LabelSet, Parent};
use self::postings::Posting;
use super::intern::{Interner, KeyId};
use super::labels;
use super::packed_expr::{PackedExpr, pack};
use super::pool::{Pool, is_same};
use super::slab::Pages;
use super::small_set::SmallSets;

/// An item, numbered by the caller.
pub(crate) type ItemId = u32;
/// A selector, as long as it is there.
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
/// A parent, as long as it is there.
pub(crate) type ParentId = u32;
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
    expr: PackedExpr,
    /// Evaluations in vain since the anchor was chosen, and how many of them, as a power of two, make it be chosen
    /// again.
    misses: u32,
    patience: u8,
    /// Which of the expression's demands the anchor is; [`EVERYWHERE`] if it is none of them.
    demand: u8,
}

/// Demands beyond this one are not looked at.
const EVERYWHERE: u8 = u8::MAX;
/// After 64 evaluations in vain an anchor is thought over for the first time.
const PATIENCE: u8 = 6;
/// The most that it grows to.
const MOST_PATIENCE: u8 = 20;

impl Indexed {
    fn anchor(&self) -> Anchor {
        self.expr.demands().get(usize::from(self.demand)).map_or(Anchor::Everywhere, Anchor::of)
    }
}

impl std::borrow::Borrow<[u8]> for Indexed {
    fn borrow(&self) -> &[u8] {
        self.expr.borrow()
    }
}

/// Gives the labels of a parent that the index does not know yet.
pub(crate) type LabelsOf<'a> = &'a dyn Fn(&str) -> Texts;
/// Labels as texts of their own.
pub(crate) type Texts = Vec<(String, String)>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    keys: Interner,
    items: Pages<Item>,
    labels: Pool<LabelSet>,
    families: Pool<Family>,
    parents: Pool<Parent>,
    lists: Pool<Box<[SelectorId]>>,
    /// Items of label sets and families, families of parents.
    small: SmallSets,
    selectors: Pool<Indexed>,
    anchors: Anchors,
    /// Kept for their memory.
    buffer: Vec<u8>,
    ids: Vec<ParentId>,
    candidates: Vec<SelectorId>,
    /// Selectors that were evaluated in vain, to be looked at when there is time.
    missed: Vec<SelectorId>,
}

impl LabelIndex {
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
        self.small.insert(&mut self.labels[labels].items, id);
        self.small.insert(&mut self.families[family].items, id);
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

    /// Sets the labels that children of a parent inherit. A parent that has neither children nor somebody who holds
    /// it has none.
    pub(crate) fn set_parent_labels<'a>(
        &mut self,
        name: &str,
        labels: impl Iterator<Item = Label<'a>>,
        out: &mut Vec<MatchChange>,
    ) {
        let Some(parent) = self.find_parent(name) else { return };
        let Some(old) = self.replace_labels(parent, labels) else { return };
        if self.is_asked_difference(old.labels(), self.parents[parent].labels()) {
            for child in self.children(parent).collect::<Vec<_>>() {
                self.rematch(child, out);
            }
            self.settle();
        }
    }

    /// The number of a parent that has children or is held.
    pub(crate) fn find_parent(&self, name: &str) -> Option<ParentId> {
        self.parents.find(name.as_bytes())
    }

    /// Keeps a parent, whether it has children or not. A new one has no labels.
    pub(crate) fn hold_parent(&mut self, name: &str) -> ParentId {
        self.acquire_parent(name, &|_| Vec::new())
    }

    /// Ceases to keep a parent.
    pub(crate) fn drop_parent(&mut self, parent: ParentId) {
        self.release_parent(parent);
    }

    /// The labels that children of a parent inherit.
    pub(crate) fn parent_labels(&self, name: &str) -> Texts {
        self.find_parent(name).map_or_else(Vec::new, |id| self.texts(self.parents[id].labels()))
    }

    /// An item's own labels, those given to it, and its parents.
    pub(crate) fn describe(&self, id: ItemId) -> Option<(ItemLabels<Texts, Texts>, Vec<String>)> {
        let item = self.items.get(id)?;
        let family = &self.families[item.family];
        let labels = ItemLabels {
            own: self.texts(&self.labels[item.labels].bytes),
            given: self.texts(family.given()),
        };
        let parents = family.parents().map(|parent| self.parents[parent].name().to_owned());
        Some((labels, parents.collect()))
    }

    fn texts(&self, bytes: &[u8]) -> Texts {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        let labels = labels::iter(bytes);
        labels.map(|(key, value)| (self.keys.text(key).to_owned(), text(value))).collect()
    }

    /// The number of a selector, for one more user. If it is new, the items that match it, in order.
    pub(crate) fn acquire_selector(&mut self, expr: &Expr) -> (SelectorId, Option<Vec<ItemId>>) {
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        pack(&mut bytes, expr, &mut self.keys);
        let known = self.selectors.find(&bytes[..]);
        let found = if let Some(id) = known {
            (self.selectors.share(id), None)
        } else {
            let (id, items) = self.add_selector(&bytes);
            (id, Some(items))
        };
        self.buffer = bytes;
        found
    }

    fn add_selector(&mut self, bytes: &[u8]) -> (SelectorId, Vec<ItemId>) {
        let expr = PackedExpr::new(bytes);
        expr.keys(&mut |key| {
            self.keys.acquire(key);
            self.anchors.ask(key);
        });
        let (demand, anchor) = self.choose(&expr);
        let mut items = self.items_at(&anchor);
        self.retain_matching(&expr, &mut items);
        let (id, _) =
            self.selectors.acquire(bytes, || Indexed { expr, misses: 0, patience: PATIENCE, demand });
        self.anchors.add(&anchor, id);
        self.relist(&items, |list| match list.binary_search(&id) {
            Ok(_) => list.to_vec(),
            Err(at) => [&list[..at], &[id], &list[at..]].concat(),
        });
        (id, items)
    }

    /// Takes a user of a selector away. With the last one its matches simply end; nothing is reported.
    pub(crate) fn release_selector(&mut self, id: SelectorId) {
        if self.selectors.is_shared(id) {
            self.selectors.release::<[u8]>(id);
            return;
        }
        let items = self.items_of(id);
        self.relist(&items, |list| list.iter().copied().filter(|s| *s != id).collect());
        let Some(gone) = self.selectors.release::<[u8]>(id) else { return };
        self.anchors.remove(&gone.anchor(), id);
        gone.expr.keys(&mut |key| {
            self.anchors.cease(key);
            if self.keys.release(key) {
                self.anchors.forget(key);
            }
        });
    }

    /// The canonical text of a selector.
    pub(crate) fn selector_text(&self, id: SelectorId) -> String {
        self.selectors[id].expr.unpack(&|key| self.keys.text(key).into()).to_string()
    }

    /// The items that match a selector, in order.
    pub(crate) fn items_of(&self, selector: SelectorId) -> Vec<ItemId> {
        let mut items = self.items_at(&self.selectors[selector].anchor());
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

    /// Items of a parent, some of them more than once.
    fn children(&self, parent: ParentId) -> impl Iterator<Item = ItemId> + '_ {
        let families = self.small.iter(&self.parents[parent].families);
        families.flat_map(|family| self.small.iter(&self.families[family].items))
    }

    fn unlink(&mut self, id: ItemId, item: Item) {
        self.small.remove(&mut self.labels[item.labels].items, id);
        self.release_labels(item.labels);
        self.small.remove(&mut self.families[item.family].items, id);
        self.release_family(item.family);
    }

    /// The sets of labels of an item, in order of precedence.
    fn label_sets(&self, item: Item) -> impl Iterator<Item = &[u8]> + '_ {
        let family = &self.families[item.family];
        let parents = family.parents().map(|parent| self.parents[parent].labels());
        [&*self.labels[item.labels].bytes, family.given()].into_iter().chain(parents)
    }

    /// Leaves the items that match. Of those with equal labels only the first is looked at, where its own labels
    /// answer all that is asked.
    fn retain_matching(&self, expr: &PackedExpr, items: &mut Vec<ItemId>) {
        let mut last: Option<(LabelsId, bool)> = None;
        items.retain(|id| {
            let Some(item) = self.items.get(*id).copied() else { return false };
            if let Some((labels, is_match)) = last
                && labels == item.labels
            {
                return is_match;
            }
            let is_inherited = Cell::new(false);
            let is_match = expr.matches(&|key| {
                labels::find(&self.labels[item.labels].bytes, key).or_else(|| {
                    is_inherited.set(true);
                    self.label_sets(item).skip(1).find_map(|bytes| labels::find(bytes, key))
                })
            });
            last = (!is_inherited.get()).then_some((item.labels, is_match));
            is_match
        });
    }

    fn evaluate(&self, selector: SelectorId, item: Item) -> bool {
        let label = |key| self.label_sets(item).find_map(|bytes| labels::find(bytes, key));
        self.selectors[selector].expr.matches(&label)
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
            let is_match = self.evaluate(*selector, item);
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
            let indexed = &mut self.selectors[id];
            indexed.misses += 1;
            if indexed.misses < 1 << indexed.patience {
                continue;
            }
            indexed.misses = 0;
            indexed.patience = (indexed.patience + 1).min(MOST_PATIENCE);
            let old = indexed.anchor();
            let expr = std::mem::take(&mut indexed.expr);
            self.anchors.remove(&old, id);
            let (demand, anchor) = self.choose(&expr);
            self.anchors.add(&anchor, id);
            let indexed = &mut self.selectors[id];
            (indexed.expr, indexed.demand) = (expr, demand);
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
    fn is_asked_difference(&self, a: &[u8], b: &[u8]) -> bool {
        let differs = |one: &[u8], other: &[u8]| {
            labels::iter(one)
                .any(|(key, value)| self.anchors.is_asked(key) && labels::find(other, key) != Some(value))
        };
        differs(a, b) || differs(b, a)
    }

    /// The place for a selector where the fewest items are met; of several, the one with the fewest selectors:
    /// before there are items, selectors that ask for different labels shall not all stand at one that they share.
    fn choose(&mut self, expr: &PackedExpr) -> (u8, Anchor) {
        let mut best = (usize::MAX, usize::MAX, (EVERYWHERE, Anchor::Everywhere));
        for (number, demand) in (0..EVERYWHERE).zip(expr.demands()) {
            if demand.values.is_some() {
                self.anchors.index_values(demand.key, |number| match Holder::of(number) {
                    Holder::Labels(id) => &self.labels[id].bytes,
                    Holder::Family(id) => self.families[id].given(),
                    Holder::Parent(id) => self.parents[id].labels(),
                });
            }
            let anchor = Anchor::of(&demand);
            let (weight, load) = (self.weight(&anchor), self.anchors.load(&anchor));
            if (weight, load) < (best.0, best.1) {
                best = (weight, load, (number, anchor));
            }
        }
        best.2
    }

    /// About how many items are met at a place.
    fn weight(&self, anchor: &Anchor) -> usize {
        const LOOKED_AT: usize = 64;
        let of_family = |id| self.small.len(&self.families[id].items);
        let of_holder = |number| match Holder::of(number) {
            Holder::Labels(id) => self.small.len(&self.labels[id].items),
            Holder::Family(id) => of_family(id),
            Holder::Parent(id) => self.small.iter(&self.parents[id].families).map(of_family).sum(),
        };
        let of_holders = |holders: Posting<'_>| {
            let seen = holders.iter().take(LOOKED_AT).map(of_holder).sum::<usize>();
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
        for number in holders.into_iter().flat_map(Posting::iter) {
            match Holder::of(number) {
                Holder::Labels(id) => items.extend(self.small.iter(&self.labels[id].items)),
                Holder::Family(id) => items.extend(self.small.iter(&self.families[id].items)),
                Holder::Parent(id) => items.extend(self.children(id)),
            }
        }
        items.sort_unstable();
        items.dedup();
        items
    }
}

#[cfg(test)]
mod tests;
