//! The kinds of resources that Tortie knows, and how they are named in manifests, keys and on command lines.

use std::fmt;

/// A kind of resource. The order is the one that lists of mixed kinds are shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy,
    /// `projectcalico.org/v3` GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// `projectcalico.org/v3` StagedNetworkPolicy.
    StagedNetworkPolicy,
    /// `projectcalico.org/v3` StagedGlobalNetworkPolicy.
    StagedGlobalNetworkPolicy,
    /// `projectcalico.org/v3` StagedKubernetesNetworkPolicy.
    StagedKubernetesNetworkPolicy,
    /// `projectcalico.org/v3` NetworkSet.
    NetworkSet,
    /// `projectcalico.org/v3` GlobalNetworkSet.
    GlobalNetworkSet,
    /// `projectcalico.org/v3` Tier.
    Tier,
    /// `projectcalico.org/v3` IPPool.
    IPPool,
    /// `projectcalico.org/v3` WorkloadEndpoint.
    WorkloadEndpoint,
    /// `projectcalico.org/v3` HostEndpoint.
    HostEndpoint,
    /// `projectcalico.org/v3` Profile.
    Profile,
    /// `projectcalico.org/v3` FelixConfiguration.
    FelixConfiguration,
    /// `projectcalico.org/v3` BGPConfiguration.
    BGPConfiguration,
    /// `projectcalico.org/v3` Node.
    Node,
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubeNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy.
    BaselineAdminNetworkPolicy,
    /// `v1` Namespace.
    Namespace,
    /// `v1` ServiceAccount.
    ServiceAccount,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Node: its labels, addresses and Calico's annotations are read.
    KubeNode,
}

/// `apiVersion` of Calico's kinds.
pub const CALICO_API: &str = "projectcalico.org/v3";

/// `apiVersion` that Calico's kinds carry in clusters with the classic CRDs; read, never written.
pub const CALICO_CRD_API: &str = "crd.projectcalico.org/v1";

/// What is known about a kind, one row each.
struct Facts {
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    /// Words of kubectl and calicoctl beside `name` (lower case) and `plural`.
    short_names: &'static [&'static str],
    is_namespaced: bool,
}

