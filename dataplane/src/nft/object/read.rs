//! Reading tables, chains, sets and flowtables, from behind the netlink header.

use std::time::Duration;

use tortie_rules::ruleset::nft::{BaseChain, Chain, Family, Flowtable, MapData, Policy, Set, Table, TableId};

use super::super::entry::{ChainEntry, FlowtableEntry, SetEntry, TableEntry, Unread};
use super::super::expression::{LIST_ELEMENT, read_one};
use super::super::{HEADER_LEN, numbers, userdata};
use super::{
    CHAIN_NAME, DATA_VERDICT, SET_ANONYMOUS, SET_CONCAT, SET_DYNAMIC, SET_EXPRESSIONS, SET_INTERVAL, SET_MAP,
    SET_NAME, SET_TIMEOUT, TABLE, key_len,
};
use crate::netlink::{Attribute, Attributes, NetlinkError, be32, be64};

/// The family that a message's header names, if the tree has a word for it.
pub(in super::super) fn read_family(payload: &[u8]) -> Option<Family> {
    payload.first().and_then(|number| numbers::family_of(u32::from(*number)))
}

/// Reads a message about a table (`NFT_MSG_NEWTABLE`); `None` for a family that the tree does not know.
///
/// # Errors
/// When it does not follow the format.
pub fn read_table(payload: &[u8]) -> Result<Option<TableEntry>, NetlinkError> {
    let (mut name, mut handle, mut comment) = (None, 0, None);
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            1 => name = Some(attribute.text()?.to_owned()),
            4 => handle = be64(&attribute)?,
            6 => comment = userdata::comment(attribute.value, userdata::COMMENT),
            _ => {}
        }
    }
    let name = name.ok_or(NetlinkError::Malformed("table without a name"))?;
    let table = |family| Table { id: TableId { family, name }, comment };
    Ok(read_family(payload).map(|family| TableEntry { table: table(family), handle }))
}

/// The table that an object belongs to.
pub(in super::super) fn read_table_name(payload: &[u8]) -> Result<&str, NetlinkError> {
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        if attribute.kind == TABLE {
            return attribute.text();
        }
    }
    Err(NetlinkError::Malformed("object without a table"))
}

/// Reads a message about a chain (`NFT_MSG_NEWCHAIN`).
///
/// # Errors
/// When it does not follow the format.
pub fn read_chain(payload: &[u8]) -> Result<ChainEntry, NetlinkError> {
    let (mut name, mut handle, mut comment) = (None, 0, None);
    let (mut kind, mut policy, mut hook) = (None, None, None);
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            2 => handle = be64(&attribute)?,
            CHAIN_NAME => name = Some(attribute.text()?.to_owned()),
            4 => hook = Some(attribute),
            5 => policy = Some(be32(&attribute)?),
            7 => kind = Some(attribute.text()?),
            12 => comment = userdata::comment(attribute.value, userdata::COMMENT),
            _ => {}
        }
    }
    let name = name.ok_or(NetlinkError::Malformed("chain without a name"))?;
    let base = match hook {
        Some(hook) => Unread::split(read_base(payload, &hook, kind, policy))?.map(Some),
        None => Ok(None),
    };
    Ok(ChainEntry { handle, chain: base.map(|base| Chain { name: name.clone(), base, comment }), name })
}

fn read_base(
    payload: &[u8],
    hook: &Attribute<'_>,
    kind: Option<&str>,
    policy: Option<u32>,
) -> Result<BaseChain, Unread> {
    let family = read_family(payload).ok_or_else(|| Unread::foreign("family"))?;
    let (mut number, mut priority, mut devices) = (None, 0, Vec::new());
    for part in hook.nested() {
        let part = part?;
        match part.kind {
            1 => number = Some(be32(&part)?),
            2 => priority = be32(&part)?.cast_signed(),
            3 => devices.push(part.text()?.to_owned()),
            4 => read_devices(&part, &mut devices)?,
            _ => {}
        }
    }
    devices.sort();
    devices.dedup();
    let number = number.ok_or(NetlinkError::Malformed("hook without a number"))?;
    let kind = kind.ok_or(NetlinkError::Malformed("base chain without a type"))?;
    Ok(BaseChain {
        kind: numbers::chain_kind_of(kind).ok_or_else(|| Unread::foreign(format!("chain type {kind}")))?,
        hook: numbers::hook_of(family, number).ok_or_else(|| Unread::foreign(format!("hook {number}")))?,
        priority,
        policy: policy.map_or(Some(Policy::Accept), numbers::policy_of).unwrap_or(Policy::Accept),
        devices,
    })
}

fn read_devices(list: &Attribute<'_>, devices: &mut Vec<String>) -> Result<(), NetlinkError> {
    for device in list.nested() {
        devices.push(device?.text()?.to_owned());
    }
    Ok(())
}

/// The attributes of a set that say what it is.
#[derive(Default)]
struct SetFields<'a> {
    name: Option<String>,
    handle: u64,
    flags: u32,
    key: u32,
    key_len: u32,
    data: u32,
    data_len: u32,
    description: Option<Attribute<'a>>,
    timeout: u64,
    comment: Option<String>,
    expression: Option<Attribute<'a>>,
    expressions: Option<Attribute<'a>>,
    count: Option<u32>,
}

