//! What the graph puts out: plain data that a compiler can turn into a ruleset.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::Kind;
use tortie_api::endpoint::IpNat;
use tortie_api::net::{IpVersion, PortRange, Protocol};
use tortie_api::policy::{Action, DefaultAction};
use tortie_api::qos::Qos;

/// The kinds of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Calico's `GlobalNetworkPolicy`.
    GlobalNetworkPolicy,
    /// Kubernetes' `AdminNetworkPolicy`.
    KubernetesAdminNetworkPolicy,
    /// Kubernetes' `BaselineAdminNetworkPolicy`.
    KubernetesBaselineAdminNetworkPolicy,
    /// Kubernetes' `ClusterNetworkPolicy`.
    KubernetesClusterNetworkPolicy,
    /// Kubernetes' `NetworkPolicy`.
    KubernetesNetworkPolicy,
    /// Calico's `NetworkPolicy`.
    NetworkPolicy,
    /// Calico's `StagedGlobalNetworkPolicy`.
    StagedGlobalNetworkPolicy,
    /// Calico's `StagedKubernetesNetworkPolicy`.
    StagedKubernetesNetworkPolicy,
    /// Calico's `StagedNetworkPolicy`.
    StagedNetworkPolicy,
}

impl PolicyKind {
    /// The kind as comments and group ids spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::KubernetesAdminNetworkPolicy => "KubernetesAdminNetworkPolicy",
            Self::KubernetesBaselineAdminNetworkPolicy => "KubernetesBaselineAdminNetworkPolicy",
            Self::KubernetesClusterNetworkPolicy => "KubernetesClusterNetworkPolicy",
            Self::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
        }
    }

    /// The short form in chain names and flow logs.
    pub const fn short(self) -> &'static str {
        match self {
            Self::GlobalNetworkPolicy => "gnp",
            Self::KubernetesAdminNetworkPolicy => "kanp",
            Self::KubernetesBaselineAdminNetworkPolicy => "kbanp",
            Self::KubernetesClusterNetworkPolicy => "kcnp",
            Self::KubernetesNetworkPolicy => "knp",
            Self::NetworkPolicy => "np",
            Self::StagedGlobalNetworkPolicy => "sgnp",
            Self::StagedKubernetesNetworkPolicy => "sknp",
            Self::StagedNetworkPolicy => "snp",
        }
    }
}

/// Which policy. Policies of different kinds may share a name.
///
/// The order is the tie-break between policies of equal order: name, then namespace, then kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyKey {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for a global policy.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl PolicyKey {
    /// `[namespace/]name`.
    pub fn qualified_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_string()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    /// `np/namespace/name`: the suffix of the policy's chain names.
    pub fn id(&self) -> String {
        format!("{}/{}", self.kind.short(), self.qualified_name())
    }

    /// The key of the resource that it comes from.
    pub fn resource_key(&self) -> tortie_api::Key {
        let kind = match self.kind {
            PolicyKind::GlobalNetworkPolicy => Kind::GlobalNetworkPolicy,
            PolicyKind::KubernetesAdminNetworkPolicy => Kind::AdminNetworkPolicy,
            PolicyKind::KubernetesBaselineAdminNetworkPolicy => Kind::BaselineAdminNetworkPolicy,
            PolicyKind::KubernetesClusterNetworkPolicy => Kind::ClusterNetworkPolicy,
            PolicyKind::KubernetesNetworkPolicy => Kind::KubeNetworkPolicy,
            PolicyKind::NetworkPolicy => Kind::NetworkPolicy,
            PolicyKind::StagedGlobalNetworkPolicy => Kind::StagedGlobalNetworkPolicy,
            PolicyKind::StagedKubernetesNetworkPolicy => Kind::StagedKubernetesNetworkPolicy,
            PolicyKind::StagedNetworkPolicy => Kind::StagedNetworkPolicy,
        };
        let namespace = (!self.namespace.is_empty()).then_some(&*self.namespace);
        tortie_api::Key::new(kind, namespace, &*self.name)
    }

    /// `name/namespace/kind`: what equal orders are sorted by, bytewise.
    fn tie_break(&self) -> impl Iterator<Item = u8> + '_ {
        let parts = [&*self.name, "/", &*self.namespace, "/", self.kind.name()];
        parts.into_iter().flat_map(str::bytes)
    }
}

