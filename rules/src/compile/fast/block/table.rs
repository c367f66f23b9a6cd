//! The chain and the maps of a block, made and kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::stretches::{Stretch, networks};
use super::{Block, Class, Known, Limits, Present, TooComplex};
use crate::compile::chains::Chains;
use crate::compile::fast::members::{Members, SetMembers, Touched};
use crate::compile::fast::own::{Own, own};
use crate::compile::fast::row_chain::{action, has_map, look_up};
use crate::compile::fast::step::{address, last_address};
use crate::ruleset::{Action, Chain, Key, KeyField, MapType, Match, Rule, Verdict};

/// Networks that are asked one by one rather than looked up.
const FEW_NETWORKS: usize = 4;

/// Classes to be remembered. Those that come and go with members leave their mark.
const KNOWN: usize = 65_536;

/// How networks are asked for.
struct Layout {
    /// As rules, all of them.
    rules: Vec<(u128, u128, Verdict)>,
    /// Single addresses that become elements.
    singles: BTreeSet<u128>,
    /// As ranges of an interval map.
    ranges: Vec<(u128, u128, Verdict)>,
}

impl Block {
    /// The names of the maps of a block: cells of single addresses, single addresses, ranges of addresses.
    pub(in crate::compile::fast) fn maps_of(name: &str) -> [String; 3] {
        ["c", "h", "n"].map(|suffix| format!("{name}-{suffix}"))
    }

    /// Makes chain and maps from nothing.
    pub(super) fn make_tables(&mut self, members: &Members, chains: &mut Chains) -> Result<(), TooComplex> {
        (self.work, self.default) = (0, None);
        (self.cells, self.mapped) = (0, 0);
        self.rows.clear();
        self.forget_known();
        self.cut(members)?;
        let layout = self.evaluate_stretches(chains)?;
        let mut hosts = layout.singles.clone();
        for set in self.atoms().filter_map(|number| members.get(number)) {
            hosts.extend(set.hosts());
        }
        if hosts.len() > self.limits.elements {
            return Err(TooComplex);
        }
        let mut elements = [BTreeMap::new(), BTreeMap::new()];
        for host in hosts {
            let own = self.own_of(host, members, chains)?;
            elements[0].extend(self.cells(host, &own));
            elements[1]
                .extend(own.otherwise.clone().map(|verdict| (Key::Address(self.address(host)), verdict)));
        }
        self.is_own_complete = true;
        if elements[0].len().max(elements[1].len()) > self.limits.elements {
            return Err(TooComplex);
        }
        self.want_maps(chains);
        for (map, elements) in Self::maps_of(&self.name).iter().zip(elements) {
            chains.set_elements(map, elements);
        }
        self.program(layout, chains);
        Ok(())
    }

    /// The maps of single addresses, which may stay empty and out of use.
    fn want_maps(&self, chains: &mut Chains) {
        let [cells, hosts, _] = Self::maps_of(&self.name);
        chains.want_map(&cells, MapType::AddressProtocolPort);
        chains.want_map(&hosts, MapType::Address);
    }

