//! One agent at a time, and the programs that it started.
//!
//! An agent that is killed leaves programs behind that still bring into the kernel what it wanted when it started them:
//! an `iptables-restore` that waits for the lock of xtables does so seconds later. The next agent must not read the
//! kernel before that, or it believes what is about to change; on the legacy back end nobody would tell it. So each
//! agent holds a lock on a file, its programs inherit it, and the next agent begins when it is free.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{Context, Waiting, wait_for_stop};

/// How often the lock is tried.
const PAUSE: Duration = Duration::from_millis(10);
/// How long it is waited for. The programs wait ten seconds for the lock of xtables; what takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The lock of an agent, held until it and all programs that it started have ended.
#[derive(Debug)]
pub struct Tenure {
    file: File,
}

impl Tenure {
    /// Opens the lock file beside the socket: `SOCKET.lock`. It is not locked yet.
    ///
    /// # Errors
    /// When the file can be neither opened nor made.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let file =
            File::options().create(true).truncate(false).write(true).mode(0o600).open(path_beside(socket))?;
        Ok(Self { file })
    }

    /// Takes the lock if nobody has it. From then on programs that this process starts share it.
    ///
    /// # Errors
    /// When the file system has no locks.
    pub fn try_begin(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Open in programs too: that is what makes them share it.
        fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(true)
    }
}

/// Waits until the programs of the agent before have ended. `true` when told to stop. What hangs is waited for no
/// longer than [`PATIENCE`]: policy that is enforced now is worth more than a write that may never come.
pub(super) fn begin(context: &Context, waiting: &mut Waiting) -> anyhow::Result<bool> {
    let Some(tenure) = &context.tenure else { return Ok(false) };
    let until = Instant::now() + PATIENCE;
    let mut is_told = false;
    loop {
        match tenure.try_begin() {
            Ok(true) => return Ok(false),
            Ok(false) if Instant::now() < until => {}
            Ok(false) => {
                tracing::warn!("programs of the agent before still run; going on without them");
                return Ok(false);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether programs of the agent before still run");
                return Ok(false);
            }
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::info!("waiting for programs of the agent before");
            context.shared.set_start_problem("programs that the agent before has started still run");
        }
        if wait_for_stop(context, PAUSE, waiting)? {
            return Ok(true);
        }
    }
}

fn path_beside(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".lock");
    path.into()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_lock_is_free_when_its_holder_and_the_programs_it_started_have_ended() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let first = Tenure::open(&socket).unwrap();
        assert!(first.try_begin().unwrap());
        // Ends when its input does.
        let mut program = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let second = Tenure::open(&socket).unwrap();
        assert!(!second.try_begin().unwrap());
        drop(first);
        assert!(!second.try_begin().unwrap(), "the program still runs");
        drop(program.stdin.take());
        program.wait().unwrap();
        assert!(second.try_begin().unwrap());
    }
}
