//! What a set is and what is in it: types, members, and the compact form in which members are kept.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashSet;
use tortie_api::net::IpVersion;

/// The kernel's set types that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetType {
    /// `hash:ip`: addresses.
    HashIp,
    /// `hash:net`: networks; the longest prefix decides.
    HashNet,
    /// `hash:ip,port`: an address with a protocol and a port.
    HashIpPort,
    /// `bitmap:port`: ports without a protocol, always over the whole range 0-65535.
    BitmapPort,
}

impl SetType {
    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HashIp => "hash:ip",
            Self::HashNet => "hash:net",
            Self::HashIpPort => "hash:ip,port",
            Self::BitmapPort => "bitmap:port",
        }
    }

    /// The newest revision whose meaning is known here. A kernel with newer ones is asked for this one:
    /// tools of the same age can then still list the set.
    pub(super) const fn known_revision(self) -> u8 {
        match self {
            Self::HashIp => 6,
            Self::HashNet | Self::HashIpPort => 7,
            Self::BitmapPort => 3,
        }
    }
}

impl fmt::Display for SetType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of set is wanted under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// The name: 1 to 31 bytes, with one of our prefixes (see [`super::is_ours`]).
    pub name: String,
    /// The family of the addresses; of no meaning for `bitmap:port`.
    pub family: IpVersion,
    /// The type.
    pub set_type: SetType,
    /// The most members it can hold; of no meaning for `bitmap:port`.
    pub max_elements: u32,
}

/// A member of a set. `Display` is what `ipset` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Of a `hash:ip` set; in a `hash:net` set, the network of this one address.
    Addr(IpAddr),
    /// Of a `hash:net` set. A network of length 0 is kept as two of length 1: the kernel has no other way.
    Net(IpNet),
    /// Of a `hash:ip,port` set.
    AddrPort {
        /// The address.
        addr: IpAddr,
        /// The IP protocol number, not 0.
        protocol: u8,
        /// The port.
        port: u16,
    },
    /// Of a `bitmap:port` set.
    Port(u16),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => write!(f, "{addr}"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Net(net) => write!(f, "{net}"),
            Self::AddrPort { addr, protocol, port } => {
                write!(f, "{addr},")?;
                match protocol {
                    6 => write!(f, "tcp:{port}"),
                    17 => write!(f, "udp:{port}"),
                    132 => write!(f, "sctp:{port}"),
                    136 => write!(f, "udplite:{port}"),
                    other => write!(f, "{other}:{port}"),
                }
            }
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}

/// What a wanted member means for the kernel's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is a member as it is (host bits of a network cleared).
    One(Member),
    /// The whole address space: both halves.
    Everything,
    /// Such a set cannot hold it.
    No,
}

/// Brings a member into the form in which the set holds it.
pub(super) fn fit(spec: &SetSpec, member: Member) -> Fit {
    let of_family = |addr: &IpAddr| IpVersion::of_addr(addr) == spec.family;
    match (spec.set_type, member) {
        (SetType::HashIp, Member::Addr(addr)) if of_family(&addr) => single(addr),
        (SetType::HashIp, Member::Net(net))
            if of_family(&net.addr()) && net.prefix_len() == net.max_prefix_len() =>
        {
            single(net.addr())
        }
        (SetType::HashNet, Member::Addr(addr)) if of_family(&addr) => {
            Fit::One(Member::Net(IpNet::from(addr)))
        }
        (SetType::HashNet, Member::Net(net)) if of_family(&net.addr()) => {
            if net.prefix_len() == 0 {
                Fit::Everything
            } else {
                Fit::One(Member::Net(net.trunc()))
            }
        }
        (SetType::HashIpPort, Member::AddrPort { addr, protocol, port })
            if of_family(&addr) && protocol != 0 && (port == 0 || has_ports(protocol)) =>
        {
            Fit::One(member)
        }
        (SetType::BitmapPort, Member::Port(_)) => Fit::One(member),
        _ => Fit::No,
    }
}

/// Whether the kernel keeps a port for the protocol: TCP, UDP, SCTP, UDP-Lite, and type and code of ICMP.
/// For others it puts 0 in its place.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 1 | 6 | 17 | 58 | 132 | 136)
}

/// The kernel refuses 0.0.0.0 in `hash:ip` (it marks an empty slot).
fn single(addr: IpAddr) -> Fit {
    if addr == IpAddr::V4(Ipv4Addr::UNSPECIFIED) { Fit::No } else { Fit::One(Member::Addr(addr)) }
}

/// The halves of the address space.
pub(super) fn halves(family: IpVersion) -> [Member; 2] {
    let nets = match family {
        IpVersion::V4 => [net4(0, 1), net4(0x8000_0000, 1)],
        IpVersion::V6 => [net6(0, 1), net6(1 << 127, 1)],
    };
    nets.map(Member::Net)
}

fn net4(bits: u32, len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), len))
}

fn net6(bits: u128, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), len))
}

