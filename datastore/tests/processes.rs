//! Several processes on one folder, and processes that are killed. The test binary starts itself again for them.

#![allow(clippy::unwrap_used, reason = "a failed test is what a panic is for")]

#[cfg(test)]
mod common;

use std::env;
use std::process::{Child, Command, Stdio};

use common::{Folder, key, problems, wait_for};
use serde_json::{Value, json};
use tortie_datastore::{Datastore, Error, LocalStore};

const FOLDER: &str = "TORTIE_TEST_FOLDER";
const COUNT: &str = "TORTIE_TEST_COUNT";

fn counter(count: u64) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": "counter", "annotations": {"count": count.to_string()}}, "spec": {"nets": []},
    })
}

fn count(value: &Value) -> u64 {
    value["metadata"]["annotations"]["count"].as_str().unwrap().parse().unwrap()
}

/// Adds one, as often as it takes.
fn increment(store: &LocalStore) {
    loop {
        let mut value = store.get(&key("counter")).unwrap().value();
        value["metadata"]["annotations"]["count"] = (count(&value) + 1).to_string().into();
        match store.update(&value) {
            Ok(_) => return,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Not a test by itself: what the processes run that the others start.
#[test]
#[ignore = "run by the other tests as a process of its own"]
fn child_increments() {
    let store = LocalStore::open(env::var(FOLDER).unwrap()).unwrap();
    let count: u64 = env::var(COUNT).unwrap().parse().unwrap();
    for _ in 0..count {
        increment(&store);
    }
}

fn start_child(folder: &Folder, count: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_increments", "--ignored"])
        .env(FOLDER, folder.root())
        .env(COUNT, count.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn of_the_increments_of_several_processes_none_is_lost() {
    let folder = Folder::new();
    let store = folder.open();
    store.create(&counter(0)).unwrap();
    let children: Vec<Child> = (0..3).map(|_| start_child(&folder, 40)).collect();
    for _ in 0..40 {
        increment(&store);
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    store.sync().unwrap();
    assert_eq!(count(&store.get(&key("counter")).unwrap().value()), 160);
}

#[test]
fn threads_with_a_store_each_or_one_for_all_lose_no_increment() {
    let folder = Folder::new();
    let store = folder.open();
    store.create(&counter(0)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..30).for_each(|_| increment(&store)));
            scope.spawn(|| {
                let own = folder.open();
                (0..30).for_each(|_| increment(&own));
            });
        }
    });
    store.sync().unwrap();
    assert_eq!(count(&store.get(&key("counter")).unwrap().value()), 120);
}

#[test]
fn a_writer_that_is_killed_leaves_a_folder_that_can_be_read_and_written() {
    let folder = Folder::new();
    folder.open().create(&counter(0)).unwrap();
    let mut last = 0;
    for _ in 0..8 {
        let mut child = start_child(&folder, u64::MAX);
        let store = folder.open();
        wait_for("the child's writes", || {
            store.sync().unwrap();
            count(&store.get(&key("counter")).unwrap().value()) > last + 5
        });
        child.kill().unwrap();
        child.wait().unwrap();
        drop(store);

        let store = folder.open();
        assert_eq!(problems(&store), [""; 0]);
        let now = count(&store.get(&key("counter")).unwrap().value());
        assert!(now > last + 5);
        increment(&store);
        last = now + 1;
        assert_eq!(count(&store.get(&key("counter")).unwrap().value()), last);
    }
}
