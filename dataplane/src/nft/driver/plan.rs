//! The difference between desired and actual, in the order in which it is carried out.
//!
//! ```text
//!   Enforce    new chains, empty ─ new sets ─ elements out ─ elements in ─ rules of chains
//!   Withdraw   rules and elements of what nobody uses any more ─ sets ─ chains
//! ```
//!
//! Each is one transaction. What goes is a transaction of its own: a packet that is among the old rules at the moment
//! of a commit sees elements as they are after it, and would find the old rules' sets empty.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tortie_rules::render::nft::{self as lower, Content};
use tortie_rules::ruleset::nft::{Chain, Element, Set as Declaration, Table};

use super::offload::offloads;
use super::set::Actual;
use super::state::{Held, State};
use crate::reconcile::{Phase, Plan};

/// One thing to do in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The table itself.
    AddTable(Table),
    /// The table with all that is in it.
    DeleteTable,
    /// The table of connections that skip the rules, without interfaces.
    AddFlowtable,
    /// A table of that kind, which no rule names.
    DeleteFlowtable(String),
    /// A chain without rules.
    AddChain(Chain),
    /// All rules of a chain go.
    Flush(String),
    /// These rules, into an empty chain.
    AddRules(Arc<Content>),
    /// Some rules of a chain in the place of some others.
    Patch(Patch),
    /// The chain, which is empty and which nothing leads to.
    DeleteChain(String),
    /// A set or map without elements.
    AddSet(Declaration),
    /// Elements of a set.
    AddElements(Declaration, Vec<Element>),
    /// The same, out.
    DeleteElements(Declaration, Vec<Element>),
    /// The set, which nothing looks into.
    DeleteSet(String),
}

/// What differs between the rules that a chain has and those that it shall have: what stands between the equal ones at
/// both ends. Rules that stay go on counting, and the kernel looks up no sets for them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// What the chain has.
    pub(super) old: Arc<Content>,
    /// What it shall have.
    pub(super) new: Arc<Content>,
    /// So many rules at the beginning stay.
    pub(super) before: usize,
    /// And so many at the end.
    pub(super) behind: usize,
}

impl Patch {
    /// `None` where writing the chain anew is as good.
    fn between(held: &Held, new: &Arc<Content>) -> Option<Self> {
        let Held::Content(old) = held else { return None };
        let (from, to) = (&old.rules, &new.rules);
        let before = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let rest = from[before..].iter().rev().zip(to[before..].iter().rev());
        let behind = rest.take_while(|(a, b)| a == b).count();
        let changed = from.len() + to.len() - 2 * (before + behind);
        let is_worth_it = before + behind >= WORTH_KEEPING && changed < before + behind;
        is_worth_it.then(|| Self { old: Arc::clone(old), new: Arc::clone(new), before, behind })
    }
}

/// From so many rules that stay it is cheaper to ask for their handles than to write them anew.
const WORTH_KEEPING: usize = 8;
/// Chains that are patched in one transaction; each costs a reading.
const MAX_PATCHES: usize = 16;

/// Steps of one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    /// What nothing refers to yet: it may be done in portions before the rest.
    pub(super) prepare: Vec<Step>,
    /// What must be done at once.
    pub(super) switch: Vec<Step>,
    /// Chains that are as wanted afterwards, or gone.
    pub(super) chains: Vec<String>,
    /// Sets that are as wanted afterwards, or gone.
    pub(super) sets: Vec<String>,
}

impl Steps {
    /// Nothing to do.
    pub(super) const fn is_empty(&self) -> bool {
        self.prepare.is_empty() && self.switch.is_empty()
    }

    /// All steps in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Step> {
        self.prepare.iter().chain(&self.switch)
    }
}

impl State {
    /// Whether this phase has anything to do; without working out what.
    pub(super) fn has_work(&self, phase: Phase) -> bool {
        let (chains, sets) = (&self.dirty_chains, &self.dirty_sets);
        match phase {
            Phase::Enforce => {
                (!self.has_table && self.is_wanted())
                    || self.offload.is_due()
                    || chains.iter().any(|name| self.is_chain_due(name))
                    || sets.iter().any(|name| self.is_set_due(name))
            }
            Phase::Withdraw => {
                self.is_table_doomed()
                    || !self.offload.doomed().is_empty()
                    || chains.iter().any(|name| self.is_chain_doomed(name))
                    || sets.iter().any(|name| self.is_set_doomed(name))
            }
            Phase::Provide | Phase::Connect => false,
        }
    }

    fn is_chain_due(&self, name: &str) -> bool {
        self.chains.get(name).is_some_and(|state| state.wanted.is_some()) && !self.is_chain_settled(name)
    }

    fn is_chain_doomed(&self, name: &str) -> bool {
        self.chains.get(name).is_some_and(|state| state.wanted.is_none() && state.held.is_there())
    }

    fn is_set_due(&self, name: &str) -> bool {
        let is_refused = self.quarantine.has(&super::quarantine::Thing::Set(name.to_owned()));
        !is_refused && self.sets.get(name).is_some_and(|set| set.is_wanted() && !set.is_settled())
    }