const fn facts(
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    is_namespaced: bool,
) -> Facts {
    Facts { api_version, name, plural, short_names, is_namespaced }
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 25] = [
        Self::NetworkPolicy,
        Self::GlobalNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::NetworkSet,
        Self::GlobalNetworkSet,
        Self::Tier,
        Self::IPPool,
        Self::WorkloadEndpoint,
        Self::HostEndpoint,
        Self::Profile,
        Self::FelixConfiguration,
        Self::BGPConfiguration,
        Self::Node,
        Self::KubeNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::Namespace,
        Self::ServiceAccount,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::KubeNode,
    ];

    #[expect(clippy::too_many_lines, reason = "a table with one row for each kind")]
    const fn facts(self) -> Facts {
        match self {
            Self::NetworkPolicy => facts(
                CALICO_API,
                "NetworkPolicy",
                "networkpolicies",
                &["np", "cnp", "caliconetworkpolicy"],
                true,
            ),
            Self::GlobalNetworkPolicy => {
                facts(CALICO_API, "GlobalNetworkPolicy", "globalnetworkpolicies", &["gnp", "cgnp"], false)
            }
            Self::StagedNetworkPolicy => {
                facts(CALICO_API, "StagedNetworkPolicy", "stagednetworkpolicies", &["scnp", "snp"], true)
            }
            Self::StagedGlobalNetworkPolicy => facts(
                CALICO_API,
                "StagedGlobalNetworkPolicy",
                "stagedglobalnetworkpolicies",
                &["sgnp"],
                false,
            ),
            Self::StagedKubernetesNetworkPolicy => facts(
                CALICO_API,
                "StagedKubernetesNetworkPolicy",
                "stagedkubernetesnetworkpolicies",
                &["sknp"],
                true,
            ),
            Self::NetworkSet => facts(CALICO_API, "NetworkSet", "networksets", &["netset", "netsets"], true),
            Self::GlobalNetworkSet => {
                facts(CALICO_API, "GlobalNetworkSet", "globalnetworksets", &["gns"], false)
            }
            Self::Tier => facts(CALICO_API, "Tier", "tiers", &[], false),
            Self::IPPool => facts(CALICO_API, "IPPool", "ippools", &["ipp", "ipps", "pool", "pools"], false),
            Self::WorkloadEndpoint => {
                facts(CALICO_API, "WorkloadEndpoint", "workloadendpoints", &["wep", "weps"], true)
            }
            Self::HostEndpoint => facts(CALICO_API, "HostEndpoint", "hostendpoints", &["hep", "heps"], false),
            Self::Profile => facts(CALICO_API, "Profile", "profiles", &["pro", "pros"], false),
            Self::FelixConfiguration => facts(
                CALICO_API,
                "FelixConfiguration",
                "felixconfigurations",
                &["felixconfig", "fcfg"],
                false,
            ),
            Self::BGPConfiguration => facts(
                CALICO_API,
                "BGPConfiguration",
                "bgpconfigurations",
                &["bgpconfig", "bgpconfigs"],
                false,
            ),
            Self::Node => facts(CALICO_API, "Node", "nodes", &["no"], false),
            Self::KubeNetworkPolicy => {
                facts("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", &["netpol", "knp"], true)
            }
            // Upstream's short name is `cnp`, which is Calico's NetworkPolicy here as it is in calicoctl.
            Self::ClusterNetworkPolicy => facts(
                "policy.networking.k8s.io/v1alpha2",
                "ClusterNetworkPolicy",
                "clusternetworkpolicies",
                &["kcnp"],
                false,
            ),
            Self::AdminNetworkPolicy => facts(
                "policy.networking.k8s.io/v1alpha1",
                "AdminNetworkPolicy",
                "adminnetworkpolicies",
                &["anp", "kanp"],
                false,
            ),
            Self::BaselineAdminNetworkPolicy => facts(
                "policy.networking.k8s.io/v1alpha1",
                "BaselineAdminNetworkPolicy",
                "baselineadminnetworkpolicies",
                &["banp", "kbanp"],
                false,
            ),
            Self::Namespace => facts("v1", "Namespace", "namespaces", &["ns"], false),
            Self::ServiceAccount => facts("v1", "ServiceAccount", "serviceaccounts", &["sa"], true),
            Self::Pod => facts("v1", "Pod", "pods", &["po"], true),
            Self::Service => facts("v1", "Service", "services", &["svc"], true),
            Self::EndpointSlice => facts("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", &[], true),
            Self::KubeNode => facts("v1", "Node", "nodes", &["knode", "kubenode"], false),
        }
    }

    /// `apiVersion` as in a manifest.
    pub const fn api_version(self) -> &'static str {
        self.facts().api_version
    }

    /// `kind` as in a manifest. Two kinds of different API groups can share it.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The plural in lower case, as in URLs and on command lines.
    pub const fn plural(self) -> &'static str {
        self.facts().plural
    }

    /// Short words for command lines.
    pub const fn short_names(self) -> &'static [&'static str] {
        self.facts().short_names
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        self.facts().is_namespaced
    }

    /// Whether the kind belongs to Calico's API.
    pub fn is_calico(self) -> bool {
        self.api_version() == CALICO_API
    }

    /// Whether objects of this kind hold policy, enforced or staged.
    pub const fn is_policy(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::GlobalNetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::StagedGlobalNetworkPolicy
                | Self::StagedKubernetesNetworkPolicy
                | Self::KubeNetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::AdminNetworkPolicy
                | Self::BaselineAdminNetworkPolicy
        )
    }

    /// The API group; empty for Kubernetes' core group.
    pub fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// The kind that a manifest's `apiVersion` and `kind` name. Calico's classic CRD group is accepted too.
    pub fn from_api(api_version: &str, kind: &str) -> Result<Self, KindError> {
        let wanted = if api_version == CALICO_CRD_API { CALICO_API } else { api_version };
        if let Some(found) = Self::ALL.into_iter().find(|k| k.name() == kind && k.api_version() == wanted) {
            return Ok(found);
        }
        match Self::ALL.into_iter().find(|k| k.name() == kind) {
            Some(other) => Err(KindError::ApiVersion {
                kind: kind.to_owned(),
                api_version: api_version.to_owned(),
                expected: other.api_version(),
            }),
            None => Err(KindError::Unknown { kind: kind.to_owned(), api_version: api_version.to_owned() }),
        }
    }

    /// The kind that a word on a command line names: its name, plural or short name in any case, alone or
    /// followed by the API group (`networkpolicies.networking.k8s.io`, also with a version before the group).
    ///
    /// Where two kinds share a word, Calico's is meant, as with calicoctl: `networkpolicy` and `np` are
    /// Calico's, `netpol`, `knp` and `networkpolicy.networking.k8s.io` are Kubernetes'; `node` is Calico's,
    /// `knode` and `node.v1` are Kubernetes'.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let (resource, group) = match word.split_once('.') {
            Some((resource, group)) => (resource, Some(group)),
            None => (word.as_str(), None),
        };
        Self::ALL.into_iter().find(|k| k.answers_to(resource) && group.is_none_or(|g| k.is_of_group(g)))
    }

    fn answers_to(self, resource: &str) -> bool {
        self.name().eq_ignore_ascii_case(resource)
            || self.plural() == resource
            || self.short_names().contains(&resource)
    }

    /// `group`, `version.group`, or `version` alone in the core group.
    fn is_of_group(self, text: &str) -> bool {
        match self.api_version().split_once('/') {
            Some((group, version)) => {
                text == group
                    || text.strip_prefix(version).and_then(|rest| rest.strip_prefix('.')) == Some(group)
            }
            None => text == self.api_version() || text.is_empty(),
        }
    }
}

