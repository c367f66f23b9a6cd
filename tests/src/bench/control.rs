//! Asking the agent over its socket, without starting `tortiectl`: a time must not hold a program's start.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tortie_api::control::{Reply, Request, Status};

/// How long an agent may take to listen.
const LISTEN: Duration = Duration::from_secs(30);
/// How long an agent may take to apply what it was given.
const APPLY: Duration = Duration::from_mins(2);

/// A connection to an agent.
#[derive(Debug)]
pub(super) struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects as soon as the agent listens.
    pub(super) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let deadline = Instant::now() + LISTEN;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(APPLY + LISTEN))?;
                    return Ok(Self(BufReader::new(stream)));
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context("the agent does not listen");
                }
                Err(_) => thread::sleep(Duration::from_micros(500)),
            }
        }
    }

    /// Returns when the kernel holds what was in the datastore at the time of the call.
    pub(super) fn wait(&mut self) -> anyhow::Result<()> {
        let timeout_millis = u64::try_from(APPLY.as_millis())?;
        match self.ask(&Request::Wait { timeout_millis })? {
            Reply::Applied { .. } => Ok(()),
            Reply::NotApplied { missing } => bail!("the agent has not applied: {}", missing.join("; ")),
            other => bail!("the agent answered {other:?}"),
        }
    }

    /// How the agent stands; one that reports a problem is an error.
    pub(super) fn status(&mut self) -> anyhow::Result<Status> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => match status.problems.first() {
                None => Ok(*status),
                Some(problem) => bail!("the agent reports {}: {}", problem.object, problem.message),
            },
            other => bail!("the agent answered {other:?}"),
        }
    }

    fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        let question = serde_json::to_string(request)? + "\n";
        self.0.get_mut().write_all(question.as_bytes()).context("ask the agent")?;
        let mut answer = String::new();
        self.0.read_line(&mut answer).context("hear from the agent")?;
        serde_json::from_str(&answer).context("the agent closed the connection or answered nonsense")
    }
}
