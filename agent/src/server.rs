//! The agent's edge: the unix socket, health and metrics, on a thread with an async runtime of its own.
//!
//! Nothing here can hold up the engine. What fails here (a port that is taken, a broken client) is logged and
//! tried again; enforcement does not depend on it.

mod health;
mod http;
mod metrics;
mod socket;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tortie_datastore::Datastore;

use crate::engine::Input;
use crate::mailbox::Mailbox;
use crate::shared::Shared;

/// How long to wait before an address that could not be bound is tried again.
const REBIND: Duration = Duration::from_secs(2);

/// What those at the edge need.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<dyn Datastore>,
    pub(crate) mailbox: Mailbox<Input>,
}

/// Serves until the process ends. The socket is bound before this returns, so that who started the agent
/// finds it. Where there is no room for it (a full or read-only disk), it is bound when there is: enforcement does not
/// wait for that.
pub(crate) fn start(edge: Edge, path: &Path) -> anyhow::Result<()> {
    let listener = match socket::bind(path) {
        Ok(listener) => Some(listener),
        Err(error) if is_about_room(&error) => {
            tracing::error!(path = %path.display(), %error, "cannot serve on the socket; trying again");
            None
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot serve on socket {}", path.display()));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("edge".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::spawn(http::serve(edge.clone(), &health::SERVICE));
                tokio::spawn(http::serve(edge.clone(), &metrics::SERVICE));
                let listener = match listener {
                    Some(listener) => listener,
                    None => bind_later(&path).await,
                };
                socket::serve(edge, listener).await;
            });
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Whether the disk, and not what lies there, stands in the way.
fn is_about_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Tries until there is a socket.
async fn bind_later(path: &Path) -> UnixListener {
    loop {
        tokio::time::sleep(REBIND).await;
        match socket::bind(path) {
            Ok(listener) => {
                tracing::info!(path = %path.display(), "serving on the socket");
                return listener;
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot serve on the socket"),
        }
    }
}
