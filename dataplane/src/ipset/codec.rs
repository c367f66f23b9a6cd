//! Ip set messages (`NFNL_SUBSYS_IPSET`) and their answers.
//!
//! ```text
//!   ADD, DEL   PROTOCOL SETNAME LINENO ADT{ DATA{ IP{IPADDR_IPV4} CIDR PORT PROTO LINENO } ... }
//! ```
//!
//! Many members go into one message. The kernel does them in order and stops at the first that fails; it
//! then answers with the request, the failed member's LINENO written over the outer one. Members before
//! that one are done, those after it are not; the messages after this one are carried out all the same.

mod read;

use std::net::IpAddr;

use tortie_api::net::IpVersion;

use super::member::{Member, MemberSet, SetSpec, SetType};
use crate::netlink::{Attributes, Batch, Channel, Message, NetlinkError, Protocol, Reply, Writer};

use read::{Lister, Names};

pub(super) use read::Listing;

const SUBSYSTEM: u16 = 6;
const PROTOCOL: u16 = 1;
const CREATE: u16 = 2;
const DESTROY: u16 = 3;
const RENAME: u16 = 5;
const SWAP: u16 = 6;
const LIST: u16 = 7;
const ADD: u16 = 9;
const DEL: u16 = 10;
const TYPE: u16 = 13;

/// `NLM_F_EXCL`: an existing set or member is an error. `NLM_F_CREATE` has no meaning here.
const EXCL: u16 = 0x200;

const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_TYPENAME: u16 = 3;
const ATTR_SETNAME2: u16 = 3;
const ATTR_REVISION: u16 = 4;
const ATTR_FAMILY: u16 = 5;
const ATTR_FLAGS: u16 = 6;
const ATTR_DATA: u16 = 7;
const ATTR_ADT: u16 = 8;
const ATTR_LINENO: u16 = 9;
/// Also the lowest protocol version.
const ATTR_REVISION_MIN: u16 = 10;

const DATA_IP: u16 = 1;
const DATA_CIDR: u16 = 3;
const DATA_PORT: u16 = 4;
const DATA_PORT_TO: u16 = 5;
const DATA_PROTO: u16 = 7;
const DATA_MAXELEM: u16 = 19;
const IPADDR_V4: u16 = 1;
const IPADDR_V6: u16 = 2;

/// `IPSET_FLAG_LIST_SETNAME`: names only.
const LIST_NAMES: u32 = 2;
/// `struct nfgenmsg`.
const HEADER_LEN: usize = 4;
/// The newest version of the protocol that is spoken here, and the oldest.
const VERSIONS: (u8, u8) = (6, 7);
/// A message's list of members ends here: attribute lengths have 16 bits.
const LIST_BYTES: usize = 60_000;

/// Whether `ADD` and `DEL` complain about a member that is there already, or is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// They do: someone else changed the set.
    Strict,
    /// They do not.
    Tolerant,
}

