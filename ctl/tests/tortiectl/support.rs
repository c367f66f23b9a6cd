//! A folder that is a datastore, and the program run on it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What a run of the program gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Asserts that all went well without a word on standard error.
    #[track_caller]
    pub(crate) fn prints(&self, out: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(0), out, ""));
    }

    /// Asserts an exit code and what is said on standard error; nothing on standard output.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, err: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(code), "", err));
    }
}

/// The program, with an empty environment of ours.
pub(crate) fn tortiectl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tortiectl"));
    command.env_remove("TORTIE_DATASTORE").env_remove("TORTIE_SOCKET").stdin(Stdio::null());
    command
}

pub(crate) fn run(command: &mut Command) -> Ran {
    Ran::of(&command.output().unwrap())
}

/// Two folders: a datastore, and one for manifests to apply.
#[derive(Debug)]
pub(crate) struct Folders {
    root: TempDir,
}

impl Folders {
    pub(crate) fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("store")).unwrap();
        fs::create_dir(root.path().join("in")).unwrap();
        Self { root }
    }

    /// The datastore's folder.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.path().join("store")
    }

    /// A file beside the datastore.
    pub(crate) fn input(&self, name: &str) -> PathBuf {
        self.root.path().join("in").join(name)
    }

    /// Writes a file for `apply -f`.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        write(&self.input(name), text)
    }

    /// Writes a file into the datastore, as a person with an editor does.
    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        write(&self.store().join(name), text)
    }

    /// The program with `--datastore`.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = tortiectl();
        command.arg("--datastore").arg(format!("local:{}", self.store().display())).args(words);
        command
    }

    /// Runs the words of a line on the datastore.
    pub(crate) fn run(&self, line: &str) -> Ran {
        run(&mut self.command(line.split_whitespace()))
    }

    /// Applies a text from standard input.
    pub(crate) fn apply(&self, text: &str) -> Ran {
        let mut command = self.command(["apply", "-f", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Ran::of(&child.wait_with_output().unwrap())
    }

    /// Files below the datastore's folder that are not hidden, in order.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        collect(&self.store(), &self.store(), &mut files);
        files.sort();
        files
    }
}

fn write(path: &Path, text: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    path.to_path_buf()
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if !path.file_name().unwrap().as_encoded_bytes().starts_with(b".") {
            files.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}
