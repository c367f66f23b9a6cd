//! A run of rules as tables: from the address of the peer to the row of its class.
//!
//! ```text
//! cali-pl-…   set the accept mark
//!             ip saddr . meta l4proto . th dport @cali-pl-…-ports return    what single addresses may send to a port
//!             ip saddr @cali-pl-…-all return                                and whatever else it is
//!             ip saddr vmap @cali-pl-…-rows     single addresses with a row of their own
//!             ip saddr 10.0.0.0/8 goto …        networks, if there are few
//!             ip saddr vmap @cali-pl-…-nets     networks, if there are many: disjoint ranges
//!             goto …                            all other addresses
//! ```
//!
//! Single addresses are members of sets, and networks of one address. What they are told of a few single ports stands
//! in plain sets (see `place`), and only that in which they differ from the addresses around them, so that a rule for any
//! address touches no element (see `own`).
//!
//! Two addresses are in one class if the same rules apply to them. Networks cut the address space into stretches in
//! which only membership of single addresses still tells them apart; an address that is told what its stretch is told
//! has no element. The last rule stands for all addresses that no element holds, so an unknown class is never more
//! than the rest of the world, and is there in the same transaction as the maps.

mod edit;
mod elements;
mod place;
mod stretches;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tortie_api::net::IpVersion;
use tortie_api::policy::Action as PolicyAction;

pub(super) use self::edit::PlainStep;
use self::place::Place;
use self::stretches::Stretch;
use super::members::{Members, SetNumber};
use super::outcome::{End, Logs, Outcome, Palette};
use super::own::Own;
use super::row::{Decision, Row, RowBuilder};
use super::step::{ProtocolTest, Step};
use crate::compile::chains::Chains;
use crate::ruleset::{Side, Verdict};

/// What may be tried to compile a block. Beyond, its list is compiled another way.
///
/// Rows are chains, of which the kernel takes many; only those with maps of their own are dear. A thousand policies of
/// ten rules, each for its own peers and ports, are ten thousand rows of three rules.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows that differ, in one block.
    pub rows: usize,
    /// Cells of these together.
    pub cells: usize,
    /// Rows with maps.
    pub maps: usize,
    /// Stretches of addresses.
    pub stretches: usize,
    /// Elements in one map.
    pub elements: usize,
    /// Comparisons, as a measure of time.
    pub work: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows: 16_384,
            cells: 131_072,
            maps: 128,
            stretches: 20_000,
            elements: 500_000,
            work: 50_000_000,
        }
    }
}

/// Cells of one address that become elements of it. With more, it gets one element that leads to its row, which is dearer
/// to the kernel.
const MANY_CELLS: usize = 32;
/// The same where all these would be too many elements.
const FEW_CELLS: usize = 4;

/// A block would go beyond [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooComplex;

/// A rule of a section, with what is told of its decisions.
#[derive(Clone, Debug)]
pub(super) struct BlockStep {
    pub(super) step: Step,
    pub(super) log: Option<u32>,
    /// Whose it is: the place of the policy in the section.
    pub(super) owner: usize,
}

/// What becomes of what no rule of a section decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionEnd {
    /// It is denied.
    Deny(Option<u32>),
    /// The next section is asked.
    Next(Option<u32>),
}

/// A tier or a profile, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) steps: Vec<BlockStep>,
    pub(super) end: SectionEnd,
}

/// What a block is to do.
#[derive(Clone, Debug)]
pub(super) struct BlockSpec {
    pub(super) sections: Vec<Section>,
    /// What is passed on behind the last section.
    pub(super) rest: Outcome,
    /// It is a part of a section: what is passed on leaves it marked so.
    pub(super) is_part: bool,
    pub(super) logs: Logs,
    /// For people.
    pub(super) title: String,
}

/// The place of a rule: section, owner, and place among the owner's. The first match wins.
type RuleKey = (usize, usize, usize);

/// A step with its sets by number.
#[derive(Debug)]
struct Rule {
    step: BlockStep,
    sets: Vec<SetNumber>,
    not_sets: Vec<SetNumber>,
}

