//! The `metadata` of every object.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// What we keep of Kubernetes' ObjectMeta.
///
/// All its standard fields are accepted; those that nothing here needs (`managedFields`, `ownerReferences`,
/// `finalizers` ...) are not kept. Unknown ones are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "ObjectMeta")]
pub struct Metadata {
    /// The name, unique among the objects of its kind and namespace.
    pub name: String,
    /// The namespace. After reading a whole object it is there exactly for namespaced kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels: what selectors look at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations: notes that selectors do not see.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Identity over time; set by an API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Opaque version; set by a datastore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Prefix of a name that an API server completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// When the object was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// When the deletion of the object began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
}

/// The annotation with which `kubectl apply` repeats the whole object; never kept.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// ObjectMeta as written. Fields whose content is not kept are of type [`IgnoredAny`].
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ObjectMeta {
    name: String,
    generate_name: Option<String>,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<IgnoredAny>,
    #[serde(rename = "selfLink")]
    _self_link: Option<IgnoredAny>,
}

impl From<ObjectMeta> for Metadata {
    fn from(mut meta: ObjectMeta) -> Self {
        meta.annotations.remove(LAST_APPLIED);
        Self {
            name: meta.name,
            namespace: meta.namespace.filter(|ns| !ns.is_empty()),
            labels: meta.labels,
            annotations: meta.annotations,
            uid: meta.uid,
            resource_version: meta.resource_version,
            generate_name: meta.generate_name,
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
        }
    }
}

impl Metadata {
    /// Metadata of an object that was computed, not read.
    pub fn named(name: impl Into<String>, namespace: Option<&str>) -> Self {
        Self { name: name.into(), namespace: namespace.map(str::to_owned), ..Self::default() }
    }

    /// The namespace, or the empty text for objects without one.
    pub fn namespace_text(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// Whether the deletion of the object has begun.
    pub fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}
