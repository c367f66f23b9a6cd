//! The one socket: committing transactions. [`read`] has how it reads what is there.
//!
//! Kept open: closing one right after a transaction that deleted something waits 10 ms and more for the kernel.

mod read;

use std::fmt;

use nix::errno::Errno;
use tortie_rules::ruleset::nft::{Family, TableId};

use super::numbers::message;
use super::transaction::{Object, Transaction};
use super::{Ear, HEADER_LEN, SUBSYSTEM};
use crate::netlink::{Attributes, Batch, Channel, NetlinkError, Protocol, Refusal, Reply, be32};

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;
/// So often it is tried to find nobody committing.
const SETTLING: usize = 16;
/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;

/// Wanted send buffer in bytes: it bounds a transaction. The kernel takes no memory before it is used. Without privileges
/// in the first user namespace it gives 8 MiB or so.
const SEND_BUFFER: usize = 512 * 1024 * 1024;

/// The kernel numbers the states of nf_tables in a network namespace: every commit, of anybody, is the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// A part of a transaction that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it was about; `None` if the transaction as a whole was refused.
    pub object: Option<Object>,
    /// Why.
    pub refusal: Refusal,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) => write!(f, "{object}: {}", self.refusal),
            None => write!(f, "{}", self.refusal),
        }
    }
}

