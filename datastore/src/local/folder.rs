//! What the files of a folder say, as a pure calculation: readings of files go in, changes of objects come out.
//!
//! Three rules are kept here:
//!
//! * An object stays in force while its document is broken, until the document is mended or gone.
//! * Of several documents of one object the one that was there first is in force; the others are problems.
//! * When the one in force goes, the next one takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tortie_api::kind::{Key, Kind};

use crate::{Problem, Stored};

#[cfg(test)]
mod tests;

/// What one reading of a file gave.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The good documents, in the order of the file.
    pub(super) documents: Vec<Document>,
    /// What could not be used.
    pub(super) faults: Vec<Fault>,
}

/// A good document.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// The object.
    pub(super) stored: Stored,
    /// The document's first line, from 1.
    pub(super) line: usize,
}

/// A document, or a whole file, that could not be used.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// From 1; none for a fault of the whole file.
    pub(super) line: Option<usize>,
    /// The object, if it could be told.
    pub(super) key: Option<Key>,
    /// Path of the field, where one is to blame.
    pub(super) field: Option<String>,
    /// What is wrong.
    pub(super) message: String,
}

impl Fault {
    /// A fault of a whole file or folder.
    pub(super) fn of_file(message: String) -> Self {
        Self { line: None, key: None, field: None, message }
    }
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Added(Stored),
    Modified(Stored),
    Deleted(Stored),
}

/// When a change of a batch has its turn. What is new comes before what is gone: a policy that takes another's place
/// must be there when that goes. And policies come after what they may refer to, and go before it.
fn turn(change: &Change) -> u8 {
    match (change, change.stored().key.kind.is_policy()) {
        (Change::Added(_) | Change::Modified(_), false) => 0,
        (Change::Added(_) | Change::Modified(_), true) => 1,
        (Change::Deleted(_), true) => 2,
        (Change::Deleted(_), false) => 3,
    }
}

impl Change {
    /// The object's new version, or its last one.
    pub(super) fn stored(&self) -> &Stored {
        match self {
            Self::Added(stored) | Self::Modified(stored) | Self::Deleted(stored) => stored,
        }
    }
}

/// How firmly a file claims to hold an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    /// A document of the file broke and might be this object; any good document elsewhere is preferred.
    Perhaps,
    /// The file has the object's document, but it is broken now.
    Broken,
    /// The file has a good document of the object.
    Good,
}

#[derive(Clone, Debug)]
struct Entry {
    document: Document,
    hold: Hold,
}

#[derive(Debug, Default)]
struct FileState {
    entries: Vec<Entry>,
    faults: Vec<Fault>,
}

/// The object in force.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    /// The version in force.
    pub(super) stored: Stored,
    /// The file that holds it, relative to the root.
    pub(super) path: PathBuf,
    /// The line of its document there, if the document is a good one.
    pub(super) line: Option<usize>,
}

/// The folder's content.
#[derive(Debug, Default)]
pub(super) struct Folder {
    files: BTreeMap<PathBuf, FileState>,
    objects: BTreeMap<Key, InForce>,
    /// Which files hold each object.
    holders: BTreeMap<Key, BTreeSet<PathBuf>>,
    /// Files with faults.
    faulty: BTreeSet<PathBuf>,
    /// Objects with more than one document.
    contested: BTreeSet<Key>,
    /// Faults of directories, by path.
    directory_faults: BTreeMap<PathBuf, Fault>,
}

impl Folder {
    /// Takes new readings of files, all at once; `None` for a file that is gone. Returns what changed, in the
    /// order of the keys.
    pub(super) fn apply(&mut self, readings: BTreeMap<PathBuf, Option<Reading>>) -> Vec<Change> {
        let mut affected = BTreeSet::new();
        let moved = self.kept_by_move(&readings);
        for (path, reading) in readings {
            let old = self.files.remove(&path).unwrap_or_default();
            self.forget(&path, &old, &mut affected);
            if let Some(reading) = reading {
                let state = merge(old, reading, &moved);
                self.remember(path, state, &mut affected);
            }
        }
        let mut changes: Vec<Change> = affected.into_iter().filter_map(|key| self.settle(key)).collect();
        changes.sort_by_key(turn);
        changes
    }

