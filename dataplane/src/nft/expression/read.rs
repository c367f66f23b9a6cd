//! Reading expressions that load and compare, and choosing among all.

use tortie_rules::ruleset::nft::{
    Comparison, Data, Direction, Expression, FibResult, FibSelector, HashSource, Payload, Register, Rule,
};

use super::super::entry::{Counters, Foreign, RuleEntry, Unread};
use super::super::{HEADER_LEN, numbers, userdata};
use super::write::{FIB_PRESENT, TCP_OPTION};
use super::{
    EXPRESSION_DATA, EXPRESSION_NAME, LIST_ELEMENT, read_effect, read_value, read_verdict, register_of,
};
use crate::netlink::{Attribute, Attributes, NetlinkError, be16, be32, be64};

/// `NFTA_RULE_*`.
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// Reads a message about a rule (`NFT_MSG_NEWRULE`), from behind the netlink header.
///
/// # Errors
/// When it does not follow the format.
pub fn read_rule(payload: &[u8]) -> Result<RuleEntry, NetlinkError> {
    let (mut chain, mut handle, mut list, mut comment) = (None, None, None, None);
    for attribute in Attributes::after(payload, HEADER_LEN)? {
        let attribute = attribute?;
        match attribute.kind {
            RULE_CHAIN => chain = Some(attribute.text()?.to_owned()),
            RULE_HANDLE => handle = Some(be64(&attribute)?),
            RULE_EXPRESSIONS => list = Some(attribute),
            RULE_USERDATA => comment = userdata::comment(attribute.value, userdata::COMMENT),
            _ => {}
        }
    }
    let mut counters = Vec::new();
    let expressions = list.map_or(Ok(Ok(Vec::new())), |list| read_list(&list, &mut counters))?;
    Ok(RuleEntry {
        chain: chain.ok_or(NetlinkError::Malformed("rule without a chain"))?,
        handle: handle.ok_or(NetlinkError::Malformed("rule without a handle"))?,
        rule: expressions.map(|expressions| Rule { expressions, comment }),
        counters,
    })
}

/// Reads the attributes of an `NFTA_RULE_EXPRESSIONS`; the inner error is of an expression that the tree has no word for.
///
/// # Errors
/// When they do not follow the format.
pub fn read_expressions(bytes: &[u8]) -> Result<Result<Vec<Expression>, Foreign>, NetlinkError> {
    read_list(&Attribute { kind: RULE_EXPRESSIONS, value: bytes }, &mut Vec::new())
}

fn read_list(
    list: &Attribute<'_>,
    counters: &mut Vec<Counters>,
) -> Result<Result<Vec<Expression>, Foreign>, NetlinkError> {
    Unread::split(read_all(list, counters))
}

/// The expressions of a list, and what the counters among them say. Of a rule with something foreign, too, every
/// counter is read that stands before it.
pub(super) fn read_all(
    list: &Attribute<'_>,
    counters: &mut Vec<Counters>,
) -> Result<Vec<Expression>, Unread> {
    let mut expressions = Vec::new();
    for element in list.nested() {
        let element = element?;
        if element.kind == LIST_ELEMENT {
            expressions.push(read_one(&element, counters)?);
        }
    }
    Ok(expressions)
}

/// One expression.
pub(in super::super) fn read_one(
    element: &Attribute<'_>,
    counters: &mut Vec<Counters>,
) -> Result<Expression, Unread> {
    let (mut name, mut data) = (None, None);
    for part in element.nested() {
        let part = part?;
        match part.kind {
            EXPRESSION_NAME => name = Some(part.text()?),
            EXPRESSION_DATA => data = Some(part),
            _ => {}
        }
    }
    let name = name.ok_or(NetlinkError::Malformed("expression without a name"))?;
    let fields = Fields::read(data.as_ref())?;
    if name == "counter" {
        counters.push(Counters { bytes: fields.u64_or(1, 0)?, packets: fields.u64_or(2, 0)? });
    }
    read_named(name, &fields)
}

