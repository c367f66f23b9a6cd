//! What policy costs the packets of the node: connections that are new, and such as are established.
//!
//! New flows are the worst case: each is of a client that only the last of all policies names, and for the port of its
//! last rule. All kinds of rules are there at the same time, each on a node of its own, and take turns in an order
//! that is drawn anew in each round. What a packet costs is the processor's time of the thread that sends it, as the
//! kernel forwards it within the same system call ([`traffic`]); each packet is counted at the pod. A rate is that of
//! one processor which does nothing else.

mod field;
mod policies;
mod rules;
mod traffic;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use self::field::Field;
use self::rules::Rules;
use super::stats::Samples;
use super::{Part, Row, Unit};

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Policies on a node; one node for each number and kind of rules.
    pub policies: Vec<usize>,
    /// Measurements of each kind.
    pub rounds: usize,
    /// Packets of one measurement, where they are quick.
    pub packets: usize,
}

/// Packets that tell how quick they are.
const TASTE: usize = 50;
/// For how long slow packets are sent.
const BURST: Duration = Duration::from_millis(300);
/// Where the drawing of orders begins.
const SEED: u64 = 6;

/// Rules, and the number of policies that they are made of; 0 where there is nothing to be made.
type Case = (Rules, usize);

/// What was measured in a round, in nanoseconds a packet.
#[derive(Debug, Clone, Copy)]
struct Cost {
    new: f64,
    established: f64,
}

/// The costs of each round, in the order of the rounds.
type Costs = BTreeMap<Case, Vec<Cost>>;

/// Measures, and tells of each node that is made.
pub(super) fn measure(plan: &Plan, tell: &dyn Fn(&str)) -> anyhow::Result<Vec<Row>> {
    let floors = Rules::FLOORS.map(|rules| (rules, 0));
    let ours = plan.policies.iter().flat_map(|policies| Rules::OURS.map(|rules| (rules, *policies)));
    let mut fields = Vec::new();
    for (rules, policies) in floors.into_iter().chain(ours) {
        tell(&format!("  a node with {policies} policies: {rules}"));
        fields.push(Field::build(rules, policies).with_context(|| format!("{policies} policies, {rules}"))?);
    }
    tell(&format!("  packets, {} rounds", plan.rounds));
    // The thread stays on one processor, and what is started from there would as well.
    let costs = thread::scope(|scope| scope.spawn(|| rounds(&fields, plan)).join());
    let costs = costs.map_err(|_| anyhow::anyhow!("the thread that sends has failed"))??;
    rows(&costs, &plan.policies)
}

fn rounds(fields: &[Field], plan: &Plan) -> anyhow::Result<Costs> {
    traffic::stay_on_one_processor()?;
    let mut dice = Dice(SEED);
    let mut costs = Costs::new();
    for _ in 0..plan.rounds {
        for field in dice.order(fields.len()).into_iter().filter_map(|index| fields.get(index)) {
            let new = burst(plan.packets, |count| field.new_flows(count))?;
            let established = burst(plan.packets, |count| field.established(count))?;
            costs.entry((field.rules, field.policies)).or_default().push(Cost { new, established });
        }
    }
    Ok(costs)
}

/// Nanoseconds a packet: of as many as one likes to wait for.
fn burst(packets: usize, send: impl Fn(usize) -> anyhow::Result<Duration>) -> anyhow::Result<f64> {
    let taste = send(TASTE)?.as_nanos().max(1);
    let fitting = usize::try_from(BURST.as_nanos() / taste).unwrap_or(usize::MAX);
    Ok(send(fitting.clamp(TASTE, packets.max(TASTE)))?.as_secs_f64() * 1e9)
}

fn rows(costs: &Costs, policies: &[usize]) -> anyhow::Result<Vec<Row>> {
    let of = |case: Case| costs.get(&case).with_context(|| format!("{case:?} was not measured"));
    let [none, floor, nat] = Rules::FLOORS.map(|rules| of((rules, 0)));
    let (none, floor, nat) = (none?, floor?, nat?);
    let rate = |what: &str, costs: &[Cost], part: fn(&Cost) -> f64| {
        let rates = |costs: &[Cost]| -> Samples { costs.iter().map(|cost| 1e9 / part(cost)).collect() };
        Row::new(Part::Flows, what, Unit::PerSecond, &rates(costs))
            .beside(Rules::None.to_string(), &rates(none))
    };
    let both = |name: &str, costs: &[Cost]| {
        [
            rate(&format!("new flows, {name}"), costs, |cost| cost.new),
            rate(&format!("packets of established flows, {name}"), costs, |cost| cost.established),
        ]
    };
    // Of the same round, as the machine is not the same in all of them.
    let above = |costs: &[Cost]| -> Samples {
        costs.iter().zip(floor).map(|(cost, floor)| cost.new - floor.new).collect()
    };
    let cost = |name: &str, costs: &[Cost]| {
        Row::new(Part::Flows, format!("a new flow above conntrack only, {name}"), Unit::Nanos, &above(costs))
    };
    let mut rows = both(&Rules::Conntrack.to_string(), floor).to_vec();
    rows.push(cost(&Rules::Nat.to_string(), nat));
    rows.extend(both(&Rules::Nat.to_string(), nat));
    for policies in policies {
        let legacy = above(of((Rules::Legacy, *policies))?);
        for rules in Rules::OURS {
            let (costs, name) = (of((rules, *policies))?, format!("{policies} policies, {rules}"));
            let row = cost(&name, costs);
            rows.push(if rules == Rules::Legacy {
                row
            } else {
                row.beside(Rules::Legacy.to_string(), &legacy)
            });
            rows.extend(both(&name, costs));
        }
    }
    Ok(rows)
}

/// Draws orders (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.0 % end).unwrap_or(0)
    }

    /// The numbers below `length`, in some order.
    fn order(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_holds_each_number_once_and_is_not_always_the_same() {
        let mut dice = Dice(SEED);
        let orders: Vec<Vec<usize>> = (0..10).map(|_| dice.order(14)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..14).collect::<Vec<_>>());
        }
        assert_ne!(orders[0], orders[1]);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers are exact")]
    fn costs_are_compared_within_a_round() {
        let cost = |new| Cost { new, established: 500.0 };
        let mut costs = Costs::from([
            ((Rules::None, 0), vec![cost(1000.0), cost(2000.0), cost(3000.0)]),
            ((Rules::Conntrack, 0), vec![cost(1500.0), cost(2500.0), cost(3500.0)]),
        ]);
        costs.insert((Rules::Nat, 0), vec![cost(1550.0); 3]);
        costs.extend(Rules::OURS.map(|rules| ((rules, 3), vec![cost(1600.0), cost(2700.0), cost(3700.0)])));
        let rows = rows(&costs, &[3]).unwrap();
        assert_eq!(rows[0].median, 400_000.0);
        assert_eq!(rows[0].beside.as_ref().unwrap().median, Some(500_000.0));
        assert_eq!((rows[5].median, rows[5].min), (200.0, 100.0));
        assert!(super::rows(&costs, &[4]).is_err());
    }
}
