//! Finds the chains that make the kernel refuse a table as a whole.
//!
//! What a rule may do depends on the hooks that lead to it, and how deep jumps may go on all of them. The kernel looks
//! at that whenever a jump is added, and refuses that jump, wherever the fault is. So the culprits are searched for:
//! by asking what would be refused if these or those chains were closed, halves of halves.

use nix::errno::Errno;

use super::NftTable;
use super::plan::Steps;
use super::quarantine::Thing;
use crate::nft::{CommitError, Failure};
use crate::reconcile::{Driver, Phase};

/// So often the kernel is asked at most.
const BUDGET: usize = 256;

/// Whether the refusals are about how chains lead to each other.
pub(super) fn is_about_paths(failures: &[Failure]) -> bool {
    let about = [Errno::EOPNOTSUPP, Errno::ELOOP, Errno::EMLINK];
    let is_about = |failure: &Failure| about.iter().any(|errno| failure.refusal.is(*errno));
    !failures.is_empty() && failures.iter().all(is_about)
}

impl NftTable {
    /// Closes as few of the chains that are to be written as it takes. `false` if that does not help.
    pub(super) fn isolate(&mut self, steps: &Steps, failures: &[Failure]) -> bool {
        let is_plain = |name: &&String| {
            self.state.content(name).is_some_and(|content| content.chain.base.is_none())
                && !self.is_closed(&Thing::Chain((*name).clone()))
        };
        let mut candidates: Vec<String> = steps.chains.iter().filter(is_plain).cloned().collect();
        // Of chains that lead to each other the last ones are found: what leads there stays open.
        let depths = self.state.depths();
        candidates.sort_by_key(|name| depths.get(name).copied().unwrap_or(usize::MAX));
        let mut budget = BUDGET;
        let Ok(culprits) = self.culprits(&candidates, &mut Vec::new(), &mut budget) else { return false };
        let error = failures.first().map(|failure| failure.refusal.to_string()).unwrap_or_default();
        let mut is_new = false;
        for chain in culprits {
            is_new |= self.set_aside(Thing::Chain(chain), error.clone());
        }
        is_new
    }

    /// The ones of `candidates` that must be closed beside `closed` for the rest to be taken.
    fn culprits(
        &mut self,
        candidates: &[String],
        closed: &mut Vec<String>,
        budget: &mut usize,
    ) -> Result<Vec<String>, CommitError> {
        if *budget == 0 || candidates.is_empty() || self.would_be_taken(closed)? {
            return Ok(Vec::new());
        }
        *budget -= 1;
        if candidates.len() == 1 {
            return Ok(candidates.to_vec());
        }
        let (first, second) = candidates.split_at(candidates.len() / 2);
        let before = closed.len();
        closed.extend_from_slice(second);
        let mut found = self.culprits(first, closed, budget)?;
        closed.truncate(before);
        closed.extend_from_slice(&found);
        found.extend(self.culprits(second, closed, budget)?);
        closed.truncate(before);
        Ok(found)
    }

    /// Whether the kernel would take the table with these chains closed. Nothing comes into force.
    fn would_be_taken(&mut self, closed: &[String]) -> Result<bool, CommitError> {
        let things: Vec<Thing> = closed.iter().map(|name| Thing::Chain(name.clone())).collect();
        for thing in &things {
            self.state.quarantine.close(thing.clone(), String::new());
        }
        let steps = self.state.steps(Phase::Enforce);
        for thing in &things {
            self.state.quarantine.release(thing);
        }
        let mut transaction = self.transaction(&steps);
        tracing::debug!(driver = self.name(), closed = closed.len(), "asking what would be refused");
        self.socket.probe(&mut transaction).map(|failures| failures.is_empty())
    }
}
