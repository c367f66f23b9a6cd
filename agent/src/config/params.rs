//! The settings by name: Felix's names, and for some the other name that they have in a `FelixConfiguration`.

use tortie_api::net::{IpVersion, is_interface_name};
use tortie_dataplane::feature::BackendChoice;
use tortie_rules::compile::Marks;
use tortie_rules::compile::config::{AllowAction, DenyAction, EndpointToHostAction};
use tortie_rules::render::InsertMode;

use super::Settings;
use super::hosts::{Excluded, failsafe_ports};
use super::native;
use super::network;
use super::values::{boolean, duration, is_none, mask, one_of, optional, parse, port_range};

type Set = fn(&mut Settings, &str) -> Result<(), String>;

const ALLOW: &[(&str, AllowAction)] = &[("ACCEPT", AllowAction::Accept), ("RETURN", AllowAction::Return)];
const SECOND: f64 = 1.0;
const MILLISECOND: f64 = 1e-3;

/// Settings that have an effect, by lower-case name.
const PARAMS: &[(&str, Set)] = &[
    ("allowipippacketsfromworkloads", |s, v| put(&mut s.compile.allow_ipip_from_workloads, boolean(v))),
    ("allowvxlanpacketsfromworkloads", |s, v| put(&mut s.compile.allow_vxlan_from_workloads, boolean(v))),
    ("chaininsertmode", |s, v| {
        put(
            &mut s.compile.insert_mode,
            one_of(v, &[("insert", InsertMode::Insert), ("append", InsertMode::Append)]),
        )
    }),
    ("clustertype", network::cluster_type),
    ("defaultendpointtohostaction", endpoint_to_host),
    ("devicerouteprotocol", |s, v| put(&mut s.route_protocol, parse(v, "a number from 0 to 255"))),
    ("deviceroutesourceaddress", |s, v| {
        put(
            &mut s.route_source_v4,
            optional::<std::net::Ipv4Addr>(v, "an IPv4 address").map(|a| a.map(Into::into)),
        )
    }),
    ("deviceroutesourceaddressipv6", |s, v| {
        put(
            &mut s.route_source_v6,
            optional::<std::net::Ipv6Addr>(v, "an IPv6 address").map(|a| a.map(Into::into)),
        )
    }),
    ("disableconntrackinvalidcheck", |s, v| put(&mut s.compile.disable_conntrack_invalid_check, boolean(v))),
    ("externalnodescidrlist", network::external_nodes),
    ("externalnodeslist", network::external_nodes),
    ("failsafeinboundhostports", |s, v| put(&mut s.compile.failsafe_inbound, failsafe_ports(v))),
    ("failsafeoutboundhostports", |s, v| put(&mut s.compile.failsafe_outbound, failsafe_ports(v))),
    ("featuredetectoverride", |s, v| {
        none_as_empty(v).clone_into(&mut s.feature_override);
        Ok(())
    }),
    ("floatingips", |s, v| {
        put(&mut s.compile.floating_ips, one_of(v, &[("Enabled", true), ("Disabled", false)]))
    }),
    ("flowlogsgoldmaneserver", network::flow_server),
    ("flowlogslocalreporter", network::flow_reporter),
    ("healthenabled", |s, v| put(&mut s.health_enabled, boolean(v))),
    ("healthhost", |s, v| {
        none_as_empty(v).clone_into(&mut s.health_host);
        Ok(())
    }),
    ("healthport", |s, v| put(&mut s.health_port, parse(v, "a port"))),
    ("interfaceexclude", |s, v| put(&mut s.excluded_interfaces, Excluded::parse(v))),
    ("interfaceprefix", interface_prefix),
    ("ipforwarding", |s, v| put(&mut s.ip_forwarding, one_of(v, &[("Enabled", true), ("Disabled", false)]))),
    ("ipinipenabled", network::ipip),
    ("ipipenabled", network::ipip),
    ("ipsetsrefreshinterval", |s, v| put(&mut s.ipsets_refresh, duration(v, SECOND))),
    ("iptablesbackend", |s, v| {
        put(&mut s.iptables_backend, v.parse::<BackendChoice>().map_err(|e| e.to_string()))
    }),
    ("iptablesfilterallowaction", |s, v| put(&mut s.compile.filter_allow, one_of(v, ALLOW))),
    ("iptablesfilterdenyaction", |s, v| {
        put(
            &mut s.compile.filter_deny,
            one_of(v, &[("DROP", DenyAction::Drop), ("REJECT", DenyAction::Reject)]),
        )
    }),
    ("iptableslockprobeinterval", |s, v| put(&mut s.iptables_lock_probe, duration(v, MILLISECOND))),
    ("iptableslockprobeintervalmillis", |s, v| put(&mut s.iptables_lock_probe, duration(v, MILLISECOND))),
    ("iptablesmangleallowaction", |s, v| put(&mut s.compile.mangle_allow, one_of(v, ALLOW))),
    ("iptablesmarkmask", |s, v| {
        let mask = mask(v)?;
        s.compile.marks = Marks::from_mask(mask).map_err(|e| e.to_string())?;
        s.derived.mark_mask = mask;
        Ok(())
    }),
    ("iptablesnatoutgoinginterfacefilter", nat_interface),
    ("iptablespostwritecheckinterval", |s, v| put(&mut s.iptables_post_write_check, duration(v, SECOND))),
    ("iptablespostwritecheckintervalsecs", |s, v| put(&mut s.iptables_post_write_check, duration(v, SECOND))),
    ("iptablesrefreshinterval", |s, v| put(&mut s.iptables_refresh, duration(v, SECOND))),
    ("ipv4normalroutepriority", |s, v| put(&mut s.route_metric_v4, metric(v))),
    ("ipv6normalroutepriority", |s, v| put(&mut s.route_metric_v6, metric(v))),
    ("ipv6support", |s, v| {
        let both = boolean(v)?;
        s.compile.versions = if both { IpVersion::BOTH.to_vec() } else { vec![IpVersion::V4] };
        Ok(())
    }),
    ("istioambientmode", network::ambient),
    ("istiodscpmark", network::istio_dscp),
    ("kubenodeportranges", network::node_ports),
    ("logactionratelimit", log_rate),
    ("logactionratelimitburst", log_burst),
    ("logprefix", |s, v| {
        none_as_empty(v).clone_into(&mut s.compile.log_prefix);
        Ok(())
    }),
    ("logseverityscreen", log_level),
    ("maxipsetsize", |s, v| put(&mut s.compile.max_set_size, parse(v, "a number of members"))),
    ("metadataaddr", network::metadata_address),
    ("metadataport", network::metadata_port),
    ("natoutgoingaddress", |s, v| put(&mut s.compile.nat_address, optional(v, "an IPv4 address"))),
    ("natoutgoingexclusions", network::nat_exclusions),
    ("natportrange", |s, v| {
        s.compile.nat_ports = if is_none(v) { None } else { Some(port_range(v)?) };
        Ok(())
    }),
    ("nftablesfilterallowaction", native::filter_allow),
    ("nftablesfilterdenyaction", native::filter_deny),
    ("nftablesflowtabledataifacepattern", native::offload_interfaces),
    ("nftablesflowtableoffload", native::offload),
    ("nftablesinstantrevocation", native::instant_revocation),
    ("nftableslayout", native::layout),
    ("nftablesmangleallowaction", native::mangle_allow),
    ("nftablesmarkmask", native::mark_mask),
    ("nftablesmode", native::mode),
    ("nftablesrefreshinterval", native::refresh),
    ("prometheusmetricscafile", |s, v| network::metrics_tls(s, "prometheusmetricscafile", !is_none(v))),
    ("prometheusmetricscertfile", |s, v| network::metrics_tls(s, "prometheusmetricscertfile", !is_none(v))),
    ("prometheusmetricsclientauth", |s, v| {
        let is_wanted = one_of(v, network::CLIENT_AUTH)?;
        network::metrics_tls(s, "prometheusmetricsclientauth", is_wanted)
    }),
    ("prometheusmetricsenabled", |s, v| put(&mut s.metrics_enabled, boolean(v))),
    ("prometheusmetricshost", |s, v| {
        none_as_empty(v).clone_into(&mut s.metrics_host);
        Ok(())
    }),
    ("prometheusmetricskeyfile", |s, v| network::metrics_tls(s, "prometheusmetricskeyfile", !is_none(v))),
    ("prometheusmetricsport", |s, v| put(&mut s.metrics_port, parse(v, "a port"))),
    ("removeexternalroutes", |s, v| put(&mut s.remove_external_routes, boolean(v))),
    ("routerefreshinterval", |s, v| put(&mut s.route_refresh, duration(v, SECOND))),
    ("routesyncdisabled", |s, v| put(&mut s.route_sync_disabled, boolean(v))),
    ("serviceloopprevention", network::service_loop),
    ("vxlanenabled", network::vxlan),
    ("vxlanport", |s, v| put(&mut s.compile.vxlan_port, parse(v, "a port"))),
    ("wireguardenabled", |s, v| put(&mut s.compile.wireguard_v4.is_enabled, boolean(v))),
    ("wireguardenabledv6", |s, v| put(&mut s.compile.wireguard_v6.is_enabled, boolean(v))),
    ("wireguardhostencryptionenabled", |s, v| put(&mut s.compile.wireguard_hosts, boolean(v))),
    ("wireguardinterfacename", |s, v| put(&mut s.compile.wireguard_v4.interface, network::device_name(v))),
    ("wireguardinterfacenamev6", |s, v| put(&mut s.compile.wireguard_v6.interface, network::device_name(v))),
    ("wireguardlisteningport", |s, v| put(&mut s.compile.wireguard_v4.port, parse(v, "a port"))),
    ("wireguardlisteningportv6", |s, v| put(&mut s.compile.wireguard_v6.port, parse(v, "a port"))),
    ("workloadsourcespoofing", |s, v| {
        put(&mut s.compile.source_spoofing, one_of(v, &[("Any", true), ("Disabled", false)]))
    }),
];

