//! The difference between a table's wanted and its actual content. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tortie_rules::render::{InsertMode, RenderedChain, RenderedHook, RenderedRule, Table};

use super::save::{HookSlot, Slot};
use super::words::address_copies;
use crate::reconcile::Plan;

/// What a chain of ours holds in the kernel.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// What we wrote, or what reads exactly like it.
    Rendered(Arc<RenderedChain>),
    /// Something else, as it was read.
    Read(Vec<Slot>),
}

impl Held {
    /// Whether this is what is wanted.
    pub(super) fn is(&self, wanted: &Arc<RenderedChain>) -> bool {
        match self {
            Self::Rendered(held) => {
                Arc::ptr_eq(held, wanted)
                    || (held.rules.len() == wanted.rules.len()
                        && held.rules.iter().zip(&wanted.rules).all(|(a, b)| a.id == b.id))
            }
            Self::Read(slots) => reads_as(slots, &wanted.rules),
        }
    }
}

fn reads_as(slots: &[Slot], rules: &[RenderedRule]) -> bool {
    let mut slots_left = slots.iter();
    for rule in rules {
        // A list of addresses in one rule becomes several rules of the same id in the kernel.
        let copies = if slots.len() == rules.len() { 1 } else { address_copies(&rule.text) };
        for _ in 0..copies {
            if slots_left.next() != Some(&Slot::Rule(rule.id)) {
                return false;
            }
        }
    }
    slots_left.next().is_none()
}

/// A table's actual content, as it was read or as we left it.
#[derive(Clone, Debug, Default)]
pub(super) struct Actual {
    /// Our chains.
    pub(super) chains: BTreeMap<String, Held>,
    /// The kernel's chains.
    pub(super) kernel: BTreeMap<&'static str, Vec<HookSlot>>,
    /// Chains of ours that cannot be deleted, with the foreign chain that refers to them.
    pub(super) pinned: BTreeMap<String, String>,
}

/// A chain to be written as a whole.
#[derive(Clone, Debug)]
pub(super) struct ChainWrite {
    /// What it shall hold.
    pub(super) chain: Arc<RenderedChain>,
    /// It does not exist yet.
    pub(super) created: bool,
}

/// A kernel's chain in which our rules are to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookWrite {
    /// The kernel's chain.
    pub(super) chain: &'static str,
    /// Rules to delete by value.
    pub(super) remove: Vec<String>,
    /// Rules to put at the top, in the order in which they shall stand.
    pub(super) top: Vec<RenderedRule>,
    /// Rules to put at the end.
    pub(super) bottom: Vec<RenderedRule>,
    /// How many rules of others stand between them.
    foreign: usize,
}

impl HookWrite {
    /// What is to be done in this chain; `None` when all is as wanted.
    pub(super) fn plan(
        chain: &'static str,
        hook: Option<&RenderedHook>,
        mode: InsertMode,
        actual: &[HookSlot],
    ) -> Option<Self> {
        let (mut top, mut bottom) = (Vec::new(), Vec::new());
        if let Some(hook) = hook {
            let place = if mode == InsertMode::Insert { &mut top } else { &mut bottom };
            place.extend_from_slice(&hook.inserted);
            bottom.extend_from_slice(&hook.appended);
        }
        let foreign = actual.iter().filter(|slot| **slot == HookSlot::Foreign).count();
        let mut write = Self { chain, remove: Vec::new(), top, bottom, foreign };
        if write.is_in_place(actual) {
            return None;
        }
        write.remove = actual
            .iter()
            .filter_map(|slot| match slot {
                HookSlot::Ours { text, .. } => Some(text.clone()),
                HookSlot::Foreign => None,
            })
            .collect();
        Some(write)
    }

    fn is_in_place(&self, actual: &[HookSlot]) -> bool {
        let wanted = self.after();
        let same = |(a, b): (&HookSlot, &HookSlot)| match (a, b) {
            (HookSlot::Foreign, HookSlot::Foreign) => true,
            (HookSlot::Ours { id: a, .. }, HookSlot::Ours { id: b, .. }) => a == b,
            _ => false,
        };
        wanted.len() == actual.len() && wanted.iter().zip(actual).all(same)
    }

    /// What the chain holds once this is done.
    pub(super) fn after(&self) -> Vec<HookSlot> {
        let ours = |rule: &RenderedRule| HookSlot::Ours { id: Some(rule.id), text: rule.text.clone() };
        let foreign = std::iter::repeat_n(HookSlot::Foreign, self.foreign);
        self.top.iter().map(ours).chain(foreign).chain(self.bottom.iter().map(ours)).collect()
    }
}

/// One thing to do in a table.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Our rules in a kernel's chain.
    Hook(HookWrite),
    /// Content of a chain of ours.
    Write(ChainWrite),
    /// A chain of ours goes.
    Delete(String),
}

/// All there is to do in a table.
#[derive(Clone, Debug)]
pub(super) struct TablePlan {
    /// The driver's name.
    pub(super) driver: String,
    /// The table must be read before anything can be said.
    pub(super) is_unread: bool,
    /// What to do, hooks first, deletions last.
    pub(super) steps: Vec<Step>,
}

impl Plan for TablePlan {
    fn is_empty(&self) -> bool {
        !self.is_unread && self.steps.is_empty()
    }
}

/// One line with all names; with `{:#}` every rule on a line of its own.
impl fmt::Display for TablePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        write!(f, "{}:", self.driver)?;
        if self.is_unread {
            return f.write_str(" to be read");
        }
        for (index, step) in self.steps.iter().enumerate() {
            f.write_str(match (f.alternate(), index) {
                (true, _) => "\n",
                (false, 0) => " ",
                (false, _) => ", ",
            })?;
            step.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(hook) => {
                let (out, top, bottom) = (hook.remove.len(), hook.top.len(), hook.bottom.len());
                write!(f, "hook {} (-{out} +{top} top +{bottom} end)", hook.chain)?;
                rules(f, hook.top.iter().chain(&hook.bottom))
            }
            Self::Write(write) => {
                let verb = if write.created { "create" } else { "rewrite" };
                write!(f, "{verb} {} ({} rules)", write.chain.name, write.chain.rules.len())?;
                rules(f, write.chain.rules.iter())
            }
            Self::Delete(name) => write!(f, "delete {name}"),
        }
    }
}

fn rules<'a>(f: &mut fmt::Formatter<'_>, rules: impl Iterator<Item = &'a RenderedRule>) -> fmt::Result {
    if f.alternate() {
        for rule in rules {
            write!(f, "\n  {}", rule.text)?;
        }
    }
    Ok(())
}

/// The hooks' part of a plan.
pub(super) fn plan_hooks(
    table: Table,
    hooks: &[RenderedHook],
    mode: InsertMode,
    actual: &Actual,
) -> impl Iterator<Item = HookWrite> {
    table.kernel_chains().iter().filter_map(move |chain| {
        let hook = hooks.iter().find(|hook| hook.chain == *chain);
        HookWrite::plan(chain, hook, mode, actual.kernel.get(chain).map_or(&[][..], Vec::as_slice))
    })
}

#[cfg(test)]
mod tests;
