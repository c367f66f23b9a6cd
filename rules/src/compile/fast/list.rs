//! Policy lists: what endpoints with the same tiers, policies and profiles share.
//!
//! A list is cut where tables cannot follow. Tiers and profiles without such a place, one behind the other, are one
//! block. A tier with a barrier (a Log rule, ICMP types, named ports, …) is asked piece by piece, as `classic` asks
//! policies, with the accept and pass marks between the pieces:
//!
//! ```text
//! cali-pl-…   clear accept and pass
//!             jump cali-pl-…-0                 block: the tiers before; return if accepted
//!             clear pass
//!             if not passed: jump cali-pl-…-1  block: the rules before the barrier; return if accepted
//!             if not passed: jump cali-pl-…-b0 barriers, as classic compiles them; return if accepted
//!             if not passed: drop              end of the tier
//!             goto cali-pl-…-2                 block: all tiers and profiles behind
//! ```
//!
//! Where the whole list is one block, as most are, it is the list's chain itself, and no mark is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_api::net::IpVersion;

use super::block::{BlockSpec, BlockStep, PlainStep, Section, SectionEnd};
use super::key::{ListKey, Tier};
use super::outcome::{End, Logs, Outcome};
use super::step::{Shape, shape};
use crate::compile::classic::Classic;
use crate::compile::config::Config;
use crate::compile::endpoint::deny_word;
use crate::compile::flowlog::{self, Place};
use crate::compile::names::{self, Direction};
use crate::compile::rule::{self, Owner, deny};
use crate::graph::model::{PolicyKey, PolicyRules, RuleSpec};
use crate::ruleset::{Action, Chain, Match, Rule};

/// Blocks in one list. With more, tiers with barriers are asked policy by policy.
const BLOCKS: usize = 8;

/// How much of a list is compiled to tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing: policy by policy, rule by rule.
    Linear,
    /// Tiers and profiles without barriers.
    Whole,
    /// What stands between barriers too.
    Pieces,
}

/// What a list becomes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The list's own chain, unless it is a block.
    pub(super) chain: Option<Chain>,
    /// Blocks by the name of their chain.
    pub(super) blocks: Vec<(String, BlockSpec)>,
    /// Chains of barriers.
    pub(super) barriers: Vec<Chain>,
    /// Policies that are jumped to.
    pub(super) policies: BTreeSet<PolicyKey>,
    /// Profiles that are jumped to.
    pub(super) profiles: BTreeSet<Arc<str>>,
    /// Policies that are in a block with their whole tier: its number, the section, the place in that.
    pub(super) places: BTreeMap<PolicyKey, (usize, usize, usize)>,
}

/// A rule, for tables or not, and what it came from.
struct Item<'a> {
    shape: Shape,
    spec: &'a RuleSpec,
    place: Place,
    owner: usize,
}

/// Whose rules, for logs.
struct OwnerText {
    tier: Arc<str>,
    kind: &'static str,
    name: Arc<str>,
    qualified_name: String,
    id: String,
    is_profile: bool,
}

impl OwnerText {
    fn get(&self) -> Owner<'_> {
        Owner {
            tier: &self.tier,
            kind: self.kind,
            name: &self.name,
            qualified_name: &self.qualified_name,
            id: &self.id,
            is_profile: self.is_profile,
        }
    }
}

/// A tier or profile with its rules at hand.
struct Part<'a> {
    title: String,
    tier: Option<&'a Tier>,
    profile: Option<&'a Arc<str>>,
    items: Vec<Item<'a>>,
    owners: Vec<OwnerText>,
    /// A policy or the profile is not known: what refers to it is closed.
    is_missing: bool,
}

impl Part<'_> {
    fn is_pure(&self) -> bool {
        !self.is_missing && !self.items.iter().any(|item| matches!(item.shape, Shape::Barrier))
    }

    /// Whether it can change nothing.
    fn is_idle(&self, config: &Config) -> bool {
        !config.flow_logs && !self.is_missing && self.items.is_empty() && !self.denies()
    }

    /// What no rule decides is denied.
    fn denies(&self) -> bool {
        self.tier.is_some_and(|tier| tier.denies && !tier.policies.is_empty())
    }
}

