use super::*;
use std::path::Path;

fn layer(source: &str, values: &[(&str, &str)]) -> Layer {
    let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Layer { source: source.to_owned(), values, ..Layer::default() }
}

#[test]
fn a_higher_layer_counts_more() {
    let variables = [("FELIX_IPTABLESREFRESHINTERVAL", "60"), ("PATH", "/bin"), ("felix_LogPrefix", "env")];
    let environment = from_environment(variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter());
    let text = "# Felix\n[global]\nIptablesRefreshInterval = 70\n\n[other]\nIpsetsRefreshInterval = 20\n";
    let file = from_file(Path::new("f"), text).unwrap();
    let default = layer("default", &[("iptablesRefreshInterval", "1m30s"), ("routeRefreshInterval", "45s")]);
    let (settings, problems) = Settings::resolve([&default, &file, &environment]);
    assert_eq!(problems, []);
    assert_eq!(settings.iptables_refresh, Duration::from_mins(1));
    assert_eq!(settings.ipsets_refresh, Duration::from_secs(20));
    assert_eq!(settings.route_refresh, Duration::from_secs(45));
    assert_eq!(settings.compile.log_prefix, "env");
}

#[test]
fn a_bad_value_is_named_and_the_layer_below_counts() {
    let low = layer("low", &[("chainInsertMode", "Append"), ("logActionRateLimitBurst", "7")]);
    let high = layer("high", &[("ChainInsertMode", "upside"), ("LogActionRateLimit", "10/minute")]);
    let (settings, problems) = Settings::resolve([&low, &high]);
    assert_eq!(settings.compile.insert_mode, tortie_rules::render::InsertMode::Append);
    let limit = settings.compile.log_limit.unwrap();
    assert_eq!((limit.rate.as_str(), limit.burst), ("10/minute", 7));
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["high: ChainInsertMode: \"upside\" is not one of insert, append"]);
}

#[test]
fn values_have_felixs_forms() {
    let values = [
        ("iptablesMarkMask", "0xff000"),
        ("natPortRange", "1000:2000"),
        ("natOutgoingAddress", "10.0.0.1"),
        ("interfacePrefix", "cali,tap"),
        ("ipv6Support", "f"),
        ("iptablesBackend", "Legacy"),
        ("defaultEndpointToHostAction", "Accept"),
        ("iptablesPostWriteCheckInterval", "500ms"),
        ("nftablesMode", "Auto"),
        ("ipsetsRefreshInterval", "none"),
    ];
    let (settings, problems) = Settings::resolve([&layer("x", &values)]);
    assert_eq!(problems, []);
    assert_eq!(settings.compile.marks.accept, 0x1000);
    assert_eq!(settings.compile.nat_ports.map(|p| p.to_string()), Some("1000:2000".to_owned()));
    assert_eq!(settings.compile.interface_prefixes, ["cali", "tap"]);
    assert_eq!(settings.compile.versions.len(), 1);
    assert_eq!(settings.iptables_post_write_check, Duration::from_millis(500));
    assert_eq!(settings.ipsets_refresh, Duration::ZERO);
}

#[test]
fn failsafe_ports_that_cannot_be_had_leave_those_below() {
    let low = layer("low", &[("FailsafeInboundHostPorts", "tcp:2222")]);
    let high = layer(
        "high",
        &[("failsafeInboundHostPorts", "tcp:22,sctp:9"), ("failsafeOutboundHostPorts", "none")],
    );
    let (settings, problems) = Settings::resolve([&low, &high]);
    let ports: Vec<u16> = settings.compile.failsafe_inbound.iter().map(|p| p.port).collect();
    assert_eq!((ports.as_slice(), settings.compile.failsafe_outbound.len()), (&[2222][..], 0));
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["high: failsafeInboundHostPorts: sctp:9: a failsafe port is tcp or udp, not \"sctp\""]);
}

