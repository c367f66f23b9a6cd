//! Namespaces and service accounts as profiles, by which endpoints inherit their labels.

use std::collections::BTreeMap;

use crate::kube::{NamespaceSpec, ServiceAccountSpec};
use crate::labels::{NAME_LABEL, NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL_PREFIX};
use crate::meta::Metadata;
use crate::policy::{Action, ProfileSpec, Rule};
use crate::resource::Object;

/// Stands before the name of a namespace in the name of its profile.
pub const NAMESPACE_PROFILE_PREFIX: &str = "kns.";

/// Stands before namespace and name of a service account in the name of its profile.
pub const SERVICE_ACCOUNT_PROFILE_PREFIX: &str = "ksa.";

/// Name of the profile of a namespace.
pub fn namespace_profile_name(namespace: &str) -> String {
    format!("{NAMESPACE_PROFILE_PREFIX}{namespace}")
}

/// Name of the profile of a service account.
pub fn service_account_profile_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PROFILE_PREFIX}{namespace}.{name}")
}

/// The profile of a namespace: what no policy decides is allowed.
pub fn namespace_profile(namespace: &Object<NamespaceSpec>) -> Object<ProfileSpec> {
    let name = &namespace.metadata.name;
    Object {
        metadata: metadata(&namespace.metadata, namespace_profile_name(name)),
        spec: ProfileSpec {
            ingress: vec![Rule::new(Action::Allow)],
            egress: vec![Rule::new(Action::Allow)],
            labels_to_apply: labels(&namespace.metadata, NAMESPACE_LABEL_PREFIX),
        },
    }
}

/// The profile of a service account: labels only.
pub fn service_account_profile(account: &Object<ServiceAccountSpec>) -> Object<ProfileSpec> {
    let name = service_account_profile_name(account.metadata.namespace_text(), &account.metadata.name);
    Object {
        metadata: metadata(&account.metadata, name),
        spec: ProfileSpec {
            labels_to_apply: labels(&account.metadata, SERVICE_ACCOUNT_LABEL_PREFIX),
            ..ProfileSpec::default()
        },
    }
}

fn metadata(of: &Metadata, name: String) -> Metadata {
    Metadata { resource_version: of.resource_version.clone(), ..Metadata::named(name, None) }
}

fn labels(of: &Metadata, prefix: &str) -> BTreeMap<String, String> {
    let own = of.labels.iter().map(|(key, value)| (format!("{prefix}{key}"), value.clone()));
    own.chain([(format!("{prefix}{NAME_LABEL}"), of.name.clone())]).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata_of(name: &str, namespace: Option<&str>) -> Metadata {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        Metadata { labels, ..Metadata::named(name, namespace) }
    }

    #[test]
    fn a_namespace_allows_everything_and_hands_on_its_labels() {
        let profile =
            namespace_profile(&Object { metadata: metadata_of("shop", None), spec: NamespaceSpec {} });
        assert_eq!(profile.metadata.name, "kns.shop");
        assert_eq!(
            serde_json::to_value(&profile.spec).unwrap(),
            json!({
                "ingress": [{"action": "Allow"}],
                "egress": [{"action": "Allow"}],
                "labelsToApply": {"pcns.env": "prod", "pcns.projectcalico.org/name": "shop"},
            })
        );
    }

    #[test]
    fn a_service_account_hands_on_its_labels_and_allows_nothing() {
        let account = Object { metadata: metadata_of("robot", Some("shop")), spec: ServiceAccountSpec {} };
        let profile = service_account_profile(&account);
        assert_eq!(profile.metadata.name, "ksa.shop.robot");
        assert_eq!(
            serde_json::to_value(&profile.spec).unwrap(),
            json!({"labelsToApply": {"pcsa.env": "prod", "pcsa.projectcalico.org/name": "robot"}})
        );
    }
}
