use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo, setfsuid};

use super::*;

#[test]
fn only_visible_manifests_count() {
    for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml", "a~.yaml"] {
        assert!(is_manifest_name(OsStr::new(name)), "{name}");
    }
    for name in [
        ".a.yaml",
        ".#a.yaml",
        "#a.yaml#",
        "#a.yaml",
        "a.yaml~",
        ".a.yaml.swp",
        "a.yaml.tmp",
        "4913",
        "README.md",
    ] {
        assert!(!is_manifest_name(OsStr::new(name)), "{name}");
    }
    for name in [LOCK_NAME, TEMPORARY_NAME] {
        assert!(!is_manifest_name(OsStr::new(name)), "{name}");
    }
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || answer.send(read(&path).unwrap_err().to_string()));
    assert_eq!(answered.recv_timeout(Duration::from_secs(10)).unwrap(), "not a regular file");
}

#[test]
fn a_file_without_permission_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, "a: 1").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // As root, permissions mean nothing: this thread becomes somebody else for the file system.
    let answer = thread::spawn(move || {
        let nobody = Uid::from_raw(65534);
        setfsuid(nobody);
        // It returns what was set before, and has no other way to fail.
        if setfsuid(nobody) != nobody && Uid::effective().is_root() {
            eprintln!("skipped: a user namespace without another user to become");
            return None;
        }
        Some(read(&path).unwrap_err().kind())
    });
    assert!(matches!(answer.join().unwrap(), None | Some(io::ErrorKind::PermissionDenied)));
}

#[test]
fn a_huge_file_is_refused_without_reading_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(read(&path).unwrap_err().to_string(), "the file is larger than 64 MiB");
}

#[test]
fn a_replaced_file_keeps_its_mode_and_is_never_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    // What a killed writer left behind.
    fs::write(dir.path().join(TEMPORARY_NAME), "half").unwrap();
    replace(&path, b"new", || {
        assert_eq!(fs::read(&path)?, b"old");
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert!(!dir.path().join(TEMPORARY_NAME).exists());
}

#[test]
fn a_replacement_that_is_called_off_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, "old").unwrap();
    assert!(replace(&path, b"new", || Err(io::Error::other("no"))).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn creating_never_replaces_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    create(&path, b"first").unwrap();
    assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"first");
}

#[test]
fn one_at_a_time_has_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_path_buf();
    let is_free = Arc::new(AtomicBool::new(false));
    let lock = FolderLock::take(&root).unwrap();
    let seen = Arc::clone(&is_free);
    let other = thread::spawn(move || {
        let _lock = FolderLock::take(&root).unwrap();
        seen.load(Ordering::SeqCst)
    });
    // Long enough for the other thread to get in if it could.
    for _ in 0..1000 {
        thread::yield_now();
    }
    is_free.store(true, Ordering::SeqCst);
    drop(lock);
    assert!(other.join().unwrap(), "two had the lock");
}

#[test]
fn the_lock_of_a_folder_that_was_replaced_is_not_the_lock_of_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("v1")).unwrap();
    fs::create_dir(dir.path().join("v2")).unwrap();
    let root = dir.path().join("current");
    symlink("v1", &root).unwrap();
    let old = FolderLock::take(&root).unwrap();
    let waiting_root = root.clone();
    let waiting = thread::spawn(move || FolderLock::take(&waiting_root).unwrap());
    symlink("v2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), &root).unwrap();
    // The new folder's lock is free, whoever holds the old one.
    drop(FolderLock::take(&root).unwrap());
    drop(old);
    // Whoever waited for the old one has the new one now.
    let _held = waiting.join().unwrap();
    let there = OpenOptions::new().write(true).open(dir.path().join("v2").join(LOCK_NAME)).unwrap();
    assert!(there.try_lock().is_err());
}
