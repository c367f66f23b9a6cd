//! A table's desired and actual content side by side. Pure: no kernel call, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_rules::render::{InsertMode, RenderedChain, RenderedHook, Table, TableChange};

use super::plan::{Actual, ChainWrite, Held, Step, plan_hooks};
use super::quarantine::{Quarantine, Retry, closed_chain, malformation, top_down};
use super::save::{Listed, Snapshot, is_ours};

/// Longest chain name that `iptables` takes: `XT_EXTENSION_MAXNAMELEN` of linux/netfilter/x_tables.h, less the end.
const MAX_CHAIN_NAME: usize = 28;

/// What is wanted of a table, what is there, and what could not be brought together.
#[derive(Debug)]
pub(super) struct State {
    table: Table,
    workloads: Vec<String>,
    desired: BTreeMap<String, Arc<RenderedChain>>,
    hooks: Vec<RenderedHook>,
    mode: InsertMode,
    /// `None` until the table is read, and again after a failure that leaves its content open.
    actual: Option<Actual>,
    /// What was known last, while `actual` is not.
    last: Option<Actual>,
    /// Chains that may differ. Everything else is known to be as wanted.
    dirty: BTreeSet<String>,
    quarantine: Quarantine,
    /// Wishes that are never carried out, e.g. a chain with somebody else's name.
    refused: BTreeMap<String, String>,
}

impl State {
    /// Nothing wanted, nothing known.
    pub(super) fn new(table: Table, workloads: Vec<String>) -> Self {
        Self {
            table,
            workloads,
            desired: BTreeMap::new(),
            hooks: Vec::new(),
            mode: InsertMode::default(),
            actual: None,
            last: None,
            dirty: BTreeSet::new(),
            quarantine: Quarantine::default(),
            refused: BTreeMap::new(),
        }
    }

    /// Takes a change of what is wanted.
    pub(super) fn change(&mut self, change: TableChange) {
        match change {
            TableChange::Chain(chain) => self.want(chain),
            TableChange::NoChain(name) => {
                self.refused.remove(&name);
                if self.desired.remove(&name).is_some() {
                    self.quarantine.release(&name);
                    self.dirty.insert(name);
                }
            }
            TableChange::Hooks(hooks, mode) => self.want_hooks(hooks, mode),
        }
    }

    fn want(&mut self, chain: Arc<RenderedChain>) {
        let name = chain.name.clone();
        self.refused.remove(&name);
        if let Some(reason) = name_fault(&name) {
            self.refused.insert(name, reason);
            return;
        }
        let is_same = self.desired.get(&name).is_some_and(|old| old.rules == chain.rules);
        if !is_same {
            self.quarantine.release(&name);
            if let Some(error) = malformation(&chain) {
                self.quarantine.close(&name, error, Retry::Never);
            }
            self.dirty.insert(name.clone());
            self.desired.insert(name, chain);
        }
    }

    fn want_hooks(&mut self, hooks: Vec<RenderedHook>, mode: InsertMode) {
        self.refused.retain(|_, reason| !reason.starts_with("hook"));
        self.hooks.clear();
        for hook in hooks {
            let all = hook.inserted.iter().chain(&hook.appended);
            let rules = RenderedChain { name: hook.chain.clone(), rules: all.cloned().collect() };
            if !self.table.kernel_chains().contains(&hook.chain.as_str()) {
                let reason = format!("hook: {} has no such chain", self.table);
                self.refused.insert(hook.chain, reason);
            } else if let Some(error) = malformation(&rules) {
                self.refused.insert(hook.chain, format!("hook: {error}"));
            } else {
                self.hooks.push(hook);
            }
        }
        self.mode = mode;
        // What stands in for a closed chain depends on whether a hook leads to it.
        self.dirty.extend(self.quarantine.faults().map(|(chain, _)| chain.to_owned()));
    }

    /// Takes what was read.
    pub(super) fn observed(&mut self, snapshot: Snapshot) {
        let Snapshot { chains, kernel, pinned, .. } = snapshot;
        let chains = chains.into_iter().map(|(name, slots)| (name, Held::Read(slots))).collect();
        self.actual = Some(Actual { chains, kernel, pinned });
        self.last = None;
        self.quarantine.set_due();
        let names: Vec<String> = self.desired.keys().chain(self.actual_names()).cloned().collect();
        for name in names {
            self.settle_chain(&name);
        }
    }