/// The connection, and what was agreed on with the kernel.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    version: Option<u8>,
    revisions: Vec<((SetType, IpVersion), u8)>,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self { channel: Channel::new(Protocol::Netfilter), version: None, revisions: Vec::new() }
    }

    /// Agrees on the protocol version, once.
    pub(super) fn negotiate(&mut self) -> Result<(), NetlinkError> {
        if self.version.is_some() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.push(SUBSYSTEM << 8 | PROTOCOL, 0, |writer| {
            writer.raw(&header(0));
            writer.u8(ATTR_PROTOCOL, VERSIONS.1);
        });
        let (newest, oldest) = self.ask_range(&mut batch, ATTR_PROTOCOL)?;
        let version = newest.min(VERSIONS.1);
        if version < oldest || version < VERSIONS.0 {
            return Err(NetlinkError::Malformed("no common version of the ipset protocol"));
        }
        self.version = Some(version);
        Ok(())
    }

    /// The revision of a set type to create sets with, asked for once.
    pub(super) fn revision(&mut self, spec: &SetSpec) -> Result<u8, NetlinkError> {
        let key = (spec.set_type, spec.family);
        if let Some((_, revision)) = self.revisions.iter().find(|(known, _)| *known == key) {
            return Ok(*revision);
        }
        let version = self.version();
        let mut batch = Batch::new();
        batch.push(SUBSYSTEM << 8 | TYPE, 0, |writer| {
            writer.raw(&header(family_number(spec.family)));
            writer.u8(ATTR_PROTOCOL, version);
            writer.text(ATTR_TYPENAME, spec.set_type.name());
            writer.u8(ATTR_FAMILY, family_number(spec.family));
        });
        let (newest, oldest) = self.ask_range(&mut batch, ATTR_REVISION)?;
        let revision = newest.min(spec.set_type.known_revision()).max(oldest);
        self.revisions.push((key, revision));
        Ok(revision)
    }

    /// The names of all sets, foreign ones too.
    pub(super) fn names(&mut self) -> Result<Vec<String>, NetlinkError> {
        let version = self.version();
        let mut names = Names::default();
        self.channel.dump(
            SUBSYSTEM << 8 | LIST,
            &|writer| {
                writer.raw(&header(0));
                writer.u8(ATTR_PROTOCOL, version);
                writer.be32(ATTR_FLAGS, LIST_NAMES);
            },
            &mut names,
        )?;
        Ok(names.0)
    }

    /// Header and members of a set, `None` when there is no such set.
    pub(super) fn list(&mut self, spec: &SetSpec) -> Result<Option<Listing>, NetlinkError> {
        let version = self.version();
        let mut lister = Lister { spec, header: None, members: MemberSet::new(spec) };
        let result = self.channel.dump(
            SUBSYSTEM << 8 | LIST,
            &|writer| {
                writer.raw(&header(0));
                writer.u8(ATTR_PROTOCOL, version);
                writer.text(ATTR_SETNAME, &spec.name);
            },
            &mut lister,
        );
        match result {
            Err(error) if error.refusal().is_some_and(|r| r.is(nix::errno::Errno::ENOENT)) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => {
                let members = lister.members;
                Ok(lister.header.map(|header| Listing { header, members }))
            }
        }
    }

    /// The version agreed on; before that the oldest, which every kernel takes.
    pub(super) fn version(&self) -> u8 {
        self.version.unwrap_or(VERSIONS.0)
    }

    /// Sends a query that is answered with a range of versions: newest and oldest.
    fn ask_range(&mut self, batch: &mut Batch, newest: u16) -> Result<(u8, u8), NetlinkError> {
        let mut answer = Err(NetlinkError::Malformed("no answer"));
        self.channel.execute(batch, &mut |reply| match reply {
            Reply::Data { message, .. } => answer = read_range(&message, newest),
            Reply::Refused { refusal, .. } => answer = Err(NetlinkError::Refused(refusal)),
        })?;
        answer
    }
}

fn read_range(message: &Message<'_>, newest: u16) -> Result<(u8, u8), NetlinkError> {
    let mut range = (None, 0);
    for attribute in Attributes::after(message.payload, HEADER_LEN)? {
        let attribute = attribute?;
        if attribute.kind == newest {
            range.0 = Some(attribute.u8()?);
        } else if attribute.kind == ATTR_REVISION_MIN {
            range.1 = attribute.u8()?;
        }
    }
    range.0.map(|newest| (newest, range.1)).ok_or(NetlinkError::Malformed("version missing"))
}

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
fn family_number(family: IpVersion) -> u8 {
    match family {
        IpVersion::V4 => 2,
        IpVersion::V6 => 10,
    }
}

fn header(family: u8) -> [u8; HEADER_LEN] {
    [family, 0, 0, 0]
}

/// Appends the creation of a set under `name`.
pub(super) fn create(batch: &mut Batch, version: u8, revision: u8, name: &str, spec: &SetSpec) {
    let family = if spec.set_type == SetType::BitmapPort { 0 } else { family_number(spec.family) };
    batch.push(SUBSYSTEM << 8 | CREATE, EXCL, |writer| {
        writer.raw(&header(family));
        writer.u8(ATTR_PROTOCOL, version);
        writer.text(ATTR_SETNAME, name);
        writer.text(ATTR_TYPENAME, spec.set_type.name());
        writer.u8(ATTR_REVISION, revision);
        writer.u8(ATTR_FAMILY, family);
        writer.nested(ATTR_DATA, |data| {
            if spec.set_type == SetType::BitmapPort {
                data.be16(DATA_PORT, 0);
                data.be16(DATA_PORT_TO, u16::MAX);
            } else {
                data.be32(DATA_MAXELEM, spec.max_elements);
            }
        });
    });
}

