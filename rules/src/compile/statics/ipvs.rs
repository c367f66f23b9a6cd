//! Chains for nodes on which kube-proxy uses IPVS.
//!
//! IPVS takes packets to services out of INPUT and sends them on from OUTPUT: they never see FORWARD. So INPUT notes in
//! mark bits which endpoint such a packet came from, and OUTPUT makes up for what FORWARD would have done.
//!
//! ```text
//!   INPUT    cali-forward-check ─► to a service? ─► cali-set-endpoint-mark ─► cali-sm-… : mark
//!   OUTPUT   marked? ─► cali-forward-endpoint-mark ─► cali-from-endpoint-mark ─► policy of where it came from
//!                                                  └► policy of where it goes
//! ```

use tortie_api::net::{IpVersion, Protocol};

use super::super::config::{Config, Marks};
use super::super::endpoint::filter_allow;
use super::super::names::{self, Direction, set_name};
use super::super::rule::port_chunks;
use super::{THIS_HOST, accepted, chain, jump, prefixes};
use crate::ruleset::{Action, Chain, Match, Rule, SetKey, Side};

/// The mark of packets that come from none of our endpoints: the lowest bit. None where no bit is left.
pub(crate) const fn others_mark(marks: &Marks) -> u32 {
    marks.endpoint & marks.endpoint.wrapping_neg()
}

/// The packet is one that IPVS sends on.
pub(super) fn is_sent_on(config: &Config) -> Match {
    Match::MarkAnySet(config.marks.endpoint)
}

/// What of `cali-INPUT` comes before workloads are looked at.
pub(super) fn input(config: &Config) -> Vec<Rule> {
    vec![
        Rule::always(Action::ClearMark(config.marks.endpoint)),
        Rule::always(jump("cali-forward-check")),
        Rule::when(vec![is_sent_on(config)], Action::Return),
    ]
}

/// The chains that do not depend on endpoints.
pub(super) fn chains(version: IpVersion, config: &Config) -> [Chain; 2] {
    [forward_check(version, config), forward_endpoint_mark(config)]
}

fn forward_check(version: IpVersion, config: &Config) -> Chain {
    let host = |negate| Match::Set {
        name: set_name(version, THIS_HOST),
        side: Side::Destination,
        key: SetKey::Address,
        negate,
    };
    let mut rules = vec![Rule::when(vec![config.known()], Action::Return)];
    for ports in port_chunks(&config.node_ports) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let ports = Match::Ports { side: Side::Destination, ports: ports.clone(), negate: false };
            let matches = vec![Match::Protocol { protocol, negate: false }, ports, host(false)];
            let set_mark = Action::Goto(names::SET_ENDPOINT_MARK.to_owned());
            rules.push(Rule::when(matches, set_mark).comment("To kubernetes NodePort service"));
        }
    }
    let service = Rule::when(vec![host(true)], jump(names::SET_ENDPOINT_MARK));
    rules.push(service.comment("To kubernetes service"));
    chain("cali-forward-check", rules)
}

fn forward_endpoint_mark(config: &Config) -> Chain {
    let marks = &config.marks;
    let ours = Match::MarkNot { value: others_mark(marks), mask: marks.endpoint };
    let mut rules = vec![Rule::when(vec![ours], jump(names::FROM_ENDPOINT_MARK))];
    let dispatch = names::dispatch_chain(Direction::Ingress);
    rules.extend(prefixes(config, |i| Rule::when(vec![Match::OutInterface(i)], jump(dispatch))));
    rules.extend([
        Rule::always(jump(names::forward_dispatch_chain(Direction::Egress))),
        Rule::always(Action::ClearMark(marks.endpoint)),
        Rule::when(vec![accepted(config)], filter_allow(config))
            .comment("Policy explicitly accepted packet."),
    ]);
    chain("cali-forward-endpoint-mark", rules)
}