    /// Takes what was read of one chain.
    pub(super) fn observed_chain(&mut self, name: &str, listed: Listed) {
        let Some(actual) = &mut self.actual else { return };
        match listed {
            Listed::Kernel(chain, slots) => {
                actual.kernel.insert(chain, slots);
                return;
            }
            Listed::Ours(slots) => actual.chains.insert(name.to_owned(), Held::Read(slots)),
            Listed::Nothing => actual.chains.remove(name),
        };
        self.settle_chain(name);
    }

    fn actual_names(&self) -> impl Iterator<Item = &String> {
        self.actual.iter().flat_map(|actual| actual.chains.keys())
    }

    /// Updates whether a chain is dirty, and replaces what was read by what it is equal to.
    fn settle_chain(&mut self, name: &str) {
        if self.step(name).is_some() {
            self.dirty.insert(name.to_owned());
            return;
        }
        self.dirty.remove(name);
        let wanted = self.wanted(name);
        let held = self.actual.as_mut().and_then(|actual| actual.chains.get_mut(name));
        if let (Some(held), Some(wanted)) = (held, wanted) {
            *held = Held::Rendered(wanted);
        }
    }

    /// The table's content is open: it must be read before the next plan.
    pub(super) fn forget(&mut self) {
        if self.actual.is_some() {
            self.last = self.actual.take();
        }
    }

    /// Takes what was known last, if anything was, for the table's content.
    pub(super) fn assume_last(&mut self) {
        if self.actual.is_none() {
            self.actual = self.last.take();
        }
    }

    /// Whether the table's content is known.
    pub(super) fn is_known(&self) -> bool {
        self.actual.is_some()
    }

    /// What the chain shall hold now, its quarantine considered.
    fn wanted(&self, name: &str) -> Option<Arc<RenderedChain>> {
        if let Some(chain) = self.desired.get(name) {
            return Some(if self.quarantine.has(name) { self.closed(name) } else { Arc::clone(chain) });
        }
        let is_pinned = self.actual.as_ref().is_some_and(|actual| actual.pinned.contains_key(name));
        is_pinned.then(|| Arc::new(RenderedChain { name: name.to_owned(), rules: Vec::new() }))
    }

    fn closed(&self, name: &str) -> Arc<RenderedChain> {
        closed_chain(name, self.table, &self.hooks, &self.workloads)
    }

    /// What is to be done about a chain.
    pub(super) fn step(&self, name: &str) -> Option<Step> {
        let held = self.actual.as_ref().and_then(|actual| actual.chains.get(name));
        match (self.wanted(name), held) {
            (Some(wanted), Some(held)) if held.is(&wanted) => None,
            (Some(chain), held) => Some(Step::Write(ChainWrite { chain, created: held.is_none() })),
            (None, Some(_)) => Some(Step::Delete(name.to_owned())),
            (None, None) => None,
        }
    }

    /// All there is to do, retries of closed chains apart. `None` when the table must be read first.
    pub(super) fn steps(&self) -> Option<Vec<Step>> {
        let actual = self.actual.as_ref()?;
        let hooks = plan_hooks(self.table, &self.hooks, self.mode, actual);
        let mut steps: Vec<Step> = hooks.map(Step::Hook).collect();
        let (deletes, writes): (Vec<Step>, Vec<Step>) = self
            .dirty
            .iter()
            .filter_map(|name| self.step(name))
            .partition(|step| matches!(step, Step::Delete(_)));
        steps.extend(writes);
        steps.extend(deletes);
        Some(steps)
    }

    /// The steps that would open closed chains whose time has come.
    pub(super) fn retries(&self) -> Vec<Step> {
        self.retries_of(self.quarantine.due())
    }

    /// The same; they are not due again before the next resync.
    pub(super) fn take_retries(&mut self) -> Vec<Step> {
        let due = self.quarantine.take_due();
        self.retries_of(due.iter().map(String::as_str))
    }