/// What is done to a set's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Delete,
}

/// Appends one message that adds or deletes as many of `members` as it can hold; returns how many.
/// The first member has line number 1.
pub(super) fn change(
    batch: &mut Batch,
    version: u8,
    name: &str,
    change: Change,
    members: &[Member],
    strictness: Strictness,
) -> usize {
    let command = if change == Change::Add { ADD } else { DEL };
    let flags = if strictness == Strictness::Strict { EXCL } else { 0 };
    let mut taken = 0;
    batch.push(SUBSYSTEM << 8 | command, flags, |writer| {
        writer.raw(&header(0));
        writer.u8(ATTR_PROTOCOL, version);
        writer.text(ATTR_SETNAME, name);
        // The kernel demands it with a list, and writes the failed line over it.
        writer.u32(ATTR_LINENO, 0);
        writer.nested(ATTR_ADT, |list| {
            let start = list.position();
            for (line, member) in (1..).zip(members) {
                write_member(list, member, line);
                taken += 1;
                if list.position() - start > LIST_BYTES {
                    break;
                }
            }
        });
    });
    taken
}

fn write_member(list: &mut Writer<'_>, member: &Member, line: u32) {
    list.nested(ATTR_DATA, |data| {
        match *member {
            Member::Addr(addr) => write_address(data, addr),
            Member::Net(net) => {
                write_address(data, net.addr());
                data.u8(DATA_CIDR, net.prefix_len());
            }
            Member::AddrPort { addr, protocol, port } => {
                write_address(data, addr);
                data.be16(DATA_PORT, port);
                data.u8(DATA_PROTO, protocol);
            }
            Member::Port(port) => data.be16(DATA_PORT, port),
        }
        data.u32(ATTR_LINENO, line);
    });
}

fn write_address(data: &mut Writer<'_>, addr: IpAddr) {
    data.nested(DATA_IP, |inner| match addr {
        IpAddr::V4(addr) => inner.be_bytes(IPADDR_V4, &addr.octets()),
        IpAddr::V6(addr) => inner.be_bytes(IPADDR_V6, &addr.octets()),
    });
}

/// Appends the destruction of a set.
pub(super) fn destroy(batch: &mut Batch, version: u8, name: &str) {
    batch.push(SUBSYSTEM << 8 | DESTROY, 0, |writer| {
        writer.raw(&header(0));
        writer.u8(ATTR_PROTOCOL, version);
        writer.text(ATTR_SETNAME, name);
    });
}

/// Appends an exchange: each name then stands for the other's contents; rules follow the name.
pub(super) fn swap(batch: &mut Batch, version: u8, from: &str, to: &str) {
    two_names(batch, version, SWAP, from, to);
}

/// Appends a renaming, possible only while nothing refers to the set.
pub(super) fn rename(batch: &mut Batch, version: u8, from: &str, to: &str) {
    two_names(batch, version, RENAME, from, to);
}

fn two_names(batch: &mut Batch, version: u8, command: u16, from: &str, to: &str) {
    batch.push(SUBSYSTEM << 8 | command, 0, |writer| {
        writer.raw(&header(0));
        writer.u8(ATTR_PROTOCOL, version);
        writer.text(ATTR_SETNAME, from);
        writer.text(ATTR_SETNAME2, to);
    });
}

/// Which line of a refused [`change`] failed, from the request that the kernel sent back; 1 is the first member.
pub(super) fn failed_line(request: &[u8]) -> Option<usize> {
    let attributes = Attributes::after(request, HEADER_LEN).ok()?;
    let line = attributes.flatten().find(|attribute| attribute.kind == ATTR_LINENO)?;
    let line = u32::from_ne_bytes(line.array().ok()?);
    (line > 0).then_some(line as usize)
}
