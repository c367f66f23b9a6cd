//! Objects of all kinds, and the one way in: [`Resource::from_value`] parses strictly, sets defaults and
//! validates.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bgp::BgpConfigurationSpec;
use crate::endpoint::{HostEndpointSpec, WorkloadEndpointSpec};
use crate::felix::FelixConfigurationSpec;
use crate::ippool::IPPoolSpec;
use crate::kind::{CALICO_CRD_API, Key, Kind};
use crate::kube::{
    self, EndpointSliceSpec, KubeNodeSpec, NamespaceSpec, PodSpec, ServiceAccountSpec, ServiceSpec,
};
use crate::meta::Metadata;
use crate::node::NodeSpec;
use crate::nulls::Nulls;
use crate::policy::{GlobalNetworkPolicySpec, NetworkPolicySpec, NetworkSetSpec, ProfileSpec, TierSpec};
use crate::staged::{Staged, StagedAction};
use crate::{crd, defaults, validate};

/// An object: who it is and what is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Object<S> {
    /// Name, namespace, labels and the like.
    pub metadata: Metadata,
    /// What is asked for; for some Kubernetes kinds, what was observed as well.
    pub spec: S,
}

/// An object of any kind. Defaults are filled in and the rules of the API hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy(Object<NetworkPolicySpec>),
    /// `projectcalico.org/v3` GlobalNetworkPolicy.
    GlobalNetworkPolicy(Object<GlobalNetworkPolicySpec>),
    /// `projectcalico.org/v3` StagedNetworkPolicy.
    StagedNetworkPolicy(Object<Staged<NetworkPolicySpec>>),
    /// `projectcalico.org/v3` StagedGlobalNetworkPolicy.
    StagedGlobalNetworkPolicy(Object<Staged<GlobalNetworkPolicySpec>>),
    /// `projectcalico.org/v3` StagedKubernetesNetworkPolicy.
    StagedKubernetesNetworkPolicy(Object<Staged<kube::NetworkPolicySpec>>),
    /// `projectcalico.org/v3` NetworkSet.
    NetworkSet(Object<NetworkSetSpec>),
    /// `projectcalico.org/v3` GlobalNetworkSet.
    GlobalNetworkSet(Object<NetworkSetSpec>),
    /// `projectcalico.org/v3` Tier.
    Tier(Object<TierSpec>),
    /// `projectcalico.org/v3` IPPool.
    IPPool(Object<IPPoolSpec>),
    /// `projectcalico.org/v3` WorkloadEndpoint.
    WorkloadEndpoint(Object<WorkloadEndpointSpec>),
    /// `projectcalico.org/v3` HostEndpoint.
    HostEndpoint(Object<HostEndpointSpec>),
    /// `projectcalico.org/v3` Profile.
    Profile(Object<ProfileSpec>),
    /// `projectcalico.org/v3` FelixConfiguration.
    FelixConfiguration(Object<FelixConfigurationSpec>),
    /// `projectcalico.org/v3` BGPConfiguration.
    BGPConfiguration(Object<BgpConfigurationSpec>),
    /// `projectcalico.org/v3` Node.
    Node(Object<NodeSpec>),
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubeNetworkPolicy(Object<kube::NetworkPolicySpec>),
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy(Object<kube::ClusterNetworkPolicySpec>),
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy.
    AdminNetworkPolicy(Object<kube::AdminNetworkPolicySpec>),
    /// `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy.
    BaselineAdminNetworkPolicy(Object<kube::BaselineAdminNetworkPolicySpec>),
    /// `v1` Namespace.
    Namespace(Object<NamespaceSpec>),
    /// `v1` ServiceAccount.
    ServiceAccount(Object<ServiceAccountSpec>),
    /// `v1` Pod.
    Pod(Object<PodSpec>),
    /// `v1` Service.
    Service(Object<ServiceSpec>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Object<EndpointSliceSpec>),
    /// `v1` Node.
    KubeNode(Object<KubeNodeSpec>),
}

