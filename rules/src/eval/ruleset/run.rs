//! A packet on its way through the tables.

use super::maps::{MapCode, Target, WITH_PORTS};
use super::program::{Program, RuleCode, Test, Verb};
use super::sets::{bits, masked};
use super::{ConnectionState, Fate, Machine, Outcome, Packet, Step};
use crate::ruleset::{Bits, ConntrackState, Key, KeyField, Side};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Run<'a> {
    machine: &'a Machine,
    packet: &'a Packet,
    /// Bits of source and destination as they are now, for comparison with networks.
    address_bits: [u128; 2],
    destination: (std::net::IpAddr, Option<u16>),
    /// The interfaces that are known at this point.
    in_interface: Option<&'a str>,
    out_interface: Option<&'a str>,
    mark: Bits,
    conntrack: ConnectionState,
    /// Where jumps came from: chain and rule.
    stack: Vec<(usize, usize)>,
    steps: Option<&'a mut Vec<Step>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(machine: &'a Machine, packet: &'a Packet, steps: Option<&'a mut Vec<Step>>) -> Self {
        Self {
            machine,
            packet,
            address_bits: [bits(packet.source), bits(packet.destination)],
            destination: (packet.destination, packet.destination_port),
            in_interface: None,
            out_interface: None,
            mark: packet.mark,
            conntrack: packet.conntrack,
            stack: Vec::new(),
            steps,
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        let fate = self.way();
        Outcome { fate, mark: self.mark, conntrack: self.conntrack }
    }

    fn way(&mut self) -> Fate {
        let Machine { raw, mangle, filter, .. } = self.machine;
        let (comes_in, goes_out) =
            (self.packet.in_interface.as_deref(), self.packet.out_interface.as_deref());
        let steps: [(&'a Program, &str, Option<&'a str>, Option<&'a str>); 4] = match (comes_in, goes_out) {
            (Some(_), None) => [
                (raw, "PREROUTING", comes_in, None),
                (mangle, "PREROUTING", comes_in, None),
                (filter, "INPUT", comes_in, None),
                (mangle, "", None, None),
            ],
            (Some(_), Some(_)) => [
                (raw, "PREROUTING", comes_in, None),
                (mangle, "PREROUTING", comes_in, None),
                (filter, "FORWARD", comes_in, goes_out),
                (mangle, "POSTROUTING", None, goes_out),
            ],
            (None, _) => [
                (raw, "OUTPUT", None, goes_out),
                (mangle, "", None, None),
                (filter, "OUTPUT", None, goes_out),
                (mangle, "POSTROUTING", None, goes_out),
            ],
        };
        for (at, (program, hook, in_interface, out_interface)) in steps.into_iter().enumerate() {
            if at == 2 {
                self.translate();
            }
            (self.in_interface, self.out_interface) = (in_interface, out_interface);
            let fate = program.entry(hook).map_or(Fate::Accepted, |chain| self.table(program, chain));
            if fate != Fate::Accepted {
                return fate;
            }
        }
        Fate::Accepted
    }

    /// Untracked packets are not translated.
    fn translate(&mut self) {
        if let Some(to) = self.packet.dnat.filter(|_| self.conntrack != ConnectionState::Untracked) {
            self.destination = to;
            self.address_bits[1] = bits(to.0);
        }
    }

    /// Runs a table from one of the kernel's chains on.
    fn table(&mut self, program: &'a Program, entry: usize) -> Fate {
        self.stack.clear();
        let (mut chain, mut rule) = (entry, 0);
        loop {
            let rules = &program.chains[chain].rules;
            let hit = rules[rule..].iter().position(|code| self.matches(code)).map(|offset| rule + offset);
            let verb = match hit {
                Some(index) => {
                    self.note(program, chain, index);
                    rule = index + 1;
                    &rules[index].verb
                }
                None => &Verb::Return,
            };
            let looked_up;
            let verb = match verb {
                Verb::Lookup { key, map } => {
                    looked_up = self.look_up(key, &program.maps[*map]);
                    &looked_up
                }
                verb => verb,
            };
            match verb {
                Verb::Continue | Verb::Lookup { .. } => {}
                Verb::WriteMark { value, mask } => self.mark = self.mark & !mask | value,
                Verb::NoTrack => self.conntrack = ConnectionState::Untracked,
                Verb::Accept => return Fate::Accepted,
                Verb::Drop => return Fate::Dropped,
                Verb::Reject => return Fate::Rejected,
                Verb::Return => match self.stack.pop() {
                    Some(back) => (chain, rule) = back,
                    None => return Fate::Accepted,
                },
                Verb::Jump(to) => {
                    self.stack.push((chain, rule));
                    (chain, rule) = (*to, 0);
                }
                Verb::Goto(to) => (chain, rule) = (*to, 0),
            }
        }
    }

    /// What a map says of the packet. A key that cannot be read is not looked up.
    fn look_up(&self, key: &[KeyField], map: &MapCode) -> Verb {
        let interface = |name: Option<&str>| Some(map.exact(&Key::Interface(name?.into())));
        let has_ports = WITH_PORTS.contains(&self.packet.protocol);
        let port = self.destination.1.filter(|_| has_ports);
        let protocol = self.packet.protocol;
        let found = match key {
            [KeyField::InInterface] => interface(self.in_interface),
            [KeyField::OutInterface] => interface(self.out_interface),
            [KeyField::Address(side)] => {
                let exact = map.exact(&Key::Address(self.address_of(*side)));
                Some(exact.or_else(|| map.range(self.bits_of(*side))))
            }
            [KeyField::DestinationPort] => port.map(|port| map.range(port.into())),
            [KeyField::Protocol, KeyField::DestinationPort] => {
                port.map(|port| map.exact(&Key::ProtocolPort(protocol, port)))
            }
            [KeyField::Address(side), KeyField::Protocol, KeyField::DestinationPort] => {
                port.map(|port| map.exact(&Key::AddressProtocolPort(self.address_of(*side), protocol, port)))
            }
            _ => None,
        };
        match found.flatten() {
            None => Verb::Continue,
            Some(Target::Accept) => Verb::Accept,
            Some(Target::Drop) => Verb::Drop,
            Some(Target::Return) => Verb::Return,
            Some(Target::Jump(chain)) => Verb::Jump(chain),
            Some(Target::Goto(chain)) => Verb::Goto(chain),
        }
    }

    fn address_of(&self, side: Side) -> std::net::IpAddr {
        match side {
            Side::Source => self.packet.source,
            Side::Destination => self.destination.0,
        }
    }

    fn note(&mut self, program: &Program, chain: usize, index: usize) {
        if let Some(steps) = &mut self.steps {
            let code = &program.chains[chain];
            let action = code.rules[index].action.clone();
            steps.push(Step { table: program.table, chain: code.name.clone(), index, action });
        }
    }

    fn matches(&self, rule: &RuleCode) -> bool {
        rule.tests.iter().all(|test| self.holds(test))
    }

    fn holds(&self, test: &Test) -> bool {
        match test {
            Test::MarkClear(bits) => self.mark & bits == 0,
            Test::MarkAnySet(bits) => self.mark & bits != 0,
            Test::Mark { value, mask, negate } => (self.mark & mask == *value) != *negate,
            Test::InInterface(name) => name.fits(self.in_interface),
            Test::OutInterface(name) => name.fits(self.out_interface),
            Test::ReversePathFails => !self.packet.reverse_path_is_good,
            Test::Conntrack { states, negate } => states.iter().any(|s| self.is_state(*s)) != *negate,
            Test::Protocol { number, negate } => (self.packet.protocol == *number) != *negate,
            Test::Net { side, bits, length, negate } => {
                (masked(self.bits_of(*side), *length) == *bits) != *negate
            }
            // From where a packet comes and where it goes says whether it is the host's own.
            Test::Local(Side::Source) => self.packet.in_interface.is_none(),
            Test::Local(Side::Destination) => self.packet.out_interface.is_none(),
            Test::AddressSet { side, set, negate } => {
                self.machine.sets[*set].has_address(self.bits_of(*side)) != *negate
            }
            Test::PortSet { side, set, negate } => self.is_in_port_set(*side, *set) != *negate,
            Test::Ports { side, ports, negate } => self
                .port_of(*side)
                .is_some_and(|port| ports.iter().any(|r| r.first() <= port && port <= r.last()) != *negate),
            Test::Icmp { icmp_type, code, negate } => self.packet.icmp.is_some_and(|(have, have_code)| {
                (have == *icmp_type && code.is_none_or(|code| code == have_code)) != *negate
            }),
            Test::Always => true,
            Test::Never => false,
        }
    }

    fn bits_of(&self, side: Side) -> u128 {
        match side {
            Side::Source => self.address_bits[0],
            Side::Destination => self.address_bits[1],
        }
    }

    fn port_of(&self, side: Side) -> Option<u16> {
        match side {
            Side::Source => self.packet.source_port,
            Side::Destination => self.destination.1,
        }
    }

    /// The kernel takes type and code for the port of an ICMP message; what has neither is in no such set.
    fn is_in_port_set(&self, side: Side, set: usize) -> bool {
        let address = self.address_of(side);
        let icmp = self.packet.icmp.map(|(icmp_type, code)| u16::from_be_bytes([icmp_type, code]));
        self.port_of(side)
            .or(icmp)
            .is_some_and(|port| self.machine.sets[set].has_port(address, self.packet.protocol, port))
    }

    fn is_state(&self, state: ConntrackState) -> bool {
        match state {
            ConntrackState::New => self.conntrack == ConnectionState::New,
            ConntrackState::Related => self.conntrack == ConnectionState::Related,
            ConntrackState::Established => self.conntrack == ConnectionState::Established,
            ConntrackState::Invalid => self.conntrack == ConnectionState::Invalid,
            ConntrackState::Dnat => {
                self.packet.dnat.is_some() && self.conntrack != ConnectionState::Untracked
            }
        }
    }
}
