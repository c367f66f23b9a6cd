use super::*;
use std::path::Path;

fn layer(source: &str, values: &[(&str, &str)]) -> Layer {
    let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Layer { source: source.to_owned(), values }
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
    let values = [
        ("BPFEnabled", "true"),
        ("LogPrefx", "x"),
        ("NFTablesMode", "Enabled"),
        ("RouteRefreshInterval", "1e19"),
    ];
    let (settings, problems) = Settings::resolve([&layer("environment", &values)]);
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "environment: BPFEnabled: has no effect in this release",
            "environment: LogPrefx: has no effect in this release",
            "environment: NFTablesMode: this release has iptables mode only, which stays in force",
            "environment: RouteRefreshInterval: \"1e19\" is not a duration like 90, 0.5 or 1m30s, of at most a year",
        ]
    );
    assert_eq!(settings, Settings::default());
}