/// A transaction is not in force.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The kernel refused it for these reasons; of many, only the first are known. What had gone ahead is there.
    #[error("refused: {}", words(.failures))]
    Refused {
        /// Why.
        failures: Vec<Failure>,
        /// How many messages had gone ahead; 0 unless the transaction was too large for one datagram.
        ahead: usize,
    },
    /// Somebody else has committed since the expected generation. What had gone ahead is there.
    #[error("somebody else has changed nf_tables meanwhile")]
    Stale {
        /// How many messages had gone ahead.
        ahead: usize,
    },
    /// What must go in one datagram is larger than the socket takes. Nothing was sent.
    #[error("{bytes} bytes must go in one datagram, and the socket takes {limit}")]
    TooLarge {
        /// Of the transaction, behind where it may be split.
        bytes: usize,
        /// What the socket takes.
        limit: usize,
    },
    /// It could not be handed to the kernel: nothing of this part is in force. What had gone ahead is there.
    #[error("the transaction could not be sent")]
    NotSent(#[source] NetlinkError),
    /// Whether it is in force is not known.
    #[error("it is not known whether the transaction is in force")]
    Unknown(#[source] NetlinkError),
}

fn words(failures: &[Failure]) -> String {
    let texts: Vec<String> = failures.iter().take(3).map(ToString::to_string).collect();
    let more = failures.len().saturating_sub(texts.len());
    if more > 0 { format!("{}, and {more} more", texts.join("; ")) } else { texts.join("; ") }
}

/// The connection to nf_tables of a network namespace: that of the thread which uses it first.
#[derive(Debug)]
pub struct Socket {
    channel: Channel,
    begin: Batch,
    end: Batch,
}

impl Default for Socket {
    fn default() -> Self {
        Self::new()
    }
}

impl Socket {
    /// Not opened yet. No kernel call is made here.
    pub fn new() -> Self {
        Self::with_send_buffer(SEND_BUFFER)
    }

    /// The same, for transactions of about so many bytes. For tests: the usual one is as large as the kernel lets it be.
    pub fn with_send_buffer(bytes: usize) -> Self {
        let channel = Channel::new(Protocol::Netfilter).with_send_buffer(bytes);
        Self { channel, begin: Batch::new(), end: Batch::new() }
    }

    /// Sends made since the beginning: commits, dumps and queries.
    pub fn requests(&self) -> usize {
        self.channel.requests()
    }

    /// The port by which the kernel names this socket in [`super::Watch`]'s events, until it fails and is opened again.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn port(&mut self) -> Result<u32, NetlinkError> {
        self.channel.port()
    }

    /// The generation now.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn generation(&mut self) -> Result<Generation, NetlinkError> {
        let mut batch = Batch::new();
        let kind = SUBSYSTEM << 8 | message::GET_GENERATION;
        batch.push(kind, 0, |w| w.raw(&[0; HEADER_LEN]));
        let mut answer = Err(NetlinkError::Malformed("no generation"));
        self.channel.execute(&mut batch, &mut |reply| match reply {
            Reply::Data { message, .. } => answer = read_generation(message.payload),
            Reply::Refused { refusal, .. } => answer = Err(NetlinkError::Refused(refusal)),
        })?;
        answer
    }

    /// Brings a transaction into force. With `expected`, only if nobody else has changed anything since that generation:
    /// for what was planned from a reading, not for every change, since others commit all the time.
    ///
    /// # Errors
    /// When it is not in force, or that is not known.
    pub fn commit(
        &mut self,
        transaction: &mut Transaction,
        expected: Option<Generation>,
    ) -> Result<(), CommitError> {
        self.commit_since(transaction, expected).map(|_| ())
    }

    /// Brings a transaction into force while nobody listens with this `ear`. Returns whether somebody else has changed
    /// something meanwhile, which that one has not heard of.
    ///
    /// # Errors
    /// When it is not in force, or that is not known.
    pub fn commit_unheard(&mut self, transaction: &mut Transaction, ear: &Ear) -> Result<bool, CommitError> {
        let before = self.settled_generation(transaction)?;
        if let Err(error) = ear.close() {
            tracing::debug!(%error, "the kernel tells of a large transaction of our own");
        }
        let outcome = self.commit_since(transaction, Some(before));
        if let Err(error) = ear.open() {
            tracing::warn!(%error, "cannot listen again: changes of others are found when the table is read again");
            outcome?;
            return Ok(true);
        }
        let expected = outcome?;
        Ok(self.generation().map_err(CommitError::Unknown)? != expected.unwrap_or(before))
    }

    /// The generation now, all commits up to which have been told. A commit that somebody is not done with counts already,
    /// and is told only then; transactions come one after the other, and so behind an empty one nobody is at it.
    fn settled_generation(&mut self, transaction: &mut Transaction) -> Result<Generation, CommitError> {
        let mut tries = SETTLING;
        loop {
            let now = self.generation().map_err(CommitError::NotSent)?;
            match self.send(transaction, 0..0, Some(now)) {
                Ok(()) => return Ok(now),
                Err(CommitError::Stale { .. }) if tries > 0 => tries -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The generation that it is then, if nobody else has changed anything since the one that was expected.
    fn commit_since(
        &mut self,
        transaction: &mut Transaction,
        mut expected: Option<Generation>,
    ) -> Result<Option<Generation>, CommitError> {
        if transaction.is_empty() {
            return Ok(expected);
        }
        let limit = self.channel.largest_send().map_err(CommitError::NotSent)?;
        let mut ahead = 0;
        for end in chunks(transaction, limit)? {
            self.send(transaction, ahead..end, expected).map_err(|error| error.after(ahead))?;
            ahead = end;
            // Our own commit is the next generation, unless somebody else was faster: then that one is refused.
            expected = expected.map(|generation| Generation(generation.0.wrapping_add(1)));
        }
        Ok(expected)
    }

    /// What of a transaction the kernel would refuse. Nothing comes into force: the last message is one that always fails.
    /// Says which features a kernel has.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    pub fn probe(&mut self, transaction: &mut Transaction) -> Result<Vec<Failure>, CommitError> {
        let nothing = TableId::new(Family::Ipv4, "tortie-no-such-table");
        transaction.remove_table(&nothing, super::Removal::MustExist);
        let last = transaction.len() - 1;
        match self.send(transaction, 0..last + 1, None) {
            Err(CommitError::Refused { mut failures, .. }) => {
                failures
                    .retain(|failure| failure.object.as_ref().is_none_or(|object| object.table != nothing));
                Ok(failures)
            }
            Err(error) => Err(error),
            Ok(()) => {
                Err(CommitError::Unknown(NetlinkError::Malformed("a table that is not there was deleted")))
            }
        }
    }

    /// Sends some messages of a transaction in one datagram.
    fn send(
        &mut self,
        transaction: &mut Transaction,
        messages: std::ops::Range<usize>,
        expected: Option<Generation>,
    ) -> Result<(), CommitError> {
        let first = self.channel.reserve(messages.len() + 2).map_err(CommitError::NotSent)?;
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let (begin, end) = (
            batch_bytes(&mut self.begin, BATCH_BEGIN, expected),
            batch_bytes(&mut self.end, BATCH_END, None),
        );
        let pieces = [
            begin.number(0..1, first),
            transaction.batch.number(messages.clone(), first + 1),
            end.number(0..1, first + 1 + count),
        ];
        let mut refusals = Vec::new();
        let lost = self
            .channel
            .send_atomic(&pieces, first, &mut |index, refusal| refusals.push((index, refusal)))
            .map_err(CommitError::of)?;
        if refusals.iter().any(|(index, refusal)| *index == 0 && refusal.is(Errno::ERESTART)) {
            return Err(CommitError::Stale { ahead: 0 });
        }
        let failure = |(index, refusal): (usize, Refusal)| {
            let message = index.checked_sub(1).map(|index| index + messages.start);
            Failure { object: message.and_then(|message| transaction.object(message)), refusal }
        };
        let failures: Vec<Failure> = refusals.into_iter().map(failure).collect();
        if failures.is_empty() && !lost {
            return Ok(());
        }
        Err(if failures.is_empty() {
            CommitError::Unknown(NetlinkError::Overrun)
        } else {
            CommitError::Refused { failures, ahead: 0 }
        })
    }
}

impl CommitError {
    /// What an error of the socket means for a transaction: the kernel does its work inside the send.
    fn of(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Open(_) | NetlinkError::Send(_) => Self::NotSent(error),
            _ => Self::Unknown(error),
        }
    }

    /// The same, when so many messages had gone ahead.
    fn after(self, ahead: usize) -> Self {
        match self {
            Self::Refused { failures, .. } => Self::Refused { failures, ahead },
            Self::Stale { .. } => Self::Stale { ahead },
            other => other,
        }
    }
}

