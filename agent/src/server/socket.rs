//! The unix socket: one JSON request a line, one JSON reply a line (see [`tortie_api::control`]).

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tortie_api::control::{Area, Reply, Request, Status};

use super::Edge;
use crate::engine::{Input, ticket};

/// The longest request; ours are a hundred bytes.
const REQUEST_MAX: u64 = 64 << 10;
/// The longest time that a request may ask to wait.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// Binds the socket. One left behind by an agent that was killed is replaced; that of a living one is not.
pub(super) fn bind(path: &Path) -> io::Result<StdListener> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent serves there")),
            Err(_) => std::fs::remove_file(path)?,
        }
    }
    let listener = StdListener::bind(path)?;
    // Whoever can write to the socket can read the status of everything that this node enforces.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves for ever.
pub(super) async fn serve(edge: Edge, listener: StdListener) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "socket");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let edge = edge.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(&edge, stream).await {
                        tracing::debug!(%error, "client");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(edge: &Edge, mut stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(tokio::io::AsyncReadExt::take(read, REQUEST_MAX));
    let mut line = String::new();
    while read.read_line(&mut line).await? > 0 {
        let reply = match serde_json::from_str::<Request>(&line) {
            Ok(request) => answer(edge, request).await,
            Err(error) => Reply::Error { message: format!("request not understood: {error}") },
        };
        let mut text = serde_json::to_string(&reply)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
        line.clear();
        read.get_mut().set_limit(REQUEST_MAX);
    }
    Ok(())
}

async fn answer(edge: &Edge, request: Request) -> Reply {
    match request {
        Request::Status => {
            let edge = edge.clone();
            // The datastore may have to look at a disk.
            let status =
                tokio::task::spawn_blocking(move || edge.shared.status(&edge.store.problems())).await;
            match status {
                Ok(status) => Reply::Status(Box::new(status)),
                Err(error) => Reply::Error { message: error.to_string() },
            }
        }
        Request::Wait { timeout_millis } => {
            let deadline = Instant::now() + Duration::from_millis(timeout_millis).min(WAIT_MAX);
            let edge = edge.clone();
            let waited = tokio::task::spawn_blocking(move || wait(&edge, deadline)).await;
            waited.unwrap_or_else(|error| Reply::Error { message: error.to_string() })
        }
    }
}

fn wait(edge: &Edge, deadline: Instant) -> Reply {
    let (answer, ticket) = ticket();
    if !edge.mailbox.send(Input::Wait(answer)) {
        return Reply::Error { message: "the agent is stopping".to_owned() };
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let outcome = ticket.answer.recv_timeout(left);
    let status = edge.shared.status(&edge.store.problems());
    match outcome {
        Ok(()) => Reply::Applied { notes: notes(&status) },
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Reply::Error { message: "the agent is stopping".to_owned() }
        }
        Err(mpsc::RecvTimeoutError::Timeout) => Reply::NotApplied { missing: missing(&status) },
    }
}

/// What somebody who waited for their change should know although the kernel holds what was understood.
fn notes(status: &Status) -> Vec<String> {
    let pending = status.pending_interfaces.iter();
    let pending = pending
        .map(|name| format!("interface {name} is not there or not running; its routes follow when it is"));
    let refused = status.problems.iter().filter(|p| matches!(p.area, Area::Datastore | Area::Policy));
    let refused = refused.map(|p| format!("{}: {}", p.object, p.message));
    pending.chain(refused).collect()
}

fn missing(status: &Status) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    if !status.in_sync {
        missing.push("the datastore has not been read completely yet".to_owned());
    }
    let kernel = status.problems.iter().filter(|p| p.area == Area::Kernel);
    missing.extend(kernel.map(|p| format!("{}: {}", p.object, p.message)));
    if missing.is_empty() {
        missing.push("the last changes are still being applied".to_owned());
    }
    missing
}