impl Ord for PolicyKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // What follows a text matters only where the other one begins with it.
        let shared = |a: &str, b: &str| {
            let length = a.len().min(b.len());
            a.as_bytes()[..length].cmp(&b.as_bytes()[..length])
        };
        let by_name = shared(&self.name, &other.name);
        if by_name.is_ne() || self.name.len() != other.name.len() {
            return by_name.then_with(|| self.tie_break().cmp(other.tie_break()));
        }
        let by_namespace = shared(&self.namespace, &other.namespace);
        if by_namespace.is_ne() || self.namespace.len() != other.namespace.len() {
            return by_namespace.then_with(|| self.tie_break().cmp(other.tie_break()));
        }
        self.kind.name().cmp(other.kind.name())
    }
}

impl PartialOrd for PolicyKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PolicyKey {
    /// `NetworkPolicy namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.qualified_name())
    }
}

/// Calico's id of an ip set, of which the name in the kernel is a part (`s:…`, `n:…`, `svc:…`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub Arc<str>);

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of the set of all workloads of an ambient mesh, which is there where somebody wants it.
pub const MESH_WORKLOADS: &str = "all-istio-weps";

/// What the members of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// Networks.
    Net,
    /// Address, protocol and port.
    AddressPort,
}

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A network; an address is a network of its own.
    Net(IpNet),
    /// Address, protocol number and port.
    AddressPort(IpAddr, u8, u16),
}

impl Member {
    /// The IP version, which decides the family of the set that holds it.
    pub fn version(&self) -> IpVersion {
        match self {
            Self::Net(net) => IpVersion::of(net),
            Self::AddressPort(addr, ..) => IpVersion::of_addr(addr),
        }
    }
}

/// One side of a rule, in terms of sets, nets and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideSpec {
    /// In one of these networks.
    pub nets: Vec<IpNet>,
    /// In none of these.
    pub not_nets: Vec<IpNet>,
    /// In each of these sets.
    pub sets: Vec<SetId>,
    /// In none of these.
    pub not_sets: Vec<SetId>,
    /// Port in one of these ranges, or address and port in one of `named_ports`.
    pub ports: Vec<PortRange>,
    /// Alternatives to `ports`.
    pub named_ports: Vec<SetId>,
    /// Port in none of these ranges.
    pub not_ports: Vec<PortRange>,
    /// Address and port in none of these.
    pub not_named_ports: Vec<SetId>,
    /// Address and port in each of these: a service with its ports.
    pub services: Vec<SetId>,
}

/// A rule, ready to be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// What happens.
    pub action: Action,
    /// Only this IP version.
    pub version: Option<IpVersion>,
    /// Only this protocol.
    pub protocol: Option<Protocol>,
    /// Any other protocol.
    pub not_protocol: Option<Protocol>,
    /// ICMP type and code.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Not this ICMP type and code.
    pub not_icmp: Option<(u8, Option<u8>)>,
    /// Sender.
    pub source: SideSpec,
    /// Receiver.
    pub destination: SideSpec,
    /// `key=value`, sorted by key.
    pub annotations: Vec<String>,
}

/// An active policy: selected by an endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRules {
    /// Which.
    pub key: PolicyKey,
    /// The name of its tier, for log prefixes.
    pub tier: Arc<str>,
    /// Rules for traffic to endpoints.
    pub ingress: Vec<RuleSpec>,
    /// Rules for traffic from endpoints.
    pub egress: Vec<RuleSpec>,
    /// Program it even where no endpoint uses it.
    pub everywhere: bool,
    /// To be looked at, never to be programmed.
    pub staged: bool,
}

