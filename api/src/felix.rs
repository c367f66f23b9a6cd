//! `FelixConfiguration` of `projectcalico.org/v3`: settings of the agent.
//!
//! Only the names of the fields are checked here; the agent's configuration layer knows what the values mean.

use std::collections::BTreeMap;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Specification of a `FelixConfiguration`: the settings that are given, by field name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct FelixConfigurationSpec {
    /// Values as written, by field name. Fields without a value (null) are left out.
    pub settings: BTreeMap<String, Value>,
}

/// Names of the fields that exist, beside those of [`FAMILIES`].
const NAMES: &[&str] = &[
    // Dataplane in general.
    "cgroupV2Path",
    "chainInsertMode",
    "creationGracePeriod",
    "dataplaneDriver",
    "dataplaneWatchdogTimeout",
    "defaultEndpointToHostAction",
    "featureDetectOverride",
    "featureGates",
    "floatingIPs",
    "goGCThreshold",
    "goMaxProcs",
    "goMemoryLimitMB",
    "interfaceExclude",
    "interfacePrefix",
    "interfaceRefreshInterval",
    "ipForwarding",
    "ipv6Support",
    "netlinkTimeout",
    "sidecarAccelerationEnabled",
    "useInternalDataplaneDriver",
    "workloadSourceSpoofing",
    // iptables.
    "disableConntrackInvalidCheck",
    "ipsetsRefreshInterval",
    "iptablesBackend",
    "iptablesFilterAllowAction",
    "iptablesFilterDenyAction",
    "iptablesLockFilePath",
    "iptablesLockProbeInterval",
    "iptablesLockTimeout",
    "iptablesMangleAllowAction",
    "iptablesMarkMask",
    "iptablesNATOutgoingInterfaceFilter",
    "iptablesPostWriteCheckInterval",
    "iptablesRefreshInterval",
    "maxIpsetSize",
    // nftables; the one about revocation is ours.
    "nftablesFilterAllowAction",
    "nftablesFilterDenyAction",
    "nftablesFlowTableDataIfacePattern",
    "nftablesFlowTableOffload",
    "nftablesInstantRevocation",
    "nftablesMangleAllowAction",
    "nftablesMarkMask",
    "nftablesMode",
    "nftablesRefreshInterval",
    // Routes.
    "awsSrcDstCheck",
    "deviceRouteProtocol",
    "deviceRouteSourceAddress",
    "deviceRouteSourceAddressIPv6",
    "externalNodesList",
    "ipv4ElevatedRoutePriority",
    "ipv4NormalRoutePriority",
    "ipv6ElevatedRoutePriority",
    "ipv6NormalRoutePriority",
    "liveMigrationRouteConvergenceTime",
    "localSubnetL2Reachability",
    "localSubnetL2ReachabilityRefreshInterval",
    "programClusterRoutes",
    "removeExternalRoutes",
    "routeRefreshInterval",
    "routeSource",
    "routeSyncDisabled",
    "routeTableRange",
    "routeTableRanges",
    "serviceLoopPrevention",
    // Encapsulation and MTU.
    "allowIPIPPacketsFromWorkloads",
    "allowVXLANPacketsFromWorkloads",
    "ipipEnabled",
    "ipipMTU",
    "mtuIfacePattern",
    "requireMTUFile",
    "vxlanEnabled",
    "vxlanMTU",
    "vxlanMTUV6",
    "vxlanPort",
    "vxlanVNI",
    // NAT.
    "kubeNodePortRanges",
    "natOutgoingAddress",
    "natOutgoingExclusions",
    "natPortRange",
    // Failsafe ports and logs.
    "failsafeInboundHostPorts",
    "failsafeOutboundHostPorts",
    "logActionRateLimit",
    "logActionRateLimitBurst",
    "logDebugFilenameRegex",
    "logFilePath",
    "logPrefix",
    "logSeverityFile",
    "logSeverityScreen",
    "logSeveritySys",
    // Health and metrics.
    "healthEnabled",
    "healthHost",
    "healthPort",
    "healthTimeoutOverrides",
    "prometheusGoMetricsEnabled",
    "prometheusMetricsCAFile",
    "prometheusMetricsCertFile",
    "prometheusMetricsClientAuth",
    "prometheusMetricsEnabled",
    "prometheusMetricsHost",
    "prometheusMetricsKeyFile",
    "prometheusMetricsPort",
    "prometheusProcessMetricsEnabled",
    "prometheusWireGuardMetricsEnabled",
    "reportingInterval",
    "reportingTTL",
    "usageReportingEnabled",
    "usageReportingInitialDelay",
    "usageReportingInterval",
    // Endpoint status.
    "endpointReportingDelay",
    "endpointReportingEnabled",
    "endpointStatusPathPrefix",
    "policySyncPathPrefix",
    // WireGuard.
    "wireguardEnabled",
    "wireguardEnabledV6",
    "wireguardHostEncryptionEnabled",
    "wireguardInterfaceName",
    "wireguardInterfaceNameV6",
    "wireguardKeepAlive",
    "wireguardListeningPort",
    "wireguardListeningPortV6",
    "wireguardMTU",
    "wireguardMTUV6",
    "wireguardRoutingRulePriority",
    "wireguardThreadingEnabled",
    // Flow logs.
    "flowLogsCollectorDebugTrace",
    "flowLogsFlushInterval",
    "flowLogsGoldmaneServer",
    "flowLogsLocalReporter",
    "flowLogsPolicyEvaluationMode",
    // The rest.
    "genericXDPEnabled",
    "istioAmbientMode",
    "istioDSCPMark",
    "metadataAddr",
    "metadataPort",
    "openstackRegion",
    "windowsManageFirewallRules",
    "xdpEnabled",
    "xdpRefreshInterval",
];

