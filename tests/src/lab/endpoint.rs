//! Names and addresses of what is in the lab.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use sha1::{Digest, Sha1};

use super::LabError;

/// Something that sends and receives: `NAMESPACE/POD`, `node:NAME` (a process in the node's own namespace) or
/// `ext:NAME` (a host outside the cluster), as it is written and printed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A node.
    Node(String),
    /// A host outside the cluster.
    External(String),
}

impl Endpoint {
    /// The pod `namespace`/`name`.
    pub fn pod(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Pod { namespace: namespace.into(), name: name.into() }
    }
}

impl FromStr for Endpoint {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let known = if let Some(name) = text.strip_prefix("node:") {
            Some(Self::Node(name.to_owned()))
        } else if let Some(name) = text.strip_prefix("ext:") {
            Some(Self::External(name.to_owned()))
        } else {
            text.split_once('/')
                .filter(|(space, pod)| !space.is_empty() && !pod.is_empty())
                .map(|(s, p)| Self::pod(s, p))
        };
        known.ok_or_else(|| LabError::BadEndpoint(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => f.pad(&format!("{namespace}/{name}")),
            Self::Node(name) => f.pad(&format!("node:{name}")),
            Self::External(name) => f.pad(&format!("ext:{name}")),
        }
    }
}

/// The name of a pod's interface on its node, as Calico derives it: `cali` and the first 11 hexadecimal digits of
/// the SHA-1 of `NAMESPACE.POD`.
pub fn host_interface(namespace: &str, pod: &str) -> String {
    let digest = Sha1::digest(format!("{namespace}.{pod}"));
    let first = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("cali{:011x}", first >> (64 - 11 * 4))
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// At most one address of each family; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// The address of one family.
    pub fn get(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// All addresses, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.get(Family::V4).into_iter().chain(self.get(Family::V6))
    }
}

impl From<IpAddr> for Addresses {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self { v4: Some(v4), v6: None },
            IpAddr::V6(v6) => Self { v4: None, v6: Some(v6) },
        }
    }
}

impl From<(Ipv4Addr, Ipv6Addr)> for Addresses {
    fn from((v4, v6): (Ipv4Addr, Ipv6Addr)) -> Self {
        Self { v4: Some(v4), v6: Some(v6) }
    }
}

/// One address, or two separated by a comma: `10.65.1.2` or `10.65.1.2,fd00::a41:102`.
impl TryFrom<&str> for Addresses {
    type Error = LabError;

    fn try_from(text: &str) -> Result<Self, LabError> {
        let mut all = Self { v4: None, v6: None };
        for part in text.split(',') {
            match part.trim().parse() {
                Ok(IpAddr::V4(ip)) => all.v4 = Some(ip),
                Ok(IpAddr::V6(ip)) => all.v6 = Some(ip),
                Err(_) => return Err(LabError::BadAddress(part.to_owned())),
            }
        }
        Ok(all)
    }
}

impl From<std::convert::Infallible> for LabError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_back_as_they_print() {
        for text in ["shop/frontend", "node:node-1", "ext:outside"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert!("frontend".parse::<Endpoint>().is_err());
        assert!("/frontend".parse::<Endpoint>().is_err());
    }

    #[test]
    fn host_interfaces_are_named_as_calico_names_them() {
        // printf shop.frontend | sha1sum
        assert_eq!(host_interface("shop", "frontend"), "cali1f52436dff8");
        assert_eq!(host_interface("shop", "frontend").len(), 15);
    }

    #[test]
    fn an_endpoint_may_have_an_address_of_each_family() {
        let both = Addresses::try_from("10.65.1.2,fd00::a41:102").unwrap();
        assert_eq!(both.iter().count(), 2);
        assert!(Addresses::try_from("10.65.1").is_err());
    }
}
