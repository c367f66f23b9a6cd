//! What people, editors and tools do to a folder of manifests, and what a store makes of it.

#[cfg(test)]
mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use common::{Folder, Watched, key, net, problems, set, sets, wait_for};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tortie_api::kind::{Key, Kind};
use tortie_datastore::{Datastore, Error, LocalStore};

#[test]
fn a_folder_as_a_person_lays_it_out_is_read_whole() {
    let folder = Folder::new();
    folder.write(
        "all.yaml",
        [set("a", "10.0.0.0/8"), "---\n# nothing\n---\n".into(), set("b", "10.1.0.0/16")].concat(),
    );
    folder.write("team/x/c.yml", set("c", "10.2.0.0/16"));
    folder.write("d.json", common::set_value("d", "10.3.0.0/16").to_string());
    folder.write("strange.yaml/e.yaml", set("e", "10.4.0.0/16"));
    folder.write("empty.yaml", "");
    for skipped in
        [".git/f.yaml", ".hidden.yaml", ".#a.yaml", "#a.yaml#", "a.yaml~", ".a.yaml.swp", "notes.txt"]
    {
        folder.write(skipped, set("never", "10.9.0.0/16"));
    }
    let store = folder.open();
    assert_eq!(sets(&store), ["a", "b", "c", "d", "e"]);
    assert_eq!(problems(&store), [""; 0]);
    assert_eq!(net(&store, "c").as_deref(), Some("10.2.0.0/16"));
    assert!(matches!(store.get(&key("never")), Err(Error::NotFound { key: k }) if k == key("never")));
}

