//! Finds out what the files of a folder say, and what changed: turns inotify events, and walks over the tree
//! where those do not tell enough, into readings of files.
//!
//! ```text
//!  Tree ──events──► Scanner ──► Pending ──due files──► read, parse ──► readings
//!                      └─ walk (start, new directories, lost events, folder replaced)
//! ```
//!
//! A file is read when it is complete, and parsed only if its bytes differ from last time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::inotify::AddWatchFlags;

use super::document;
use super::files::{self, Stamp};
use super::folder::{Fault, Reading};
use super::pending::{Pending, Sign};
use super::tree::{self, Event, Outside, Place, Tree};

#[cfg(test)]
mod tests;

/// How often the folder is walked while it cannot be watched: it is gone, or the kernel's limit is reached.
const WALK_INTERVAL: Duration = Duration::from_secs(1);

/// New readings of files, `None` for files that are gone.
pub(super) type Readings = BTreeMap<PathBuf, Option<Reading>>;

/// What is remembered of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Equal as long as the file has not changed; none if that cannot be told from a stamp.
    stamp: Option<Stamp>,
    /// Of the content; none if it could not be read.
    digest: Option<u64>,
    /// Whether there was any content.
    has_content: bool,
}

/// The scanner of a folder.
pub(super) struct Scanner {
    root: PathBuf,
    tree: Tree,
    pending: Pending,
    seen: BTreeMap<PathBuf, Seen>,
    /// The files that are symbolic links.
    links: BTreeSet<PathBuf>,
    /// Device and inode of the root that is watched; none while it is gone.
    root_id: Option<(u64, u64)>,
    /// What could not be listed or watched, by path.
    faults: BTreeMap<PathBuf, Fault>,
    next_walk: Option<Instant>,
}

/// What a batch of events asks for beside reading files.
#[derive(Default)]
struct Tasks {
    walks: BTreeSet<PathBuf>,
    check_links: bool,
    check_root: bool,
}

/// What a walk found.
#[derive(Default)]
struct Walk {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Option<Stamp>>,
    links: BTreeSet<PathBuf>,
    faults: BTreeMap<PathBuf, Fault>,
    /// Directories that could not be listed.
    unlisted: BTreeSet<PathBuf>,
}

