//! What a change would change, before it is made: objects, policies with their rules, which policies an endpoint
//! has, and what passes.
//!
//! ```text
//!  before ─┐            ┌─► objects    resources that differ
//!  after  ─┼─ compare ──┼─► policies   those in force, field by field and rule by rule
//!          │            └─► endpoints  whose list of policies differs
//!          └─ view ─► sites ─► groups ─► pairs ─► classes of packets ─► verdicts that differ
//! ```
//!
//! The verdicts are exact, not samples: everybody who may be at an end of a flow is put into a group of those
//! that no rule can tell apart, packets are put into classes in the same way, and for each pair of groups of which
//! one is affected one packet of each class is evaluated in both clusters. Left out are packets between two
//! addresses outside of the cluster, and translation of destinations.

mod cells;
mod endpoints;
mod evaluate;
mod merge;
mod nets;
mod objects;
mod pairs;
mod policies;
mod report;
mod rule_line;
mod sites;
mod view;
mod words;

use super::cluster::Cluster;

use self::view::{Common, View};

pub use self::report::{
    Change, EndpointChange, FieldChange, Interfaces, ListChange, ListedPolicy, ObjectChange, Peer,
    PolicyChange, Preview, RuleAt, RuleChange, Span, Traffic, VerdictChange,
};

/// How many pairs of groups are looked at before the rest is left out: some seconds of work.
pub const MAX_PAIRS: usize = 300_000;

/// What a change would change. For staged policies, `after` is `before` [as if they were in
/// force](Cluster::with_staged_in_force).
pub fn preview(before: &Cluster, after: &Cluster) -> Preview {
    preview_within(before, after, MAX_PAIRS)
}

/// The same with at most so many pairs of groups of endpoints looked at.
pub fn preview_within(before: &Cluster, after: &Cluster, max_pairs: usize) -> Preview {
    let mut common = Common::new([before, after]);
    let mut views = [before, after].map(|cluster| View::new(cluster, &mut common));
    let (verdicts, pairs_left_out) = pairs::verdicts(&mut views, &mut common, max_pairs);
    Preview {
        objects: objects::changes(before, after),
        policies: policies::changes(&views),
        endpoints: endpoints::changes(&mut views),
        verdicts,
        pairs_left_out,
    }
}

#[cfg(test)]
mod tests;
