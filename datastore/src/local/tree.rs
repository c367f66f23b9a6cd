//! The inotify watches over a folder: one for each of its directories, and one for each directory outside in
//! which a symbolic link on the way to the folder, or to a file of it, could be changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Events of directories of the folder.
const INSIDE: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Events of other directories: no `IN_MODIFY`, since they may hold busy files that are none of our business.
const OUTSIDE: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ONLYDIR);

/// As many symbolic links as Linux follows (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// Names in directories outside of the folder that matter.
pub(super) type Outside = BTreeMap<PathBuf, BTreeSet<OsString>>;

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The kernel's queue was full: anything may have happened.
    Everywhere,
    /// In a directory of the folder, relative to the root.
    Inside(PathBuf),
    /// To one of the [`Outside`] names.
    Outside,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Where.
    pub(super) place: Place,
    /// The name in that directory; none if it happened to the directory.
    pub(super) name: Option<OsString>,
    /// What.
    pub(super) mask: AddWatchFlags,
    /// The same in both halves of a rename.
    pub(super) cookie: u32,
}

enum Role {
    Inside(PathBuf),
    Outside(BTreeSet<OsString>),
}

/// The watches.
pub(super) struct Tree {
    inotify: Inotify,
    root: PathBuf,
    directories: BTreeMap<PathBuf, WatchDescriptor>,
    roles: BTreeMap<WatchDescriptor, Role>,
}