/// Members of one set in 8 (IPv4, ports) or 19 bytes each: a set of 100,000 takes 1 to 3 MB.
#[derive(Clone, Debug)]
pub(super) struct MemberSet {
    set_type: SetType,
    keys: Keys,
}

#[derive(Clone, Debug)]
enum Keys {
    /// Address (or port) in the upper half, then protocol and port, or the prefix length.
    Narrow(FxHashSet<u64>),
    /// Address, then protocol and port, or the prefix length and 0.
    Wide(FxHashSet<([u8; 16], [u8; 3])>),
}

enum Key {
    Narrow(u64),
    Wide(([u8; 16], [u8; 3])),
}

impl MemberSet {
    /// An empty set for members of this kind.
    pub(super) fn new(spec: &SetSpec) -> Self {
        let narrow = spec.set_type == SetType::BitmapPort || spec.family == IpVersion::V4;
        let keys = if narrow { Keys::Narrow(FxHashSet::default()) } else { Keys::Wide(FxHashSet::default()) };
        Self { set_type: spec.set_type, keys }
    }

    pub(super) fn len(&self) -> usize {
        match &self.keys {
            Keys::Narrow(keys) => keys.len(),
            Keys::Wide(keys) => keys.len(),
        }
    }

    /// The same as the kernel counts.
    pub(super) fn len_u32(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    /// False when it was there already, or is of the other family.
    pub(super) fn insert(&mut self, member: &Member) -> bool {
        match (&mut self.keys, pack(member)) {
            (Keys::Narrow(keys), Key::Narrow(key)) => keys.insert(key),
            (Keys::Wide(keys), Key::Wide(key)) => keys.insert(key),
            _ => false,
        }
    }

    /// False when it was not there.
    pub(super) fn remove(&mut self, member: &Member) -> bool {
        match (&mut self.keys, pack(member)) {
            (Keys::Narrow(keys), Key::Narrow(key)) => keys.remove(&key),
            (Keys::Wide(keys), Key::Wide(key)) => keys.remove(&key),
            _ => false,
        }
    }

    pub(super) fn contains(&self, member: &Member) -> bool {
        match (&self.keys, pack(member)) {
            (Keys::Narrow(keys), Key::Narrow(key)) => keys.contains(&key),
            (Keys::Wide(keys), Key::Wide(key)) => keys.contains(&key),
            _ => false,
        }
    }

    /// Those for which `keep` is true, in order.
    pub(super) fn sorted(&self, keep: impl Fn(&Member) -> bool) -> Vec<Member> {
        let mut members: Vec<Member> = match &self.keys {
            Keys::Narrow(keys) => {
                keys.iter().map(|key| self.unpack_narrow(*key)).filter(|m| keep(m)).collect()
            }
            Keys::Wide(keys) => keys.iter().map(|key| self.unpack_wide(*key)).filter(|m| keep(m)).collect(),
        };
        members.sort_unstable();
        members
    }

    fn unpack_narrow(&self, key: u64) -> Member {
        let [a, b, c, d, _, rest @ ..] = key.to_be_bytes();
        let addr = Ipv4Addr::new(a, b, c, d);
        let port = u16::from_be_bytes([rest[1], rest[2]]);
        match self.set_type {
            SetType::HashIp => Member::Addr(addr.into()),
            SetType::HashNet => Member::Net(net4(addr.to_bits(), rest[0])),
            SetType::HashIpPort => Member::AddrPort { addr: addr.into(), protocol: rest[0], port },
            SetType::BitmapPort => Member::Port(port),
        }
    }

    fn unpack_wide(&self, (addr, rest): ([u8; 16], [u8; 3])) -> Member {
        let addr = Ipv6Addr::from(addr);
        let port = u16::from_be_bytes([rest[1], rest[2]]);
        match self.set_type {
            SetType::HashIp => Member::Addr(addr.into()),
            SetType::HashNet => Member::Net(net6(addr.to_bits(), rest[0])),
            SetType::HashIpPort => Member::AddrPort { addr: addr.into(), protocol: rest[0], port },
            SetType::BitmapPort => Member::Port(port),
        }
    }
}

/// Three bytes beside the address: the prefix length or the protocol, and the port.
fn pack(member: &Member) -> Key {
    let (addr, rest) = match *member {
        Member::Addr(addr) => (addr, [0; 3]),
        Member::Net(net) => (net.addr(), [net.prefix_len(), 0, 0]),
        Member::AddrPort { addr, protocol, port } => {
            let [high, low] = port.to_be_bytes();
            (addr, [protocol, high, low])
        }
        Member::Port(port) => {
            let [high, low] = port.to_be_bytes();
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), [0, high, low])
        }
    };
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            Key::Narrow(u64::from_be_bytes([a, b, c, d, 0, rest[0], rest[1], rest[2]]))
        }
        IpAddr::V6(addr) => Key::Wide((addr.octets(), rest)),
    }
}
