//! Kubernetes objects in Calico's terms, so that everything behind knows one shape of each.
//!
//! | Kubernetes | Calico |
//! |---|---|
//! | NetworkPolicy | NetworkPolicy of tier `default`, order 1000 |
//! | Namespace | Profile `kns.NAMESPACE`: allows everything, hands on the labels as `pcns.*` |
//! | ServiceAccount | Profile `ksa.NAMESPACE.NAME`: no rules, hands on the labels as `pcsa.*` |
//! | Pod | WorkloadEndpoint |
//! | Node | Node |

mod label_selector;
mod network_policy;
mod node;
mod pod;
mod port;
mod profile;

pub use network_policy::{KUBE_POLICY_ORDER, network_policy};
pub use node::node;
pub use pod::{pod_endpoint, workload_interface};
pub use profile::{
    NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL_PREFIX, namespace_profile, namespace_profile_name,
    service_account_profile, service_account_profile_name,
};

/// Label of the namespace that an endpoint or network set is in.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// Label of the orchestrator that started an endpoint.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";

/// Label of the service account that an endpoint runs as.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// Value of [`ORCHESTRATOR_LABEL`] for pods.
pub const KUBERNETES: &str = "k8s";
