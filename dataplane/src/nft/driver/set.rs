//! One set or map: what is wanted in it, and how the kernel's differs. No kernel calls here.
//!
//! ```text
//!   wanted elements ── the kernel's = wanted, without `add`, with `delete` ──► batch
//! ```
//!
//! A set of networks is a hash of addresses as long as it holds nothing else, where a change costs the same however
//! large it is; with the first network it becomes one of ranges, and stays that.

use std::collections::BTreeSet;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use tortie_api::net::IpVersion;
use tortie_rules::compile::classic::SetType;
use tortie_rules::graph::model::Member;
use tortie_rules::render::nft as lower;
use tortie_rules::ruleset::nft::{self, Element, ElementExtras, ElementKey, ElementValue};

use super::nets::{Change, Nets};

/// What the kernel has under the set's name.
#[derive(Debug, Default)]
pub(super) enum Actual {
    /// Nothing.
    #[default]
    Absent,
    /// A set that has not been looked into, or that others have changed since.
    Unread,
    /// A set of another kind.
    Unlike,
    /// A set of the right kind, with these differences.
    Tracked(Difference),
}

/// How the kernel's elements differ from the wanted ones. A key in both has another value there.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Wanted and not there.
    pub(super) add: BTreeSet<ElementKey>,
    /// There and not wanted.
    pub(super) delete: BTreeSet<ElementKey>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.add.is_empty() && self.delete.is_empty()
    }

    /// The key is wanted now. Without a value there is nothing in it that could differ.
    fn want(&mut self, key: &ElementKey, has_value: bool) {
        let is_there = self.delete.contains(key) && !self.add.contains(key);
        if is_there && !has_value {
            self.delete.remove(key);
        } else {
            self.add.insert(key.clone());
        }
    }

    /// The key is wanted with another value.
    fn revalue(&mut self, key: &ElementKey) {
        if self.add.insert(key.clone()) {
            self.delete.insert(key.clone());
        }
    }

    /// The key is wanted no more.
    fn unwant(&mut self, key: &ElementKey) {
        if !self.add.remove(key) {
            self.delete.insert(key.clone());
        }
    }
}

/// What an element has beside its key.
type Rest = (Option<ElementValue>, Option<Box<ElementExtras>>);

/// The wanted elements.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Nothing: the set is to go.
    Nothing,
    /// Networks, or addresses only.
    Nets { name: String, version: IpVersion, interval: bool, nets: Nets },
    /// Whatever else.
    Keyed { set: nft::Set, elements: FxHashMap<ElementKey, Rest> },
}

/// A set under a name of ours.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) wanted: Wanted,
    pub(super) actual: Actual,
}

impl Set {
    /// A set that the kernel has, or not, and that is not wanted so far.
    pub(super) const fn new(actual: Actual) -> Self {
        Self { wanted: Wanted::Nothing, actual }
    }

    /// Whether it shall be there.
    pub(super) const fn is_wanted(&self) -> bool {
        !matches!(self.wanted, Wanted::Nothing)
    }

    /// Wants an ip set with exactly these members.
    pub(super) fn want_members(
        &mut self,
        name: &str,
        version: IpVersion,
        set_type: SetType,
        members: &[Member],
    ) {
        let was_interval = matches!(self.wanted, Wanted::Nets { interval: true, .. });
        let was_there = matches!(self.actual, Actual::Tracked(_));
        let before = self.is_wanted().then(|| self.elements());
        let old = self.declaration();
        self.wanted = if set_type == SetType::AddressPort {
            let set = lower::set(name, version, set_type, false);
            Wanted::Keyed { set, elements: keyed(members.iter().map(|m| lower::element(m, false))) }
        } else {
            let mut nets = Nets::default();
            members.iter().filter_map(net_of).for_each(|net| drop(nets.insert(net)));
            let interval = (was_interval && was_there) || !nets.are_addresses();
            Wanted::Nets { name: name.to_owned(), version, interval, nets }
        };
        self.rewanted(before, old.as_ref());
    }

    /// Wants a set or map with exactly these elements.
    pub(super) fn want_elements(&mut self, set: nft::Set, elements: Vec<Element>) {
        let before = self.is_wanted().then(|| self.elements());
        let old = self.declaration();
        self.wanted = Wanted::Keyed { set, elements: keyed(elements.into_iter()) };
        self.rewanted(before, old.as_ref());
    }

    /// Works out the difference anew after the whole set was given.
    fn rewanted(&mut self, before: Option<Vec<Element>>, old: Option<&nft::Set>) {
        let Actual::Tracked(difference) = &self.actual else { return };
        if old.is_some() && self.declaration().as_ref() != old {
            self.actual = Actual::Unlike;
            return;
        }
        let Some(before) = before else {
            self.actual = Actual::Unread;
            return;
        };
        // What the kernel holds: of elements whose value differs, the value is not known, and so is left out.
        let (add, delete) = (&difference.add, difference.delete.clone());
        let held: Vec<Element> = before.into_iter().filter(|element| !add.contains(&element.key)).collect();
        self.compare(&held);
        if let Actual::Tracked(difference) = &mut self.actual {
            for key in delete {
                difference.delete.insert(key);
            }
        }
    }

