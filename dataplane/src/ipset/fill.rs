//! Sending the creation and the members of many sets, and finding out what became of each.
//!
//! Everything goes into one stream of messages, cut into sends by size only: small changes of a hundred
//! sets are one send. Each message's slot remembers which members it carried.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::codec::{self, Change, Connection, Strictness};
use super::errors;
use super::member::{Member, SetSpec};
use crate::netlink::{Batch, NetlinkError, Refusal, Reply};

/// Work on one set of the kernel, and afterwards its outcome.
#[derive(Debug)]
pub(super) struct Job {
    /// The name in the kernel: the set's own, or a temporary one.
    pub(super) target: String,
    pub(super) spec: SetSpec,
    /// The revision to create it with; `None` when it exists.
    pub(super) create: Option<u8>,
    /// Sorted.
    pub(super) delete: Vec<Member>,
    /// Sorted.
    pub(super) add: Vec<Member>,
    pub(super) outcome: Outcome,
}

/// What became of a job.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The set could not be created.
    pub(super) create_refused: Option<Refusal>,
    /// Members that are still to be added or deleted.
    pub(super) not_added: Vec<Member>,
    pub(super) not_deleted: Vec<Member>,
    /// Someone else changed the set, or removed it.
    pub(super) drifted: bool,
    /// The set holds no more.
    pub(super) full: bool,
    /// Members that the kernel does not take.
    pub(super) refused: BTreeMap<Member, String>,
    /// Anything else.
    pub(super) failure: Option<String>,
}

/// What one message carried: a part of a job.
#[derive(Clone, Copy, Debug)]
enum Part {
    Create,
    Members { change: Change, start: usize, end: usize },
}

/// Does the jobs, in order. On error nothing is known about any of them.
pub(super) fn run(
    connection: &mut Connection,
    jobs: &mut [Job],
    strictness: Strictness,
) -> Result<(), NetlinkError> {
    let mut stream = Stream { connection, batch: Batch::new(), slots: Vec::new(), strictness };
    for index in 0..jobs.len() {
        stream.write(jobs, index)?;
    }
    stream.flush(jobs)
}

struct Stream<'a> {
    connection: &'a mut Connection,
    batch: Batch,
    slots: Vec<(usize, Part)>,
    strictness: Strictness,
}

impl Stream<'_> {
    fn write(&mut self, jobs: &mut [Job], index: usize) -> Result<(), NetlinkError> {
        if let Some(revision) = jobs[index].create {
            let job = &jobs[index];
            codec::create(&mut self.batch, self.connection.version(), revision, &job.target, &job.spec);
            self.slot(jobs, index, Part::Create)?;
        }
        for change in [Change::Delete, Change::Add] {
            let mut start = 0;
            while start < jobs[index].members(change).len() {
                let job = &jobs[index];
                let rest = &job.members(change)[start..];
                let version = self.connection.version();
                let taken =
                    codec::change(&mut self.batch, version, &job.target, change, rest, self.strictness);
                let end = start + taken;
                self.slot(jobs, index, Part::Members { change, start, end })?;
                start = end;
            }
        }
        Ok(())
    }

    fn slot(&mut self, jobs: &mut [Job], index: usize, part: Part) -> Result<(), NetlinkError> {
        self.slots.push((index, part));
        if self.batch.is_full() { self.flush(jobs) } else { Ok(()) }
    }

    fn flush(&mut self, jobs: &mut [Job]) -> Result<(), NetlinkError> {
        let slots = &self.slots;
        let result = self.connection.channel.execute(&mut self.batch, &mut |reply| {
            if let Reply::Refused { index, refusal, request } = reply
                && let Some((job, part)) = slots.get(index)
            {
                jobs[*job].refuse(*part, refusal, codec::failed_line(request));
            }
        });
        self.batch.clear();
        self.slots.clear();
        result
    }
}

impl Job {
    fn members(&self, change: Change) -> &[Member] {
        match change {
            Change::Add => &self.add,
            Change::Delete => &self.delete,
        }
    }

    /// Notes that a message failed, at its `line`th member where the kernel said so.
    fn refuse(&mut self, part: Part, refusal: Refusal, line: Option<usize>) {
        match part {
            Part::Create => {
                self.outcome.drifted |= refusal.is(Errno::EEXIST);
                self.outcome.create_refused = Some(refusal);
            }
            Part::Members { change, start, end } => self.refuse_members(change, start, end, &refusal, line),
        }
    }

    pub(super) fn refuse_members(
        &mut self,
        change: Change,
        start: usize,
        end: usize,
        refusal: &Refusal,
        line: Option<usize>,
    ) {
        let failed = line.map(|line| start + line - 1).filter(|failed| *failed < end);
        let undone = self.members(change)[failed.unwrap_or(start)..end].to_vec();
        match change {
            Change::Add => self.outcome.not_added.extend(&undone),
            Change::Delete => self.outcome.not_deleted.extend(&undone),
        }
        let culprit = failed.and_then(|failed| self.members(change).get(failed).copied());
        self.blame(refusal, culprit);
    }

    fn blame(&mut self, refusal: &Refusal, culprit: Option<Member>) {
        let outcome = &mut self.outcome;
        if self.create.is_some() && outcome.create_refused.is_some() {
            // Members of a set that could not be created: the first error says it all.
        } else if refusal.errno == errors::EXIST || refusal.is(Errno::ENOENT) {
            outcome.drifted = true;
        } else if refusal.errno == errors::HASH_FULL && self.spec.set_type != super::SetType::BitmapPort {
            outcome.full = true;
        } else if let Some(member) = culprit.filter(|_| refusal.errno > 4096) {
            outcome.refused.insert(member, errors::words(refusal));
        } else {
            outcome.failure = Some(errors::words(refusal));
        }
    }
}
