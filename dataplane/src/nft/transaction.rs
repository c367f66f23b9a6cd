//! Changes that are to happen together, and whose objects are known by the number of their message.
//!
//! ```text
//!   add_table add_chain add_set add_elements │ add_rule (jumps to the new chains) delete_chain ...
//!   ──────────── may go ahead ───────────────┴──────────────── in one go ────────────────────────
//!                                      split_here()
//! ```
//!
//! The kernel carries out what one datagram holds, or nothing of it. Everything goes in one datagram if the socket takes
//! it. If not, what stands before [`Transaction::split_here`] goes ahead in several: so put nothing there that changes what
//! becomes of a packet, but only what nothing refers to yet.

use std::fmt;

use tortie_rules::ruleset::nft::{Chain, Element, Flowtable, Rule, Set, Table, TableId};

use super::SUBSYSTEM;
use super::element::{Detail, write_elements};
use super::numbers::message;
use super::object::{
    CHAIN_NAME, Place, RULE_CHAIN, SET_NAME, write_chain, write_flowtable, write_rule, write_set,
    write_table, write_table_name,
};
use crate::netlink::{Batch, Writer};

/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;
/// `NLM_F_REPLACE`.
const REPLACE: u16 = 0x100;
/// `NLM_F_APPEND`.
const APPEND: u16 = 0x800;

/// What is done with an object that is to go and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The transaction fails: `ENOENT`.
    MustExist,
    /// Nothing. Kernels know it from 6.3 on; older ones refuse the transaction.
    IfPresent,
}

/// What a message is about, for who has to tell that it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its table.
    pub table: TableId,
    /// What it is.
    pub kind: ObjectKind,
}

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// The table.
    Table,
    /// This chain.
    Chain(String),
    /// A rule of this chain: of those that are written to it one after the other, the one of this number, from 0 on.
    Rule {
        /// The chain.
        chain: String,
        /// Which.
        number: usize,
    },
    /// This set.
    Set(String),
    /// Elements of this set.
    Elements {
        /// The set.
        set: String,
        /// The first one's number among those that were given.
        first: usize,
        /// How many.
        count: usize,
    },
    /// This flowtable.
    Flowtable(String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ObjectKind::Table => write!(f, "table {}", self.table),
            ObjectKind::Chain(chain) => write!(f, "chain {} {chain}", self.table),
            ObjectKind::Rule { chain, number } => write!(f, "rule {number} of chain {} {chain}", self.table),
            ObjectKind::Set(set) => write!(f, "set {} {set}", self.table),
            ObjectKind::Elements { set, first, count } => {
                write!(f, "elements {first} to {} of set {} {set}", first + count - 1, self.table)
            }
            ObjectKind::Flowtable(name) => write!(f, "flowtable {} {name}", self.table),
        }
    }
}

/// Changes that are to happen together.
#[derive(Debug, Default)]
pub struct Transaction {
    pub(super) batch: Batch,
    /// What each message is about.
    slots: Vec<Slot>,
    /// The names that slots refer to; most follow one of the same name.
    tables: Vec<TableId>,
    names: Vec<String>,
    /// Rules written so far to the last chain that was written to.
    rules: u32,
    /// How many messages may go ahead.
    pub(super) split: usize,
    /// Sets are numbered within a transaction.
    sets: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    table: u32,
    name: u32,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Table,
    Chain,
    Rule(u32),
    Set,
    Elements(u32, u32),
    Flowtable,
}

