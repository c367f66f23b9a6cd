//! One set: what is wanted in it, and how the kernel's set differs. No kernel calls here.
//!
//! Wanted members are kept once; what the kernel has is "wanted, without `add`, with `delete`". So a
//! change costs in proportion to itself, and a set in step needs no memory beside its members.

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::net::IpVersion;

use super::codec::Listing;
use super::member::{Fit, Member, MemberSet, SetSpec, SetType, fit, halves};

/// Up to this many differences a set is changed in place, however small it is.
const SMALL: usize = 32;

/// What the kernel has under the set's name.
#[derive(Debug)]
pub(super) enum Actual {
    /// Nothing.
    Absent,
    /// A set that has not been looked into, or one that someone else has changed since.
    Unread,
    /// A set of another type, family or size.
    Unlike,
    /// A set of the right kind, with these differences.
    Tracked(Difference),
}

/// How the kernel's members differ from the wanted ones.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Wanted and not there.
    pub(super) add: BTreeSet<Member>,
    /// There and not wanted.
    pub(super) delete: BTreeSet<Member>,
}

/// What has to be done to bring a set in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// List it and decide again.
    Read,
    Create,
    /// Delete and add members in place.
    Update,
    /// Fill a set under another name and swap the two.
    Rebuild,
    Destroy,
}

/// A wanted set's members and what is wrong with them.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) spec: SetSpec,
    pub(super) members: MemberSet,
    /// 0.0.0.0/0 or ::/0 is wanted; and which halves are wanted for themselves.
    everything: bool,
    own_halves: [bool; 2],
    /// Members that such a set cannot hold.
    misfits: BTreeSet<Member>,
}

impl Wanted {
    fn new(spec: SetSpec) -> Self {
        let members = MemberSet::new(&spec);
        Self { spec, members, everything: false, own_halves: [false; 2], misfits: BTreeSet::new() }
    }

    /// Wants a member; calls `changed` for each of the kernel's members that this adds.
    fn add(&mut self, member: Member, mut changed: impl FnMut(Member)) {
        match fit(&self.spec, member) {
            Fit::No => {
                self.misfits.insert(member);
            }
            Fit::One(member) => {
                self.note_half(&member, true);
                if self.members.insert(&member) {
                    changed(member);
                }
            }
            Fit::Everything => {
                self.everything = true;
                for half in halves(self.spec.family) {
                    if self.members.insert(&half) {
                        changed(half);
                    }
                }
            }
        }
    }

    /// No longer wants a member; calls `changed` for each of the kernel's members that this takes away.
    fn remove(&mut self, member: Member, mut changed: impl FnMut(Member)) {
        match fit(&self.spec, member) {
            Fit::No => {
                self.misfits.remove(&member);
            }
            Fit::One(member) => {
                let is_half = self.note_half(&member, false);
                if !(is_half && self.everything) && self.members.remove(&member) {
                    changed(member);
                }
            }
            Fit::Everything => {
                self.everything = false;
                for (half, own) in halves(self.spec.family).into_iter().zip(self.own_halves) {
                    if !own && self.members.remove(&half) {
                        changed(half);
                    }
                }
            }
        }
    }

    /// Remembers that a half is wanted for itself; whether the member is a half.
    fn note_half(&mut self, member: &Member, wanted: bool) -> bool {
        let Member::Net(net) = member else { return false };
        if net.prefix_len() != 1 {
            return false;
        }
        for (half, own) in halves(self.spec.family).iter().zip(&mut self.own_halves) {
            if half == member {
                *own = wanted;
            }
        }
        true
    }
}

/// A set under one of our names.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) wanted: Option<Wanted>,
    pub(super) actual: Actual,
    /// The most members that the kernel's set can hold; of meaning while it is tracked.
    pub(super) capacity: u32,
    /// A limit that the kernel could not keep to: it called a smaller set full.
    at_least: u32,
    /// Why the last apply did not bring it in step.
    pub(super) failure: Option<String>,
    /// Members that the kernel did not take at the last apply, and why.
    pub(super) refused: BTreeMap<Member, String>,
    /// How often its destruction failed because it is in use.
    pub(super) busy: u32,
}

impl Set {
    pub(super) fn new(actual: Actual) -> Self {
        Self {
            wanted: None,
            actual,
            capacity: u32::MAX,
            at_least: 0,
            failure: None,
            refused: BTreeMap::new(),
            busy: 0,
        }
    }

    /// The family of the wanted set.
    pub(super) fn family(&self) -> Option<IpVersion> {
        self.wanted.as_ref().map(|wanted| wanted.spec.family)
    }

    /// Wants exactly these members.
    pub(super) fn want(&mut self, spec: SetSpec, members: &mut dyn Iterator<Item = Member>) {
        let mut wanted = Wanted::new(spec);
        for member in members {
            wanted.add(member, |_| {});
        }
        self.busy = 0;
        self.failure = None;
        self.refused.clear();
        self.actual = match (std::mem::replace(&mut self.actual, Actual::Unread), self.wanted.take()) {
            (Actual::Tracked(difference), Some(before)) if before.spec == wanted.spec => {
                Actual::Tracked(difference.toward(&before.members, &wanted.members))
            }
            (Actual::Absent, _) => Actual::Absent,
            // A change of kind is rare: look again, and decide then.
            _ => Actual::Unread,
        };
        self.wanted = Some(wanted);
    }