/// An active profile: listed by an endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRules {
    /// Its name.
    pub name: Arc<str>,
    /// Rules for traffic to endpoints.
    pub ingress: Vec<RuleSpec>,
    /// Rules for traffic from endpoints.
    pub egress: Vec<RuleSpec>,
}

/// A policy in an endpoint's policy list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// Which.
    pub key: PolicyKey,
    /// Canonical text of its selector. Neighbours with the same text share a group chain.
    pub selector: Arc<str>,
    /// It decides nothing, but counts where neighbours are grouped.
    pub staged: bool,
}

/// The policies of one tier that select an endpoint, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierPolicies {
    /// The tier.
    pub name: Arc<str>,
    /// What happens to a packet that none of them decides.
    pub default_action: DefaultAction,
    /// Those that apply to traffic to the endpoint.
    pub ingress: Vec<PolicyRef>,
    /// Those that apply to traffic from the endpoint.
    pub egress: Vec<PolicyRef>,
}

/// An endpoint's tiers in order; endpoints with equal ones share them.
pub type Tiers = Arc<[TierPolicies]>;

/// Which of an endpoint's traffic a list of policies decides on. Workload endpoints have the normal one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierKind {
    /// What ends or begins at the endpoint.
    Normal,
    /// What the host forwards through the endpoint's interface.
    Forward,
    /// What comes in, before its destination is translated.
    PreDnat,
    /// Everything, before connections are tracked.
    Untracked,
}

/// Which interfaces of the host an endpoint stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostInterface {
    /// This one.
    Named(Arc<str>),
    /// Each one that has no endpoint of its own.
    Any,
}

impl fmt::Display for HostInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Any => f.write_str(tortie_api::endpoint::ANY_INTERFACE),
        }
    }
}

/// A host endpoint in force on an interface of this node, with all that is to be enforced there.
///
/// Each list holds the tiers in order; those without a policy for it are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// The name of the `HostEndpoint`, for people.
    pub name: Arc<str>,
    /// Where it is in force. One `HostEndpoint` may be in force on several interfaces.
    pub interface: HostInterface,
    /// Its expected addresses and those of its interface, sorted.
    pub addresses: Vec<IpAddr>,
    /// Its profiles in order.
    pub profiles: Vec<Arc<str>>,
    /// For traffic of the host itself.
    pub normal: Tiers,
    /// For forwarded traffic.
    pub forward: Tiers,
    /// Before destinations are translated; ingress only.
    pub pre_dnat: Tiers,
    /// Before connections are tracked. Empty for [`HostInterface::Any`].
    pub untracked: Tiers,
    /// The DSCP value of what its expected addresses send out of the cluster, and these.
    pub dscp: Option<(u8, Vec<IpAddr>)>,
}

/// A workload endpoint of this node with all that is to be enforced on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// `namespace/name` of the `WorkloadEndpoint`, for people.
    pub id: Arc<str>,
    /// The host's side of its veth pair. Identifies the endpoint on this node.
    pub interface: Arc<str>,
    /// The workload's MAC address, if known.
    pub mac: Option<Arc<str>>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its profiles in order.
    pub profiles: Vec<Arc<str>>,
    /// Its tiers in order; those without a policy for it are left out.
    pub tiers: Tiers,
    /// Limits of its traffic, and how it is marked.
    pub qos: Qos,
    /// Networks that it may send from although they are not its own, if the node lets workloads do so.
    pub spoofed_sources: Box<[IpNet]>,
    /// Its floating addresses, as listed. Only in force where [`LocalEndpoint::floating`] says so.
    pub nats: Box<[IpNat]>,
    /// OpenStack asked for it, so its floating addresses are in force whether or not the node has them enabled.
    pub is_openstack: bool,
}

