//! Staged policies.

use serde::Serialize;
use serde_json::Value;

use super::Result;
use crate::resource::FieldError;
use crate::staged::{Staged, StagedAction};

/// Checks a staged policy with the check of its enforced twin.
pub(super) fn check<S: Serialize>(spec: &Staged<S>, policy: impl FnOnce(&S) -> Result) -> Result {
    policy(&spec.policy)?;
    if spec.staged_action == StagedAction::Delete { only_tier(&spec.policy) } else { Ok(()) }
}

/// A deletion says which policy and in which tier, and nothing that would be lost with it.
fn only_tier<S: Serialize>(policy: &S) -> Result {
    let Ok(Value::Object(fields)) = serde_json::to_value(policy) else { return Ok(()) };
    let is_set = |value: &Value| match value {
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    match fields.iter().find(|(name, value)| *name != "tier" && is_set(value)) {
        Some((name, _)) => Err(FieldError::new(
            name.as_str(),
            "cannot stand beside stagedAction Delete, which takes no field but tier",
        )),
        None => Ok(()),
    }
}
