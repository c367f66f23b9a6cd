//! Structured log lines on standard error, for people or as JSON.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

use crate::cli::LogFormat;

/// Changes what is logged; not there when `RUST_LOG` decides.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log. `RUST_LOG` goes before the configured level, which [`set_level`] changes.
pub(crate) fn init(format: LogFormat, level: tracing::Level) {
    let configured = EnvFilter::try_from_default_env();
    let is_fixed = configured.is_ok();
    let (filter, handle) =
        reload::Layer::new(configured.unwrap_or_else(|_| EnvFilter::new(level.to_string())));
    if !is_fixed {
        // Only a second call could find it set.
        let _ = FILTER.set(handle);
    }
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// Logs from this level on.
pub(crate) fn set_level(level: tracing::Level) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(EnvFilter::new(level.to_string()))
    {
        tracing::warn!(%error, "log level");
    }
}