/// Begin or end of a transaction.
fn batch_bytes(batch: &mut Batch, kind: u16, expected: Option<Generation>) -> &mut Batch {
    batch.clear();
    batch.push(kind, 0, |w| {
        // Family unspecified, version 0, the subsystem as "resource" in network order.
        w.raw(&[0, 0, 0, 10]);
        if let Some(Generation(generation)) = expected {
            w.plain_be32(BATCH_GENERATION, generation);
        }
    });
    batch
}

/// The bytes of begin and end, with room for the generation.
const ENVELOPE: usize = 48;

/// Where the datagrams of a transaction end, as numbers of messages.
fn chunks(transaction: &Transaction, limit: usize) -> Result<Vec<usize>, CommitError> {
    let batch = &transaction.batch;
    let limit_inside = limit.saturating_sub(ENVELOPE);
    let total = transaction.bytes();
    if total <= limit_inside {
        return Ok(vec![batch.len()]);
    }
    let too_large = |bytes: usize| CommitError::TooLarge { bytes, limit };
    let mut ends = Vec::new();
    let mut start = 0;
    for next in 1..=transaction.split {
        if batch.offset(next) - batch.offset(start) <= limit_inside {
            continue;
        }
        let end = next - 1;
        if end == start {
            return Err(too_large(batch.offset(next) - batch.offset(start)));
        }
        ends.push(end);
        start = end;
        if batch.offset(next) - batch.offset(start) > limit_inside {
            return Err(too_large(batch.offset(next) - batch.offset(start)));
        }
    }
    // The rest of what may go ahead goes with the others if it fits.
    if total - batch.offset(start) > limit_inside {
        if transaction.split > start {
            ends.push(transaction.split);
        }
        let rest = total - batch.offset(transaction.split);
        if rest > limit_inside {
            return Err(too_large(rest));
        }
    }
    if ends.last() != Some(&batch.len()) {
        ends.push(batch.len());
    }
    Ok(ends)
}

fn read_generation(payload: &[u8]) -> Result<Generation, NetlinkError> {
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        if attribute.kind == GENERATION_ID {
            return be32(&attribute).map(Generation);
        }
    }
    Err(NetlinkError::Malformed("no generation"))
}

#[cfg(test)]
mod tests;
