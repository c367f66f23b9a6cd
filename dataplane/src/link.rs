//! Network interfaces and their addresses: read once, then kept up to date by the kernel's events.
//!
//! No change is lost. When events came faster than they were read (`ENOBUFS`) everything is read again,
//! and [`LinkEvent::Resynced`] says that an interface may have gone down and up unseen.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;

use ipnet::IpNet;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::netlink::{Channel, Messages, NetlinkError, Protocol};
use crate::reconcile::DriverError;

use wire::{Change, LinkFields};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 3] = [1, 5, 9];
/// Room for a burst of events in bytes.
const EVENT_BUFFER: usize = 4 * 1024 * 1024;
/// Larger than any event.
const DATAGRAM: usize = 64 * 1024;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// From its bytes.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// Its bytes.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, octet) in self.0.iter().enumerate() {
            let colon = if position == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

/// The text is not six hexadecimal bytes with colons between them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address")]
pub struct InvalidMacAddr(String);

impl FromStr for MacAddr {
    type Err = InvalidMacAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMacAddr(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part =
                parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Unique at a time; not used again soon.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Switched on (`IFF_UP`).
    pub up: bool,
    /// Switched on and connected (`IFF_RUNNING`): packets can pass.
    pub running: bool,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Its own addresses with the lengths of their networks.
    pub addresses: BTreeSet<IpNet>,
}

/// What happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// New, or changed in any way.
    Changed(Link),
    /// No longer there, or no longer of that name.
    Removed {
        /// Its index.
        index: u32,
        /// The name it had.
        name: String,
    },
    /// Events were lost and everything was read again. The events that follow lead to the present state,
    /// but what happened in between is unknown: routes may have gone.
    Resynced,
}

/// Watches the interfaces of a network namespace.
pub struct Links {
    events: Socket,
    channel: Channel,
    state: BTreeMap<u32, Link>,
    buffer: Vec<u8>,
    /// Events were lost and the reading since then failed.
    stale: bool,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("links", &self.state).finish_non_exhaustive()
    }
}

impl AsFd for Links {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Links {
    /// Begins to watch the network namespace of this thread, and reads what is there.
    pub fn open() -> Result<Self, DriverError> {
        Self::with_event_buffer(EVENT_BUFFER)
    }

    /// The same with a receive buffer of about so many bytes for events.
    pub fn with_event_buffer(bytes: usize) -> Result<Self, DriverError> {
        // Subscribed before the first reading, so that nothing falls between the two.
        let events = subscribe(bytes).map_err(|source| failed("watch links", source))?;
        let mut links = Self {
            events,
            channel: Channel::new(Protocol::Route),
            state: BTreeMap::new(),
            buffer: Vec::with_capacity(DATAGRAM),
            stale: false,
        };
        links.state = links.read_all()?;
        Ok(links)
    }

    /// The interfaces as of the last poll, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.state.values()
    }

    /// The interface of this name.
    pub fn get(&self, name: &str) -> Option<&Link> {
        self.state.values().find(|link| link.name == name)
    }

    /// Takes in what has happened, without waiting. On error the state is not known to be complete; the next
    /// poll reads everything again.
    pub fn poll_events(&mut self) -> Result<Vec<LinkEvent>, DriverError> {
        let mut events = Vec::new();
        while self.receive()? {
            for message in Messages::new(&self.buffer) {
                let change = message.and_then(|message| wire::parse(&message));
                match change {
                    Ok(Some(change)) => apply(&mut self.state, change, &mut events),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%error, "link event not understood");
                        self.stale = true;
                    }
                }
            }
        }
        if self.stale {
            let fresh = self.read_all()?;
            events.push(LinkEvent::Resynced);
            compare(&self.state, &fresh, &mut events);
            self.state = fresh;
            self.stale = false;
        }
        Ok(events)
    }

    /// Receives one datagram of events; false when there is none.
    fn receive(&mut self) -> Result<bool, DriverError> {
        loop {
            self.buffer.clear();
            match self.events.recv_from(&mut self.buffer, nix::libc::MSG_TRUNC) {
                // Only the kernel has port 0.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((len, _)) => {
                    self.stale |= len > self.buffer.len();
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => self.stale = true,
                Err(error) => {
                    self.stale = true;
                    return Err(failed("read link events", error));
                }
            }
        }
    }

    fn read_all(&mut self) -> Result<BTreeMap<u32, Link>, DriverError> {
        read(&mut self.channel).map_err(|error| failed("list links", io::Error::other(error)))
    }
}

/// Reads all interfaces and their addresses.
pub(crate) fn read(channel: &mut Channel) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let mut links = BTreeMap::new();
    let mut ignored = Vec::new();
    for change in wire::dump_links(channel)?.into_iter().chain(wire::dump_addresses(channel)?) {
        apply(&mut links, change, &mut ignored);
    }
    Ok(links)
}

fn subscribe(buffer: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &buffer);
    }
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn failed(what: &str, source: io::Error) -> DriverError {
    DriverError::Netlink { what: what.to_owned(), source }
}

/// Changes the state; an event for each real change.
fn apply(links: &mut BTreeMap<u32, Link>, change: Change, events: &mut Vec<LinkEvent>) {
    match change {
        Change::Link(fields) => apply_link(links, fields, events),
        Change::LinkGone { index } => {
            if let Some(link) = links.remove(&index) {
                events.push(LinkEvent::Removed { index, name: link.name });
            }
        }
        Change::Address { index, address, present } => {
            let Some(link) = links.get_mut(&index) else { return };
            let changed =
                if present { link.addresses.insert(address) } else { link.addresses.remove(&address) };
            if changed {
                events.push(LinkEvent::Changed(link.clone()));
            }
        }
    }
}

fn apply_link(links: &mut BTreeMap<u32, Link>, fields: LinkFields, events: &mut Vec<LinkEvent>) {
    let before = links.remove(&fields.index);
    let link = Link {
        index: fields.index,
        name: fields.name,
        up: fields.up,
        running: fields.running,
        mac: fields.mac,
        mtu: fields.mtu,
        addresses: before.as_ref().map(|before| before.addresses.clone()).unwrap_or_default(),
    };
    if let Some(before) = before.as_ref().filter(|before| before.name != link.name) {
        events.push(LinkEvent::Removed { index: before.index, name: before.name.clone() });
    }
    if before.as_ref() != Some(&link) {
        events.push(LinkEvent::Changed(link.clone()));
    }
    links.insert(link.index, link);
}

/// The events that lead from one state to another. Names that go come before names that come.
fn compare(before: &BTreeMap<u32, Link>, after: &BTreeMap<u32, Link>, events: &mut Vec<LinkEvent>) {
    for (index, old) in before {
        if after.get(index).is_none_or(|new| new.name != old.name) {
            events.push(LinkEvent::Removed { index: *index, name: old.name.clone() });
        }
    }
    for (index, new) in after {
        if before.get(index) != Some(new) {
            events.push(LinkEvent::Changed(new.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