#[test]
fn a_line_of_the_file_that_is_none_is_named() {
    let error = from_file(Path::new("/etc/felix.cfg"), "[a]\nLogPrefix: x\n").unwrap_err();
    assert!(error.to_string().starts_with("/etc/felix.cfg:2:"), "{error}");
}

#[test]
fn a_setting_without_effect_is_named() {
    let values =
        [("BPFEnabled", "true"), ("LogPrefx", "x"), ("NFTablesMode", "On"), ("RouteRefreshInterval", "1e19")];
    let (settings, problems) = Settings::resolve([&layer("environment", &values)]);
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "environment: BPFEnabled: has no effect in this release",
            "environment: LogPrefx: has no effect in this release",
            "environment: NFTablesMode: \"On\" is not one of Auto, Disabled, Enabled",
            "environment: RouteRefreshInterval: \"1e19\" is not a duration like 90, 0.5 or 1m30s, of at most a year",
        ]
    );
    assert_eq!(settings, Settings::default());
}

#[test]
fn a_value_that_turns_bad_leaves_what_the_layer_had() {
    let low = layer("low", &[("failsafeInboundHostPorts", "tcp:1")]);
    let good = layer("x", &[("failsafeInboundHostPorts", "tcp:2222"), ("logPrefix", "a")]);
    let bad = || layer("x", &[("failsafeInboundHostPorts", "sctp:22"), ("logPrefix", "b")]);
    let (mut first, mut second) = (bad(), bad());
    first.remember(&good);
    // Also if it stays bad, however often it changes.
    second.remember(&first);
    for turned in [first, second] {
        let (settings, problems) = Settings::resolve([&low, &turned]);
        let ports: Vec<u16> = settings.compile.failsafe_inbound.iter().map(|p| p.port).collect();
        assert_eq!((ports.as_slice(), settings.compile.log_prefix.as_str()), (&[2222][..], "b"));
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["x: failsafeInboundHostPorts: sctp:22: a failsafe port is tcp or udp, not \"sctp\"; \
              \"tcp:2222\" stays in force"]
        );
    }
}

/// The same by the environment and by a `FelixConfiguration`, whose values are JSON.
fn both(environment: &[(&str, &str)], resource: &str) -> Settings {
    let variables = environment.iter().map(|(k, v)| (format!("FELIX_{}", k.to_uppercase()), (*v).to_owned()));
    let (by_environment, problems) = Settings::resolve([&from_environment(variables)]);
    assert_eq!(problems, []);
    let spec = serde_json::from_str(resource).unwrap();
    let (by_resource, problems) = Settings::resolve([&from_resource("default", &spec)]);
    assert_eq!(problems, []);
    assert_eq!(by_environment.compile, by_resource.compile);
    by_resource
}

#[test]
fn options_of_the_network_come_by_environment_and_by_resource() {
    let environment = [
        ("ServiceLoopPrevention", "Reject"),
        ("NATOutgoingExclusions", "IPPoolsAndHostIPs"),
        ("ExternalNodesCIDRList", "192.0.2.0/24,fd00:9::1"),
        ("KubeNodePortRanges", "30000:31000,32000:32767,33333"),
        ("IpInIpEnabled", "true"),
        ("VXLANEnabled", "false"),
        ("IstioAmbientMode", "Enabled"),
        ("IstioDSCPMark", "AF11"),
        ("WireguardHostEncryptionEnabled", "true"),
        ("WireguardInterfaceNameV6", "wg6"),
        ("WireguardListeningPort", "1234"),
        ("MetadataAddr", "10.0.0.9"),
        ("MetadataPort", "9697"),
    ];
    let settings = both(
        &environment,
        r#"{"serviceLoopPrevention": "Reject", "natOutgoingExclusions": "IPPoolsAndHostIPs",
            "externalNodesList": ["192.0.2.0/24", "fd00:9::1"],
            "kubeNodePortRanges": ["30000:31000", "32000:32767", 33333],
            "ipipEnabled": true, "vxlanEnabled": false, "istioAmbientMode": "Enabled", "istioDSCPMark": "AF11",
            "wireguardHostEncryptionEnabled": true, "wireguardInterfaceNameV6": "wg6",
            "wireguardListeningPort": 1234, "metadataAddr": "10.0.0.9", "metadataPort": 9697}"#,
    );
    let compile = settings.compile;
    let ports: Vec<String> = compile.node_ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["30000:31000", "32000:32767", "33333"]);
    assert_eq!((compile.istio_dscp, compile.external_nodes.len()), (Some(10), 2));
    let metadata = compile.openstack.and_then(|o| o.metadata).map(|m| m.to_string());
    assert_eq!(metadata.as_deref(), Some("10.0.0.9:9697"));
    assert_eq!((compile.ipip_enabled, compile.vxlan_enabled), (Some(true), Some(false)));
    assert!(compile.nat_spares_hosts && compile.wireguard_hosts);
}

