//! Who changed what: the kernel tells of every commit.
//!
//! ```text
//!   NEWRULE ip calico cali-a | DELSETELEM ip calico cali-s | ... | NEWGEN 12 by 4711 "nft"     one commit
//! ```
//!
//! Each message carries the netlink port of who committed, so what we did ourselves is recognised by
//! [`super::Socket::port`]. The content is not looked at: who wants to know reads it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tortie_rules::ruleset::nft::{Family, TableId};

use super::numbers::message;
use super::object::{CHAIN_NAME, RULE_CHAIN, SET_NAME, TABLE, read_family};
use super::{HEADER_LEN, SUBSYSTEM};
use crate::netlink::{Attributes, Message, Messages, NetlinkError, be32};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFTA_GEN_ID`, `NFTA_GEN_PROC_PID`, `NFTA_GEN_PROC_NAME`.
const GENERATION_ID: u16 = 1;
const PROCESS_ID: u16 = 2;
const PROCESS_NAME: u16 = 3;
/// Larger than any datagram of the kernel's here.
const DATAGRAM: usize = 128 * 1024;
/// Room for what is committed at once, in bytes. What does not fit is lost, and told as such.
const EVENT_BUFFER: usize = 8 * 1024 * 1024;

/// What a commit did something to. Whether it came, changed or went is not told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The table itself.
    Table(TableId),
    /// A chain itself: not its rules.
    Chain(TableId, String),
    /// Rules of a chain.
    Rules(TableId, String),
    /// A set itself: not its elements.
    Set(TableId, String),
    /// Elements of a set.
    Elements(TableId, String),
    /// Something else: a flowtable, a counter with a name.
    Other(TableId, String),
}

impl Change {
    /// Its table.
    pub fn table(&self) -> &TableId {
        match self {
            Self::Table(table)
            | Self::Chain(table, _)
            | Self::Rules(table, _)
            | Self::Set(table, _)
            | Self::Elements(table, _)
            | Self::Other(table, _) => table,
        }
    }
}

/// What somebody committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The netlink port of who did it.
    pub port: u32,
    /// The generation since then; `None` while its end has not been heard.
    pub generation: Option<u32>,
    /// The thread that did it, as the first process namespace numbers it.
    pub process: u32,
    /// That one's name.
    pub program: String,
    /// What was done something to; of tables whose family the tree does not know, nothing.
    pub changes: BTreeSet<Change>,
}

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Commits, in order. One that was only heard in part has no generation yet, and goes on in the next.
    pub commits: Vec<Commit>,
    /// Something was lost: anything may have changed.
    pub lost: bool,
}

/// Hears of commits in this thread's network namespace.
pub struct Watch {
    socket: Arc<Socket>,
    buffer: Vec<u8>,
}

/// What a [`Watch`] listens with. Whoever commits much can close it meanwhile: the kernel makes a message of each
/// element for those who listen, which takes it several times as long as the element.
#[derive(Clone)]
pub struct Ear(Arc<Socket>);

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").finish_non_exhaustive()
    }
}

impl Ear {
    /// Hears nothing until it is opened again. What was told before is still there.
    pub(super) fn close(&self) -> io::Result<()> {
        self.0.drop_membership(GROUP)
    }

    pub(super) fn open(&self) -> io::Result<()> {
        self.0.add_membership(GROUP)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl AsFd for Watch {
    /// Readable when somebody has committed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::with_event_buffer(EVENT_BUFFER)
    }

    /// The same with a receive buffer of about so many bytes.
    ///
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn with_event_buffer(bytes: usize) -> Result<Self, NetlinkError> {
        let socket = subscribe(bytes).map_err(NetlinkError::Open)?;
        Ok(Self { socket: Arc::new(socket), buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// What it listens with.
    pub fn ear(&self) -> Ear {
        Ear(self.socket.clone())
    }

    /// What was committed since the last time, without waiting.
    pub fn poll(&mut self) -> Heard {
        let mut heard = Heard::default();
        let mut last = None;
        loop {
            match self.receive() {
                Ok(true) => {
                    for message in Messages::new(&self.buffer) {
                        if let Err(error) = message.and_then(|message| heard.take(&message, &mut last)) {
                            tracing::debug!(%error, "event of nf_tables not understood");
                            heard.lost = true;
                        }
                    }
                }
                Ok(false) => return heard,
                Err(error) => {
                    heard.lost = true;
                    // The kernel clears the error by telling it. Any other will be told at the next poll.
                    if error.raw_os_error() != Some(Errno::ENOBUFS as i32) {
                        return heard;
                    }
                }
            }
        }
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

impl Heard {
    /// Takes in an event. `last` is what was noted last of the commit that it may go on with.
    fn take(&mut self, message: &Message<'_>, last: &mut Option<Change>) -> Result<(), NetlinkError> {
        if message.kind >> 8 != SUBSYSTEM {
            return Ok(());
        }
        let is_open = |commit: &Commit| commit.generation.is_none() && commit.port == message.port;
        if !self.commits.last().is_some_and(is_open) {
            self.commits.push(Commit { port: message.port, ..Commit::default() });
            *last = None;
        }
        let Some(commit) = self.commits.last_mut() else { return Ok(()) };
        if message.kind & 0xff == message::NEW_GENERATION {
            return commit.end(message.payload);
        }
        // Ten thousand elements of one set are ten thousand events.
        if let Some(change) = RawChange::read(message)?
            && !last.as_ref().is_some_and(|last| change.is(last))
        {
            let change = change.named();
            commit.changes.insert(change.clone());
            *last = Some(change);
        }
        Ok(())
    }
}

impl Commit {
    fn end(&mut self, payload: &[u8]) -> Result<(), NetlinkError> {
        for attribute in Attributes::after(payload, HEADER_LEN)? {
            let attribute = attribute?;
            match attribute.kind {
                GENERATION_ID => self.generation = Some(be32(&attribute)?),
                PROCESS_ID => self.process = be32(&attribute)?,
                PROCESS_NAME => attribute.text()?.clone_into(&mut self.program),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What an event is about, as it stands there.
struct RawChange<'a> {
    kind: u16,
    family: Family,
    table: &'a str,
    name: &'a str,
}

impl<'a> RawChange<'a> {
    fn read(message: &Message<'a>) -> Result<Option<Self>, NetlinkError> {
        let kind = message.kind & 0xff;
        let name_attribute = match kind {
            message::NEW_TABLE | message::DEL_TABLE => TABLE,
            message::NEW_CHAIN | message::DEL_CHAIN => CHAIN_NAME,
            message::NEW_RULE | message::DEL_RULE => RULE_CHAIN,
            message::NEW_SET..=message::DEL_ELEMENT | message::NEW_OBJECT..=message::DEL_FLOWTABLE => {
                SET_NAME
            }
            _ => return Ok(None),
        };
        let Some(family) = read_family(message.payload) else { return Ok(None) };
        let (mut table, mut name) = (None, None);
        for attribute in Attributes::after(message.payload, HEADER_LEN)? {
            let attribute = attribute?;
            if attribute.kind == TABLE {
                table = Some(attribute.text()?);
            }
            if attribute.kind == name_attribute {
                name = Some(attribute.text()?);
            }
        }
        match (table, name) {
            (Some(table), Some(name)) => Ok(Some(Self { kind, family, table, name })),
            _ => Err(NetlinkError::Malformed("event without a name")),
        }
    }

    /// Whether it is this change.
    fn is(&self, change: &Change) -> bool {
        let table = change.table();
        let is_its_name = match (self.kind, change) {
            (message::NEW_TABLE | message::DEL_TABLE, Change::Table(_)) => true,
            (message::NEW_CHAIN | message::DEL_CHAIN, Change::Chain(_, name))
            | (message::NEW_RULE | message::DEL_RULE, Change::Rules(_, name))
            | (message::NEW_SET | message::DEL_SET, Change::Set(_, name))
            | (message::NEW_ELEMENT | message::DEL_ELEMENT, Change::Elements(_, name))
            | (message::NEW_OBJECT.., Change::Other(_, name)) => name == self.name,
            _ => false,
        };
        is_its_name && table.family == self.family && table.name == self.table
    }

    fn named(&self) -> Change {
        let (table, name) = (TableId::new(self.family, self.table), self.name.to_owned());
        match self.kind {
            message::NEW_TABLE | message::DEL_TABLE => Change::Table(table),
            message::NEW_CHAIN | message::DEL_CHAIN => Change::Chain(table, name),
            message::NEW_RULE | message::DEL_RULE => Change::Rules(table, name),
            message::NEW_SET | message::DEL_SET => Change::Set(table, name),
            message::NEW_ELEMENT | message::DEL_ELEMENT => Change::Elements(table, name),
            _ => Change::Other(table, name),
        }
    }
}