    fn retries_of<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Step> {
        let chains = names.filter_map(|name| self.desired.get(name).cloned());
        chains.map(|chain| Step::Write(ChainWrite { chain, created: false })).collect()
    }

    /// These steps are done.
    pub(super) fn believe(&mut self, steps: &[Step]) {
        let Some(actual) = &mut self.actual else { return };
        let mut names = Vec::new();
        for step in steps {
            match step {
                Step::Hook(hook) => {
                    actual.kernel.insert(hook.chain, hook.after());
                }
                Step::Write(write) => {
                    let held = Held::Rendered(Arc::clone(&write.chain));
                    let name = &write.chain.name;
                    if self.desired.get(name).is_some_and(|desired| held.is(desired)) {
                        self.quarantine.release(name);
                    }
                    actual.chains.insert(name.clone(), held);
                    names.push(name);
                }
                Step::Delete(name) => {
                    actual.chains.remove(name);
                    names.push(name);
                }
            }
        }
        for name in names {
            self.settle_chain(name);
        }
    }

    /// Whether the chain shall exist.
    pub(super) fn is_desired(&self, chain: &str) -> bool {
        self.desired.contains_key(chain)
    }

    /// Whether this is what stands in for a closed chain.
    pub(super) fn is_closed(&self, chain: &RenderedChain) -> bool {
        self.quarantine.has(&chain.name)
            && self.desired.get(&chain.name).is_none_or(|desired| desired.rules != chain.rules)
    }

    /// Closes a chain. `false` when it is closed already.
    pub(super) fn close(&mut self, chain: &str, error: String) -> bool {
        let is_new = !self.quarantine.has(chain);
        self.quarantine.close(chain, error, Retry::AfterResync);
        self.dirty.insert(chain.to_owned());
        is_new
    }

    /// Takes back [`Self::close`]: the chain was not to blame.
    pub(super) fn reopen(&mut self, chain: &str) {
        self.quarantine.release(chain);
        self.dirty.insert(chain.to_owned());
    }

    /// Steps that create closed what these steps would create.
    pub(super) fn skeleton(&self, steps: &[Step]) -> Vec<Step> {
        let created = steps.iter().filter_map(|step| match step {
            Step::Write(write) if write.created => Some(self.closed(&write.chain.name)),
            _ => None,
        });
        created.map(|chain| Step::Write(ChainWrite { chain, created: true })).collect()
    }

    /// Orders steps so that a chain comes before those that it refers to, and hooks before all.
    pub(super) fn sort_top_down(&self, steps: &mut [Step]) {
        let order = top_down(&self.hooks, &self.desired);
        let ranks: BTreeMap<&str, usize> = order.into_iter().zip(1..).collect();
        steps.sort_by_key(|step| match step {
            Step::Hook(_) => 0,
            Step::Write(write) => *ranks.get(write.chain.name.as_str()).unwrap_or(&usize::MAX),
            Step::Delete(_) => usize::MAX,
        });
    }

    /// What stays wrong until something changes: object and error.
    pub(super) fn standing_faults(&self) -> Vec<(String, String)> {
        let closed = self.quarantine.faults().map(|(chain, fault)| {
            (format!("chain {chain}"), format!("refused, what it guards is closed: {}", fault.error))
        });
        let refused = self.refused.iter().map(|(name, reason)| (format!("chain {name}"), reason.clone()));
        let pinned = self.actual.iter().flat_map(|actual| &actual.pinned);
        let pinned = pinned.filter(|(chain, _)| !self.desired.contains_key(*chain)).map(|(chain, by)| {
            (format!("chain {chain}"), format!("not wanted, but {by} refers to it: emptied and kept"))
        });
        closed.chain(refused).chain(pinned).collect()
    }
}

fn name_fault(name: &str) -> Option<String> {
    if !is_ours(name) {
        return Some("not a name of ours: left alone".to_owned());
    }
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    (name.len() > MAX_CHAIN_NAME || !is_plain)
        .then(|| format!("not a chain name of at most {MAX_CHAIN_NAME} printable characters"))
}

#[cfg(test)]
mod tests;
