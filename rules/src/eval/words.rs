//! The answer in sentences. Here is all the wording, and no decision.

use std::fmt::{self, Display, Formatter};

use tortie_api::net::Protocol;
use tortie_api::policy::{Action, DefaultAction};

use super::explain::{
    Decision, Explanation, NearMiss, Point, PolicyOutcome, PolicyTrace, ProfileTrace, Stage, StageKind,
    TierTrace, Verdict,
};
use super::flow::{Flow, Party, Place};
use super::term::{Clause, Miss, Side};

impl Display for Explanation {
    /// The verdict, then each stage with its path, over several lines without an end of line.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Allow => "is allowed",
            Verdict::Deny => "is denied",
        };
        write!(f, "{} {verdict}.", self.flow)?;
        if self.stages.is_empty() {
            f.write_str("\nNo policy applies to it.")?;
        }
        self.stages.iter().try_for_each(|stage| write!(f, "\n{stage}"))
    }
}

impl Display for Flow {
    /// `TCP from pod shop/web (10.65.0.2) to 10.65.0.3 port 5432`
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", protocol(self.protocol))?;
        if let Some((icmp_type, code)) = self.icmp {
            write!(f, " type {icmp_type} code {code}")?;
        }
        write!(f, " from {} to {}", self.source, self.destination)?;
        if let Some(port) = self.destination_port {
            write!(f, " port {port}")?;
        }
        match self.before_dnat {
            Some((address, Some(port))) => write!(f, " (sent to {address} port {port})"),
            Some((address, None)) => write!(f, " (sent to {address})"),
            None => Ok(()),
        }
    }
}

impl Display for Party {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match &self.place {
            Place::ByAddress | Place::Outside => write!(f, "{address}"),
            Place::Workload { namespace, name } => write!(f, "pod {namespace}/{name} ({address})"),
            Place::Host { node } => write!(f, "node {node} ({address})"),
        }
    }
}

impl Display for Point {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::Host { name } => write!(f, "host endpoint {name}"),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allowed",
            Self::Deny => "denied",
        })
    }
}

impl StageKind {
    /// The list of a policy that applies.
    const fn list(self) -> &'static str {
        match self {
            Self::WorkloadEgress | Self::UntrackedEgress | Self::HostEgress | Self::ForwardEgress => "egress",
            Self::WorkloadIngress
            | Self::UntrackedIngress
            | Self::PreDnat
            | Self::HostIngress
            | Self::ForwardIngress => "ingress",
        }
    }
}

impl Display for StageKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkloadEgress | Self::HostEgress => "egress",
            Self::WorkloadIngress | Self::HostIngress => "ingress",
            Self::UntrackedIngress => "untracked ingress",
            Self::UntrackedEgress => "untracked egress",
            Self::PreDnat => "ingress before DNAT",
            Self::ForwardIngress => "forwarded ingress",
            Self::ForwardEgress => "forwarded egress",
        })
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = self.kind.list();
        write!(f, "{} of {} on node {}: {}: ", self.kind, self.point, self.node, self.verdict)?;
        WithList(&self.decision, list).fmt(f)?;
        for tier in &self.tiers {
            write!(f, "\n  {}", WithList(tier, list))?;
        }
        self.profiles.iter().try_for_each(|profile| write!(f, "\n  {}", WithList(profile, list)))
    }
}

/// Something that names rules, and the list that they are in: rules are named as in a manifest, `ingress[0]`.
struct WithList<'a, T>(&'a T, &'static str);

impl Display for WithList<'_, Decision> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(decision, list) = self;
        match decision {
            Decision::Rule { tier, policy, index } => {
                write!(f, "by {list}[{index}] of {policy} in tier {tier}")
            }
            Decision::EndOfTier { tier } => {
                write!(f, "policies of tier {tier} apply, and none of their rules matches")
            }
            Decision::Profile { profile, index } => write!(f, "by {list}[{index}] of profile {profile}"),
            Decision::MissingProfile { profile } => write!(f, "profile {profile} does not exist"),
            Decision::NoProfileMatched => f.write_str("no policy and no profile allows it"),
            Decision::NoPolicy => f.write_str("no policy of this kind decides"),
            Decision::Failsafe => f.write_str("a failsafe port"),
            Decision::AllowedBefore => f.write_str("an earlier policy of the host endpoint has allowed it"),
            Decision::FromOwnHost => f.write_str("a host always reaches its own pods"),
            Decision::EndpointToHost => {
                f.write_str("DefaultEndpointToHostAction, for traffic of pods to their own host")
            }
            Decision::NeighbourDiscovery => f.write_str("neighbour discovery with the own host"),
            Decision::Encapsulated => f.write_str("pods may not make tunnel packets"),
        }
    }
}

impl Display for WithList<'_, TierTrace> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(tier, list) = self;
        let end = match tier.default_action {
            DefaultAction::Deny => "denies what is left",
            DefaultAction::Pass => "passes on what is left",
        };
        write!(f, "tier {} ({end}", tier.name)?;
        f.write_str(if tier.exists { ")" } else { "; it does not exist, so it comes last)" })?;
        tier.policies.iter().try_for_each(|policy| write!(f, "\n    {}", WithList(policy, list)))
    }
}

