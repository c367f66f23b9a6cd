//! Runs one program to its end: input written from memory, output handed over in pieces, a deadline.
//!
//! No shell is involved. All three pipes are served by one poll loop, so neither side can block the other
//! however much is written.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::watch::Writers;

/// So much error output is kept; the rest is read and dropped.
const MAX_STDERR: usize = 64 * 1024;
const PIECE: usize = 64 * 1024;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    /// Path of the program.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) args: &'a [String],
    /// What it reads; nothing stands for `/dev/null`.
    pub(crate) stdin: &'a [u8],
    /// It is killed when it takes longer.
    pub(crate) timeout: Duration,
    /// Where its process id is noted while it may change the kernel's rules.
    pub(crate) writers: Option<&'a Writers>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// Its error output.
    pub(crate) stderr: String,
}

/// A program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It could not be started.
    #[error("{} cannot be started", program.display())]
    Start {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Talking to it failed.
    #[error("{}: pipe failed", program.display())]
    Pipe {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was killed.
    #[error("{} took longer than {} s and was killed", program.display(), timeout.as_secs_f32())]
    Timeout {
        /// Its path.
        program: PathBuf,
        /// The time it had.
        timeout: Duration,
    },
}

impl CommandError {
    /// The error with its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        match self {
            Self::Start { source, .. } | Self::Pipe { source, .. } => format!("{self}: {source}"),
            Self::Timeout { .. } => self.to_string(),
        }
    }
}

/// Runs the program; `on_stdout` gets its output as it comes, cut anywhere.
pub(crate) fn run(job: &Job<'_>, on_stdout: &mut dyn FnMut(&[u8])) -> Result<Outcome, CommandError> {
    let deadline = Instant::now() + job.timeout;
    let mut child = start(job)?;
    if let Some(writers) = job.writers {
        writers.started(child.id());
    }
    let result = finish(&mut child, job, deadline, on_stdout);
    if let Some(writers) = job.writers {
        writers.ended(child.id());
    }
    result
}

fn finish(
    child: &mut Child,
    job: &Job<'_>,
    deadline: Instant,
    on_stdout: &mut dyn FnMut(&[u8]),
) -> Result<Outcome, CommandError> {
    let result = serve(child, job, deadline, on_stdout)
        .and_then(|stderr| Ok(Outcome { status: reap(child, deadline)?, stderr }));
    result.map_err(|source| {
        // It may have ended by itself in the meantime; either way it is waited for, so no zombie stays.
        let _ = child.kill();
        let _ = child.wait();
        let program = job.program.to_owned();
        if source.kind() == ErrorKind::TimedOut {
            CommandError::Timeout { program, timeout: job.timeout }
        } else {
            CommandError::Pipe { program, source }
        }
    })
}

fn start(job: &Job<'_>) -> Result<Child, CommandError> {
    Command::new(job.program)
        .args(job.args.iter().map(OsStr::new))
        .stdin(if job.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| CommandError::Start { program: job.program.to_owned(), source })
}

/// The parent's ends of the pipes; `None` once closed.
struct Pipes<'a> {
    stdin: Option<ChildStdin>,
    unsent: &'a [u8],
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    errors: Vec<u8>,
    piece: Vec<u8>,
}

fn serve(
    child: &mut Child,
    job: &Job<'_>,
    deadline: Instant,
    on_stdout: &mut dyn FnMut(&[u8]),
) -> std::io::Result<String> {
    let mut pipes = Pipes {
        stdin: child.stdin.take(),
        unsent: job.stdin,
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        errors: Vec::new(),
        piece: vec![0; PIECE],
    };
    pipes.set_nonblocking()?;
    while pipes.stdout.is_some() || pipes.stderr.is_some() {
        let ready = pipes.wait(deadline)?;
        if ready.stdin {
            pipes.send()?;
        }
        if ready.stdout {
            pipes.receive(on_stdout)?;
        }
        if ready.stderr {
            pipes.receive_errors()?;
        }
    }
    Ok(String::from_utf8_lossy(&pipes.errors).into_owned())
}

