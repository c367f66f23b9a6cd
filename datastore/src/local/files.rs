//! The file system side of a folder of manifests: which names count, reading without blocking on anything,
//! writing so that a reader or a crash never sees half a file, and the lock between processes.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

#[cfg(test)]
mod tests;

/// The largest file that is read, in bytes. A folder of manifests of a large cluster is a tenth of this.
pub(super) const FILE_BYTES_MAX: u64 = 64 << 20;

/// The lock file, in the root. Held while a file is being changed.
pub(super) const LOCK_NAME: &str = ".tortie.lock";

/// The file, beside the one that is written, that the new content is prepared in. The lock lets one writer at a
/// time in, so one name is enough, and what a killed writer left behind is overwritten by the next.
const TEMPORARY_NAME: &str = ".tortie.tmp";

/// Whether a directory entry is hidden: its name starts with a dot.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a directory entry counts as a manifest by its name: `.yaml`, `.yml` or `.json`, and neither hidden
/// nor an editor's working copy (`.#x`, `#x#`, `x~`, `x.swp`).
pub(super) fn is_manifest_name(name: &OsStr) -> bool {
    let is_working_copy = name.as_encoded_bytes().starts_with(b"#");
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !is_hidden(name) && !is_working_copy && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// What tells, without reading it, that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file.
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file had been left alone for long enough when it was looked at, at `now` in seconds since
    /// 1970, that a later change must show in the stamp: kernel time stamps advance in steps of milliseconds.
    pub(super) fn is_settled(&self, now_secs: i64) -> bool {
        self.changed.0.max(self.modified.0) + 2 <= now_secs
    }
}

/// A file's content.
#[derive(Debug)]
pub(super) struct Content {
    /// All of it.
    pub(super) bytes: Vec<u8>,
    /// Taken before reading.
    pub(super) stamp: Stamp,
}

impl Content {
    /// A digest for telling equal contents from different ones.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        hasher.finish()
    }
}

/// Reads a file. A FIFO, device, socket or directory is an error at once, whoever is at its other end; a file
/// above [`FILE_BYTES_MAX`] as well.
pub(super) fn read(path: &Path) -> io::Result<Content> {
    // Looked at first, because opening a device can have effects.
    check_regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    let mut bytes = Vec::new();
    if metadata.len() <= FILE_BYTES_MAX {
        (&file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    }
    // Checked after reading as well: it may have grown.
    if metadata.len().max(bytes.len() as u64) > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(Content { bytes, stamp: Stamp::of(&metadata) })
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
}

/// Replaces a file's content in one step, keeping its mode and, where allowed, its owner. The old content or
/// the new is there after a crash, nothing between. `before_rename` can still call it off.
pub(super) fn replace(
    path: &Path,
    content: &[u8],
    before_rename: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let temporary = write_temporary(path, content)?;
    let result = fs::set_permissions(&temporary, fs::Permissions::from_mode(old.mode() & 0o7777))
        .and_then(|()| {
            // Only root may give files away; for anyone else the file becomes the writer's, as with any editor.
            let _ = std::os::unix::fs::chown(&temporary, Some(old.uid()), Some(old.gid()));
            before_rename()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    sync_parent(path)
}

/// Creates a file with this content in one step; `AlreadyExists` if there is one. The lock keeps other writers
/// of ours from creating it between the look and the rename.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let temporary = write_temporary(path, content)?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Removes a file for good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_parent(path)
}

fn write_temporary(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let temporary = path.with_file_name(TEMPORARY_NAME);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written.map(|()| temporary)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The right to change the folder, against every process and thread that asks for it too. Given back on drop,
/// and by the kernel when the process dies.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Waits for the lock of the folder.
    pub(super) fn take(root: &Path) -> io::Result<Self> {
        let path = root.join(LOCK_NAME);
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            file.lock()?;
            // The folder may have been replaced while we waited: then this is the lock of the old one.
            let ours = file.metadata()?;
            match fs::metadata(&path) {
                Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Self { _file: file });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}
