//! Changes that meet other people's changes.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tortie_api::kind::{Key, Kind};
use tortie_api::resource::Resource;
use tortie_datastore::{List, Problem, Revision, Sink, Stored, WatchHandle};

use super::*;

/// A store of one object, where somebody else is quicker a number of times.
struct Contested {
    /// The object with its version.
    object: Mutex<Option<(Value, u32)>>,
    rivals: Mutex<u32>,
}

impl Contested {
    fn new(object: Option<Value>, rivals: u32) -> Self {
        Self { object: Mutex::new(object.map(|value| (value, 1))), rivals: Mutex::new(rivals) }
    }

    /// Lets a rival change the object, if there is one left.
    fn rival_acts(&self) {
        let mut rivals = self.rivals.lock().unwrap();
        if *rivals > 0 {
            *rivals -= 1;
            let mut object = self.object.lock().unwrap();
            let version = object.as_ref().map_or(0, |(_, version)| *version);
            *object = Some((tier(f64::from(*rivals) + 1000.0), version + 1));
        }
    }

    fn stored(&self) -> Option<Stored> {
        let (value, version) = self.object.lock().unwrap().clone()?;
        let resource = Resource::from_value(&value).unwrap();
        Some(Stored::new(resource.key(), &version.to_string(), Arc::new(resource), value))
    }

    fn order(&self) -> Value {
        self.stored().unwrap().value()["spec"]["order"].clone()
    }
}

impl Datastore for Contested {
    fn get(&self, key: &Key) -> Result<Stored, StoreError> {
        self.stored().ok_or_else(|| StoreError::NotFound { key: key.clone() })
    }

    fn list(&self, _: Kind, _: Option<&str>) -> Result<List, StoreError> {
        unreachable!("apply does not list")
    }

    fn watch(&self, _: Kind, _: &Revision, _: Sink) -> Result<WatchHandle, StoreError> {
        unreachable!("apply does not watch")
    }

    fn create(&self, value: &Value) -> Result<Stored, StoreError> {
        self.rival_acts();
        if let Some(stored) = self.stored() {
            return Err(StoreError::AlreadyExists { key: stored.key });
        }
        *self.object.lock().unwrap() = Some((value.clone(), 1));
        Ok(self.stored().unwrap())
    }

    fn update(&self, value: &Value) -> Result<Stored, StoreError> {
        self.rival_acts();
        let stored = self.stored().unwrap();
        let expected = resource_version(value).expect("apply never overwrites blindly").to_owned();
        if expected != *stored.resource_version {
            let found = stored.resource_version.to_string();
            return Err(StoreError::Conflict { key: stored.key, expected, found });
        }
        let version = expected.parse::<u32>().unwrap() + 1;
        *self.object.lock().unwrap() = Some((value.clone(), version));
        Ok(self.stored().unwrap())
    }

    fn delete(&self, _: &Key, _: Option<&str>) -> Result<(), StoreError> {
        unreachable!("apply does not delete")
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

fn tier(order: f64) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Tier",
        "metadata": {"name": "security"}, "spec": {"order": order},
    })
}

fn document(value: Value) -> Document {
    let resource = Resource::from_value(&value).unwrap();
    Document { place: "x.yaml:1".to_owned(), key: Key::new(Kind::Tier, None, "security"), value, resource }
}

#[test]
fn a_change_is_tried_again_on_top_of_the_other_one() {
    let store = Contested::new(Some(tier(1.0)), 5);
    assert!(matches!(apply(&store, &document(tier(2.0))), Ok(Done::Configured)));
    assert_eq!(store.order(), json!(2.0));
}

#[test]
fn an_object_that_somebody_else_creates_first_is_changed() {
    let store = Contested::new(None, 1);
    assert!(matches!(apply(&store, &document(tier(2.0))), Ok(Done::Configured)));
    assert_eq!(store.order(), json!(2.0));
}

#[test]
fn a_change_is_not_tried_for_ever() {
    let store = Contested::new(Some(tier(1.0)), u32::MAX);
    assert!(matches!(apply(&store, &document(tier(2.0))), Err(StoreError::Conflict { .. })));
}

#[test]
fn a_manifest_with_a_version_replaces_only_that_version() {
    let store = Contested::new(Some(tier(1.0)), 0);
    let mut old = tier(2.0);
    old["metadata"]["resourceVersion"] = json!("7");
    assert!(matches!(apply(&store, &document(old.clone())), Err(StoreError::Conflict { .. })));
    assert_eq!(store.order(), json!(1.0));
    old["metadata"]["resourceVersion"] = json!("1");
    assert!(matches!(apply(&store, &document(old)), Ok(Done::Configured)));
    assert_eq!(store.order(), json!(2.0));
}

#[test]
fn what_the_cluster_wrote_stays() {
    let mut live = tier(1.0);
    live["metadata"]["uid"] = json!("u");
    live["metadata"]["labels"] = json!({"old": "label"});
    live["status"] = json!({"conditions": []});
    let mut manifest = tier(2.0);
    manifest["metadata"]["creationTimestamp"] = Value::Null;
    manifest["status"] = json!({});
    let new = with_cluster_fields(&manifest, &live);
    assert_eq!(new["metadata"], json!({"name": "security", "uid": "u"}));
    assert_eq!(new["status"], live["status"]);
    assert_eq!(new["spec"]["order"], json!(2.0));
}

#[test]
fn an_object_that_is_the_same_but_for_the_clusters_fields_is_unchanged() {
    let mut live = tier(1.0);
    live["metadata"]["uid"] = json!("u");
    let store = Contested::new(Some(live), u32::MAX);
    assert!(matches!(apply(&store, &document(tier(1.0))), Ok(Done::Unchanged)));
}