impl fmt::Display for Kind {
    /// The kind, with its group where the bare name would be ambiguous: `NetworkPolicy.networking.k8s.io`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KubeNetworkPolicy => f.write_str("NetworkPolicy.networking.k8s.io"),
            Self::KubeNode => f.write_str("Node.v1"),
            kind => f.write_str(kind.name()),
        }
    }
}

/// Why a manifest names no kind that we know.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KindError {
    /// The kind is known, but not in this API version.
    #[error("{kind} is not served as apiVersion {api_version:?}; use {expected}")]
    ApiVersion {
        /// `kind` as written.
        kind: String,
        /// `apiVersion` as written.
        api_version: String,
        /// The one that we know.
        expected: &'static str,
    },
    /// No such kind at all.
    #[error("unknown kind {kind:?} of apiVersion {api_version:?}")]
    Unknown {
        /// `kind` as written.
        kind: String,
        /// `apiVersion` as written.
        api_version: String,
    },
}

/// The namespace of a namespaced object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; present exactly for namespaced kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key of a namespaced kind gets the namespace `default` if there is none; a key of another kind
    /// loses its namespace (manifests that have one are refused before).
    pub fn new(kind: Kind, namespace: Option<&str>, name: impl Into<String>) -> Self {
        let namespace = kind.is_namespaced().then(|| match namespace {
            Some(ns) if !ns.is_empty() => ns.to_owned(),
            _ => DEFAULT_NAMESPACE.to_owned(),
        });
        Self { kind, namespace, name: name.into() }
    }
}

impl fmt::Display for Key {
    /// `kind/namespace/name` or `kind/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_own_api_version_and_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_api(kind.api_version(), kind.name()), Ok(kind));
        }
    }

    #[test]
    fn calico_kinds_are_also_read_from_the_classic_crd_group() {
        for kind in Kind::ALL {
            let found = Kind::from_api(CALICO_CRD_API, kind.name());
            if kind.is_calico() {
                assert_eq!(found, Ok(kind));
            } else if !matches!(kind, Kind::KubeNetworkPolicy | Kind::KubeNode) {
                assert!(found.is_err(), "{kind}");
            }
        }
    }

    #[test]
    fn a_known_kind_of_a_wrong_version_says_which_version_to_use() {
        let error = Kind::from_api("projectcalico.org/v1", "IPPool").unwrap_err();
        assert_eq!(
            error.to_string(),
            "IPPool is not served as apiVersion \"projectcalico.org/v1\"; use projectcalico.org/v3"
        );
        assert!(matches!(Kind::from_api("v1", "Secret"), Err(KindError::Unknown { .. })));
    }

    #[test]
    fn words_of_both_command_line_tools_find_their_kinds() {
        for (word, kind) in [
            ("np", Kind::NetworkPolicy),
            ("networkPolicy", Kind::NetworkPolicy),
            ("networkpolicies", Kind::NetworkPolicy),
            ("cnp", Kind::NetworkPolicy),
            ("networkpolicies.projectcalico.org", Kind::NetworkPolicy),
            ("networkpolicies.v3.projectcalico.org", Kind::NetworkPolicy),
            ("netpol", Kind::KubeNetworkPolicy),
            ("networkpolicy.networking.k8s.io", Kind::KubeNetworkPolicy),
            ("networkpolicies.v1.networking.k8s.io", Kind::KubeNetworkPolicy),
            ("node", Kind::Node),
            ("nodes.v1", Kind::KubeNode),
            ("ns", Kind::Namespace),
            ("gns", Kind::GlobalNetworkSet),
            ("snp", Kind::StagedNetworkPolicy),
            ("scnp", Kind::StagedNetworkPolicy),
            ("stagedglobalnetworkpolicies", Kind::StagedGlobalNetworkPolicy),
            ("sknp", Kind::StagedKubernetesNetworkPolicy),
            ("clusternetworkpolicies.policy.networking.k8s.io", Kind::ClusterNetworkPolicy),
            ("kcnp", Kind::ClusterNetworkPolicy),
            ("anp", Kind::AdminNetworkPolicy),
            ("banp", Kind::BaselineAdminNetworkPolicy),
            ("po", Kind::Pod),
            ("svc", Kind::Service),
        ] {
            assert_eq!(Kind::from_word(word), Some(kind), "{word}");
        }
        assert_eq!(Kind::from_word("secret"), None);
        assert_eq!(Kind::from_word("pods.projectcalico.org"), None);
    }

    #[test]
    fn a_short_name_belongs_to_one_kind_only() {
        for a in Kind::ALL {
            for word in a.short_names() {
                assert_eq!(Kind::from_word(word), Some(a), "{word}");
            }
        }
    }

    #[test]
    fn a_key_has_a_namespace_exactly_if_its_kind_has() {
        assert_eq!(Key::new(Kind::Pod, None, "a").to_string(), "Pod/default/a");
        assert_eq!(Key::new(Kind::Tier, Some("x"), "a").to_string(), "Tier/a");
        assert_eq!(
            Key::new(Kind::KubeNetworkPolicy, Some("shop"), "p").to_string(),
            "NetworkPolicy.networking.k8s.io/shop/p"
        );
    }
}
