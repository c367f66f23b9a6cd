//! Connections of addresses whose owner is gone, taken out of the kernel's connection tracking.
//!
//! ```text
//!   forget(address) ──► pending ──► apply: find entries with this source, either direction ──► delete
//!                          ▲                                                            │ failed
//!                          └────────────────────────────────────────────────────────────┘
//! ```
//!
//! An entry outlives the workload that made it. Whoever gets the address next would inherit its flows: their
//! packets are ESTABLISHED and pass before any policy is asked. So entries go before the address is routed to
//! its next owner, and what is sent after that is judged as a new connection. Entries are nobody's property:
//! there is nothing to read at the start, and an address that was never given here is never touched.
//!
//! The source of the original direction is who began the connection; the source of the reply direction is who
//! really answers it, behind a service's address too. Of a floating address, behind which its workload answers, the
//! destination of the original direction counts as well.

pub(crate) mod marks;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use nix::errno::Errno;
use tortie_api::net::IpVersion;

use crate::netlink::{Batch, Channel, NetlinkError, Protocol, Refusal, Reply};
use crate::reconcile::{Driver, DriverError, Phase, Plan, Problem, Report};

use wire::{Direction, Entry, Wanted};

/// Up to this many IPv4 addresses are searched for one by one, in each direction, by the kernel. Each search
/// walks the whole table there; a full dump costs about six of them (100,000 entries: 220 ms against 40 ms).
const SEARCH_ONE_BY_ONE: usize = 3;

/// The driver that deletes conntrack entries, of both families and all zones.
#[derive(Debug)]
pub struct Conntrack {
    channel: Channel,
    pending: BTreeSet<IpAddr>,
    /// Those of `pending` that others were translated from.
    floating: BTreeSet<IpAddr>,
    /// Entries were refused since their packets skip the rules.
    met_offloaded: bool,
    /// It was said once that this kernel offers no access to its entries.
    warned: bool,
}

/// What deleting did.
#[derive(Debug, Default)]
struct Outcome {
    deleted: usize,
    /// Addresses of which an entry is still there, each with the first reason.
    refused: BTreeMap<IpAddr, Refusal>,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self::new()
    }
}

impl Conntrack {
    /// A driver for the network namespace of the thread that first uses it. No kernel call is made here.
    pub fn new() -> Self {
        Self {
            channel: Channel::new(Protocol::Netfilter),
            pending: BTreeSet::new(),
            floating: BTreeSet::new(),
            met_offloaded: false,
            warned: false,
        }
    }

    /// Remembers addresses that lost or changed their owner; no kernel call. The next apply of
    /// [`Phase::Connect`] deletes the connections that they began or answer.
    pub fn forget(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.pending.extend(addresses);
    }

    /// Whether the kernel refused since the last call to delete entries of which the packets skip the rules: before
    /// Linux 6.4 it does so until they no longer do.
    pub fn take_met_offloaded(&mut self) -> bool {
        std::mem::take(&mut self.met_offloaded)
    }