fn read_named(name: &str, f: &Fields<'_>) -> Result<Expression, Unread> {
    match name {
        "meta" => read_meta(f),
        "payload" => read_payload(f),
        "cmp" => Ok(Expression::Compare {
            comparison: f.known(2, numbers::comparison_of, "comparison")?,
            from: f.register(1)?,
            value: f.value(3)?,
        }),
        "range" => Ok(Expression::Range {
            negate: f.known(2, numbers::comparison_of, "range")? == Comparison::NotEqual,
            from: f.register(1)?,
            low: f.value(3)?,
            high: f.value(4)?,
        }),
        "bitwise" => read_bitwise(f),
        "byteorder" => Ok(Expression::ByteOrder {
            from: f.register(1)?,
            to: f.register(2)?,
            to_network: f.u32(3)? == 1,
            len: f.u32(4)?,
            size: f.u32(5)?,
        }),
        "lookup" => read_lookup(f),
        "immediate" => read_immediate(f),
        "ct" => read_conntrack(f),
        "fib" => read_fib(f),
        "rt" => {
            Ok(Expression::Route { key: f.known(2, numbers::route_key_of, "rt key")?, to: f.register(1)? })
        }
        "numgen" => Ok(Expression::NumberGenerator {
            random: f.u32(3)? == 1,
            modulus: f.u32(2)?,
            offset: f.u32_or(4, 0)?,
            to: f.register(1)?,
        }),
        "hash" => read_hash(f),
        other => read_effect::read_effect(other, f),
    }
}

fn read_meta(f: &Fields<'_>) -> Result<Expression, Unread> {
    let key = f.known(2, numbers::meta_key_of, "meta key")?;
    Ok(if f.has(1) {
        Expression::Meta { key, to: f.register(1)? }
    } else {
        Expression::SetMeta { key, from: f.register(3)? }
    })
}

/// Which bytes of the packet.
pub(super) fn read_place(f: &Fields<'_>) -> Result<Payload, Unread> {
    Ok(Payload {
        base: f.known(2, numbers::payload_base_of, "payload base")?,
        offset: f.u32(3)?,
        len: f.u32(4)?,
    })
}

fn read_payload(f: &Fields<'_>) -> Result<Expression, Unread> {
    let payload = read_place(f)?;
    if f.has(1) {
        Ok(Expression::Payload { payload, to: f.register(1)? })
    } else {
        read_effect::read_set_payload(payload, f)
    }
}

fn read_bitwise(f: &Fields<'_>) -> Result<Expression, Unread> {
    if f.u32_or(6, 0)? != 0 {
        return Err(Unread::foreign("bitwise operation other than with constants"));
    }
    Ok(Expression::Bitwise { from: f.register(1)?, to: f.register(2)?, mask: f.value(4)?, xor: f.value(5)? })
}

fn read_lookup(f: &Fields<'_>) -> Result<Expression, Unread> {
    let set = f.text(1)?;
    let key = f.register(2)?;
    let negate = f.u32_or(5, 0)? == 1;
    if !f.has(3) {
        return Ok(Expression::Lookup { set, key, negate });
    }
    Ok(match register_of(f.u32(3)?)? {
        Some(to) => Expression::Map { map: set, key, to },
        None => Expression::VerdictMap { map: set, key },
    })
}

fn read_immediate(f: &Fields<'_>) -> Result<Expression, Unread> {
    let data = f.get(2)?;
    if let Some(to) = register_of(f.u32(1)?)? {
        return Ok(Expression::Immediate { value: read_value(data)?, to });
    }
    let verdict = read_verdict(data)?.ok_or(NetlinkError::Malformed("verdict without a code"))?;
    Ok(Expression::Verdict(verdict))
}

fn read_conntrack(f: &Fields<'_>) -> Result<Expression, Unread> {
    let key = f.known(2, numbers::conntrack_key_of, "ct key")?;
    let direction = match f.0.get(3).copied().flatten() {
        Some(attribute) => Some(read_direction(attribute.u8()?)?),
        None => None,
    };
    Ok(if f.has(1) {
        Expression::Conntrack { key, direction, to: f.register(1)? }
    } else {
        Expression::SetConntrack { key, direction, from: f.register(4)? }
    })
}

fn read_direction(number: u8) -> Result<Direction, Unread> {
    numbers::direction_of(u32::from(number)).ok_or_else(|| Unread::foreign(format!("ct direction {number}")))
}

fn read_fib(f: &Fields<'_>) -> Result<Expression, Unread> {
    let flags = f.u32(3)?;
    let result = match (f.u32(2)?, flags & FIB_PRESENT != 0) {
        (1, false) => FibResult::OutIndex,
        (2, false) => FibResult::OutInterface,
        (3, false) => FibResult::AddressType,
        (1, true) => FibResult::Exists,
        (other, _) => return Err(Unread::foreign(format!("fib result {other}"))),
    };
    let selector = FibSelector {
        source: flags & 1 != 0,
        destination: flags & 2 != 0,
        mark: flags & 4 != 0,
        in_interface: flags & 8 != 0,
        out_interface: flags & 16 != 0,
    };
    Ok(Expression::Fib { result, selector, to: f.register(1)? })
}

