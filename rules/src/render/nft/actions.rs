//! What happens to packets, as expressions.

use std::net::IpAddr;

use tortie_api::net::{IpVersion, PortRange};

use super::base::{FLOWTABLE, chain_name, family};
use super::maps;
use crate::render::Table;
use crate::ruleset::nft::{
    Checksum, ConntrackKey, Data, Expression, LogTarget, MetaKey, NatFlags, NatKind, Payload, Register,
    RejectKind, Verdict,
};
use crate::ruleset::{Action, Bits};

const REG: Register = Register::FIRST;

/// Syslog's level "info", as in Felix's nftables mode.
const LOG_LEVEL: u32 = 6;
/// The longest prefix in bytes: `NF_LOG_PREFIXLEN` less its zero.
const PREFIX_MAX: usize = 127;
/// How much of a packet goes to who listens to flows: enough for the headers.
const SNAP_LEN: u32 = 80;
/// ICMP and ICMPv6 "port unreachable".
const UNREACHABLE_V4: u8 = 3;
const UNREACHABLE_V6: u8 = 4;
/// Ports are chosen so that they cannot be guessed.
const FULLY_RANDOM: NatFlags = NatFlags { random: false, fully_random: true, persistent: false };
const NO_FLAGS: NatFlags = NatFlags { random: false, fully_random: false, persistent: false };

/// Appends an action.
pub(super) fn push(
    table: Table,
    version: IpVersion,
    action: &Action,
    out: &mut Vec<Expression>,
) -> Result<(), &'static str> {
    let verdict = |verdict| Expression::Verdict(verdict);
    match action {
        Action::Accept => out.push(verdict(Verdict::Accept)),
        Action::Drop => out.push(verdict(Verdict::Drop)),
        Action::Return => out.push(verdict(Verdict::Return)),
        Action::Jump(chain) => out.push(verdict(Verdict::Jump(chain_name(table, chain)))),
        Action::Goto(chain) => out.push(verdict(Verdict::Goto(chain_name(table, chain)))),
        Action::Reject => out.push(Expression::Reject(RejectKind::Icmp(match version {
            IpVersion::V4 => UNREACHABLE_V4,
            IpVersion::V6 => UNREACHABLE_V6,
        }))),
        Action::ResetConnection => out.push(Expression::Reject(RejectKind::TcpReset)),
        Action::NoTrack => out.push(Expression::NoTrack),
        Action::SetMark(bits) => set_mark(*bits, *bits, out),
        Action::ClearMark(bits) => set_mark(0, *bits, out),
        Action::SetMaskedMark { value, mask } => set_mark(*value, *mask, out),
        Action::SetConnectionMark { value, mask } => set_connection_mark(*value, *mask, out),
        Action::Log { prefix } => {
            let target = LogTarget::Kernel { level: LOG_LEVEL, flags: 0 };
            out.push(Expression::Log { prefix: Some(log_prefix(format!("{prefix}: "))), target });
        }
        Action::Nflog { group, prefix } => {
            let target = LogTarget::Group { group: *group, snap_len: Some(SNAP_LEN), queue_threshold: None };
            out.push(Expression::Log { prefix: Some(log_prefix(prefix.clone())), target });
        }
        Action::Masquerade { ports } => masquerade(*ports, out),
        Action::Snat { address, ports } => {
            nat(NatKind::Source, version, *address, *ports, FULLY_RANDOM, out)?;
        }
        Action::Dnat(address) => nat(NatKind::Destination, version, *address, None, NO_FLAGS, out)?,
        Action::DnatPort(to) => {
            let port = PortRange::single(to.port());
            nat(NatKind::Destination, version, to.ip(), Some(port), NO_FLAGS, out)?;
        }
        Action::Offload => out.push(Expression::FlowOffload { flowtable: FLOWTABLE.to_owned() }),
        Action::SetDscp(value) => set_dscp(version, *value, out),
        Action::Lookup { key, map, all } => maps::push_lookup(table, version, (key, map, all.as_ref()), out)?,
    }
    Ok(())
}

