//! One view of the rules of all cluster-wide policies of Kubernetes, for what treats them alike.

use super::{
    AdminAction, AdminEgressRule, AdminIngressRule, AdminPort, ClusterAction, ClusterEgressRule,
    ClusterIngressRule, ClusterPeer, ClusterProtocol,
};
use crate::policy::{Action, PolicyType};

/// A rule of any of the kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterRule<'a> {
    pub(crate) direction: PolicyType,
    pub(crate) name: &'a str,
    pub(crate) action: Action,
    pub(crate) peers: &'a [ClusterPeer],
    pub(crate) ports: RulePorts<'a>,
}

/// What a rule says of protocols and ports.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RulePorts<'a> {
    /// `protocols` of v1alpha2.
    Protocols(Option<&'a [ClusterProtocol]>),
    /// `ports` of v1alpha1.
    Ports(Option<&'a [AdminPort]>),
}

impl RulePorts<'_> {
    /// Whether a port is given by its name.
    pub(crate) fn has_named(self) -> bool {
        match self {
            Self::Protocols(list) => {
                list.is_some_and(|l| l.iter().any(|p| p.destination_named_port.is_some()))
            }
            Self::Ports(list) => list.is_some_and(|l| l.iter().any(|p| p.named_port.is_some())),
        }
    }
}

impl ClusterRule<'_> {
    /// The field that the peers stand in.
    pub(crate) fn peers_field(&self) -> &'static str {
        match self.direction {
            PolicyType::Ingress => "from",
            PolicyType::Egress => "to",
        }
    }
}

impl From<ClusterAction> for Action {
    fn from(action: ClusterAction) -> Self {
        match action {
            ClusterAction::Accept => Self::Allow,
            ClusterAction::Deny => Self::Deny,
            ClusterAction::Pass => Self::Pass,
        }
    }
}

impl From<AdminAction> for Action {
    fn from(action: AdminAction) -> Self {
        match action {
            AdminAction::Allow => Self::Allow,
            AdminAction::Deny => Self::Deny,
            AdminAction::Pass => Self::Pass,
        }
    }
}

/// Each kind of rule names its list of peers and its list of ports its own way; all else is the same.
macro_rules! view {
    ($rule:ty, $direction:ident, $peers:ident, $kind:ident($ports:ident)) => {
        impl<'a> From<&'a $rule> for ClusterRule<'a> {
            fn from(rule: &'a $rule) -> Self {
                Self {
                    direction: PolicyType::$direction,
                    name: &rule.name,
                    action: rule.action.into(),
                    peers: &rule.$peers,
                    ports: RulePorts::$kind(rule.$ports.as_deref()),
                }
            }
        }
    };
}

view!(ClusterIngressRule, Ingress, from, Protocols(protocols));
view!(ClusterEgressRule, Egress, to, Protocols(protocols));
view!(AdminIngressRule, Ingress, from, Ports(ports));
view!(AdminEgressRule, Egress, to, Ports(ports));
