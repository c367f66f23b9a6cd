//! The vocabulary: few words, so that they meet each other often.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use tortie_api::net::IpVersion;

use super::dice::Dice;

/// Names of namespaces.
pub(super) const NAMESPACES: [&str; 3] = ["blue", "default", "red"];
/// Names of policies; that of two kinds or namespaces may be the same.
pub(super) const POLICIES: [&str; 5] = ["a", "a-b", "b", "default.a", "z"];
/// Names of service accounts beside `default`.
pub(super) const ACCOUNTS: [&str; 2] = ["robot", "ghost"];
/// Names of services.
pub(super) const SERVICES: [&str; 2] = ["front", "back"];
/// Names of ports.
pub(super) const PORT_NAMES: [&str; 3] = ["http", "dns", "any.thing"];
/// Tiers beside the built-in ones; the last never exists.
pub(super) const TIERS: [&str; 3] = ["early", "late", "nowhere"];
/// Profiles that may be written down.
pub(super) const PROFILES: [&str; 2] = ["extra", "wild"];

const KEYS: [&str; 3] = ["app", "env", "x"];
const VALUES: [&str; 4] = ["web", "db", "", "we"];

/// Labels of an object.
pub(super) fn labels(dice: &mut Dice) -> Map<String, Value> {
    let count = dice.below(4);
    dice.list(count, |d| ((*d.pick(&KEYS)).to_owned(), json!(d.pick(&VALUES)))).into_iter().collect()
}

/// A selector over labels.
pub(super) fn selector(dice: &mut Dice) -> String {
    match dice.below(12) {
        0 => "all()".to_owned(),
        1 | 2 => format!("({}) && {}", test(dice), test(dice)),
        3 | 4 => format!("{} || {}", test(dice), test(dice)),
        5 => format!("!({})", test(dice)),
        _ => test(dice),
    }
}

fn test(dice: &mut Dice) -> String {
    let key = *dice.pick(&KEYS);
    let value = *dice.pick(&VALUES);
    match dice.below(10) {
        0 => format!("has({key})"),
        1 => format!("!has({key})"),
        2 => format!("{key} in {{'{value}', 'db'}}"),
        3 => format!("{key} not in {{'{value}'}}"),
        4 => format!("{key} != '{value}'"),
        5 => format!("{key} starts with '{value}'"),
        6 => format!("projectcalico.org/namespace == '{}'", dice.pick(&NAMESPACES)),
        _ => format!("{key} == '{value}'"),
    }
}

/// A label selector of Kubernetes.
pub(super) fn label_selector(dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => json!({}),
        1 => {
            let operator = *dice.pick(&["Exists", "DoesNotExist"]);
            json!({"matchExpressions": [{"key": dice.pick(&KEYS), "operator": operator}]})
        }
        2 => {
            let operator = *dice.pick(&["In", "NotIn"]);
            let key = *dice.pick(&KEYS);
            json!({"matchExpressions": [{"key": key, "operator": operator, "values": [dice.pick(&VALUES), "db"]}]})
        }
        _ => {
            let mut labels = labels(dice);
            labels.insert("app".to_owned(), json!(dice.pick(&VALUES)));
            json!({"matchLabels": labels})
        }
    }
}

/// A protocol with ports.
pub(super) fn port_protocol(dice: &mut Dice) -> &'static str {
    dice.weighed(&[(6, "TCP"), (3, "UDP"), (1, "SCTP")])
}

/// A port that others use as well.
pub(super) fn port(dice: &mut Dice) -> u16 {
    *dice.pick(&[53, 80, 81, 443, 1000, 1001, 4789, 8080, 65535, 0])
}

/// Whether a port can be listened on.
pub(super) fn real_port(dice: &mut Dice) -> u16 {
    port(dice).max(1)
}

/// An address of the small range that pods live in.
pub(super) fn pod_address(dice: &mut Dice, version: IpVersion) -> IpAddr {
    let last = u8::try_from(dice.within(1, 24)).unwrap_or(1);
    match version {
        IpVersion::V4 => Ipv4Addr::new(10, 65, 0, last).into(),
        IpVersion::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)).into(),
    }
}

/// An address of anybody.
pub(super) fn address(dice: &mut Dice, version: IpVersion) -> IpAddr {
    if dice.chance(70) {
        return pod_address(dice, version);
    }
    match version {
        IpVersion::V4 => (*dice.pick(&[
            Ipv4Addr::new(10, 65, 1, 0),
            Ipv4Addr::new(172, 16, 0, 1),
            Ipv4Addr::new(192, 0, 2, 255),
            Ipv4Addr::new(8, 8, 8, 8),
            Ipv4Addr::new(255, 255, 255, 254),
        ]))
        .into(),
        IpVersion::V6 => (*dice.pick(&[
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 0),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0xffff, 0, 0, 0),
        ]))
        .into(),
    }
}

/// A network around such an address; a whole family only if asked for.
pub(super) fn net(dice: &mut Dice, version: IpVersion, may_be_everything: bool) -> IpNet {
    let lengths: [u8; 8] = match version {
        IpVersion::V4 => [32, 32, 31, 30, 28, 24, 16, 1],
        IpVersion::V6 => [128, 128, 127, 126, 124, 64, 48, 1],
    };
    let length = if may_be_everything && dice.chance(4) { 0 } else { *dice.pick(&lengths) };
    let address = address(dice, version);
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// An IP version; mostly the older.
pub(super) fn version(dice: &mut Dice) -> IpVersion {
    if dice.chance(60) { IpVersion::V4 } else { IpVersion::V6 }
}
