//! Labels that the system sets, and the prefixes under which endpoints inherit those of others.
//!
//! One place has them, since what sets a label and what selects by it must agree.

/// Label of an endpoint or network set in a namespace: the namespace's name.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// Label of the orchestrator that started an endpoint.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";

/// Value of [`ORCHESTRATOR_LABEL`] for pods.
pub const KUBERNETES: &str = "k8s";

/// Label of the service account that an endpoint runs as: the account's name.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// Stands before the labels of a namespace that endpoints inherit.
pub const NAMESPACE_LABEL_PREFIX: &str = "pcns.";

/// Stands before the labels of a service account that endpoints inherit.
pub const SERVICE_ACCOUNT_LABEL_PREFIX: &str = "pcsa.";

/// After one of the prefixes: the name of the namespace or service account itself.
pub const NAME_LABEL: &str = "projectcalico.org/name";

/// Label that Kubernetes gives every namespace: its name
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-metadata-name>).
pub const KUBE_NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