/// `meta mark set meta mark & ~mask ^ value`.
pub(super) fn set_mark(value: Bits, mask: Bits, out: &mut Vec<Expression>) {
    out.extend([
        Expression::Meta { key: MetaKey::Mark, to: REG },
        Expression::Bitwise { from: REG, to: REG, mask: Data::host32(!mask), xor: Data::host32(value) },
        Expression::SetMeta { key: MetaKey::Mark, from: REG },
    ]);
}

/// `ct mark set ct mark & ~mask ^ value`; does not match what belongs to no connection.
pub(super) fn set_connection_mark(value: Bits, mask: Bits, out: &mut Vec<Expression>) {
    let (key, direction) = (ConntrackKey::Mark, None);
    out.extend([
        Expression::Conntrack { key, direction, to: REG },
        Expression::Bitwise { from: REG, to: REG, mask: Data::host32(!mask), xor: Data::host32(value) },
        Expression::SetConntrack { key, direction, from: REG },
    ]);
}

fn log_prefix(mut prefix: String) -> String {
    prefix.truncate(prefix.floor_char_boundary(PREFIX_MAX));
    prefix
}

/// The words in which nft keeps the values of a translation: every fourth, as if they were addresses of IPv6.
fn nat_register(index: u8) -> Result<Register, &'static str> {
    Register::word(index * 4).ok_or("more values than registers")
}

/// Loads ports into the registers from this one on.
fn load_ports(
    ports: Option<PortRange>,
    first: u8,
    out: &mut Vec<Expression>,
) -> Result<Option<(Register, Register)>, &'static str> {
    let Some(ports) = ports else { return Ok(None) };
    let low = nat_register(first)?;
    out.push(Expression::Immediate { value: Data::be16(ports.first()), to: low });
    if ports.first() == ports.last() {
        return Ok(Some((low, low)));
    }
    let high = nat_register(first + 1)?;
    out.push(Expression::Immediate { value: Data::be16(ports.last()), to: high });
    Ok(Some((low, high)))
}

/// `masquerade to :1024-65535 fully-random`.
fn masquerade(ports: Option<PortRange>, out: &mut Vec<Expression>) {
    // Two registers there always are.
    let ports = load_ports(ports, 0, out).unwrap_or_default();
    out.push(Expression::Masquerade { ports, flags: FULLY_RANDOM });
}

/// `snat to 192.0.2.1:1024-65535 fully-random`, `dnat to 10.65.0.2`.
fn nat(
    kind: NatKind,
    version: IpVersion,
    address: IpAddr,
    ports: Option<PortRange>,
    flags: NatFlags,
    out: &mut Vec<Expression>,
) -> Result<(), &'static str> {
    if address.is_ipv4() != (version == IpVersion::V4) {
        return Err("a translation to an address of the other IP version");
    }
    let register = nat_register(0)?;
    out.push(Expression::Immediate { value: Data::address(address), to: register });
    let ports = load_ports(ports, 1, out)?;
    let addresses = Some((register, register));
    out.push(Expression::Nat { kind, version: family(version), addresses, ports, flags });
    Ok(())
}

/// `ip dscp set ef`: six bits inside the first two bytes of the header, of which the others stay.
fn set_dscp(version: IpVersion, value: u8, out: &mut Vec<Expression>) {
    let payload = Payload::IPV6_DSCP;
    let (shift, checksum) = match version {
        IpVersion::V4 => (2, Some(Checksum::IPV4_HEADER)),
        IpVersion::V6 => (6, None),
    };
    let mask = !(0x3f << shift);
    out.extend([
        Expression::Payload { payload, to: REG },
        Expression::Bitwise {
            from: REG,
            to: REG,
            mask: Data::be16(mask),
            xor: Data::be16((u16::from(value) & 0x3f) << shift),
        },
        Expression::SetPayload { payload, from: REG, checksum },
    ]);
}