/// What nodes, pools and BGP settings mean for this node beside policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNetwork {
    /// A pool asks for IP in IP.
    pub ipip: bool,
    /// IP versions of which a pool asks for VXLAN.
    pub vxlan: Vec<IpVersion>,
    /// Whether this node has an address for its end of IP-in-IP tunnels.
    pub has_ipip_address: bool,
    /// IP versions in which this node has an address for its end of VXLAN tunnels.
    pub vxlan_addresses: Vec<IpVersion>,
    /// Addresses of all nodes, this one among them, sorted.
    pub nodes: Vec<IpAddr>,
    /// Addresses of the other nodes that have an end of VXLAN tunnels, sorted.
    pub vxlan_peers: Vec<IpAddr>,
    /// Networks of services, sorted.
    pub services: Vec<IpNet>,
}

impl LocalEndpoint {
    /// Its floating addresses that are in force, given whether the node has them enabled.
    pub fn floating(&self, enabled: bool) -> &[IpNat] {
        if enabled || self.is_openstack { &self.nats } else { &[] }
    }
}

/// A change of the desired state.
///
/// A flush puts them out in an order that a dataplane can apply one by one: a set comes before the policies
/// that use it, these before the endpoints, and removal goes the other way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A set with all its members, sorted.
    SetAdded {
        /// Which.
        id: SetId,
        /// Of what.
        kind: SetKind,
        /// All members.
        members: Vec<Member>,
    },
    /// Members of a known set, each list sorted.
    SetChanged {
        /// Which.
        id: SetId,
        /// New members.
        added: Vec<Member>,
        /// Members that left.
        removed: Vec<Member>,
    },
    /// A new or changed policy.
    Policy(Arc<PolicyRules>),
    /// A new or changed profile.
    Profile(Arc<ProfileRules>),
    /// A new or changed endpoint of this node.
    Endpoint(Arc<LocalEndpoint>),
    /// A new or changed host endpoint of an interface of this node.
    HostEndpoint(Arc<HostEndpoint>),
    /// The endpoint of this interface is gone.
    EndpointGone(Arc<str>),
    /// The host's interface has no endpoint any more.
    HostEndpointGone(HostInterface),
    /// No endpoint lists the profile any more.
    ProfileGone(Arc<str>),
    /// The policy selects no endpoint of this node any more.
    PolicyGone(PolicyKey),
    /// No policy uses the set any more.
    SetGone(SetId),
    /// What is known of the cluster's network.
    Network(Arc<ClusterNetwork>),
    /// The IP pools, sorted: all of them, and those with outgoing NAT.
    Pools {
        /// All.
        all: Vec<IpNet>,
        /// With `natOutgoing`.
        nat_outgoing: Vec<IpNet>,
    },
}

/// A resource that is understood but cannot be followed to the letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Which object, e.g. `NetworkPolicy shop/db`.
    pub object: String,
    /// Its key, where it is one object of the datastore.
    pub key: Option<tortie_api::Key>,
    /// The field, e.g. `spec.tier`.
    pub field: String,
    /// What is wrong and what is done about it.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_policies_is_that_of_their_texts() {
        let names = ["a", "a-b", "a.b", "a0", "ab", "b", ""];
        let kinds =
            [PolicyKind::GlobalNetworkPolicy, PolicyKind::KubernetesNetworkPolicy, PolicyKind::NetworkPolicy];
        let keys: Vec<PolicyKey> = kinds
            .into_iter()
            .flat_map(|kind| names.iter().map(move |name| (kind, *name)))
            .flat_map(|(kind, name)| names.iter().map(move |namespace| (kind, name, *namespace)))
            .map(|(kind, name, namespace)| PolicyKey { kind, namespace: namespace.into(), name: name.into() })
            .collect();
        let text = |key: &PolicyKey| format!("{}/{}/{}", key.name, key.namespace, key.kind.name());
        for a in &keys {
            for b in &keys {
                assert_eq!(a.cmp(b), text(a).cmp(&text(b)), "{} and {}", text(a), text(b));
            }
        }
    }
}
