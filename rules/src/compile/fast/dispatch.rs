//! Dispatch: from the interface of a workload to its policy list, by one lookup.
//!
//! ```text
//! cali-to-wl-dispatch   oifname vmap @cali-to-wl-limited   if some packets are counted: these first
//!                       ct state related,established …     then what is known
//!                       ct state invalid …
//!                       oifname vmap @cali-to-wl ──► list, or the endpoint's own chain ──► list
//!                       drop
//! ```
//!
//! What is the endpoint's own (limits of its packets and connections) stands in a chain of its own, in front of the
//! list that it shares with others. What is known is accepted before the interface is looked at: a connection of an
//! endpoint that is gone ends when its entry is deleted, not here.

use std::sync::Arc;

use tortie_api::qos::Limits;

use super::row_chain::look_up;
use crate::compile::chains::Chains;
use crate::compile::config::Config;
use crate::compile::endpoint::{conntrack, encapsulation, filter_allow};
use crate::compile::limits;
use crate::compile::names::{self, Direction};
use crate::compile::rule::deny;
use crate::ruleset::{Action, Chain, Key, KeyField, MapType, Rule, Verdict};

/// The map from interfaces to policy lists.
const fn map(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "cali-to-wl",
        Direction::Egress => "cali-from-wl",
    }
}

/// The map of endpoints whose packets are counted.
const fn limited_map(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "cali-to-wl-limited",
        Direction::Egress => "cali-from-wl-limited",
    }
}

const fn field(direction: Direction) -> KeyField {
    match direction {
        Direction::Ingress => KeyField::OutInterface,
        Direction::Egress => KeyField::InInterface,
    }
}

/// Makes the dispatch chain of a direction. `counts` says whether packets of some endpoints are counted.
pub(super) fn program(direction: Direction, counts: bool, config: &Config, chains: &mut Chains) {
    let key = || vec![field(direction)];
    chains.want_map(map(direction), MapType::Interface);
    chains.want_map(limited_map(direction), MapType::Interface);
    let mut rules = Vec::new();
    if counts {
        rules.push(look_up(Vec::new(), key(), limited_map(direction)).comment("Packets are counted"));
    }
    known(direction, config, &mut rules);
    rules.push(look_up(Vec::new(), key(), map(direction)));
    rules.push(Rule::always(deny(config)).comment("Unknown interface"));
    chains.set(Chain { name: names::dispatch_chain(direction).to_owned(), rules });
}

/// What policy is not asked about.
fn known(direction: Direction, config: &Config, rules: &mut Vec<Rule>) {
    conntrack(&filter_allow(config), config, rules);
    if direction == Direction::Egress {
        rules.extend(encapsulation(config));
    }
}

/// Leads packets of an endpoint to its list.
pub(super) fn add(
    direction: Direction,
    interface: &Arc<str>,
    of: &Limits,
    list: &str,
    config: &Config,
    chains: &mut Chains,
) {
    let name = names::workload_chain(direction, interface);
    let mut rules = limits::packet_rate(direction, of, &config.marks);
    let is_counted = !rules.is_empty();
    conntrack(&filter_allow(config), config, &mut rules);
    rules.extend(limits::connections(direction, of));
    if direction == Direction::Egress {
        rules.extend(encapsulation(config));
    }
    rules.push(Rule::always(Action::Goto(list.to_owned())));
    chains.set(Chain { name: name.clone(), rules });
    let own = || Verdict::Goto(name.as_str().into());
    let verdict = if of.max_connections.is_some() { own() } else { Verdict::Goto(list.into()) };
    let key = || Key::Interface(interface.clone());
    chains.set_element(map(direction), key(), (!is_counted).then_some(verdict));
    chains.set_element(limited_map(direction), key(), is_counted.then(own));
}

/// Leads packets of an endpoint nowhere.
pub(super) fn remove(direction: Direction, interface: &Arc<str>, chains: &mut Chains) {
    for map in [map(direction), limited_map(direction)] {
        chains.set_element(map, Key::Interface(interface.clone()), None);
    }
    chains.remove(&names::workload_chain(direction, interface));
}
