//! The table and its chains at hooks.

use tortie_api::net::IpVersion;

use super::sets::set_name;
use crate::compile::not_offloaded_set;
use crate::render::Table;
use crate::ruleset::nft::{Chain, ChainKind, Family, Flowtable, Hook, TableId};

/// The table's name, the same as Felix's: of a node's two agents, the one that runs replaces what the other left.
pub const TABLE: &str = "calico";

/// Where connections are kept that skip the rules; Felix's name, too.
pub const FLOWTABLE: &str = "calico";

/// What a person reads above it.
pub const TABLE_COMMENT: &str = "Calico policy, kept by Tortie. Changes by hand are undone.";

/// The set of endpoints whose connections must not skip the rules.
pub fn not_offloaded(version: IpVersion) -> String {
    set_name(&not_offloaded_set(version))
}

/// Our table of an IP version.
pub fn table(version: IpVersion) -> TableId {
    TableId::new(family(version), TABLE)
}

/// The table of connections that skip the rules, without interfaces: before everything else that looks at packets as
/// they come in, as in Felix's nftables mode.
pub fn flowtable() -> Flowtable {
    Flowtable { name: FLOWTABLE.to_owned(), priority: 0, devices: Vec::new(), counter: false }
}

/// nf_tables' word for an IP version.
pub const fn family(version: IpVersion) -> Family {
    match version {
        IpVersion::V4 => Family::Ipv4,
        IpVersion::V6 => Family::Ipv6,
    }
}

/// The name here of a chain of an iptables table.
pub fn chain_name(table: Table, name: &str) -> String {
    format!("{}-{name}", table.name())
}

/// What stands here for one of the kernel's chains in iptables. `None` if the table has no such chain.
///
/// Priorities are Felix's: those of iptables, but that addresses are translated after kube-proxy's nftables mode has
/// done so (output at -100, postrouting at 100), as iptables mode appends its rules there.
pub fn base_chain(table: Table, chain: &str) -> Option<Chain> {
    let hook = match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    };
    let (kind, priority) = match (table, hook) {
        (Table::Raw, Hook::Prerouting | Hook::Output) => (ChainKind::Filter, -300),
        // A packet whose mark changes is routed again, as iptables does in this chain.
        (Table::Mangle, Hook::Output) => (ChainKind::Route, -150),
        (Table::Mangle, _) => (ChainKind::Filter, -150),
        (Table::Nat, Hook::Prerouting | Hook::Input) => (ChainKind::Nat, -100),
        (Table::Nat, Hook::Output | Hook::Postrouting) => (ChainKind::Nat, 110),
        (Table::Filter, Hook::Input | Hook::Forward | Hook::Output) => (ChainKind::Filter, 0),
        _ => return None,
    };
    Some(Chain::at_hook(chain_name(table, chain), kind, hook, priority))
}
