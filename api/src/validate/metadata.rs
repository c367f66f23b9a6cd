//! Names, labels and annotations.

use super::names::{is_dns_label, is_dns_subdomain, is_label_value, is_qualified_name};
use super::{Result, ensure};
use crate::kind::Kind;
use crate::labels::NAMESPACE_LABEL;
use crate::meta::Metadata;
use crate::resource::FieldError;

/// The most that all annotations of an object may hold, keys and values, in bytes.
const ANNOTATIONS_MAX_BYTES: usize = 262_144;

pub(super) fn check(kind: Kind, metadata: &Metadata) -> Result {
    name(kind, &metadata.name)
        .map_err(|message| FieldError::new("name", message))
        .and_then(|()| namespace(metadata.namespace.as_deref()))
        .and_then(|()| labels(metadata.labels.iter()).map_err(|error| error.within("labels")))
        .and_then(|()| reserved_label(kind, metadata))
        .and_then(|()| annotations(metadata))
        .map_err(|error| error.within("metadata"))
}

fn namespace(namespace: Option<&str>) -> Result {
    let Some(namespace) = namespace else { return Ok(()) };
    ensure(is_dns_label(namespace), "namespace", || {
        format!("{namespace:?} is no name of a namespace: {LABEL_FORM}")
    })
}

const LABEL_FORM: &str =
    "use at most 63 lower-case letters, digits and '-', with a letter or digit at both ends";
pub(super) const SUBDOMAIN_FORM: &str =
    "use at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends";

fn name(kind: Kind, name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("is required".to_owned());
    }
    let (is_good, form) = match kind {
        Kind::Tier | Kind::Namespace | Kind::Service => (is_dns_label(name), LABEL_FORM),
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => {
            (is_policy_name(name) || is_converted_policy_name(name), POLICY_FORM)
        }
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => (is_policy_name(name), POLICY_FORM),
        Kind::BaselineAdminNetworkPolicy => {
            (name == BASELINE_NAME, "there is one in a cluster, which is called default")
        }
        Kind::FelixConfiguration => (is_configuration_name(name), "use default or node.NODENAME"),
        _ => (is_dns_subdomain(name), SUBDOMAIN_FORM),
    };
    if is_good { Ok(()) } else { Err(format!("{name:?} is no name of a {}: {form}", kind.name())) }
}

/// The name of the only BaselineAdminNetworkPolicy.
const BASELINE_NAME: &str = "default";

const POLICY_FORM: &str =
    "use lower-case letters, digits and '-', with at most one '.' between two such names";

/// One DNS label, or two with a dot between: policies of a tier used to be called `tier.name`.
/// Labels may be longer than in DNS, up to 253 in all.
fn is_policy_name(name: &str) -> bool {
    is_dns_subdomain(name) && name.bytes().filter(|b| *b == b'.').count() <= 1
}

/// Names under which older stores keep policies of Kubernetes and OpenStack.
fn is_converted_policy_name(name: &str) -> bool {
    is_dns_subdomain(name) && (name.starts_with("knp.default.") || name.starts_with("ossg.default."))
}

fn is_configuration_name(name: &str) -> bool {
    name == "default" || name.strip_prefix("node.").is_some_and(is_dns_subdomain)
}

/// Checks keys and values of labels. Paths begin at the key.
pub(super) fn labels<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> Result {
    for (key, value) in labels {
        label_key(key).map_err(|error| error.within(key))?;
        label_value(value).map_err(|error| error.within(key))?;
    }
    Ok(())
}

pub(super) fn label_key(key: &str) -> Result {
    ensure(is_qualified_name(key), "", || {
        format!(
            "{key:?} is no label: use at most 63 letters, digits, '-', '_' and '.', with a letter or digit at \
             both ends, and a DNS name and '/' before them if need be"
        )
    })
}

pub(super) fn label_value(value: &str) -> Result {
    ensure(is_label_value(value), "", || {
        format!(
            "{value:?} is no value of a label: use at most 63 letters, digits, '-', '_' and '.', with a letter \
             or digit at both ends"
        )
    })
}

fn reserved_label(kind: Kind, metadata: &Metadata) -> Result {
    let is_set = matches!(kind, Kind::NetworkSet | Kind::GlobalNetworkSet);
    let field = format!("labels.{NAMESPACE_LABEL}");
    ensure(!is_set || !metadata.labels.contains_key(NAMESPACE_LABEL), &field, || {
        format!("a {} may not have this label: it is set by the system", kind.name())
    })
}

fn annotations(metadata: &Metadata) -> Result {
    for key in metadata.annotations.keys() {
        ensure(is_qualified_name(&key.to_ascii_lowercase()), &format!("annotations.{key}"), || {
            format!("{key:?} is no key of an annotation")
        })?;
    }
    let bytes: usize = metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    ensure(bytes <= ANNOTATIONS_MAX_BYTES, "annotations", || {
        format!("hold {bytes} bytes, at most {ANNOTATIONS_MAX_BYTES} are allowed")
    })
}
