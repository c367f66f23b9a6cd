//! Writing expressions that do something.

use tortie_rules::ruleset::nft::{
    Checksum, DynamicSet, Expression, LogTarget, NatFlags, NatKind, Register, RejectKind,
};

use super::super::numbers;
use super::write::{register, write_expression, write_payload, write_tcp_option};
use crate::netlink::Writer;

/// `NFT_PAYLOAD_CSUM_INET`.
const CHECKSUM_INTERNET: u32 = 1;
/// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`.
const CHECKSUM_PSEUDO_HEADER: u32 = 1;
/// The level that a log line has if none is asked for (`LOGLEVEL_WARNING`).
pub(super) const DEFAULT_LEVEL: u32 = 4;
/// `NFT_DYNSET_F_INV`, `NFT_DYNSET_F_EXPR`.
pub(super) const DYNAMIC_NEGATED: u32 = 1;
pub(super) const DYNAMIC_EXPRESSIONS: u32 = 2;
/// `NF_NAT_RANGE_PROTO_RANDOM`, `NF_NAT_RANGE_PERSISTENT`, `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
/// Before them `NF_NAT_RANGE_PROTO_SPECIFIED`: without it `masq` looks at no port.
const NAT_PORTS: u32 = 1 << 1;
pub(super) const NAT_RANDOM: u32 = 1 << 2;
pub(super) const NAT_PERSISTENT: u32 = 1 << 3;
pub(super) const NAT_FULLY_RANDOM: u32 = 1 << 4;

/// What an effect consists of. Expressions that only look are written elsewhere, and never come here.
pub(super) fn write_effect(w: &mut Writer<'_>, expression: &Expression) {
    match expression {
        Expression::SetPayload { payload, from, checksum } => {
            register(w, 5, *from);
            write_payload(w, payload);
            write_checksum(w, *checksum);
        }
        Expression::Limit { rate, unit, burst, bytes, over } => {
            w.plain_be64(1, *rate);
            w.plain_be64(2, unit.seconds());
            w.plain_be32(3, *burst);
            w.plain_be32(4, u32::from(*bytes));
            w.plain_be32(5, u32::from(*over));
        }
        Expression::ConnectionLimit { count, over } => {
            w.plain_be32(1, *count);
            w.plain_be32(2, u32::from(*over));
        }
        Expression::Log { prefix, target } => write_log(w, prefix.as_deref(), *target),
        Expression::Reject(kind) => write_reject(w, *kind),
        Expression::DynamicSet(dynamic) => write_dynamic_set(w, dynamic),
        Expression::SetTcpOption { kind, offset, len, from } => {
            register(w, 7, *from);
            write_tcp_option(w, *kind, *offset, *len);
        }
        Expression::FlowOffload { flowtable } => w.text(1, flowtable),
        Expression::Queue { number, total, bypass, fanout } => {
            w.plain_be16(1, *number);
            w.plain_be16(2, *total);
            let flags = u16::from(*bypass) | u16::from(*fanout) << 1;
            if flags != 0 {
                w.plain_be16(3, flags);
            }
        }
        other => write_translation(w, other),
    }
}

fn write_translation(w: &mut Writer<'_>, expression: &Expression) {
    match expression {
        Expression::Masquerade { ports, flags } => {
            write_nat_flags(w, 1, *flags, ports.is_some());
            write_registers(w, (2, 3), *ports);
        }
        Expression::Nat { kind, version, addresses, ports, flags } => {
            w.plain_be32(1, u32::from(*kind == NatKind::Destination));
            w.plain_be32(2, u32::from(numbers::family(*version)));
            write_registers(w, (3, 4), *addresses);
            write_registers(w, (5, 6), *ports);
            write_nat_flags(w, 7, *flags, ports.is_some());
        }
        Expression::Redirect { ports, flags } => {
            write_registers(w, (1, 2), *ports);
            write_nat_flags(w, 3, *flags, ports.is_some());
        }
        _ => {}
    }
}

/// First and last; one that is both is written once.
fn write_registers(w: &mut Writer<'_>, (min, max): (u16, u16), range: Option<(Register, Register)>) {
    if let Some((first, last)) = range {
        register(w, min, first);
        if last != first {
            register(w, max, last);
        }
    }
}

fn write_nat_flags(w: &mut Writer<'_>, kind: u16, flags: NatFlags, has_ports: bool) {
    let bits = if has_ports { NAT_PORTS } else { 0 }
        | if flags.random { NAT_RANDOM } else { 0 }
        | if flags.persistent { NAT_PERSISTENT } else { 0 }
        | if flags.fully_random { NAT_FULLY_RANDOM } else { 0 };
    if bits != 0 {
        w.plain_be32(kind, bits);
    }
}

fn write_checksum(w: &mut Writer<'_>, checksum: Option<Checksum>) {
    let Some(Checksum { offset, pseudo_header }) = checksum else { return };
    w.plain_be32(6, CHECKSUM_INTERNET);
    w.plain_be32(7, offset);
    if pseudo_header {
        w.plain_be32(8, CHECKSUM_PSEUDO_HEADER);
    }
}

fn write_log(w: &mut Writer<'_>, prefix: Option<&str>, target: LogTarget) {
    if let Some(prefix) = prefix {
        w.text(2, prefix);
    }
    match target {
        LogTarget::Group { group, snap_len, queue_threshold } => {
            w.plain_be16(1, group);
            if let Some(len) = snap_len {
                w.plain_be32(3, len);
            }
            if let Some(threshold) = queue_threshold.filter(|threshold| *threshold != 0) {
                w.plain_be16(4, threshold);
            }
        }
        LogTarget::Kernel { level, flags } => {
            if level != DEFAULT_LEVEL {
                w.plain_be32(5, level);
            }
            if flags != 0 {
                w.plain_be32(6, flags);
            }
        }
    }
}

fn write_reject(w: &mut Writer<'_>, kind: RejectKind) {
    let (number, code) = match kind {
        RejectKind::Icmp(code) => (0, code),
        RejectKind::TcpReset => (1, 0),
        RejectKind::Icmpx(code) => (2, code),
    };
    w.plain_be32(1, number);
    w.u8(2, code);
}

fn write_dynamic_set(w: &mut Writer<'_>, dynamic: &DynamicSet) {
    register(w, 4, dynamic.key);
    if let Some(value) = dynamic.value {
        register(w, 5, value);
    }
    w.plain_be32(3, numbers::set_operation(dynamic.operation));
    if let Some(timeout) = dynamic.timeout {
        w.plain_be64(6, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    }
    w.text(1, &dynamic.set);
    let mut flags = if dynamic.negate { DYNAMIC_NEGATED } else { 0 };
    match dynamic.expressions.as_slice() {
        [] => {}
        [one] => write_expression(w, 7, one),
        several => {
            flags |= DYNAMIC_EXPRESSIONS;
            w.nested(10, |list| super::write_expressions(list, several));
        }
    }
    if flags != 0 {
        w.plain_be32(9, flags);
    }
}
