//! Expressions as attributes.
//!
//! ```text
//!   EXPRESSIONS{ ELEM{ NAME "cmp" DATA{ SREG OP DATA{ VALUE } } } ELEM{..} ... }
//! ```

mod read;
mod read_effect;
mod write;
mod write_effect;

use tortie_rules::ruleset::nft::{Data, Register, Verdict};

use super::entry::Unread;
use crate::netlink::{Attribute, NetlinkError, Writer, be32};

pub(super) use read::read_one;
pub use read::{read_expressions, read_rule};
pub(super) use write::{write_expression, write_expressions};

/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEMENT: u16 = 1;
/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// `NFT_REG_VERDICT`.
const REGISTER_VERDICT: u32 = 0;
/// `NFT_REG_1`: 16 bytes; up to `NFT_REG_4`.
const REGISTER_1: u32 = 1;
/// `NFT_REG32_00`: 4 bytes; up to `NFT_REG32_15`.
const REGISTER32_00: u32 = 8;

/// `enum nft_verdicts`, and netfilter's own.
const CODE_DROP: i32 = 0;
const CODE_ACCEPT: i32 = 1;
const CODE_CONTINUE: i32 = -1;
const CODE_JUMP: i32 = -3;
const CODE_GOTO: i32 = -4;
const CODE_RETURN: i32 = -5;

/// The kernel's number for a register. One that begins a 16-byte register is named so, as the kernel does when it lists.
fn register_number(register: Register) -> u32 {
    let word = u32::from(register.number());
    if word.is_multiple_of(4) { REGISTER_1 + word / 4 } else { REGISTER32_00 + word }
}

/// The register of this number; `None` for the verdict's.
fn register_of(number: u32) -> Result<Option<Register>, NetlinkError> {
    let word = match number {
        REGISTER_VERDICT => return Ok(None),
        1..=4 => (number - REGISTER_1) * 4,
        _ => number.wrapping_sub(REGISTER32_00),
    };
    let register = u8::try_from(word).ok().and_then(Register::word);
    register.map(Some).ok_or(NetlinkError::Malformed("no such register"))
}

/// `NFTA_DATA_VALUE` inside an attribute.
pub(super) fn write_value(writer: &mut Writer<'_>, kind: u16, value: &[u8]) {
    writer.nested(kind, |data| data.bytes(DATA_VALUE, value));
}

/// `NFTA_DATA_VERDICT` inside an attribute.
pub(super) fn write_verdict(writer: &mut Writer<'_>, kind: u16, verdict: &Verdict) {
    let code = match verdict {
        Verdict::Accept => CODE_ACCEPT,
        Verdict::Drop => CODE_DROP,
        Verdict::Continue => CODE_CONTINUE,
        Verdict::Return => CODE_RETURN,
        Verdict::Jump(_) => CODE_JUMP,
        Verdict::Goto(_) => CODE_GOTO,
    };
    writer.nested(kind, |data| {
        data.nested(DATA_VERDICT, |fields| {
            fields.bytes(VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = verdict.target() {
                fields.text(VERDICT_CHAIN, chain);
            }
        });
    });
}

/// The value inside an attribute.
pub(super) fn read_value(attribute: &Attribute<'_>) -> Result<Data, NetlinkError> {
    for part in attribute.nested() {
        let part = part?;
        if part.kind == DATA_VALUE {
            return Ok(Data::new(part.value));
        }
    }
    Err(NetlinkError::Malformed("data without a value"))
}

/// The verdict inside an attribute, if it holds one.
pub(super) fn read_verdict(attribute: &Attribute<'_>) -> Result<Option<Verdict>, Unread> {
    for part in attribute.nested() {
        let part = part?;
        if part.kind == DATA_VERDICT {
            return read_verdict_fields(&part).map(Some);
        }
    }
    Ok(None)
}

fn read_verdict_fields(attribute: &Attribute<'_>) -> Result<Verdict, Unread> {
    let (mut code, mut chain) = (None, None);
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            VERDICT_CODE => code = Some(be32(&part)?.cast_signed()),
            VERDICT_CHAIN => chain = Some(part.text()?.to_owned()),
            _ => {}
        }
    }
    let target = || chain.clone().ok_or(NetlinkError::Malformed("jump to nowhere"));
    match code.ok_or(NetlinkError::Malformed("verdict without a code"))? {
        CODE_ACCEPT => Ok(Verdict::Accept),
        CODE_DROP => Ok(Verdict::Drop),
        CODE_CONTINUE => Ok(Verdict::Continue),
        CODE_RETURN => Ok(Verdict::Return),
        CODE_JUMP => Ok(Verdict::Jump(target()?)),
        CODE_GOTO => Ok(Verdict::Goto(target()?)),
        other => Err(Unread::foreign(format!("verdict {other}"))),
    }
}
