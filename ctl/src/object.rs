//! How objects are named and shown in whole.

use serde_json::Value;
use tortie_api::kind::{Key, Kind};
use tortie_datastore::Stored;

/// The type as kubectl names it in results: `pod`, `networkpolicy.projectcalico.org`.
pub(crate) fn type_name(kind: Kind) -> String {
    with_group(&kind.name().to_ascii_lowercase(), kind)
}

/// The type so that it means no other one on the command line: `pod.v1`, `networkpolicy.projectcalico.org`.
pub(crate) fn exact_type_name(kind: Kind) -> String {
    match kind.group() {
        "" => format!("{}.{}", type_name(kind), kind.api_version()),
        _ => type_name(kind),
    }
}

/// The type as kubectl names it when it is not found: `pods`, `networkpolicies.projectcalico.org`.
pub(crate) fn plural_name(kind: Kind) -> String {
    with_group(kind.plural(), kind)
}

fn with_group(name: &str, kind: Kind) -> String {
    match kind.group() {
        "" => name.to_owned(),
        group => format!("{name}.{group}"),
    }
}

/// `networkpolicy.projectcalico.org/allow-web`.
pub(crate) fn full_name(key: &Key) -> String {
    format!("{}/{}", type_name(key.kind), key.name)
}

/// `networkpolicies.projectcalico.org "allow-web" not found in namespace shop`.
pub(crate) fn not_found(key: &Key) -> String {
    let place =
        key.namespace.as_ref().map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    format!("{} {:?} not found{place}", plural_name(key.kind), key.name)
}

/// The object as written, with its namespace and version.
pub(crate) fn value(stored: &Stored) -> Value {
    let mut value = stored.value();
    set_namespace(&mut value, &stored.key);
    value
}

/// Writes out the namespace of an object that leaves it to be `default`.
pub(crate) fn set_namespace(value: &mut Value, key: &Key) {
    if let (Some(namespace), Some(metadata)) =
        (&key.namespace, value.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("namespace".to_owned(), namespace.clone().into());
    }
}