#[test]
fn what_marks_a_host_of_openstack_is_any_of_four() {
    let is_openstack = |values: &[(&str, &str)]| {
        let (settings, problems) = Settings::resolve([&layer("x", values)]);
        assert_eq!(problems, []);
        settings.compile.openstack.is_some()
    };
    for values in [
        ("ClusterType", "k8s,OpenStack"),
        ("MetadataAddr", "none"),
        ("MetadataPort", "8776"),
        ("InterfacePrefix", "cali,tap"),
    ] {
        assert!(is_openstack(&[values]), "{values:?}");
    }
    assert!(!is_openstack(&[("ClusterType", "k8s,bgp"), ("InterfacePrefix", "tapx")]));
}

#[test]
fn wireguard_takes_a_mark_bit_and_stays_off_without_one() {
    let values = |mask| [("WireguardEnabled", "true"), ("IptablesMarkMask", mask)];
    let (settings, problems) = Settings::resolve([&layer("x", &values("0x3f00"))]);
    assert_eq!((settings.compile.marks.wireguard, problems.len()), (0x2000, 1));
    assert!(problems[0].message.contains("its devices are not in this release"), "{problems:?}");
    let (settings, problems) = Settings::resolve([&layer("x", &values("0x1f00"))]);
    assert!(!settings.compile.has_wireguard());
    assert_eq!((settings.compile.marks.scratch1, settings.compile.marks.endpoint), (0x1000, 0));
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let last = text.last().unwrap();
    assert!(last.contains("IptablesMarkMask: mark mask 0x1f00 has 5 bits, but 6 are needed"), "{last}");
}

#[test]
fn options_of_the_network_that_are_wrong_are_named() {
    let values = [
        ("externalNodesList", "[\"10.0.0.1/8\"]", "10.0.0.1/8"),
        ("flowLogsLocalReporter", "yes", "\"yes\" is not one of Enabled, Disabled"),
        ("istioDSCPMark", "64", "\"64\" is neither from 0 to 63 nor a class like AF11"),
        ("kubeNodePortRanges", "[\"30000-32767\"]", "\"30000-32767\" is not a port range"),
        ("metadataAddr", "fd00::1", "\"fd00::1\" is not an IPv4 address"),
        ("natOutgoingExclusions", "All", "\"All\" is not one of IPPoolsOnly, IPPoolsAndHostIPs"),
        ("serviceLoopPrevention", "Off", "\"Off\" is not one of Drop, Reject, Disabled"),
        ("wireguardInterfaceName", "a b", "\"a b\" is no interface name"),
        ("wireguardListeningPort", "70000", "\"70000\" is not a port"),
    ];
    for (name, value, message) in values {
        let (settings, problems) = Settings::resolve([&layer("x", &[(name, value)])]);
        assert_eq!(settings, Settings::default(), "{name}");
        assert_eq!((problems.len(), problems[0].name.as_str()), (1, name));
        assert!(problems[0].message.contains(message), "{name}: {}", problems[0].message);
    }
}

