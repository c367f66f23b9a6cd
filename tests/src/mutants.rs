//! Planted faults: does the proof notice them?
//!
//! ```text
//!  faults.yaml ──► one fault at a time in a copy of the sources ──► cargo test ──► caught | survived
//! ```
//!
//! A fault is one piece of text in one source file and what stands there instead. One that no test notices says
//! that the tests prove less than they seem to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use tempfile::TempDir;

/// A fault to plant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What is wrong then, in words.
    pub name: String,
    /// The source file, from the root of the sources.
    pub file: PathBuf,
    /// What stands there; exactly once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
}

/// What became of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A test failed: which ones.
    Caught(Vec<String>),
    /// All tests passed.
    Survived,
}

/// Why a fault could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum MutantError {
    /// The list of faults cannot be read.
    #[error("{path}: {reason}")]
    List {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The text to replace is not there exactly once: the sources have changed since the list was written.
    #[error("{name}: its text stands {count} times in {file}, not once")]
    NotOnce {
        /// The fault.
        name: String,
        /// Where it was looked for.
        file: PathBuf,
        /// How often it was found.
        count: usize,
    },
    /// The sources do not build, so that no test can say anything.
    #[error("{name}: does not build:\n{output}")]
    DoesNotBuild {
        /// The fault, or what was built without one.
        name: String,
        /// The end of what the compiler said.
        output: String,
    },
    /// The tests fail without any fault.
    #[error("the tests fail without any fault:\n{output}")]
    AlreadyRed {
        /// The end of what they said.
        output: String,
    },
    /// A file or program could not be used.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> MutantError {
    let action = action.into();
    move |source| MutantError::Io { action, source }
}

/// Reads a list of faults.
///
/// # Errors
/// [`MutantError::List`]
pub fn faults(path: &Path) -> Result<Vec<Fault>, MutantError> {
    let list = |reason: String| MutantError::List { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| list(error.to_string()))?;
    let faults: Vec<Fault> = serde_saphyr::from_str(&text).map_err(|error| list(error.to_string()))?;
    match faults.iter().find(|fault| fault.find == fault.replace) {
        Some(fault) => Err(list(format!("{}: nothing would change", fault.name))),
        None => Ok(faults),
    }
}

/// A copy of the sources to plant faults in, with a target folder of its own.
#[derive(Debug)]
pub struct Garden {
    sources: TempDir,
    target: PathBuf,
    /// Arguments of `cargo test`.
    tests: Vec<String>,
}

impl Garden {
    /// Copies what git knows of `root`, and makes sure that the tests pass there. `tests` are the arguments of
    /// `cargo test` that name the tests.
    ///
    /// # Errors
    /// When the copy cannot be made, or the tests do not pass without a fault.
    pub fn new(root: &Path, target: PathBuf, tests: Vec<String>) -> Result<Self, MutantError> {
        let sources = tempfile::tempdir().map_err(io_error("make a folder for the sources"))?;
        for file in tracked(root)? {
            let to = sources.path().join(&file);
            fs::create_dir_all(to.parent().unwrap_or(sources.path()))
                .and_then(|()| fs::copy(root.join(&file), &to))
                .map_err(io_error(format!("copy {}", file.display())))?;
        }
        let garden = Self { sources, target, tests };
        garden.build("the sources without any fault")?;
        let output = garden.cargo(&[])?;
        if output.status.success() {
            Ok(garden)
        } else {
            Err(MutantError::AlreadyRed { output: end_of(&output) })
        }
    }

    /// Plants one fault, runs the tests, and takes it out again.
    ///
    /// # Errors
    /// When the fault does not fit the sources or they do not build with it.
    pub fn try_out(&self, fault: &Fault) -> Result<Fate, MutantError> {
        let path = self.sources.path().join(&fault.file);
        let read = || fs::read_to_string(&path).map_err(io_error(format!("read {}", fault.file.display())));
        let write =
            |text: &str| fs::write(&path, text).map_err(io_error(format!("write {}", fault.file.display())));
        let sound = read()?;
        let count = sound.matches(&fault.find).count();
        if count != 1 {
            let (name, file) = (fault.name.clone(), fault.file.clone());
            return Err(MutantError::NotOnce { name, file, count });
        }
        write(&sound.replacen(&fault.find, &fault.replace, 1))?;
        let fate = self.build(&fault.name).and_then(|()| self.cargo(&[])).map(|output| fate_of(&output));
        write(&sound)?;
        fate
    }

    fn build(&self, name: &str) -> Result<(), MutantError> {
        let output = self.cargo(&["--no-run"])?;
        if output.status.success() {
            return Ok(());
        }
        Err(MutantError::DoesNotBuild { name: name.to_owned(), output: end_of(&output) })
    }

    fn cargo(&self, more: &[&str]) -> Result<Output, MutantError> {
        // Whoever runs this by `cargo run` hands down what cargo told it of itself.
        let own = std::env::vars_os().map(|(name, _)| name).filter(|name| {
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
        });
        let mut command = Command::new("cargo");
        own.for_each(|name| {
            command.env_remove(name);
        });
        command
            .args(["test", "--quiet"])
            .args(more)
            .args(&self.tests)
            .current_dir(self.sources.path())
            .env("CARGO_TARGET_DIR", &self.target)
            .output()
            .map_err(io_error("run cargo"))
    }
}

/// What git tracks, and what it would: a fault is to be found in the sources as they are.
fn tracked(root: &Path) -> Result<Vec<PathBuf>, MutantError> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(io_error("run git"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_terminator('\0').map(PathBuf::from).filter(|file| root.join(file).is_file()).collect())
}

fn fate_of(output: &Output) -> Fate {
    if output.status.success() {
        return Fate::Survived;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // The list that libtest prints at the end, indented by four; what the tests print themselves stands before it.
    let lines: Vec<&str> = text.lines().collect();
    let begin = lines.iter().rposition(|line| *line == "failures:").map_or(lines.len(), |at| at + 1);
    let failed = lines[begin..].iter();
    let mut names: Vec<String> = failed
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|l| is_name(l))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    Fate::Caught(names)
}

fn is_name(line: &str) -> bool {
    !line.is_empty() && line.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
}

fn end_of(output: &Output) -> String {
    let both = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    let lines: Vec<&str> = both.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_fault_still_fits_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let faults = faults(&root.join("tests/mutants/faults.yaml")).unwrap();
        assert!(faults.len() >= 40, "{} faults", faults.len());
        for fault in faults {
            let text = fs::read_to_string(root.join(&fault.file)).unwrap();
            assert_eq!(text.matches(&fault.find).count(), 1, "{}", fault.name);
        }
    }
}
