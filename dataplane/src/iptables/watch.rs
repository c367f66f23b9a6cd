//! Tells when others change the nft back end's tables: the kernel says so at every commit.
//!
//! ```text
//!  commit of any process ──► NFNLGRP_NFTABLES ──► our own restores out ──► chains that concern us ──► Touched
//! ```
//!
//! An event carries the netlink port of who made the change. The port of a program that we started is its process
//! id, which [`Writers`] knows, so what we wrote ourselves is no reason to read anything. Were it ever not (behind a
//! wrapper script), our own write costs one reading more, and that finds nothing to do.
//!
//! Chains of others are none of our business: what kube-proxy does to its own twenty thousand rules ends here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tortie_api::net::IpVersion;
use tortie_rules::render::Table;

use super::save::is_ours;
use crate::netlink::{Attributes, Message, Messages, NetlinkError};
use crate::reconcile::DriverError;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_*` of linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
/// `struct nfgenmsg`: family, version, resource id.
const HEADER: usize = 4;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE` are all 1.
const ATTR_TABLE: u16 = 1;
const ATTR_CHAIN_NAME: u16 = 3;
const ATTR_RULE_CHAIN: u16 = 2;

/// Room for what one program writes at once, in bytes, twenty thousand rules of ours among that. What does not fit makes
/// every table be read.
const EVENT_BUFFER: usize = 32 * 1024 * 1024;
/// Larger than any event.
const DATAGRAM: usize = 128 * 1024;

/// The programs of ours that write to the kernel, by process id.
#[derive(Clone, Debug, Default)]
pub struct Writers(Arc<Mutex<Ids>>);

#[derive(Debug, Default)]
struct Ids {
    count: usize,
    failures: usize,
    running: BTreeSet<u32>,
    /// They have ended, and what they did may not have been heard of yet.
    ended: BTreeSet<u32>,
}

impl Writers {
    /// How many have been started so far.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// How many of them have failed.
    pub fn failures(&self) -> usize {
        self.lock().failures
    }

    /// A program did not do what it was told, or did not even start.
    pub(super) fn failed(&self) {
        self.lock().failures += 1;
    }

    /// A program was started and has not got its input yet.
    pub(super) fn started(&self, id: u32) {
        let mut ids = self.lock();
        ids.count += 1;
        ids.running.insert(id);
    }

    /// It has ended.
    pub(super) fn ended(&self, id: u32) {
        let mut ids = self.lock();
        ids.running.remove(&id);
        ids.ended.insert(id);
    }

    /// All whose events may come now, and those of them of whom none will come after these.
    fn known(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let ids = self.lock();
        (&ids.running | &ids.ended, ids.ended.clone())
    }

    fn forget(&self, ended: &BTreeSet<u32>) {
        let mut ids = self.lock();
        ids.ended.retain(|id| !ended.contains(id));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others have changed in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// These chains: ours, or the kernel's.
    Chains(BTreeSet<String>),
    /// It came, or went, or events were lost.
    Whole,
}

impl Touch {
    /// Takes in another touch of the same table.
    pub(super) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Chains(all), Self::Chains(more)) => all.extend(more),
            (Self::Whole, _) => {}
            (_, Self::Whole) => *self = Self::Whole,
        }
    }
}

/// What others have changed, by table.
pub type Touched = BTreeMap<(IpVersion, Table), Touch>;

/// Hears of changes to the tables of this thread's network namespace.
pub struct RuleWatch {
    socket: Socket,
    writers: Writers,
    buffer: Vec<u8>,
}

impl fmt::Debug for RuleWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleWatch").field("writers", &self.writers).finish_non_exhaustive()
    }
}

impl AsFd for RuleWatch {
    /// Readable when something was changed, by whomever.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl RuleWatch {
    /// Begins to listen; `writers` are the programs of ours.
    ///
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn open(writers: Writers) -> Result<Self, DriverError> {
        Self::with_event_buffer(writers, EVENT_BUFFER)
    }