fn put<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}

/// `none` stands for the zero value.
fn none_as_empty(value: &str) -> &str {
    if is_none(value) { "" } else { value }
}

/// Sets what a name stands for. `Ok(false)` if it stands for nothing here.
pub(super) fn apply(settings: &mut Settings, name: &str, value: &str) -> Result<bool, String> {
    let name = name.to_ascii_lowercase();
    match PARAMS.binary_search_by(|(known, _)| (*known).cmp(&name)) {
        Ok(at) => PARAMS[at].1(settings, value).map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Whether a value of a setting can be followed; a setting that stands for nothing here can.
pub(super) fn is_understood(name: &str, value: &str) -> bool {
    apply(&mut Settings::default(), name, value).is_ok()
}

fn metric(text: &str) -> Result<u32, String> {
    let number: u32 = parse(text, "a metric from 1 to 2147483646")?;
    if (1..=2_147_483_646).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{text} is not from 1 to 2147483646"))
    }
}

fn endpoint_to_host(settings: &mut Settings, value: &str) -> Result<(), String> {
    let choices = [
        ("DROP", EndpointToHostAction::Drop),
        ("REJECT", EndpointToHostAction::Reject),
        ("ACCEPT", EndpointToHostAction::Accept),
        ("RETURN", EndpointToHostAction::Return),
    ];
    settings.compile.endpoint_to_host = one_of(value, &choices)?;
    Ok(())
}

fn interface_prefix(settings: &mut Settings, value: &str) -> Result<(), String> {
    let prefixes: Vec<String> =
        value.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect();
    match prefixes.iter().find(|p| !is_interface_name(p)) {
        Some(bad) => Err(format!("{bad:?} cannot begin the name of an interface")),
        None if prefixes.is_empty() => Err("at least one prefix is needed".to_owned()),
        None => {
            settings.compile.interface_prefixes = prefixes;
            Ok(())
        }
    }
}

fn nat_interface(settings: &mut Settings, value: &str) -> Result<(), String> {
    let name = value.trim();
    if !is_none(name) && !is_interface_name(name.trim_end_matches('+')) {
        return Err(format!("{name:?} is no interface name"));
    }
    settings.compile.nat_interface = (!is_none(name)).then(|| name.to_owned());
    Ok(())
}

fn log_rate(settings: &mut Settings, value: &str) -> Result<(), String> {
    if is_none(value) {
        settings.derived.log_rate = None;
        return Ok(());
    }
    let is_rate = value.split_once('/').is_some_and(|(count, unit)| {
        count.parse::<u32>().is_ok_and(|n| (1..=10_000).contains(&n))
            && ["second", "minute", "hour", "day"].contains(&unit)
    });
    if !is_rate {
        return Err(format!(
            "{value:?} is not a rate like 10/minute (1 to 10000 a second, minute, hour or day)"
        ));
    }
    settings.derived.log_rate = Some(value.to_owned());
    Ok(())
}

fn log_burst(settings: &mut Settings, value: &str) -> Result<(), String> {
    let burst: u32 = parse(value, "a number from 0 to 9999")?;
    if burst > 9999 {
        return Err(format!("{burst} is above 9999"));
    }
    settings.derived.log_burst = burst;
    Ok(())
}

fn log_level(settings: &mut Settings, value: &str) -> Result<(), String> {
    use tracing::Level;
    let choices = [
        ("TRACE", Level::TRACE),
        ("DEBUG", Level::DEBUG),
        ("INFO", Level::INFO),
        ("WARNING", Level::WARN),
        ("ERROR", Level::ERROR),
        ("FATAL", Level::ERROR),
    ];
    settings.log_level = one_of(value, &choices)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_so_that_they_are_found() {
        assert!(PARAMS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