    /// Takes a change of members. What cannot be told from these is made anew.
    pub(in crate::compile::fast) fn touch(
        &mut self,
        touched: &Touched,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<(), TooComplex> {
        self.work = 0;
        if self.known.len() > KNOWN {
            self.forget_known();
        }
        let mut layout = None;
        let mut hosts: BTreeSet<u128> = touched.hosts.iter().copied().collect();
        if !touched.ranges.is_empty() {
            let default = self.default.as_ref().map(|known| known.verdict.clone());
            let before: BTreeSet<u128> = singles(&self.stretches).collect();
            self.cut(members)?;
            self.forget_known();
            layout = Some(self.evaluate_stretches(chains)?);
            if self.default.as_ref().map(|known| &known.verdict) != default.as_ref() {
                return self.make_tables(members, chains);
            }
            hosts.extend(before);
            hosts.extend(singles(&self.stretches));
            for (first, last) in &touched.ranges {
                let is_ours = |host: &u128| members.sets_of(*host).iter().any(|set| self.asks_for(*set));
                hosts.extend(members.hosts_in(*first, *last).filter(is_ours));
            }
        }
        self.update(hosts, layout, members, chains)
    }

    /// Takes a change of rules for any address: what networks are told, and the elements of those that differ from
    /// their surroundings in something else than before.
    pub(super) fn touch_everybody(
        &mut self,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<(), TooComplex> {
        if !self.is_own_complete {
            return self.make_tables(members, chains);
        }
        let before = std::mem::take(&mut self.own);
        (self.work, self.cells, self.mapped) = (0, 0, 0);
        self.rows.clear();
        self.known.clear();
        let layout = self.evaluate_stretches(chains)?;
        let mut hosts: BTreeSet<u128> = singles(&self.stretches).collect();
        for ((stretch, present), old) in before {
            if *self.own_of_class(stretch, present.clone(), chains)? != *old {
                let Stretch { first, last, .. } = self.stretches[stretch];
                let all = present.iter().filter_map(|set| members.get(*set)).flat_map(SetMembers::hosts);
                hosts.extend(all.filter(|host| (first..=last).contains(*host)));
            }
        }
        self.update(hosts, Some(layout), members, chains)
    }

    /// Brings the elements of some addresses up to date.
    fn update(
        &mut self,
        hosts: BTreeSet<u128>,
        layout: Option<Layout>,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<(), TooComplex> {
        self.want_maps(chains);
        let [cells, map, _] = Self::maps_of(&self.name);
        for host in hosts {
            let own = self.own_of(host, members, chains)?;
            let new: BTreeMap<Key, Verdict> = self.cells(host, &own).collect();
            let of_address = self.address(host);
            let first = Key::AddressProtocolPort(of_address, 0, 0);
            let last = Key::AddressProtocolPort(of_address, u8::MAX, u16::MAX);
            for key in chains.keys_in(&cells, first, last) {
                if !new.contains_key(&key) {
                    chains.set_element(&cells, key, None);
                }
            }
            for (key, verdict) in new {
                chains.set_element(&cells, key, Some(verdict));
            }
            chains.set_element(&map, Key::Address(of_address), own.otherwise.clone());
        }
        // With its first element a map comes into use, and with its last it goes out of it.
        if layout.is_some() || self.in_use != self.filled(chains) {
            let layout = layout.unwrap_or_else(|| self.lay_out());
            self.program(layout, chains);
        }
        let elements = chains.map_len(&map).max(chains.map_len(&cells));
        for (map, is_used) in [cells, map].iter().zip(self.in_use) {
            if !is_used {
                chains.remove_map(map);
            }
        }
        if elements > self.limits.elements { Err(TooComplex) } else { Ok(()) }
    }

    pub(super) fn forget_known(&mut self) {
        self.known.clear();
        self.own.clear();
        self.is_own_complete = false;
    }

    /// Whether the maps of single addresses have elements.
    fn filled(&self, chains: &Chains) -> [bool; 2] {
        let [cells, hosts, _] = Self::maps_of(&self.name);
        [cells, hosts].map(|map| chains.map_len(&map) > 0)
    }

    /// What elements of an address tell it.
    fn own_of(&mut self, host: u128, members: &Members, chains: &mut Chains) -> Result<Arc<Own>, TooComplex> {
        let stretch = self.stretch_of(host);
        let present = self.present(&self.stretches[stretch], members, host);
        self.own_of_class(stretch, present, chains)
    }

    fn own_of_class(
        &mut self,
        stretch: usize,
        present: Present,
        chains: &mut Chains,
    ) -> Result<Arc<Own>, TooComplex> {
        let key = (stretch, present);
        let known = self.known_of(stretch, key.1.clone(), chains)?;
        let told = match self.own.get(&key) {
            Some(own) => own.clone(),
            None => {
                let row = || Own { cells: Vec::new(), otherwise: Some(known.verdict.clone()) };
                let told = self.surroundings(self.stretches[stretch].first);
                let told = told.and_then(|around| own(&known.verdicts, &around.verdicts)).unwrap_or_else(row);
                let told = Arc::new(told);
                self.own.insert(key, told.clone());
                told
            }
        };
        self.ensure(told.otherwise.as_ref(), &known, chains);
        Ok(told)
    }

    /// What an address is told that has no element of its own.
    fn surroundings(&self, address: u128) -> Option<&Known> {
        let at = self.emitted.partition_point(|(first, ..)| *first <= address);
        let emitted = at.checked_sub(1).map(|at| &self.emitted[at]).filter(|(_, last, _)| *last >= address);
        emitted.map(|(.., known)| known).or(self.default.as_ref())
    }

    fn cells<'a>(&self, host: u128, own: &'a Own) -> impl Iterator<Item = (Key, Verdict)> + use<'a> {
        let address = self.address(host);
        own.cells.iter().map(move |(protocol, port, verdict)| {
            (Key::AddressProtocolPort(address, *protocol, *port), verdict.clone())
        })
    }

    /// Puts the chains of a class in place again, where nobody has referred to them meanwhile.
    fn ensure(&self, verdict: Option<&Verdict>, known: &Known, chains: &mut Chains) {
        if verdict.and_then(Verdict::target).is_some_and(|chain| !chains.has(chain)) {
            let row = self.palette.verdicts(&known.row, &self.spec.logs, chains);
            self.palette.row_verdict(&row, chains);
        }
    }

    /// What a class is told. Its chains may have been forgotten again, unless it is new.
    fn known_of(
        &mut self,
        stretch: usize,
        present: Present,
        chains: &mut Chains,
    ) -> Result<Known, TooComplex> {
        self.work += 1;
        let key = (stretch, present);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let row = self.row(stretch, &key.1)?;
        let verdicts = self.palette.verdicts(&row, &self.spec.logs, chains);
        let verdict = self.palette.row_verdict(&verdicts, chains);
        if self.rows.insert(verdict.clone()) {
            self.cells += row.cells();
            self.mapped += usize::from(has_map(&row));
        }
        let Limits { rows, cells, maps, .. } = self.limits;
        if self.rows.len() > rows || self.cells > cells || self.mapped > maps {
            return Err(TooComplex);
        }
        let known = Arc::new(Class { row, verdicts, verdict });
        self.known.insert(key, known.clone());
        Ok(known)
    }

    /// What stretches are told, and how that is asked for. Most addresses are told the default.
    fn evaluate_stretches(&mut self, chains: &mut Chains) -> Result<Layout, TooComplex> {
        let mut of_stretches = Vec::with_capacity(self.stretches.len());
        let mut coverage: BTreeMap<Verdict, (u128, usize)> = BTreeMap::new();
        for place in 0..self.stretches.len() {
            let stretch = &self.stretches[place];
            let (size, present) = (stretch.last - stretch.first, Present::from_slice(&stretch.sets));
            let known = self.known_of(place, present, chains)?;
            let covered = coverage.entry(known.verdict.clone()).or_insert((0, place));
            covered.0 = covered.0.saturating_add(size.saturating_add(1));
            self.ensure(Some(&known.verdict), &known, chains);
            of_stretches.push(known);
        }
        let widest = coverage.into_values().max_by_key(|(size, place)| (*size, std::cmp::Reverse(*place)));
        self.default = widest.map(|(_, place)| of_stretches[place].clone());
        self.of_stretches = of_stretches;
        Ok(self.lay_out())
    }

    /// Neighbours that are told the same are one range; those that are told the default are none.
    fn lay_out(&mut self) -> Layout {
        let default = self.default.as_ref().map(|known| &known.verdict);
        let mut ranges: Vec<(u128, u128, Known)> = Vec::new();
        for (stretch, known) in self.stretches.iter().zip(&self.of_stretches) {
            if default == Some(&known.verdict) {
                continue;
            }
            match ranges.last_mut() {
                Some((_, last, of)) if of.verdict == known.verdict && *last + 1 == stretch.first => {
                    *last = stretch.last;
                }
                _ => ranges.push((stretch.first, stretch.last, known.clone())),
            }
        }
        let width = self.width();
        let count = |ranges: &[(u128, u128, Known)]| -> usize {
            ranges.iter().take(FEW_NETWORKS + 1).map(|(a, b, _)| networks(*a, *b, width).len()).sum()
        };
        let mut singles = BTreeSet::new();
        if count(&ranges) > FEW_NETWORKS {
            singles =
                ranges.iter().filter(|(first, last, _)| first == last).map(|(host, ..)| *host).collect();
            ranges.retain(|(first, last, _)| first != last);
        }
        let emitted =
            ranges.iter().map(|(first, last, known)| (*first, *last, known.verdict.clone())).collect();
        let are_few = count(&ranges) <= FEW_NETWORKS;
        self.emitted = ranges;
        if are_few {
            Layout { rules: emitted, singles, ranges: Vec::new() }
        } else {
            Layout { rules: Vec::new(), singles, ranges: emitted }
        }
    }

    fn width(&self) -> u32 {
        last_address(self.version).count_ones()
    }

    /// Puts the chain in place, and the map of ranges. Those of single addresses have their elements.
    fn program(&mut self, layout: Layout, chains: &mut Chains) {
        let key = || vec![KeyField::Address(self.side)];
        let [cells, hosts, nets] = Self::maps_of(&self.name);
        let mut rules = vec![self.palette.start().comment(self.spec.title.clone())];
        self.in_use = self.filled(chains);
        if self.in_use[0] {
            let cell = vec![KeyField::Address(self.side), KeyField::Protocol, KeyField::DestinationPort];
            rules.push(look_up(Vec::new(), cell, &cells));
        }
        if self.in_use[1] {
            rules.push(look_up(Vec::new(), key(), &hosts));
        }
        for (first, last, verdict) in layout.rules {
            for (network, size) in networks(first, last, self.width()) {
                rules.push(Rule::when(self.within(network, size), action(&verdict)));
            }
        }
        if !layout.ranges.is_empty() {
            chains.want_map(&nets, MapType::AddressRange);
            let range = |(first, last, verdict)| {
                (Key::AddressRange(self.address(first), self.address(last)), verdict)
            };
            chains.set_elements(&nets, layout.ranges.into_iter().map(range).collect());
            rules.push(look_up(Vec::new(), key(), &nets));
        }
        let rest = self.default.as_ref().map_or(Action::Drop, |known| action(&known.verdict));
        rules.push(Rule::always(rest));
        let uses = |map: &String| rules.iter().any(|rule| looks_into(rule, map));
        let unused: Vec<String> = Self::maps_of(&self.name).into_iter().filter(|map| !uses(map)).collect();
        chains.set(Chain { name: self.name.clone(), rules });
        unused.iter().for_each(|map| chains.remove_map(map));
    }

    fn address(&self, bits: u128) -> IpAddr {
        address(self.version, bits)
    }

    fn within(&self, network: u128, size: u32) -> Vec<Match> {
        let length = u8::try_from(self.width() - size).unwrap_or(u8::MAX);
        let net = IpNet::new(self.address(network), length).ok();
        net.filter(|net| net.prefix_len() > 0)
            .map(|net| Match::Net { side: self.side, net, negate: false })
            .into_iter()
            .collect()
    }
}

/// Stretches of a single address, as these.
fn singles(stretches: &[Stretch]) -> impl Iterator<Item = u128> {
    stretches.iter().filter(|stretch| stretch.first == stretch.last).map(|stretch| stretch.first)
}

fn looks_into(rule: &Rule, name: &str) -> bool {
    matches!(&rule.action, Some(Action::Lookup { map, .. }) if map == name)
}
