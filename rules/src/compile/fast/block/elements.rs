//! Elements of single addresses, and how they follow changes of members and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::place::Place;
use super::stretches::Stretch;
use super::table::{Layout, singles};
use super::{Block, Known, Present, Rule, TooComplex};
use crate::compile::chains::Chains;
use crate::compile::fast::members::{Members, SetMembers, SetNumber, Touched};
use crate::compile::fast::own::{Own, own};
use crate::compile::fast::step::Step;
use crate::ruleset::{Key, Verdict};

/// Classes to be remembered. Those that come and go with members leave their mark.
const KNOWN: usize = 65_536;

impl Block {
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
            let default = self.default.as_ref().map(|known| known.verdict().clone());
            let before: BTreeSet<u128> = singles(&self.stretches).collect();
            self.cut(members)?;
            self.forget_known();
            layout = Some(self.evaluate_stretches(chains)?);
            if self.default.as_ref().map(|known| known.verdict()) != default.as_ref() {
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

    /// Takes a change of rules for any address: of these, what they were and are. Networks are told anew; elements change
    /// where they tell something of the same packets, or of all.
    pub(super) fn touch_everybody(
        &mut self,
        changed: &[Step],
        members: &Members,
        chains: &mut Chains,
    ) -> Result<(), TooComplex> {
        if !self.is_own_complete {
            return self.make_tables(members, chains);
        }
        let mut again = self.concerned_classes(changed);
        // No order of a hash table may be seen, and rows are counted as they come.
        again.sort_unstable();
        (self.work, self.cells, self.mapped) = (0, 0, 0);
        self.rows.clear();
        self.known.clear();
        let layout = self.evaluate_stretches(chains)?;
        let mut hosts: BTreeSet<u128> = singles(&self.stretches).collect();
        for (stretch, present) in again {
            let old = self.own.remove(&(stretch, present.clone()));
            let new = self.own_of_class(stretch, present.clone(), chains)?;
            if old.is_none_or(|old| *old != *new) {
                let Stretch { first, last, .. } = self.stretches[stretch];
                let all = present.iter().filter_map(|set| members.get(*set)).flat_map(SetMembers::hosts);
                hosts.extend(all.filter(|host| (first..=last).contains(*host)));
            }
        }
        self.update(hosts, Some(layout), members, chains)
    }

    /// Classes whose elements may be others after a change of rules for any address: those that tell something of all
    /// packets, or of packets that a changed rule is about.
    fn concerned_classes(&self, changed: &[Step]) -> Vec<(usize, Present)> {
        let meets = |rule: &&Rule| changed.iter().any(|step| rule.step.step.meets(step));
        let meeting = self.rules.values().filter(meets);
        let (for_members, for_any): (Vec<&Rule>, Vec<&Rule>) =
            meeting.partition(|rule| !rule.sets.is_empty());
        let told: FxHashSet<SetNumber> =
            for_members.iter().filter_map(|rule| rule.sets.first().copied()).collect();
        // A rule for all but members of a set tells these from others.
        let is_told_apart = for_any.iter().any(|rule| !rule.not_sets.is_empty());
        let is_concerned = |((_, present), own): &(&(usize, Present), &Arc<Own>)| {
            own.otherwise.is_some() || is_told_apart || present.iter().any(|set| told.contains(set))
        };
        self.own.iter().filter(is_concerned).map(|(class, _)| class.clone()).collect()
    }

    /// Brings the elements of some addresses up to date.
    fn update(
        &mut self,
        hosts: BTreeSet<u128>,
        layout: Option<Layout>,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<(), TooComplex> {
        for place in Place::OF_HOSTS {
            self.want(place, chains);
        }
        for host in hosts {
            let own = self.own_of(host, members, chains)?;
            self.put(self.address(host), &own, chains);
        }
        // With its first element a map comes into use, and with its last it goes out of it.
        if layout.is_some() || self.in_use != self.filled(chains) {
            let layout = layout.unwrap_or_else(|| self.lay_out());
            self.program(layout, chains);
        }
        let maps = Place::OF_HOSTS.map(|place| (place, place.map(&self.name)));
        let elements = maps.iter().map(|(_, map)| chains.map_len(map)).max().unwrap_or(0);
        for (_, map) in maps.iter().filter(|(place, _)| !self.in_use.contains(place)) {
            chains.remove_map(map);
        }
        if elements > self.limits.elements { Err(TooComplex) } else { Ok(()) }
    }

    /// Makes these the elements of an address.
    fn put(&self, address: IpAddr, own: &Own, chains: &mut Chains) {
        let new: BTreeMap<(Place, Key), Verdict> =
            elements_of(address, own).map(|(place, key, verdict)| ((place, key), verdict)).collect();
        for place in Place::OF_HOSTS {
            let map = place.map(&self.name);
            for key in chains.keys_in(&map, place.first(address), place.last(address)) {
                if !new.contains_key(&(place, key.clone())) {
                    chains.set_element(&map, key, None);
                }
            }
        }
        for ((place, key), verdict) in new {
            chains.set_element(&place.map(&self.name), key, Some(verdict));
        }
    }

    pub(super) fn forget_known(&mut self) {
        self.known.clear();
        self.own.clear();
        self.is_own_complete = false;
    }

    /// What elements of an address tell it.
    pub(super) fn own_of(
        &mut self,
        host: u128,
        members: &Members,
        chains: &mut Chains,
    ) -> Result<Arc<Own>, TooComplex> {
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
        let told = self.own.get(&key).cloned();
        // What leads to no chain needs none to be in place.
        if let Some(told) =
            told.as_ref().filter(|told| told.otherwise.as_ref().and_then(Verdict::target).is_none())
        {
            return Ok(told.clone());
        }
        let known = self.known_of(stretch, key.1.clone(), chains)?;
        let told = if let Some(told) = told {
            told
        } else {
            let row = || Own { cells: Vec::new(), otherwise: Some(known.verdict().clone()) };
            let around = self.surroundings(self.stretches[stretch].first);
            let own = around
                .and_then(|around| own(&known.verdicts, &around.verdicts, self.few))
                .unwrap_or_else(row);
            let told = Arc::new(own);
            self.own.insert(key, told.clone());
            told
        };
        self.ensure(told.otherwise.as_ref(), &known, chains)?;
        Ok(told)
    }

    /// What an address is told that has no element of its own.
    fn surroundings(&self, address: u128) -> Option<&Known> {
        let at = self.emitted.partition_point(|(first, ..)| *first <= address);
        let emitted = at.checked_sub(1).map(|at| &self.emitted[at]).filter(|(_, last, _)| *last >= address);
        emitted.map(|(.., known)| known).or(self.default.as_ref())
    }
}

/// The elements of an address, each with the map that it belongs to.
pub(super) fn elements_of(address: IpAddr, own: &Own) -> impl Iterator<Item = (Place, Key, Verdict)> {
    let ports = own.cells.iter().map(move |(protocol, port, verdict)| {
        let key = Key::AddressProtocolPort(address, *protocol, *port);
        (Place::of(verdict, true), key, verdict.clone())
    });
    let rest = own.otherwise.iter();
    let rest = rest.map(move |verdict| (Place::of(verdict, false), Key::Address(address), verdict.clone()));
    ports.chain(rest)
}
