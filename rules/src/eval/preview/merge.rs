//! From pairs of groups to as few statements as say the same.

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::net::IpVersion;

use super::super::explain::Verdict;
use super::cells::Difference;
use super::sites::{Both, Census};
use super::{Interfaces, Peer, Traffic, VerdictChange};

/// What a verdict becomes, in the order in which it is told.
const TOLD: [Verdict; 2] = [Verdict::Allow, Verdict::Deny];

/// What changes between two groups.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) groups: (usize, usize),
    pub(super) same_node: Option<bool>,
    pub(super) interfaces: Interfaces,
    pub(super) difference: Difference,
}

/// What statements have in common whose ends may be put together.
type Key = (Option<bool>, Interfaces, Vec<Traffic>);

/// Puts both versions together.
pub(super) fn merge(censuses: &Both<Census<'_>>, outcomes: Both<Vec<Outcome>>) -> Vec<VerdictChange> {
    let mut statements = Vec::new();
    for ((census, outcomes), version) in censuses.iter().zip(outcomes).zip(IpVersion::BOTH) {
        let outcomes = distinct(outcomes);
        for becomes in TOLD {
            let of_version = statements_of(census, &outcomes, becomes, version);
            for statement in of_version {
                match statements.iter_mut().find(|other| say_the_same(other, &statement)) {
                    Some(other) => join(other, statement),
                    None => statements.push(statement),
                }
            }
        }
    }
    for statement in &mut statements {
        // Where the other version is not spoken at all, nothing needs to be said.
        let speaks = |peers: &[Peer], version: usize| peers.iter().any(|peer| censuses[version].has(peer));
        let other = usize::from(statement.ip_version == Some(IpVersion::V4));
        if !speaks(&statement.sources, other) || !speaks(&statement.destinations, other) {
            statement.ip_version = None;
        }
    }
    statements.sort_by(|a, b| {
        let key = |s: &VerdictChange| (s.becomes == Verdict::Deny, s.sources.clone(), s.destinations.clone());
        key(a).cmp(&key(b)).then_with(|| a.traffic.cmp(&b.traffic))
    });
    statements
}

fn statements_of(
    census: &Census<'_>,
    outcomes: &[Outcome],
    becomes: Verdict,
    version: IpVersion,
) -> Vec<VerdictChange> {
    let mut rows: BTreeMap<Key, BTreeMap<usize, BTreeSet<usize>>> = BTreeMap::new();
    for outcome in outcomes {
        let traffic = match becomes {
            Verdict::Allow => &outcome.difference.allowed,
            Verdict::Deny => &outcome.difference.denied,
        };
        if !traffic.is_empty() {
            let key = (outcome.same_node, outcome.interfaces.clone(), traffic.clone());
            rows.entry(key).or_default().entry(outcome.groups.0).or_default().insert(outcome.groups.1);
        }
    }
    let mut statements = Vec::new();
    for ((same_node, interfaces, traffic), rows) in rows {
        for (sources, destinations) in blocks(census, rows) {
            statements.push(VerdictChange {
                becomes,
                ip_version: Some(version),
                sources: peers(census, &sources),
                destinations: peers(census, &destinations),
                traffic: traffic.clone(),
                same_node,
                interfaces: interfaces.clone(),
            });
        }
    }
    statements
}

/// Sources with the same destinations together. A workload alone in its group may be added to its own
/// destinations, since nothing is said of a workload and itself.
fn blocks(
    census: &Census<'_>,
    rows: BTreeMap<usize, BTreeSet<usize>>,
) -> Vec<(BTreeSet<usize>, BTreeSet<usize>)> {
    let by_destinations = |rows: BTreeMap<usize, BTreeSet<usize>>| {
        let mut blocks: BTreeMap<BTreeSet<usize>, BTreeSet<usize>> = BTreeMap::new();
        for (source, destinations) in rows {
            blocks.entry(destinations).or_default().insert(source);
        }
        blocks
    };
    let (mut result, mut alone) = (Vec::new(), BTreeMap::new());
    for (mut destinations, sources) in by_destinations(rows) {
        let is_single = |at: &usize| {
            let group = &census.groups[*at];
            group.sites.len() == 1 && !group.is_host && !group.is_outside
        };
        match sources.first() {
            Some(source) if sources.len() == 1 && is_single(source) => {
                destinations.insert(*source);
                alone.insert(*source, destinations);
            }
            _ => result.push((sources, destinations)),
        }
    }
    for (mut destinations, sources) in by_destinations(alone) {
        if let (Some(source), 1) = (sources.first(), sources.len()) {
            destinations.remove(source);
        }
        result.push((sources, destinations));
    }
    result
}