    fn is_set_doomed(&self, name: &str) -> bool {
        self.sets.get(name).is_some_and(|set| !set.is_wanted() && !matches!(set.actual, Actual::Absent))
    }

    /// What a phase changes, in words.
    pub(super) fn changes(&self, phase: Phase) -> Vec<String> {
        let (chains, sets) = (&self.dirty_chains, &self.dirty_sets);
        let mut changes = Vec::new();
        match phase {
            Phase::Enforce => {
                if !self.has_table && self.is_wanted() {
                    changes.push("create the table".to_owned());
                }
                let chains = chains.iter().filter(|name| self.is_chain_due(name));
                changes.extend(chains.map(|name| format!("write chain {name}")));
                let sets = sets.iter().filter(|name| self.is_set_due(name));
                changes.extend(sets.map(|name| format!("update set {name}")));
                changes.extend(self.offload.changes());
            }
            Phase::Withdraw => {
                let chains = chains.iter().filter(|name| self.is_chain_doomed(name));
                changes.extend(chains.map(|name| format!("delete chain {name}")));
                let sets = sets.iter().filter(|name| self.is_set_doomed(name));
                changes.extend(sets.map(|name| format!("delete set {name}")));
                changes.extend(self.offload.doomed().iter().map(|name| format!("delete flowtable {name}")));
                if self.is_table_doomed() {
                    changes.push("delete the table".to_owned());
                }
            }
            Phase::Provide | Phase::Connect => {}
        }
        changes
    }

    /// The table is there, and nobody wants anything of it.
    fn is_table_doomed(&self) -> bool {
        self.has_table && !self.is_wanted()
    }

    /// What a phase does.
    pub(super) fn steps(&self, phase: Phase) -> Steps {
        match phase {
            Phase::Enforce if self.has_work(phase) => self.enforcement(),
            Phase::Withdraw if self.has_work(phase) => self.withdrawal(),
            _ => Steps::default(),
        }
    }

    fn enforcement(&self) -> Steps {
        let mut steps = Steps::default();
        if !self.has_table {
            let comment = Some(lower::TABLE_COMMENT.to_owned());
            steps.prepare.push(Step::AddTable(Table { id: lower::table(self.version), comment }));
        }
        let rebuilt: BTreeSet<String> = self.rebuilt_sets();
        let mut writes: BTreeSet<String> = self.users_of(&rebuilt).into_iter().collect();
        let is_offload_rebuilt = self.offload.is_rebuilt();
        if is_offload_rebuilt {
            writes.extend(self.offloading_chains());
        } else if self.offload.is_due() {
            steps.prepare.push(Step::AddFlowtable);
        }
        writes.extend(self.dirty_chains.iter().filter(|name| self.is_chain_due(name)).cloned());
        let mut rules = (Vec::new(), Vec::new());
        let mut late_chains = Vec::new();
        // A rule that names the flowtable has to go before that can, also where the chain stays as it is.
        let is_small = rebuilt.is_empty() && !is_offload_rebuilt && writes.len() <= MAX_PATCHES;
        for name in &writes {
            match self.patch(name).filter(|_| is_small) {
                Some(patch) => rules.1.push(Step::Patch(patch)),
                None => self.write_chain(name, &mut steps, &mut late_chains, &mut rules),
            }
        }
        if !rebuilt.is_empty() || is_offload_rebuilt {
            // What is to go may look into them as well.
            let doomed = self.dirty_chains.iter().filter(|name| self.is_chain_doomed(name));
            steps.switch.extend(doomed.map(|name| Step::Flush(name.clone())));
        }
        if is_offload_rebuilt {
            let old = Step::DeleteFlowtable(lower::FLOWTABLE.to_owned());
            steps.switch.extend([old, Step::AddFlowtable]);
        }
        steps.switch.append(&mut late_chains);
        for name in self.dirty_sets.iter().filter(|name| self.is_set_due(name)) {
            self.write_set(name, &mut steps);
        }
        steps.prepare.append(&mut rules.0);
        steps.switch.append(&mut rules.1);
        steps.chains = writes.into_iter().collect();
        steps
    }

    /// Sets that the kernel has of another kind: they go and come in one transaction, and with them the rules that look
    /// into them.
    fn rebuilt_sets(&self) -> BTreeSet<String> {
        let is_unlike =
            |name: &&String| self.sets.get(*name).is_some_and(|set| matches!(set.actual, Actual::Unlike));
        self.dirty_sets.iter().filter(|name| self.is_set_due(name)).filter(is_unlike).cloned().collect()
    }

    fn patch(&self, name: &str) -> Option<Patch> {
        let (content, state) = (self.content(name)?, self.chains.get(name)?);
        let is_placed = state.held.is_placed_like(&content);
        Patch::between(&state.held, &content).filter(|_| is_placed)
    }