fn read_hash(f: &Fields<'_>) -> Result<Expression, Unread> {
    let source = if f.u32_or(7, 0)? == 1 {
        HashSource::Symmetric
    } else {
        HashSource::Jenkins { from: f.register(1)?, len: f.u32(3)? }
    };
    let seed = if f.has(5) { Some(f.u32(5)?) } else { None };
    Ok(Expression::Hash { source, modulus: f.u32(4)?, seed, offset: f.u32_or(6, 0)?, to: f.register(2)? })
}

/// Which bytes of a TCP option; foreign if they are of something else.
pub(super) fn read_tcp_option(f: &Fields<'_>) -> Result<(u8, u32, u32), Unread> {
    if f.u32_or(6, 0)? != TCP_OPTION || f.u32_or(5, 0)? != 0 {
        return Err(Unread::foreign("extension header other than bytes of a TCP option"));
    }
    Ok((f.get(2)?.u8()?, f.u32(3)?, f.u32(4)?))
}

/// How many attributes an expression may have here; what is above is of kernels to come.
const FIELDS: usize = 12;

/// The attributes of an expression by their types.
pub(super) struct Fields<'a>([Option<Attribute<'a>>; FIELDS]);

impl<'a> Fields<'a> {
    fn read(data: Option<&Attribute<'a>>) -> Result<Self, NetlinkError> {
        let mut fields = [None; FIELDS];
        for attribute in data.into_iter().flat_map(Attribute::nested) {
            let attribute = attribute?;
            if let Some(field) = fields.get_mut(usize::from(attribute.kind)) {
                *field = Some(attribute);
            }
        }
        Ok(Self(fields))
    }

    pub(super) fn has(&self, kind: usize) -> bool {
        self.0.get(kind).is_some_and(Option::is_some)
    }

    pub(super) fn get(&self, kind: usize) -> Result<&Attribute<'a>, NetlinkError> {
        let field = self.0.get(kind).and_then(Option::as_ref);
        field.ok_or(NetlinkError::Malformed("expression lacks an attribute"))
    }

    pub(super) fn u16_or(&self, kind: usize, default: u16) -> Result<u16, NetlinkError> {
        if self.has(kind) { be16(self.get(kind)?) } else { Ok(default) }
    }

    pub(super) fn u32(&self, kind: usize) -> Result<u32, NetlinkError> {
        be32(self.get(kind)?)
    }

    pub(super) fn u32_or(&self, kind: usize, default: u32) -> Result<u32, NetlinkError> {
        if self.has(kind) { self.u32(kind) } else { Ok(default) }
    }

    pub(super) fn u64_or(&self, kind: usize, default: u64) -> Result<u64, NetlinkError> {
        if self.has(kind) { be64(self.get(kind)?) } else { Ok(default) }
    }

    pub(super) fn text(&self, kind: usize) -> Result<String, NetlinkError> {
        self.get(kind)?.text().map(ToOwned::to_owned)
    }

    pub(super) fn value(&self, kind: usize) -> Result<Data, NetlinkError> {
        read_value(self.get(kind)?)
    }

    /// A register that is not the verdict's.
    pub(super) fn register(&self, kind: usize) -> Result<Register, NetlinkError> {
        register_of(self.u32(kind)?)?.ok_or(NetlinkError::Malformed("the verdict's register holds no value"))
    }

    /// First and last; the same where only the first is given.
    pub(super) fn registers(
        &self,
        min: usize,
        max: usize,
    ) -> Result<Option<(Register, Register)>, NetlinkError> {
        if !self.has(min) {
            return Ok(None);
        }
        let first = self.register(min)?;
        Ok(Some((first, if self.has(max) { self.register(max)? } else { first })))
    }

    /// What a number stands for; foreign if the tree has no word for it.
    pub(super) fn known<T>(
        &self,
        kind: usize,
        read: impl Fn(u32) -> Option<T>,
        what: &str,
    ) -> Result<T, Unread> {
        let number = self.u32(kind)?;
        read(number).ok_or_else(|| Unread::foreign(format!("{what} {number}")))
    }
}
