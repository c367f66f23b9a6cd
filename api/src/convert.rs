//! Kubernetes objects in Calico's terms, so that everything behind knows one shape of each.
//!
//! | Kubernetes | Calico |
//! |---|---|
//! | NetworkPolicy, StagedKubernetesNetworkPolicy | NetworkPolicy of tier `default`, order 1000 |
//! | ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy | GlobalNetworkPolicy of a tier of its own |
//! | Namespace | Profile `kns.NAMESPACE`: allows everything, hands on the labels as `pcns.*` |
//! | ServiceAccount | Profile `ksa.NAMESPACE.NAME`: no rules, hands on the labels as `pcsa.*` |
//! | Pod | WorkloadEndpoint |
//! | Node | Node |

mod cluster_policy;
mod label_selector;
mod network_policy;
mod node;
mod pod;
mod port;
mod profile;

pub use cluster_policy::{
    RULE_NAME_ANNOTATION, admin_network_policy, baseline_admin_network_policy, cluster_network_policy,
};
pub use network_policy::{KUBE_POLICY_ORDER, network_policy, staged_network_policy};
pub use node::node;
pub use pod::{pod_endpoint, pod_problems, workload_interface};
pub use profile::{
    NAMESPACE_PROFILE_PREFIX, SERVICE_ACCOUNT_PROFILE_PREFIX, namespace_profile, namespace_profile_name,
    service_account_profile, service_account_profile_name,
};
