//! Writing expressions that load and compare, and choosing among all.

use tortie_rules::ruleset::nft::{Expression, FibResult, FibSelector, HashSource, Payload, Register};

use super::super::numbers;
use super::{
    EXPRESSION_DATA, EXPRESSION_NAME, LIST_ELEMENT, REGISTER_VERDICT, register_number, write_effect,
    write_value, write_verdict,
};
use crate::netlink::Writer;

/// Expressions one after the other, inside of the list's attribute.
pub(in super::super) fn write_expressions(list: &mut Writer<'_>, expressions: &[Expression]) {
    for expression in expressions {
        write_expression(list, LIST_ELEMENT, expression);
    }
}

/// An attribute that is an expression.
pub(in super::super) fn write_expression(writer: &mut Writer<'_>, kind: u16, expression: &Expression) {
    writer.nested(kind, |writer| {
        writer.text(EXPRESSION_NAME, name(expression));
        // nft leaves the data out where an expression has none at all.
        if !matches!(expression, Expression::NoTrack) {
            writer.nested(EXPRESSION_DATA, |data| write_data(data, expression));
        }
    });
}

/// The kernel's name for an expression.
fn name(expression: &Expression) -> &'static str {
    match expression {
        Expression::Meta { .. } | Expression::SetMeta { .. } => "meta",
        Expression::Payload { .. } | Expression::SetPayload { .. } => "payload",
        Expression::Compare { .. } => "cmp",
        Expression::Range { .. } => "range",
        Expression::Bitwise { .. } => "bitwise",
        Expression::ByteOrder { .. } => "byteorder",
        Expression::Lookup { .. } | Expression::Map { .. } | Expression::VerdictMap { .. } => "lookup",
        Expression::Immediate { .. } | Expression::Verdict(_) => "immediate",
        Expression::Conntrack { .. } | Expression::SetConntrack { .. } => "ct",
        Expression::Fib { .. } => "fib",
        Expression::Route { .. } => "rt",
        Expression::Limit { .. } => "limit",
        Expression::ConnectionLimit { .. } => "connlimit",
        Expression::Counter => "counter",
        Expression::Log { .. } => "log",
        Expression::NoTrack => "notrack",
        Expression::Reject(_) => "reject",
        Expression::Masquerade { .. } => "masq",
        Expression::Nat { .. } => "nat",
        Expression::Redirect { .. } => "redir",
        Expression::DynamicSet(_) => "dynset",
        Expression::NumberGenerator { .. } => "numgen",
        Expression::Hash { .. } => "hash",
        Expression::TcpOption { .. } | Expression::SetTcpOption { .. } => "exthdr",
        Expression::FlowOffload { .. } => "flow_offload",
        Expression::Queue { .. } => "queue",
    }
}

fn write_data(w: &mut Writer<'_>, expression: &Expression) {
    match expression {
        Expression::Meta { key, to } => {
            w.plain_be32(2, numbers::meta_key(*key));
            register(w, 1, *to);
        }
        Expression::SetMeta { key, from } => {
            w.plain_be32(2, numbers::meta_key(*key));
            register(w, 3, *from);
        }
        Expression::Payload { payload, to } => {
            register(w, 1, *to);
            write_payload(w, payload);
        }
        Expression::Compare { comparison, from, value } => {
            register(w, 1, *from);
            w.plain_be32(2, numbers::comparison(*comparison));
            write_value(w, 3, value.as_bytes());
        }
        Expression::Range { negate, from, low, high } => {
            register(w, 1, *from);
            w.plain_be32(2, u32::from(*negate));
            write_value(w, 3, low.as_bytes());
            write_value(w, 4, high.as_bytes());
        }
        Expression::Bitwise { from, to, mask, xor } => {
            register(w, 1, *from);
            register(w, 2, *to);
            w.plain_be32(6, 0);
            w.plain_be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            write_value(w, 4, mask.as_bytes());
            write_value(w, 5, xor.as_bytes());
        }
        Expression::ByteOrder { from, to, to_network, len, size } => {
            register(w, 1, *from);
            register(w, 2, *to);
            w.plain_be32(3, u32::from(*to_network));
            w.plain_be32(4, *len);
            w.plain_be32(5, *size);
        }
        Expression::Lookup { set, key, negate } => {
            register(w, 2, *key);
            w.text(1, set);
            if *negate {
                w.plain_be32(5, 1);
            }
        }
        Expression::Map { map, key, to } => {
            register(w, 2, *key);
            register(w, 3, *to);
            w.text(1, map);
        }
        Expression::VerdictMap { map, key } => {
            register(w, 2, *key);
            w.plain_be32(3, REGISTER_VERDICT);
            w.text(1, map);
        }
        Expression::Immediate { value, to } => {
            register(w, 1, *to);
            write_value(w, 2, value.as_bytes());
        }
        Expression::Verdict(verdict) => {
            w.plain_be32(1, REGISTER_VERDICT);
            write_verdict(w, 2, verdict);
        }
        other => write_question(w, other),
    }
}

