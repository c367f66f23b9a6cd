//! Rows as chains: equal rows, of whatever list, are one chain.
//!
//! ```text
//! cali-row-…   meta l4proto . th dport vmap @cali-row-…-p      single ports, if there are many
//!              meta l4proto tcp th dport 8000-8099 goto …      ranges, if there are few
//!              meta l4proto tcp th dport vmap @cali-row-…-6    ranges, if there are many
//!              meta l4proto tcp goto …                         what else a protocol is told
//!              goto …                                          all others
//! ```
//!
//! Cells are disjoint, so the order of the first three is no matter. Whose port cannot be read comes to what stands
//! behind them, which is what rules without ports say.

use std::sync::Arc;

use tortie_api::net::{PortRange, Protocol};

use super::outcome::digest_name;
use super::row::Row;
use crate::compile::chains::Chains;
use crate::ruleset::{Action, Key, KeyField, MapType, Match, Rule, Side, Verdict};

/// Cells that are asked one by one rather than looked up.
const FEW_CELLS: usize = 3;
/// The same where the table has as many maps as it may.
const SPILLED_CELLS: usize = 64;
/// Ranges of a protocol that are asked one by one.
const FEW_RANGES: usize = 4;
/// Ranges up to this width become single ports where there is a map for these.
const NARROW: u16 = 16;

/// Whether the row's chain looks into a map of its own.
pub(super) fn has_map<T>(row: &Row<T>) -> bool {
    cells(row) > FEW_CELLS
}

fn cells<T>(row: &Row<T>) -> usize {
    row.protocols.iter().map(|(_, cells)| cells.ports.len()).sum()
}

/// The verdict that leads to a row's chain.
pub(super) fn verdict(row: &Row<Verdict>) -> Verdict {
    Verdict::Goto(Arc::from(digest_name("cali-row-", &format!("{row:?}"))))
}

/// The verdict that leads to the row's chain, which is put in place with its maps. With as many `lookups` in the table,
/// a row gets none for a few dozen cells.
pub(super) fn intern(row: &Row<Verdict>, lookups: usize, chains: &mut Chains) -> Verdict {
    let name = digest_name("cali-row-", &format!("{row:?}"));
    if !chains.has(&name) {
        let are_few = !has_map(row) || (cells(row) <= SPILLED_CELLS && chains.lookups() >= lookups);
        let mut render = Render { name: &name, singles: Vec::new(), rules: Vec::new(), maps: Vec::new() };
        for (protocol, cells_of) in &row.protocols {
            render.ports(*protocol, &cells_of.ports, are_few);
        }
        let Render { singles, mut rules, mut maps, .. } = render;
        if !singles.is_empty() {
            let map = format!("{name}-p");
            rules.insert(0, look_up(vec![], vec![KeyField::Protocol, KeyField::DestinationPort], &map));
            maps.push((map, MapType::ProtocolPort, singles));
        }
        for (protocol, cells_of) in &row.protocols {
            if cells_of.default != row.others {
                rules.push(Rule::when(vec![is(*protocol)], action(&cells_of.default)));
            }
        }
        rules.push(Rule::always(action(&row.others)));
        for (map, holds, elements) in maps {
            chains.intern_map(&map, holds, elements);
        }
        chains.intern(&name, || rules);
    }
    Verdict::Goto(Arc::from(name))
}

/// The action of a rule that does what a verdict says.
pub(super) fn action(verdict: &Verdict) -> Action {
    match verdict {
        Verdict::Accept => Action::Accept,
        Verdict::Drop => Action::Drop,
        Verdict::Return => Action::Return,
        Verdict::Jump(chain) => Action::Jump(chain.to_string()),
        Verdict::Goto(chain) => Action::Goto(chain.to_string()),
    }
}

/// A rule that looks a packet up.
pub(super) fn look_up(matches: Vec<Match>, key: Vec<KeyField>, map: &str) -> Rule {
    Rule::when(matches, Action::Lookup { key, map: map.to_owned(), all: None })
}

fn is(protocol: u8) -> Match {
    Match::Protocol { protocol: Protocol::Number(protocol), negate: false }
}

/// A map that goes with a row.
type RowMap = (String, MapType, Vec<(Key, Verdict)>);

struct Render<'a> {
    name: &'a str,
    singles: Vec<(Key, Verdict)>,
    rules: Vec<Rule>,
    maps: Vec<RowMap>,
}

impl Render<'_> {
    /// The cells of one protocol.
    fn ports(&mut self, protocol: u8, cells: &[(u16, u16, Verdict)], are_few: bool) {
        let (narrow, wide): (Vec<_>, Vec<_>) =
            cells.iter().partition(|(first, last, _)| !are_few && last - first < NARROW);
        for (first, last, verdict) in narrow {
            self.singles
                .extend((*first..=*last).map(|port| (Key::ProtocolPort(protocol, port), verdict.clone())));
        }
        let wide = wide.into_iter().filter_map(|(first, last, v)| Some((PortRange::new(*first, *last)?, v)));
        if are_few || wide.clone().count() <= FEW_RANGES {
            self.rules.extend(wide.map(|(range, verdict)| {
                let ports = Match::Ports { side: Side::Destination, ports: vec![range], negate: false };
                Rule::when(vec![is(protocol), ports], action(verdict))
            }));
        } else {
            let map = format!("{}-{protocol}", self.name);
            self.rules.push(look_up(vec![is(protocol)], vec![KeyField::DestinationPort], &map));
            let elements = wide.map(|(range, verdict)| (Key::PortRange(range), verdict.clone())).collect();
            self.maps.push((map, MapType::PortRange, elements));
        }
    }
}