impl Display for WithList<'_, PolicyTrace> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(trace, list) = self;
        write!(f, "{}", trace.policy)?;
        f.write_str(if trace.staged { " (staged, not in force): " } else { ": " })?;
        WithList(&trace.outcome, list).fmt(f)?;
        for index in &trace.logged_by {
            write!(f, "\n      {list}[{index}] logs it")?;
        }
        for NearMiss { index, action, miss } in &trace.near {
            write!(f, "\n      {list}[{index}] ({action:?}) nearly matches: {miss}")?;
        }
        Ok(())
    }
}

impl Display for WithList<'_, ProfileTrace> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(trace, list) = self;
        if trace.exists {
            write!(f, "profile {}: {}", trace.name, WithList(&trace.outcome, list))
        } else {
            write!(f, "profile {}: does not exist, which denies", trace.name)
        }
    }
}

impl Display for WithList<'_, PolicyOutcome> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(outcome, list) = self;
        match outcome {
            PolicyOutcome::Matched { index, action } => {
                let does = match action {
                    Action::Allow => "allows",
                    Action::Deny => "denies",
                    Action::Pass => "passes on",
                    Action::Log => "logs",
                };
                write!(f, "{list}[{index}] {does}")
            }
            PolicyOutcome::NoMatch => f.write_str("no rule matches"),
            PolicyOutcome::NotReached => f.write_str("not reached"),
        }
    }
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

impl Display for Miss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::IpVersion { wanted } => write!(f, "it is for {wanted} only"),
            Self::Http => f.write_str("it asks for HTTP, which cannot be looked into here"),
            Self::Protocol { have, wanted } => {
                write!(f, "protocol {} is not {wanted}", protocol(*have))
            }
            Self::NotProtocol { unwanted } => write!(f, "protocol {unwanted} is excepted"),
            Self::Icmp { have, wanted_type, wanted_code } => match have {
                Some((icmp_type, code)) => {
                    write!(f, "ICMP type {icmp_type} code {code} is not {}", Icmp(*wanted_type, *wanted_code))
                }
                None => f.write_str("it is no ICMP message"),
            },
            Self::NotIcmp { unwanted_type, unwanted_code } => {
                write!(f, "ICMP {} is excepted", Icmp(*unwanted_type, *unwanted_code))
            }
            Self::Nets { side, address, nets } => write!(f, "{side} {address} is not in {}", List(nets)),
            Self::NotNets { side, address, net } => {
                write!(f, "{side} {address} is in {net}, which is excepted")
            }
            Self::Ports { side, have, wanted } => {
                write!(f, "{side} port {} is not in {}", Known(*have), List(wanted))
            }
            Self::NotPorts { side, have, unwanted } => {
                write!(f, "{side} port {} is in {unwanted}, which is excepted", Known(*have))
            }
            Self::Unknown { side, address } => {
                write!(f, "{side} {address} belongs to no endpoint and no network set that could be selected")
            }
            Self::Selection { side, subject, clause } => write!(f, "{side} {subject} {clause}"),
            Self::NotSelector { side, subject, selector } => {
                write!(f, "{side} {subject} is selected by `{selector}`, which is excepted")
            }
            Self::Service { side, address, namespace, name } => {
                write!(f, "{side} {address} is no endpoint of service {namespace}/{name}")?;
                f.write_str(if *side == Side::Destination { " with this port" } else { "" })
            }
        }
    }
}

impl Display for Clause {
    /// Follows the name of what is not selected.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "is not in namespace {name}, the policy's own"),
            Self::NamespaceSelector(text) => write!(f, "is in no namespace that `{text}` selects"),
            Self::Selector(text) => write!(f, "is not selected by `{text}`"),
            Self::NotSelector(text) => write!(f, "is selected by `{text}`, which is excepted"),
            Self::Nodes(text) => write!(f, "is no node that `{text}` selects"),
            Self::ServiceAccountNames(names) => {
                write!(f, "does not run as service account {}", List(names))
            }
            Self::ServiceAccountSelector(text) => {
                write!(f, "runs as no service account that `{text}` selects")
            }
        }
    }
}

/// `TCP`, or the number.
pub(super) fn protocol(number: u8) -> Protocol {
    let named = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::IcmpV6, Protocol::Sctp];
    named.into_iter().find(|p| p.number() == number).unwrap_or(Protocol::Number(number))
}

struct Icmp(u8, Option<u8>);

impl Display for Icmp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "type {}", self.0)?;
        self.1.map_or(Ok(()), |code| write!(f, " code {code}"))
    }
}

struct Known(Option<u16>);

impl Display for Known {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(port) => write!(f, "{port}"),
            None => f.write_str("(none)"),
        }
    }
}

/// Entries with commas between them; of a long list the first few.
pub(super) struct List<'a, T>(pub(super) &'a [T]);

/// How many entries of a list are worth reading.
const SHOWN: usize = 8;

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, entry) in self.0.iter().take(SHOWN).enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            entry.fmt(f)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