/// What asks other parts of the kernel.
fn write_question(w: &mut Writer<'_>, expression: &Expression) {
    match expression {
        Expression::Conntrack { key, direction, to } => {
            w.plain_be32(2, numbers::conntrack_key(*key));
            register(w, 1, *to);
            write_direction(w, *direction);
        }
        Expression::SetConntrack { key, direction, from } => {
            w.plain_be32(2, numbers::conntrack_key(*key));
            write_direction(w, *direction);
            register(w, 4, *from);
        }
        Expression::Fib { result, selector, to } => {
            let (number, exists) = fib_result(*result);
            w.plain_be32(3, fib_flags(*selector) | exists);
            w.plain_be32(2, number);
            register(w, 1, *to);
        }
        Expression::Route { key, to } => {
            w.plain_be32(2, numbers::route_key(*key));
            register(w, 1, *to);
        }
        Expression::NumberGenerator { random, modulus, offset, to } => {
            register(w, 1, *to);
            w.plain_be32(2, *modulus);
            w.plain_be32(3, u32::from(*random));
            w.plain_be32(4, *offset);
        }
        Expression::Hash { source, modulus, seed, offset, to } => {
            write_hash(w, *source, *to);
            w.plain_be32(4, *modulus);
            if let Some(seed) = seed {
                w.plain_be32(5, *seed);
            }
            w.plain_be32(6, *offset);
            w.plain_be32(7, u32::from(*source == HashSource::Symmetric));
        }
        Expression::TcpOption { kind, offset, len, to } => {
            register(w, 1, *to);
            write_tcp_option(w, *kind, *offset, *len);
            w.plain_be32(5, 0);
        }
        other => write_effect::write_effect(w, other),
    }
}

/// A register.
pub(super) fn register(w: &mut Writer<'_>, kind: u16, register: Register) {
    w.plain_be32(kind, register_number(register));
}

/// Which bytes of the packet.
pub(super) fn write_payload(w: &mut Writer<'_>, payload: &Payload) {
    w.plain_be32(2, numbers::payload_base(payload.base));
    w.plain_be32(3, payload.offset);
    w.plain_be32(4, payload.len);
}

/// `NFT_EXTHDR_OP_TCPOPT`.
pub(super) const TCP_OPTION: u32 = 1;

/// Which bytes of a TCP option.
pub(super) fn write_tcp_option(w: &mut Writer<'_>, kind: u8, offset: u32, len: u32) {
    w.u8(2, kind);
    w.plain_be32(3, offset);
    w.plain_be32(4, len);
    w.plain_be32(6, TCP_OPTION);
}

fn write_direction(w: &mut Writer<'_>, direction: Option<tortie_rules::ruleset::nft::Direction>) {
    if let Some(direction) = direction {
        w.u8(3, u8::try_from(numbers::direction(direction)).unwrap_or(u8::MAX));
    }
}

fn write_hash(w: &mut Writer<'_>, source: HashSource, to: Register) {
    match source {
        HashSource::Jenkins { from, len } => {
            register(w, 1, from);
            register(w, 2, to);
            w.plain_be32(3, len);
        }
        HashSource::Symmetric => register(w, 2, to),
    }
}

/// `NFTA_FIB_F_PRESENT`.
pub(super) const FIB_PRESENT: u32 = 1 << 5;

/// The number of a result, and the flag that makes it a question of yes or no.
fn fib_result(result: FibResult) -> (u32, u32) {
    match result {
        FibResult::OutIndex => (1, 0),
        FibResult::OutInterface => (2, 0),
        FibResult::AddressType => (3, 0),
        FibResult::Exists => (1, FIB_PRESENT),
    }
}

/// `NFTA_FIB_F_*`.
fn fib_flags(selector: FibSelector) -> u32 {
    u32::from(selector.source)
        | u32::from(selector.destination) << 1
        | u32::from(selector.mark) << 2
        | u32::from(selector.in_interface) << 3
        | u32::from(selector.out_interface) << 4
}
