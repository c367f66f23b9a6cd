//! Reading what is there, while others commit.
//!
//! The kernel writes a dump piece by piece, and between two pieces anybody may commit: to a table of theirs, several times
//! a second on a node where kube-proxy does so. It then says that the dump was interrupted, without telling what was
//! committed: it only compares the generation at the beginning of each piece, so a dump that was not interrupted is of
//! one generation. To wait for one of those is to wait until others are quiet. What an interrupted one is worth follows
//! from how the kernel finds on in it, which is by counting:
//!
//! - **rules, sets**: counts the objects of the asked table alone, so that nothing that others do to tables of theirs can
//!   make it skip or repeat one of these;
//! - **elements**: the set's own walk. Commits elsewhere do not touch it; a hash that grows meanwhile does (see
//!   [`Socket::elements`]), of which the kernel says nothing at all;
//! - **chains, flowtables, tables**: counts those of other tables too. One that goes before ours in the list makes it
//!   skip one of ours, one that comes there makes it repeat one.
//!
//! So an uninterrupted reading is taken at once, and an interrupted one when the reading before it was the same. That is
//! for changes of the asked table itself, which are in both or in neither, and which the watch tells of besides. For what
//! is counted over all tables it is not proof enough: who adds and deletes a chain by turns can shift two readings
//! alike. Who must not miss a chain asks for it by its name ([`Socket::chains_named`]): such an answer is one piece.

use std::collections::BTreeSet;

use nix::errno::Errno;
use tortie_rules::ruleset::nft::{Element, Set, TableId};

use super::Socket;
use crate::netlink::{Batch, DumpEnd, DumpSink, Message, NetlinkError, Reply, Writer};
use crate::nft::entry::{ChainEntry, FlowtableEntry, RuleEntry, SetEntry, TableEntry};
use crate::nft::numbers::message;
use crate::nft::object::{read_chain, read_flowtable, read_set, read_table, read_table_name};
use crate::nft::{ElementReader, HEADER_LEN, SUBSYSTEM, header, read_rule};

/// So often something is read before it counts as what keeps changing.
const READINGS: usize = 32;
/// So many queries go in one send: their answers fit into the smallest receive buffer.
const QUERIES: usize = 64;

impl Socket {
    /// The tables of all families, but for families that the tree does not know.
    ///
    /// # Errors
    /// When they cannot be read; [`NetlinkError::Unsteady`] when they keep changing.
    pub fn tables(&mut self) -> Result<Vec<TableEntry>, NetlinkError> {
        let body = |w: &mut Writer<'_>| w.raw(&[0; HEADER_LEN]);
        self.dump(message::GET_TABLE, message::NEW_TABLE, &body, read_table, |a, b| a == b)
    }

