//! The chain and the maps of a block, made and kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::stretches::{Stretch, networks};
use super::{Block, Known, Limits, Present, TooComplex};
use crate::compile::chains::Chains;
use crate::compile::fast::members::{Members, Touched};
use crate::compile::fast::row_chain::{action, has_map, look_up};
use crate::compile::fast::step::{address, last_address};
use crate::ruleset::{Action, Chain, Key, KeyField, MapType, Match, Rule, Verdict};

/// Networks that are asked one by one rather than looked up.
const FEW_NETWORKS: usize = 4;

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
    /// The names of the maps of a block: single addresses, ranges of addresses.
    pub(in crate::compile::fast) fn maps_of(name: &str) -> [String; 2] {
        ["h", "n"].map(|suffix| format!("{name}-{suffix}"))
    }

    /// Makes chain and maps from nothing.
    pub(super) fn make_tables(&mut self, members: &Members, chains: &mut Chains) -> Result<(), TooComplex> {
        (self.work, self.default) = (0, None);
        (self.cells, self.mapped) = (0, 0);
        self.rows.clear();
        self.known.clear();
        self.cut(members)?;
        let singles = self.evaluate_stretches(chains)?;
        let mut hosts = singles.singles.clone();
        for set in self.atoms().filter_map(|number| members.get(number)) {
            hosts.extend(set.hosts());
        }
        if hosts.len() > self.limits.elements {
            return Err(TooComplex);
        }
        let mut elements = BTreeMap::new();
        for host in hosts {
            let (key, verdict) = self.element(host, members, chains)?;
            elements.extend(verdict.map(|verdict| (key, verdict)));
        }
        self.program(singles, Some(elements), chains);
        Ok(())
    }

    /// Takes a change of members. What cannot be told from these is made anew.
    pub(in crate::compile::fast) fn touch(
        &mut self,
        touched: &Touched,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<(), TooComplex> {
        self.work = 0;
        let mut hosts: BTreeSet<u128> = touched.hosts.iter().copied().collect();
        if !touched.ranges.is_empty() {
            let default = self.default.as_ref().map(|known| known.1.clone());
            let before: BTreeSet<u128> = singles(&self.stretches).collect();
            self.cut(members)?;
            self.known.clear();
            let layout = self.evaluate_stretches(chains)?;
            if self.default.as_ref().map(|known| &known.1) != default.as_ref() {
                return self.make_tables(members, chains);
            }
            hosts.extend(before);
            hosts.extend(singles(&self.stretches));
            for (first, last) in &touched.ranges {
                let is_ours = |host: &u128| members.sets_of(*host).iter().any(|set| self.asks_for(*set));
                hosts.extend(members.hosts_in(*first, *last).filter(is_ours));
            }
            self.program(layout, None, chains);
        }
        let [map, _] = Self::maps_of(&self.name);
        for host in hosts {
            let (key, verdict) = self.element(host, members, chains)?;
            chains.set_element(&map, key, verdict);
        }
        if chains.map_len(&map) > self.limits.elements { Err(TooComplex) } else { Ok(()) }
    }

    /// The element of an address; no verdict if it needs none.
    fn element(
        &mut self,
        host: u128,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<(Key, Option<Verdict>), TooComplex> {
        let stretch = self.stretch_of(host);
        let present = self.present(&self.stretches[stretch], members, host);
        let known = self.known_of(stretch, present, chains)?;
        let at = self.emitted.partition_point(|(first, ..)| *first <= host);
        let emitted = at.checked_sub(1).map(|at| &self.emitted[at]).filter(|(_, last, _)| *last >= host);
        let otherwise = emitted.map(|(.., v)| v).or(self.default.as_ref().map(|known| &known.1));
        let verdict = (otherwise != Some(&known.1)).then(|| known.1.clone());
        Ok((Key::Address(address(self.version, host)), verdict))
    }

    /// What a class is told, with its chains in place.
    fn known_of(
        &mut self,
        stretch: usize,
        present: Present,
        chains: &mut Chains,
    ) -> Result<Known, TooComplex> {
        self.work += 1;
        let key = (stretch, present);
        if let Some(known) = self.known.get(&key) {
            // Nobody may have referred to the chain meanwhile.
            if known.1.target().is_some_and(|chain| !chains.has(chain)) {
                self.palette.row_verdict(&known.0, &self.spec.logs, chains);
            }
            return Ok(known.clone());
        }
        let row = self.row(stretch, &key.1)?;
        let verdict = self.palette.row_verdict(&row, &self.spec.logs, chains);
        if self.rows.insert(verdict.clone()) {
            self.cells += row.cells();
            self.mapped += usize::from(has_map(&row));
        }
        let Limits { rows, cells, maps, .. } = self.limits;
        if self.rows.len() > rows || self.cells > cells || self.mapped > maps {
            return Err(TooComplex);
        }
        let known = Arc::new((row, verdict));
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
            let covered = coverage.entry(known.1.clone()).or_insert((0, place));
            covered.0 = covered.0.saturating_add(size.saturating_add(1));
            of_stretches.push(known);
        }
        let widest = coverage.into_values().max_by_key(|(size, place)| (*size, std::cmp::Reverse(*place)));
        self.default = widest.map(|(_, place)| of_stretches[place].clone());
        self.of_stretches = of_stretches;
        Ok(self.lay_out())
    }

    /// Neighbours that are told the same are one range; those that are told the default are none.
    fn lay_out(&mut self) -> Layout {
        let default = self.default.as_ref().map(|known| &known.1);
        let mut ranges: Vec<(u128, u128, Verdict)> = Vec::new();
        for (stretch, known) in self.stretches.iter().zip(&self.of_stretches) {
            if default == Some(&known.1) {
                continue;
            }
            match ranges.last_mut() {
                Some((_, last, verdict)) if *verdict == known.1 && *last + 1 == stretch.first => {
                    *last = stretch.last;
                }
                _ => ranges.push((stretch.first, stretch.last, known.1.clone())),
            }
        }
        let width = self.width();
        let count = |ranges: &[(u128, u128, Verdict)]| -> usize {
            ranges.iter().take(FEW_NETWORKS + 1).map(|(a, b, _)| networks(*a, *b, width).len()).sum()
        };
        let mut singles = BTreeSet::new();
        if count(&ranges) > FEW_NETWORKS {
            singles =
                ranges.iter().filter(|(first, last, _)| first == last).map(|(host, ..)| *host).collect();
            ranges.retain(|(first, last, _)| first != last);
        }
        self.emitted.clone_from(&ranges);
        if count(&ranges) > FEW_NETWORKS {
            Layout { rules: Vec::new(), singles, ranges }
        } else {
            Layout { rules: ranges, singles, ranges: Vec::new() }
        }
    }

    fn width(&self) -> u32 {
        last_address(self.version).count_ones()
    }

    /// Puts the maps and the chain in place.
    fn program(&self, layout: Layout, elements: Option<BTreeMap<Key, Verdict>>, chains: &mut Chains) {
        let key = || vec![KeyField::Address(self.side)];
        let [hosts, nets] = Self::maps_of(&self.name);
        let mut rules = Vec::new();
        // With sets that may get members there is always a map for them.
        if !self.atoms.is_empty() || !layout.singles.is_empty() {
            chains.want_map(&hosts, MapType::Address);
            if let Some(elements) = elements {
                chains.set_elements(&hosts, elements);
            }
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
        let rest = self.default.as_ref().map_or(Action::Drop, |known| action(&known.1));
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
