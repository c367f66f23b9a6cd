//! Finds the chains that make the kernel refuse a table as a whole.
//!
//! What a rule may do depends on the hooks that lead to it, and how deep jumps may go on all of them. The kernel looks
//! at that when all else is right, and refuses the jumps, wherever the fault is. So the culprits are searched for, by
//! closing these or those chains, halves of halves, until the table is taken. What need not have been closed is opened
//! in the next transaction.

use nix::errno::Errno;

use super::NftTable;
use super::quarantine::Thing;
use crate::nft::{CommitError, Failure};
use crate::reconcile::{Driver, Phase};

/// So often it is tried at most.
const BUDGET: usize = 256;

/// Whether the refusals are about how chains lead to each other.
pub(super) fn is_about_paths(failures: &[Failure]) -> bool {
    let about = [Errno::EOPNOTSUPP, Errno::ELOOP, Errno::EMLINK];
    let is_about = |failure: &Failure| about.iter().any(|errno| failure.refusal.is(*errno));
    !failures.is_empty() && failures.iter().all(is_about)
}

impl NftTable {
    /// Closes as few chains as it takes: of all, since the culprit may be there already, with nothing leading to it.
    /// `false` if that does not help.
    pub(super) fn isolate(&mut self, failures: &[Failure]) -> bool {
        let is_plain = |name: &&String| {
            self.state.content(name).is_some_and(|content| content.chain.base.is_none())
                && !self.is_closed(&Thing::Chain((*name).clone()))
        };
        let mut candidates: Vec<String> = self.state.chains.keys().filter(is_plain).cloned().collect();
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
        if *budget == 0 || candidates.is_empty() || self.is_taken(closed)? {
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

    /// Whether the kernel takes the table with these chains closed.
    fn is_taken(&mut self, closed: &[String]) -> Result<bool, CommitError> {
        tracing::debug!(driver = self.name(), closed = closed.len(), "looking for what is refused");
        let things: Vec<Thing> = closed.iter().map(|name| Thing::Chain(name.clone())).collect();
        for thing in &things {
            self.state.quarantine.close(thing.clone(), String::new());
        }
        closed.iter().for_each(|name| self.state.settle_chain(name));
        let steps = self.state.steps(Phase::Enforce);
        let outcome = self.commit(&steps);
        if outcome.is_ok() {
            self.state.believe(&steps);
        }
        for thing in &things {
            self.state.quarantine.release(thing);
        }
        closed.iter().for_each(|name| self.state.settle_chain(name));
        match outcome {
            Ok(()) => Ok(true),
            Err(CommitError::Refused { ahead: 0, .. }) => Ok(false),
            // What went ahead is not known here.
            Err(error) => {
                self.state.is_known = false;
                Err(error)
            }
        }
    }
}
