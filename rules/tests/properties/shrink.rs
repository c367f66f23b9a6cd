//! Cuts manifests down to what a failure needs.

use serde_json::Value;

/// Removes objects, then fields and entries of lists, as long as it still fails.
pub(crate) fn shrink(manifests: Vec<Value>, fails: &dyn Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut whole = Value::Array(manifests);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    loop {
        let before = whole.clone();
        for depth in 1..12 {
            // From the end, so that places before a removed one keep their names.
            for place in places(&whole, depth).into_iter().rev() {
                let mut smaller = whole.clone();
                if remove(&mut smaller, &place) && fails(&list(&smaller)) {
                    whole = smaller;
                }
            }
        }
        if whole == before {
            return list(&whole);
        }
    }
}

/// JSON pointers to everything at a depth.
fn places(value: &Value, depth: usize) -> Vec<String> {
    if depth == 0 {
        return vec![String::new()];
    }
    let below = |key: &str, value: &Value| -> Vec<String> {
        let key = key.replace('~', "~0").replace('/', "~1");
        places(value, depth - 1).into_iter().map(|rest| format!("/{key}{rest}")).collect()
    };
    match value {
        Value::Object(map) => map.iter().flat_map(|(key, value)| below(key, value)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().flat_map(|(at, value)| below(&at.to_string(), value)).collect()
        }
        _ => Vec::new(),
    }
}

fn remove(whole: &mut Value, place: &str) -> bool {
    let Some((parent, key)) = place.rsplit_once('/') else { return false };
    match whole.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&key.replace("~1", "/").replace("~0", "~")).is_some(),
        Some(Value::Array(list)) => {
            let at: usize = key.parse().expect("places of a list are numbers");
            let is_there = at < list.len();
            if is_there {
                list.remove(at);
            }
            is_there
        }
        _ => false,
    }
}

#[test]
fn only_what_is_needed_is_left() {
    let manifests = vec![
        serde_json::json!({"kind": "a"}),
        serde_json::json!({"kind": "b", "spec": {"rules": [1, 2, 3], "more": true}}),
    ];
    let fails = |manifests: &[Value]| {
        manifests.iter().any(|m| {
            m.pointer("/spec/rules").and_then(Value::as_array).is_some_and(|l| l.contains(&2.into()))
        })
    };
    assert_eq!(shrink(manifests, &fails), [serde_json::json!({"spec": {"rules": [2]}})]);
}
