//! When to look at a file that something happened to. Pure: times are arguments.
//!
//! ```text
//!  closed after writing, renamed to         ──► look now
//!  being written (modified, not yet closed) ──► look when it is closed, or after QUIET without a change
//!  created (linked, or about to be written) ──► look after GRACE, or when it is written
//!  gone (deleted, renamed away)             ──► look after GRACE: many editors save by delete and create, and
//!                                               a policy must not be out of force for that moment
//!  removed (renamed in the folder, by us)   ──► look now
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file that is open for writing must be left alone before it is read all the same.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// How long a file must be gone before its objects are, or be there untouched before it is read.
pub(super) const GRACE: Duration = Duration::from_millis(50);

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// There is complete content.
    Complete,
    /// Somebody is writing.
    Writing,
    /// There is a new name: of a new file that will be written, or a second one of an old file.
    Created,
    /// The name is gone, and may come back.
    Gone,
    /// The name is gone, and is not meant to come back.
    Removed,
}

/// The files to look at, now or later.
#[derive(Debug, Default)]
pub(super) struct Pending {
    files: BTreeMap<PathBuf, (Sign, Instant)>,
}

impl Pending {
    /// Takes in what happened to a file.
    pub(super) fn note(&mut self, path: PathBuf, sign: Sign, now: Instant) {
        let at = match sign {
            Sign::Complete | Sign::Removed => now,
            Sign::Writing => now + QUIET,
            Sign::Created | Sign::Gone => now + GRACE,
        };
        self.files.insert(path, (sign, at));
    }

    /// Whether the file will be looked at, now or later.
    pub(super) fn contains(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// Whether the file may be incomplete.
    pub(super) fn is_writing(&self, path: &Path) -> bool {
        matches!(self.files.get(path), Some((Sign::Writing | Sign::Created, _)))
    }

    /// Whether there are files in their [`GRACE`].
    pub(super) fn has_grace(&self) -> bool {
        self.files.values().any(|(sign, _)| matches!(sign, Sign::Created | Sign::Gone))
    }

    /// The files to look at now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(PathBuf, Sign)> {
        self.files.extract_if(.., |_, (_, at)| *at <= now).map(|(path, (sign, _))| (path, sign)).collect()
    }

    /// When the next file will be due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.files.values().map(|(_, at)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> PathBuf {
        PathBuf::from("a.yaml")
    }

    #[test]
    fn a_closed_file_is_due_at_once_and_only_once() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        pending.note(path(), Sign::Writing, now);
        assert_eq!(pending.take_due(now), []);
        pending.note(path(), Sign::Complete, now);
        assert_eq!(pending.take_due(now), [(path(), Sign::Complete)]);
        assert_eq!(pending.poll_timeout(), None);
    }

    #[test]
    fn a_file_that_is_never_closed_is_due_after_a_quiet_time() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        pending.note(path(), Sign::Writing, now);
        pending.note(path(), Sign::Writing, now + QUIET / 2);
        assert_eq!(pending.take_due(now + QUIET), []);
        assert_eq!(pending.poll_timeout(), Some(now + QUIET / 2 + QUIET));
        assert_eq!(pending.take_due(now + QUIET / 2 + QUIET), [(path(), Sign::Writing)]);
    }

    #[test]
    fn a_deleted_file_that_comes_back_within_its_grace_is_read_when_complete() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        pending.note(path(), Sign::Gone, now);
        assert_eq!(pending.take_due(now + GRACE / 2), []);
        assert!(pending.has_grace());
        pending.note(path(), Sign::Writing, now + GRACE / 2);
        assert!(!pending.has_grace());
        assert_eq!(pending.take_due(now + GRACE), []);
        pending.note(path(), Sign::Complete, now + GRACE);
        assert_eq!(pending.take_due(now + GRACE), [(path(), Sign::Complete)]);
    }

    #[test]
    fn a_removed_file_has_no_grace() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        pending.note(path(), Sign::Removed, now);
        assert_eq!(pending.take_due(now), [(path(), Sign::Removed)]);
    }
}
