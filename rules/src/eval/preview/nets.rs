//! The address space of one IP version, cut along the networks that are mentioned somewhere.
//!
//! Networks nest or are disjoint. What a network has beyond the networks inside it is a *cell*: all addresses of
//! a cell are inside the same networks, so one of them speaks for all.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;
use tortie_api::net::IpVersion;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Cells {
    /// The networks, those outside before those inside, in the order of their addresses. The first is all.
    nets: Vec<IpNet>,
    /// The smallest network around each.
    parents: Vec<Option<usize>>,
    by_net: FxHashMap<IpNet, usize>,
    /// The prefix lengths that occur, the longest first.
    lengths: Vec<u8>,
}

impl Cells {
    /// The cells of these networks; those of the other version are left out.
    pub(super) fn new(version: IpVersion, mentioned: impl IntoIterator<Item = IpNet>) -> Self {
        let mut nets: Vec<IpNet> = mentioned
            .into_iter()
            .filter(|net| IpVersion::of(net) == version)
            .map(|net| net.trunc())
            .collect();
        nets.push(match version {
            IpVersion::V4 => IpNet::V4(Ipv4Net::default()),
            IpVersion::V6 => IpNet::V6(Ipv6Net::default()),
        });
        nets.sort_by_key(|net| (net.network(), net.prefix_len()));
        nets.dedup();
        let mut parents = Vec::with_capacity(nets.len());
        let mut around: Vec<usize> = Vec::new();
        for net in &nets {
            while around.last().is_some_and(|at| !nets[*at].contains(net)) {
                around.pop();
            }
            parents.push(around.last().copied());
            around.push(parents.len() - 1);
        }
        let by_net = nets.iter().enumerate().map(|(at, net)| (*net, at)).collect();
        let lengths: BTreeSet<u8> = nets.iter().map(IpNet::prefix_len).collect();
        Self { nets, parents, by_net, lengths: lengths.into_iter().rev().collect() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.nets.len()
    }

    /// The network that a cell is a part of.
    pub(super) fn net(&self, cell: usize) -> IpNet {
        self.nets[cell]
    }

    /// The cell around it; those come first.
    pub(super) fn parent(&self, cell: usize) -> Option<usize> {
        self.parents[cell]
    }

    /// The cell of exactly this network.
    pub(super) fn of_net(&self, net: &IpNet) -> Option<usize> {
        self.by_net.get(&net.trunc()).copied()
    }

    /// The cell of an address.
    pub(super) fn of_address(&self, address: IpAddr) -> usize {
        let find = |length: &u8| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            self.by_net.get(&net).copied()
        };
        self.lengths.iter().find_map(find).unwrap_or_default()
    }

    /// For each cell one of its addresses that is not taken; `None` if there is none.
    pub(super) fn free_addresses(&self, taken: &BTreeSet<IpAddr>) -> Vec<Option<IpAddr>> {
        let mut children = vec![Vec::new(); self.len()];
        for (cell, parent) in self.parents.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent].push(cell);
            }
        }
        (0..self.len()).map(|cell| self.free_address(cell, &children[cell], taken)).collect()
    }

    fn free_address(&self, cell: usize, inside: &[usize], taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let last = number(self.nets[cell].broadcast());
        let mut next = Some(number(self.nets[cell].network()));
        // Before each inner network there may be a gap, and after the last one.
        for inner in inside.iter().map(|at| Some(self.nets[*at])).chain([None]) {
            let end = match inner {
                Some(net) => number(net.network()).checked_sub(1),
                None => Some(last),
            };
            while let (Some(at), Some(end)) = (next, end)
                && at <= end
            {
                let address = self.address(at);
                if !taken.contains(&address) {
                    return Some(address);
                }
                next = at.checked_add(1);
            }
            if let Some(net) = inner {
                next = number(net.broadcast()).checked_add(1);
            }
        }
        None
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.nets[0] {
            // Numbers of IPv4 come from `number`, so they fit.
            IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
            IpNet::V6(_) => IpAddr::V6(number.into()),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_each_cell_is_found_and_is_in_that_cell() {
        let nets =
            ["10.0.0.0/30", "10.0.0.0/31", "10.0.0.2/32", "10.0.0.0/8", "255.255.255.255/32", "fd00::/8"];
        let cells = Cells::new(IpVersion::V4, nets.map(|net| net.parse().unwrap()));
        assert_eq!(cells.len(), 6);
        let taken = BTreeSet::from(["10.0.0.0".parse().unwrap(), "0.0.0.0".parse().unwrap()]);
        let free = cells.free_addresses(&taken);
        let told: Vec<_> = (0..cells.len())
            .map(|cell| format!("{} {}", cells.net(cell), free[cell].map_or("-".into(), |a| a.to_string())))
            .collect();
        assert_eq!(
            told,
            [
                "0.0.0.0/0 0.0.0.1",
                "10.0.0.0/8 10.0.0.4",
                "10.0.0.0/30 10.0.0.3",
                "10.0.0.0/31 10.0.0.1",
                "10.0.0.2/32 10.0.0.2",
                "255.255.255.255/32 255.255.255.255",
            ]
        );
        for (cell, address) in free.iter().enumerate() {
            assert_eq!(cells.of_address(address.unwrap()), cell);
        }
        let full = BTreeSet::from(["10.0.0.2".parse().unwrap()]);
        assert_eq!(cells.free_addresses(&full)[4], None);
    }
}