/// `NFTA_SET_COUNT`.
const SET_COUNT: u16 = 20;

/// Reads a message about a set (`NFT_MSG_NEWSET`).
///
/// # Errors
/// When it does not follow the format.
pub fn read_set(payload: &[u8]) -> Result<SetEntry, NetlinkError> {
    let mut fields = SetFields::default();
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            SET_NAME => fields.name = Some(attribute.text()?.to_owned()),
            3 => fields.flags = be32(&attribute)?,
            4 => fields.key = be32(&attribute)?,
            5 => fields.key_len = be32(&attribute)?,
            6 => fields.data = be32(&attribute)?,
            7 => fields.data_len = be32(&attribute)?,
            9 => fields.description = Some(attribute),
            11 => fields.timeout = be64(&attribute)?,
            13 => fields.comment = userdata::comment(attribute.value, userdata::SET_COMMENT),
            16 => fields.handle = be64(&attribute)?,
            17 => fields.expression = Some(attribute),
            18 => fields.expressions = Some(attribute),
            SET_COUNT => fields.count = Some(be32(&attribute)?),
            _ => {}
        }
    }
    let name = fields.name.clone().ok_or(NetlinkError::Malformed("set without a name"))?;
    let set = Unread::split(read_set_fields(name.clone(), &fields))?;
    let is_anonymous = fields.flags & SET_ANONYMOUS != 0;
    Ok(SetEntry { name, handle: fields.handle, is_anonymous, count: fields.count, set })
}

fn read_set_fields(name: String, fields: &SetFields<'_>) -> Result<Set, Unread> {
    const KNOWN: u32 = SET_INTERVAL | SET_MAP | SET_TIMEOUT | SET_DYNAMIC | SET_CONCAT | SET_EXPRESSIONS;
    if fields.flags & !KNOWN != 0 {
        return Err(Unread::foreign(format!("set flags {:#x}", fields.flags)));
    }
    let read_type = |number, len| {
        let known = numbers::concatenation_of(number).filter(|known| key_len(known) == len);
        known.ok_or_else(|| Unread::foreign(format!("type {number} of {len} bytes")))
    };
    let data = match (fields.flags & SET_MAP != 0, fields.data) {
        (false, _) => None,
        (true, DATA_VERDICT) => Some(MapData::Verdict),
        (true, number) => Some(MapData::Fields(read_type(number, fields.data_len)?)),
    };
    let has = |flag| fields.flags & flag != 0;
    Ok(Set {
        name,
        key: read_type(fields.key, fields.key_len)?,
        data,
        interval: has(SET_INTERVAL),
        timeouts: has(SET_TIMEOUT),
        timeout: (fields.timeout != 0).then(|| Duration::from_millis(fields.timeout)),
        dynamic: has(SET_DYNAMIC),
        size: read_size(fields.description.as_ref())?,
        expressions: read_set_expressions(fields)?,
        comment: fields.comment.clone(),
    })
}

fn read_size(description: Option<&Attribute<'_>>) -> Result<Option<u32>, NetlinkError> {
    for part in description.into_iter().flat_map(Attribute::nested) {
        let part = part?;
        if part.kind == 1 {
            return be32(&part).map(Some);
        }
    }
    Ok(None)
}

fn read_set_expressions(
    fields: &SetFields<'_>,
) -> Result<Vec<tortie_rules::ruleset::nft::Expression>, Unread> {
    let mut expressions = Vec::new();
    if let Some(one) = &fields.expression {
        expressions.push(read_one(one, &mut Vec::new())?);
    }
    for one in fields.expressions.iter().flat_map(Attribute::nested) {
        let one = one?;
        if one.kind == LIST_ELEMENT {
            expressions.push(read_one(&one, &mut Vec::new())?);
        }
    }
    Ok(expressions)
}

/// Reads a message about a flowtable (`NFT_MSG_NEWFLOWTABLE`).
///
/// # Errors
/// When it does not follow the format.
pub fn read_flowtable(payload: &[u8]) -> Result<FlowtableEntry, NetlinkError> {
    let (mut name, mut handle, mut flags) = (None, 0, 0);
    let (mut priority, mut devices) = (0, Vec::new());
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            SET_NAME => name = Some(attribute.text()?.to_owned()),
            3 => {
                for part in attribute.nested() {
                    let part = part?;
                    match part.kind {
                        2 => priority = be32(&part)?.cast_signed(),
                        3 => read_devices(&part, &mut devices)?,
                        _ => {}
                    }
                }
            }
            5 => handle = be64(&attribute)?,
            7 => flags = be32(&attribute)?,
            _ => {}
        }
    }
    devices.sort();
    let name = name.ok_or(NetlinkError::Malformed("flowtable without a name"))?;
    Ok(FlowtableEntry { flowtable: Flowtable { name, priority, devices, counter: flags & 2 != 0 }, handle })
}
