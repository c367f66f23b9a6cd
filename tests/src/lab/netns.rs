//! Anonymous network namespaces, held by descriptor.
//!
//! A thread's network namespace is its own, so the lab never changes that of a long-lived thread: it enters a
//! namespace in a short-lived one, and what is made there (a socket, a child process) stays in that namespace.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{panic, process, thread};

use std::os::fd::AsRawFd;

use nix::sched::{CloneFlags, setns, unshare};

use super::LabError;

/// How long the kernel may take to make an address its own.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(10);

/// A network namespace; it exists as long as a clone of this value or a process or socket in it does.
#[derive(Debug, Clone)]
pub struct Netns {
    label: Arc<str>,
    handle: Arc<File>,
}

impl Netns {
    /// Makes a namespace with `lo` down and no other interface, and writes `sysctls` (path below `/proc/sys`, value).
    /// A sysctl that this kernel does not have is left out.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new(label: &str, sysctls: &[(&str, &str)]) -> Result<Self, LabError> {
        let made = in_thread(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            for (path, value) in sysctls {
                match fs::write(format!("/proc/sys/{path}"), value) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            File::open("/proc/thread-self/ns/net")
        });
        let handle = made.map_err(LabError::io(format!("make a network namespace for {label}")))?;
        Ok(Self { label: label.into(), handle: Arc::new(handle) })
    }

    /// The name given at its making, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A path that names this namespace to other programs, such as `ip link add … netns PATH`, while this process lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd()).into()
    }

    /// Calls `work` on a thread that is in this namespace, and returns what it returns.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        in_thread(|| setns(&*self.handle, CloneFlags::CLONE_NEWNET).map(|()| work()))
            .map_err(LabError::sys(format!("enter the namespace of {}", self.label)))
    }

    /// Starts `command` in this namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the program not be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, LabError> {
        let name = command.get_program().to_string_lossy().into_owned();
        self.enter(|| command.spawn())?.map_err(LabError::io(format!("start {name} in {}", self.label)))
    }

    /// Runs a program in this namespace to its end and returns what it printed; a failure of the program is no error.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> Result<Output, LabError> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(&mut command)?;
        let stdin = child.stdin.take();
        thread::scope(|scope| {
            // A program may print before it has read everything, so the writing must not hold up the reading. It may
            // also end without reading: that it had no use for the input shows in its exit code.
            scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
            child.wait_with_output()
        })
        .map_err(LabError::io(format!("run {program} in {}", self.label)))
    }

    /// Runs a program that must succeed and returns its standard output.
    ///
    /// # Errors
    /// [`LabError::Command`] with what it printed, when it fails.
    pub fn check(&self, program: &str, args: &[&str], input: &str) -> Result<String, LabError> {
        let output = self.run(program, args, input)?;
        if !output.status.success() {
            return Err(LabError::Command {
                command: [&[program], args].concat().join(" "),
                place: self.label.to_string(),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One `ip -batch` over all `lines`; returns when the addresses that they add are in use.
    pub(super) fn ip_batch(&self, lines: &[String]) -> Result<(), LabError> {
        self.check("ip", &["-batch", "-"], &(lines.join("\n") + "\n"))?;
        let added: Vec<&str> = lines.iter().filter_map(|line| added_ipv6(line)).collect();
        if added.is_empty() {
            return Ok(());
        }
        // The kernel puts an IPv6 address into the local table a little later. Before, packets to it are forwarded.
        let end = Instant::now() + ADDRESS_DEADLINE;
        loop {
            let local = self.check("ip", &["-6", "route", "show", "table", "local"], "")?;
            let is_local = |address: &&str| local.split_whitespace().any(|word| word == *address);
            if added.iter().all(is_local) {
                return Ok(());
            }
            if Instant::now() > end {
                let addresses = added.join(", ");
                return Err(LabError::Topology(format!("{}: {addresses} did not become local", self.label)));
            }
        }
    }
}

/// The IPv6 address that a line of `ip -batch` adds.
fn added_ipv6(line: &str) -> Option<&str> {
    let address = line.strip_prefix("addr add ")?.split('/').next()?;
    address.contains(':').then_some(address)
}

/// Calls `work` on a thread of its own, whose namespace it may change.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(cause) => panic::resume_unwind(cause),
    })
}
