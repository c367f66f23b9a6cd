//! The node daemon: settings, wiring, health, status and shutdown around the engine.
//!
//! Rules stay in force when the agent ends, however it ends; the next one takes them over.

pub mod cli;
pub mod config;
pub mod engine;
mod logging;
pub mod mailbox;
mod server;
pub mod shared;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tortie_api::control::Status;
use tortie_datastore::Datastore;
use tortie_datastore::local::LocalStore;

use crate::cli::{Args, DatastoreUrl};
use crate::config::{Layer, Settings};
use crate::engine::{Input, Tenure};
use crate::mailbox::Mailbox;
use crate::server::Edge;
use crate::shared::Shared;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: a configuration file that cannot be read, a datastore that is not there, a socket that
/// cannot be bound, iptables programs that are missing.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let layers = local_layers(args.config.as_deref())?;
    let (settings, _) = Settings::resolve(&layers);
    logging::init(args.log_format, settings.log_level);
    let store: Arc<dyn Datastore> = match &args.datastore {
        DatastoreUrl::Local(dir) => Arc::new(
            LocalStore::open(dir).with_context(|| format!("cannot open the datastore {}", args.datastore))?,
        ),
    };
    let status = Status {
        node: args.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        datastore: args.datastore.to_string(),
        ..Status::default()
    };
    let shared = Arc::new(Shared::new(status, settings));
    let (mailbox, inbox) = mailbox::mailbox()?;
    stop_on_signals(mailbox.clone())?;
    let edge = Edge { shared: shared.clone(), store: store.clone(), mailbox: mailbox.clone() };
    server::start(edge, &args.socket)?;
    tracing::info!(node = args.node, datastore = %args.datastore, version = env!("CARGO_PKG_VERSION"), "started");
    let tenure = Tenure::open(&args.socket)
        .inspect_err(|error| tracing::warn!(%error, "cannot make the lock file beside the socket"))
        .ok();
    let node = args.node.clone();
    let context = engine::Context { tenure, node, store, local_layers: layers, shared, mailbox, inbox };
    let outcome = engine::run(&context);
    // An error means that it is gone already.
    let _ = std::fs::remove_file(&args.socket);
    tracing::info!("stopped; rules, sets and routes stay in force");
    outcome
}

/// Settings from the file, then from the environment, which counts more.
fn local_layers(file: Option<&Path>) -> anyhow::Result<Vec<Layer>> {
    let mut layers = Vec::new();
    if let Some(path) = file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        layers.push(config::from_file(path, &text)?);
    }
    let variables =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    layers.push(config::from_environment(variables));
    Ok(layers)
}

fn stop_on_signals(mailbox: Mailbox<Input>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen for signals")?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!(signal, "stopping");
            mailbox.send(Input::Stop);
        }
    })?;
    Ok(())
}
