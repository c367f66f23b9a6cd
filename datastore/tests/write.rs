//! Creating, changing and deleting objects in a folder that belongs to people.

#[cfg(test)]
mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::{Folder, Watched, key, net, problems, set, set_value, sets};
use serde_json::{Value, json};
use tortie_datastore::{Datastore, Error, LocalStore};

fn with_version(mut value: Value, version: &str) -> Value {
    value["metadata"]["resourceVersion"] = version.into();
    value
}

#[test]
fn what_is_created_can_be_got_here_and_elsewhere_at_once() {
    let folder = Folder::new();
    let (store, other) = (folder.open(), folder.open());
    let watch = Watched::now(&other);
    let created = store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    assert_eq!(store.get(&key("a")).unwrap(), created);
    assert_eq!(folder.files(), ["globalnetworksets.projectcalico.org/a.yaml"]);
    assert_eq!(folder.read("globalnetworksets.projectcalico.org/a.yaml"), set("a", "10.0.0.0/8"));
    assert_eq!(watch.after_sync(&other), ["+a 10.0.0.0/8"]);
    assert_eq!(other.get(&key("a")).unwrap().resource_version, created.resource_version);
    assert_eq!(created.value()["metadata"]["resourceVersion"], *created.resource_version);
}

#[test]
fn creating_twice_fails_and_so_does_what_cannot_be_created() {
    let folder = Folder::new();
    folder.write("mine.yaml", set("a", "10.0.0.0/8"));
    let store = folder.open();
    let again = store.create(&set_value("a", "10.1.0.0/16"));
    assert!(matches!(again, Err(Error::AlreadyExists { key: k }) if k == key("a")));
    let field = |result| match result {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(store.create(&set_value("b", "10.0.0.999/8"))), "spec.nets[0]");
    assert_eq!(
        field(store.create(&with_version(set_value("b", "10.0.0.0/8"), "1"))),
        "metadata.resourceVersion"
    );
    for name in ["..", "../../escaped", "/tmp/escaped", ".hidden", ""] {
        assert!(matches!(store.create(&set_value(name, "10.0.0.0/8")), Err(Error::Invalid { .. })), "{name}");
    }
    assert_eq!(folder.files(), ["mine.yaml"]);
}

#[test]
fn a_file_name_that_is_taken_is_left_alone() {
    let folder = Folder::new();
    folder.write("globalnetworksets.projectcalico.org/a.yaml", set("other", "10.0.0.0/8"));
    let store = folder.open();
    store.create(&set_value("a", "10.1.0.0/16")).unwrap();
    assert_eq!(sets(&store), ["a", "other"]);
    assert_eq!(
        folder.files(),
        ["globalnetworksets.projectcalico.org/a-1.yaml", "globalnetworksets.projectcalico.org/a.yaml"]
    );
}

