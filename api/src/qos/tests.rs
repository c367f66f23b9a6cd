use serde_json::json;

use super::*;

fn read(controls: &Value) -> (Qos, Vec<String>) {
    let controls = serde_json::from_value(controls.clone()).expect("a map");
    let (qos, errors) = Qos::read(&controls);
    (qos, errors.iter().map(ToString::to_string).collect())
}

const fn rate(per_second: u32, burst: u32) -> PacketRate {
    PacketRate { per_second, burst }
}

#[test]
fn numbers_and_texts_are_both_read() {
    let (numbers, errors) = read(&json!({
        "ingressPacketRate": 1000, "ingressPacketBurst": 7, "egressPacketRate": 500,
        "ingressMaxConnections": 100, "egressMaxConnections": 4_294_967_295_u32, "dscp": 46,
    }));
    assert_eq!(errors, [] as [String; 0]);
    assert_eq!(
        (numbers.ingress.packet_rate, numbers.egress.packet_rate),
        (Some(rate(1000, 7)), Some(rate(500, 5)))
    );
    assert_eq!(numbers.ingress.max_connections, NonZeroU32::new(100));
    let (texts, errors) = read(&json!({
        "ingressPacketRate": "1k", "ingressPacketBurst": "7", "egressPacketRate": "0.5k",
        "ingressMaxConnections": "100", "egressMaxConnections": "4294967295", "dscp": "ef",
    }));
    assert_eq!(errors, [] as [String; 0]);
    assert_eq!(numbers, texts);
}

#[test]
fn nothing_is_limited_by_zero_and_a_burst_of_zero_is_the_default() {
    let zeros = json!({"ingressPacketRate": 0, "ingressPacketBurst": 0, "egressMaxConnections": 0, "egressBandwidth": 0});
    assert_eq!(read(&zeros), (Qos::default(), Vec::new()));
    let (qos, errors) = read(&json!({"ingressPacketRate": 10, "ingressPacketBurst": 0, "dscp": 0}));
    assert_eq!((qos.ingress.packet_rate, qos.dscp), (Some(rate(10, 5)), Some(0)));
    assert_eq!(errors, [] as [String; 0]);
}

#[test]
fn what_is_out_of_range_is_brought_into_it_and_told() {
    let (qos, errors) = read(&json!({
        "ingressPacketRate": 20_000, "ingressPacketBurst": "20k", "egressPacketRate": -3,
        "egressMaxConnections": 5_000_000_000_u64,
    }));
    assert_eq!(
        (qos.ingress.packet_rate, qos.egress.packet_rate),
        (Some(rate(10_000, 10_000)), Some(rate(1, 5)))
    );
    assert_eq!(qos.egress.max_connections, NonZeroU32::new(u32::MAX));
    assert_eq!(
        errors,
        [
            "ingressPacketRate: 20000 is not from 1 to 10000; it is 10000",
            "ingressPacketBurst: 20000 is not from 1 to 10000; it is 10000",
            "egressPacketRate: -3 is not from 1 to 10000; it is 1",
            "egressMaxConnections: 5000000000 is not from 1 to 4294967295; it is 4294967295",
        ]
    );
}

#[test]
fn what_cannot_be_used_is_told_and_leaves_the_rest() {
    let (qos, errors) = read(&json!({
        "ingressPacketRate": "many", "ingressMaxConnections": 1.5, "egressPacketBurst": 3, "dscp": "AF99",
        "egressBandwidth": "10M", "ingresPacketRate": 5, "egressMaxConnections": 9,
    }));
    let limits = Limits { max_connections: NonZeroU32::new(9), ..Limits::default() };
    assert_eq!(qos, Qos { egress: limits, ..Qos::default() });
    assert_eq!(
        errors,
        [
            "ingressPacketRate: \"many\" is no quantity like 100 or 1k; there is no limit",
            "ingressMaxConnections: 1.5 is no quantity like 100 or 1k; there is no limit",
            "egressPacketBurst: has no effect without egressPacketRate",
            "dscp: \"AF99\" is neither from 0 to 63 nor a class like AF11; nothing is marked",
            "egressBandwidth: bandwidth is not limited by this release",
            "ingresPacketRate: there is no such control",
        ]
    );
}

#[test]
fn a_dscp_value_is_at_most_63() {
    for (value, dscp) in [(json!(63), Some(63)), (json!("63"), Some(63)), (json!("cs6"), Some(48))] {
        assert_eq!(read(&json!({"dscp": value})), (Qos { dscp, ..Qos::default() }, Vec::new()));
    }
    for value in [json!(64), json!("64"), json!(-1), json!(1.5), json!(""), json!([1])] {
        let (qos, errors) = read(&json!({"dscp": value}));
        assert_eq!((qos.dscp, errors.len()), (None, 1), "{value}");
    }
}

#[test]
fn calicos_annotations_count_more_than_those_of_kubernetes() {
    let annotations = [
        ("kubernetes.io/ingress-bandwidth", "1M"),
        ("qos.projectcalico.org/ingressBandwidth", "2M"),
        ("qos.projectcalico.org/dscp", "20"),
        ("qos.projectcalico.org/other", "20"),
        ("other/dscp", "20"),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let controls = of_annotations(&annotations);
    assert_eq!(serde_json::to_value(controls).unwrap(), json!({"dscp": "20", "ingressBandwidth": "2M"}));
}
