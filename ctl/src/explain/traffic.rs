//! `PROTO/PORT`.

use tortie_api::net::{IpVersion, Protocol};
use tortie_rules::eval::{Flow, Party};

/// ICMP's protocol number.
const ICMP: u8 = 1;
/// ICMPv6's protocol number.
const ICMP_V6: u8 = 58;
/// Type of an echo request of ICMP, and of ICMPv6.
const ECHO: (u8, u8) = (8, 128);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// A protocol with ports.
    Ports { protocol: u8, from: u16, to: u16 },
    /// ICMP of the version that is used; an echo request if no type is given.
    Icmp { version: Option<IpVersion>, icmp_type: Option<u8>, code: u8 },
    /// Another protocol.
    Number(u8),
}

impl Traffic {
    /// Reads `tcp/80`, `icmp/8/0`, `47`.
    pub(super) fn parse(text: &str, source_port: u16) -> Result<Self, String> {
        let mut parts = text.split('/');
        let protocol = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        let protocol: Protocol = protocol.parse().map_err(|error| format!("{text}: {error}"))?;
        let number = |part: &str, what: &str| {
            part.parse::<u8>().map_err(|_| format!("{text}: {part:?} is no {what}: use 0 to 255"))
        };
        match (protocol.number(), &rest[..]) {
            (protocol, [port]) if Protocol::Number(protocol).has_ports() => {
                let to = port.parse().map_err(|_| format!("{text}: {port:?} is no port: use 0 to 65535"))?;
                Ok(Self::Ports { protocol, from: source_port, to })
            }
            (ICMP | ICMP_V6, parts @ ([] | [_] | [_, _])) => {
                // `icmp` is said of both versions.
                let version = (protocol.number() == ICMP_V6).then_some(IpVersion::V6);
                let icmp_type = parts.first().map(|part| number(part, "ICMP type")).transpose()?;
                let code = parts.get(1).map(|part| number(part, "ICMP code")).transpose()?;
                Ok(Self::Icmp { version, icmp_type, code: code.unwrap_or_default() })
            }
            (with_ports, _) if Protocol::Number(with_ports).has_ports() => {
                let name = protocol.to_string().to_ascii_lowercase();
                Err(format!("{text}: {protocol} needs a port: {name}/80"))
            }
            (other, []) => Ok(Self::Number(other)),
            _ => Err(format!("{text} is not understood: use tcp/80, udp/53, sctp/9, icmp, icmp/8/0 or 47")),
        }
    }

    /// The version that it can only be of.
    pub(super) fn version(self) -> Option<IpVersion> {
        match self {
            Self::Icmp { version, .. } => version,
            Self::Ports { .. } | Self::Number(_) => None,
        }
    }

    /// Whether it would be something else over the other version.
    pub(super) fn is_of_one_version(self) -> bool {
        matches!(self, Self::Icmp { version: Some(_), .. } | Self::Icmp { icmp_type: Some(_), .. })
    }

    /// Its first packet.
    pub(super) fn flow(self, source: Party, destination: Party) -> Flow {
        match self {
            Self::Ports { protocol, from, to } => Flow::with_ports(source, destination, protocol, from, to),
            Self::Icmp { icmp_type, code, .. } => {
                let echo = if source.address.is_ipv4() { ECHO.0 } else { ECHO.1 };
                Flow::icmp(source, destination, icmp_type.unwrap_or(echo), code)
            }
            Self::Number(protocol) => Flow::of_protocol(source, destination, protocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Traffic, String> {
        Traffic::parse(text, 1000)
    }

    #[test]
    fn protocols_come_with_what_they_have() {
        assert_eq!(parse("tcp/80"), Ok(Traffic::Ports { protocol: 6, from: 1000, to: 80 }));
        assert_eq!(parse("17/53"), Ok(Traffic::Ports { protocol: 17, from: 1000, to: 53 }));
        assert_eq!(parse("icmp"), Ok(Traffic::Icmp { version: None, icmp_type: None, code: 0 }));
        let unreachable = Traffic::Icmp { version: Some(IpVersion::V6), icmp_type: Some(1), code: 4 };
        assert_eq!(parse("ICMPv6/1/4"), Ok(unreachable));
        assert_eq!((parse("47"), parse("udplite")), (Ok(Traffic::Number(47)), Ok(Traffic::Number(136))));
    }

    #[test]
    fn what_is_missing_or_too_much_is_told() {
        for (text, told) in [
            ("tcp", "tcp: TCP needs a port: tcp/80"),
            ("tcp/http", "tcp/http: \"http\" is no port: use 0 to 65535"),
            ("tcp/80/90", "tcp/80/90: TCP needs a port: tcp/80"),
            ("icmp/300", "icmp/300: \"300\" is no ICMP type: use 0 to 255"),
            ("47/1", "47/1 is not understood: use tcp/80, udp/53, sctp/9, icmp, icmp/8/0 or 47"),
        ] {
            assert_eq!(parse(text), Err(told.to_owned()));
        }
        assert!(parse("http/80").unwrap_err().starts_with("http/80: \"http\" is no protocol"));
    }
}
