//! The ruleset as nf_tables takes it: the same chains, natively, in a table of our own per IP version.
//!
//! ```text
//!   table ip calico
//!     chain filter-FORWARD          at the hook; what iptables mode puts into FORWARD of its table `filter`
//!     chain filter-cali-FORWARD     our chain `cali-FORWARD` of that table
//!     set cali40all-ipam-pools      shared by all of them
//! ```
//!
//! The tables of iptables become a prefix of chain names, as in Felix's own nftables mode. One rule becomes one rule,
//! but for what nft can only say with an anonymous set: several ports, and "not this ICMP type with this code". That
//! becomes rules side by side of which a packet can match one, so that the verdict is the same, and so are the counts.
//!
//! ### What differs from iptables mode
//!
//! Who else filters has chains of his own at the same hooks. An `accept` here ends this table's chain of that hook
//! and nothing else: another table, also iptables' own, may still drop the packet. A `drop` is final everywhere. There
//! is no insert mode: our chains run at the priorities of [`base_chain`], whatever others do.

mod actions;
mod base;
mod closed;
pub mod established;
mod maps;
mod matches;
mod sets;

pub use self::base::{
    FLOWTABLE, TABLE, TABLE_COMMENT, base_chain, chain_name, family, flowtable, not_offloaded, table,
};
pub use self::closed::closed;
pub use self::maps::{map, map_element, map_key, map_name, set_element};
pub use self::sets::{element, set, set_name};

use tortie_api::net::IpVersion;

use crate::render::Table;
use crate::ruleset::nft;
use crate::ruleset::{Action, Chain, Hook, Rule};

/// The longest comment in bytes: 128 with its zero.
const COMMENT_MAX: usize = 127;

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The chain itself.
    pub chain: nft::Chain,
    /// Its rules in order.
    pub rules: Vec<nft::Rule>,
}

/// A rule that has no equal in nftables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {index} has no equal in nftables: {reason}")]
pub struct Unsayable {
    /// Which rule of the chain, from 0.
    pub index: usize,
    /// Why.
    pub reason: &'static str,
}

/// Lowers a chain of ours.
///
/// # Errors
/// When a rule asks for something that nftables does not have.
pub fn chain(table: Table, version: IpVersion, chain: &Chain) -> Result<Content, Unsayable> {
    let name = chain_name(table, &chain.name);
    Ok(Content { chain: nft::Chain::plain(name), rules: rules(table, version, &chain.rules)? })
}

/// Lowers our rules of a kernel's chain to a chain at that hook. `None` if the table has no such chain.
///
/// # Errors
/// When a rule asks for something that nftables does not have.
pub fn hook(table: Table, version: IpVersion, hook: &Hook) -> Result<Option<Content>, Unsayable> {
    let Some(chain) = base_chain(table, hook.chain) else { return Ok(None) };
    let all: Vec<Rule> = hook.inserted.iter().chain(&hook.appended).cloned().collect();
    Ok(Some(Content { chain, rules: rules(table, version, &all)? }))
}

fn rules(table: Table, version: IpVersion, rules: &[Rule]) -> Result<Vec<nft::Rule>, Unsayable> {
    let mut out = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        lower(table, version, rule, &mut out).map_err(|reason| Unsayable { index, reason })?;
    }
    Ok(out)
}

/// Appends what a rule becomes: nothing if it can never match.
fn lower(
    table: Table,
    version: IpVersion,
    rule: &Rule,
    out: &mut Vec<nft::Rule>,
) -> Result<(), &'static str> {
    let comment = comment(&rule.comments);
    for mut expressions in matches::alternatives(version, &rule.matches)? {
        if is_counted(rule) {
            expressions.push(nft::Expression::Counter);
        }
        if let Some(action) = &rule.action {
            actions::push(table, version, action, &mut expressions)?;
        }
        out.push(nft::Rule { expressions, comment: comment.clone() });
    }
    Ok(())
}

/// Counters stand where a person looks for them: at what decides about packets, and what changes them. Each costs
/// memory on every processor and time for every packet, so what only leads on or prepares has none.
fn is_counted(rule: &Rule) -> bool {
    match &rule.action {
        Some(
            Action::Jump(_)
            | Action::Goto(_)
            | Action::Return
            | Action::Lookup { .. }
            | Action::ClearMark(_)
            | Action::SetMaskedMark { .. }
            | Action::SetConnectionMark { .. },
        ) => false,
        Some(Action::SetMark(_)) => !rule.matches.is_empty(),
        _ => true,
    }
}

/// All comments in one, without what would end it in nft's own language.
fn comment(comments: &[String]) -> Option<String> {
    if comments.is_empty() {
        return None;
    }
    let is_plain = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
    let mut text: String = comments.join("; ").chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    text.truncate(text.floor_char_boundary(COMMENT_MAX));
    Some(text)
}

#[cfg(test)]
mod tests;
