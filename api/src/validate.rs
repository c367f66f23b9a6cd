//! The rules of the API that types alone do not hold, for every kind.
//!
//! Calico checks some of them in its CRDs and the rest in its client library; the agent gets objects that
//! went through neither, so all are checked here. Errors carry the path of the field.

mod cluster_policy;
mod endpoint;
mod ippool;
mod kube;
mod metadata;
pub mod names;
mod policy;
mod rule;
mod staged;

use crate::resource::{FieldError, Resource};

type Result = std::result::Result<(), FieldError>;

/// Checks an object whose defaults are filled in.
///
/// # Errors
/// The first rule that does not hold, with the path of the field.
pub fn resource(resource: &Resource) -> Result {
    metadata::check(resource.kind(), resource.metadata())?;
    let spec = match resource {
        Resource::NetworkPolicy(object) => policy::network_policy(&object.spec),
        Resource::GlobalNetworkPolicy(object) => policy::global_network_policy(&object.spec),
        Resource::StagedNetworkPolicy(object) => staged::check(&object.spec, policy::network_policy),
        Resource::StagedGlobalNetworkPolicy(object) => {
            staged::check(&object.spec, policy::global_network_policy)
        }
        Resource::StagedKubernetesNetworkPolicy(object) => staged::check(&object.spec, kube::network_policy),
        Resource::Tier(object) => policy::tier(&object.metadata.name, &object.spec),
        Resource::Profile(object) => policy::profile(&object.spec),
        Resource::IPPool(object) => ippool::check(&object.spec),
        Resource::WorkloadEndpoint(object) => endpoint::workload(&object.spec),
        Resource::HostEndpoint(object) => endpoint::host(&object.spec),
        Resource::Node(object) => endpoint::node(&object.spec),
        Resource::KubeNetworkPolicy(object) => kube::network_policy(&object.spec),
        Resource::ClusterNetworkPolicy(object) => cluster_policy::cluster_network_policy(&object.spec),
        Resource::AdminNetworkPolicy(object) => cluster_policy::admin_network_policy(&object.spec),
        Resource::BaselineAdminNetworkPolicy(object) => {
            cluster_policy::baseline_admin_network_policy(&object.spec)
        }
        Resource::NetworkSet(_)
        | Resource::GlobalNetworkSet(_)
        | Resource::FelixConfiguration(_)
        | Resource::BGPConfiguration(_)
        | Resource::Namespace(_)
        | Resource::ServiceAccount(_)
        | Resource::Pod(_)
        | Resource::Service(_)
        | Resource::EndpointSlice(_)
        | Resource::KubeNode(_) => Ok(()),
    };
    spec.map_err(|error| error.within("spec"))
}

/// Checks a condition that must hold.
fn ensure(condition: bool, field: &str, message: impl FnOnce() -> String) -> Result {
    if condition { Ok(()) } else { Err(FieldError::new(field, message())) }
}

/// Checks that a list is not too long.
fn at_most<T>(list: &[T], max: usize, field: &str) -> Result {
    ensure(list.len() <= max, field, || format!("has {} entries, at most {max} are allowed", list.len()))
}

#[cfg(test)]
mod tests;
