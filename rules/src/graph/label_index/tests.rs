use std::collections::{BTreeMap, BTreeSet};

use tortie_api::selector::Selector;

use super::*;

/// The index beside plain evaluation of every pair, under a long random series of changes.
struct Model {
    index: LabelIndex,
    items: BTreeMap<ItemId, (BTreeMap<String, String>, Vec<String>)>,
    parents: BTreeMap<String, BTreeMap<String, String>>,
    selectors: BTreeMap<SelectorId, Selector>,
    reported: BTreeSet<(ItemId, SelectorId)>,
    seed: u64,
}

const SELECTORS: [&str; 14] = [
    "all()",
    "a == '1'",
    "a == '1' && b == '2'",
    "a != '1'",
    "has(a) || has(b)",
    "!has(a)",
    "a in {'1', '2'}",
    "a not in {'1', '2'}",
    "b contains '2'",
    "(a == '1' || a == '2') && has(c)",
    "c starts with '1' && b ends with '2'",
    "a == '1' && a == '2'",
    "a in {}",
    "p == '1' && a == '2'",
];

impl Model {
    fn new() -> Self {
        let mut index = LabelIndex::default();
        for name in ["x", "y", "z"] {
            index.hold_parent(name);
        }
        Self {
            index,
            items: BTreeMap::new(),
            parents: BTreeMap::new(),
            selectors: BTreeMap::new(),
            reported: BTreeSet::new(),
            seed: 42,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for key in ["a", "b", "c", "p"] {
            if self.random(2) == 0 {
                labels.insert(key.to_owned(), (1 + self.random(3)).to_string());
            }
        }
        labels
    }

    fn step(&mut self) {
        let mut out = Vec::new();
        match self.random(8) {
            0..=3 => {
                let id = ItemId::try_from(self.random(12)).unwrap();
                let labels = self.labels();
                let parents: Vec<String> =
                    ["x", "y", "z"].into_iter().filter(|_| self.random(2) == 0).map(str::to_owned).collect();
                // Some of the labels are given.
                let (own, given): (Vec<_>, Vec<_>) = labels
                    .iter()
                    .map(|(k, v)| (k.as_str(), v.as_str()))
                    .partition(|(k, v)| *k != "b" || *v == "2");
                let pairs = ItemLabels { own: own.into_iter(), given: given.into_iter() };
                let parents_of = parents.iter().map(String::as_str);
                self.index.set_item(id, pairs, parents_of, &|_| Vec::new(), &mut out);
                self.items.insert(id, (labels, parents));
            }
            4 => {
                let id = ItemId::try_from(self.random(12)).unwrap();
                self.index.remove_item(id, &mut out);
                self.items.remove(&id);
            }
            5 => {
                let name = ["x", "y", "z"][usize::try_from(self.random(3)).unwrap()];
                let labels = if self.random(3) == 0 { BTreeMap::new() } else { self.labels() };
                let pairs = labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                self.index.set_parent_labels(name, pairs, &mut out);
                self.parents.insert(name.to_owned(), labels);
            }
            _ => {
                let at = usize::try_from(self.random(SELECTORS.len() as u64)).unwrap();
                let selector = Selector::parse(SELECTORS[at]).unwrap();
                let known = self.selectors.iter().find(|(_, s)| **s == selector).map(|(id, _)| *id);
                let (id, items) = self.index.acquire_selector(selector.expr());
                assert_eq!(self.index.selector_text(id), selector.canonical());
                assert_eq!((items.is_none(), known.is_none_or(|known| known == id)), (known.is_some(), true));
                let Some(items) = items else {
                    self.index.release_selector(id);
                    if self.random(2) == 0 {
                        self.index.release_selector(id);
                        self.selectors.remove(&id);
                        self.reported.retain(|(_, s)| *s != id);
                    }
                    return;
                };
                let matched = |item| MatchChange { item, selector: id, matched: true };
                out.extend(items.into_iter().map(matched));
                self.selectors.insert(id, selector);
            }
        }
        for change in out {
            let pair = (change.item, change.selector);
            let is_news =
                if change.matched { self.reported.insert(pair) } else { self.reported.remove(&pair) };
            assert!(is_news, "{change:?} was reported before");
        }
    }

    fn expected(&self) -> BTreeSet<(ItemId, SelectorId)> {
        let mut pairs = BTreeSet::new();
        for (item, (own, parents)) in &self.items {
            let mut labels = own.clone();
            for parent in parents {
                for (k, v) in self.parents.get(parent).into_iter().flatten() {
                    labels.entry(k.clone()).or_insert_with(|| v.clone());
                }
            }
            pairs.extend(
                self.selectors.iter().filter(|(_, s)| s.matches(&labels)).map(|(id, _)| (*item, *id)),
            );
        }
        pairs
    }
}

#[test]
fn any_series_of_changes_ends_with_what_plain_evaluation_says() {
    let mut model = Model::new();
    for step in 0..5000 {
        model.step();
        let expected = model.expected();
        assert_eq!(model.reported, expected, "after step {step}");
        for id in model.selectors.keys() {
            let items = model.index.items_of(*id);
            let wanted: Vec<ItemId> = expected.iter().filter(|(_, s)| s == id).map(|(i, _)| *i).collect();
            assert_eq!(items, wanted);
        }
        for id in model.items.keys() {
            let wanted: Vec<SelectorId> = expected.iter().filter(|(i, _)| i == id).map(|(_, s)| *s).collect();
            assert_eq!(model.index.selectors_of(*id), wanted);
        }
    }
}

fn put(index: &mut LabelIndex, id: ItemId, own: &[Label<'_>]) {
    let labels = ItemLabels { own: own.iter().copied(), given: std::iter::empty() };
    index.set_item(id, labels, std::iter::empty(), &|_| Vec::new(), &mut Vec::new());
}

/// Selectors that were evaluated in vain while `work` was done.
fn misses(index: &mut LabelIndex, work: impl FnOnce(&mut LabelIndex)) -> u32 {
    let sum = |index: &LabelIndex| index.selectors.iter().map(|(_, s)| s.misses).sum::<u32>();
    let before = sum(index);
    work(index);
    sum(index) - before
}

#[test]
fn a_parent_that_nobody_holds_goes_with_its_last_child() {
    let mut index = LabelIndex::default();
    let give = |index: &mut LabelIndex| {
        index.set_parent_labels("p", [("a", "1")].into_iter(), &mut Vec::new());
        index.parent_labels("p").len()
    };
    let set = |index: &mut LabelIndex| {
        let labels = ItemLabels { own: std::iter::empty(), given: std::iter::empty() };
        index.set_item(0, labels, ["p"].into_iter(), &|_| Vec::new(), &mut Vec::new());
    };
    assert_eq!(give(&mut index), 0);
    set(&mut index);
    assert_eq!(give(&mut index), 1);
    let parent = index.hold_parent("p");
    index.remove_item(0, &mut Vec::new());
    assert_eq!(index.parent_labels("p").len(), 1);
    index.drop_parent(parent);
    assert_eq!((index.find_parent("p"), index.keys.len()), (None, 0));
}

#[test]
fn selectors_that_come_before_the_items_do_not_all_stand_at_the_label_that_they_share() {
    let mut index = LabelIndex::default();
    for i in 0..1000 {
        let selector = Selector::parse(&format!("shared == 'x' && has(own-{i})")).unwrap();
        index.acquire_selector(selector.expr());
    }
    let in_vain = misses(&mut index, |index| put(index, 0, &[("own-7", "y"), ("shared", "x")]));
    assert!(in_vain <= 1, "{in_vain} of 1000 selectors were evaluated in vain");
    assert_eq!(index.selectors_of(0), [7]);
}

#[test]
fn an_anchor_that_has_become_bad_is_left() {
    let mut index = LabelIndex::default();
    // When the selectors come, their own labels are everywhere and the shared one is nowhere.
    let keys: Vec<String> = (0..50).map(|i| format!("own-{i}")).collect();
    let all: Vec<Label<'_>> = keys.iter().map(|key| (key.as_str(), "y")).collect();
    (0..10).for_each(|id| put(&mut index, id, &all));
    for key in &keys {
        let selector = Selector::parse(&format!("shared == 'x' && has({key})")).unwrap();
        index.acquire_selector(selector.expr());
    }
    // Then it is the other way round.
    (0..10).for_each(|id| put(&mut index, id, &[]));
    (10..500).for_each(|id| put(&mut index, id, &[("shared", "x")]));
    let in_vain = misses(&mut index, |index| put(index, 500, &[("shared", "x")]));
    assert_eq!(in_vain, 0);
}
