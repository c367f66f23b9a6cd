//! What rules are made of: the kernel's expressions.
//!
//! Most rules are: load something into a register, compare it, next; at the end a verdict.

use super::{Checksum, Data, Payload, Register, Verdict};

mod key;

pub use key::{
    Comparison, ConntrackKey, Direction, DynamicSet, FibResult, FibSelector, HashSource, LimitUnit,
    LogTarget, MetaKey, NatFlags, NatKind, RejectKind, RouteKey, SetOperation,
};

/// One expression. What "does not match" ends the rule, and the next rule of the chain is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expression {
    /// Loads what the kernel knows of the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        to: Register,
    },
    /// Writes it: mark, priority, trace.
    SetMeta {
        /// What.
        key: MetaKey,
        /// The value.
        from: Register,
    },
    /// Loads bytes of the packet; does not match where there are none.
    Payload {
        /// Which.
        payload: Payload,
        /// Where to.
        to: Register,
    },
    /// Writes bytes of the packet.
    SetPayload {
        /// Which.
        payload: Payload,
        /// The value.
        from: Register,
        /// The checksum to be mended.
        checksum: Option<Checksum>,
    },
    /// Compares as many bytes as the value has.
    Compare {
        /// How.
        comparison: Comparison,
        /// What is compared.
        from: Register,
        /// With what.
        value: Data,
    },
    /// Whether a value is between two others, both included.
    Range {
        /// Whether it is not.
        negate: bool,
        /// What is compared; the most significant byte first.
        from: Register,
        /// The lowest.
        low: Data,
        /// The highest.
        high: Data,
    },
    /// `(value & mask) ^ xor`; all of the same length.
    Bitwise {
        /// The value.
        from: Register,
        /// Where to.
        to: Register,
        /// Bits that stay.
        mask: Data,
        /// Bits that are turned over.
        xor: Data,
    },
    /// Between the host's and the network's byte order.
    ByteOrder {
        /// The value.
        from: Register,
        /// Where to.
        to: Register,
        /// To the network's order; else from it.
        to_network: bool,
        /// Bytes in all.
        len: u32,
        /// Bytes of each number: 2, 4 or 8.
        size: u32,
    },
    /// Whether a value is in a set.
    Lookup {
        /// The set.
        set: String,
        /// The key.
        key: Register,
        /// Whether it is not.
        negate: bool,
    },
    /// Loads what a map holds for a key; does not match when it holds nothing.
    Map {
        /// The map.
        map: String,
        /// The key.
        key: Register,
        /// Where to.
        to: Register,
    },
    /// The verdict that a map holds for a key; does not match when it holds none.
    VerdictMap {
        /// The map.
        map: String,
        /// The key.
        key: Register,
    },
    /// Loads a constant.
    Immediate {
        /// It.
        value: Data,
        /// Where to.
        to: Register,
    },
    /// What becomes of the packet.
    Verdict(Verdict),
    /// Loads what connection tracking knows.
    Conntrack {
        /// What.
        key: ConntrackKey,
        /// In which direction, for what has one.
        direction: Option<Direction>,
        /// Where to.
        to: Register,
    },
    /// Writes it: mark, zone.
    SetConntrack {
        /// What.
        key: ConntrackKey,
        /// In which direction, for what has one.
        direction: Option<Direction>,
        /// The value.
        from: Register,
    },
    /// Asks the routing tables.
    Fib {
        /// For what.
        result: FibResult,
        /// By what.
        selector: FibSelector,
        /// Where to.
        to: Register,
    },
    /// Loads from the route of the packet.
    Route {
        /// What.
        key: RouteKey,
        /// Where to.
        to: Register,
    },
    /// Matches no more often than this.
    Limit {
        /// Packets, or bytes.
        rate: u64,
        /// Per so long.
        unit: LimitUnit,
        /// So many more at once.
        burst: u32,
        /// Counts bytes, not packets.
        bytes: bool,
        /// Matches what is more often.
        over: bool,
    },
    /// At most so many connections.
    ConnectionLimit {
        /// So many.
        count: u32,
        /// Matches when there are more.
        over: bool,
    },
    /// Counts packets and bytes.
    Counter,
    /// Tells of the packet.
    Log {
        /// With this before it.
        prefix: Option<String>,
        /// Whom.
        target: LogTarget,
    },
    /// Its connection is not tracked.
    NoTrack,
    /// Drops the packet with an answer.
    Reject(RejectKind),
    /// Replaces the source address by that of the outgoing interface.
    Masquerade {
        /// Source ports to use, from and to.
        ports: Option<(Register, Register)>,
        /// How ports are chosen.
        flags: NatFlags,
    },
    /// Replaces an address and port.
    Nat {
        /// Which.
        kind: NatKind,
        /// Of which IP version.
        version: super::Family,
        /// New address, from and to; kept if absent.
        addresses: Option<(Register, Register)>,
        /// New port, from and to; kept if absent.
        ports: Option<(Register, Register)>,
        /// How ports are chosen.
        flags: NatFlags,
    },
    /// To this host, whatever the address.
    Redirect {
        /// New port, from and to; kept if absent.
        ports: Option<(Register, Register)>,
        /// How ports are chosen.
        flags: NatFlags,
    },
    /// Adds an element to a set, or takes it out.
    DynamicSet(DynamicSet),
    /// Loads a number that changes from packet to packet.
    NumberGenerator {
        /// By chance, not one after the other.
        random: bool,
        /// Below this.
        modulus: u32,
        /// Added to it.
        offset: u32,
        /// Where to.
        to: Register,
    },
    /// Loads a hash.
    Hash {
        /// Of what.
        source: HashSource,
        /// Below this.
        modulus: u32,
        /// Another seed gives other hashes.
        seed: Option<u32>,
        /// Added to it.
        offset: u32,
        /// Where to.
        to: Register,
    },
    /// Loads bytes of a TCP option; does not match where there is none.
    TcpOption {
        /// Its number: 2 is the largest segment.
        kind: u8,
        /// From its start.
        offset: u32,
        /// How many.
        len: u32,
        /// Where to.
        to: Register,
    },
    /// Writes bytes of a TCP option. The kernel makes a largest segment smaller, never larger.
    SetTcpOption {
        /// Its number.
        kind: u8,
        /// From its start.
        offset: u32,
        /// How many.
        len: u32,
        /// The value.
        from: Register,
    },
    /// The rest of the connection skips the rules.
    FlowOffload {
        /// Where it is kept.
        flowtable: String,
    },
    /// To a program that decides.
    Queue {
        /// First queue.
        number: u16,
        /// How many queues share the work.
        total: u16,
        /// Goes on if nobody listens.
        bypass: bool,
        /// By processor, not by connection.
        fanout: bool,
    },
}
