//! Objects of the classic CRDs (`crd.projectcalico.org/v1`), whose metadata is stored in an annotation.

use serde_json::{Map, Value};

use crate::kind::Kind;
use crate::policy::DEFAULT_TIER;
use crate::resource::FieldError;

/// Holds the metadata of the object as JSON, with the labels and annotations that its user gave it.
const METADATA_ANNOTATION: &str = "projectcalico.org/metadata";

/// The object with the metadata that its user meant: labels and annotations of both places, where those of
/// the annotation win, and the name of the annotation. An object without the annotation was made with plain
/// kubectl and stays as it is.
pub(crate) fn with_stored_metadata(kind: Kind, value: &Value) -> Result<Value, FieldError> {
    let Some(text) = value.pointer("/metadata/annotations").and_then(|a| a.get(METADATA_ANNOTATION)) else {
        return Ok(value.clone());
    };
    let stored: Map<String, Value> =
        text.as_str().and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| {
            FieldError::new(format!("metadata.annotations.{METADATA_ANNOTATION}"), "is no JSON object")
        })?;
    let mut value = value.clone();
    let is_in_default_tier = is_tiered(kind)
        && value
            .pointer("/spec/tier")
            .and_then(Value::as_str)
            .is_none_or(|t| t.is_empty() || t == DEFAULT_TIER);
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        merge(metadata, &stored, "labels");
        merge(metadata, &stored, "annotations");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(METADATA_ANNOTATION);
        }
        if let Some(timestamp) = stored.get("creationTimestamp").filter(|t| !t.is_null()) {
            metadata.insert("creationTimestamp".to_owned(), timestamp.clone());
        }
        if let Some(name) = name(metadata, &stored, is_in_default_tier) {
            metadata.insert("name".to_owned(), Value::String(name));
        }
    }
    Ok(value)
}

fn is_tiered(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
    )
}

fn merge(metadata: &mut Map<String, Value>, stored: &Map<String, Value>, field: &str) {
    let Some(Value::Object(ours)) = stored.get(field) else { return };
    let entry = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    if let Value::Object(merged) = entry {
        merged.extend(ours.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
}

/// The stored name; without one, policies of the default tier lose the prefix that old releases gave them.
fn name(
    metadata: &Map<String, Value>,
    stored: &Map<String, Value>,
    is_in_default_tier: bool,
) -> Option<String> {
    if let Some(name) = stored.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
        return Some(name.to_owned());
    }
    let name = metadata.get("name")?.as_str()?;
    is_in_default_tier.then(|| name.strip_prefix("default.").map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Resource;

    #[test]
    fn labels_and_name_come_from_the_annotation() {
        let value = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "GlobalNetworkPolicy",
            "metadata": {
                "name": "default.web",
                "annotations": {
                    "projectcalico.org/metadata": r#"{"creationTimestamp":null,"labels":{"a":"stored","b":"2"}}"#
                },
                "labels": {"a": "native"}
            },
            "spec": {"types": ["Ingress"]}
        });
        let resource = Resource::from_value(&value).unwrap();
        let metadata = resource.metadata();
        assert_eq!(metadata.name, "web");
        assert_eq!(metadata.labels["a"], "stored");
        assert_eq!(metadata.labels["b"], "2");
        assert!(metadata.annotations.is_empty());
    }

    #[test]
    fn a_stored_name_is_taken_as_it_is() {
        let value = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": "default.web",
                "namespace": "shop",
                "annotations": {"projectcalico.org/metadata": r#"{"name":"default.web"}"#}
            },
        });
        assert_eq!(Resource::from_value(&value).unwrap().key().to_string(), "NetworkPolicy/shop/default.web");
    }

    #[test]
    fn an_object_without_the_annotation_stays_as_it_is() {
        let value = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "GlobalNetworkSet",
            "metadata": {"name": "default.x", "labels": {"a": "native"}},
        });
        let resource = Resource::from_value(&value).unwrap();
        assert_eq!(resource.metadata().name, "default.x");
        assert_eq!(resource.metadata().labels["a"], "native");
    }
}