    /// Changes members of an ip set. `false` if it is not one that is wanted.
    pub(super) fn update_members(&mut self, added: &[Member], removed: &[Member]) -> bool {
        match &mut self.wanted {
            Wanted::Nothing => false,
            Wanted::Keyed { .. } => {
                let element = |member: &Member| lower::element(member, false);
                let gone = removed.iter().map(|member| element(member).key).collect();
                self.update_elements(added.iter().map(element).collect(), gone)
            }
            Wanted::Nets { interval, nets, .. } => {
                let is_ranges = *interval;
                let mut changes: Vec<Change> = Vec::with_capacity(added.len() + removed.len());
                changes.extend(removed.iter().filter_map(net_of).map(|net| nets.remove(net)));
                changes.extend(added.iter().filter_map(net_of).map(|net| nets.insert(net)));
                if !is_ranges && !nets.are_addresses() {
                    *interval = true;
                    if !matches!(self.actual, Actual::Absent) {
                        self.actual = Actual::Unlike;
                    }
                } else if let Actual::Tracked(difference) = &mut self.actual {
                    for change in changes {
                        change.go.iter().for_each(|net| difference.unwant(&net_key(*net, is_ranges)));
                        change.come.iter().for_each(|net| difference.want(&net_key(*net, is_ranges), false));
                    }
                }
                true
            }
        }
    }

    /// Adds or changes elements, and takes others out. `false` if the set is not wanted.
    pub(super) fn update_elements(&mut self, added: Vec<Element>, removed: Vec<ElementKey>) -> bool {
        let Wanted::Keyed { elements, .. } = &mut self.wanted else { return false };
        let mut ignored = Difference::default();
        let difference = match &mut self.actual {
            Actual::Tracked(difference) => difference,
            _ => &mut ignored,
        };
        for key in removed {
            if elements.remove(&key).is_some() {
                difference.unwant(&key);
            }
        }
        for Element { key, value, extras } in added {
            let has_value = value.is_some();
            let rest = (value, extras);
            match elements.get(&key) {
                Some(old) if *old == rest => continue,
                Some(_) => difference.revalue(&key),
                None => difference.want(&key, has_value),
            }
            elements.insert(key, rest);
        }
        true
    }

    /// No longer wants it.
    pub(super) fn unwant(&mut self) {
        self.wanted = Wanted::Nothing;
        if !matches!(self.actual, Actual::Absent) {
            self.actual = Actual::Unread;
        }
    }

    /// What the kernel shall have of the set itself.
    pub(super) fn declaration(&self) -> Option<nft::Set> {
        match &self.wanted {
            Wanted::Nothing => None,
            Wanted::Nets { name, version, interval, .. } => {
                Some(lower::set(name, *version, SetType::Net, *interval))
            }
            Wanted::Keyed { set, .. } => Some(set.clone()),
        }
    }

    /// All wanted elements, sorted.
    pub(super) fn elements(&self) -> Vec<Element> {
        match &self.wanted {
            Wanted::Nothing => Vec::new(),
            Wanted::Nets { interval, nets, .. } => {
                let all = nets.outermost().into_iter();
                all.map(|net| lower::element(&Member::Net(net), *interval)).collect()
            }
            Wanted::Keyed { elements, .. } => {
                let mut all: Vec<Element> = elements.iter().map(|(key, rest)| element(key, rest)).collect();
                all.sort_unstable();
                all
            }
        }
    }

    /// The wanted element of a key that is known to be wanted.
    pub(super) fn element(&self, key: &ElementKey) -> Element {
        match &self.wanted {
            Wanted::Keyed { elements, .. } => match elements.get(key) {
                Some(rest) => element(key, rest),
                None => element(key, &Rest::default()),
            },
            Wanted::Nets { .. } | Wanted::Nothing => element(key, &Rest::default()),
        }
    }

    /// Takes what the kernel has of the set itself. A set of ranges is as good for addresses alone.
    pub(super) fn observed(&mut self, found: &nft::Set) {
        if let Wanted::Nets { interval, .. } = &mut self.wanted {
            *interval |= found.interval;
        }
        let is_alike = self.declaration().is_some_and(|wanted| {
            // A comment is for people; nobody replaces a set for it.
            let found = nft::Set { comment: wanted.comment.clone(), ..found.clone() };
            found == wanted
        });
        self.actual = if self.is_wanted() && !is_alike { Actual::Unlike } else { Actual::Unread };
    }

    /// Takes the elements that the kernel has.
    pub(super) fn compare(&mut self, held: &[Element]) {
        let mut missing: FxHashMap<ElementKey, Element> =
            self.elements().into_iter().map(|element| (element.key.clone(), element)).collect();
        let mut difference = Difference::default();
        for element in held {
            match missing.remove(&element.key) {
                Some(wanted) if wanted == *element => {}
                Some(_) => difference.revalue(&element.key),
                None => {
                    difference.delete.insert(element.key.clone());
                }
            }
        }
        difference.add.extend(missing.into_keys());
        self.actual = Actual::Tracked(difference);
    }

    /// The kernel has what is wanted now.
    pub(super) fn done(&mut self) {
        self.actual = if self.is_wanted() { Actual::Tracked(Difference::default()) } else { Actual::Absent };
    }

    /// Whether the kernel has it as wanted.
    pub(super) fn is_settled(&self) -> bool {
        match &self.actual {
            Actual::Tracked(difference) => self.is_wanted() && difference.is_empty(),
            Actual::Absent => !self.is_wanted(),
            Actual::Unread | Actual::Unlike => false,
        }
    }
}

fn keyed(elements: impl Iterator<Item = Element>) -> FxHashMap<ElementKey, Rest> {
    elements.map(|Element { key, value, extras }| (key, (value, extras))).collect()
}

fn element(key: &ElementKey, (value, extras): &Rest) -> Element {
    Element { key: key.clone(), value: value.clone(), extras: extras.clone() }
}

fn net_of(member: &Member) -> Option<IpNet> {
    match member {
        Member::Net(net) => Some(net.trunc()),
        Member::AddressPort(..) => None,
    }
}

fn net_key(net: IpNet, interval: bool) -> ElementKey {
    lower::element(&Member::Net(net), interval).key
}

/// What names an element that is to go.
pub(super) fn bare(key: &ElementKey) -> Element {
    element(key, &Rest::default())
}