    /// The same with a receive buffer of about so many bytes.
    ///
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn with_event_buffer(writers: Writers, bytes: usize) -> Result<Self, DriverError> {
        let failed = |source| DriverError::Netlink { what: "watch nftables".to_owned(), source };
        let socket = subscribe(bytes).map_err(failed)?;
        Ok(Self { socket, writers, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// What others have changed since the last time, without waiting.
    pub fn poll(&mut self) -> Touched {
        let (ours, ended) = self.writers.known();
        let mut touched = Touched::new();
        loop {
            match self.receive() {
                Ok(true) => {
                    for message in Messages::new(&self.buffer) {
                        match message.and_then(|message| read(&message, &ours)) {
                            Ok(Some((table, touch))) => merge(&mut touched, table, touch),
                            Ok(None) => {}
                            Err(error) => {
                                tracing::debug!(%error, "event of nftables not understood");
                                touch_all(&mut touched);
                            }
                        }
                    }
                }
                Ok(false) => break,
                Err(error) => {
                    // The kernel clears the error by telling it. Any other will be told at the next poll.
                    let is_overrun = error.raw_os_error() == Some(Errno::ENOBUFS as i32);
                    tracing::debug!(%error, "events of nftables were lost: reading all tables");
                    touch_all(&mut touched);
                    if !is_overrun {
                        break;
                    }
                }
            }
        }
        self.writers.forget(&ended);
        touched
    }

    /// The next datagram of the kernel; false when there is none.
    fn receive(&mut self) -> io::Result<bool> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, nix::libc::MSG_TRUNC) {
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((len, _)) if len > self.buffer.len() => return Err(Errno::ENOBUFS.into()),
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn subscribe(buffer: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &buffer);
    }
    socket.add_membership(GROUP)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn merge(touched: &mut Touched, table: (IpVersion, Table), touch: Touch) {
    match touched.get_mut(&table) {
        Some(known) => known.merge(touch),
        None => {
            touched.insert(table, touch);
        }
    }
}

fn touch_all(touched: &mut Touched) {
    for version in IpVersion::BOTH {
        for table in Table::ALL {
            touched.insert((version, table), Touch::Whole);
        }
    }
}

type Found = Option<((IpVersion, Table), Touch)>;

/// What an event says of our chains, if it says anything and is not of our own making.
fn read(message: &Message<'_>, ours: &BTreeSet<u32>) -> Result<Found, NetlinkError> {
    if message.kind >> 8 != SUBSYSTEM || ours.contains(&message.port) {
        return Ok(None);
    }
    let chain_attribute = match message.kind & 0xff {
        NEW_TABLE | DEL_TABLE => None,
        NEW_CHAIN | DEL_CHAIN => Some(ATTR_CHAIN_NAME),
        NEW_RULE | DEL_RULE => Some(ATTR_RULE_CHAIN),
        _ => return Ok(None),
    };
    let version = match message.payload.first().map(|family| i32::from(*family)) {
        Some(nix::libc::AF_INET) => IpVersion::V4,
        Some(nix::libc::AF_INET6) => IpVersion::V6,
        _ => return Ok(None),
    };
    let (mut table, mut chain) = (None, None);
    for attribute in Attributes::after(message.payload, HEADER)? {
        let attribute = attribute?;
        if attribute.kind == ATTR_TABLE {
            let name = attribute.text()?;
            table = Table::ALL.into_iter().find(|table| table.name() == name);
        } else if Some(attribute.kind) == chain_attribute {
            chain = Some(attribute.text()?);
        }
    }
    let Some(table) = table else { return Ok(None) };
    Ok(match (chain_attribute, chain) {
        (None, _) => Some(((version, table), Touch::Whole)),
        (Some(_), Some(chain)) if is_ours(chain) || table.kernel_chains().contains(&chain) => {
            Some(((version, table), Touch::Chains(BTreeSet::from([chain.to_owned()]))))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests;