impl Tree {
    /// Watches nothing yet.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|errno| match errno {
                Errno::EMFILE => {
                    io::Error::other("too many inotify instances (raise fs.inotify.max_user_instances)")
                }
                errno => errno.into(),
            })?;
        Ok(Self { inotify, root: root.to_path_buf(), directories: BTreeMap::new(), roles: BTreeMap::new() })
    }

    /// Watches a directory, relative to the root. To be called before the directory is listed.
    pub(super) fn add(&mut self, directory: &Path) -> Result<(), Errno> {
        let descriptor = self.inotify.add_watch(&self.root.join(directory), INSIDE)?;
        // A directory that was renamed keeps its descriptor.
        if let Some(Role::Inside(old)) = self.roles.insert(descriptor, Role::Inside(directory.to_path_buf()))
            && self.directories.get(&old) == Some(&descriptor)
        {
            self.directories.remove(&old);
        }
        if let Some(old) = self.directories.insert(directory.to_path_buf(), descriptor)
            && old != descriptor
        {
            self.unwatch_inside(directory, old);
        }
        Ok(())
    }

    /// Whether a directory, relative to the root, is watched.
    pub(super) fn is_watched(&self, directory: &Path) -> bool {
        self.directories.contains_key(directory)
    }

    /// Stops to watch the directories at or below `prefix` other than `found`.
    pub(super) fn retain_below(&mut self, prefix: &Path, found: &BTreeSet<PathBuf>) {
        let gone: Vec<PathBuf> = self
            .directories
            .range(prefix.to_path_buf()..)
            .map(|(directory, _)| directory)
            .take_while(|directory| directory.starts_with(prefix))
            .filter(|directory| !found.contains(*directory))
            .cloned()
            .collect();
        for directory in gone {
            if let Some(descriptor) = self.directories.remove(&directory) {
                self.unwatch_inside(&directory, descriptor);
            }
        }
    }

    /// Watches exactly these names outside. A directory that cannot be watched is left out: returns whether
    /// there was one.
    pub(super) fn set_outside(&mut self, outside: Outside) -> bool {
        let mut is_partial = false;
        let mut wanted = BTreeSet::new();
        for (directory, names) in outside {
            let Ok(descriptor) = self.inotify.add_watch(&directory, OUTSIDE) else {
                is_partial = true;
                continue;
            };
            wanted.insert(descriptor);
            match self.roles.get_mut(&descriptor) {
                // It is one of ours: we have just replaced its mask. It tells us all that happens anyway.
                Some(Role::Inside(_)) => {
                    is_partial |= self.inotify.add_watch(&directory, INSIDE).is_err();
                }
                _ => {
                    self.roles.insert(descriptor, Role::Outside(names));
                }
            }
        }
        let is_old = |(descriptor, role): (&WatchDescriptor, &Role)| {
            (matches!(role, Role::Outside(_)) && !wanted.contains(descriptor)).then_some(*descriptor)
        };
        let old: Vec<WatchDescriptor> = self.roles.iter().filter_map(is_old).collect();
        for descriptor in old {
            self.unwatch(descriptor);
        }
        is_partial
    }

    /// Everything that happened since the last call. Does not block.
    pub(super) fn read_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.inotify.read_events() {
                Ok(raw) => {
                    events
                        .extend(raw.into_iter().filter_map(|e| self.locate(e.wd, e.mask, e.name, e.cookie)));
                }
                Err(Errno::EINTR) => {}
                // Nothing more; any other error would come again with the next poll.
                Err(_) => return events,
            }
        }
    }

    fn locate(
        &mut self,
        descriptor: WatchDescriptor,
        mask: AddWatchFlags,
        name: Option<OsString>,
        cookie: u32,
    ) -> Option<Event> {
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Some(Event { place: Place::Everywhere, name, mask, cookie });
        }
        let place = match self.roles.get(&descriptor)? {
            Role::Inside(directory) => Place::Inside(directory.clone()),
            Role::Outside(names) if name.as_ref().is_none_or(|name| names.contains(name)) => Place::Outside,
            Role::Outside(_) => return None,
        };
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            // The kernel has dropped the watch, with the directory.
            if let Some(Role::Inside(directory)) = self.roles.remove(&descriptor)
                && self.directories.get(&directory) == Some(&descriptor)
            {
                self.directories.remove(&directory);
            }
        }
        Some(Event { place, name, mask, cookie })
    }

    /// Drops a watch, unless its directory has moved to another place of the folder meanwhile.
    fn unwatch_inside(&mut self, directory: &Path, descriptor: WatchDescriptor) {
        if matches!(self.roles.get(&descriptor), Some(Role::Inside(there)) if there == directory) {
            self.unwatch(descriptor);
        }
    }

    fn unwatch(&mut self, descriptor: WatchDescriptor) {
        self.roles.remove(&descriptor);
        // The kernel has dropped it already if the directory is gone.
        let _ = self.inotify.rm_watch(descriptor);
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Adds every name that a change of could lead `path`, which is absolute, somewhere else: the symbolic links on
/// its way, and its end.
pub(super) fn add_hops(path: &Path, outside: &mut Outside) {
    let mut at = PathBuf::from("/");
    let mut rest: Vec<OsString> = components(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let Ok(target) = fs::read_link(at.join(&name)) else {
            if rest.is_empty() {
                outside.entry(at.clone()).or_default().insert(name.clone());
            }
            at.push(name);
            continue;
        };
        outside.entry(at.clone()).or_default().insert(name);
        links += 1;
        if links > LINKS_MAX {
            return;
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        rest.extend(components(&target));
    }
}

/// The parts of a path, the first one last.
fn components(path: &Path) -> Vec<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_hops_of_a_file_are_every_link_on_its_way_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("..v1")).unwrap();
        fs::write(base.join("..v1/a.yaml"), "").unwrap();
        symlink("..v1", base.join("..data")).unwrap();
        symlink("..data/a.yaml", base.join("a.yaml")).unwrap();

        let mut hops = Outside::new();
        add_hops(&base.join("a.yaml"), &mut hops);
        let names = |names: &[&str]| names.iter().map(OsString::from).collect::<BTreeSet<_>>();
        assert_eq!(hops[&base], names(&["..data", "a.yaml"]));
        assert_eq!(hops[&base.join("..v1")], names(&["a.yaml"]));
        assert_eq!(hops.len(), 2);
    }

    #[test]
    fn the_hops_of_a_loop_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b.yaml", dir.path().join("a.yaml")).unwrap();
        symlink("a.yaml", dir.path().join("b.yaml")).unwrap();
        let mut hops = Outside::new();
        add_hops(&dir.path().canonicalize().unwrap().join("a.yaml"), &mut hops);
        assert_eq!(hops.len(), 1);
    }
}