/// Beginnings of the names of whole families of fields that are accepted and not used: the eBPF dataplane
/// and debugging aids. An upper-case letter must follow.
const FAMILIES: [&str; 2] = ["bpf", "debug"];

/// Whether `FelixConfiguration` has a field of this name.
pub fn is_field(name: &str) -> bool {
    NAMES.contains(&name) || FAMILIES.iter().any(|family| is_of_family(name, family))
}

fn is_of_family(name: &str, family: &str) -> bool {
    let rest = name.strip_prefix(family).unwrap_or_default();
    rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The name of a field that exists. Checked while the key is read, so that errors carry its path.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct FieldName(String);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if is_field(&name) { Ok(Self(name)) } else { Err(D::Error::custom(unknown_field(&name))) }
    }
}

/// Names the field that differs only in case, if there is one.
fn unknown_field(name: &str) -> String {
    match NAMES.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        Some(known) => format!("unknown field `{name}`; did you mean `{known}`?"),
        None => format!("unknown field `{name}`"),
    }
}

impl<'de> Deserialize<'de> for FelixConfigurationSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = FelixConfigurationSpec;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut settings = BTreeMap::new();
        while let Some((FieldName(name), value)) = map.next_entry::<FieldName, Value>()? {
            if !value.is_null() {
                settings.insert(name, value);
            }
        }
        Ok(FelixConfigurationSpec { settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<FelixConfigurationSpec, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn values_are_kept_as_written_and_nulls_are_left_out() {
        let spec =
            read(r#"{"iptablesMarkMask": 4294901760, "natPortRange": "1000:2000", "healthPort": null}"#);
        let settings = spec.unwrap().settings;
        assert_eq!(settings.len(), 2);
        assert_eq!(settings["iptablesMarkMask"], Value::from(4_294_901_760_u32));
    }

    #[test]
    fn fields_of_the_other_dataplane_are_accepted() {
        assert!(is_field("bpfEnabled") && is_field("debugSimulateCalcGraphHangAfter"));
        assert!(!is_field("bpf") && !is_field("bpfx") && !is_field("debug_x"));
    }

    #[test]
    fn a_name_in_the_wrong_case_is_refused_with_the_right_one() {
        let error = read(r#"{"IptablesMarkMask": 1}"#).unwrap_err().to_string();
        assert!(error.contains("did you mean `iptablesMarkMask`?"), "{error}");
    }
}
