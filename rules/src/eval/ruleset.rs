//! Compiled rules evaluated as the kernel would: chains, marks, sets, connection tracking.
//!
//! ```text
//! from an interface   raw PREROUTING ─ mangle PREROUTING ─ DNAT ─┬─ filter INPUT ── the host
//!                                                                └─ filter FORWARD ─ mangle POSTROUTING ──►
//! from the host       raw OUTPUT ─ DNAT ─ filter OUTPUT ─ mangle POSTROUTING ──►
//! ```
//!
//! What the packet's destination is translated to, its connection's state and the result of the reverse path
//! check are given; the `nat` table is not looked at. The kernel's own chains end in ACCEPT, and `limit` never
//! runs dry, `connlimit` is never exceeded, and what is TCP begins a connection.
//!
//! Rules that the kernel would refuse are refused here ([`MachineError`]).

mod maps;
mod program;
mod run;
mod sets;

use std::net::IpAddr;

use tortie_api::net::IpVersion;

use crate::compile::classic::TableContent;
use crate::render::Table;
use crate::ruleset::{Action, Bits};
use program::Program;

pub use program::MachineError;
pub use sets::Sets;

/// The rules and sets of one IP version, ready to be run.
#[derive(Debug)]
pub struct Machine {
    version: IpVersion,
    raw: Program,
    mangle: Program,
    filter: Program,
    sets: Vec<sets::Lookup>,
}

impl Machine {
    /// Takes the content of the tables of one IP version and the sets that they refer to.
    ///
    /// # Errors
    /// What the kernel would refuse.
    pub fn new(version: IpVersion, tables: &[TableContent], sets: &Sets) -> Result<Self, MachineError> {
        let mut resolver = sets::Resolver::new(version, sets);
        let mut program = |table: Table| {
            let content = tables.iter().find(|content| content.table == table);
            Program::new(table, content, &mut resolver)
        };
        let (raw, mangle, filter) = (program(Table::Raw)?, program(Table::Mangle)?, program(Table::Filter)?);
        Ok(Self { version, raw, mangle, filter, sets: resolver.into_lookups() })
    }

    /// The IP version of the packets that it takes.
    pub const fn version(&self) -> IpVersion {
        self.version
    }

    /// What becomes of a packet.
    pub fn run(&self, packet: &Packet) -> Outcome {
        run::Run::new(self, packet, None).run()
    }

    /// What becomes of a packet, and the rules that matched it on its way.
    pub fn trace(&self, packet: &Packet) -> (Outcome, Vec<Step>) {
        let mut steps = Vec::new();
        let outcome = run::Run::new(self, packet, Some(&mut steps)).run();
        (outcome, steps)
    }
}

/// A packet at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its source address.
    pub source: IpAddr,
    /// Its destination address, before any translation.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Only for protocols with ports.
    pub source_port: Option<u16>,
    /// Only for protocols with ports; before any translation.
    pub destination_port: Option<u16>,
    /// Type and code of an ICMP or ICMPv6 message.
    pub icmp: Option<(u8, u8)>,
    /// The interface that it came in by; none if the host itself sends it.
    pub in_interface: Option<String>,
    /// The interface that it goes out by; none if it is for the host itself.
    pub out_interface: Option<String>,
    /// The state of its connection.
    pub conntrack: ConnectionState,
    /// What the destination is translated to, if it is.
    pub dnat: Option<(IpAddr, Option<u16>)>,
    /// The mark that it brings along.
    pub mark: Bits,
    /// Whether its source is routed back to where it came from.
    pub reverse_path_is_good: bool,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// This is its first packet.
    #[default]
    New,
    /// Both directions were seen.
    Established,
    /// Another connection's child or error.
    Related,
    /// Connection tracking can make nothing of the packet.
    Invalid,
    /// It is not tracked.
    Untracked,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it passes.
    pub fate: Fate,
    /// Its mark at the end.
    pub mark: Bits,
    /// The state of its connection at the end.
    pub conntrack: ConnectionState,
}

/// Whether a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passes all tables.
    Accepted,
    /// It is dropped in silence.
    Dropped,
    /// It is dropped with an ICMP error.
    Rejected,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of this table.
    pub table: Table,
    /// In this chain.
    pub chain: String,
    /// Its place in the chain, counted from 0.
    pub index: usize,
    /// What it did.
    pub action: Option<Action>,
}

impl std::fmt::Display for Step {
    /// `filter cali-FORWARD[2] Jump("cali-from-wl-dispatch")`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}[{}]", self.table.name(), self.chain, self.index)?;
        self.action.as_ref().map_or(Ok(()), |action| write!(f, " {action:?}"))
    }
}

#[cfg(test)]
mod tests;
