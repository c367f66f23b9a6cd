//! Reading expressions that do something.

use std::time::Duration;

use tortie_rules::ruleset::nft::{
    Checksum, DynamicSet, Expression, LimitUnit, LogTarget, NatFlags, NatKind, Payload, RejectKind,
};

use super::super::entry::Unread;
use super::super::numbers;
use super::read::{Fields, read_all, read_one, read_tcp_option};
use super::write_effect::{DEFAULT_LEVEL, DYNAMIC_NEGATED, NAT_FULLY_RANDOM, NAT_PERSISTENT, NAT_RANDOM};
use crate::netlink::{Attribute, NetlinkError};

/// `NF_NAT_RANGE_NETMAP`: addresses are translated one to one.
const NAT_NETMAP: u32 = 1 << 6;

/// An expression of this name, if it is one that does something.
pub(super) fn read_effect(name: &str, f: &Fields<'_>) -> Result<Expression, Unread> {
    match name {
        "counter" => Ok(Expression::Counter),
        "notrack" => Ok(Expression::NoTrack),
        "limit" => read_limit(f),
        "connlimit" => Ok(Expression::ConnectionLimit { count: f.u32(1)?, over: f.u32_or(2, 0)? & 1 != 0 }),
        "log" => read_log(f),
        "reject" => read_reject(f),
        "masq" => {
            Ok(Expression::Masquerade { ports: f.registers(2, 3)?, flags: nat_flags(f.u32_or(1, 0)?)? })
        }
        "nat" => read_nat(f),
        "redir" => Ok(Expression::Redirect { ports: f.registers(1, 2)?, flags: nat_flags(f.u32_or(3, 0)?)? }),
        "dynset" => read_dynamic_set(f).map(Expression::DynamicSet),
        "exthdr" => read_option(f),
        "flow_offload" => Ok(Expression::FlowOffload { flowtable: f.text(1)? }),
        "queue" => read_queue(f),
        other => Err(Unread::foreign(format!("expression {other}"))),
    }
}

/// A `payload` that writes.
pub(super) fn read_set_payload(payload: Payload, f: &Fields<'_>) -> Result<Expression, Unread> {
    let checksum = match f.u32_or(6, 0)? {
        0 => None,
        1 => Some(Checksum { offset: f.u32_or(7, 0)?, pseudo_header: f.u32_or(8, 0)? & 1 != 0 }),
        other => return Err(Unread::foreign(format!("payload checksum {other}"))),
    };
    Ok(Expression::SetPayload { payload, from: f.register(5)?, checksum })
}

fn read_limit(f: &Fields<'_>) -> Result<Expression, Unread> {
    let seconds = f.u64_or(2, 0)?;
    let unit = LimitUnit::ALL.into_iter().find(|unit| unit.seconds() == seconds);
    Ok(Expression::Limit {
        rate: f.u64_or(1, 0)?,
        unit: unit.ok_or_else(|| Unread::foreign(format!("limit per {seconds} s")))?,
        burst: f.u32_or(3, 0)?,
        bytes: f.u32_or(4, 0)? == 1,
        over: f.u32_or(5, 0)? & 1 != 0,
    })
}

fn read_log(f: &Fields<'_>) -> Result<Expression, Unread> {
    let prefix = if f.has(2) { Some(f.text(2)?) } else { None };
    let target = if f.has(1) {
        LogTarget::Group {
            group: f.u16_or(1, 0)?,
            snap_len: if f.has(3) { Some(f.u32(3)?) } else { None },
            queue_threshold: Some(f.u16_or(4, 0)?).filter(|threshold| *threshold != 0),
        }
    } else {
        LogTarget::Kernel { level: f.u32_or(5, DEFAULT_LEVEL)?, flags: f.u32_or(6, 0)? }
    };
    Ok(Expression::Log { prefix, target })
}

fn read_reject(f: &Fields<'_>) -> Result<Expression, Unread> {
    let code = || f.get(2).and_then(Attribute::u8);
    Ok(Expression::Reject(match f.u32(1)? {
        0 => RejectKind::Icmp(code()?),
        1 => RejectKind::TcpReset,
        2 => RejectKind::Icmpx(code()?),
        other => return Err(Unread::foreign(format!("reject type {other}"))),
    }))
}

fn read_nat(f: &Fields<'_>) -> Result<Expression, Unread> {
    Ok(Expression::Nat {
        kind: match f.u32(1)? {
            0 => NatKind::Source,
            1 => NatKind::Destination,
            other => return Err(Unread::foreign(format!("nat type {other}"))),
        },
        version: f.known(2, numbers::family_of, "nat family")?,
        addresses: f.registers(3, 4)?,
        ports: f.registers(5, 6)?,
        flags: nat_flags(f.u32_or(7, 0)?)?,
    })
}

/// The kernel also sets bits that follow from the registers.
fn nat_flags(bits: u32) -> Result<NatFlags, Unread> {
    if bits & NAT_NETMAP != 0 {
        return Err(Unread::foreign("nat of prefixes"));
    }
    Ok(NatFlags {
        random: bits & NAT_RANDOM != 0,
        fully_random: bits & NAT_FULLY_RANDOM != 0,
        persistent: bits & NAT_PERSISTENT != 0,
    })
}

fn read_option(f: &Fields<'_>) -> Result<Expression, Unread> {
    let (kind, offset, len) = read_tcp_option(f)?;
    Ok(if f.has(1) {
        Expression::TcpOption { kind, offset, len, to: f.register(1)? }
    } else {
        Expression::SetTcpOption { kind, offset, len, from: f.register(7)? }
    })
}

fn read_queue(f: &Fields<'_>) -> Result<Expression, Unread> {
    if f.has(4) {
        return Err(Unread::foreign("queue by a register"));
    }
    let flags = f.u16_or(3, 0)?;
    Ok(Expression::Queue {
        number: f.u16_or(1, 0)?,
        total: f.u16_or(2, 1)?,
        bypass: flags & 1 != 0,
        fanout: flags & 2 != 0,
    })
}

fn read_dynamic_set(f: &Fields<'_>) -> Result<DynamicSet, Unread> {
    let mut counters = Vec::new();
    let expressions = if f.has(7) {
        vec![read_one(inner(f, 7)?, &mut counters)?]
    } else if f.has(10) {
        read_all(inner(f, 10)?, &mut counters)?
    } else {
        Vec::new()
    };
    let timeout = f.u64_or(6, 0)?;
    Ok(DynamicSet {
        operation: f.known(3, numbers::set_operation_of, "dynset operation")?,
        set: f.text(1)?,
        key: f.register(4)?,
        value: if f.has(5) { Some(f.register(5)?) } else { None },
        timeout: (timeout != 0).then(|| Duration::from_millis(timeout)),
        negate: f.u32_or(9, 0)? & DYNAMIC_NEGATED != 0,
        expressions,
    })
}

/// Expressions within an expression, as long as there are not too many.
fn inner<'a, 'f>(f: &'f Fields<'a>, kind: usize) -> Result<&'f Attribute<'a>, NetlinkError> {
    let inner = f.get(kind)?;
    if inner.value.len() > NESTED_MAX {
        return Err(NetlinkError::Malformed("expression within an expression is too long"));
    }
    Ok(inner)
}

/// A dynset within a dynset within ...: what is read must not be able to exhaust the stack. In bytes.
const NESTED_MAX: usize = 1024;
