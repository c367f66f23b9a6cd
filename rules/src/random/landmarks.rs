//! What manifests mention, and what lies right beside it: where mistakes would show.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use tortie_api::net::{IpVersion, Port, Protocol, parse_net};

/// Addresses, ports, protocols and ICMP types at and around those that manifests mention. Each list is sorted and
/// holds something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landmarks {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<u16>,
    /// Protocol numbers.
    pub protocols: Vec<u8>,
    /// ICMP types and codes.
    pub icmp: Vec<(u8, u8)>,
}

#[derive(Default)]
struct Finder {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
    protocols: BTreeSet<u8>,
    icmp: BTreeSet<(u8, u8)>,
}

impl Landmarks {
    /// Looks through manifests.
    pub fn of(manifests: &[Value]) -> Self {
        let mut finder = Finder::default();
        // Something that nobody mentions.
        finder
            .addresses
            .extend(["203.0.113.77", "2001:db8:77::1"].iter().filter_map(|a| a.parse::<IpAddr>().ok()));
        finder.ports.extend([1, 33333]);
        finder.protocols.extend([1, 4, 6, 17, 47, 58, 132, 136, 253]);
        finder.icmp.insert((8, 0));
        manifests.iter().for_each(|manifest| finder.look("", manifest));
        let (v4, v6) = finder.addresses.into_iter().partition(IpAddr::is_ipv4);
        Self {
            v4,
            v6,
            ports: finder.ports.into_iter().collect(),
            protocols: finder.protocols.into_iter().collect(),
            icmp: finder.icmp.into_iter().collect(),
        }
    }

    /// The addresses of one version.
    pub fn addresses(&self, version: IpVersion) -> &[IpAddr] {
        match version {
            IpVersion::V4 => &self.v4,
            IpVersion::V6 => &self.v6,
        }
    }
}

impl Finder {
    /// `key` is that of the value, or of the list that it is in.
    fn look(&mut self, key: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(icmp_type) = number(map.get("type")) {
                    let code = number(map.get("code")).unwrap_or(0);
                    let types = [icmp_type.saturating_sub(1), icmp_type, icmp_type.saturating_add(1)];
                    self.icmp.extend(types.map(|t| (t, code)));
                    self.icmp.insert((icmp_type, code.saturating_add(1)));
                }
                map.iter().for_each(|(key, value)| self.look(key, value));
            }
            Value::Array(list) => list.iter().for_each(|value| self.look(key, value)),
            Value::String(text) => self.look_at_text(key, text),
            Value::Number(_) if key == "protocol" => self.protocols.extend(number(Some(value))),
            Value::Number(_) if key.to_lowercase().ends_with("port") || key.ends_with("orts") => {
                let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
                port.into_iter().for_each(|port| self.port(port));
            }
            _ => {}
        }
    }

    fn look_at_text(&mut self, key: &str, text: &str) {
        if let Ok(net) = parse_net(text) {
            self.net(net);
        } else if key.ends_with("rotocol") {
            self.protocols.extend(text.parse::<Protocol>().map(Protocol::number));
        } else if key.ends_with("orts")
            && let Ok(Port::Range(range)) = text.parse::<Port>()
        {
            self.port(range.first());
            self.port(range.last());
        }
    }

    fn port(&mut self, port: u16) {
        self.ports.extend([port.saturating_sub(1), port, port.saturating_add(1)]);
    }

    /// The first and the last of a network, and those right outside.
    fn net(&mut self, net: IpNet) {
        for (address, step) in [(net.network(), -1), (net.broadcast(), 1)] {
            self.addresses.insert(address);
            self.addresses.insert(match address {
                IpAddr::V4(address) => address.to_bits().wrapping_add_signed(step).to_be_bytes().into(),
                IpAddr::V6(address) => {
                    address.to_bits().wrapping_add_signed(i128::from(step)).to_be_bytes().into()
                }
            });
        }
    }
}

fn number(value: Option<&Value>) -> Option<u8> {
    value.and_then(Value::as_u64).and_then(|number| u8::try_from(number).ok())
}