/// Evaluates an expression with the object of whichever variant this is.
macro_rules! with_object {
    ($resource:expr, $object:ident => $result:expr) => {
        match $resource {
            Resource::NetworkPolicy($object) => $result,
            Resource::GlobalNetworkPolicy($object) => $result,
            Resource::StagedNetworkPolicy($object) => $result,
            Resource::StagedGlobalNetworkPolicy($object) => $result,
            Resource::StagedKubernetesNetworkPolicy($object) => $result,
            Resource::NetworkSet($object) | Resource::GlobalNetworkSet($object) => $result,
            Resource::Tier($object) => $result,
            Resource::IPPool($object) => $result,
            Resource::WorkloadEndpoint($object) => $result,
            Resource::HostEndpoint($object) => $result,
            Resource::Profile($object) => $result,
            Resource::FelixConfiguration($object) => $result,
            Resource::BGPConfiguration($object) => $result,
            Resource::Node($object) => $result,
            Resource::KubeNetworkPolicy($object) => $result,
            Resource::ClusterNetworkPolicy($object) => $result,
            Resource::AdminNetworkPolicy($object) => $result,
            Resource::BaselineAdminNetworkPolicy($object) => $result,
            Resource::Namespace($object) => $result,
            Resource::ServiceAccount($object) => $result,
            Resource::Pod($object) => $result,
            Resource::Service($object) => $result,
            Resource::EndpointSlice($object) => $result,
            Resource::KubeNode($object) => $result,
        }
    };
}

impl Resource {
    /// Reads an object as a manifest or an API server gives it: strictly, with defaults filled in, and
    /// validated.
    ///
    /// # Errors
    /// The first thing that is wrong, with the path of its field.
    pub fn from_value(value: &Value) -> Result<Self, FieldError> {
        let kind = kind_of(value)?;
        let mut resource = if value.get("apiVersion").and_then(Value::as_str) == Some(CALICO_CRD_API) {
            Self::parse(kind, &crd::with_stored_metadata(kind, value)?)?
        } else {
            Self::parse(kind, value)?
        };
        resource.settle_namespace(kind)?;
        defaults::apply(&mut resource);
        validate::resource(&resource)?;
        Ok(resource)
    }

