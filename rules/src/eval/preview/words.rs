//! The preview in sentences. Here is all the wording, and no decision.

use std::fmt::{self, Display, Formatter};

use tortie_api::policy::PolicyType;

use super::super::explain::Verdict;
use super::super::words::List;
use super::{
    Change, EndpointChange, FieldChange, ListChange, ListedPolicy, ObjectChange, Peer, PolicyChange, Preview,
    RuleAt, RuleChange, Span, Traffic, VerdictChange,
};

/// The API of Calico's own kinds.
const CALICO_API: &str = "projectcalico.org/v3";

impl Preview {
    /// Whether nothing at all changes.
    pub const fn is_empty(&self) -> bool {
        self.objects.is_empty()
            && self.policies.is_empty()
            && self.endpoints.is_empty()
            && self.verdicts.is_empty()
            && self.pairs_left_out == 0
    }

    /// Whether the same is said of a policy in force.
    fn is_told_as_policy(&self, object: &ObjectChange) -> bool {
        let is_calico = object.api_version == CALICO_API;
        self.policies.iter().any(|PolicyChange { policy, .. }| {
            let kind = if is_calico { policy.kind } else { policy.kind.trim_start_matches("Kubernetes") };
            kind == object.kind && policy.namespace == object.namespace && policy.name == object.name
        })
    }
}

impl Display for Preview {
    /// One part after the other, over several lines without an end of line.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("Nothing changes.");
        }
        let objects = self.objects.iter().filter(|object| !self.is_told_as_policy(object));
        part(f, "Objects", &objects.collect::<Vec<_>>())?;
        part(f, "Policies in force", &self.policies)?;
        part(f, "Endpoints", &self.endpoints)?;
        part(f, "Traffic", &self.verdicts)?;
        if self.verdicts.is_empty() {
            f.write_str("No traffic becomes allowed or denied")?;
            f.write_str(if self.pairs_left_out == 0 { "." } else { " as far as was looked." })?;
        }
        match self.pairs_left_out {
            0 => Ok(()),
            count => write!(f, "\n{count} pairs of groups of endpoints were not looked at: too many."),
        }
    }
}

fn part<T: Display>(f: &mut Formatter<'_>, title: &str, entries: &[T]) -> fmt::Result {
    if entries.is_empty() {
        return Ok(());
    }
    f.write_str(title)?;
    f.write_str(":")?;
    entries.iter().try_for_each(|entry| write!(f, "\n  {entry}"))?;
    // Traffic is the last part.
    f.write_str(if title == "Traffic" { "" } else { "\n" })
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "comes",
            Self::Removed => "goes",
            Self::Changed => "changes",
        })
    }
}

impl Display for ObjectChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{} ({}) {}", self.name, self.api_version, self.change)?;
        self.fields.iter().try_for_each(|field| write!(f, "\n    {field}"))
    }
}

impl Display for FieldChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{field}: `{before}` becomes `{after}`"),
            (None, Some(after)) => write!(f, "{field}: `{after}` comes"),
            (Some(before), None) => write!(f, "{field}: `{before}` goes"),
            (None, None) => f.write_str(field),
        }
    }
}

impl Display for PolicyChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} in tier {} {}", self.policy, self.tier, self.change)?;
        self.fields.iter().try_for_each(|field| write!(f, "\n    {field}"))?;
        self.rules.iter().try_for_each(|rule| write!(f, "\n    {rule}"))
    }
}

const fn list_of(direction: PolicyType) -> &'static str {
    match direction {
        PolicyType::Ingress => "ingress",
        PolicyType::Egress => "egress",
    }
}

impl Display for RuleChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = list_of(self.direction);
        match (&self.before, &self.after) {
            (None, Some(RuleAt { index, rule })) => write!(f, "{list}[{index}] comes: {rule}"),
            (Some(RuleAt { index, rule }), None) => write!(f, "{list}[{index}] goes: {rule}"),
            (Some(before), Some(after)) => {
                write!(f, "{list}[{}] changes: {}", after.index, before.rule)?;
                write!(f, "\n      becomes: {}", after.rule)
            }
            (None, None) => f.write_str(list),
        }
    }
}

impl Display for EndpointChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", List(&self.endpoints))?;
        match self.change {
            Change::Changed => f.write_str(":")?,
            change => write!(f, " {change}")?,
        }
        for (list, direction) in [(&self.ingress, "ingress"), (&self.egress, "egress")] {
            if let Some(list) = list {
                list.lines(direction).iter().try_for_each(|line| write!(f, "\n    {line}"))?;
            }
        }
        Ok(())
    }
}

impl ListChange {
    fn lines(&self, direction: &str) -> Vec<String> {
        let line = |word: &str, one: &ListedPolicy| format!("{direction}: {one} {word}");
        let mut lines: Vec<String> = self.begin.iter().map(|one| line("begins to apply", one)).collect();
        lines.extend(self.cease.iter().map(|one| line("ceases to apply", one)));
        if self.is_reordered {
            lines.push(format!("{direction}: the order becomes {}", List(&self.after)));
        }
        lines
    }
}

impl Display for ListedPolicy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} in tier {}", self.policy, self.tier)
    }
}

impl Display for VerdictChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let becomes = match self.becomes {
            Verdict::Allow => "becomes allowed",
            Verdict::Deny => "becomes denied",
        };
        write!(f, "{becomes}: {}", List(&self.traffic))?;
        if let Some(version) = self.ip_version {
            write!(f, ", {version} only")?;
        }
        match self.same_node {
            Some(true) => f.write_str(", if they are on the same node")?,
            Some(false) => f.write_str(", if they are on different nodes")?,
            None => {}
        }
        for (interface, end) in
            [(&self.interfaces.source, "source"), (&self.interfaces.destination, "destination")]
        {
            if let Some(interface) = interface {
                write!(f, ", by interface {interface} of the {end}'s node")?;
            }
        }
        write!(f, "\n    from {}", List(&self.sources))?;
        write!(f, "\n    to {}", List(&self.destinations))
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let address = match self {
            Self::Workload { namespace, name, address } => {
                write!(f, "pod {namespace}/{name}")?;
                address
            }
            Self::Node { node, address } => {
                write!(f, "node {node}")?;
                address
            }
            Self::Outside { nets, except } => return write_outside(f, nets, except),
        };
        address.map_or(Ok(()), |address| write!(f, " ({address})"))
    }
}

fn write_outside(f: &mut Formatter<'_>, nets: &[ipnet::IpNet], except: &[ipnet::IpNet]) -> fmt::Result {
    let is_all = nets.iter().all(|net| net.prefix_len() == 0);
    if is_all {
        f.write_str("addresses outside of the cluster")?;
    } else {
        write!(f, "addresses outside of the cluster in {}", List(nets))?;
    }
    if except.is_empty() { Ok(()) } else { write!(f, " (but not in {})", List(except)) }
}

impl Display for Traffic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.protocol {
            Some(protocol) => protocol.fmt(f)?,
            None if self.not_protocols.is_empty() => f.write_str("everything")?,
            None => write!(f, "every protocol but {}", List(&self.not_protocols))?,
        }
        for (word, spans) in [
            (" type ", &self.icmp_types),
            (" code ", &self.icmp_codes),
            (" from port ", &self.source_ports),
            (" to port ", &self.ports),
        ] {
            if !spans.is_empty() {
                write!(f, "{word}{}", List(spans))?;
            }
        }
        Ok(())
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}
