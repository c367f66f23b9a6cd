//! Moving a program into namespaces of its own, so that it leaves nothing behind however it ends.
//!
//! The program runs itself again as PID 1 of a new PID namespace, with a mount and a network namespace (and, for an
//! ordinary user, a user namespace) of its own. The kernel kills PID 1 when the first process dies, and everything
//! in a PID namespace when its PID 1 dies: agents, tools, and with the last holder of a descriptor the network
//! namespaces. `/run` is a private tmpfs, so that the lab shares no lock (`xtables.lock`) or file with the host.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, exit};
use std::{env, fs, process};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::{LabError, tools};

/// Holds the first process's id, for the process inside.
const MARKER: &str = "TORTIE_LAB_PARENT";
/// Descriptors that are enough for some thousand probes at once.
const DESCRIPTORS: u64 = 65_536;

const ROOT_HINT: &str = "the lab needs the right to make namespaces; in a container start it with --privileged, or run as an ordinary user";
const USER_HINT: &str = "this system does not let ordinary users make namespaces; run as root, or allow it: \
     sysctl kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), \
     user.max_user_namespaces above 0";
const PROC_HINT: &str = "the lab mounts /proc anew for its own processes; a container that hides parts of /proc \
     forbids that: start it with --privileged";

/// Puts this program into namespaces of its own. To be called first thing in `main`, before any thread is started.
///
/// The first time it runs the program again inside, with the same arguments, waits for it, and ends the process with
/// its exit code; it returns only inside, or when that could not be done.
///
/// # Errors
/// [`LabError::MissingProgram`] or [`LabError::Rights`], naming what is missing.
pub fn enter() -> Result<(), LabError> {
    match env::var(MARKER) {
        Ok(parent) if process::id() == 1 => settle(&parent),
        Ok(_) => Ok(()), // started by a program that is inside
        Err(_) => {
            tools::check()?;
            leave_host()?;
            exit(run_inside()?)
        }
    }
}

/// New namespaces for this process (the PID namespace: for its children).
fn leave_host() -> Result<(), LabError> {
    let (uid, gid) = (geteuid(), getegid());
    if !uid.is_root() {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused("make a user namespace", USER_HINT))?;
        become_root(uid, gid).map_err(LabError::io("map the user into the new namespace"))?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID)
        .map_err(refused("make namespaces", if uid.is_root() { ROOT_HINT } else { USER_HINT }))
}

/// Maps this user to root of the new user namespace.
fn become_root(uid: Uid, gid: Gid) -> std::io::Result<()> {
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Runs this program again as PID 1 of the new namespace; returns its exit code.
fn run_inside() -> Result<i32, LabError> {
    let program = env::current_exe().map_err(LabError::io("find this program's file"))?;
    let status = Command::new(program)
        .args(env::args_os().skip(1))
        .env(MARKER, process::id().to_string())
        .env("PATH", tools::search_path())
        .status()
        .map_err(LabError::io("run this program again in namespaces of its own"))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// The inside half: tie this process's life to the first one's, then make the mounts private.
fn settle(parent: &str) -> Result<(), LabError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(LabError::sys("ask for a signal at the parent's death"))?;
    if !is_parent_alive(parent) {
        exit(128 + Signal::SIGKILL as i32);
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(refused("make mounts private", ROOT_HINT))?;
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), strict, none).map_err(refused("mount /proc", PROC_HINT))?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
        .map_err(refused("mount /run", ROOT_HINT))?;
    raise_descriptor_limit()
}

/// Whether the process `parent` still is this one's parent. `/proc` is still the host's here.
fn is_parent_alive(parent: &str) -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return true };
    status.lines().filter_map(|l| l.strip_prefix("PPid:")).any(|id| id.trim() == parent)
}

fn raise_descriptor_limit() -> Result<(), LabError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(LabError::sys("read the descriptor limit"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard)
        .map_err(LabError::sys("raise the descriptor limit"))
}

fn refused(action: &'static str, hint: &'static str) -> impl FnOnce(Errno) -> LabError {
    move |source| LabError::Rights { action, hint, source }
}