#[test]
fn a_folder_that_does_not_exist_cannot_be_opened() {
    let folder = Folder::new();
    let error = LocalStore::open(folder.path("no")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {}", folder.path("no").display()));
    folder.write("file", "");
    assert!(LocalStore::open(folder.path("file")).is_err());
}

#[test]
fn edits_of_every_kind_are_seen() {
    let folder = Folder::new();
    folder.write("a.yaml", set("a", "10.0.0.0/8"));
    let store = folder.open();
    let watch = Watched::now(&store);

    folder.write("a.yaml", set("a", "10.1.0.0/16"));
    assert_eq!(watch.after_sync(&store), ["~a 10.1.0.0/16"]);
    // As editors and configuration management save: beside, then over.
    folder.write(".a.yaml.new", set("a", "10.2.0.0/16"));
    fs::rename(folder.path(".a.yaml.new"), folder.path("a.yaml")).unwrap();
    assert_eq!(watch.after_sync(&store), ["~a 10.2.0.0/16"]);
    // Only spaces and comments: nothing changed.
    folder.write("a.yaml", format!("# new\n{}\n", set("a", "10.2.0.0/16")));
    assert_eq!(watch.after_sync(&store), [""; 0]);
    fs::rename(folder.path("a.yaml"), folder.path("b.yaml")).unwrap();
    assert_eq!(watch.after_sync(&store), [""; 0]);
    folder.write("new/deep/c.yaml", set("c", "10.3.0.0/16"));
    assert_eq!(watch.after_sync(&store), ["+c 10.3.0.0/16"]);
    folder.write("new/deep/c.yaml", set("c", "10.4.0.0/16"));
    assert_eq!(watch.after_sync(&store), ["~c 10.4.0.0/16"]);
    fs::rename(folder.path("new"), folder.path("moved")).unwrap();
    assert_eq!(watch.after_sync(&store), [""; 0]);
    folder.write("moved/deep/c.yaml", set("c", "10.5.0.0/16"));
    assert_eq!(watch.after_sync(&store), ["~c 10.5.0.0/16"]);
    fs::hard_link(folder.path("b.yaml"), folder.path("moved/a.yaml")).unwrap();
    fs::remove_file(folder.path("b.yaml")).unwrap();
    assert_eq!(watch.after_sync(&store), [""; 0]);
    fs::remove_dir_all(folder.path("moved")).unwrap();
    let mut gone = watch.after_sync(&store);
    gone.sort();
    assert_eq!(gone, ["-a", "-c"]);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_change_is_delivered_without_anybody_asking() {
    let folder = Folder::new();
    let store = folder.open();
    let watch = Watched::now(&store);
    folder.write("a.yaml", set("a", "10.0.0.0/8"));
    assert_eq!(watch.next(), "+a 10.0.0.0/8");
    fs::remove_file(folder.path("a.yaml")).unwrap();
    assert_eq!(watch.next(), "-a");
}

#[test]
fn a_slow_writer_is_read_when_it_closes_the_file() {
    let folder = Folder::new();
    folder.write("a.yaml", set("a", "10.0.0.0/8"));
    let store = folder.open();
    let watch = Watched::now(&store);
    let mut file = File::create(folder.path("a.yaml")).unwrap();
    assert_eq!(watch.after_sync(&store), [""; 0]);
    file.write_all(set("b", "10.1.0.0/16").as_bytes()).unwrap();
    file.write_all(b"---\n").unwrap();
    assert_eq!(watch.after_sync(&store), [""; 0]);
    file.write_all(set("a", "10.2.0.0/16").as_bytes()).unwrap();
    drop(file);
    assert_eq!(watch.after_sync(&store), ["~a 10.2.0.0/16", "+b 10.1.0.0/16"]);
}

#[test]
fn a_mounted_configmap_changes_by_its_data_link() {
    let folder = Folder::new();
    let root = folder.path("mount");
    folder.write("mount/..v1/a.yaml", set("a", "10.1.0.0/16"));
    folder.write("mount/..v2/a.yaml", set("a", "10.2.0.0/16"));
    symlink("..v1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let store = LocalStore::open(&root).unwrap();
    let watch = Watched::now(&store);
    assert_eq!(net(&store, "a").as_deref(), Some("10.1.0.0/16"));

    symlink("..v2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert_eq!(watch.next(), "~a 10.2.0.0/16");
    // The kubelet removes the old version after that.
    fs::remove_dir_all(root.join("..v1")).unwrap();
    folder.write("mount/..v2/a.yaml", set("a", "10.3.0.0/16"));
    assert_eq!(watch.next(), "~a 10.3.0.0/16");
}

#[test]
fn a_link_to_a_file_elsewhere_is_followed_and_a_loop_is_a_problem() {
    let folder = Folder::new();
    folder.write("elsewhere/a.yaml", set("a", "10.1.0.0/16"));
    fs::create_dir(folder.path("root")).unwrap();
    symlink(folder.path("elsewhere/a.yaml"), folder.path("root/a.yaml")).unwrap();
    symlink("loop.yaml", folder.path("root/loop.yaml")).unwrap();
    symlink("..", folder.path("root/up")).unwrap();
    symlink("nowhere/x.yaml", folder.path("root/dangling.yaml")).unwrap();
    let store = LocalStore::open(folder.path("root")).unwrap();
    let watch = Watched::now(&store);
    assert_eq!(sets(&store), ["a"]);
    let found = problems(&store);
    assert!(found.len() == 1 && found[0].contains("loop.yaml: the file cannot be read:"), "{found:?}");

    folder.write("elsewhere/a.yaml", set("a", "10.2.0.0/16"));
    assert_eq!(watch.next(), "~a 10.2.0.0/16");
    fs::remove_file(folder.path("elsewhere/a.yaml")).unwrap();
    assert_eq!(watch.next(), "-a");
    folder.write("root/nowhere/x.yaml", set("x", "10.3.0.0/16"));
    assert_eq!(watch.next(), "+x 10.3.0.0/16");
}

#[test]
fn a_folder_that_goes_away_and_comes_back_deletes_nothing_between() {
    let folder = Folder::new();
    folder.write("root/a.yaml", set("a", "10.1.0.0/16"));
    folder.write("next/a.yaml", set("a", "10.2.0.0/16"));
    folder.write("next/sub/b.yaml", set("b", "10.3.0.0/16"));
    let store = LocalStore::open(folder.path("root")).unwrap();
    let watch = Watched::now(&store);

    fs::rename(folder.path("root"), folder.path("old")).unwrap();
    assert_eq!(watch.after_sync(&store), [""; 0]);
    assert_eq!(sets(&store), ["a"]);
    let found = problems(&store);
    assert!(
        found[0].contains("root: this folder cannot be listed, what was read last stays in force"),
        "{found:?}"
    );

    fs::rename(folder.path("next"), folder.path("root")).unwrap();
    assert_eq!(watch.after_sync(&store), ["~a 10.2.0.0/16", "+b 10.3.0.0/16"]);
    assert_eq!(problems(&store), [""; 0]);
    folder.write("root/sub/b.yaml", set("b", "10.4.0.0/16"));
    folder.write("old/a.yaml", set("a", "10.9.0.0/16"));
    assert_eq!(watch.after_sync(&store), ["~b 10.4.0.0/16"]);
}

#[test]
fn a_root_that_is_a_link_can_be_pointed_elsewhere() {
    let folder = Folder::new();
    folder.write("v1/a.yaml", set("a", "10.1.0.0/16"));
    folder.write("v2/a.yaml", set("a", "10.2.0.0/16"));
    symlink("v1", folder.path("current")).unwrap();
    let store = LocalStore::open(folder.path("current")).unwrap();
    let watch = Watched::now(&store);
    symlink("v2", folder.path("tmp")).unwrap();
    fs::rename(folder.path("tmp"), folder.path("current")).unwrap();
    assert_eq!(watch.next(), "~a 10.2.0.0/16");
    folder.write("v2/a.yaml", set("a", "10.3.0.0/16"));
    assert_eq!(watch.next(), "~a 10.3.0.0/16");
}

#[test]
fn a_broken_document_is_a_problem_with_its_place_and_hurts_no_other() {
    let folder = Folder::new();
    folder.write("a.yaml", [set("a", "10.1.0.0/16"), set("b", "10.2.0.0/16")].join("---\n"));
    let store = folder.open();
    let watch = Watched::now(&store);
    folder.write("a.yaml", [set("a", "10.1.0.999/16"), set("b", "10.3.0.0/16")].join("---\n"));
    assert_eq!(watch.after_sync(&store), ["~b 10.3.0.0/16"]);
    assert_eq!(net(&store, "a").as_deref(), Some("10.1.0.0/16"));

    let problem = &store.problems()[0];
    assert_eq!(problem.file.as_deref(), Some(folder.path("a.yaml").as_path()));
    assert_eq!((problem.line, problem.field.as_deref()), (Some(7), Some("spec.nets[0]")));
    assert_eq!((problem.key.clone(), problem.is_covered), (Some(key("a")), true));
    let text = problem.to_string();
    let start = format!("{}:7: GlobalNetworkSet/a: spec.nets[0]: ", folder.path("a.yaml").display());
    assert!(text.starts_with(&start) && text.ends_with("(the last good version stays in force)"), "{text}");

    // The version that is in force is what the store gives out, also to those who come later.
    assert_eq!(sets(&store), ["a", "b"]);
    folder.write("a.yaml", [set("a", "10.4.0.0/16"), set("b", "10.3.0.0/16")].join("---\n"));
    assert_eq!(watch.after_sync(&store), ["~a 10.4.0.0/16"]);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn bad_input_of_every_kind_is_a_problem_and_the_rest_stays_enforced() {
    let folder = Folder::new();
    folder.write("good.yaml", set("good", "10.0.0.0/8"));
    folder.write("syntax.yaml", "a: [1,\nb: }\n");
    folder.write("utf8.yaml", b"kind: \xff\xfe\n");
    folder.write("kind.yaml", "apiVersion: v1\nkind: Nonsense\nmetadata: {name: a}\n");
    folder.write("field.yaml", format!("{}  colour: red\n", set("field", "10.0.0.0/8")));
    folder.write("huge.yaml", format!("{}{}", set("huge", "10.0.0.0/8"), "#".repeat(4 << 20)));
    folder.write("text.yaml", "just a text\n");
    mkfifo(&folder.path("fifo.yaml"), Mode::S_IRWXU).unwrap();
    let store = folder.open();
    assert_eq!(sets(&store), ["good"]);
    let files = store.problems().into_iter().map(|problem| {
        let file = problem.file.unwrap();
        format!("{}:{}", file.file_name().unwrap().to_str().unwrap(), problem.line.unwrap_or(0))
    });
    assert_eq!(
        files.collect::<Vec<_>>(),
        [
            "field.yaml:8",
            "fifo.yaml:0",
            "huge.yaml:1",
            "kind.yaml:2",
            "syntax.yaml:2",
            "text.yaml:1",
            "utf8.yaml:1"
        ]
    );
    assert_eq!(store.problems()[0].field.as_deref(), Some("spec.colour"));
}

#[test]
fn an_object_survives_its_file_becoming_unreadable_in_every_way() {
    let folder = Folder::new();
    folder.write("a.yaml", set("a", "10.0.0.0/8"));
    let store = folder.open();
    let watch = Watched::now(&store);
    let replace_by = |make: &dyn Fn(&std::path::Path)| {
        make(&folder.path("tmp"));
        fs::rename(folder.path("tmp"), folder.path("a.yaml")).unwrap();
        assert_eq!(watch.after_sync(&store), [""; 0]);
        assert_eq!(store.problems().len(), 1);
        assert!(store.problems()[0].is_covered);
    };
    replace_by(&|path| fs::write(path, b"\xff").unwrap());
    replace_by(&|path| mkfifo(path, Mode::S_IRWXU).unwrap());
    replace_by(&|path| symlink("a.yaml", path).unwrap());
    replace_by(&|path| fs::write(path, "{").unwrap());
    replace_by(&|path| File::create(path).unwrap().set_len(1 << 30).unwrap());
    fs::remove_file(folder.path("a.yaml")).unwrap();
    assert_eq!(watch.after_sync(&store), ["-a"]);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn files_that_vanish_while_they_are_read_hurt_nothing() {
    let folder = Folder::new();
    folder.write("stays.yaml", set("stays", "10.0.0.0/8"));
    let store = folder.open();
    for round in 0..300 {
        let name = format!("{}.yaml", round % 7);
        folder.write(&name, set(&format!("s{}", round % 7), "10.1.0.0/16"));
        fs::remove_file(folder.path(&name)).unwrap();
    }
    store.sync().unwrap();
    assert_eq!(sets(&store), ["stays"]);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn of_two_documents_of_one_object_the_first_is_in_force_and_the_other_is_a_problem() {
    let folder = Folder::new();
    folder.write("a.yaml", set("x", "10.1.0.0/16"));
    folder.write("b.yaml", set("x", "10.2.0.0/16"));
    let store = folder.open();
    let watch = Watched::now(&store);
    assert_eq!(net(&store, "x").as_deref(), Some("10.1.0.0/16"));
    let found = problems(&store);
    assert!(found.len() == 1 && found[0].starts_with(folder.path("b.yaml:1").to_str().unwrap()), "{found:?}");
    assert!(found[0].contains("a.yaml:1"), "{found:?}");

    fs::remove_file(folder.path("a.yaml")).unwrap();
    assert_eq!(watch.after_sync(&store), ["~x 10.2.0.0/16"]);
    folder.write("a.yaml", set("x", "10.3.0.0/16"));
    assert_eq!(watch.after_sync(&store), [""; 0]);
    assert_eq!(store.problems()[0].file.as_deref(), Some(folder.path("a.yaml").as_path()));
}

#[test]
fn ten_megabytes_of_documents_are_read() {
    let folder = Folder::new();
    let padding = format!("# {}\n", "x".repeat(4000));
    let documents = (0..2600).map(|n| set(&format!("s{n:04}"), "10.0.0.0/8") + &padding);
    let text = documents.collect::<Vec<_>>().join("---\n");
    assert!(text.len() > 10 << 20);
    folder.write("big.yaml", text);
    let store = folder.open();
    assert_eq!(sets(&store).len(), 2600);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn many_files_that_come_at_once_are_all_read() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 0..300 {
        folder.write(&format!("d{}/s{n}.yaml", n % 10), set(&format!("s{n}"), "10.0.0.0/8"));
    }
    store.sync().unwrap();
    assert_eq!(sets(&store).len(), 300);
}

#[test]
fn a_list_of_kubectl_is_read() {
    let folder = Folder::new();
    folder.write(
        "list.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: a\n- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: b\n",
    );
    let store = folder.open();
    let list = store.list(Kind::Namespace, None).unwrap();
    assert_eq!(list.items.len(), 2);
    assert!(store.get(&Key::new(Kind::Namespace, None, "b")).is_ok());
}

#[test]
fn a_removed_folder_that_is_created_again_is_watched_again() {
    let folder = Folder::new();
    folder.write("root/a.yaml", set("a", "10.1.0.0/16"));
    let store = LocalStore::open(folder.path("root")).unwrap();
    fs::remove_dir_all(folder.path("root")).unwrap();
    folder.write("root/b.yaml", set("b", "10.2.0.0/16"));
    wait_for("the new file", || net(&store, "b").is_some());
    folder.write("root/b.yaml", set("b", "10.3.0.0/16"));
    wait_for("the changed file", || net(&store, "b").as_deref() == Some("10.3.0.0/16"));
}
