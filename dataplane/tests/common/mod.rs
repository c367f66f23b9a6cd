//! Running tests against a real kernel, in namespaces of their own.
//!
//! A test program calls [`run`] from `main`. It starts itself again inside new network, mount and process
//! namespaces (and a user namespace when not root), with an empty `/run`; there every test gets a thread
//! with a network namespace of its own. A test that lacks a program or a kernel feature is counted as
//! ignored, with the reason.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "TORTIE_TEST_NAMESPACES";

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(10);

/// A test: its name, the programs it needs, and what it does.
pub(crate) struct Test {
    name: &'static str,
    programs: &'static [&'static str],
    body: fn() -> Outcome,
}

/// How a test ended; failures are panics.
pub(crate) enum Outcome {
    /// Everything was checked.
    Done,
    /// Something is missing here.
    Skipped(String),
}

impl Test {
    /// A test that needs these programs.
    pub(crate) const fn new(
        name: &'static str,
        programs: &'static [&'static str],
        body: fn() -> Outcome,
    ) -> Self {
        Self { name, programs, body }
    }
}

/// Makes a list of tests of functions that return nothing: their names are the tests' names.
#[macro_export]
macro_rules! tests {
    ($programs:expr; $($name:ident),+ $(,)?) => {
        vec![$($crate::common::Test::new(stringify!($name), &$programs, || {
            $crate::common::IntoOutcome::into_outcome($name())
        })),+]
    };
}

/// What a test function may return.
pub(crate) trait IntoOutcome {
    /// As an outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

/// Runs the tests in namespaces.
pub(crate) fn run(tests: Vec<Test>) -> ExitCode {
    let missing = if std::env::var_os(INSIDE).is_some() {
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs on /run");
        None
    } else if can_unshare() {
        return start_inside();
    } else {
        Some("this machine allows no namespaces".to_owned())
    };
    let trials = tests.into_iter().map(|test| trial(&test, missing.clone())).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(test: &Test, missing: Option<String>) -> Trial {
    let Test { name, programs, body } = *test;
    Trial::ignorable_test(name, move || {
        let program = programs.iter().find(|program| !has_program(program));
        if let Some(reason) = missing.or_else(|| program.map(|program| format!("no program {program}"))) {
            return Ok(Completion::ignored_with(reason));
        }
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            body()
        });
        match thread.unwrap().join() {
            Ok(Outcome::Done) => Ok(Completion::Completed),
            Ok(Outcome::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
            Err(panic) => Err(Failed::from(words(panic.as_ref()))),
        }
    })
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic").to_owned()
}

fn unshare_command() -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command
}

fn can_unshare() -> bool {
    unshare_command().arg("true").output().is_ok_and(|output| output.status.success())
}

fn start_inside() -> ExitCode {
    let program = std::env::current_exe().expect("this program's path");
    let status = unshare_command().arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1").status();
    let code = status.expect("unshare runs").code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

/// Runs a program in this thread's network namespace; returns what it prints. Panics when it fails.
pub(crate) fn sh(command: &str) -> String {
    let (success, text) = try_sh(command);
    assert!(success, "{command}: {text}");
    text
}

/// Runs a program; whether it succeeded, and what it printed, errors too.
pub(crate) fn try_sh(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Waits for a condition.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::yield_now();
    }
}
