//! `BGPConfiguration` of `projectcalico.org/v3`: what BGP speakers announce, and how.
//!
//! Of its fields only the addresses of services are typed: traffic to those that nobody answers must not go round
//! in circles. Of the others the names are checked, and their values are kept as written.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::net::parse_net;

/// Specification of a `BGPConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BgpConfigurationSpec {
    /// Cluster addresses of services.
    #[serde(rename = "serviceClusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_cluster_ips: Vec<ServiceBlock>,
    /// External addresses of services.
    #[serde(rename = "serviceExternalIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_external_ips: Vec<ServiceBlock>,
    /// Addresses of load balancers.
    #[serde(rename = "serviceLoadBalancerIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_load_balancer_ips: Vec<ServiceBlock>,
    /// The other fields by name, as written.
    #[serde(flatten)]
    pub settings: BTreeMap<String, Value>,
}

impl BgpConfigurationSpec {
    /// All addresses of services, in the order of the lists.
    pub fn service_nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        let lists = [&self.service_cluster_ips, &self.service_external_ips, &self.service_load_balancer_ips];
        lists.into_iter().flatten().map(|block| block.cidr)
    }
}

/// A block of addresses of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceBlock {
    /// The block; an address alone is a block of one.
    #[serde(deserialize_with = "cidr")]
    pub cidr: IpNet,
}

fn cidr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    parse_net(&String::deserialize(deserializer)?).map_err(Error::custom)
}

/// Names of the fields that are kept as written.
const NAMES: &[&str] = &[
    "asNumber",
    "bindMode",
    "communities",
    "ignoredInterfaces",
    "ipv4NormalRoutePriority",
    "ipv6NormalRoutePriority",
    "listenPort",
    "localWorkloadPeeringIPV4",
    "localWorkloadPeeringIPV6",
    "logSeverityScreen",
    "nodeMeshMaxRestartTime",
    "nodeMeshPassword",
    "nodeToNodeMeshEnabled",
    "prefixAdvertisements",
    "programClusterRoutes",
    "serviceLoadBalancerAggregation",
];

impl<'de> Deserialize<'de> for BgpConfigurationSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = BgpConfigurationSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut spec = BgpConfigurationSpec::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "serviceClusterIPs" => spec.service_cluster_ips = blocks(&mut map)?,
                "serviceExternalIPs" => spec.service_external_ips = blocks(&mut map)?,
                "serviceLoadBalancerIPs" => spec.service_load_balancer_ips = blocks(&mut map)?,
                known if NAMES.contains(&known) => {
                    let value = map.next_value::<Value>()?;
                    if !value.is_null() {
                        spec.settings.insert(name, value);
                    }
                }
                _ => return Err(A::Error::custom(format!("unknown field `{name}`"))),
            }
        }
        Ok(spec)
    }
}

fn blocks<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Vec<ServiceBlock>, A::Error> {
    Ok(map.next_value::<Option<Vec<ServiceBlock>>>()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: &Value) -> Result<BgpConfigurationSpec, serde_json::Error> {
        serde_json::from_value(spec.clone())
    }

    #[test]
    fn addresses_of_services_are_read_and_the_rest_is_kept() {
        let written = json!({
            "asNumber": 64512,
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "fd00:96::/108"}],
            "serviceExternalIPs": null,
            "serviceLoadBalancerIPs": [{"cidr": "198.51.100.7/32"}],
        });
        let spec = read(&written).unwrap();
        let nets: Vec<String> = spec.service_nets().map(|net| net.to_string()).collect();
        assert_eq!(nets, ["10.96.0.0/12", "fd00:96::/108", "198.51.100.7/32"]);
        let again = serde_json::to_value(&spec).unwrap();
        assert_eq!((again["asNumber"].clone(), again.get("serviceExternalIPs")), (json!(64512), None));
        assert_eq!(read(&again).unwrap(), spec);
    }

    #[test]
    fn what_is_no_field_or_no_block_is_refused() {
        for (spec, message) in [
            (json!({"serviceClusterIP": []}), "unknown field `serviceClusterIP`"),
            (json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/33"}]}), "10.96.0.0/33"),
            (json!({"serviceClusterIPs": [{"net": "10.96.0.0/12"}]}), "unknown field `net`"),
        ] {
            let error = read(&spec).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