#[derive(Default)]
struct Ready {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Pipes<'_> {
    fn fds(&self) -> [Option<(BorrowedFd<'_>, PollFlags)>; 3] {
        [
            self.stdin.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::POLLOUT)),
            self.stdout.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)),
            self.stderr.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)),
        ]
    }

    fn set_nonblocking(&self) -> std::io::Result<()> {
        for (fd, _) in self.fds().into_iter().flatten() {
            let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(())
    }

    fn wait(&self, deadline: Instant) -> std::io::Result<Ready> {
        let open = self.fds();
        let mut fds: Vec<PollFd<'_>> =
            open.iter().flatten().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that the last millisecond is not spent spinning.
            let millis = u16::try_from(left.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(0) if left.is_zero() => return Err(ErrorKind::TimedOut.into()),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut answers = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut ready = Ready::default();
        for (slot, flag) in open.iter().zip([&mut ready.stdin, &mut ready.stdout, &mut ready.stderr]) {
            *flag = slot.is_some() && answers.next().unwrap_or(false);
        }
        Ok(ready)
    }

    fn send(&mut self) -> std::io::Result<()> {
        let Some(pipe) = &mut self.stdin else { return Ok(()) };
        match pipe.write(self.unsent) {
            Ok(sent) => self.unsent = &self.unsent[sent..],
            Err(error) if is_temporary(&error) => {}
            // A program that has read enough tells by its exit status whether that was right.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.unsent = &[],
            Err(error) => return Err(error),
        }
        if self.unsent.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    fn receive(&mut self, on_stdout: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
        let Some(pipe) = &mut self.stdout else { return Ok(()) };
        match pipe.read(&mut self.piece) {
            Ok(0) => self.stdout = None,
            Ok(count) => on_stdout(&self.piece[..count]),
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn receive_errors(&mut self) -> std::io::Result<()> {
        let Some(pipe) = &mut self.stderr else { return Ok(()) };
        match pipe.read(&mut self.piece) {
            Ok(0) => self.stderr = None,
            Ok(count) => {
                let room = MAX_STDERR.saturating_sub(self.errors.len()).min(count);
                self.errors.extend_from_slice(&self.piece[..room]);
            }
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn is_temporary(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Waits for a program that has closed its output: normally it is gone within microseconds.
fn reap(child: &mut Child, deadline: Instant) -> std::io::Result<ExitStatus> {
    let mut nap = Duration::from_micros(20);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, stdin: &[u8], timeout: Duration) -> (Result<Outcome, CommandError>, Vec<u8>) {
        let mut out = Vec::new();
        let args = ["-c".to_owned(), script.to_owned()];
        let job = Job { program: Path::new("/bin/sh"), args: &args, stdin, timeout, writers: None };
        (run(&job, &mut |piece| out.extend_from_slice(piece)), out)
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn megabytes_in_and_out_at_once_do_not_block() {
        let input: Vec<u8> = (0..8_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (outcome, out) = shell("cat; echo end >&2", &input, LONG);
        let outcome = outcome.unwrap();
        assert!(outcome.status.success());
        assert_eq!(outcome.stderr, "end\n");
        assert!(out == input, "{} bytes of {} came back", out.len(), input.len());
    }

    #[test]
    fn a_program_that_does_not_read_its_input_is_judged_by_its_status() {
        let (outcome, _) = shell("exit 3", &vec![b'x'; 1_000_000], LONG);
        assert_eq!(outcome.unwrap().status.code(), Some(3));
    }

    #[test]
    fn a_hung_program_is_killed() {
        for script in ["exec sleep 600", "exec >&- 2>&-; exec sleep 600"] {
            let (outcome, _) = shell(script, b"", Duration::from_millis(50));
            assert!(matches!(outcome, Err(CommandError::Timeout { .. })), "{script}: {outcome:?}");
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let job = Job {
            program: Path::new("/nonexistent/restore"),
            args: &[],
            stdin: b"",
            timeout: LONG,
            writers: None,
        };
        let error = run(&job, &mut |_| ()).unwrap_err();
        assert!(error.chain().contains("/nonexistent/restore"), "{}", error.chain());
    }
}
