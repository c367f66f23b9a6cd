//! One rule with any of its fields.

use serde_json::{Map, Value, json};
use tortie_api::net::IpVersion;

use super::dice::Dice;
use super::words;

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_ingress: bool,
    /// Rules of global policies must name the namespaces of services; those of profiles have none.
    pub(super) services: Services,
}

/// Whether and how a rule may name services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Services {
    None,
    WithNamespace,
    Any,
}

pub(super) fn rules(dice: &mut Dice, place: Place) -> Vec<Value> {
    let count = *dice.pick(&[0, 1, 1, 2, 2, 3, 5]);
    dice.list(count, |d| rule(d, place))
}

fn rule(dice: &mut Dice, place: Place) -> Value {
    let mut rule = Map::new();
    let mut put = |key: &str, value: Value| rule.insert(key.to_owned(), value);
    let action = dice.weighed(&[(9, "Allow"), (6, "Deny"), (4, "Pass"), (2, "Log")]);
    put("action", json!(action));
    let protocol = protocol(dice);
    let mut version = dice.chance(45).then(|| words::version(dice));
    match protocol {
        Protocol::Any => {}
        Protocol::WithPorts(ref value) | Protocol::Other(ref value) => {
            put("protocol", value.clone());
        }
        Protocol::Icmp(ref value, of) => {
            put("protocol", value.clone());
            // By number ICMP is of no version, but its types are.
            version = Some(of);
            if dice.chance(60) {
                let field = if dice.chance(50) { "icmp" } else { "notICMP" };
                put(field, icmp(dice));
            }
        }
    }
    if dice.chance(8) {
        put("notProtocol", json!(*dice.pick(&["TCP", "UDP", "SCTP", "UDPLite"])));
    }
    if let Some(version) = version.filter(|_| dice.chance(20)) {
        put("ipVersion", json!(version));
    }
    let has_ports = match protocol {
        Protocol::WithPorts(_) => Ports::All,
        Protocol::Any => Ports::Named,
        Protocol::Icmp(..) | Protocol::Other(_) => Ports::None,
    };
    for side in ["source", "destination"] {
        if dice.chance(65) {
            // A service stands for the other side only.
            let services =
                if (side == "source") == place.is_ingress { place.services } else { Services::None };
            put(side, entity(dice, version, has_ports, services));
        }
    }
    let is_tcp = matches!(&protocol, Protocol::WithPorts(value) if value == "TCP");
    if place.is_ingress && action == "Allow" && is_tcp && dice.chance(3) {
        put("http", json!({"methods": ["GET"]}));
    }
    if dice.chance(3) {
        put("metadata", json!({"annotations": {"why": "chance"}}));
    }
    Value::Object(rule)
}

/// What a rule says of the protocol.
enum Protocol {
    Any,
    WithPorts(Value),
    Icmp(Value, IpVersion),
    Other(Value),
}

/// Which ports a rule may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    None,
    Named,
    All,
}

fn protocol(dice: &mut Dice) -> Protocol {
    match dice.below(20) {
        0..=4 => Protocol::Any,
        5..=11 => Protocol::WithPorts(json!(words::port_protocol(dice))),
        12 | 13 => Protocol::WithPorts(json!(*dice.pick(&[6, 17, 132]))),
        14 => Protocol::Icmp(json!("ICMP"), IpVersion::V4),
        15 => Protocol::Icmp(json!("ICMPv6"), IpVersion::V6),
        16 => Protocol::Icmp(json!(1), IpVersion::V4),
        17 => Protocol::Icmp(json!(58), IpVersion::V6),
        18 => Protocol::Other(json!("UDPLite")),
        _ => Protocol::Other(json!(*dice.pick(&[4, 47, 136, 253]))),
    }
}

fn icmp(dice: &mut Dice) -> Value {
    let icmp_type = *dice.pick(&[0, 8, 128, 129, 135, 254]);
    if dice.chance(50) {
        json!({"type": icmp_type, "code": dice.below(3)})
    } else {
        json!({"type": icmp_type})
    }
}

fn entity(dice: &mut Dice, version: Option<IpVersion>, ports: Ports, services: Services) -> Value {
    let mut entity = Map::new();
    let mut put = |key: &str, value: Value| entity.insert(key.to_owned(), value);
    let is_service = services != Services::None && dice.chance(15);
    let is_destination_service = is_service;
    if is_service {
        let name = *dice.pick(&words::SERVICES);
        let namespace =
            (services == Services::WithNamespace || dice.chance(50)).then(|| *dice.pick(&words::NAMESPACES));
        put(
            "services",
            match namespace {
                Some(namespace) => json!({"name": name, "namespace": namespace}),
                None => json!({"name": name}),
            },
        );
    } else {
        selection(dice, &mut put);
        if let Some(version) = version {
            nets(dice, version, &mut put);
        }
    }
    if !is_destination_service && ports != Ports::None {
        for (key, chance) in [("ports", 45), ("notPorts", 12)] {
            if dice.chance(chance) {
                put(key, json!(port_list(dice, ports)));
            }
        }
    }
    Value::Object(entity)
}

fn selection(dice: &mut Dice, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    if dice.chance(40) {
        put("selector", json!(words::selector(dice)));
    }
    if dice.chance(12) {
        put("notSelector", json!(words::selector(dice)));
    }
    if dice.chance(18) {
        let selector = match dice.below(5) {
            0 => "all()".to_owned(),
            1 => "global()".to_owned(),
            2 => format!("projectcalico.org/name == '{}'", dice.pick(&words::NAMESPACES)),
            _ => words::selector(dice),
        };
        put("namespaceSelector", json!(selector));
    }
    if dice.chance(12) {
        let mut accounts = Map::new();
        if dice.chance(60) {
            accounts.insert("names".to_owned(), json!([dice.pick(&words::ACCOUNTS), "default"]));
        }
        if dice.chance(50) {
            accounts.insert("selector".to_owned(), json!(words::selector(dice)));
        }
        put("serviceAccounts", Value::Object(accounts));
    }
}

fn nets(dice: &mut Dice, version: IpVersion, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    let some = |dice: &mut Dice, may_be_everything| {
        let count = *dice.pick(&[1, 1, 2, 3]);
        json!(dice.list(count, |d| words::net(d, version, may_be_everything).to_string()))
    };
    if dice.chance(40) {
        put("nets", some(dice, true));
    }
    if dice.chance(25) {
        put("notNets", some(dice, false));
    }
}

/// A few ports; at times more than one match of the kernel takes.
fn port_list(dice: &mut Dice, ports: Ports) -> Vec<Value> {
    if ports == Ports::Named {
        let count = dice.within(1, 2);
        return dice.list(count, |d| json!(d.pick(&words::PORT_NAMES)));
    }
    let count = *dice.pick(&[1, 1, 2, 3, 9, 16, 24]);
    dice.list(count, |d| match d.below(10) {
        0 | 1 => json!(d.pick(&words::PORT_NAMES)),
        2..=4 => {
            let first = words::port(d);
            let last = first.saturating_add(u16::try_from(d.below(4)).unwrap_or(0));
            json!(format!("{first}:{last}"))
        }
        5 => json!(d.below(2000)),
        _ => json!(words::port(d)),
    })
}
