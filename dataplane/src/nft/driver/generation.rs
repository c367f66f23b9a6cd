//! Generations of policy, by which established connections are judged anew when it changes.
//!
//! ```text
//!   rules change ──► committed ──► the next generation, in a transaction of its own
//!                                      │ its number was in use before
//!                                      └─ first the connections that still carry it lose it
//! ```
//!
//! Not in the transaction of the change: a packet under way can see rules of a transaction before the elements that
//! came with them, and a connection that passed by the old elements would count as judged by the new ones.
//!
//! Which generation is in force says the kernel's rule ([`KNOWN`]). An agent that begins goes on from there with the
//! next one: what was changed meanwhile, or changed and not yet told to connections, is told then. Where there is no such
//! rule, marks may be left of an earlier life, and are taken away.

use nix::errno::Errno;
use tortie_rules::render::nft::established::{
    ASK_EARLY, EARLY, Generation, KNOWN, MarkFilter, Revocation, Surroundings,
};

use super::NftTable;
use crate::conntrack::marks::{Clearing, clear};
use crate::netlink::{Channel, NetlinkError, Protocol};
use crate::reconcile::{Phase, Report};

/// What connections are told.
#[derive(Debug)]
pub(super) struct Revoker {
    revocation: Revocation,
    around: Surroundings,
    /// In force, or about to be; `None` until the kernel was asked.
    current: Option<Generation>,
    /// Policy has changed since it began.
    is_due: bool,
    /// Marks of an earlier life may be there.
    has_leftovers: bool,
    conntrack: Channel,
}

impl Revoker {
    /// Whether the kernel has still to be asked.
    pub(super) const fn is_new(&self) -> bool {
        self.current.is_none()
    }
}

impl NftTable {
    /// Wants established connections to be judged anew when rules change. No kernel call.
    pub fn want_revocation(&mut self, revocation: Revocation) {
        self.revoker = Some(Revoker {
            revocation,
            around: Surroundings::default(),
            current: None,
            is_due: false,
            has_leftovers: false,
            conntrack: Channel::new(Protocol::Netfilter),
        });
    }

    /// Notes whether kube-proxy uses IPVS on this node. No kernel call.
    pub fn set_ipvs(&mut self, is_ipvs: bool) {
        if let Some(revoker) = &mut self.revoker {
            revoker.around.is_ipvs = is_ipvs;
            self.want_generation();
        }
    }

    /// Brings the rules in line, and tells connections when they changed. What connections could not be told is a problem
    /// and holds up nothing.
    pub(super) fn settle_and_tell(&mut self, phase: Phase, report: &mut Report) -> Result<(), String> {
        if phase != Phase::Enforce || self.revoker.is_none() {
            return self.settle(phase, report);
        }
        // Rules that ask what is known must not come without those that tell it.
        let is_first = self.begin().map_err(|error| error.words())?;
        self.look_around();
        let before = report.changed;
        let outcome = self.settle(phase, report);
        if let Some(revoker) = &mut self.revoker {
            // Of what failed, a part may be in force.
            revoker.is_due |= (report.changed > before && !is_first) || outcome.is_err();
        }
        outcome?;
        if let Err(error) = self.advance() {
            let error = format!("policy has changed, and established connections go on: {}", error.words());
            report.problems.push(self.problem("marks of connections", error));
            return Ok(());
        }
        self.settle(phase, report)
    }

    /// Finds out which generation is in force. Returns whether there was none.
    fn begin(&mut self) -> Result<bool, NetlinkError> {
        let Some(revoker) = &mut self.revoker else { return Ok(false) };
        if !revoker.is_new() {
            return Ok(false);
        }
        let rules = self.socket.rules(&self.id, Some(KNOWN));
        let rules = match rules {
            Err(error) if error.refusal().is_some_and(|refusal| refusal.is(Errno::ENOENT)) => Vec::new(),
            rules => rules?,
        };
        let rules: Option<Vec<_>> = rules.into_iter().map(|entry| entry.rule.ok()).collect();
        let found = rules.and_then(|rules| revoker.revocation.read(&rules));
        revoker.current = Some(found.unwrap_or_else(|| revoker.revocation.first()));
        (revoker.is_due, revoker.has_leftovers) = (true, found.is_none());
        let is_first = found.is_none();
        if is_first {
            // Before any connection gets a mark; where that fails it is tried again behind.
            let is_clean = self.clear_leftovers().is_ok();
            if let Some(revoker) = &mut self.revoker {
                revoker.is_due = !is_clean;
            }
        }
        self.want_generation();
        Ok(is_first)
    }

    /// Wants the next generation, if that is due.
    fn advance(&mut self) -> Result<(), NetlinkError> {
        self.clear_leftovers()?;
        let Some(revoker) = &mut self.revoker else { return Ok(()) };
        let (Some(current), true) = (revoker.current, revoker.is_due) else { return Ok(()) };
        let revocation = revoker.revocation;
        let next = revocation.next(current);
        if let Some(filter) = revocation.reused(next) {
            self.clear(Some(filter), &|mark| revocation.is_generation(mark))?;
        }
        if let Some(revoker) = &mut self.revoker {
            (revoker.current, revoker.is_due) = (Some(next), false);
        }
        self.want_generation();
        Ok(())
    }

    fn clear_leftovers(&mut self) -> Result<(), NetlinkError> {
        let Some(revoker) = self.revoker.as_ref().filter(|revoker| revoker.has_leftovers) else {
            return Ok(());
        };
        let bits = revoker.revocation.mask();
        self.clear(None, &|mark| mark & bits != 0)?;
        if let Some(revoker) = &mut self.revoker {
            revoker.has_leftovers = false;
        }
        Ok(())
    }

    fn clear(
        &mut self,
        filter: Option<MarkFilter>,
        is_meant: &dyn Fn(u32) -> bool,
    ) -> Result<(), NetlinkError> {
        let Some(revoker) = &mut self.revoker else { return Ok(()) };
        let bits = revoker.revocation.mask();
        let count = clear(&mut revoker.conntrack, self.version, &Clearing { bits, filter, is_meant })?;
        tracing::debug!(version = %self.version, count, "marks of connections cleared");
        Ok(())
    }

    /// Looks whether what is known is asked for early.
    fn look_around(&mut self) {
        let chains = self.state.chains.range(ASK_EARLY.to_owned()..);
        let mut asking = chains.take_while(|(name, _)| name.starts_with(ASK_EARLY));
        let is_asked_early = asking.any(|(_, chain)| chain.wanted.is_some());
        if let Some(revoker) = &mut self.revoker
            && revoker.around.is_asked_early != is_asked_early
        {
            revoker.around.is_asked_early = is_asked_early;
            self.want_generation();
        }
    }

    fn want_generation(&mut self) {
        let Some(revoker) = &self.revoker else { return };
        let Some(current) = revoker.current else { return };
        let chains = revoker.revocation.chains(current, revoker.around);
        if !revoker.around.is_asked_early {
            self.state.unwant_chain(EARLY);
        }
        chains.into_iter().for_each(|content| self.state.want_chain(content));
    }
}
