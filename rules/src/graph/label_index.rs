//! Which items match which selectors, kept up to date change by change.
//!
//! ```text
//!   item ──own labels──┐                       ┌──anchor── selector
//!   item ──parents──► labels ──► candidates ◄──┤
//!                                              └── (evaluate) ──► MatchChange
//! ```
//!
//! A selector that can only match where a certain label is present is anchored there, and is not looked at
//! for items without that label. Items inherit the labels of their parents (profiles), their own first, then
//! the parents' in order; a parent's change is looked at for its children only.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use tortie_api::selector::Expr;

use super::intern::{Interner, Symbol};
use super::matcher::Matcher;

/// An item, numbered by the caller.
pub(crate) type ItemId = u32;
/// A selector, numbered by the caller.
pub(crate) type SelectorId = u32;
type Labels = Box<[(Symbol, Symbol)]>;

/// An item began or ceased to match a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MatchChange {
    pub(crate) item: ItemId,
    pub(crate) selector: SelectorId,
    pub(crate) matched: bool,
}

#[derive(Debug, Default)]
struct Item {
    labels: Labels,
    parents: Box<[Symbol]>,
    /// Sorted.
    matched: Vec<SelectorId>,
}

#[derive(Debug, Default)]
struct Parent {
    labels: Labels,
    children: BTreeSet<ItemId>,
}

/// Where a selector is looked up.
#[derive(Debug)]
enum Anchor {
    /// For items with one of these labels.
    Pairs(Vec<(Symbol, Symbol)>),
    /// For items with this key.
    Key(Symbol),
    /// For every item.
    Everywhere,
}

#[derive(Debug)]
struct Indexed {
    matcher: Matcher,
    anchor: Anchor,
    matched: BTreeSet<ItemId>,
}

/// Holders of labels, by label and by key.
#[derive(Debug)]
struct Holders<T> {
    by_pair: FxHashMap<(Symbol, Symbol), BTreeSet<T>>,
    by_key: FxHashMap<Symbol, BTreeSet<T>>,
}

impl<T> Default for Holders<T> {
    fn default() -> Self {
        Self { by_pair: FxHashMap::default(), by_key: FxHashMap::default() }
    }
}

impl<T: Ord + Copy> Holders<T> {
    fn add(&mut self, labels: &[(Symbol, Symbol)], holder: T) {
        for pair in labels {
            self.by_pair.entry(*pair).or_default().insert(holder);
            self.by_key.entry(pair.0).or_default().insert(holder);
        }
    }

    fn remove(&mut self, labels: &[(Symbol, Symbol)], holder: T) {
        for pair in labels {
            drop_holder(&mut self.by_pair, *pair, &holder);
            drop_holder(&mut self.by_key, pair.0, &holder);
        }
    }

    fn of_pair(&self, pair: (Symbol, Symbol)) -> impl Iterator<Item = T> + '_ {
        self.by_pair.get(&pair).into_iter().flatten().copied()
    }

    fn of_key(&self, key: Symbol) -> impl Iterator<Item = T> + '_ {
        self.by_key.get(&key).into_iter().flatten().copied()
    }
}