#[test]
fn an_update_is_a_compare_and_swap() {
    let folder = Folder::new();
    let store = folder.open();
    let first = store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    let second = store.update(&with_version(set_value("a", "10.1.0.0/16"), &first.resource_version)).unwrap();
    assert_ne!(first.resource_version, second.resource_version);
    match store.update(&with_version(set_value("a", "10.2.0.0/16"), &first.resource_version)) {
        Err(Error::Conflict { key: k, expected, found }) => {
            assert_eq!((k, expected.as_str()), (key("a"), &*first.resource_version));
            assert_eq!(found, *second.resource_version);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(net(&store, "a").as_deref(), Some("10.1.0.0/16"));
    // Without a version it always happens.
    store.update(&set_value("a", "10.3.0.0/16")).unwrap();
    assert_eq!(net(&store, "a").as_deref(), Some("10.3.0.0/16"));
    assert!(matches!(store.update(&set_value("b", "10.0.0.0/8")), Err(Error::NotFound { .. })));
    let invalid = store.update(&set_value("a", "nonsense"));
    assert!(matches!(invalid, Err(Error::Invalid { field, .. }) if field == "spec.nets[0]"));
}

#[test]
fn what_a_person_wrote_meanwhile_is_a_conflict() {
    let folder = Folder::new();
    let store = folder.open();
    let read = store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    folder.write("globalnetworksets.projectcalico.org/a.yaml", set("a", "10.1.0.0/16"));
    let late = store.update(&with_version(set_value("a", "10.2.0.0/16"), &read.resource_version));
    assert!(matches!(late, Err(Error::Conflict { .. })));
    assert!(matches!(store.delete(&key("a"), Some(&read.resource_version)), Err(Error::Conflict { .. })));
    assert_eq!(net(&store, "a").as_deref(), Some("10.1.0.0/16"));
}

#[test]
fn an_update_without_a_change_writes_nothing() {
    let folder = Folder::new();
    let text = format!("# mine\n{}", set("a", "10.0.0.0/8").replace("  - 10", "    - 10"));
    folder.write("a.yaml", &text);
    let store = folder.open();
    let before = store.get(&key("a")).unwrap();
    assert_eq!(store.update(&before.value()).unwrap(), before);
    assert_eq!(folder.read("a.yaml"), text);
}

#[test]
fn an_update_changes_one_document_and_no_other_byte() {
    let folder = Folder::new();
    let around = ["# The sets of the shop.\n", "---   # third\n# keep: me\n", "\n# end\n"];
    let text = |second: &str| {
        let first =
            "apiVersion: projectcalico.org/v3   # odd\nkind:   GlobalNetworkSet\nmetadata: {name: a}\n";
        let third = "{apiVersion: v1, kind: Namespace, metadata: {name: n}}\n";
        [around[0], first, "---\n# about b\n", second, around[1], third, around[2]].concat()
    };
    folder.write("all.yaml", text(&set("b", "10.0.0.0/8")));
    fs::set_permissions(folder.path("all.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    let store = folder.open();
    store.update(&set_value("b", "10.1.0.0/16")).unwrap();
    assert_eq!(folder.read("all.yaml"), text(&set("b", "10.1.0.0/16")));
    assert_eq!(fs::metadata(folder.path("all.yaml")).unwrap().permissions().mode() & 0o7777, 0o640);

    store.delete(&key("b"), None).unwrap();
    assert_eq!(folder.read("all.yaml"), text("").replace("---\n# about b\n", ""));
    store.delete(&key("a"), None).unwrap();
    store.delete(&tortie_api::kind::Key::new(tortie_api::kind::Kind::Namespace, None, "n"), None).unwrap();
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn deleting_the_last_document_removes_the_file() {
    let folder = Folder::new();
    let store = folder.open();
    let watch = Watched::now(&store);
    let stored = store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    store.delete(&key("a"), Some(&stored.resource_version)).unwrap();
    assert_eq!(folder.files(), [""; 0]);
    assert!(matches!(store.delete(&key("a"), None), Err(Error::NotFound { .. })));
    assert_eq!(watch.after_sync(&store), ["+a 10.0.0.0/8", "-a"]);
}

#[test]
fn deleting_an_object_deletes_every_document_of_it() {
    let folder = Folder::new();
    folder.write("a.yaml", [set("x", "10.1.0.0/16"), set("y", "10.1.0.0/16")].join("---\n"));
    folder.write("b.yaml", set("x", "10.2.0.0/16"));
    folder.write("c.yaml", set("x", "10.2.0.999/16"));
    let store = folder.open();
    store.delete(&key("x"), None).unwrap();
    assert_eq!(sets(&store), ["y"]);
    assert_eq!(folder.files(), ["a.yaml"]);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn an_update_mends_a_broken_document() {
    let folder = Folder::new();
    folder.write("a.yaml", set("a", "10.0.0.0/8"));
    let store = folder.open();
    folder.write("a.yaml", set("a", "10.0.0.999/8"));
    store.sync().unwrap();
    // Nothing else changes, so this is the version in force.
    store.update(&set_value("a", "10.0.0.0/8")).unwrap();
    assert_eq!(folder.read("a.yaml"), set("a", "10.0.0.0/8"));
    assert_eq!(problems(&store), [""; 0]);

    folder.write("a.yaml", "]: nobody knows what this was\n");
    store.sync().unwrap();
    let lost = store.update(&set_value("a", "10.1.0.0/16"));
    assert!(matches!(lost, Err(Error::NotEditable { file, .. }) if file == folder.path("a.yaml")));
    assert!(matches!(store.delete(&key("a"), None), Err(Error::NotEditable { .. })));
    assert_eq!(net(&store, "a").as_deref(), Some("10.0.0.0/8"));
}

#[test]
fn an_object_with_a_broken_document_is_not_created_a_second_time() {
    let folder = Folder::new();
    folder.write("a.yaml", set("a", "10.0.0.999/8"));
    let store = folder.open();
    match store.create(&set_value("a", "10.0.0.0/8")) {
        Err(Error::NotEditable { file, message, .. }) => {
            assert_eq!(file, folder.path("a.yaml"));
            assert_eq!(message, "it has a broken document there, in line 7");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn json_stays_json_and_a_list_stays_a_list() {
    let folder = Folder::new();
    folder.write("a.json", set_value("a", "10.0.0.0/8").to_string());
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        set_value("b", "10.0.0.0/8"), set_value("c", "10.0.0.0/8"), set_value("d", "10.0.0.0/8"),
    ]});
    folder.write("list.json", list.to_string());
    folder.write("list.yaml", tortie_datastore::to_yaml(&list).replace("name: ", "name: y"));
    let store = folder.open();
    assert_eq!(sets(&store), ["a", "b", "c", "d", "yb", "yc", "yd"]);

    store.update(&set_value("a", "10.1.0.0/16")).unwrap();
    store.update(&set_value("c", "10.1.0.0/16")).unwrap();
    store.delete(&key("b"), None).unwrap();
    store.update(&set_value("yc", "10.1.0.0/16")).unwrap();
    store.delete(&key("yb"), None).unwrap();
    let parsed = |name: &str| serde_json::from_str::<Value>(&folder.read(name)).unwrap();
    assert_eq!(parsed("a.json"), set_value("a", "10.1.0.0/16"));
    assert_eq!(
        parsed("list.json")["items"],
        json!([set_value("c", "10.1.0.0/16"), set_value("d", "10.0.0.0/8")])
    );
    assert!(folder.read("list.yaml").starts_with("apiVersion: v1\nitems:\n- apiVersion:"));
    store.delete(&key("yc"), None).unwrap();
    store.delete(&key("yd"), None).unwrap();
    assert_eq!(folder.files(), ["a.json", "list.json"]);
    assert_eq!(sets(&store), ["a", "c", "d"]);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_change_that_would_harm_another_document_is_refused() {
    let folder = Folder::new();
    // The directive belongs to the second document, and would be left without one.
    let text = format!("{}...\n%YAML 1.2\n---\n{}", set("a", "10.0.0.0/8"), set("b", "10.0.0.0/8"));
    folder.write("a.yaml", &text);
    let store = folder.open();
    assert_eq!(sets(&store), ["a", "b"]);
    if let Err(error) = store.delete(&key("b"), None) {
        assert!(matches!(error, Error::NotEditable { .. }), "{error:?}");
        assert_eq!(folder.read("a.yaml"), text);
    } else {
        assert_eq!(sets(&store), ["a"]);
        assert_eq!(problems(&store), [""; 0]);
    }
}

#[test]
fn a_linked_file_is_changed_where_it_is() {
    let folder = Folder::new();
    folder.write("elsewhere/a.yaml", set("a", "10.0.0.0/8"));
    fs::create_dir(folder.path("root")).unwrap();
    symlink("../elsewhere/a.yaml", folder.path("root/a.yaml")).unwrap();
    let store = LocalStore::open(folder.path("root")).unwrap();
    store.update(&set_value("a", "10.1.0.0/16")).unwrap();
    assert!(folder.path("root/a.yaml").is_symlink());
    assert_eq!(folder.read("elsewhere/a.yaml"), set("a", "10.1.0.0/16"));
    assert_eq!(net(&store, "a").as_deref(), Some("10.1.0.0/16"));
}

#[test]
fn the_leftovers_of_a_killed_writer_do_no_harm() {
    let folder = Folder::new();
    let store = folder.open();
    store.create(&set_value("a", "10.0.0.0/8")).unwrap();
    folder.write("globalnetworksets.projectcalico.org/.tortie.tmp", "apiVersion: proj");
    folder.write(".tortie.lock", "");
    drop(store);
    let store = folder.open();
    assert_eq!(sets(&store), ["a"]);
    assert_eq!(problems(&store), [""; 0]);
    store.update(&set_value("a", "10.1.0.0/16")).unwrap();
    store.create(&set_value("b", "10.1.0.0/16")).unwrap();
    assert!(!folder.path("globalnetworksets.projectcalico.org/.tortie.tmp").exists());
}

#[test]
fn a_version_is_the_same_in_every_process_and_for_every_layout() {
    let folder = Folder::new();
    folder.write("a.yaml", set("a", "10.0.0.0/8"));
    let first = folder.open().get(&key("a")).unwrap().resource_version;
    let mut value = set_value("a", "10.0.0.0/8");
    value["metadata"]["resourceVersion"] = "12345".into();
    folder.write("a.yaml", "");
    fs::remove_file(folder.path("a.yaml")).unwrap();
    folder.write("sub/a.json", format!("{value:#}"));
    let second = folder.open().get(&key("a")).unwrap();
    assert_eq!(first, second.resource_version);
    assert_eq!(second.value()["metadata"]["resourceVersion"], *first);
    assert_eq!(first.len(), 32);
}