/// Sets that hold an address, sorted.
type Present = SmallVec<[SetNumber; 4]>;

/// What a class is told.
#[derive(Debug)]
struct Class {
    row: Row<Outcome>,
    verdicts: Row<Verdict>,
    /// See [`Class::verdict`].
    verdict: OnceLock<Verdict>,
}

impl Class {
    /// What leads to the row's chain, or the one thing that the row says. Most classes never ask for it.
    fn verdict(&self) -> &Verdict {
        self.verdict.get_or_init(|| Palette::name_of_row(&self.verdicts))
    }
}

type Known = Arc<Class>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Block {
    name: String,
    version: IpVersion,
    /// The side of the packet that is the peer's.
    side: Side,
    spec: BlockSpec,
    palette: Palette,
    limits: Limits,
    rules: BTreeMap<RuleKey, Rule>,
    /// Rules that ask for sets, by the first of these.
    by_set: FxHashMap<SetNumber, Vec<RuleKey>>,
    /// All others.
    free: BTreeSet<RuleKey>,
    /// Sets that rules ask for, one way or the other, with the number of times.
    atoms: FxHashMap<SetNumber, usize>,
    stretches: Vec<Stretch>,
    /// What each of them is told, by place.
    of_stretches: Vec<Known>,
    /// What all other addresses are told.
    default: Option<Known>,
    /// Maps of single addresses that are looked into.
    in_use: Vec<Place>,
    /// Elements of one address that do not make it get a row of its own.
    few: usize,
    /// What addresses without an element of their own are told, where it is not the default: disjoint, in order.
    emitted: Vec<(u128, u128, Known)>,
    known: FxHashMap<(usize, Present), Known>,
    /// What is told by elements of an address of a class. Depends on `known`, and on the surroundings.
    own: FxHashMap<(usize, Present), Arc<Own>>,
    /// Whether `own` has all classes that elements were made for.
    is_own_complete: bool,
    /// Rows in use or used since the block was built.
    rows: BTreeSet<Verdict>,
    /// Their cells, and how many of them have maps.
    cells: usize,
    mapped: usize,
    work: usize,
}

