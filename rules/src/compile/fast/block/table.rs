//! The chain and the maps of a block, made from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;

use super::elements::elements_of;
use super::place::Place;
use super::stretches::{Stretch, networks};
use super::{Block, Class, FEW_CELLS, Known, Limits, MANY_CELLS, Present, TooComplex};
use crate::compile::chains::Chains;
use crate::compile::fast::members::Members;
use crate::compile::fast::row_chain::{action, has_map};
use crate::compile::fast::step::{address, last_address};
use crate::ruleset::{Action, Chain, Key, Match, Rule, Verdict};

/// Networks that are asked one by one rather than looked up.
const FEW_NETWORKS: usize = 4;

/// How networks are asked for.
pub(super) struct Layout {
    /// As rules, all of them.
    rules: Vec<(u128, u128, Verdict)>,
    /// Single addresses that become elements.
    singles: BTreeSet<u128>,
    /// As ranges of an interval map.
    ranges: Vec<(u128, u128, Verdict)>,
}

impl Block {
    /// Makes chain and maps from nothing.
    pub(super) fn make_tables(&mut self, members: &Members, chains: &mut Chains) -> Result<(), TooComplex> {
        self.few = MANY_CELLS;
        self.try_tables(members, chains).or_else(|TooComplex| {
            self.few = FEW_CELLS;
            self.try_tables(members, chains)
        })
    }

    fn try_tables(&mut self, members: &Members, chains: &mut Chains) -> Result<(), TooComplex> {
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
        let mut elements: BTreeMap<Place, BTreeMap<Key, Verdict>> = BTreeMap::new();
        for host in hosts {
            let own = self.own_of(host, members, chains)?;
            for (place, key, verdict) in elements_of(self.address(host), &own) {
                elements.entry(place).or_default().insert(key, verdict);
            }
        }
        self.is_own_complete = true;
        if elements.values().any(|of| of.len() > self.limits.elements) {
            return Err(TooComplex);
        }
        for place in Place::OF_HOSTS {
            self.want(place, chains);
            chains.set_elements(&place.map(&self.name), elements.remove(&place).unwrap_or_default());
        }
        self.program(layout, chains);
        Ok(())
    }

    /// Puts what a verdict for a class leads to in place, where it is not.
    pub(super) fn ensure(
        &mut self,
        verdict: Option<&Verdict>,
        known: &Known,
        chains: &mut Chains,
    ) -> Result<(), TooComplex> {
        let Some(target) = verdict.and_then(Verdict::target) else { return Ok(()) };
        if !chains.has(target) {
            let row = self.palette.verdicts(&known.row, &self.spec.logs, chains);
            self.palette.row_verdict(&row, chains);
        }
        if verdict == Some(known.verdict()) && self.rows.insert(known.verdict().clone()) {
            self.cells += known.row.cells();
            self.mapped += usize::from(has_map(&known.row));
        }
        let Limits { rows, cells, maps, .. } = self.limits;
        let is_too_much = self.rows.len() > rows || self.cells > cells || self.mapped > maps;
        if is_too_much { Err(TooComplex) } else { Ok(()) }
    }

    /// What a class is told. Its chains may not be in place.
    pub(super) fn known_of(
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
        let known = Arc::new(Class { row, verdicts, verdict: OnceLock::new() });
        self.known.insert(key, known.clone());
        Ok(known)
    }

    /// What stretches are told, and how that is asked for. Most addresses are told the default.
    pub(super) fn evaluate_stretches(&mut self, chains: &mut Chains) -> Result<Layout, TooComplex> {
        let mut of_stretches = Vec::with_capacity(self.stretches.len());
        let mut coverage: BTreeMap<Verdict, (u128, usize)> = BTreeMap::new();
        for place in 0..self.stretches.len() {
            let stretch = &self.stretches[place];
            let (size, present) = (stretch.last - stretch.first, Present::from_slice(&stretch.sets));
            let known = self.known_of(place, present, chains)?;
            let covered = coverage.entry(known.verdict().clone()).or_insert((0, place));
            covered.0 = covered.0.saturating_add(size.saturating_add(1));
            self.ensure(Some(known.verdict()), &known, chains)?;
            of_stretches.push(known);
        }
        let widest = coverage.into_values().max_by_key(|(size, place)| (*size, std::cmp::Reverse(*place)));
        self.default = widest.map(|(_, place)| of_stretches[place].clone());
        self.of_stretches = of_stretches;
        Ok(self.lay_out())
    }

    /// Neighbours that are told the same are one range; those that are told the default are none.
    pub(super) fn lay_out(&mut self) -> Layout {
        let default = self.default.as_ref().map(|known| known.verdict());
        let mut ranges: Vec<(u128, u128, Known)> = Vec::new();
        for (stretch, known) in self.stretches.iter().zip(&self.of_stretches) {
            if default == Some(known.verdict()) {
                continue;
            }
            match ranges.last_mut() {
                Some((_, last, of)) if of.verdict() == known.verdict() && *last + 1 == stretch.first => {
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
            ranges.iter().map(|(first, last, known)| (*first, *last, known.verdict().clone())).collect();
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
    pub(super) fn program(&mut self, layout: Layout, chains: &mut Chains) {
        let mut rules = vec![self.palette.start().comment(self.spec.title.clone())];
        self.in_use = self.filled(chains);
        rules.extend(self.in_use.iter().map(|place| place.look_up(&self.name, self.side)));
        for (first, last, verdict) in layout.rules {
            for (network, size) in networks(first, last, self.width()) {
                rules.push(Rule::when(self.within(network, size), action(&verdict)));
            }
        }
        let has_ranges = !layout.ranges.is_empty();
        if has_ranges {
            let range = |(first, last, verdict)| {
                (Key::AddressRange(self.address(first), self.address(last)), verdict)
            };
            let ranges = layout.ranges.into_iter().map(range).collect();
            self.want(Place::Networks, chains);
            chains.set_elements(&Place::Networks.map(&self.name), ranges);
            rules.push(Place::Networks.look_up(&self.name, self.side));
        }
        let rest = self.default.as_ref().map_or(Action::Drop, |known| action(known.verdict()));
        rules.push(Rule::always(rest));
        chains.set(Chain { name: self.name.clone(), rules });
        let is_unused = |place: &Place| match place {
            Place::Networks => !has_ranges,
            place => !self.in_use.contains(place),
        };
        let unused = Place::OF_HOSTS.into_iter().chain([Place::Networks]).filter(is_unused);
        unused.for_each(|place| chains.remove_map(&place.map(&self.name)));
    }

    pub(super) fn address(&self, bits: u128) -> IpAddr {
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
pub(super) fn singles(stretches: &[Stretch]) -> impl Iterator<Item = u128> {
    stretches.iter().filter(|stretch| stretch.first == stretch.last).map(|stretch| stretch.first)
}
