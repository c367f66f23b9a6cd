//! What others did to our tables.

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::net::IpVersion;
use tortie_rules::render::nft as lower;

use super::Touch;
use crate::nft::{Change, Heard};

/// What others have changed, by the IP version of our table.
pub type Touches = BTreeMap<IpVersion, Touch>;

/// What was heard of our tables, but for commits from these ports, which are our own.
pub fn touches(heard: &Heard, own: &[u32]) -> Touches {
    let mut touches = Touches::new();
    if heard.lost {
        return IpVersion::BOTH.into_iter().map(|version| (version, Touch::Whole)).collect();
    }
    let foreign = heard.commits.iter().filter(|commit| !own.contains(&commit.port));
    for change in foreign.flat_map(|commit| &commit.changes) {
        let of = |version: &IpVersion| lower::table(*version) == *change.table();
        let Some(version) = IpVersion::BOTH.into_iter().find(of) else { continue };
        let touch = match change {
            Change::Table(_) | Change::Other(..) => Touch::Whole,
            Change::Chain(_, name) | Change::Rules(_, name) => {
                Touch::Parts { chains: BTreeSet::from([name.clone()]), sets: BTreeSet::new() }
            }
            Change::Set(_, name) | Change::Elements(_, name) => {
                Touch::Parts { chains: BTreeSet::new(), sets: BTreeSet::from([name.clone()]) }
            }
        };
        match touches.get_mut(&version) {
            Some(known) => known.merge(touch),
            None => {
                touches.insert(version, touch);
            }
        }
    }
    touches
}
