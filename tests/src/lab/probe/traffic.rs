//! Kinds of traffic, as the policy cases write them.

use std::fmt;
use std::str::FromStr;

use crate::lab::LabError;

/// A kind of traffic. As text: `TCP/80`, `UDP/53;sport=5000`, `SCTP/80`, `ICMP;code=0;type=8`, `ICMPv6;type=128`,
/// and the number of an IP protocol without ports, `253`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// TCP to a port, from any or a given source port.
    Tcp {
        /// Destination port.
        port: u16,
        /// Source port; `None` takes a fresh one.
        source_port: Option<u16>,
    },
    /// UDP to a port, from any or a given source port.
    Udp {
        /// Destination port.
        port: u16,
        /// Source port; `None` takes a fresh one.
        source_port: Option<u16>,
    },
    /// An SCTP INIT to a port, from any or a given source port.
    Sctp {
        /// Destination port.
        port: u16,
        /// Source port; `None` takes a fresh one.
        source_port: Option<u16>,
    },
    /// ICMP over IPv4: a request, as connection tracking calls an error without a connection invalid.
    Icmp {
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
    /// ICMPv6: a request.
    Icmpv6 {
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
    /// A packet of an IP protocol without ports.
    Ip {
        /// The protocol's number.
        protocol: u8,
    },
}

impl Traffic {
    /// TCP to `port`.
    pub fn tcp(port: u16) -> Self {
        Self::Tcp { port, source_port: None }
    }

    /// UDP to `port`.
    pub fn udp(port: u16) -> Self {
        Self::Udp { port, source_port: None }
    }

    /// SCTP to `port`.
    pub fn sctp(port: u16) -> Self {
        Self::Sctp { port, source_port: None }
    }

    /// An ICMP echo request.
    pub fn ping() -> Self {
        Self::Icmp { kind: 8, code: 0 }
    }

    /// An ICMPv6 echo request.
    pub fn ping6() -> Self {
        Self::Icmpv6 { kind: 128, code: 0 }
    }

    /// Whether two probes of this kind between the same hosts may look like one connection to the kernel.
    pub(super) fn reuses_flows(self) -> bool {
        match self {
            Self::Tcp { source_port, .. }
            | Self::Udp { source_port, .. }
            | Self::Sctp { source_port, .. } => source_port.is_some(),
            Self::Icmp { .. } | Self::Icmpv6 { .. } => false, // each has an identifier of its own
            Self::Ip { .. } => true,
        }
    }

    /// The IP protocol's number (IANA).
    pub fn protocol(self) -> u8 {
        match self {
            Self::Icmp { .. } => 1,
            Self::Tcp { .. } => 6,
            Self::Udp { .. } => 17,
            Self::Icmpv6 { .. } => 58,
            Self::Sctp { .. } => 132,
            Self::Ip { protocol } => protocol,
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_ports = |f: &mut fmt::Formatter<'_>, name, port, source: Option<u16>| match source {
            Some(source) => write!(f, "{name}/{port};sport={source}"),
            None => write!(f, "{name}/{port}"),
        };
        match *self {
            Self::Tcp { port, source_port } => with_ports(f, "TCP", port, source_port),
            Self::Udp { port, source_port } => with_ports(f, "UDP", port, source_port),
            Self::Sctp { port, source_port } => with_ports(f, "SCTP", port, source_port),
            Self::Icmp { kind, code } => write!(f, "ICMP;code={code};type={kind}"),
            Self::Icmpv6 { kind, code } => write!(f, "ICMPv6;code={code};type={kind}"),
            Self::Ip { protocol } => write!(f, "{protocol}"),
        }
    }
}

impl FromStr for Traffic {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        parse(text).map_err(|reason| LabError::BadTraffic { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Traffic, &'static str> {
    let mut parts = text.split(';');
    let head = parts.next().unwrap_or_default();
    let (mut kind, mut code, mut source_port) = (None, 0, None);
    for part in parts {
        match part.split_once('=') {
            Some(("type", n)) => kind = Some(n.parse().map_err(|_| "type is no number below 256")?),
            Some(("code", n)) => code = n.parse().map_err(|_| "code is no number below 256")?,
            Some(("sport", n)) => source_port = Some(n.parse().map_err(|_| "sport is no port number")?),
            _ => return Err("after ; only type=, code= and sport= are known"),
        }
    }
    let (name, port) = match head.split_once('/') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| "the port is no port number")?)),
        None => (head, None),
    };
    match (name, port) {
        ("TCP", Some(port)) => Ok(Traffic::Tcp { port, source_port }),
        ("UDP", Some(port)) => Ok(Traffic::Udp { port, source_port }),
        ("SCTP", Some(port)) => Ok(Traffic::Sctp { port, source_port }),
        ("ICMP", None) => Ok(Traffic::Icmp { kind: kind.unwrap_or(8), code }),
        ("ICMPv6", None) => Ok(Traffic::Icmpv6 { kind: kind.unwrap_or(128), code }),
        ("TCP" | "UDP" | "SCTP", None) => Err("it has no port"),
        (number, None) => {
            number.parse().map(|protocol| Traffic::Ip { protocol }).map_err(|_| "the protocol is unknown")
        }
        _ => Err("this protocol has no ports"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_reads_back_as_it_prints() {
        for text in
            ["TCP/80", "UDP/53;sport=5000", "SCTP/80", "ICMP;code=0;type=8", "ICMPv6;code=0;type=128", "253"]
        {
            assert_eq!(text.parse::<Traffic>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_no_traffic_is_refused() {
        for text in ["TCP", "TCP/99999", "GRE", "253/80", "UDP/53;dport=1", "256", ""] {
            assert!(text.parse::<Traffic>().is_err(), "{text}");
        }
    }
}
