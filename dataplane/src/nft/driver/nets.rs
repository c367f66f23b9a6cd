//! Networks of which none lies in another: the kernel refuses ranges that overlap.
//!
//! Two networks overlap only if one lies in the other. So what goes into the kernel are the networks that lie in no
//! other of the set, and a change concerns only what lies in it, or around it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

/// A set of networks.
#[derive(Debug, Default)]
pub(super) struct Nets {
    members: BTreeSet<IpNet>,
    /// How many have each length of prefix.
    lengths: BTreeMap<u8, usize>,
}

/// What a change means for the networks that lie in no other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// They lie in no other any more... or did not before.
    pub(super) come: Vec<IpNet>,
    /// They go, or lie in another one now.
    pub(super) go: Vec<IpNet>,
}

impl Nets {
    /// Whether all are single addresses.
    pub(super) fn are_addresses(&self) -> bool {
        self.lengths.keys().all(|len| matches!(len, 32 | 128))
            && self.members.first().is_none_or(|net| net.prefix_len() == net.max_prefix_len())
    }

    /// Adds a network.
    pub(super) fn insert(&mut self, net: IpNet) -> Change {
        if !self.members.insert(net) {
            return Change::default();
        }
        *self.lengths.entry(net.prefix_len()).or_default() += 1;
        if self.is_covered(&net) {
            return Change::default();
        }
        Change { come: vec![net], go: self.outermost_below(&net) }
    }

    /// Takes a network out.
    pub(super) fn remove(&mut self, net: IpNet) -> Change {
        if !self.members.remove(&net) {
            return Change::default();
        }
        if let Some(count) = self.lengths.get_mut(&net.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&net.prefix_len());
            }
        }
        if self.is_covered(&net) {
            return Change::default();
        }
        Change { come: self.outermost_below(&net), go: vec![net] }
    }

    /// Those that lie in no other, in order.
    pub(super) fn outermost(&self) -> Vec<IpNet> {
        outermost(self.members.iter())
    }

    fn is_covered(&self, net: &IpNet) -> bool {
        self.lengths.range(..net.prefix_len()).any(|(len, _)| {
            IpNet::new(net.addr(), *len).is_ok_and(|around| self.members.contains(&around.trunc()))
        })
    }

    /// Of those that lie in `net`, the ones that lie in no other of them.
    fn outermost_below(&self, net: &IpNet) -> Vec<IpNet> {
        if self.lengths.range(net.prefix_len() + 1..).next().is_none() {
            return Vec::new();
        }
        let last = IpNet::from(net.broadcast());
        outermost(self.members.range(*net..=last).filter(|member| *member != net))
    }
}

/// In order, a network comes before those that lie in it.
fn outermost<'a>(nets: impl Iterator<Item = &'a IpNet>) -> Vec<IpNet> {
    let mut out: Vec<IpNet> = Vec::new();
    for net in nets {
        if out.last().is_none_or(|last| !last.contains(net)) {
            out.push(*net);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_network_around_others_takes_their_place_and_gives_it_back() {
        let mut set = Nets::default();
        for net in nets(&["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "11.0.0.0/8", "10.1.2.3/32"]) {
            set.insert(net);
        }
        let around = nets(&["10.0.0.0/8"])[0];
        let inner = nets(&["10.1.0.0/16", "10.2.0.0/16"]);
        assert_eq!(set.insert(around), Change { come: vec![around], go: inner.clone() });
        assert_eq!(set.insert(around), Change::default());
        assert_eq!(set.remove(nets(&["10.2.0.0/16"])[0]), Change::default());
        assert_eq!(set.outermost(), nets(&["10.0.0.0/8", "11.0.0.0/8"]));
        assert_eq!(set.remove(around), Change { come: nets(&["10.1.0.0/16"]), go: vec![around] });
    }

    #[test]
    fn everything_lies_in_the_network_of_length_zero() {
        let mut set = Nets::default();
        set.insert(nets(&["255.255.255.255/32"])[0]);
        assert!(set.are_addresses());
        let all = nets(&["0.0.0.0/0"])[0];
        assert_eq!(set.insert(all), Change { come: vec![all], go: nets(&["255.255.255.255/32"]) });
        assert!(!set.are_addresses());
        assert_eq!(set.remove(all), Change { come: nets(&["255.255.255.255/32"]), go: vec![all] });
        assert!(set.are_addresses());
    }

    #[test]
    fn what_changes_say_adds_up_to_what_is_there() {
        // 2,000 changes of networks that often lie in each other; the seed is the first factor.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut set, mut kernel) = (Nets::default(), BTreeSet::new());
        for _ in 0..2000 {
            let len = u8::try_from(22 + next(11)).unwrap();
            let bits = u32::try_from(0x0a00_0000 + next(1 << 10)).unwrap();
            let net = IpNet::new(std::net::Ipv4Addr::from_bits(bits).into(), len).unwrap().trunc();
            let change = if next(2) == 0 { set.insert(net) } else { set.remove(net) };
            change.go.iter().for_each(|net| assert!(kernel.remove(net)));
            change.come.iter().for_each(|net| assert!(kernel.insert(*net)));
            assert_eq!(kernel.iter().copied().collect::<Vec<_>>(), set.outermost());
        }
    }
}