impl Block {
    /// Makes a block with its chain and maps.
    pub(super) fn build(
        name: String,
        (version, side): (IpVersion, Side),
        spec: BlockSpec,
        (palette, limits): (&Palette, Limits),
        members: &Members,
        chains: &mut Chains,
    ) -> Result<Self, TooComplex> {
        let mut block = Self {
            name,
            version,
            side,
            palette: palette.clone(),
            limits,
            rules: BTreeMap::new(),
            by_set: FxHashMap::default(),
            free: BTreeSet::new(),
            atoms: FxHashMap::default(),
            stretches: Vec::new(),
            of_stretches: Vec::new(),
            default: None,
            in_use: Vec::new(),
            few: MANY_CELLS,
            emitted: Vec::new(),
            known: FxHashMap::default(),
            own: FxHashMap::default(),
            is_own_complete: false,
            rows: BTreeSet::new(),
            cells: 0,
            mapped: 0,
            work: 0,
            spec,
        };
        block.index(members);
        block.make_tables(members, chains)?;
        Ok(block)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sets that its rules ask for.
    pub(super) fn atoms(&self) -> impl Iterator<Item = SetNumber> {
        let mut atoms: Vec<SetNumber> = self.atoms.keys().copied().collect();
        atoms.sort_unstable();
        atoms.into_iter()
    }

    /// Whether one of its rules asks for the set.
    pub(super) fn asks_for(&self, set: SetNumber) -> bool {
        self.atoms.contains_key(&set)
    }

    /// Finds rules by set.
    fn index(&mut self, members: &Members) {
        for section in 0..self.spec.sections.len() {
            let mut place = (0, 0);
            for step in std::mem::take(&mut self.spec.sections[section].steps) {
                place = if step.owner == place.0 { (place.0, place.1 + 1) } else { (step.owner, 0) };
                self.add_rule((section, step.owner, place.1), step, members);
            }
        }
    }

    /// The sets among this block's that hold an address in a stretch, sorted.
    fn present(&self, stretch: &Stretch, members: &Members, host: u128) -> Present {
        let own = members.sets_of(host).iter().filter(|set| self.atoms.contains_key(set));
        let mut present: Present = own.chain(&stretch.sets).copied().collect();
        present.sort_unstable();
        present.dedup();
        present
    }

    /// The row of a class: an address of a stretch that is in these sets.
    fn row(&mut self, stretch: usize, present: &[SetNumber]) -> Result<Row<Outcome>, TooComplex> {
        let address = self.stretches[stretch].first;
        let by_set = present.iter().filter_map(|set| self.by_set.get(set)).flatten();
        let mut candidates: Vec<RuleKey> = self.free.iter().chain(by_set).copied().collect();
        candidates.sort_unstable();
        self.work += candidates.len();
        let holds = |set: &SetNumber| present.binary_search(set).is_ok();
        let fits = |rule: &&Rule| {
            let peer = &rule.step.step.peer;
            rule.sets.iter().all(holds)
                && !rule.not_sets.iter().any(holds)
                && peer.nets.as_ref().is_none_or(|nets| nets.contains(address))
                && !peer.not_nets.contains(address)
        };
        let rules = candidates.iter().filter_map(|key| Some((key.0, self.rules.get(key)?)));
        let matching: Vec<(usize, &Rule)> = rules.filter(|(_, rule)| fits(rule)).collect();
        let mut work = 0;
        let row = self.row_of(&matching, &mut work);
        self.work += work;
        if self.work > self.limits.work { Err(TooComplex) } else { Ok(row) }
    }

    /// The first match wins, section by section.
    fn row_of(&self, matching: &[(usize, &Rule)], work: &mut usize) -> Row<Outcome> {
        let protocols = matching.iter().filter_map(|(_, rule)| match rule.step.step.protocol {
            ProtocolTest::Is(number) | ProtocolTest::Not(number) => Some(number),
            ProtocolTest::Any => None,
        });
        let mut builder: RowBuilder<Vec<u32>, Outcome> = RowBuilder::new(protocols, &Vec::new());
        let mut matching = matching.iter().peekable();
        for (number, section) in self.spec.sections.iter().enumerate() {
            while let Some((_, rule)) = matching.next_if(|(section, _)| *section == number) {
                if !builder.is_section_done() {
                    self.apply(rule, &mut builder, work);
                }
            }
            let log = match section.end {
                SectionEnd::Deny(log) | SectionEnd::Next(log) => log,
            };
            let outcome = |trail: &Vec<u32>| Outcome { end: End::Deny, logs: noted(trail, log) };
            let note = |trail: &Vec<u32>| noted(trail, log);
            let decision = match section.end {
                SectionEnd::Deny(_) => Decision::End(&outcome),
                SectionEnd::Next(_) => Decision::NextSection(&note),
            };
            builder.end_section(&decision, work);
        }
        let Outcome { end, logs } = &self.spec.rest;
        let rest = |trail: &Vec<u32>| Outcome { end: *end, logs: [&trail[..], &logs[..]].concat() };
        builder.end_section(&Decision::End(&rest), work);
        builder.finish()
    }

    fn apply(&self, rule: &Rule, builder: &mut RowBuilder<Vec<u32>, Outcome>, work: &mut usize) {
        let BlockStep { step, log, .. } = &rule.step;
        let end = match step.action {
            PolicyAction::Allow => Some(End::Allow),
            PolicyAction::Deny => Some(End::Deny),
            PolicyAction::Pass if self.spec.is_part => Some(End::Pass),
            // A Log rule is a barrier, and in no block.
            PolicyAction::Pass | PolicyAction::Log => None,
        };
        let outcome = |trail: &Vec<u32>| Outcome { end: end.unwrap_or(End::Deny), logs: noted(trail, *log) };
        let note = |trail: &Vec<u32>| noted(trail, *log);
        let decision = if end.is_some() { Decision::End(&outcome) } else { Decision::NextSection(&note) };
        builder.apply(step.protocol, step.ports.as_ref(), &decision, work);
    }
}

fn noted(trail: &[u32], log: Option<u32>) -> Vec<u32> {
    trail.iter().copied().chain(log).collect()
}