    /// Changes the wanted members. False when the set is not wanted at all.
    pub(super) fn update(
        &mut self,
        added: &mut dyn Iterator<Item = Member>,
        removed: &mut dyn Iterator<Item = Member>,
    ) -> bool {
        let Some(wanted) = &mut self.wanted else { return false };
        let mut difference = match &mut self.actual {
            Actual::Tracked(difference) => Some(difference),
            _ => None,
        };
        for member in removed {
            wanted.remove(member, |gone| {
                if let Some(difference) = &mut difference
                    && !difference.add.remove(&gone)
                {
                    difference.delete.insert(gone);
                }
            });
        }
        for member in added {
            wanted.add(member, |new| {
                if let Some(difference) = &mut difference
                    && !difference.delete.remove(&new)
                {
                    difference.add.insert(new);
                }
            });
        }
        true
    }

    /// No longer wants the set. What is in the kernel is forgotten but for its existence.
    pub(super) fn unwant(&mut self) {
        self.wanted = None;
        self.failure = None;
        self.refused.clear();
        self.busy = 0;
        self.at_least = 0;
        if !matches!(self.actual, Actual::Absent) {
            self.actual = Actual::Unread;
        }
    }

    /// Takes in what the kernel has.
    pub(super) fn read(&mut self, listing: Option<Listing>) {
        self.actual = match (&self.wanted, listing) {
            (_, None) => Actual::Absent,
            (None, Some(_)) => Actual::Unread,
            (Some(wanted), Some(listing))
                if !listing.header.is(&wanted.spec) || !self.is_size(listing.header.capacity()) =>
            {
                Actual::Unlike
            }
            (Some(wanted), Some(listing)) => {
                self.capacity = listing.header.capacity();
                Actual::Tracked(Difference::between(&listing.members, &wanted.members))
            }
        };
    }

    /// The most members that the set shall be able to hold when it is made: as many as its creator asked for, and
    /// where it needs more, more. A set that does not hold all its members would let through what it should not.
    pub(super) fn limit(&self) -> u32 {
        let Some(wanted) = &self.wanted else { return 0 };
        let asked = wanted.spec.max_elements.max(self.at_least);
        let needed = wanted.members.len_u32();
        if needed <= asked { asked } else { needed.checked_next_power_of_two().unwrap_or(u32::MAX) }
    }

    /// Whether a set of this capacity need not be made anew. One that has grown stays until half of what was asked
    /// for would do, so that it is not made anew at each step over the limit.
    fn is_size(&self, capacity: u32) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| {
            let asked = wanted.spec.max_elements;
            let is_kept = wanted.members.len_u32() > asked / 2;
            wanted.spec.set_type == SetType::BitmapPort || capacity == asked || (capacity > asked && is_kept)
        })
    }

    /// The kernel calls a set of [`Self::limit`] full: the next one is made larger.
    pub(super) fn is_full(&mut self) {
        self.at_least = self.limit().saturating_mul(2);
        self.capacity = 0;
    }

    /// What has to be done now.
    pub(super) fn action(&self) -> Action {
        let Some(wanted) = &self.wanted else {
            return if matches!(self.actual, Actual::Absent) { Action::Nothing } else { Action::Destroy };
        };
        match &self.actual {
            Actual::Absent => Action::Create,
            Actual::Unread => Action::Read,
            Actual::Unlike => Action::Rebuild,
            Actual::Tracked(difference) if difference.is_empty() => Action::Nothing,
            Actual::Tracked(_) if wanted.members.len_u32() > self.capacity => Action::Rebuild,
            Actual::Tracked(difference) if difference.is_rewrite(wanted.members.len()) => Action::Rebuild,
            Actual::Tracked(_) => Action::Update,
        }
    }

    /// The kernel has exactly what is wanted.
    pub(super) fn is_programmed(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.misfits.is_empty())
            && self.action() == Action::Nothing
    }

    /// What a rule would find in it is not only what is wanted.
    pub(super) fn is_strange(&self) -> bool {
        self.wanted.is_some()
            && match &self.actual {
                Actual::Unlike => true,
                Actual::Tracked(difference) => !difference.delete.is_empty(),
                Actual::Absent | Actual::Unread => false,
            }
    }

    /// Everything that keeps the kernel from having what is wanted, in words.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.failure.iter().cloned().collect();
        problems.extend(self.refused.iter().map(|(member, why)| format!("member {member}: {why}")));
        if let Some(wanted) = &self.wanted {
            let kind = wanted.spec.set_type;
            problems.extend(wanted.misfits.iter().map(|member| {
                format!("member {member} does not fit into a {kind} set of {}", wanted.spec.family)
            }));
        }
        problems
    }
}

impl Difference {
    /// From members that are there to members that are wanted.
    fn between(there: &MemberSet, wanted: &MemberSet) -> Self {
        Self {
            add: wanted.sorted(|member| !there.contains(member)).into_iter().collect(),
            delete: there.sorted(|member| !wanted.contains(member)).into_iter().collect(),
        }
    }

    /// The difference to another list of wanted members.
    fn toward(&self, before: &MemberSet, wanted: &MemberSet) -> Self {
        let is_there = |member: &Member| {
            self.delete.contains(member) || before.contains(member) && !self.add.contains(member)
        };
        let mut delete: BTreeSet<Member> = before
            .sorted(|member| !wanted.contains(member) && !self.add.contains(member))
            .into_iter()
            .collect();
        delete.extend(self.delete.iter().filter(|member| !wanted.contains(member)));
        Self { add: wanted.sorted(|member| !is_there(member)).into_iter().collect(), delete }
    }

    fn is_empty(&self) -> bool {
        self.add.is_empty() && self.delete.is_empty()
    }

    /// Most of the set changes: better in one step, by a swap, than seen half-way by packets.
    fn is_rewrite(&self, wanted: usize) -> bool {
        let changes = self.add.len() + self.delete.len();
        let unchanged = wanted - self.add.len().min(wanted);
        changes > SMALL && !self.delete.is_empty() && changes > unchanged
    }
}