    /// One table, whatever others do to theirs; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn table(&mut self, table: &TableId) -> Result<Option<TableEntry>, NetlinkError> {
        let mut batch = Batch::new();
        batch.push(SUBSYSTEM << 8 | message::GET_TABLE, 0, |w| {
            w.raw(&header(table.family));
            w.text(1, &table.name);
        });
        Ok(self.ask(&mut batch, read_table)?.pop().flatten())
    }

    /// The chains of a table, each once. While others add and delete chains of tables before it, one may be missing.
    ///
    /// # Errors
    /// When they cannot be read; [`NetlinkError::Unsteady`] when they keep changing.
    pub fn chains(&mut self, table: &TableId) -> Result<Vec<ChainEntry>, NetlinkError> {
        let mut chains = self.of_table(message::GET_CHAIN, message::NEW_CHAIN, table, read_chain)?;
        let mut seen = BTreeSet::new();
        chains.retain(|entry| seen.insert(entry.handle));
        Ok(chains)
    }

    /// Those of these chains that are there, whatever others do to theirs.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn chains_named<'a>(
        &mut self,
        table: &TableId,
        names: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<ChainEntry>, NetlinkError> {
        let (mut found, mut batch) = (Vec::new(), Batch::new());
        for name in names {
            batch.push(SUBSYSTEM << 8 | message::GET_CHAIN, 0, |w| {
                w.raw(&header(table.family));
                w.text(1, &table.name);
                w.text(3, name);
            });
            if batch.len() == QUERIES {
                found.append(&mut self.ask(&mut batch, read_chain)?);
                batch.clear();
            }
        }
        found.append(&mut self.ask(&mut batch, read_chain)?);
        Ok(found)
    }

    /// The rules of a table, or of one of its chains: chain by chain, in order. Their counters are those of one reading.
    ///
    /// # Errors
    /// When they cannot be read; [`NetlinkError::Unsteady`] when they keep changing. A chain that is not there has no
    /// rules.
    pub fn rules(&mut self, table: &TableId, chain: Option<&str>) -> Result<Vec<RuleEntry>, NetlinkError> {
        let body = |w: &mut Writer<'_>| {
            w.raw(&header(table.family));
            w.text(1, &table.name);
            if let Some(chain) = chain {
                w.text(2, chain);
            }
        };
        // Packets count meanwhile.
        let is_same =
            |a: &RuleEntry, b: &RuleEntry| a.handle == b.handle && a.chain == b.chain && a.rule == b.rule;
        let read = |payload: &[u8]| read_rule(payload).map(Some);
        self.dump(message::GET_RULE, message::NEW_RULE, &body, read, is_same)
    }

    /// The sets and maps of a table, without elements.
    ///
    /// # Errors
    /// When they cannot be read; `ENOENT` when there is no such table; [`NetlinkError::Unsteady`] when they keep
    /// changing.
    pub fn sets(&mut self, table: &TableId) -> Result<Vec<SetEntry>, NetlinkError> {
        self.of_table(message::GET_SET, message::NEW_SET, table, read_set)
    }

    /// The elements of a set, in the order of their keys. Those of a set of intervals are intervals, also where both ends
    /// are the same.
    ///
    /// While the kernel makes a hash larger, which it does behind the back of who filled it, a dump of several messages
    /// misses elements and repeats others, and no generation changes. So a hash is read until there are as many
    /// different ones as the kernel says, or until it reads the same twice: kernels before 6.16 do not say. What is read
    /// of intervals is taken at once if nobody has committed meanwhile, else when it reads the same twice.
    ///
    /// # Errors
    /// When they cannot be read; `ENOENT` when there is no such set; [`NetlinkError::Unsteady`] when they keep changing.
    pub fn elements(&mut self, table: &TableId, set: &Set) -> Result<Vec<Element>, NetlinkError> {
        let mut last = None;
        for _ in 0..READINGS {
            let (found, end) = self.elements_once(table, set)?;
            if end == DumpEnd::Cut {
                last = None;
                continue;
            }
            let is_all = match end {
                _ if last.as_ref() == Some(&found) => true,
                DumpEnd::Steady if set.interval => true,
                _ => self.has_as_many(table, set, found.len())?,
            };
            if is_all {
                return Ok(found);
            }
            last = Some(found);
        }
        Err(NetlinkError::Unsteady)
    }

    /// Whether the kernel says that a set has so many elements. It counts both ends of an interval, and elements with a
    /// time may end in between.
    fn has_as_many(&mut self, table: &TableId, set: &Set, len: usize) -> Result<bool, NetlinkError> {
        if set.interval || set.timeouts {
            return Ok(false);
        }
        Ok(self.set(table, &set.name)?.count.is_some_and(|count| count as usize == len))
    }

    fn elements_once(&mut self, table: &TableId, set: &Set) -> Result<(Vec<Element>, DumpEnd), NetlinkError> {
        let body = |w: &mut Writer<'_>| {
            w.raw(&header(table.family));
            w.text(1, &table.name);
            w.text(2, &set.name);
        };
        let mut sink = ElementSink(ElementReader::new(set));
        let end = self.channel.dump_once(SUBSYSTEM << 8 | message::GET_ELEMENT, &body, &mut sink)?;
        Ok((sink.0.finish(), end))
    }

    /// One set or map, without elements.
    ///
    /// # Errors
    /// When it cannot be read; `ENOENT` when there is no such set.
    pub fn set(&mut self, table: &TableId, name: &str) -> Result<SetEntry, NetlinkError> {
        let mut batch = Batch::new();
        batch.push(SUBSYSTEM << 8 | message::GET_SET, 0, |w| {
            w.raw(&header(table.family));
            w.text(1, &table.name);
            w.text(2, name);
        });
        let mut answer = Err(NetlinkError::Malformed("no set"));
        self.channel.execute(&mut batch, &mut |reply| match reply {
            Reply::Data { message, .. } => answer = read_set(message.payload),
            Reply::Refused { refusal, .. } => answer = Err(NetlinkError::Refused(refusal)),
        })?;
        answer
    }

    /// The flowtables of a table.
    ///
    /// # Errors
    /// When they cannot be read; [`NetlinkError::Unsteady`] when they keep changing.
    pub fn flowtables(&mut self, table: &TableId) -> Result<Vec<FlowtableEntry>, NetlinkError> {
        self.of_table(message::GET_FLOWTABLE, message::NEW_FLOWTABLE, table, read_flowtable)
    }

    /// The answers to queries of one object each; of those that are not there, none.
    fn ask<T>(
        &mut self,
        queries: &mut Batch,
        read: impl Fn(&[u8]) -> Result<T, NetlinkError>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut found = Vec::new();
        let mut outcome = Ok(());
        self.channel.execute(queries, &mut |reply| match reply {
            Reply::Data { message, .. } => match read(message.payload) {
                Ok(object) => found.push(object),
                Err(error) => outcome = Err(error),
            },
            Reply::Refused { refusal, .. } if refusal.is(Errno::ENOENT) => {}
            Reply::Refused { refusal, .. } => outcome = Err(NetlinkError::Refused(refusal)),
        })?;
        outcome.map(|()| found)
    }

    /// What a dump lists of a table; not every kernel filters by it.
    fn of_table<T: PartialEq>(
        &mut self,
        get: u16,
        new: u16,
        table: &TableId,
        read: impl Fn(&[u8]) -> Result<T, NetlinkError>,
    ) -> Result<Vec<T>, NetlinkError> {
        let body = |w: &mut Writer<'_>| {
            w.raw(&header(table.family));
            w.text(1, &table.name);
        };
        let family = header(table.family)[0];
        let read = |payload: &[u8]| {
            let is_its = payload.first() == Some(&family) && read_table_name(payload)? == table.name;
            if is_its { read(payload).map(Some) } else { Ok(None) }
        };
        self.dump(get, new, &body, read, |a, b| a == b)
    }

    /// What `read` makes of the messages of a dump that is taken at once if it was not interrupted, else when it reads
    /// the same twice in a row.
    fn dump<T>(
        &mut self,
        get: u16,
        new: u16,
        body: &dyn Fn(&mut Writer<'_>),
        read: impl Fn(&[u8]) -> Result<Option<T>, NetlinkError>,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut sink = Sink { kind: SUBSYSTEM << 8 | new, read, found: Vec::new() };
        let mut last: Option<Vec<T>> = None;
        for _ in 0..READINGS {
            let end = self.channel.dump_once(SUBSYSTEM << 8 | get, body, &mut sink)?;
            let found = std::mem::take(&mut sink.found);
            let is_as_before = || {
                last.as_ref().is_some_and(|last| {
                    last.len() == found.len() && last.iter().zip(&found).all(|(a, b)| is_same(a, b))
                })
            };
            last = match end {
                DumpEnd::Steady => return Ok(found),
                DumpEnd::Interrupted if is_as_before() => return Ok(found),
                DumpEnd::Interrupted => Some(found),
                DumpEnd::Cut => None,
            };
        }
        Err(NetlinkError::Unsteady)
    }
}

/// Collects what is read from each message of a dump.
struct Sink<T, F> {
    kind: u16,
    read: F,
    found: Vec<T>,
}

impl<T, F: Fn(&[u8]) -> Result<Option<T>, NetlinkError>> DumpSink for Sink<T, F> {
    fn restart(&mut self) {
        self.found.clear();
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        if message.kind == self.kind {
            self.found.extend((self.read)(message.payload)?);
        }
        Ok(())
    }
}

struct ElementSink(ElementReader);

impl DumpSink for ElementSink {
    fn restart(&mut self) {
        self.0.clear();
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError> {
        if message.kind == SUBSYSTEM << 8 | message::NEW_ELEMENT {
            self.0.read(message.payload)
        } else {
            Ok(())
        }
    }
}
