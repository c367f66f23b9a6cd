//! Tables, chains, sets and flowtables as messages, without the header.

use tortie_rules::ruleset::nft::{BaseChain, Chain, Family, Flowtable, MapData, Rule, Set, Table, TableId};

use super::expression::{LIST_ELEMENT, write_expression, write_expressions};
use super::{header, numbers, userdata};
use crate::netlink::Writer;

mod read;

pub use read::{read_chain, read_flowtable, read_set, read_table};
pub(super) use read::{read_family, read_table_name};

/// `NFTA_*_TABLE` and `NFTA_*_NAME` of chains and sets.
pub(super) const TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const SET_NAME: u16 = 2;

/// `NFT_SET_*`. Anonymous is what `nft` makes of a set that is written in a rule.
const SET_ANONYMOUS: u32 = 0x1;
const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_DYNAMIC: u32 = 0x20;
const SET_CONCAT: u32 = 0x80;
const SET_EXPRESSIONS: u32 = 0x100;
/// `NFT_DATA_VERDICT`.
const DATA_VERDICT: u32 = 0xffff_ff00;

/// Writes the header and the table's name: how every message about something in a table begins.
pub(super) fn write_table_name(w: &mut Writer<'_>, table: &TableId) {
    w.raw(&header(table.family));
    w.text(TABLE, &table.name);
}

pub(super) fn write_table(w: &mut Writer<'_>, table: &Table) {
    write_table_name(w, &table.id);
    w.plain_be32(2, 0);
    userdata::write_comment(w, 6, table.comment.as_deref());
}

pub(super) fn write_chain(w: &mut Writer<'_>, table: &TableId, chain: &Chain) {
    write_table_name(w, table);
    w.text(CHAIN_NAME, &chain.name);
    if let Some(base) = &chain.base {
        w.text(7, numbers::chain_kind(base.kind));
        w.plain_be32(5, numbers::policy(base.policy));
        w.nested(4, |hook| write_hook(hook, table.family, base));
    }
    userdata::write_comment(w, 12, chain.comment.as_deref());
}

fn write_hook(w: &mut Writer<'_>, family: Family, base: &BaseChain) {
    w.plain_be32(1, numbers::hook(family, base.hook));
    w.bytes(2, &base.priority.to_be_bytes());
    match base.devices.as_slice() {
        [] => {}
        [device] => w.text(3, device),
        devices => w.nested(4, |list| write_devices(list, devices)),
    }
}

fn write_devices(list: &mut Writer<'_>, devices: &[String]) {
    for device in devices {
        // `NFTA_DEVICE_NAME`.
        list.text(1, device);
    }
}

pub(super) fn write_rule(w: &mut Writer<'_>, table: &TableId, chain: &str, place: Place, rule: &Rule) {
    write_table_name(w, table);
    w.text(RULE_CHAIN, chain);
    if let Place::Instead(handle) = place {
        w.plain_be64(3, handle);
    }
    w.nested(4, |list| write_expressions(list, &rule.expressions));
    if let Place::Behind(handle) | Place::Before(handle) = place {
        w.plain_be64(6, handle);
    }
    userdata::write_comment(w, 7, rule.comment.as_deref());
}

/// Where a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To the beginning or the end of the chain.
    Outermost,
    /// In the place of a rule.
    Instead(u64),
    /// Behind a rule.
    Behind(u64),
    /// Before a rule.
    Before(u64),
}

pub(super) fn write_set(w: &mut Writer<'_>, table: &TableId, set: &Set, id: u32) {
    write_table_name(w, table);
    w.text(SET_NAME, &set.name);
    w.plain_be32(3, set_flags(set));
    w.plain_be32(4, numbers::concatenation(&set.key));
    w.plain_be32(5, key_len(&set.key));
    match &set.data {
        None => {}
        Some(MapData::Verdict) => {
            w.plain_be32(6, DATA_VERDICT);
            w.plain_be32(7, 0);
        }
        Some(MapData::Fields(fields)) => {
            w.plain_be32(6, numbers::concatenation(fields));
            w.plain_be32(7, key_len(fields));
        }
    }
    w.plain_be32(10, id);
    write_description(w, set);
    if let Some(timeout) = set.timeout {
        w.plain_be64(11, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    }
    userdata::write_set(w, 13, set);
    match set.expressions.as_slice() {
        [] => {}
        [one] => write_expression(w, 17, one),
        several => w.nested(18, |list| write_expressions(list, several)),
    }
}

fn set_flags(set: &Set) -> u32 {
    let flag = |is_set: bool, bits: u32| if is_set { bits } else { 0 };
    flag(set.interval, SET_INTERVAL)
        | flag(set.data.is_some(), SET_MAP)
        | flag(set.timeouts, SET_TIMEOUT)
        | flag(set.dynamic, SET_DYNAMIC)
        | flag(set.interval && set.key.len() > 1, SET_CONCAT)
        | flag(set.expressions.len() > 1, SET_EXPRESSIONS)
}

/// Bytes of a key or of data: each of several fields fills whole words.
fn key_len(fields: &[tortie_rules::ruleset::nft::FieldType]) -> u32 {
    let len = match fields {
        [field] => field.len(),
        fields => fields.iter().map(|field| field.len().next_multiple_of(4)).sum(),
    };
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// `NFTA_SET_DESC`: the size, and where the fields of a concatenation of intervals lie.
fn write_description(w: &mut Writer<'_>, set: &Set) {
    let is_concat = set.interval && set.key.len() > 1;
    if set.size.is_none() && !is_concat {
        return;
    }
    w.nested(9, |description| {
        if let Some(size) = set.size {
            description.plain_be32(1, size);
        }
        if is_concat {
            description.nested(2, |fields| {
                for field in &set.key {
                    fields.nested(LIST_ELEMENT, |len| {
                        len.plain_be32(1, u32::try_from(field.len()).unwrap_or(u32::MAX));
                    });
                }
            });
        }
    });
}

pub(super) fn write_flowtable(w: &mut Writer<'_>, table: &TableId, flowtable: &Flowtable) {
    write_table_name(w, table);
    w.text(SET_NAME, &flowtable.name);
    w.nested(3, |hook| {
        // `NF_NETDEV_INGRESS`: there is no other.
        hook.plain_be32(1, 0);
        hook.bytes(2, &flowtable.priority.to_be_bytes());
        if !flowtable.devices.is_empty() {
            hook.nested(3, |list| write_devices(list, &flowtable.devices));
        }
    });
    // `NFT_FLOWTABLE_COUNTER`.
    w.plain_be32(7, if flowtable.counter { 2 } else { 0 });
}