    fn parse(kind: Kind, value: &Value) -> Result<Self, FieldError> {
        Ok(match kind {
            Kind::NetworkPolicy => Self::NetworkPolicy(read(value)?),
            Kind::GlobalNetworkPolicy => Self::GlobalNetworkPolicy(read(value)?),
            Kind::StagedNetworkPolicy => Self::StagedNetworkPolicy(read_staged(value)?),
            Kind::StagedGlobalNetworkPolicy => Self::StagedGlobalNetworkPolicy(read_staged(value)?),
            Kind::StagedKubernetesNetworkPolicy => Self::StagedKubernetesNetworkPolicy(read_staged(value)?),
            Kind::NetworkSet => Self::NetworkSet(read(value)?),
            Kind::GlobalNetworkSet => Self::GlobalNetworkSet(read(value)?),
            Kind::Tier => Self::Tier(read(value)?),
            Kind::IPPool => Self::IPPool(read(value)?),
            Kind::WorkloadEndpoint => Self::WorkloadEndpoint(read(value)?),
            Kind::HostEndpoint => Self::HostEndpoint(read(value)?),
            Kind::Profile => Self::Profile(read(value)?),
            Kind::FelixConfiguration => Self::FelixConfiguration(read(value)?),
            Kind::BGPConfiguration => Self::BGPConfiguration(read(value)?),
            Kind::Node => Self::Node(read(value)?),
            Kind::KubeNetworkPolicy => Self::KubeNetworkPolicy(read(value)?),
            Kind::ClusterNetworkPolicy => Self::ClusterNetworkPolicy(read(value)?),
            Kind::AdminNetworkPolicy => Self::AdminNetworkPolicy(read(value)?),
            Kind::BaselineAdminNetworkPolicy => Self::BaselineAdminNetworkPolicy(read(value)?),
            Kind::Namespace => Self::Namespace(read(value)?),
            Kind::ServiceAccount => Self::ServiceAccount(read_service_account(value)?),
            Kind::Pod => Self::Pod(read_pod(value)?),
            Kind::Service => Self::Service(read(value)?),
            Kind::EndpointSlice => Self::EndpointSlice(read_endpoint_slice(value)?),
            Kind::KubeNode => Self::KubeNode(read_kube_node(value)?),
        })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
            Self::GlobalNetworkPolicy(_) => Kind::GlobalNetworkPolicy,
            Self::StagedNetworkPolicy(_) => Kind::StagedNetworkPolicy,
            Self::StagedGlobalNetworkPolicy(_) => Kind::StagedGlobalNetworkPolicy,
            Self::StagedKubernetesNetworkPolicy(_) => Kind::StagedKubernetesNetworkPolicy,
            Self::NetworkSet(_) => Kind::NetworkSet,
            Self::GlobalNetworkSet(_) => Kind::GlobalNetworkSet,
            Self::Tier(_) => Kind::Tier,
            Self::IPPool(_) => Kind::IPPool,
            Self::WorkloadEndpoint(_) => Kind::WorkloadEndpoint,
            Self::HostEndpoint(_) => Kind::HostEndpoint,
            Self::Profile(_) => Kind::Profile,
            Self::FelixConfiguration(_) => Kind::FelixConfiguration,
            Self::BGPConfiguration(_) => Kind::BGPConfiguration,
            Self::Node(_) => Kind::Node,
            Self::KubeNetworkPolicy(_) => Kind::KubeNetworkPolicy,
            Self::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
            Self::AdminNetworkPolicy(_) => Kind::AdminNetworkPolicy,
            Self::BaselineAdminNetworkPolicy(_) => Kind::BaselineAdminNetworkPolicy,
            Self::Namespace(_) => Kind::Namespace,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::KubeNode(_) => Kind::KubeNode,
        }
    }

    /// What identifies the object.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(self.kind(), metadata.namespace.as_deref(), metadata.name.as_str())
    }

    /// Name, namespace, labels and the like.
    pub fn metadata(&self) -> &Metadata {
        with_object!(self, object => &object.metadata)
    }

    fn metadata_mut(&mut self) -> &mut Metadata {
        with_object!(self, object => &mut object.metadata)
    }

    /// Namespaced objects without a namespace are in `default`; others may not have one.
    fn settle_namespace(&mut self, kind: Kind) -> Result<(), FieldError> {
        let metadata = self.metadata_mut();
        match (&metadata.namespace, kind.is_namespaced()) {
            (Some(_), false) => {
                Err(FieldError::new("metadata.namespace", format!("a {} has no namespace", kind.name())))
            }
            (None, true) => {
                metadata.namespace = Some(crate::kind::DEFAULT_NAMESPACE.to_owned());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with an object, and where.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}{message}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct FieldError {
    /// Path of the field, `spec.ingress[0].source.selector`; empty for the object as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldError {
    /// An error at a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same error, seen from the structure that holds `parent`.
    #[must_use]
    pub(crate) fn within(self, parent: impl std::fmt::Display) -> Self {
        let field = match self.field.as_str() {
            "" => parent.to_string(),
            rest if rest.starts_with('[') => format!("{parent}{rest}"),
            rest => format!("{parent}.{rest}"),
        };
        Self { field, message: self.message }
    }

    /// The same error, seen from the structure that holds the list `parent`.
    #[must_use]
    pub(crate) fn within_item(self, parent: &str, index: usize) -> Self {
        self.within(format_args!("{parent}[{index}]"))
    }
}

/// The kind of a manifest.
pub(crate) fn kind_of(value: &Value) -> Result<Kind, FieldError> {
    let Value::Object(map) = value else {
        return Err(FieldError::new("", "a manifest is a mapping with apiVersion, kind and metadata"));
    };
    let api_version = text_field(map, "apiVersion")?;
    let kind = text_field(map, "kind")?;
    Kind::from_api(api_version, kind).map_err(|error| {
        let field =
            if matches!(error, crate::kind::KindError::Unknown { .. }) { "kind" } else { "apiVersion" };
        FieldError::new(field, error.to_string())
    })
}

fn text_field<'a>(map: &'a Map<String, Value>, name: &str) -> Result<&'a str, FieldError> {
    match map.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        None | Some(Value::Null | Value::String(_)) => Err(FieldError::new(name, "is required")),
        Some(_) => Err(FieldError::new(name, "is a text")),
    }
}

