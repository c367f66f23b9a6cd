//! The address space, cut wherever a network of a block begins or ends.

use std::collections::BTreeMap;

use super::{Block, TooComplex};
use crate::compile::fast::members::{Members, SetMembers, SetNumber};
use crate::compile::fast::step::{AddressSet, last_address};

/// Addresses that no network of a block tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: u128,
    pub(super) last: u128,
    /// Sets that hold all of it, sorted.
    pub(super) sets: Vec<SetNumber>,
}

impl Block {
    /// Cuts the address space anew.
    pub(super) fn cut(&mut self, members: &Members) -> Result<(), TooComplex> {
        let last = last_address(self.version);
        // What begins and ends at an address.
        let mut marks: BTreeMap<u128, Vec<(SetNumber, bool)>> = BTreeMap::from([(0, Vec::new())]);
        let mut cut = |at: u128, change: Option<(SetNumber, bool)>| {
            marks.entry(at).or_default().extend(change);
        };
        for rule in self.rules.values() {
            let peer = &rule.step.step.peer;
            for (first, end) in peer.nets.iter().flat_map(AddressSet::ranges).chain(peer.not_nets.ranges()) {
                cut(*first, None);
                if *end < last {
                    cut(end + 1, None);
                }
            }
        }
        for number in self.atoms() {
            for (first, end) in members.get(number).into_iter().flat_map(SetMembers::ranges) {
                cut(first, Some((number, true)));
                if end < last {
                    cut(end + 1, Some((number, false)));
                }
            }
        }
        if marks.len() > self.limits.stretches {
            return Err(TooComplex);
        }
        self.sweep(&marks, last)
    }

    fn sweep(
        &mut self,
        marks: &BTreeMap<u128, Vec<(SetNumber, bool)>>,
        last: u128,
    ) -> Result<(), TooComplex> {
        let mut open: BTreeMap<SetNumber, usize> = BTreeMap::new();
        let mut stretches = Vec::with_capacity(marks.len());
        let mut starts = marks.iter().peekable();
        while let Some((first, changes)) = starts.next() {
            for (set, begins) in changes {
                let depth = open.entry(*set).or_insert(0);
                *depth = if *begins { *depth + 1 } else { depth.saturating_sub(1) };
            }
            open.retain(|_, depth| *depth > 0);
            self.work += open.len();
            if self.work > self.limits.work {
                return Err(TooComplex);
            }
            let end = starts.peek().map_or(last, |(next, _)| **next - 1);
            stretches.push(Stretch { first: *first, last: end, sets: open.keys().copied().collect() });
        }
        self.stretches = stretches;
        Ok(())
    }

    /// The place of the stretch of an address.
    pub(super) fn stretch_of(&self, address: u128) -> usize {
        self.stretches.partition_point(|stretch| stretch.first <= address) - 1
    }
}

/// A range as networks: their first address and how many bits lie behind their prefix.
pub(super) fn networks(first: u128, last: u128, width: u32) -> Vec<(u128, u32)> {
    let mut networks = Vec::new();
    let mut at = first;
    loop {
        let mut size = at.trailing_zeros().min(width);
        // The largest that begins here and does not reach beyond the end.
        while size > 0 && (size == u128::BITS || at + ((1 << size) - 1) > last) {
            if size == u128::BITS && at == 0 && last == u128::MAX {
                break;
            }
            size -= 1;
        }
        networks.push((at, size));
        let end = if size == u128::BITS { u128::MAX } else { at + ((1 << size) - 1) };
        if end >= last {
            return networks;
        }
        at = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::networks;

    #[test]
    fn ranges_are_made_of_networks() {
        assert_eq!(networks(0, 255, 32), [(0, 8)]);
        assert_eq!(networks(1, 6, 32), [(1, 0), (2, 1), (4, 1), (6, 0)]);
        assert_eq!(networks(0, u128::from(u32::MAX), 32), [(0, 32)]);
        assert_eq!(networks(0, u128::MAX, 128), [(0, 128)]);
        assert_eq!(networks(u128::MAX, u128::MAX, 128), [(u128::MAX, 0)]);
        assert_eq!(networks(u128::MAX - 1, u128::MAX, 128), [(u128::MAX - 1, 1)]);
    }
}
