use super::*;

#[test]
fn protocols_are_named_in_any_case_and_numbered() {
    assert_eq!("tcp".parse(), Ok(Protocol::Tcp));
    assert_eq!("ICMPV6".parse(), Ok(Protocol::IcmpV6));
    assert_eq!("6".parse(), Ok(Protocol::Number(6)));
    assert_eq!(serde_json::from_str::<Protocol>("255").unwrap(), Protocol::Number(255));
    for bad in ["0", "256", "-1", "+6", "", "TCP/UDP"] {
        assert!(bad.parse::<Protocol>().is_err(), "{bad}");
    }
    assert_eq!(serde_json::to_string(&Protocol::UdpLite).unwrap(), "\"UDPLite\"");
    assert_eq!(serde_json::to_string(&Protocol::Number(47)).unwrap(), "47");
}

#[test]
fn ports_are_numbers_ranges_or_names() {
    assert_eq!("80".parse(), Ok(Port::Range(PortRange::single(80))));
    assert_eq!("0:65535".parse::<Port>().unwrap().to_string(), "0:65535");
    assert_eq!("http-alt_1.x".parse(), Ok(Port::Named("http-alt_1.x".into())));
    assert_eq!(serde_json::from_str::<Port>("\"80:80\"").unwrap(), Port::Range(PortRange::single(80)));
    assert_eq!("65536".parse::<Port>(), Err(PortError::OutOfRange("65536".into())));
    assert_eq!("90:80".parse::<Port>(), Err(PortError::UpsideDown("90:80".into())));
    for bad in ["", "80:", ":80", "80:x", "a b", "80-90/tcp", &"a".repeat(129)] {
        assert!(bad.parse::<Port>().is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<Port>("-1").is_err());
    assert!(serde_json::from_str::<Port>("80.5").is_err());
}

#[test]
fn networks_have_no_host_bits() {
    assert_eq!(parse_net("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    assert_eq!(parse_net("fd00::/8").unwrap().to_string(), "fd00::/8");
    assert_eq!(parse_net("0.0.0.0/0").unwrap().to_string(), "0.0.0.0/0");
    assert!(matches!(parse_net("10.0.0.1/8"), Err(NetError::HostBits { .. })));
    for bad in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "fd00::/129", "host", "010.0.0.0/8"] {
        assert!(matches!(parse_net(bad), Err(NetError::NoNet(_))), "{bad}");
    }
}

#[test]
fn networks_that_api_servers_stored_are_masked() {
    assert_eq!(parse_lenient_net("10.65.1.33/24").unwrap().to_string(), "10.65.1.0/24");
    assert_eq!(parse_lenient_net("010.001.000.0/8").unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(parse_lenient_net("fd00::1/64").unwrap().to_string(), "fd00::/64");
    for bad in ["10.0.0.0", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/33", "10..0.0/8", "/8", "x/8"] {
        assert!(parse_lenient_net(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_ip_version_is_4_or_6() {
    assert_eq!(serde_json::from_str::<IpVersion>("6").unwrap(), IpVersion::V6);
    assert!(serde_json::from_str::<IpVersion>("5").is_err());
}

#[test]
fn interface_names_have_at_most_15_characters() {
    assert!(is_interface_name("cali0123456789a") && is_interface_name("eth0.100"));
    assert!(!is_interface_name("") && !is_interface_name("cali0123456789ab") && !is_interface_name("a/b"));
}
