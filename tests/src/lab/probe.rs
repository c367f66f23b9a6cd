//! Asking what gets through: one flow per probe, all probes of a call at once.
//!
//! TCP and UDP pass when a reply that names the right destination comes back. SCTP, ICMP and other IP protocols pass
//! when the packet arrives in the destination's namespace, so the kernel needs no SCTP. A probe does not pass when
//! nothing came within the waiting time. Whatever keeps a probe from being sent is an error, never a "does not pass".
//!
//! Protocols without ports need care, as connection tracking takes a packet from B to A for the reply to the one
//! from A to B: those probes go one direction at a time, and the nodes forget their connections before each. They
//! also forget before fixed source ports are used, which an earlier call may have used.

mod conntrack;
mod engine;
mod open;
mod packet;
mod traffic;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::matrix::{Cell, Matrix};
use super::{Endpoint, Family, Host, Lab, LabError};
use engine::Flow;

pub use traffic::Traffic;

/// How long nothing must come before a probe counts as not passed.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(1);
/// Probes that are under way at the same time: each takes up to three descriptors.
const AT_ONCE: usize = 1000;

/// One question: does new traffic of this kind get from here to there?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The sender.
    pub from: Endpoint,
    /// The receiver; the lab listens there while the probe is under way.
    pub to: Endpoint,
    /// What is sent.
    pub traffic: Traffic,
    /// The address family; if `None`, IPv4 where both ends have it.
    pub family: Option<Family>,
}

impl Probe {
    /// A probe over IPv4 where both ends have it, else IPv6.
    pub fn new(from: Endpoint, to: Endpoint, traffic: Traffic) -> Self {
        Self { from, to, traffic, family: None }
    }
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {} {}", self.from, self.to, self.traffic)
    }
}

impl Lab {
    /// Sends all probes and says for each, in order, whether it passed.
    ///
    /// # Errors
    /// When a probe names an unknown endpoint or could not be sent.
    pub fn probe(&self, probes: &[Probe]) -> Result<Vec<bool>, LabError> {
        self.probe_within(probes, DEFAULT_WAIT)
    }

    /// [`probe`](Self::probe) with another waiting time.
    ///
    /// # Errors
    /// When a probe names an unknown endpoint or could not be sent.
    pub fn probe_within(&self, probes: &[Probe], wait: Duration) -> Result<Vec<bool>, LabError> {
        let flows: Vec<Flow<'_>> = probes.iter().map(|probe| self.flow(probe)).collect::<Result<_, _>>()?;
        let mut passed = vec![false; probes.len()];
        let (bare, rest): (Vec<usize>, Vec<usize>) =
            (0..probes.len()).partition(|&i| matches!(probes[i].traffic, Traffic::Ip { .. }));
        let (there, back): (Vec<usize>, Vec<usize>) =
            bare.into_iter().partition(|&i| probes[i].from < probes[i].to);
        for turn in rest.chunks(AT_ONCE).chain(there.chunks(AT_ONCE)).chain(back.chunks(AT_ONCE)) {
            if turn.iter().any(|&i| probes[i].traffic.reuses_flows()) {
                self.forget_connections()?;
            }
            let batch: Vec<&Flow<'_>> = turn.iter().map(|&i| &flows[i]).collect();
            for (&i, came) in turn.iter().zip(engine::run(&batch, wait)?) {
                passed[i] = came;
            }
        }
        Ok(passed)
    }

    /// Probes every pair of pods and outside hosts but outside to outside, and nodes' own processes not at all.
    ///
    /// # Errors
    /// When a probe could not be sent.
    pub fn matrix(&self, traffic: Traffic) -> Result<Matrix, LabError> {
        let ends: Vec<&Host> = self.hosts().filter(|h| !matches!(h.endpoint, Endpoint::Node(_))).collect();
        let mut probes = Vec::new();
        for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
            let is_outside = |host: &Host| matches!(host.endpoint, Endpoint::External(_));
            if from.endpoint != to.endpoint && !(is_outside(from) && is_outside(to)) {
                probes.push(Probe::new(from.endpoint.clone(), to.endpoint.clone(), traffic));
            }
        }
        let names: Vec<Endpoint> = ends.iter().map(|host| host.endpoint.clone()).collect();
        let mut matrix = Matrix::new(names.clone(), names);
        for (probe, passed) in probes.iter().zip(self.probe(&probes)?) {
            matrix.set(&probe.from, &probe.to, Cell::from(passed));
        }
        Ok(matrix)
    }

    /// Asks for the matrix until it is as `expected`, or `timeout` is over; returns the last one.
    ///
    /// # Errors
    /// When a probe could not be sent.
    pub fn matrix_becomes(
        &self,
        traffic: Traffic,
        expected: &Matrix,
        timeout: Duration,
    ) -> Result<Matrix, LabError> {
        let deadline = Instant::now() + timeout;
        loop {
            let matrix = self.matrix(traffic)?;
            if matrix.differences(expected).is_empty() || Instant::now() >= deadline {
                return Ok(matrix);
            }
        }
    }

    /// Makes every node forget the connections that it tracks.
    ///
    /// # Errors
    /// When a node's namespace cannot be entered.
    pub fn forget_connections(&self) -> Result<(), LabError> {
        self.hosts()
            .filter(|h| matches!(h.endpoint, Endpoint::Node(_)))
            .try_for_each(|node| conntrack::flush(&node.netns))
    }

    /// What a probe comes to in this lab.
    fn flow<'a>(&'a self, probe: &'a Probe) -> Result<Flow<'a>, LabError> {
        let (from, to) = (self.host(&probe.from)?, self.host(&probe.to)?);
        let wanted = match (probe.traffic, probe.family) {
            (Traffic::Icmp { .. }, None) => Some(Family::V4),
            (Traffic::Icmpv6 { .. }, None) => Some(Family::V6),
            (_, family) => family,
        };
        let pair = |family| Some((from.addresses.get(family)?, to.addresses.get(family)?));
        let common =
            [Family::V4, Family::V6].into_iter().filter(|f| wanted.is_none_or(|w| w == *f)).find_map(pair);
        let (source, destination) = common.ok_or_else(|| LabError::NoCommonFamily {
            from: probe.from.to_string(),
            to: probe.to.to_string(),
            traffic: probe.traffic.to_string(),
        })?;
        let id = self.probe_ids.fetch_add(1, Ordering::Relaxed);
        Ok(Flow { id, from, to, source, destination, traffic: probe.traffic })
    }
}

/// Groups values by the host that they concern, for one visit to each namespace.
fn by_host<'a, T>(
    items: impl IntoIterator<Item = (&'a Host, T)>,
) -> BTreeMap<&'a Endpoint, (&'a Host, Vec<T>)> {
    let mut groups = BTreeMap::new();
    for (host, item) in items {
        groups.entry(&host.endpoint).or_insert_with(|| (host, Vec::new())).1.push(item);
    }
    groups
}