/// Makes the plan of a list.
pub(super) struct Planner<'a> {
    key: &'a ListKey,
    classic: &'a Classic,
    version: IpVersion,
    level: Level,
    name: String,
    plan: Plan,
    rules: Vec<Rule>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(key: &'a ListKey, classic: &'a Classic, version: IpVersion, level: Level) -> Self {
        let (plan, rules) = (Plan::default(), Vec::new());
        Self { key, classic, version, level, name: key.name(), plan, rules }
    }

    pub(super) fn plan(mut self) -> Plan {
        let parts: Vec<Part<'a>> = self.parts();
        if self.level == Level::Pieces && pieces(&parts) > BLOCKS {
            self.level = Level::Whole;
        }
        let is_tabled = |part: &&Part<'_>| self.level > Level::Linear && part.is_pure();
        let tail = parts.iter().rev().take_while(is_tabled).count();
        let (front, tail) = parts.split_at(parts.len() - tail);
        let mut front = front.iter().peekable();
        while let Some(part) = front.next() {
            if self.level > Level::Linear && part.is_pure() {
                let mut run = vec![part];
                while let Some(next) = front.next_if(|part| part.is_pure()) {
                    run.push(next);
                }
                let target = self.block(&run, false);
                self.rules.push(Rule::always(Action::Jump(target)));
                self.return_if_accepted();
            } else {
                self.mixed(part);
            }
        }
        self.end(tail);
        self.plan
    }

    fn config(&self) -> &'a Config {
        self.classic.config()
    }

    fn parts(&self) -> Vec<Part<'a>> {
        let tiers = self.key.tiers.iter().map(|tier| self.tier_part(tier));
        let profiles = self.key.profiles.iter().map(|profile| self.profile_part(profile));
        tiers.chain(profiles).filter(|part| !part.is_idle(self.config())).collect()
    }

    fn tier_part(&self, tier: &'a Tier) -> Part<'a> {
        let title = format!("Start of tier {}", tier.name);
        let mut part = Part {
            title,
            tier: Some(tier),
            profile: None,
            items: Vec::new(),
            owners: Vec::new(),
            is_missing: false,
        };
        for key in &tier.policies {
            let Some(policy) = self.classic.policy(key) else {
                part.is_missing = true;
                continue;
            };
            part.owners.push(OwnerText {
                tier: policy.tier.clone(),
                kind: key.kind.short(),
                name: key.name.clone(),
                qualified_name: key.qualified_name(),
                id: key.id(),
                is_profile: false,
            });
            self.items(self.pick(&policy.ingress, &policy.egress), &mut part);
        }
        part
    }

    fn profile_part(&self, name: &'a Arc<str>) -> Part<'a> {
        let owner = OwnerText {
            tier: "".into(),
            kind: "pro",
            name: name.clone(),
            qualified_name: name.to_string(),
            id: name.to_string(),
            is_profile: true,
        };
        let mut part = Part {
            title: format!("Profile {name}"),
            tier: None,
            profile: Some(name),
            items: Vec::new(),
            owners: vec![owner],
            is_missing: false,
        };
        match self.classic.profile(name) {
            Some(profile) => self.items(self.pick(&profile.ingress, &profile.egress), &mut part),
            None => part.is_missing = true,
        }
        part
    }

    fn pick<'b>(&self, ingress: &'b [RuleSpec], egress: &'b [RuleSpec]) -> &'b [RuleSpec] {
        match self.key.direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }

    /// Adds the rules of the part's last owner.
    fn items(&self, rules: &'a [RuleSpec], part: &mut Part<'a>) {
        let direction = self.key.direction;
        let owner = part.owners.len() - 1;
        for (index, spec) in rules.iter().enumerate() {
            let cut = rule::for_version(spec, self.version);
            let shape = shape(cut.as_ref(), direction);
            if !matches!(shape, Shape::Nothing) {
                part.items.push(Item { shape, spec, place: Place { direction, index }, owner });
            }
        }
    }

    /// A block of whole parts. Returns the name of its chain.
    fn block(&mut self, parts: &[&Part<'_>], is_last: bool) -> String {
        let mut logs = Logs::default();
        for (section, part) in parts.iter().enumerate() {
            // Nothing of a pure part is missing, so policies and owners are the same.
            for (owner, policy) in part.tier.iter().flat_map(|tier| &tier.policies).enumerate() {
                self.plan.places.insert(policy.clone(), (self.plan.blocks.len(), section, owner));
            }
        }
        let sections = parts.iter().map(|part| self.section(part, &part.items, true, &mut logs)).collect();
        let rest = if is_last {
            let log = self.config().flow_logs.then(|| flowlog::no_profile(self.key.direction));
            Outcome { end: End::Deny, logs: logs.add(log).into_iter().collect() }
        } else {
            Outcome { end: End::Undecided, logs: Vec::new() }
        };
        let title = self.key.title();
        self.add_block(BlockSpec { sections, rest, is_part: false, logs, title })
    }

    fn add_block(&mut self, spec: BlockSpec) -> String {
        let name = format!("{}-{}", self.name, self.plan.blocks.len());
        self.plan.blocks.push((name.clone(), spec));
        name
    }

    fn section(&self, part: &Part<'_>, items: &[Item<'_>], is_whole: bool, logs: &mut Logs) -> Section {
        let steps = items.iter().filter_map(|item| {
            let Shape::Step(step) = &item.shape else { return None };
            let owner = part.owners[item.owner].get();
            let told = self.config().flow_logs.then(|| {
                flowlog::decided(item.spec.action, item.place, owner.is_profile, owner.id, Vec::new())
            });
            Some(BlockStep { step: step.clone(), log: logs.add(told.flatten()), owner: item.owner })
        });
        let steps = steps.collect();
        let denies = is_whole && part.denies();
        let told = part.tier.filter(|_| is_whole && self.config().flow_logs);
        let told = told.map(|tier| flowlog::end_of_tier(denies, self.key.direction, &tier.name, Vec::new()));
        let log = logs.add(told);
        Section { steps, end: if denies { SectionEnd::Deny(log) } else { SectionEnd::Next(log) } }
    }

    /// A part with barriers, or one that is not to be compiled to tables.
    fn mixed(&mut self, part: &Part<'_>) {
        let pass = self.config().marks.pass;
        self.rules.push(Rule::always(Action::ClearMark(pass)).comment(part.title.clone()));
        if self.level == Level::Pieces && !part.is_missing {
            self.mixed_pieces(part);
        } else {
            self.linear(part);
        }
        let Some(tier) = part.tier else { return };
        let undecided = || vec![Match::MarkClear(pass)];
        if self.config().flow_logs {
            let told = flowlog::end_of_tier(part.denies(), self.key.direction, &tier.name, undecided());
            self.rules.push(told);
        }
        if part.denies() {
            let word = deny_word(self.config());
            let comment = format!("End of tier {}. {word} if no policies passed packet", tier.name);
            self.rules.push(Rule::when(undecided(), deny(self.config())).comment(comment));
        }
    }

    fn mixed_pieces(&mut self, part: &Part<'_>) {
        let is_barrier = |item: &Item<'_>| matches!(item.shape, Shape::Barrier);
        for run in part.items.chunk_by(|a, b| is_barrier(a) == is_barrier(b)) {
            let target = if run.first().is_some_and(is_barrier) {
                self.barriers(part, run)
            } else {
                let mut logs = Logs::default();
                let sections = vec![self.section(part, run, false, &mut logs)];
                let rest = Outcome { end: End::Undecided, logs: Vec::new() };
                let title = part.title.clone();
                self.add_block(BlockSpec { sections, rest, is_part: true, logs, title })
            };
            self.ask(target);
        }
    }

    /// Policy by policy, in the chains of `classic`.
    fn linear(&mut self, part: &Part<'_>) {
        let direction = self.key.direction;
        for policy in part.tier.iter().flat_map(|tier| &tier.policies) {
            self.plan.policies.insert(policy.clone());
            self.ask(names::policy_chain(direction, policy));
        }
        if let Some(profile) = part.profile {
            self.plan.profiles.insert(profile.clone());
            self.ask(names::profile_chain(direction, profile));
        }
    }

    /// Barriers of a part as rules of a chain.
    fn barriers(&mut self, part: &Part<'_>, run: &[Item<'_>]) -> String {
        let name = format!("{}-b{}", self.name, self.plan.barriers.len());
        let compiled = run.iter().map(|item| {
            let owner = part.owners[item.owner].get();
            rule::compile(item.spec, item.place, self.version, owner, self.config())
        });
        let rules = compiled.flatten().collect();
        self.plan.barriers.push(Chain { name: name.clone(), rules });
        name
    }

    /// Asks a chain, unless a rule of this part has passed the packet on.
    fn ask(&mut self, target: String) {
        let undecided = vec![Match::MarkClear(self.config().marks.pass)];
        self.rules.push(Rule::when(undecided, Action::Jump(target)));
        self.return_if_accepted();
    }

    fn return_if_accepted(&mut self) {
        let accept = self.config().marks.accept;
        let accepted = vec![Match::Mark { value: accept, mask: accept }];
        self.rules.push(Rule::when(accepted, Action::Return).comment("Return if policy accepted"));
    }

    /// The end of the list: a block of its last parts, which may be none.
    fn end(&mut self, tail: &[Part<'_>]) {
        let config = self.config();
        let word = deny_word(config);
        if self.rules.is_empty() {
            self.block(&tail.iter().collect::<Vec<_>>(), true);
            if let Some((name, _)) = self.plan.blocks.last_mut() {
                name.clone_from(&self.name);
            }
            return;
        }
        if tail.is_empty() {
            if config.flow_logs {
                self.rules.push(flowlog::no_profile(self.key.direction));
            }
            self.rules.push(Rule::always(deny(config)).comment(format!("{word} if no profiles matched")));
        } else {
            let target = self.block(&tail.iter().collect::<Vec<_>>(), true);
            self.rules.push(Rule::always(Action::Goto(target)));
        }
        let clear = Action::ClearMark(config.marks.accept | config.marks.pass);
        let start = Rule::always(clear).comment(self.key.title());
        let rules = std::iter::once(start).chain(std::mem::take(&mut self.rules)).collect();
        self.plan.chain = Some(Chain { name: self.name.clone(), rules });
    }
}

/// The rules of a policy for a block; nothing where they are not for one any more.
pub(super) fn steps_of(
    policy: &PolicyRules,
    direction: Direction,
    version: IpVersion,
    config: &Config,
) -> Option<Vec<PlainStep>> {
    let rules = match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    };
    let id = policy.key.id();
    let mut steps = Vec::new();
    for (index, spec) in rules.iter().enumerate() {
        match shape(rule::for_version(spec, version).as_ref(), direction) {
            Shape::Nothing => {}
            Shape::Barrier => return None,
            Shape::Step(step) => {
                let place = Place { direction, index };
                let told =
                    config.flow_logs.then(|| flowlog::decided(spec.action, place, false, &id, Vec::new()));
                steps.push((step, told.flatten().and_then(|rule| rule.action)));
            }
        }
    }
    Some(steps)
}

/// The number of blocks that parts with barriers need.
fn pieces(parts: &[Part<'_>]) -> usize {
    let is_step = |item: &Item<'_>| matches!(item.shape, Shape::Step(_));
    let runs = |part: &Part<'_>| {
        let runs = part.items.chunk_by(|a, b| is_step(a) == is_step(b));
        runs.filter(|run| run.first().is_some_and(is_step)).count()
    };
    parts.iter().filter(|part| !part.is_pure()).map(runs).sum()
}