    fn write_chain(
        &self,
        name: &str,
        steps: &mut Steps,
        late_chains: &mut Vec<Step>,
        rules: &mut (Vec<Step>, Vec<Step>),
    ) {
        let (Some(content), Some(state)) = (self.content(name), self.chains.get(name)) else { return };
        let add = || Step::AddChain(content.chain.clone());
        let is_there = state.held.is_there();
        if is_there {
            steps.switch.push(Step::Flush(name.to_owned()));
        }
        if !is_there && content.chain.base.is_none() {
            steps.prepare.push(add());
        } else if !is_there {
            // The kernel enters it as soon as it is there.
            late_chains.push(add());
        } else if !state.held.is_placed_like(&content) {
            late_chains.extend([Step::DeleteChain(name.to_owned()), add()]);
        }
        if !content.rules.is_empty() {
            let awaits_offload = self.offload.is_rebuilt() && offloads(&content);
            let is_early = !is_there && content.chain.base.is_none() && !awaits_offload;
            if is_early { &mut rules.0 } else { &mut rules.1 }.push(Step::AddRules(content));
        }
    }

    fn write_set(&self, name: &str, steps: &mut Steps) {
        let Some(set) = self.sets.get(name) else { return };
        let Some(declaration) = set.declaration() else { return };
        match &set.actual {
            // It is read first.
            Actual::Unread => return,
            Actual::Tracked(difference) => {
                let all = |keys: &BTreeSet<_>| keys.iter().map(|key| set.element(key)).collect::<Vec<_>>();
                if !difference.delete.is_empty() {
                    let gone = difference.delete.iter().map(super::set::bare).collect();
                    steps.switch.push(Step::DeleteElements(declaration.clone(), gone));
                }
                if !difference.add.is_empty() {
                    steps.switch.push(Step::AddElements(declaration, all(&difference.add)));
                }
            }
            actual @ (Actual::Absent | Actual::Unlike) => {
                let is_there = matches!(actual, Actual::Unlike);
                let place = if is_there { &mut steps.switch } else { &mut steps.prepare };
                if is_there {
                    place.push(Step::DeleteSet(name.to_owned()));
                }
                place.push(Step::AddSet(declaration.clone()));
                let elements = set.elements();
                if !elements.is_empty() {
                    place.push(Step::AddElements(declaration, elements));
                }
            }
        }
        steps.sets.push(name.to_owned());
    }

    fn withdrawal(&self) -> Steps {
        let chains: Vec<&String> =
            self.dirty_chains.iter().filter(|name| self.is_chain_doomed(name)).collect();
        let sets: Vec<&String> = self.dirty_sets.iter().filter(|name| self.is_set_doomed(name)).collect();
        let mut switch: Vec<Step> = chains.iter().map(|name| Step::Flush((*name).clone())).collect();
        switch.extend(self.offload.doomed().into_iter().map(Step::DeleteFlowtable));
        switch.extend(sets.iter().map(|name| Step::DeleteSet((*name).clone())));
        switch.extend(chains.iter().map(|name| Step::DeleteChain((*name).clone())));
        if switch.is_empty() && self.is_table_doomed() {
            // Not before it is empty: a packet among its rules would find sets that are empty already.
            switch.push(Step::DeleteTable);
        }
        let owned = |names: Vec<&String>| names.into_iter().cloned().collect();
        Steps { prepare: Vec::new(), switch, chains: owned(chains), sets: owned(sets) }
    }
}

/// All there is to do in a table in one phase, in words.
#[derive(Clone, Debug)]
pub(super) struct TablePlan {
    /// The driver's name.
    pub(super) driver: String,
    /// The table must be read before anything can be said.
    pub(super) is_unread: bool,
    /// What is to change.
    pub(super) changes: Vec<String>,
}

impl Plan for TablePlan {
    fn is_empty(&self) -> bool {
        !self.is_unread && self.changes.is_empty()
    }
}

impl fmt::Display for TablePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Plan::is_empty(self) {
            return Ok(());
        }
        let what = if self.is_unread { "to be read".to_owned() } else { self.changes.join(", ") };
        write!(f, "{}: {what}", self.driver)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table) => write!(f, "add table {}", table.id),
            Self::DeleteTable => f.write_str("delete the table"),
            Self::AddFlowtable => f.write_str("add the flowtable"),
            Self::DeleteFlowtable(name) => write!(f, "delete flowtable {name}"),
            Self::AddChain(chain) => write!(f, "add chain {}", chain.name),
            Self::Flush(chain) => write!(f, "flush chain {chain}"),
            Self::AddRules(content) => write!(f, "{} rules of {}", content.rules.len(), content.chain.name),
            Self::Patch(patch) => write!(f, "patch chain {}", patch.new.chain.name),
            Self::DeleteChain(chain) => write!(f, "delete chain {chain}"),
            Self::AddSet(set) => write!(f, "add set {}", set.name),
            Self::AddElements(set, elements) => write!(f, "{} elements into {}", elements.len(), set.name),
            Self::DeleteElements(set, elements) => {
                write!(f, "{} elements out of {}", elements.len(), set.name)
            }
            Self::DeleteSet(set) => write!(f, "delete set {set}"),
        }
    }
}
