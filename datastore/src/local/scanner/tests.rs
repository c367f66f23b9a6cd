use super::*;
use crate::local::pending::GRACE;

fn set(name: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: {name}\n")
}

/// What each reading says: names of objects, `-` for a file that is gone.
fn shown(readings: &Readings) -> Vec<String> {
    let show = |(path, reading): (&PathBuf, &Option<Reading>)| {
        let names = match reading {
            None => "-".to_owned(),
            Some(reading) => {
                reading.documents.iter().map(|d| d.stored.key.name.as_str()).collect::<Vec<_>>().join(",")
            }
        };
        format!("{}: {names}", path.display())
    };
    readings.iter().map(show).collect()
}

#[test]
fn lost_events_are_made_up_for_by_looking_at_everything() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("changed.yaml", &set("a"));
    write("removed.yaml", &set("b"));
    write("same.yaml", &set("c"));
    let mut scanner = Scanner::open(dir.path()).unwrap();
    let now = Instant::now();
    assert_eq!(
        shown(&scanner.poll(now, false, Vec::new())),
        ["changed.yaml: a", "removed.yaml: b", "same.yaml: c"]
    );

    write("changed.yaml", &set("d"));
    fs::remove_file(dir.path().join("removed.yaml")).unwrap();
    fs::create_dir(dir.path().join("new")).unwrap();
    write("new/new.yaml", &set("e"));
    // The kernel tells us of nothing but the loss.
    scanner.tree.read_events();
    let overflow =
        Event { place: Place::Everywhere, name: None, mask: AddWatchFlags::IN_Q_OVERFLOW, cookie: 0 };
    scanner.handle_events(vec![overflow], now);
    assert_eq!(
        shown(&scanner.read_due(now + GRACE)),
        ["changed.yaml: d", "new/new.yaml: e", "removed.yaml: -"]
    );

    // The new folder is watched.
    write("new/new.yaml", &set("f"));
    assert_eq!(shown(&scanner.poll(now, false, Vec::new())), ["new/new.yaml: f"]);
}

#[test]
fn a_file_is_parsed_only_when_its_bytes_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, set("a")).unwrap();
    let mut scanner = Scanner::open(dir.path()).unwrap();
    let now = Instant::now();
    assert_eq!(shown(&scanner.poll(now, false, Vec::new())), ["a.yaml: a"]);
    fs::write(&path, set("a")).unwrap();
    assert!(scanner.poll(now, false, Vec::new()).is_empty());
    fs::write(&path, set("b")).unwrap();
    assert_eq!(shown(&scanner.poll(now, false, Vec::new())), ["a.yaml: b"]);
}

#[test]
fn an_emptied_file_that_is_being_written_keeps_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, set("a")).unwrap();
    let mut scanner = Scanner::open(dir.path()).unwrap();
    let start = Instant::now();
    scanner.poll(start, false, Vec::new());

    // `command > a.yaml`, and the command takes an hour.
    let file = fs::File::create(&path).unwrap();
    for minute in 0..60 {
        assert!(scanner.poll(start + Duration::from_secs(60 * minute), false, Vec::new()).is_empty());
    }
    // It is left empty: its disk is full.
    drop(file);
    let readings = scanner.poll(start + Duration::from_hours(1), false, Vec::new());
    let reading = readings[&PathBuf::from("a.yaml")].as_ref().unwrap();
    assert_eq!((reading.documents.len(), reading.faults.len()), (0, 1), "what was there stays, and is told");
    // Filled with the same, it is well again.
    fs::write(&path, set("a")).unwrap();
    assert_eq!(shown(&scanner.poll(start + Duration::from_hours(1), false, Vec::new())), ["a.yaml: a"]);
}

#[test]
fn a_file_that_stays_open_is_read_when_its_writer_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    let mut scanner = Scanner::open(dir.path()).unwrap();
    let start = Instant::now();
    let mut file = fs::File::create(&path).unwrap();
    io::Write::write_all(&mut file, set("a").as_bytes()).unwrap();
    assert!(scanner.poll(start, false, Vec::new()).is_empty());
    let later = scanner.poll_timeout().unwrap();
    assert_eq!(shown(&scanner.poll(later, false, Vec::new())), ["a.yaml: a"]);
    drop(file);
}

#[test]
fn a_directory_that_cannot_be_listed_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    let root = dir.path().join("root");
    fs::write(root.join("a.yaml"), set("a")).unwrap();
    let mut scanner = Scanner::open(&root).unwrap();
    let now = Instant::now();
    assert_eq!(shown(&scanner.poll(now, false, Vec::new())), ["a.yaml: a"]);

    fs::rename(&root, dir.path().join("away")).unwrap();
    assert!(scanner.poll(now, false, Vec::new()).is_empty());
    assert_eq!(scanner.faults().len(), 1);
    fs::rename(dir.path().join("away"), &root).unwrap();
    assert!(scanner.poll(now, false, Vec::new()).is_empty());
    assert!(scanner.faults().is_empty());
}

#[test]
fn an_editor_that_saves_by_rename_and_create_never_takes_an_object_out_of_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, set("a")).unwrap();
    let mut scanner = Scanner::open(dir.path()).unwrap();
    let start = Instant::now();
    scanner.poll(start, true, Vec::new());

    fs::rename(&path, dir.path().join("a.yaml~")).unwrap();
    assert!(scanner.poll(start, true, Vec::new()).is_empty());
    assert!(scanner.has_grace());
    let mut file = fs::File::create(&path).unwrap();
    assert!(scanner.poll(start + GRACE / 2, true, Vec::new()).is_empty());
    assert!(scanner.poll(start + GRACE * 2, true, Vec::new()).is_empty());
    io::Write::write_all(&mut file, set("b").as_bytes()).unwrap();
    drop(file);
    assert_eq!(shown(&scanner.poll(start + GRACE * 2, true, Vec::new())), ["a.yaml: b"]);

    // The same, when the file goes between the event of its last change and the reading.
    fs::write(&path, set("c")).unwrap();
    let events = scanner.tree.read_events();
    scanner.handle_events(events, start);
    fs::rename(&path, dir.path().join("a.yaml~")).unwrap();
    assert!(scanner.read_due(start).is_empty());
    fs::write(&path, set("d")).unwrap();
    assert_eq!(shown(&scanner.poll(start, true, Vec::new())), ["a.yaml: d"]);
    fs::remove_file(&path).unwrap();
    assert!(scanner.poll(start, true, Vec::new()).is_empty());
    assert_eq!(shown(&scanner.poll(start + GRACE, true, Vec::new())), ["a.yaml: -"]);
}

#[test]
fn what_this_store_removed_itself_is_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, set("a")).unwrap();
    let mut scanner = Scanner::open(dir.path()).unwrap();
    let now = Instant::now();
    scanner.poll(now, true, Vec::new());
    fs::remove_file(&path).unwrap();
    assert_eq!(shown(&scanner.poll(now, true, vec!["a.yaml".into()])), ["a.yaml: -"]);
}

#[test]
fn a_linked_file_is_read_after_a_moment_and_its_old_name_may_go_before() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), set("a")).unwrap();
    let mut scanner = Scanner::open(dir.path()).unwrap();
    let start = Instant::now();
    scanner.poll(start, true, Vec::new());
    fs::hard_link(dir.path().join("a.yaml"), dir.path().join("b.yaml")).unwrap();
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert!(scanner.poll(start, true, Vec::new()).is_empty());
    assert_eq!(shown(&scanner.poll(start + GRACE, true, Vec::new())), ["a.yaml: -", "b.yaml: a"]);
}
