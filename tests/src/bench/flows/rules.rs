//! The kinds of rules that are compared.

use std::fmt;

use super::policies::Ports;

/// The least that a stateful policy can do.
const FLOOR: &str = "table ip floor {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        accept
    }
}
";

/// What outgoing NAT, kube-proxy and many others have as well.
const NAT: &str = "table ip floor {
    chain before { type nat hook prerouting priority dstnat; policy accept; }
    chain after { type nat hook postrouting priority srcnat; policy accept; }
}
";

/// What is on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rules {
    /// Nothing.
    None,
    /// Connection tracking, and two rules.
    Conntrack,
    /// The same, and the kernel's readiness to translate addresses.
    Nat,
    /// Chains of iptables' legacy back end.
    Legacy,
    /// Chains of its nft back end.
    IptablesNft,
    /// Nftables mode, layout `Chains`.
    Chains,
    /// Nftables mode, layout `Tables`.
    Tables,
    /// The same, where all policies are for the same ports.
    TablesAlike,
}

impl Rules {
    /// Those that do not depend on policies.
    pub(super) const FLOORS: [Self; 3] = [Self::None, Self::Conntrack, Self::Nat];
    /// Those of an agent.
    pub(super) const OURS: [Self; 5] =
        [Self::Legacy, Self::IptablesNft, Self::Chains, Self::Tables, Self::TablesAlike];

    /// The kind of ports that the policies are for.
    pub(super) fn ports(self) -> Ports {
        if self == Self::TablesAlike { Ports::Alike } else { Ports::Own }
    }

    /// What stands where no agent was, in nft's words.
    pub(super) fn floor(self) -> String {
        let parts: &[&str] = match self {
            Self::Conntrack => &[FLOOR],
            Self::Nat => &[FLOOR, NAT],
            _ => &[],
        };
        parts.concat()
    }

    /// The agent's settings.
    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::None | Self::Conntrack | Self::Nat => &[],
            Self::Legacy => &[("FELIX_NFTABLESMODE", "Disabled"), ("FELIX_IPTABLESBACKEND", "legacy")],
            Self::IptablesNft => &[("FELIX_NFTABLESMODE", "Disabled"), ("FELIX_IPTABLESBACKEND", "nft")],
            Self::Chains => &[("FELIX_NFTABLESMODE", "Enabled"), ("FELIX_NFTABLESLAYOUT", "Chains")],
            Self::Tables | Self::TablesAlike => {
                &[("FELIX_NFTABLESMODE", "Enabled"), ("FELIX_NFTABLESLAYOUT", "Tables")]
            }
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no rules",
            Self::Conntrack => "conntrack only",
            Self::Nat => "conntrack and NAT without a rule",
            Self::Legacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Chains => "nftables mode, chains",
            Self::Tables => "nftables mode, tables",
            Self::TablesAlike => "nftables mode, tables, ports alike",
        })
    }
}
