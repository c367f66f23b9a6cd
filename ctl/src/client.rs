//! Questions to this node's agent: a connection, a JSON line there, a JSON line back.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tortie_api::control::{Reply, Request};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens.
    #[error("cannot reach the agent at {}: {}", socket.display(), crate::reason(io))]
    Unreachable {
        /// The agent's socket.
        socket: PathBuf,
        /// What the system said.
        io: io::Error,
    },
    /// The connection broke.
    #[error("lost the agent at {}: {}", socket.display(), crate::reason(io))]
    Lost {
        /// The agent's socket.
        socket: PathBuf,
        /// What the system said.
        io: io::Error,
    },
    /// The agent takes longer than it may.
    #[error("the agent at {} does not answer", socket.display())]
    Silent {
        /// The agent's socket.
        socket: PathBuf,
    },
    /// The question or the answer is no JSON of the right form.
    #[error("the agent's answer is not understood")]
    Garbled(#[from] serde_json::Error),
}

impl Error {
    /// Whether this is what an agent looks like that is just starting, or starting again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { io, .. } => {
                matches!(io.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
            }
            Self::Lost { .. } => true,
            Self::Silent { .. } | Self::Garbled(_) => false,
        }
    }
}

/// Asks a question. `patience` is how long the agent may be silent; it is not zero.
pub(crate) fn ask(socket: &Path, request: &Request, patience: Duration) -> Result<Reply, Error> {
    let question = serde_json::to_string(request)? + "\n";
    let unreachable = |io| Error::Unreachable { socket: socket.to_path_buf(), io };
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    let answer = exchange(&mut stream, &question, patience).map_err(|io| match io.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent { socket: socket.to_path_buf() },
        _ => Error::Lost { socket: socket.to_path_buf(), io },
    })?;
    Ok(serde_json::from_slice(&answer)?)
}

fn exchange(stream: &mut UnixStream, question: &str, patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut answer)?;
    if answer.ends_with(b"\n") {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"))
    }
}
