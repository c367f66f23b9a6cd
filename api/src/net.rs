//! Small network types that the resource types are made of: protocols, ports, interface names.
//!
//! Values are checked where they enter; a value of one of these types is always usable.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An IP version. Kernel state of the two versions is kept apart everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Both versions, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The version of a network.
    pub fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// The version of an address.
    pub fn of_addr(addr: &IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// 4 or 6.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPv{}", self.number())
    }
}

impl Serialize for IpVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for IpVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(serde::de::Error::custom(format!("ipVersion is 4 or 6, not {other}"))),
        }
    }
}

/// An IP protocol, by one of the names that the API knows or by number (1 to 255).
///
/// Names and numbers stay apart (`TCP` is not `6`), since Felix renders and hashes them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `TCP`
    Tcp,
    /// `UDP`
    Udp,
    /// `ICMP`
    Icmp,
    /// `ICMPv6`
    IcmpV6,
    /// `SCTP`
    Sctp,
    /// `UDPLite`
    UdpLite,
    /// A number, 1 to 255.
    Number(u8),
}

impl Protocol {
    const NAMES: [(&'static str, Self); 6] = [
        ("TCP", Self::Tcp),
        ("UDP", Self::Udp),
        ("ICMP", Self::Icmp),
        ("ICMPv6", Self::IcmpV6),
        ("SCTP", Self::Sctp),
        ("UDPLite", Self::UdpLite),
    ];

    /// The number that stands in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::IcmpV6 => 58,
            Self::Sctp => 132,
            Self::UdpLite => 136,
            Self::Number(n) => n,
        }
    }

    /// Whether packets of this protocol carry ports that a port match can read: TCP, UDP, SCTP.
    pub const fn has_ports(self) -> bool {
        matches!(self.number(), 6 | 17 | 132)
    }

    /// Lower-case name as the dataplane writes it (`tcp`, `icmpv6`), or the decimal number.
    pub fn dataplane_text(self) -> String {
        self.to_string().to_ascii_lowercase()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, p)| p == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.number()),
        }
    }
}

/// A text or number that is no protocol.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no protocol: use TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")]
pub struct ProtocolError(String);

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        if let Some((_, p)) = Self::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            return Ok(*p);
        }
        match text.parse::<u8>() {
            Ok(n) if n > 0 && !text.starts_with('+') => Ok(Self::Number(n)),
            _ => Err(ProtocolError(text.to_owned())),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(n) => serializer.serialize_u8(*n),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(n) => n.to_string().parse(),
            IntOrString::String(s) => s.parse(),
        }
        .map_err(serde::de::Error::custom)
    }
}

/// Kubernetes' `IntOrString`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a string")]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A string.
    String(String),
}

/// An inclusive range of port numbers; a single port is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    min: u16,
    max: u16,
}

impl PortRange {
    /// A range from `min` to `max`, both included. `None` when it is upside down.
    pub const fn new(min: u16, max: u16) -> Option<Self> {
        if min <= max { Some(Self { min, max }) } else { None }
    }

    /// A single port.
    pub const fn single(port: u16) -> Self {
        Self { min: port, max: port }
    }

    /// First port.
    pub const fn first(self) -> u16 {
        self.min
    }

    /// Last port.
    pub const fn last(self) -> u16 {
        self.max
    }
}

impl fmt::Display for PortRange {
    /// `80` or `80:90`, the form of Calico's API and of iptables alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{}:{}", self.min, self.max) }
    }
}

/// A port of a policy rule: a number, a range `a:b`, or the name of a container port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Numbers.
    Range(PortRange),
    /// A named port, `^[a-zA-Z0-9_.-]{1,128}$`.
    Named(String),
}

