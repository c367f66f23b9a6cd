//! Kubernetes' label selectors as Calico's selectors.

use crate::kube::{LabelSelector, Operator};
use crate::labels::{KUBERNETES, ORCHESTRATOR_LABEL};
use crate::selector::Selector;
use crate::validate::names::{is_label_value, is_qualified_name};

/// Pods. They are asked for by orchestrator even if no selector is there: host endpoints and network sets
/// never match a Kubernetes policy.
pub(super) fn pods(selector: Option<&LabelSelector>) -> Result<Selector, String> {
    let mut clauses = vec![format!("{ORCHESTRATOR_LABEL} == '{KUBERNETES}'")];
    if let Some(selector) = selector {
        add_clauses(selector, &mut clauses)?;
    }
    parse(&clauses)
}

/// Namespaces. An empty selector means all of them.
pub(super) fn namespaces(selector: &LabelSelector) -> Result<Selector, String> {
    let mut clauses = Vec::new();
    add_clauses(selector, &mut clauses)?;
    if clauses.is_empty() { Ok(Selector::all()) } else { parse(&clauses) }
}

/// Nodes. An empty selector means all of them.
pub(super) fn nodes(selector: &LabelSelector) -> Result<Selector, String> {
    namespaces(selector)
}

fn parse(clauses: &[String]) -> Result<Selector, String> {
    Selector::parse(&clauses.join(" && ")).map_err(|error| error.to_string())
}

fn add_clauses(selector: &LabelSelector, clauses: &mut Vec<String>) -> Result<(), String> {
    for (key, value) in &selector.match_labels {
        clauses.push(format!("{} == {}", label(key)?, quoted(value)?));
    }
    for requirement in &selector.match_expressions {
        let key = label(&requirement.key)?;
        let values = || -> Result<String, String> {
            let values: Result<Vec<_>, _> = requirement.values.iter().map(|value| quoted(value)).collect();
            Ok(values?.join(", "))
        };
        clauses.push(match requirement.operator {
            Operator::In => format!("{key} in {{ {} }}", values()?),
            Operator::NotIn => format!("{key} not in {{ {} }}", values()?),
            Operator::Exists => format!("has({key})"),
            Operator::DoesNotExist => format!("! has({key})"),
        });
    }
    Ok(())
}

/// Only what can be a label may become a part of a selector's text.
fn label(key: &str) -> Result<&str, String> {
    if is_qualified_name(key) { Ok(key) } else { Err(format!("{key:?} is no label")) }
}

fn quoted(value: &str) -> Result<String, String> {
    if is_label_value(value) {
        Ok(format!("'{value}'"))
    } else {
        Err(format!("{value:?} is no value of a label"))
    }
}