fn peers(census: &Census<'_>, groups: &BTreeSet<usize>) -> Vec<Peer> {
    let mut peers = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for site in groups.iter().flat_map(|group| &census.groups[*group].sites) {
        let site = &census.sites[*site];
        match site.owner() {
            Some(who) => {
                let is_one_of_several = census.addresses_of(who) > 1;
                peers.insert(who.peer(is_one_of_several.then_some(site.address)));
            }
            None => cells.extend(site.cell),
        }
    }
    peers.extend((!cells.is_empty()).then(|| outside(census, &cells)));
    peers.into_iter().collect()
}

/// Networks are named that are in it while what is around them is not, and the other way.
fn outside(census: &Census<'_>, included: &BTreeSet<usize>) -> Peer {
    let (mut nets, mut except) = (Vec::new(), Vec::new());
    // A cell without a free address goes with what is around it.
    let mut is_in = Vec::with_capacity(census.cells.len());
    for cell in 0..census.cells.len() {
        let around = census.cells.parent(cell).is_some_and(|parent| is_in[parent]);
        let is_included = if census.has_free.contains(&cell) { included.contains(&cell) } else { around };
        match (is_included, around) {
            (true, false) => nets.push(census.cells.net(cell)),
            (false, true) => except.push(census.cells.net(cell)),
            _ => {}
        }
        is_in.push(is_included);
    }
    Peer::Outside { nets, except }
}

fn known(peers: &[Peer]) -> impl Iterator<Item = &Peer> {
    peers.iter().filter(|peer| !matches!(peer, Peer::Outside { .. }))
}

/// Whether two statements differ only in the version, and in the addresses outside.
fn say_the_same(a: &VerdictChange, b: &VerdictChange) -> bool {
    let ends = |a: &[Peer], b: &[Peer]| a.len() == b.len() && known(a).eq(known(b));
    a.ip_version.is_some()
        && a.ip_version != b.ip_version
        && a.becomes == b.becomes
        && a.same_node == b.same_node
        && a.interfaces == b.interfaces
        && a.traffic == b.traffic
        && ends(&a.sources, &b.sources)
        && ends(&a.destinations, &b.destinations)
}

fn join(a: &mut VerdictChange, b: VerdictChange) {
    a.ip_version = None;
    for (into, from) in [(&mut a.sources, b.sources), (&mut a.destinations, b.destinations)] {
        for (own, other) in into.iter_mut().zip(from) {
            if let (Peer::Outside { nets, except }, Peer::Outside { nets: more, except: also }) = (own, other)
            {
                nets.extend(more);
                except.extend(also);
            }
        }
    }
}

/// The verdicts asked for, told apart by nothing but what makes a difference.
fn distinct(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let mut by_groups: BTreeMap<(usize, usize), Vec<Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        by_groups.entry(outcome.groups).or_default().push(outcome);
    }
    let mut result = Vec::new();
    for mut outcomes in by_groups.into_values() {
        let is_one_relation = outcomes.windows(2).all(|pair| pair[0].same_node == pair[1].same_node);
        let is_all_alike =
            |list: &[Outcome]| list.windows(2).all(|pair| pair[0].difference == pair[1].difference);
        if is_all_alike(&outcomes) {
            outcomes.truncate(1);
        }
        let is_alone = outcomes.len() == 1;
        for part in outcomes.chunk_by(|a, b| a.same_node == b.same_node) {
            let part = if is_all_alike(part) { &part[..1] } else { part };
            for outcome in part {
                let mut outcome = outcome.clone();
                if is_alone || is_one_relation {
                    outcome.same_node = None;
                }
                if part.len() == 1 {
                    outcome.interfaces = Interfaces::default();
                }
                result.push(outcome);
            }
        }
    }
    result.retain(|outcome| outcome.difference != Difference::default());
    result
}
