//! Members of ip sets, and looking them up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};
use tortie_api::net::IpVersion;

use super::MachineError;
use crate::compile::classic::{SetChange, SetType};
use crate::graph::model::Member;
use crate::ruleset::SetKey;

/// The kernel's ip sets of both versions, as they become by changes.
#[derive(Clone, Debug, Default)]
pub struct Sets(BTreeMap<String, Set>);

#[derive(Clone, Debug)]
struct Set {
    version: IpVersion,
    holds: SetType,
    members: BTreeSet<Member>,
}

impl Sets {
    /// Takes a change. An update of a set that is not there does nothing.
    pub fn apply(&mut self, change: &SetChange) {
        match change {
            SetChange::Want { name, version, set_type, members } => {
                let members = members.iter().copied().collect();
                self.0.insert(name.clone(), Set { version: *version, holds: *set_type, members });
            }
            SetChange::Update { name, added, removed, .. } => {
                if let Some(set) = self.0.get_mut(name) {
                    removed.iter().for_each(|member| {
                        set.members.remove(member);
                    });
                    set.members.extend(added);
                }
            }
            SetChange::Unwant { name } => {
                self.0.remove(name);
            }
        }
    }

    /// The members of a set in order; none if there is no such set.
    pub fn members(&self, name: &str) -> Option<impl Iterator<Item = &Member>> {
        self.0.get(name).map(|set| set.members.iter())
    }
}

/// A set, made for asking.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Networks by prefix length.
    Nets(Vec<(u32, FxHashSet<u128>)>),
    Ports(FxHashSet<(IpAddr, u8, u16)>),
}

/// The bits of an address, those of IPv4 in front.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The leading bits of an address.
pub(super) fn masked(bits: u128, length: u32) -> u128 {
    bits & u128::MAX.checked_shl(u128::BITS - length).unwrap_or(0)
}

impl Lookup {
    fn new(set: &Set) -> Self {
        let mut by_length: BTreeMap<u32, FxHashSet<u128>> = BTreeMap::new();
        let mut ports = FxHashSet::default();
        for member in &set.members {
            match member {
                Member::Net(net) => {
                    let length = u32::from(net.prefix_len());
                    by_length.entry(length).or_default().insert(masked(bits(net.addr()), length));
                }
                Member::AddressPort(address, protocol, port) => {
                    ports.insert((*address, *protocol, *port));
                }
            }
        }
        match set.holds {
            SetType::Address | SetType::Net => Self::Nets(by_length.into_iter().collect()),
            SetType::AddressPort => Self::Ports(ports),
        }
    }

    pub(super) fn has_address(&self, address: u128) -> bool {
        match self {
            Self::Nets(lengths) => {
                lengths.iter().any(|(length, nets)| nets.contains(&masked(address, *length)))
            }
            Self::Ports(_) => false,
        }
    }

    pub(super) fn has_port(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        match self {
            Self::Nets(_) => false,
            Self::Ports(members) => members.contains(&(address, protocol, port)),
        }
    }
}

/// Numbers the sets that rules refer to.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    version: IpVersion,
    sets: &'a Sets,
    known: FxHashMap<String, usize>,
    lookups: Vec<Lookup>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(version: IpVersion, sets: &'a Sets) -> Self {
        Self { version, sets, known: FxHashMap::default(), lookups: Vec::new() }
    }

    pub(super) const fn version(&self) -> IpVersion {
        self.version
    }

    /// The number of a set.
    pub(super) fn resolve(&mut self, name: &str, key: SetKey) -> Result<usize, MachineError> {
        let set = self.sets.0.get(name).filter(|set| set.version == self.version);
        let set = set.ok_or_else(|| MachineError::NoSet(name.to_owned()))?;
        if (set.holds == SetType::AddressPort) != (key == SetKey::AddressPort) {
            return Err(MachineError::WrongKey(name.to_owned()));
        }
        if let Some(number) = self.known.get(name) {
            return Ok(*number);
        }
        let number = self.lookups.len();
        self.lookups.push(Lookup::new(set));
        self.known.insert(name.to_owned(), number);
        Ok(number)
    }

    pub(super) fn into_lookups(self) -> Vec<Lookup> {
        self.lookups
    }
}
