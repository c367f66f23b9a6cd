//! Objects that come, go or change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use tortie_api::resource::Resource;

use super::super::cluster::Cluster;
use super::{Change, FieldChange, ObjectChange};

/// The changes, by kind, namespace and name.
pub(super) fn changes(before: &Cluster, after: &Cluster) -> Vec<ObjectChange> {
    let (before, after) = (before.resources(), after.resources());
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let (old, new) = (before.get(key), after.get(key));
            Some(ObjectChange {
                kind: key.kind.name(),
                api_version: key.kind.api_version(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                change: Change::of(old, new)?,
                fields: old.zip(new).map(|(old, new)| fields(old, new)).unwrap_or_default(),
            })
        })
        .collect()
}

fn fields(old: &Resource, new: &Resource) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    let mut compare = |field: String, before: Option<String>, after: Option<String>| {
        if before != after {
            changes.push(FieldChange { field, before, after });
        }
    };
    let (before, after) = (&old.metadata().labels, &new.metadata().labels);
    let labels: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for label in labels {
        let of = |labels: &BTreeMap<String, String>| labels.get(label).cloned();
        compare(format!("labels.{label}"), of(before), of(after));
    }
    match (old, new) {
        (Resource::Tier(old), Resource::Tier(new)) => {
            let order = |order: Option<f64>| order.map(|order| order.to_string());
            compare("order".to_owned(), order(old.spec.order), order(new.spec.order));
            let action = |action| Some(format!("{action:?}"));
            let (old, new) = (old.spec.default_action, new.spec.default_action);
            compare("defaultAction".to_owned(), action(old), action(new));
        }
        (Resource::NetworkSet(old), Resource::NetworkSet(new))
        | (Resource::GlobalNetworkSet(old), Resource::GlobalNetworkSet(new)) => {
            let (old, new) = (&old.spec.nets, &new.spec.nets);
            compare("nets".to_owned(), without(old, new), without(new, old));
        }
        (Resource::FelixConfiguration(old), Resource::FelixConfiguration(new)) => {
            let names: BTreeMap<_, _> = old.spec.settings.iter().chain(&new.spec.settings).collect();
            for name in names.into_keys() {
                let text = |value: Option<&serde_json::Value>| value.map(ToString::to_string);
                compare(name.clone(), text(old.spec.settings.get(name)), text(new.spec.settings.get(name)));
            }
        }
        _ => {}
    }
    changes
}

/// Entries of a list that are not in the other one.
fn without<T: PartialEq + Display>(list: &[T], other: &[T]) -> Option<String> {
    let only: Vec<String> =
        list.iter().filter(|entry| !other.contains(entry)).map(ToString::to_string).collect();
    (!only.is_empty()).then(|| only.join(", "))
}
