//! Which networks of a collection stand on their own, and which lie inside another one.
//!
//! nftables' interval sets refuse overlaps, so covered networks are left out where they are in use.

use std::net::Ipv4Addr;
use std::ops::Bound;

use ipnet::{IpNet, Ipv4Net};

use super::counted::Counted;

/// How many times each network was contributed.
///
/// Networks are ordered by address, then prefix length: what lies inside a network follows it.
#[derive(Debug, Default)]
pub(crate) struct NetCounts {
    /// Single IPv4 addresses, as almost all members are.
    hosts: Counted<u32>,
    others: Counted<IpNet>,
    /// How many networks of `others` there are of each prefix length, IPv4 then IPv6.
    lengths: Vec<(Length, u32)>,
}

/// Whether it is IPv6, and how long.
type Length = (bool, u8);

/// The prefix of a single IPv4 address.
const HOST: Length = (false, 32);

/// A network that became visible or ceased to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visible(pub(crate) IpNet, pub(crate) bool);

impl NetCounts {
    /// Counts a contribution or takes it back, where nobody looks yet. Whether it was the first or the last.
    pub(crate) fn count(&mut self, net: IpNet, on: bool) -> bool {
        match (host(&net), on) {
            (Some(host), true) => self.hosts.add(host),
            (Some(host), false) => self.hosts.remove(host),
            (None, true) => self.others.add(net) && self.count_length(&net, true),
            (None, false) => self.others.remove(net) && self.count_length(&net, false),
        }
    }

    /// Counts a contribution. With `suppress`, covered networks are not visible.
    pub(crate) fn add(&mut self, net: IpNet, suppress: bool, out: &mut Vec<Visible>) {
        if !self.count(net, true) {
            return;
        }
        if !suppress {
            out.push(Visible(net, true));
        } else if !self.is_covered(&net) {
            out.push(Visible(net, true));
            self.outermost_inside(&net, |inner| out.push(Visible(inner, false)));
        }
    }

    /// Takes a contribution back.
    pub(crate) fn remove(&mut self, net: IpNet, suppress: bool, out: &mut Vec<Visible>) {
        if !self.count(net, false) {
            return;
        }
        if !suppress {
            out.push(Visible(net, false));
        } else if !self.is_covered(&net) {
            self.outermost_inside(&net, |inner| out.push(Visible(inner, true)));
            out.push(Visible(net, false));
        }
    }

    /// The visible networks in order.
    pub(crate) fn visible(&self, suppress: bool) -> impl Iterator<Item = IpNet> + '_ {
        let mut outer: Option<IpNet> = None;
        let may_cover = suppress && !self.lengths.is_empty();
        self.from(Bound::Unbounded).filter(move |net| {
            if may_cover && outer.is_some_and(|o| o.contains(net)) {
                return false;
            }
            outer = Some(*net);
            true
        })
    }

    /// The single addresses, if there is nothing else: then they are all visible.
    pub(crate) fn only_hosts(&self) -> Option<impl Iterator<Item = IpNet> + '_> {
        let net = |host| IpNet::V4(Ipv4Net::from(Ipv4Addr::from(host)));
        self.lengths.is_empty().then(|| self.hosts.values().iter().map(net))
    }

    /// At least how many networks are visible if none is covered.
    pub(crate) fn len(&self) -> usize {
        self.hosts.values().len() + self.others.values().len()
    }

    /// Gives back memory that is not used.
    pub(crate) fn shrink(&mut self) {
        self.hosts.shrink();
        self.others.shrink();
        self.lengths.shrink_to_fit();
    }

    /// Always true, for the sake of the caller's condition.
    fn count_length(&mut self, net: &IpNet, on: bool) -> bool {
        let length = length(net);
        match self.lengths.binary_search_by_key(&length, |(length, _)| *length) {
            Ok(at) if on => self.lengths[at].1 += 1,
            Ok(at) if self.lengths[at].1 == 1 => {
                self.lengths.remove(at);
            }
            Ok(at) => self.lengths[at].1 -= 1,
            Err(at) => self.lengths.insert(at, (length, 1)),
        }
        true
    }

    /// Single addresses and networks, merged.
    fn from(&self, start: Bound<IpNet>) -> impl Iterator<Item = IpNet> + '_ {
        let first_host = match start {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Excluded(IpNet::V4(net)) if net.prefix_len() == HOST.1 => {
                Bound::Excluded(u32::from(net.addr()))
            }
            // A network comes before the addresses inside it.
            Bound::Included(IpNet::V4(net)) | Bound::Excluded(IpNet::V4(net)) => {
                Bound::Included(u32::from(net.addr()))
            }
            Bound::Included(IpNet::V6(_)) | Bound::Excluded(IpNet::V6(_)) => Bound::Excluded(u32::MAX),
        };
        let hosts =
            self.hosts.values().from(first_host).map(|host| IpNet::V4(Ipv4Net::from(Ipv4Addr::from(host))));
        let (mut hosts, mut others) = (hosts.peekable(), self.others.values().from(start).peekable());
        std::iter::from_fn(move || match (hosts.peek(), others.peek()) {
            (Some(host), Some(other)) if host < other => hosts.next(),
            (Some(_), None) => hosts.next(),
            _ => others.next(),
        })
    }

    fn is_covered(&self, net: &IpNet) -> bool {
        let (v6, own) = length(net);
        let shorter = self.lengths.iter().filter(|((six, length), _)| *six == v6 && *length < own);
        shorter.map(|((_, length), _)| *length).any(|length| {
            IpNet::new(net.addr(), length).is_ok_and(|outer| self.others.values().contains(outer.trunc()))
        })
    }

    /// Calls `visit` with the networks inside `net` that no other one inside `net` covers.
    fn outermost_inside(&self, net: &IpNet, mut visit: impl FnMut(IpNet)) {
        let (v6, own) = length(net);
        let has_hosts = !v6 && own < HOST.1 && self.hosts.values().len() > 0;
        if !has_hosts && !self.lengths.iter().any(|((six, length), _)| *six == v6 && *length > own) {
            return;
        }
        let last = IpNet::new(net.broadcast(), net.max_prefix_len()).expect("the longest prefix is valid");
        let mut outer: Option<IpNet> = None;
        for inner in self.from(Bound::Excluded(*net)).take_while(|inner| *inner <= last) {
            if outer.is_none_or(|o| !o.contains(&inner)) {
                outer = Some(inner);
                visit(inner);
            }
        }
    }
}

/// The address, of a network of one IPv4 address.
pub(crate) fn host(net: &IpNet) -> Option<u32> {
    match net {
        IpNet::V4(net) if net.prefix_len() == 32 => Some(net.addr().into()),
        _ => None,
    }
}

fn length(net: &IpNet) -> Length {
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
            assert_eq!(shown.iter().copied().collect::<Vec<_>>(), counts.visible(true).collect::<Vec<_>>());
        }
    }
}