/// What is wrong with a port.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    /// Outside 0 to 65535.
    #[error("port {0} is outside 0 to 65535")]
    OutOfRange(String),
    /// `b:a` with b above a.
    #[error("port range {0:?} is upside down: the first port is above the last")]
    UpsideDown(String),
    /// Neither number, range nor name.
    #[error(
        "{0:?} is no port: use a number, a range like 8000:8010, or a port name of 1 to 128 characters from a-z A-Z 0-9 _ . -"
    )]
    NoPort(String),
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let number = |s: &str| s.parse::<u16>().map_err(|_| PortError::OutOfRange(s.to_owned()));
        if digits(text) {
            return Ok(Self::Range(PortRange::single(number(text)?)));
        }
        if let Some((a, b)) = text.split_once(':')
            && digits(a)
            && digits(b)
        {
            return PortRange::new(number(a)?, number(b)?)
                .map(Self::Range)
                .ok_or_else(|| PortError::UpsideDown(text.to_owned()));
        }
        let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(is_name_byte) {
            Ok(Self::Named(text.to_owned()))
        } else {
            Err(PortError::NoPort(text.to_owned()))
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Range(r) if r.min == r.max => serializer.serialize_u16(r.min),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(n) => u16::try_from(n)
                .map(|n| Self::Range(PortRange::single(n)))
                .map_err(|_| PortError::OutOfRange(n.to_string())),
            IntOrString::String(s) => s.parse(),
        }
        .map_err(serde::de::Error::custom)
    }
}

/// The longest interface name that Linux takes (`IFNAMSIZ` - 1).
pub const INTERFACE_NAME_MAX: usize = 15;

/// Whether a text may name a network interface in Calico's API: `^[a-zA-Z0-9_.-]{1,15}$`.
pub fn is_interface_name(text: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// One entry of a list of networks: a CIDR without host bits, or an address (then /32 or /128).
///
/// Calico refuses host bits (`10.0.0.1/8`), since it cannot know which of the two was meant.
pub fn parse_net(text: &str) -> Result<IpNet, NetError> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(addr.into());
    }
    let net = parse_cidr(text)?;
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(NetError::HostBits { text: text.to_owned(), masked: net.trunc() })
    }
}

/// An address with a prefix length, host bits and all: `10.0.0.1/8`.
///
/// Numbers with leading zeros are refused, since some programs read them as octal.
pub fn parse_cidr(text: &str) -> Result<IpNet, NetError> {
    let refuse = || NetError::NoNet(text.to_owned());
    let (address, length) = text.split_once('/').ok_or_else(refuse)?;
    let address: IpAddr = address.parse().map_err(|_| refuse())?;
    if !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let length: u8 = length.parse().map_err(|_| refuse())?;
    IpNet::new(address, length).map_err(|_| refuse())
}

/// A network as API servers of Kubernetes have stored them: host bits are cleared, and numbers of an IPv4
/// address may have leading zeros, which do not make them octal. The prefix length must be there.
pub fn parse_lenient_net(text: &str) -> Result<IpNet, NetError> {
    let net = if text.contains(':') { parse_cidr(text) } else { parse_cidr(&without_leading_zeros(text)) };
    net.map(|net| net.trunc()).map_err(|_| NetError::NoNet(text.to_owned()))
}

fn without_leading_zeros(cidr: &str) -> String {
    let (address, length) = cidr.split_once('/').unwrap_or((cidr, ""));
    let strip = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let numbers: Vec<_> = address.split('.').map(strip).collect();
    format!("{}/{length}", numbers.join("."))
}

/// What is wrong with a network.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NetError {
    /// Not an address or CIDR.
    #[error("{0:?} is no IP address and no CIDR like 10.0.0.0/8 or fd00::/8")]
    NoNet(String),
    /// The address has bits beyond the prefix length.
    #[error("{text:?} has bits set beyond its prefix length; did you mean {masked}?")]
    HostBits {
        /// As written.
        text: String,
        /// With the host bits cleared.
        masked: IpNet,
    },
}

/// (De)serialisation of `Vec<IpNet>` by [`parse_net`], for `#[serde(with = "net_list")]`.
pub mod net_list {
    use super::{Deserialize, Deserializer, IpNet, Serializer, parse_net};

    struct Entry(IpNet);

    impl<'de> Deserialize<'de> for Entry {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            parse_net(&text).map(Entry).map_err(serde::de::Error::custom)
        }
    }

    /// Reads a list of networks.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        Ok(Option::<Vec<Entry>>::deserialize(deserializer)?
            .unwrap_or_default()
            .into_iter()
            .map(|e| e.0)
            .collect())
    }

    /// Writes a list of networks as CIDRs.
    pub fn serialize<S: Serializer>(nets: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(nets)
    }
}

#[cfg(test)]
mod tests;