    /// Replaces the faults of directories that could not be read.
    pub(super) fn set_directory_faults(&mut self, faults: BTreeMap<PathBuf, Fault>) {
        self.directory_faults = faults;
    }

    /// The object in force.
    pub(super) fn get(&self, key: &Key) -> Option<&InForce> {
        self.objects.get(key)
    }

    /// The objects of a kind, in order.
    pub(super) fn list(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = &Stored> {
        // No key is less than this one.
        let first = Key { kind, namespace: None, name: String::new() };
        self.objects
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind)
            .filter(move |(key, _)| namespace.is_none_or(|ns| key.namespace.as_deref() == Some(ns)))
            .map(|(_, object)| &object.stored)
    }

    /// Where an object's documents are, good and broken ones: files, relative to the root, and a line of each.
    pub(super) fn places(&self, key: &Key) -> Vec<(PathBuf, usize)> {
        let mut places = Vec::new();
        let holders = self.holders.get(key).into_iter().flatten();
        for path in holders.chain(&self.faulty).collect::<BTreeSet<_>>() {
            let state = &self.files[path];
            let good = state.entries.iter().filter(|e| e.hold == Hold::Good && e.document.stored.key == *key);
            let broken = state.faults.iter().filter(|fault| fault.key.as_ref() == Some(key));
            let lines = good.map(|e| e.document.line).chain(broken.filter_map(|fault| fault.line));
            places.extend(lines.map(|line| (path.clone(), line)));
        }
        places
    }

    /// The known files at or below a path.
    fn files_below(&self, path: &Path) -> Vec<PathBuf> {
        self.files
            .range(path.to_path_buf()..)
            .map(|(file, _)| file)
            .take_while(|file| file.starts_with(path))
            .cloned()
            .collect()
    }

