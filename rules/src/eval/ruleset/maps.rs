//! Verdict maps, made for asking.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use tortie_api::net::IpVersion;

use super::MachineError;
use super::sets::bits;
use crate::ruleset::{Key, Map, MapType, Verdict};

/// Protocols whose headers begin with ports.
pub(super) const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Where an element leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Accept,
    Drop,
    Return,
    Jump(usize),
    Goto(usize),
}

/// A map.
#[derive(Debug)]
pub(super) struct MapCode {
    exact: FxHashMap<Key, Target>,
    /// First and last, in order.
    ranges: Vec<(u128, u128, Target)>,
}

impl MapCode {
    /// Resolves the chains of a map, after a look at whether the kernel would take it.
    pub(super) fn new(
        map: &Map,
        version: IpVersion,
        chains: &BTreeMap<&str, usize>,
    ) -> Result<Self, MachineError> {
        let refuse = |reason| MachineError::Map { map: map.name.clone(), reason };
        let mut code = Self { exact: FxHashMap::default(), ranges: Vec::new() };
        for (key, verdict) in &map.elements {
            check(key, map.holds, version).map_err(refuse)?;
            let target = resolve(verdict, chains)?;
            if map.all.as_ref().is_some_and(|all| all != verdict) {
                return Err(refuse("an element says something else than all"));
            }
            match key {
                Key::AddressRange(first, last) => code.ranges.push((bits(*first), bits(*last), target)),
                Key::PortRange(ports) => {
                    code.ranges.push((ports.first().into(), ports.last().into(), target));
                }
                _ => {
                    code.exact.insert(key.clone(), target);
                }
            }
        }
        code.ranges.sort_unstable_by_key(|(first, ..)| *first);
        if code.ranges.windows(2).any(|pair| pair[0].1 >= pair[1].0) {
            return Err(refuse("ranges overlap"));
        }
        Ok(code)
    }

    pub(super) fn exact(&self, key: &Key) -> Option<Target> {
        self.exact.get(key).copied()
    }

    pub(super) fn range(&self, value: u128) -> Option<Target> {
        let at = self.ranges.partition_point(|(first, ..)| *first <= value).checked_sub(1)?;
        let (_, last, target) = self.ranges[at];
        (value <= last).then_some(target)
    }
}

fn check(key: &Key, holds: MapType, version: IpVersion) -> Result<(), &'static str> {
    if key.map_type() != holds {
        return Err("an element is of another type than the map");
    }
    match key {
        Key::Address(address) | Key::AddressRange(address, _) | Key::AddressProtocolPort(address, ..)
            if IpVersion::of_addr(address) != version =>
        {
            Err("an address is of the other IP version")
        }
        Key::AddressRange(first, last) if IpVersion::of_addr(last) != version || first > last => {
            Err("a range of addresses is upside down")
        }
        // In other protocols something else stands where these have the port.
        Key::ProtocolPort(protocol, _) | Key::AddressProtocolPort(_, protocol, _)
            if !WITH_PORTS.contains(protocol) =>
        {
            Err("a port needs a protocol that has ports")
        }
        _ => Ok(()),
    }
}

fn resolve(verdict: &Verdict, chains: &BTreeMap<&str, usize>) -> Result<Target, MachineError> {
    let chain = |name: &str| chains.get(name).copied().ok_or_else(|| MachineError::NoChain(name.to_owned()));
    Ok(match verdict {
        Verdict::Accept => Target::Accept,
        Verdict::Drop => Target::Drop,
        Verdict::Return => Target::Return,
        Verdict::Jump(name) => Target::Jump(chain(name)?),
        Verdict::Goto(name) => Target::Goto(chain(name)?),
    })
}
