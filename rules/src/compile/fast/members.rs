//! Who is in which set, of one IP version, and the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tortie_api::net::IpVersion;

use super::step::{address, bits, range_of};
use crate::compile::classic::SetType;
use crate::graph::model::{Member, SetId};

/// A set by number. Numbers are not used again.
pub(super) type SetNumber = u32;

/// The members of one set.
#[derive(Debug)]
pub(super) struct SetMembers {
    pub(super) holds: SetType,
    /// Single addresses.
    hosts: BTreeSet<u128>,
    /// Larger networks.
    nets: BTreeSet<IpNet>,
    ports: BTreeSet<(IpAddr, u8, u16)>,
}

/// What a change of members touched.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) hosts: Vec<u128>,
    /// First and last address of networks.
    pub(super) ranges: Vec<(u128, u128)>,
}

impl Touched {
    pub(super) fn extend(&mut self, other: Self) {
        self.hosts.extend(other.hosts);
        self.ranges.extend(other.ranges);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.ranges.is_empty()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Members {
    version: IpVersion,
    numbers: FxHashMap<SetId, SetNumber>,
    sets: BTreeMap<SetNumber, SetMembers>,
    next: SetNumber,
    by_host: BTreeMap<u128, SmallVec<[SetNumber; 4]>>,
}

impl Members {
    pub(super) fn new(version: IpVersion) -> Self {
        Self {
            version,
            numbers: FxHashMap::default(),
            sets: BTreeMap::new(),
            next: 0,
            by_host: BTreeMap::new(),
        }
    }

    /// Adds a set without members. One that is there loses its members.
    pub(super) fn add(&mut self, id: &SetId, holds: SetType) -> SetNumber {
        self.remove(id);
        let number = self.next;
        self.next += 1;
        self.numbers.insert(id.clone(), number);
        let (hosts, nets, ports) = Default::default();
        self.sets.insert(number, SetMembers { holds, hosts, nets, ports });
        number
    }

    /// Removes a set. Returns its members.
    pub(super) fn remove(&mut self, id: &SetId) -> Option<(SetNumber, Touched)> {
        let number = self.numbers.remove(id)?;
        let set = self.sets.remove(&number)?;
        for host in &set.hosts {
            self.forget(*host, number);
        }
        let ranges = set.ranges().collect();
        Some((number, Touched { hosts: set.hosts.into_iter().collect(), ranges }))
    }

    pub(super) fn number(&self, id: &SetId) -> Option<SetNumber> {
        self.numbers.get(id).copied()
    }

    pub(super) fn get(&self, number: SetNumber) -> Option<&SetMembers> {
        self.sets.get(&number)
    }

    /// Takes members in and out. Those of the other IP version are not for here.
    pub(super) fn change(&mut self, number: SetNumber, added: &[Member], removed: &[Member]) -> Touched {
        let mut touched = Touched::default();
        for (members, is_added) in [(removed, false), (added, true)] {
            let version = self.version;
            for member in members.iter().filter(|member| member.version() == version) {
                self.change_one(number, member, is_added, &mut touched);
            }
        }
        touched
    }

    fn change_one(&mut self, number: SetNumber, member: &Member, is_added: bool, touched: &mut Touched) {
        let Some(set) = self.sets.get_mut(&number) else { return };
        match member {
            Member::Net(net) if net.prefix_len() == net.max_prefix_len() => {
                let host = bits(net.addr());
                let is_changed = if is_added { set.hosts.insert(host) } else { set.hosts.remove(&host) };
                if is_changed && is_added {
                    self.by_host.entry(host).or_default().push(number);
                } else if is_changed {
                    self.forget(host, number);
                }
                touched.hosts.extend(is_changed.then_some(host));
            }
            Member::Net(net) => {
                let net = net.trunc();
                let is_changed = if is_added { set.nets.insert(net) } else { set.nets.remove(&net) };
                touched.ranges.extend(is_changed.then(|| range_of(&net)));
            }
            Member::AddressPort(address, protocol, port) => {
                let member = (*address, *protocol, *port);
                if is_added {
                    set.ports.insert(member);
                } else {
                    set.ports.remove(&member);
                }
            }
        }
    }

    fn forget(&mut self, host: u128, number: SetNumber) {
        if let Some(sets) = self.by_host.get_mut(&host) {
            sets.retain(|of| *of != number);
            if sets.is_empty() {
                self.by_host.remove(&host);
            }
        }
    }

    /// The sets that hold a single address as such.
    pub(super) fn sets_of(&self, host: u128) -> &[SetNumber] {
        self.by_host.get(&host).map_or(&[], |sets| sets)
    }

    /// Single addresses of any set in a range.
    pub(super) fn hosts_in(&self, first: u128, last: u128) -> impl Iterator<Item = u128> {
        self.by_host.range(first..=last).map(|(host, _)| *host)
    }
}

impl SetMembers {
    pub(super) const fn hosts(&self) -> &BTreeSet<u128> {
        &self.hosts
    }

    /// First and last address of each larger network.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u128, u128)> {
        self.nets.iter().map(range_of)
    }

    /// All of them, as a set of the kernel has them.
    pub(super) fn all(&self, version: IpVersion) -> Vec<Member> {
        let hosts = self.hosts.iter().map(|host| Member::Net(address(version, *host).into()));
        let mut all: Vec<Member> = hosts.collect();
        if self.holds != SetType::Address {
            all.extend(self.nets.iter().map(|net| Member::Net(*net)));
        }
        all.extend(
            self.ports
                .iter()
                .map(|(address, protocol, port)| Member::AddressPort(*address, *protocol, *port)),
        );
        all.sort_unstable();
        all
    }
}