impl Transaction {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.batch.offset(self.batch.len())
    }

    /// The bytes of a message, with its netlink header.
    pub fn message(&self, message: usize) -> Option<&[u8]> {
        self.batch.bytes_of(message)
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.slots.clear();
        self.tables.clear();
        self.names.clear();
        self.rules = 0;
        self.split = 0;
        self.sets = 0;
    }

    /// What stands before may go ahead, if all together is too much for the socket.
    pub fn split_here(&mut self) {
        self.split = self.batch.len();
    }

    /// What a message is about.
    pub fn object(&self, message: usize) -> Option<Object> {
        let slot = self.slots.get(message)?;
        let name = || self.names.get(slot.name as usize).cloned().unwrap_or_default();
        let kind = match slot.what {
            What::Table => ObjectKind::Table,
            What::Chain => ObjectKind::Chain(name()),
            What::Rule(number) => ObjectKind::Rule { chain: name(), number: number as usize },
            What::Set => ObjectKind::Set(name()),
            What::Elements(first, count) => {
                ObjectKind::Elements { set: name(), first: first as usize, count: count as usize }
            }
            What::Flowtable => ObjectKind::Flowtable(name()),
        };
        Some(Object { table: self.tables.get(slot.table as usize)?.clone(), kind })
    }

    /// A table; nothing happens if it is there.
    pub fn add_table(&mut self, table: &Table) {
        self.push(message::NEW_TABLE, CREATE, (&table.id, "", What::Table), |w| write_table(w, table));
    }

    /// Takes a table out, with all that is in it.
    pub fn remove_table(&mut self, table: &TableId, removal: Removal) {
        let kind = removal.of(message::DEL_TABLE, message::DESTROY_TABLE);
        self.push(kind, 0, (table, "", What::Table), |w| write_table_name(w, table));
    }

    /// A chain; of one that is there, its policy changes.
    pub fn add_chain(&mut self, table: &TableId, chain: &Chain) {
        let object = (table, chain.name.as_str(), What::Chain);
        self.push(message::NEW_CHAIN, CREATE, object, |w| write_chain(w, table, chain));
    }

    /// Takes a chain out, with its rules. No rule and no map may lead to it any more.
    pub fn remove_chain(&mut self, table: &TableId, chain: &str, removal: Removal) {
        let kind = removal.of(message::DEL_CHAIN, message::DESTROY_CHAIN);
        self.push(kind, 0, (table, chain, What::Chain), |w| {
            write_table_name(w, table);
            w.text(CHAIN_NAME, chain);
        });
    }

    /// Takes all rules out of a chain.
    pub fn flush_chain(&mut self, table: &TableId, chain: &str) {
        self.push(message::DEL_RULE, 0, (table, chain, What::Chain), |w| {
            write_table_name(w, table);
            w.text(RULE_CHAIN, chain);
        });
    }

    /// Takes all rules out of all chains of a table.
    pub fn flush_table(&mut self, table: &TableId) {
        self.push(message::DEL_RULE, 0, (table, "", What::Table), |w| write_table_name(w, table));
    }

    /// A rule at the end of a chain.
    pub fn add_rule(&mut self, table: &TableId, chain: &str, rule: &Rule) {
        self.rule(CREATE | APPEND, (table, chain), Place::Outermost, rule);
    }

    /// A rule at the beginning of a chain.
    pub fn insert_rule(&mut self, table: &TableId, chain: &str, rule: &Rule) {
        self.rule(CREATE, (table, chain), Place::Outermost, rule);
    }

    /// A rule behind the one of this handle.
    pub fn add_rule_behind(&mut self, table: &TableId, chain: &str, handle: u64, rule: &Rule) {
        self.rule(CREATE | APPEND, (table, chain), Place::Behind(handle), rule);
    }

    /// A rule before the one of this handle.
    pub fn insert_rule_before(&mut self, table: &TableId, chain: &str, handle: u64, rule: &Rule) {
        self.rule(CREATE, (table, chain), Place::Before(handle), rule);
    }

    /// A rule in the place of the one of this handle. Its counters start over, and its handle is another.
    pub fn replace_rule(&mut self, table: &TableId, chain: &str, handle: u64, rule: &Rule) {
        self.rule(REPLACE, (table, chain), Place::Instead(handle), rule);
    }

    /// Takes out the rule of this handle.
    pub fn remove_rule(&mut self, table: &TableId, chain: &str, handle: u64) {
        self.push(message::DEL_RULE, 0, (table, chain, What::Chain), |w| {
            write_table_name(w, table);
            w.text(RULE_CHAIN, chain);
            w.plain_be64(3, handle);
        });
    }

    fn rule(&mut self, flags: u16, (table, chain): (&TableId, &str), place: Place, rule: &Rule) {
        let is_next = matches!(self.slots.last(), Some(Slot { what: What::Rule(_), .. }))
            && self.names.last().is_some_and(|last| last == chain)
            && self.tables.last() == Some(table);
        self.rules = if is_next { self.rules + 1 } else { 0 };
        let object = (table, chain, What::Rule(self.rules));
        self.push(message::NEW_RULE, flags, object, |w| write_rule(w, table, chain, place, rule));
    }

    /// A set or map, without elements. The kernel refuses one that differs from what is there under its name.
    pub fn add_set(&mut self, table: &TableId, set: &Set) {
        self.sets += 1;
        let (object, id) = ((table, set.name.as_str(), What::Set), self.sets);
        self.push(message::NEW_SET, CREATE, object, |w| write_set(w, table, set, id));
    }

    /// Takes a set out, with its elements. No rule may look into it any more.
    pub fn remove_set(&mut self, table: &TableId, set: &str, removal: Removal) {
        let kind = removal.of(message::DEL_SET, message::DESTROY_SET);
        self.push(kind, 0, (table, set, What::Set), |w| {
            write_table_name(w, table);
            w.text(SET_NAME, set);
        });
    }

    /// Takes all elements out of a set.
    pub fn flush_set(&mut self, table: &TableId, set: &str) {
        self.push(message::DEL_ELEMENT, 0, (table, set, What::Set), |w| {
            write_table_name(w, table);
            w.text(SET_NAME, set);
        });
    }

    /// Elements for a set. Those that are there already are no error, unless a map holds something else for them: to
    /// change that, take them out first.
    pub fn add_elements<'a>(
        &mut self,
        table: &TableId,
        set: &Set,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        self.elements(message::NEW_ELEMENT, CREATE, (table, set), elements, Detail::Whole);
    }

    /// Takes elements out of a set. Of a map's, too, only keys count.
    pub fn remove_elements<'a>(
        &mut self,
        table: &TableId,
        set: &Set,
        elements: impl IntoIterator<Item = &'a Element>,
        removal: Removal,
    ) {
        let kind = removal.of(message::DEL_ELEMENT, message::DESTROY_ELEMENT);
        self.elements(kind, 0, (table, set), elements, Detail::Key);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        (table, set): (&TableId, &Set),
        elements: impl IntoIterator<Item = &'a Element>,
        detail: Detail,
    ) {
        let mut elements = elements.into_iter().peekable();
        let mut first = 0;
        while elements.peek().is_some() {
            let mut count = 0;
            self.push(kind, flags, (table, set.name.as_str(), What::Elements(first, 0)), |w| {
                count = write_elements(w, table, set, &mut elements, detail);
            });
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if let Some(slot) = self.slots.last_mut() {
                slot.what = What::Elements(first, count);
            }
            first += count;
        }
    }

    /// A flowtable.
    pub fn add_flowtable(&mut self, table: &TableId, flowtable: &Flowtable) {
        let object = (table, flowtable.name.as_str(), What::Flowtable);
        self.push(message::NEW_FLOWTABLE, CREATE, object, |w| write_flowtable(w, table, flowtable));
    }

    /// Takes a flowtable out. No rule may use it any more.
    pub fn remove_flowtable(&mut self, table: &TableId, name: &str, removal: Removal) {
        let kind = removal.of(message::DEL_FLOWTABLE, message::DESTROY_FLOWTABLE);
        self.push(kind, 0, (table, name, What::Flowtable), |w| {
            write_table_name(w, table);
            w.text(SET_NAME, name);
        });
    }

    /// Takes interfaces out of a flowtable, those that it names; the others stay.
    pub fn remove_flowtable_devices(&mut self, table: &TableId, flowtable: &Flowtable, removal: Removal) {
        let kind = removal.of(message::DEL_FLOWTABLE, message::DESTROY_FLOWTABLE);
        let object = (table, flowtable.name.as_str(), What::Flowtable);
        self.push(kind, 0, object, |w| write_flowtable(w, table, flowtable));
    }

    fn push(
        &mut self,
        kind: u16,
        flags: u16,
        (table, name, what): (&TableId, &str, What),
        body: impl FnOnce(&mut Writer<'_>),
    ) {
        if self.tables.last() != Some(table) {
            self.tables.push(table.clone());
        }
        if self.names.last().is_none_or(|last| last != name) {
            self.names.push(name.to_owned());
        }
        let last = |len: usize| u32::try_from(len - 1).expect("fewer names than bytes of a batch");
        self.slots.push(Slot { table: last(self.tables.len()), name: last(self.names.len()), what });
        self.batch.push(SUBSYSTEM << 8 | kind, flags, body);
    }
}

impl Removal {
    fn of(self, delete: u16, destroy: u16) -> u16 {
        match self {
            Self::MustExist => delete,
            Self::IfPresent => destroy,
        }
    }
}