/// The key of a manifest as far as it can be told, however wrong the rest is.
pub(crate) fn key_of(value: &Value) -> Option<Key> {
    let kind = kind_of(value).ok()?;
    let metadata = value.get("metadata")?;
    let name = metadata.get("name")?.as_str().filter(|name| !name.is_empty())?;
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => None,
        Some(Value::String(namespace)) => Some(namespace.as_str()),
        Some(_) => return None,
    };
    Some(Key::new(kind, namespace, name))
}

/// The top level that most kinds have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<S, T = IgnoredAny> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    metadata: Metadata,
    spec: Option<S>,
    status: Option<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceAccountEnvelope {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    metadata: Metadata,
    #[serde(rename = "secrets")]
    _secrets: Option<IgnoredAny>,
    #[serde(rename = "imagePullSecrets")]
    _image_pull_secrets: Option<IgnoredAny>,
    #[serde(rename = "automountServiceAccountToken")]
    _automount: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointSliceEnvelope {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    metadata: Metadata,
    address_type: String,
    #[serde(default)]
    endpoints: Vec<kube::EndpointSpec>,
    #[serde(default)]
    ports: Vec<kube::EndpointPortSpec>,
}

fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(Nulls(value)).map_err(|error| {
        let path = error.path().to_string();
        FieldError::new(if path == "." { String::new() } else { path }, error.into_inner().to_string())
    })
}

/// An object of a kind with a `spec` of our type. An absent `spec` is read as an empty one.
fn read<S: DeserializeOwned>(value: &Value) -> Result<Object<S>, FieldError> {
    let Envelope { metadata, spec, .. } = decode::<Envelope<S>>(value)?;
    let spec = match spec {
        Some(spec) => spec,
        None => decode(&Value::Object(Map::new())).map_err(|error| error.within("spec"))?,
    };
    Ok(Object { metadata, spec })
}

/// A staged policy: the specification of what it is staged for, with one field more. That field is read apart, so
/// that the rest is read as strictly, and faults are named by the same paths, as in an enforced policy.
fn read_staged<S: DeserializeOwned>(value: &Value) -> Result<Object<Staged<S>>, FieldError> {
    let mut value = value.clone();
    let action = value.get_mut("spec").and_then(Value::as_object_mut).and_then(|s| s.remove("stagedAction"));
    let staged_action = match action.filter(|action| !action.is_null()) {
        Some(action) => decode(&action).map_err(|error| error.within("spec.stagedAction"))?,
        None => StagedAction::default(),
    };
    let Object { metadata, spec } = read(&value)?;
    Ok(Object { metadata, spec: Staged { staged_action, policy: spec } })
}

fn read_pod(value: &Value) -> Result<Object<PodSpec>, FieldError> {
    let envelope = decode::<Envelope<kube::pod::Spec, kube::pod::Status>>(value)?;
    let mut metadata = envelope.metadata;
    metadata.annotations.retain(|key, _| kube::pod::is_useful_annotation(key));
    let spec = PodSpec::new(envelope.spec.unwrap_or_default(), &envelope.status.unwrap_or_default());
    Ok(Object { metadata, spec })
}

fn read_kube_node(value: &Value) -> Result<Object<KubeNodeSpec>, FieldError> {
    let envelope = decode::<Envelope<kube::node::Spec, kube::node::Status>>(value)?;
    let spec = KubeNodeSpec::new(envelope.spec.unwrap_or_default(), &envelope.status.unwrap_or_default());
    Ok(Object { metadata: envelope.metadata, spec })
}

fn read_service_account(value: &Value) -> Result<Object<ServiceAccountSpec>, FieldError> {
    let metadata = decode::<ServiceAccountEnvelope>(value)?.metadata;
    Ok(Object { metadata, spec: ServiceAccountSpec {} })
}

fn read_endpoint_slice(value: &Value) -> Result<Object<EndpointSliceSpec>, FieldError> {
    let EndpointSliceEnvelope { metadata, address_type, endpoints, ports, .. } = decode(value)?;
    Ok(Object { metadata, spec: EndpointSliceSpec { address_type, endpoints, ports } })
}

#[cfg(test)]
mod tests;
