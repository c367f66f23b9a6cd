//! That clusters are valid, repeatable and varied.

use std::collections::BTreeSet;

use tortie_api::net::IpVersion;

use super::*;
use crate::eval::Cluster;

#[test]
fn every_object_is_valid() {
    for seed in 0..400 {
        for manifest in cluster(seed) {
            if let Err(error) = Resource::from_value(&manifest) {
                panic!("seed {seed}: {error}: {manifest}");
            }
        }
    }
}

#[test]
fn a_seed_says_all() {
    assert_eq!(cluster(7), cluster(7));
    assert_ne!(cluster(7), cluster(8));
    let probes = || {
        let manifests = cluster(7);
        let policy = Cluster::new(resources(&manifests).unwrap());
        let mut probes = Probes::new(1, &policy, Landmarks::of(&manifests));
        (0..20).map(|_| probes.probe(IpVersion::V4)).collect::<Vec<_>>()
    };
    assert_eq!(probes(), probes());
    // Streams must stay what they are, or a seed of a report means nothing any more.
    let mut dice = Dice::new(1);
    assert_eq!([dice.number(), dice.number()], STREAM);
}

const STREAM: [u32; 2] = [2_359_561_649, 1_728_662_762];

#[test]
fn every_field_of_a_rule_occurs() {
    let mut fields = BTreeSet::new();
    let rules = (0..200).flat_map(cluster).flat_map(|m| {
        let list = |key| m.pointer(key).and_then(Value::as_array).cloned().unwrap_or_default();
        [list("/spec/ingress"), list("/spec/egress")].concat()
    });
    for rule in rules {
        let Some(map) = rule.as_object() else { continue };
        fields.extend(map.keys().cloned());
        fields.extend(
            ["source", "destination"]
                .iter()
                .filter_map(|s| map.get(*s)?.as_object())
                .flat_map(|s| s.keys().cloned()),
        );
    }
    for field in [
        "ipVersion",
        "protocol",
        "notProtocol",
        "icmp",
        "notICMP",
        "http",
        "metadata",
        "nets",
        "notNets",
        "ports",
        "notPorts",
        "selector",
        "notSelector",
        "namespaceSelector",
        "serviceAccounts",
        "services",
        "from",
        "to",
    ] {
        assert!(fields.contains(field), "{field}");
    }
}

#[test]
fn landmarks_are_what_is_mentioned_and_its_neighbours() {
    let manifest = serde_json::json!({"spec": {"ingress": [{
        "protocol": "UDPLite",
        "icmp": {"type": 8, "code": 0},
        "source": {"nets": ["10.0.0.0/31"], "ports": ["100:200", 300, "http"]},
    }]}});
    let landmarks = Landmarks::of(&[manifest]);
    let addresses: Vec<String> = landmarks.addresses(IpVersion::V4).iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["9.255.255.255", "10.0.0.0", "10.0.0.1", "10.0.0.2", "203.0.113.77"]);
    for port in [99, 100, 101, 199, 200, 201, 299, 300, 301] {
        assert!(landmarks.ports.contains(&port), "{port}");
    }
    assert!(landmarks.protocols.contains(&136) && landmarks.icmp.contains(&(9, 0)));
}