    /// The same for floating addresses: also the connections that were sent to them and that another address answers.
    pub fn forget_floating(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.floating.insert(address);
            self.pending.insert(address);
        }
    }

    fn delete_connections(
        &mut self,
        version: IpVersion,
        addresses: &BTreeSet<IpAddr>,
        outcome: &mut Outcome,
    ) -> Result<(), NetlinkError> {
        let entries = self.find(version, addresses)?;
        let mut batch = Batch::new();
        let mut first = 0;
        for (index, entry) in entries.iter().enumerate() {
            wire::delete(&mut batch, entry);
            if batch.is_full() || index + 1 == entries.len() {
                self.send(&mut batch, &entries[first..=index], addresses, outcome)?;
                batch.clear();
                first = index + 1;
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        batch: &mut Batch,
        entries: &[Entry],
        addresses: &BTreeSet<IpAddr>,
        outcome: &mut Outcome,
    ) -> Result<(), NetlinkError> {
        let mut kept = 0;
        let mut met_offloaded = false;
        self.channel.execute(batch, &mut |reply| {
            let Reply::Refused { index, refusal, .. } = reply else { return };
            kept += 1;
            // Ended by itself meanwhile, or found in both directions.
            if refusal.is(Errno::ENOENT) {
                return;
            }
            met_offloaded |= refusal.is(Errno::EBUSY);
            let Some(entry) = entries.get(index) else { return };
            let ends = entry.sources.into_iter().chain(entry.destination);
            for end in ends.filter(|end| addresses.contains(end)) {
                outcome.refused.entry(end).or_insert_with(|| refusal.clone());
            }
        })?;
        self.met_offloaded |= met_offloaded;
        outcome.deleted += entries.len() - kept;
        Ok(())
    }

    fn find(&mut self, version: IpVersion, addresses: &BTreeSet<IpAddr>) -> Result<Vec<Entry>, NetlinkError> {
        let floating: BTreeSet<IpAddr> = addresses.intersection(&self.floating).copied().collect();
        let wanted = Wanted { sources: addresses, destinations: &floating };
        // The kernel's filter on an IPv6 address lists the entries of all others (seen on Linux 6.18).
        if version == IpVersion::V4 && addresses.len() <= SEARCH_ONE_BY_ONE && floating.is_empty() {
            match self.search(wanted) {
                // Perhaps it only does not know the filter.
                Err(error) if is_unknown_to_kernel(&error) => {}
                result => return result,
            }
        }
        wire::list(&mut self.channel, version, None, wanted)
    }

    fn search(&mut self, wanted: Wanted<'_>) -> Result<Vec<Entry>, NetlinkError> {
        let mut entries = Vec::new();
        for address in wanted.sources {
            let IpAddr::V4(source) = *address else { continue };
            // The kernel combines conditions on both directions with "and".
            for direction in [Direction::Original, Direction::Reply] {
                let filter = Some((direction, source));
                entries.extend(wire::list(&mut self.channel, IpVersion::V4, filter, wanted)?);
            }
        }
        Ok(entries)
    }

    /// Notes what became of a family's addresses: those that are done are no longer pending.
    fn settle(
        &mut self,
        version: IpVersion,
        addresses: &BTreeSet<IpAddr>,
        refused: &BTreeMap<IpAddr, Refusal>,
        result: Result<(), NetlinkError>,
    ) -> Vec<Problem> {
        match result {
            Ok(()) => {
                self.pending.retain(|address| !addresses.contains(address) || refused.contains_key(address));
                let problem = |(address, refusal): (&IpAddr, &Refusal)| Problem {
                    object: format!("conntrack entries of {address}"),
                    error: format!("cannot delete them: {refusal}"),
                };
                refused.iter().map(problem).collect()
            }
            Err(error) if is_unknown_to_kernel(&error) => {
                if !self.warned {
                    tracing::warn!(
                        error = error.words(),
                        "this kernel gives no access to conntrack entries; connections outlive their workloads"
                    );
                    self.warned = true;
                }
                self.pending.retain(|address| !addresses.contains(address));
                Vec::new()
            }
            Err(error) => {
                vec![Problem { object: format!("{version} conntrack entries"), error: error.words() }]
            }
        }
    }
}

/// Whether the kernel has no such socket or does not know such requests: `nfnetlink` or `nf_conntrack_netlink`
/// is missing. Trying again would not help.
fn is_unknown_to_kernel(error: &NetlinkError) -> bool {
    let errno = match error {
        NetlinkError::Open(source) => source.raw_os_error(),
        NetlinkError::Refused(refusal) => Some(refusal.errno),
        _ => None,
    };
    let known = [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT];
    errno.is_some_and(|errno| known.contains(&Errno::from_raw(errno)))
}

impl Driver for Conntrack {
    fn name(&self) -> String {
        "conntrack".to_owned()
    }

    /// Nothing to read: what has to go is searched for when it is known whose it is.
    fn observe(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        let addresses =
            if phase == Phase::Connect { self.pending.iter().copied().collect() } else { Vec::new() };
        Box::new(ForgetPlan(addresses))
    }

    fn apply(&mut self, phase: Phase) -> Report {
        let mut report = Report::default();
        if phase != Phase::Connect {
            return report;
        }
        let before = self.channel.requests();
        for version in [IpVersion::V4, IpVersion::V6] {
            let is_v4 = version == IpVersion::V4;
            let addresses: BTreeSet<IpAddr> =
                self.pending.iter().copied().filter(|address| address.is_ipv4() == is_v4).collect();
            if addresses.is_empty() {
                continue;
            }
            let mut outcome = Outcome::default();
            let result = self.delete_connections(version, &addresses, &mut outcome);
            report.changed += outcome.deleted;
            report.problems.extend(self.settle(version, &addresses, &outcome.refused, result));
        }
        self.floating.retain(|address| self.pending.contains(address));
        report.calls = self.channel.requests() - before;
        report
    }
}

/// The addresses whose connections are to end.
struct ForgetPlan(Vec<IpAddr>);

impl Plan for ForgetPlan {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for ForgetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, address) in self.0.iter().enumerate() {
            if line > 0 {
                writeln!(f)?;
            }
            write!(f, "delete the conntrack entries of {address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