impl Scanner {
    /// Watches a folder, given by its absolute path, and looks at all of it. Fails if it cannot be listed.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        fs::read_dir(root)?;
        let mut scanner = Self {
            root: root.to_path_buf(),
            tree: Tree::new(root)?,
            pending: Pending::default(),
            seen: BTreeMap::new(),
            links: BTreeSet::new(),
            root_id: None,
            faults: BTreeMap::new(),
            next_walk: None,
        };
        scanner.walk(Path::new(""), Instant::now());
        scanner.watch_outside();
        Ok(scanner)
    }

    /// The watches, to wait for events of.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// When to call [`Scanner::poll`] even if nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.pending.poll_timeout(), self.next_walk].into_iter().flatten().min()
    }

    /// What could not be listed or watched, by path.
    pub(super) fn faults(&self) -> &BTreeMap<PathBuf, Fault> {
        &self.faults
    }

    /// Whether there are files that are not looked at until they have been left alone for a moment.
    pub(super) fn has_grace(&self) -> bool {
        self.pending.has_grace()
    }

    /// Takes in what happened up to now and reads what is complete. `is_asked` if somebody relies on the answer:
    /// then what cannot be watched is looked at. `removed` are files that this store removed itself.
    pub(super) fn poll(&mut self, now: Instant, is_asked: bool, removed: Vec<PathBuf>) -> Readings {
        let events = self.tree.read_events();
        self.handle_events(events, now);
        if self.next_walk.is_some_and(|at| is_asked || at <= now) {
            self.walk(Path::new(""), now);
            self.watch_outside();
        }
        for path in removed {
            if !self.pending.is_writing(&path) {
                self.pending.note(path, Sign::Removed, now);
            }
        }
        self.read_due(now)
    }

    fn handle_events(&mut self, events: Vec<Event>, now: Instant) {
        if events.is_empty() {
            return;
        }
        let mut tasks = Tasks::default();
        // Renames from one manifest to another are one step, not a deletion and, later, a creation.
        let is_arrival = |e: &&Event| {
            e.mask.contains(AddWatchFlags::IN_MOVED_TO)
                && e.name.as_deref().is_some_and(files::is_manifest_name)
        };
        let arrivals: BTreeSet<u32> = events.iter().filter(is_arrival).map(|e| e.cookie).collect();
        for event in events {
            match event.place {
                Place::Everywhere => {
                    tasks.walks.insert(PathBuf::new());
                    tasks.check_links = true;
                }
                Place::Outside => {
                    tasks.check_links = true;
                    tasks.check_root = true;
                }
                Place::Inside(ref directory) => {
                    tasks.check_links |= !event.mask.contains(AddWatchFlags::IN_MODIFY);
                    match &event.name {
                        None => tasks.check_root |= directory.as_os_str().is_empty(),
                        Some(name) => {
                            let has_arrived = arrivals.contains(&event.cookie);
                            self.handle_entry(directory, name, event.mask, has_arrived, now, &mut tasks);
                        }
                    }
                }
            }
        }
        self.perform(tasks, now);
    }

    /// Something happened to an entry of a directory of the folder.
    fn handle_entry(
        &mut self,
        directory: &Path,
        name: &OsStr,
        mask: AddWatchFlags,
        has_arrived: bool,
        now: Instant,
        tasks: &mut Tasks,
    ) {
        let path = directory.join(name);
        if mask.contains(AddWatchFlags::IN_ISDIR) {
            if !files::is_hidden(name) {
                tasks.walks.insert(path);
            }
        } else if files::is_manifest_name(name)
            && let Some(sign) = self.sign(&path, mask, has_arrived)
        {
            self.pending.note(path, sign, now);
        }
    }

    fn sign(&mut self, path: &Path, mask: AddWatchFlags, has_arrived: bool) -> Option<Sign> {
        if mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
            self.links.remove(path);
            let is_rename = mask.contains(AddWatchFlags::IN_MOVED_FROM) && has_arrived;
            return Some(if is_rename { Sign::Removed } else { Sign::Gone });
        }
        if mask.contains(AddWatchFlags::IN_MODIFY) {
            return Some(Sign::Writing);
        }
        if mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
            return Some(Sign::Complete);
        }
        if mask.contains(AddWatchFlags::IN_ATTRIB) {
            return (!self.pending.is_writing(path)).then_some(Sign::Complete);
        }
        // Created or renamed to.
        let Ok(metadata) = fs::symlink_metadata(self.root.join(path)) else { return Some(Sign::Gone) };
        if metadata.is_symlink() {
            self.links.insert(path.to_path_buf());
        }
        let is_created = mask.contains(AddWatchFlags::IN_CREATE) && metadata.is_file();
        Some(if is_created { Sign::Created } else { Sign::Complete })
    }

    fn perform(&mut self, mut tasks: Tasks, now: Instant) {
        // A new directory may have the number of the old one, but not its watch.
        let is_same_root = || root_id(&self.root) == self.root_id && self.tree.is_watched(Path::new(""));
        if tasks.check_root && !is_same_root() {
            tasks.walks.insert(PathBuf::new());
        }
        // A walk of the root covers the others.
        if tasks.walks.contains(Path::new("")) {
            self.walk(Path::new(""), now);
        } else {
            for path in &tasks.walks {
                self.walk(path, now);
            }
        }
        if tasks.check_links {
            self.check_links(now);
        }
        if !tasks.walks.is_empty() || (tasks.check_links && !self.links.is_empty()) {
            self.watch_outside();
        }
    }

    /// Links whose target has changed are read again.
    fn check_links(&mut self, now: Instant) {
        for path in self.links.clone() {
            let stamp = fs::metadata(self.root.join(&path)).ok().map(|metadata| Stamp::of(&metadata));
            let seen = self.seen.get(&path).and_then(|seen| seen.stamp);
            if (stamp.is_none() || stamp != seen) && !self.pending.contains(&path) {
                self.pending.note(path, Sign::Complete, now);
            }
        }
    }

    fn watch_outside(&mut self) {
        let mut outside = Outside::new();
        tree::add_hops(&self.root, &mut outside);
        for link in &self.links {
            tree::add_hops(&self.root.join(link), &mut outside);
        }
        if self.tree.set_outside(outside) {
            self.next_walk.get_or_insert_with(|| Instant::now() + WALK_INTERVAL);
        }
    }

    /// Looks at everything at and below `prefix`: what is new is watched and read, what is gone is dropped.
    fn walk(&mut self, prefix: &Path, now: Instant) {
        if prefix.as_os_str().is_empty() {
            self.root_id = root_id(&self.root);
            self.next_walk = None;
        }
        let mut walk = Walk::default();
        let mut directories = vec![prefix.to_path_buf()];
        while let Some(directory) = directories.pop() {
            self.walk_directory(directory, &mut walk, &mut directories);
        }
        self.tree.retain_below(prefix, &walk.directories);
        self.faults.retain(|path, _| !path.starts_with(prefix));
        self.links.retain(|path| !path.starts_with(prefix));
        if !walk.faults.is_empty() {
            self.next_walk = Some(now + WALK_INTERVAL);
        }
        for (path, stamp) in &walk.files {
            let is_same = stamp.is_some() && self.seen.get(path).is_some_and(|seen| seen.stamp == *stamp);
            if !is_same && !self.pending.is_writing(path) {
                self.pending.note(path.clone(), Sign::Complete, now);
            }
        }
        let is_gone = |path: &&PathBuf| {
            // What cannot be listed may well be there still.
            path.starts_with(prefix) && !walk.files.contains_key(*path) && !walk.is_unlisted(path)
        };
        let gone: Vec<PathBuf> = self.seen.keys().filter(is_gone).cloned().collect();
        for path in gone {
            self.pending.note(path, Sign::Gone, now);
        }
        self.faults.extend(walk.faults);
        self.links.extend(walk.links);
    }

    fn walk_directory(&mut self, directory: PathBuf, walk: &mut Walk, below: &mut Vec<PathBuf>) {
        let is_root = directory.as_os_str().is_empty();
        // Watched first, so that nothing happens unseen between.
        if let Err(errno) = self.tree.add(&directory)
            && !matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)
        {
            walk.faults.insert(directory.clone(), Fault::of_file(watch_error(errno)));
        }
        let entries = match fs::read_dir(self.root.join(&directory)) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) && !is_root => return,
            Err(error) => {
                let message =
                    format!("this folder cannot be listed, what was read last stays in force: {error}");
                walk.faults.insert(directory.clone(), Fault::of_file(message));
                walk.unlisted.insert(directory);
                return;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let path = directory.join(&name);
            let Ok(file_type) = entry.file_type() else { continue };
            if file_type.is_dir() {
                if !files::is_hidden(&name) {
                    below.push(path);
                }
            } else if files::is_manifest_name(&name) {
                if file_type.is_symlink() {
                    walk.links.insert(path.clone());
                }
                let metadata = fs::metadata(self.root.join(&path)).ok();
                walk.files.insert(path, metadata.map(|metadata| Stamp::of(&metadata)));
            }
        }
        walk.directories.insert(directory);
    }

    fn read_due(&mut self, now: Instant) -> Readings {
        let due = self.pending.take_due(now);
        due.into_iter().filter_map(|(path, sign)| self.read(path, sign, now)).collect()
    }

    /// Reads a file; `None` if it says nothing new.
    fn read(&mut self, path: PathBuf, sign: Sign, now: Instant) -> Option<(PathBuf, Option<Reading>)> {
        let before = self.seen.get(&path).copied();
        let content = match files::read(&self.root.join(&path)) {
            Ok(content) => content,
            Err(error) if is_missing(&error) => return self.read_missing(path, sign, now),
            Err(error) => {
                self.seen.insert(path.clone(), Seen::default());
                let message = format!("the file cannot be read: {error}");
                let faults = vec![Fault::of_file(message)];
                return Some((path, Some(Reading { documents: Vec::new(), faults })));
            }
        };
        let has_content = !content.bytes.is_empty();
        if !has_content && before.is_some_and(|seen| seen.has_content) {
            return self.read_emptied(path, sign, now);
        }
        let digest = content.digest();
        let stamp = Some(content.stamp).filter(|stamp| stamp.is_settled(now_secs()));
        self.seen.insert(path.clone(), Seen { stamp, digest: Some(digest), has_content });
        if before.is_some_and(|seen| seen.digest == Some(digest)) {
            return None;
        }
        let reading = document::read(&content.bytes);
        Some((path, Some(reading)))
    }

    /// A file that had content is empty. `command > file` empties it at once and fills it later, and leaves it so where
    /// the disk is full: that takes no policy out of force. Who wants that removes the file.
    fn read_emptied(
        &mut self,
        path: PathBuf,
        sign: Sign,
        now: Instant,
    ) -> Option<(PathBuf, Option<Reading>)> {
        if matches!(sign, Sign::Writing | Sign::Created) {
            self.pending.note(path, Sign::Writing, now);
            return None;
        }
        self.seen.insert(path.clone(), Seen { has_content: true, ..Seen::default() });
        let message =
            "the file is empty; what it held stays in force until it is filled or removed".to_owned();
        Some((path, Some(Reading { documents: Vec::new(), faults: vec![Fault::of_file(message)] })))
    }

    fn read_missing(
        &mut self,
        path: PathBuf,
        sign: Sign,
        now: Instant,
    ) -> Option<(PathBuf, Option<Reading>)> {
        if root_id(&self.root).is_none() {
            // The whole folder is gone, which deletes nothing.
            self.next_walk.get_or_insert(now);
            return None;
        }
        if !self.seen.contains_key(&path) {
            return None;
        }
        if !matches!(sign, Sign::Gone | Sign::Removed) {
            // It went after the event that brought us here.
            self.pending.note(path, Sign::Gone, now);
            return None;
        }
        self.seen.remove(&path);
        Some((path, None))
    }
}

impl Walk {
    fn is_unlisted(&self, path: &Path) -> bool {
        path.ancestors().any(|ancestor| self.unlisted.contains(ancestor))
    }
}

fn root_id(root: &Path) -> Option<(u64, u64)> {
    fs::metadata(root).ok().filter(fs::Metadata::is_dir).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn watch_error(errno: Errno) -> String {
    let limit = if errno == Errno::ENOSPC { " (raise fs.inotify.max_user_watches)" } else { "" };
    format!("this folder cannot be watched, it is looked at every second instead: {errno}{limit}")
}

/// Seconds since 1970, as file stamps count.
fn now_secs() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
