//! The kernel's own word on when a rule or a route came into force: notifications of nf_tables and rtnetlink, with
//! the time at which a thread that does nothing else received them.
//!
//! nf_tables sends them when a transaction has been committed, so a rule that is told of is being enforced. The
//! numbers are from linux/netfilter/nfnetlink.h, nf_tables.h and linux/rtnetlink.h.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};

use crate::lab::Netns;

/// `1 << (NFNLGRP_NFTABLES - 1)`
const GROUP_NFTABLES: u32 = 1 << 6;
/// `RTMGRP_IPV4_ROUTE`
const GROUP_ROUTES: u32 = 0x40;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE`
const NEW_RULE: u16 = 10 << 8 | 6;
/// `RTM_NEWROUTE`
const NEW_ROUTE: u16 = 24;
/// `NFTA_RULE_CHAIN`
const RULE_CHAIN: u16 = 2;
/// `RTA_DST`
const ROUTE_DST: u16 = 1;
const MESSAGE_HEADER: usize = 16;
/// `nfgenmsg` and `rtmsg` after the message's header.
const RULE_HEADER: usize = 4;
const ROUTE_HEADER: usize = 12;
/// Room for notifications that are waiting; an ordinary user gets less.
const BUFFER: usize = 32 << 20;
/// How often the thread looks whether it shall end.
const LOOK_UP_MILLIS: u8 = 100;
/// How long a change may take to arrive.
const PATIENCE: Duration = Duration::from_mins(1);

/// Something that came into force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A rule in this chain, in the table of this family (2 is IPv4, 10 is IPv6).
    Rule(u8, String),
    /// A route to this address.
    Route(Ipv4Addr),
}

/// A thread that listens.
#[derive(Debug)]
pub(super) struct Events {
    heard: Receiver<Heard>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Heard {
    Event(Instant, Event),
    /// Notifications came faster than they were read.
    Lost,
}

impl Events {
    /// Listens in `netns`.
    pub(super) fn listen(netns: &Netns) -> anyhow::Result<Self> {
        let (rules, routes) = netns.enter(|| {
            let rules = open(SockProtocol::NetlinkNetFilter, GROUP_NFTABLES)?;
            Ok::<_, Errno>((rules, open(SockProtocol::NetlinkRoute, GROUP_ROUTES)?))
        })??;
        let end = Arc::new(AtomicBool::new(false));
        let (sender, heard) = mpsc::channel();
        let is_over = Arc::clone(&end);
        let thread = thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || hear(&rules, &routes, &sender, &is_over))?;
        Ok(Self { heard, end, thread: Some(thread) })
    }

    /// Forgets what was heard so far.
    pub(super) fn clear(&mut self) {
        while self.heard.try_recv().is_ok() {}
    }

    /// Waits until all of `wanted` has been heard; returns when the last of it was.
    pub(super) fn wait(&mut self, wanted: &BTreeSet<Event>) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        let mut missing = wanted.clone();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(Heard::Event(at, event)) => {
                    if missing.remove(&event) && missing.is_empty() {
                        return Ok(at);
                    }
                }
                Ok(Heard::Lost) => bail!("the kernel's notifications did not fit into the socket's buffer"),
                Err(_) => bail!("not in force after {PATIENCE:?}: {missing:?}"),
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // A panic of the thread has been printed already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn open(protocol: SockProtocol, groups: u32) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
    }
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

fn hear(rules: &OwnedFd, routes: &OwnedFd, sender: &Sender<Heard>, is_over: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !is_over.load(Ordering::Relaxed) {
        let mut fds = [rules, routes].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        if poll(&mut fds, PollTimeout::from(LOOK_UP_MILLIS)).is_err() {
            continue;
        }
        let ready = fds.map(|fd| fd.any().unwrap_or(false));
        for (fd, _) in [rules, routes].into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let heard = match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let now = Instant::now();
                    messages(&buffer[..length]).filter_map(event).map(|e| Heard::Event(now, e)).collect()
                }
                Err(Errno::ENOBUFS) => vec![Heard::Lost],
                Err(_) => Vec::new(),
            };
            if heard.into_iter().any(|heard| sender.send(heard).is_err()) {
                return;
            }
        }
    }
}

/// Splits a datagram into messages: type, and what follows the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..MESSAGE_HEADER)?;
        let length = usize::try_from(u32::from_ne_bytes(header[..4].try_into().ok()?)).ok()?;
        let body = bytes.get(MESSAGE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[4], header[5]]), body))
    })
}

fn event((kind, body): (u16, &[u8])) -> Option<Event> {
    match kind {
        NEW_RULE => {
            let name = attribute(body.get(RULE_HEADER..)?, RULE_CHAIN)?;
            let name = name.split(|byte| *byte == 0).next()?;
            Some(Event::Rule(body[0], String::from_utf8_lossy(name).into_owned()))
        }
        NEW_ROUTE => {
            let address: [u8; 4] = attribute(body.get(ROUTE_HEADER..)?, ROUTE_DST)?.try_into().ok()?;
            Some(Event::Route(address.into()))
        }
        _ => None,
    }
}

/// The value of the first attribute of this type.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The two highest bits are flags.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// The events of rules in these chains of one family's tables.
pub(super) fn rules_of<'a>(family: u8, chains: impl IntoIterator<Item = &'a str>) -> BTreeSet<Event> {
    chains.into_iter().map(|chain| Event::Rule(family, chain.to_owned())).collect()
}