fn drop_holder<K: std::hash::Hash + Eq + Copy, T: Ord>(
    map: &mut FxHashMap<K, BTreeSet<T>>,
    key: K,
    holder: &T,
) {
    if let Some(holders) = map.get_mut(&key) {
        holders.remove(holder);
        if holders.is_empty() {
            map.remove(&key);
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    symbols: Interner,
    items: FxHashMap<ItemId, Item>,
    parents: FxHashMap<Symbol, Parent>,
    selectors: FxHashMap<SelectorId, Indexed>,
    item_labels: Holders<ItemId>,
    parent_labels: Holders<Symbol>,
    anchored: Holders<SelectorId>,
    everywhere: BTreeSet<SelectorId>,
}

impl LabelIndex {
    /// Adds or changes an item. Changes of matches go to `out`.
    pub(crate) fn set_item<'a>(
        &mut self,
        id: ItemId,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        parents: impl Iterator<Item = &'a str>,
        out: &mut Vec<MatchChange>,
    ) {
        let labels = self.intern_labels(labels);
        let parents: Box<[Symbol]> = parents.map(|p| self.symbols.intern(p)).collect();
        if self.items.get(&id).is_some_and(|old| old.labels == labels && old.parents == parents) {
            return;
        }
        let old = self.items.remove(&id).unwrap_or_default();
        self.unlink(id, &old);
        self.item_labels.add(&labels, id);
        for parent in &parents {
            self.parents.entry(*parent).or_default().children.insert(id);
        }
        self.items.insert(id, Item { labels, parents, matched: old.matched });
        self.rematch(id, out);
    }

    /// Removes an item. Its lost matches go to `out`.
    pub(crate) fn remove_item(&mut self, id: ItemId, out: &mut Vec<MatchChange>) {
        let Some(item) = self.items.remove(&id) else { return };
        self.unlink(id, &item);
        for selector in item.matched {
            if let Some(indexed) = self.selectors.get_mut(&selector) {
                indexed.matched.remove(&id);
            }
            out.push(MatchChange { item: id, selector, matched: false });
        }
    }

    /// Sets the labels that children of a parent inherit. A parent that goes away has none.
    pub(crate) fn set_parent_labels<'a>(
        &mut self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        out: &mut Vec<MatchChange>,
    ) {
        let name = self.symbols.intern(name);
        let labels = self.intern_labels(labels);
        let parent = self.parents.entry(name).or_default();
        if parent.labels == labels {
            return;
        }
        let old = std::mem::replace(&mut parent.labels, labels.clone());
        let children: Vec<ItemId> = parent.children.iter().copied().collect();
        self.parent_labels.remove(&old, name);
        self.parent_labels.add(&labels, name);
        for child in children {
            self.rematch(child, out);
        }
    }

    /// Adds a selector; the id must be new. Its matches go to `out`.
    pub(crate) fn add_selector(&mut self, id: SelectorId, expr: &Expr, out: &mut Vec<MatchChange>) {
        let matcher = Matcher::new(expr, &mut self.symbols);
        let anchor = self.choose_anchor(expr);
        let candidates = self.candidate_items(&anchor);
        match &anchor {
            Anchor::Pairs(pairs) => {
                for pair in pairs {
                    self.anchored.by_pair.entry(*pair).or_default().insert(id);
                }
            }
            Anchor::Key(key) => {
                self.anchored.by_key.entry(*key).or_default().insert(id);
            }
            Anchor::Everywhere => {
                self.everywhere.insert(id);
            }
        }
        let mut matched = BTreeSet::new();
        for item in candidates {
            if self.evaluate(&matcher, item) {
                matched.insert(item);
                let list = &mut self.items.get_mut(&item).expect("candidates are items").matched;
                if let Err(at) = list.binary_search(&id) {
                    list.insert(at, id);
                }
                out.push(MatchChange { item, selector: id, matched: true });
            }
        }
        self.selectors.insert(id, Indexed { matcher, anchor, matched });
    }

    /// Removes a selector. Its matches simply end; nothing is reported.
    pub(crate) fn remove_selector(&mut self, id: SelectorId) {
        let Some(indexed) = self.selectors.remove(&id) else { return };
        match indexed.anchor {
            Anchor::Pairs(pairs) => {
                for pair in pairs {
                    drop_holder(&mut self.anchored.by_pair, pair, &id);
                }
            }
            Anchor::Key(key) => drop_holder(&mut self.anchored.by_key, key, &id),
            Anchor::Everywhere => {
                self.everywhere.remove(&id);
            }
        }
        for item in indexed.matched {
            if let Some(item) = self.items.get_mut(&item) {
                item.matched.retain(|s| *s != id);
            }
        }
    }

    /// The items that match a selector, in order.
    pub(crate) fn items_of(&self, selector: SelectorId) -> impl Iterator<Item = ItemId> + '_ {
        self.selectors.get(&selector).into_iter().flat_map(|s| s.matched.iter().copied())
    }

    /// The selectors that an item matches, in order.
    pub(crate) fn selectors_of(&self, item: ItemId) -> &[SelectorId] {
        self.items.get(&item).map_or(&[], |i| &i.matched)
    }

    fn intern_labels<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
        let mut labels: Vec<_> =
            labels.map(|(k, v)| (self.symbols.intern(k), self.symbols.intern(v))).collect();
        labels.sort_unstable();
        labels.into()
    }

    fn unlink(&mut self, id: ItemId, item: &Item) {
        self.item_labels.remove(&item.labels, id);
        for parent in &item.parents {
            if let Some(entry) = self.parents.get_mut(parent) {
                entry.children.remove(&id);
                if entry.children.is_empty() && entry.labels.is_empty() {
                    self.parents.remove(parent);
                }
            }
        }
    }

    /// Own labels first, then those of the parents in order.
    fn label(&self, item: &Item, key: Symbol) -> Option<Symbol> {
        let find = |labels: &[(Symbol, Symbol)]| {
            labels.binary_search_by_key(&key, |(k, _)| *k).ok().map(|at| labels[at].1)
        };
        find(&item.labels).or_else(|| item.parents.iter().find_map(|p| find(&self.parents.get(p)?.labels)))
    }

    fn evaluate(&self, matcher: &Matcher, id: ItemId) -> bool {
        self.items.get(&id).is_some_and(|item| matcher.matches(&|key| self.label(item, key), &self.symbols))
    }

    /// Evaluates again what could match an item, and reports what changed.
    fn rematch(&mut self, id: ItemId, out: &mut Vec<MatchChange>) {
        let item = &self.items[&id];
        let inherited = item.parents.iter().filter_map(|p| self.parents.get(p)).flat_map(|p| p.labels.iter());
        let mut candidates: Vec<SelectorId> = self.everywhere.iter().copied().collect();
        for pair in item.labels.iter().chain(inherited) {
            candidates.extend(self.anchored.of_pair(*pair));
            candidates.extend(self.anchored.of_key(pair.0));
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates.retain(|s| self.evaluate(&self.selectors[s].matcher, id));
        let before = std::mem::take(&mut self.items.get_mut(&id).expect("looked up above").matched);
        for selector in before.iter().filter(|s| candidates.binary_search(s).is_err()) {
            self.selectors.get_mut(selector).expect("matched selectors exist").matched.remove(&id);
            out.push(MatchChange { item: id, selector: *selector, matched: false });
        }
        for selector in candidates.iter().filter(|s| before.binary_search(s).is_err()) {
            self.selectors.get_mut(selector).expect("candidates exist").matched.insert(id);
            out.push(MatchChange { item: id, selector: *selector, matched: true });
        }
        self.items.get_mut(&id).expect("looked up above").matched = candidates;
    }

    /// The label requirement of the expression that the fewest items fulfil now.
    fn choose_anchor(&mut self, expr: &Expr) -> Anchor {
        let mut best = (usize::MAX, Anchor::Everywhere);
        for (key, restriction) in expr.restrictions() {
            let key = self.symbols.intern(&key);
            let anchor = match restriction.values {
                Some(values) => Anchor::Pairs(values.iter().map(|v| (key, self.symbols.intern(v))).collect()),
                None if restriction.present => Anchor::Key(key),
                None => continue,
            };
            let cost = self.anchor_cost(&anchor);
            if cost < best.0 {
                best = (cost, anchor);
            }
        }
        best.1
    }

    fn anchor_cost(&self, anchor: &Anchor) -> usize {
        let children = |parents: Option<&BTreeSet<Symbol>>| -> usize {
            parents.into_iter().flatten().map(|p| self.parents[p].children.len()).sum()
        };
        match anchor {
            Anchor::Pairs(pairs) => pairs
                .iter()
                .map(|pair| {
                    self.item_labels.by_pair.get(pair).map_or(0, BTreeSet::len)
                        + children(self.parent_labels.by_pair.get(pair))
                })
                .sum(),
            Anchor::Key(key) => {
                self.item_labels.by_key.get(key).map_or(0, BTreeSet::len)
                    + children(self.parent_labels.by_key.get(key))
            }
            Anchor::Everywhere => self.items.len(),
        }
    }

    fn candidate_items(&self, anchor: &Anchor) -> BTreeSet<ItemId> {
        let children = |parent: Symbol| self.parents[&parent].children.iter().copied();
        match anchor {
            Anchor::Pairs(pairs) => pairs
                .iter()
                .flat_map(|pair| {
                    self.item_labels
                        .of_pair(*pair)
                        .chain(self.parent_labels.of_pair(*pair).flat_map(children))
                })
                .collect(),
            Anchor::Key(key) => self
                .item_labels
                .of_key(*key)
                .chain(self.parent_labels.of_key(*key).flat_map(children))
                .collect(),
            Anchor::Everywhere => {
                let mut all: Vec<ItemId> = self.items.keys().copied().collect();
                all.sort_unstable();
                all.into_iter().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
