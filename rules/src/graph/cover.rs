//! Which networks of a collection stand on their own, and which lie inside another one.
//!
//! nftables' interval sets refuse overlaps, so covered networks are left out where they are in use.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// How many times each network was contributed.
#[derive(Debug, Default)]
pub(crate) struct NetCounts {
    /// Ordered by address, then prefix length: what lies inside a network follows it.
    counts: BTreeMap<IpNet, u32>,
    /// How many networks there are of each prefix length, IPv4 then IPv6.
    lengths: BTreeMap<(bool, u8), u32>,
}

/// A network that became visible or ceased to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visible(pub(crate) IpNet, pub(crate) bool);

impl NetCounts {
    /// Counts a contribution. With `suppress`, covered networks are not visible.
    pub(crate) fn add(&mut self, net: IpNet, suppress: bool, out: &mut Vec<Visible>) {
        let count = self.counts.entry(net).or_insert(0);
        *count += 1;
        if *count > 1 {
            return;
        }
        *self.lengths.entry(length(&net)).or_insert(0) += 1;
        if !suppress {
            out.push(Visible(net, true));
        } else if !self.is_covered(&net) {
            out.push(Visible(net, true));
            self.outermost_inside(&net, |inner| out.push(Visible(inner, false)));
        }
    }

    /// Takes a contribution back.
    pub(crate) fn remove(&mut self, net: IpNet, suppress: bool, out: &mut Vec<Visible>) {
        let Some(count) = self.counts.get_mut(&net) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.counts.remove(&net);
        let key = length(&net);
        if let Some(n) = self.lengths.get_mut(&key) {
            *n -= 1;
            if *n == 0 {
                self.lengths.remove(&key);
            }
        }
        if !suppress {
            out.push(Visible(net, false));
        } else if !self.is_covered(&net) {
            self.outermost_inside(&net, |inner| out.push(Visible(inner, true)));
            out.push(Visible(net, false));
        }
    }

    /// The visible networks in order.
    pub(crate) fn visible(&self, suppress: bool) -> Vec<IpNet> {
        let mut outer: Option<IpNet> = None;
        let mut nets = Vec::new();
        for net in self.counts.keys() {
            if suppress && outer.is_some_and(|o| o.contains(net)) {
                continue;
            }
            outer = Some(*net);
            nets.push(*net);
        }
        nets
    }

    fn is_covered(&self, net: &IpNet) -> bool {
        let (v6, own) = length(net);
        self.lengths.range((v6, 0)..(v6, own)).any(|((_, shorter), _)| {
            IpNet::new(net.addr(), *shorter).is_ok_and(|outer| self.counts.contains_key(&outer.trunc()))
        })
    }

    /// Calls `visit` with the networks inside `net` that no other one inside `net` covers.
    fn outermost_inside(&self, net: &IpNet, mut visit: impl FnMut(IpNet)) {
        let (v6, own) = length(net);
        if self.lengths.range((v6, own + 1)..=(v6, u8::MAX)).next().is_none() {
            return;
        }
        let last = IpNet::new(net.broadcast(), net.max_prefix_len()).expect("the longest prefix is valid");
        let mut outer: Option<IpNet> = None;
        for inner in self.counts.range(*net..=last).map(|(n, _)| n).filter(|n| *n != net) {
            if outer.is_none_or(|o| !o.contains(inner)) {
                outer = Some(*inner);
                visit(*inner);
            }
        }
    }
}

fn length(net: &IpNet) -> (bool, u8) {
    (matches!(net, IpNet::V6(_)), net.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn covered_networks_come_back_when_their_cover_goes() {
        let mut counts = NetCounts::default();
        let mut out = Vec::new();
        counts.add(net("10.0.1.0/24"), true, &mut out);
        counts.add(net("10.0.1.5/32"), true, &mut out);
        counts.add(net("10.0.0.0/8"), true, &mut out);
        assert_eq!(
            out,
            [
                Visible(net("10.0.1.0/24"), true),
                Visible(net("10.0.0.0/8"), true),
                Visible(net("10.0.1.0/24"), false)
            ]
        );
        out.clear();
        counts.remove(net("10.0.0.0/8"), true, &mut out);
        assert_eq!(out, [Visible(net("10.0.1.0/24"), true), Visible(net("10.0.0.0/8"), false)]);
    }

    /// Any sequence of additions and removals ends with what a look at all networks says.
    #[test]
    fn changes_add_up_to_the_whole() {
        let mut counts = NetCounts::default();
        let mut shown = BTreeSet::new();
        let mut seed = 7_u32;
        let mut present: Vec<IpNet> = Vec::new();
        for _ in 0..4000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut out = Vec::new();
            if seed.is_multiple_of(3) && !present.is_empty() {
                let gone = present.swap_remove((seed >> 8) as usize % present.len());
                counts.remove(gone, true, &mut out);
            } else {
                let bits = 4 + (seed >> 24) % 29;
                let addr = std::net::Ipv4Addr::from(seed & 0xf0f0_0ff0);
                let new = IpNet::new(addr.into(), u8::try_from(bits).expect("small")).expect("valid").trunc();
                present.push(new);
                counts.add(new, true, &mut out);
            }
            for Visible(n, on) in out {
                assert!(if on { shown.insert(n) } else { shown.remove(&n) }, "{n} {on}");
            }
            assert_eq!(shown.iter().copied().collect::<Vec<_>>(), counts.visible(true));
        }
    }
}
