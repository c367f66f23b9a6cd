//! The columns of each kind: those that kubectl prints for it, Calico's kinds as their CRDs say, and with `-o wide`
//! those that calicoctl adds. `NAME` is not among them: it comes first everywhere.
//!
//! Objects are shown as written; where a field is absent and has a default, the default is shown.

use serde_json::Value;
use tortie_api::kind::Kind;
use tortie_datastore::Stored;

use crate::age;

mod calico;
mod kube;

/// What kubectl shows for a value that is not there.
const NONE: &str = "<none>";

/// A column.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// In capitals.
    pub(crate) title: &'static str,
    /// What stands in it.
    pub(crate) cell: fn(&Row<'_>) -> String,
    is_wide: bool,
}

const fn column(title: &'static str, cell: fn(&Row<'_>) -> String) -> Column {
    Column { title, cell, is_wide: false }
}

/// A column that is only shown with `-o wide`.
const fn wide(title: &'static str, cell: fn(&Row<'_>) -> String) -> Column {
    Column { title, cell, is_wide: true }
}

const AGE: Column = column("AGE", |row| {
    age::age(row.value.pointer("/metadata/creationTimestamp").and_then(Value::as_str), row.now_secs)
});

/// The columns of a kind.
pub(crate) fn of(kind: Kind, is_wide: bool) -> Vec<Column> {
    let columns: &[Column] = match kind {
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy => {
            calico::NETWORK_POLICY
        }
        Kind::GlobalNetworkPolicy => calico::GLOBAL_NETWORK_POLICY,
        Kind::NetworkSet | Kind::GlobalNetworkSet => calico::NETWORK_SET,
        Kind::Tier => calico::TIER,
        Kind::IPPool => calico::IP_POOL,
        Kind::WorkloadEndpoint => calico::WORKLOAD_ENDPOINT,
        Kind::HostEndpoint => calico::HOST_ENDPOINT,
        Kind::Profile => calico::PROFILE,
        Kind::StagedKubernetesNetworkPolicy
        | Kind::FelixConfiguration
        | Kind::BGPConfiguration
        | Kind::BaselineAdminNetworkPolicy => &[AGE],
        Kind::Node => calico::NODE,
        Kind::KubeNetworkPolicy => kube::NETWORK_POLICY,
        Kind::ClusterNetworkPolicy => kube::CLUSTER_NETWORK_POLICY,
        Kind::AdminNetworkPolicy => kube::ADMIN_NETWORK_POLICY,
        Kind::Namespace => kube::NAMESPACE,
        Kind::ServiceAccount => kube::SERVICE_ACCOUNT,
        Kind::Pod => kube::POD,
        Kind::Service => kube::SERVICE,
        Kind::EndpointSlice => kube::ENDPOINT_SLICE,
        Kind::KubeNode => kube::NODE,
    };
    columns.iter().filter(|column| is_wide || !column.is_wide).copied().collect()
}

/// An object that is to become a row.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    stored: &'a Stored,
    value: Value,
    now_secs: i64,
}

impl<'a> Row<'a> {
    /// A row; `now_secs` counts from 1970.
    pub(crate) fn new(stored: &'a Stored, now_secs: i64) -> Self {
        Self { stored, value: stored.value(), now_secs }
    }

    /// The value at a JSON pointer, if it is there and not empty.
    fn text(&self, pointer: &str) -> Option<String> {
        self.value.pointer(pointer).and_then(scalar)
    }

    fn text_or(&self, pointer: &str, default: &str) -> String {
        self.text(pointer).unwrap_or_else(|| default.to_owned())
    }

    fn text_or_none(&self, pointer: &str) -> String {
        self.text_or(pointer, NONE)
    }

    /// The entries of the list at a JSON pointer.
    fn list(&self, pointer: &str) -> &[Value] {
        self.value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The texts of the list at a JSON pointer.
    fn joined(&self, pointer: &str) -> String {
        joined(self.list(pointer).iter().filter_map(scalar))
    }

    /// A field of the condition of a type in `status.conditions`.
    fn condition(&self, condition: &str, field: &str) -> Option<String> {
        let found = self.list("/status/conditions").iter().find(|entry| entry["type"] == condition)?;
        scalar(&found[field])
    }
}

/// A text, number or boolean that is not empty.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// `a,b`, or `<none>`.
fn joined(texts: impl Iterator<Item = String>) -> String {
    let text = texts.collect::<Vec<_>>().join(",");
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// `a=b,c=d` of the map at a JSON pointer.
fn pairs(value: Option<&Value>) -> Vec<String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, value)| format!("{key}={}", scalar(value).unwrap_or_default())).collect()
}