    /// Everything that is wrong, in the order of files and lines. Paths are relative to the root.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self
            .directory_faults
            .iter()
            .map(|(path, fault)| problem(path, fault, !self.files_below(path).is_empty()))
            .collect();
        for path in &self.faulty {
            let state = &self.files[path];
            for fault in &state.faults {
                problems.push(problem(path, fault, self.is_covered(path, fault)));
            }
        }
        for key in &self.contested {
            self.contest_problems(key, &mut problems);
        }
        problems.sort();
        problems
    }

    fn is_covered(&self, path: &Path, fault: &Fault) -> bool {
        match &fault.key {
            Some(key) => self.objects.contains_key(key),
            None => self.files[path].entries.iter().any(|entry| entry.hold == Hold::Perhaps),
        }
    }

    fn contest_problems(&self, key: &Key, problems: &mut Vec<Problem>) {
        let Some(object) = self.objects.get(key) else { return };
        let winner = match object.line {
            Some(line) => format!("{}:{line}", object.path.display()),
            None => object.path.display().to_string(),
        };
        for path in self.holders.get(key).into_iter().flatten() {
            for entry in &self.files[path].entries {
                let is_winner = *path == object.path && object.line.is_none_or(|l| l == entry.document.line);
                if entry.document.stored.key != *key || entry.hold != Hold::Good || is_winner {
                    continue;
                }
                problems.push(Problem {
                    file: Some(path.clone()),
                    line: Some(entry.document.line),
                    key: Some(key.clone()),
                    field: None,
                    message: format!("this object is defined already in {winner}, which stays in force"),
                    is_covered: false,
                });
            }
        }
    }

    /// Objects in force whose file, in this batch, no longer has a good document of them: a broken document in
    /// another file of the batch that is known to be one of them keeps it in force (a file was renamed).
    fn kept_by_move(&self, readings: &BTreeMap<PathBuf, Option<Reading>>) -> BTreeMap<Key, Document> {
        let broken =
            readings.values().flatten().flat_map(|r| &r.faults).filter_map(|fault| fault.key.as_ref());
        broken
            .filter_map(|key| {
                let object = self.objects.get(key)?;
                let reading = readings.get(&object.path)?;
                let is_there = |r: &Reading| r.documents.iter().any(|d| d.stored.key == *key);
                if reading.as_ref().is_some_and(is_there) {
                    return None;
                }
                Some((
                    key.clone(),
                    Document { stored: object.stored.clone(), line: object.line.unwrap_or(1) },
                ))
            })
            .collect()
    }

    fn forget(&mut self, path: &Path, old: &FileState, affected: &mut BTreeSet<Key>) {
        self.faulty.remove(path);
        for entry in &old.entries {
            let key = &entry.document.stored.key;
            if let Some(paths) = self.holders.get_mut(key) {
                paths.remove(path);
                if paths.is_empty() {
                    self.holders.remove(key);
                }
            }
            affected.insert(key.clone());
        }
    }

    fn remember(&mut self, path: PathBuf, state: FileState, affected: &mut BTreeSet<Key>) {
        for entry in &state.entries {
            let key = &entry.document.stored.key;
            self.holders.entry(key.clone()).or_default().insert(path.clone());
            affected.insert(key.clone());
        }
        if !state.faults.is_empty() {
            self.faulty.insert(path.clone());
        }
        self.files.insert(path, state);
    }

    /// Decides anew which document of an object is in force.
    fn settle(&mut self, key: Key) -> Option<Change> {
        let old = self.objects.get(&key);
        let mut candidates: Vec<(&PathBuf, &Entry)> = Vec::new();
        for path in self.holders.get(&key).into_iter().flatten() {
            let entries = self.files[path].entries.iter().filter(|e| e.document.stored.key == key);
            candidates.extend(entries.map(|entry| (path, entry)));
        }
        // The greatest wins: firm before doubtful, the file in force before others, good before broken, the
        // version in force before others; else the first by path and position.
        let rank = |(path, entry): &(&PathBuf, &Entry)| {
            let is_incumbent = old.is_some_and(|o| o.path == **path);
            let is_same = old.is_some_and(|o| o.stored == entry.document.stored);
            (entry.hold != Hold::Perhaps, is_incumbent, entry.hold, is_incumbent && is_same)
        };
        let winner = candidates.iter().rev().max_by_key(|candidate| rank(candidate));
        let new = winner.map(|(path, entry)| InForce {
            stored: entry.document.stored.clone(),
            path: (*path).clone(),
            line: (entry.hold == Hold::Good).then_some(entry.document.line),
        });
        if candidates.len() > 1 {
            self.contested.insert(key.clone());
        } else {
            self.contested.remove(&key);
        }
        match new {
            Some(new) => self.put(key, new),
            None => self.objects.remove(&key).map(|old| Change::Deleted(old.stored)),
        }
    }

    fn put(&mut self, key: Key, mut new: InForce) -> Option<Change> {
        let change = match self.objects.get(&key) {
            None => Some(Change::Added(new.stored.clone())),
            Some(old) if old.stored.resource_version != new.stored.resource_version => {
                Some(Change::Modified(new.stored.clone()))
            }
            Some(old) => {
                // The same content: go on sharing the memory that consumers hold already.
                new.stored = old.stored.clone();
                None
            }
        };
        self.objects.insert(key, new);
        change
    }
}

/// What a file holds after a new reading: its good documents, and what stays in force of the old ones.
fn merge(old: FileState, reading: Reading, moved: &BTreeMap<Key, Document>) -> FileState {
    let mut entries: Vec<Entry> =
        reading.documents.into_iter().map(|document| Entry { document, hold: Hold::Good }).collect();
    let good: BTreeSet<Key> = entries.iter().map(|entry| entry.document.stored.key.clone()).collect();
    let broken: BTreeSet<Key> = reading.faults.iter().filter_map(|fault| fault.key.clone()).collect();
    let is_in_doubt = reading.faults.iter().any(|fault| fault.key.is_none());

    let mut kept = BTreeSet::new();
    let olds = old.entries.into_iter().map(|entry| entry.document);
    let moved = moved.values().filter(|document| broken.contains(&document.stored.key)).cloned();
    for document in olds.chain(moved) {
        let key = &document.stored.key;
        let hold = if broken.contains(key) { Hold::Broken } else { Hold::Perhaps };
        if good.contains(key) || (hold == Hold::Perhaps && !is_in_doubt) || !kept.insert(key.clone()) {
            continue;
        }
        entries.push(Entry { document, hold });
    }
    FileState { entries, faults: reading.faults }
}

fn problem(path: &Path, fault: &Fault, is_covered: bool) -> Problem {
    Problem {
        file: Some(path.to_path_buf()),
        line: fault.line,
        key: fault.key.clone(),
        field: fault.field.clone(),
        message: fault.message.clone(),
        is_covered,
    }
}