#[test]
fn flow_logs_make_rules_and_say_that_nobody_listens() {
    for values in [("FlowLogsLocalReporter", "Enabled"), ("FlowLogsGoldmaneServer", "goldmane:7443")] {
        let (settings, problems) = Settings::resolve([&layer("x", &[values])]);
        assert!(settings.compile.flow_logs);
        assert!(problems[0].message.contains("nothing reports them in this release"), "{problems:?}");
    }
    let (settings, problems) = Settings::resolve([&layer("x", &[("FlowLogsGoldmaneServer", "none")])]);
    assert_eq!((settings.compile.flow_logs, problems), (false, Vec::new()));
}

#[test]
fn metrics_are_served_where_felix_serves_them_and_only_when_asked_for() {
    assert_eq!(Settings::default().metrics_address(), None);
    let on = layer("low", &[("prometheusMetricsEnabled", "true")]);
    let (settings, problems) = Settings::resolve([&on]);
    assert_eq!((settings.metrics_address(), problems), (Some((String::new(), 9091)), Vec::new()));
    let high = layer("high", &[("PrometheusMetricsHost", "127.0.0.1"), ("PrometheusMetricsPort", "70000")]);
    let (settings, problems) = Settings::resolve([&on, &high]);
    assert_eq!(settings.metrics_address(), Some(("127.0.0.1".to_owned(), 9091)));
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["high: PrometheusMetricsPort: \"70000\" is not a port"]);
}

#[test]
fn who_asks_for_metrics_over_tls_gets_none_without_it() {
    let on = layer("low", &[("prometheusMetricsEnabled", "true"), ("prometheusMetricsCertFile", "/c.pem")]);
    let (settings, problems) = Settings::resolve([&on]);
    assert_eq!(settings.metrics_address(), None);
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["low: prometheusMetricsCertFile: TLS is not in this release: no metrics are served"]);
    let values = [("PrometheusMetricsCertFile", "none"), ("PrometheusMetricsClientAuth", "NoClientCert")];
    let (settings, problems) = Settings::resolve([&on, &layer("high", &values)]);
    assert!(settings.metrics_address().is_some());
    assert_eq!(problems.len(), 1, "of the lower layer: {problems:?}");
    let auth =
        [("PrometheusMetricsClientAuth", "RequireAnyClientCert"), ("PrometheusMetricsEnabled", "true")];
    assert_eq!(Settings::resolve([&layer("x", &auth)]).0.metrics_address(), None);
}

#[test]
fn instant_revocation_takes_a_bit_of_the_mask_in_nftables_mode_where_there_is_one() {
    let setting = ("nftablesInstantRevocation", "Enabled");
    let (settings, problems) = Settings::resolve([&layer("x", &[setting])]);
    assert_eq!((problems.as_slice(), settings.compile.marks.known), (&[][..], 0));
    let (native, problem) = settings.for_nftables();
    assert_eq!((native.compile.marks.known, problem), (0x20_0000, None));
    let five = ("nftablesMarkMask", "0x1f0000");
    let (native, problem) = Settings::resolve([&layer("x", &[setting, five])]).0.for_nftables();
    let words =
        "mark mask 0x1f0000 has 5 bits, but 6 are needed with NftablesInstantRevocation, which stays off";
    assert_eq!((native.compile.marks.known, problem.as_deref()), (0, Some(words)));
    let six = [setting, ("nftablesMarkMask", "0x3f0000"), ("wireguardEnabled", "true")];
    let (native, problem) = Settings::resolve([&layer("x", &six)]).0.for_nftables();
    let words =
        "mark mask 0x3f0000 has 6 bits, but 7 are needed with NftablesInstantRevocation, which stays off";
    assert_eq!((native.compile.marks.wireguard, problem.as_deref()), (0x20_0000, Some(words)));
    let (off, problem) = Settings::default().for_nftables();
    assert_eq!((off.compile.marks.known, problem), (0, None));
}
