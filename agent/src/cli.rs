//! The command line, stable from the first release on.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use tortie_api::control::DEFAULT_SOCKET;

/// Enforces Kubernetes and Calico network policy on this node.
#[derive(Clone, Debug, Parser)]
#[command(name = "tortie-agent", version)]
pub struct Args {
    /// This node's name, as spec.nodeName of its pods has it.
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// Where the resources are: local:DIR, a directory of YAML manifests.
    #[arg(long, value_name = "local:DIR")]
    pub datastore: DatastoreUrl,
    /// Settings in Felix's format (INI).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Unix socket to serve status on.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// How to write the log.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatastoreUrl {
    /// A directory of manifests.
    Local(PathBuf),
}

impl FromStr for DatastoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("local", dir)) if !dir.is_empty() => Ok(Self::Local(dir.into())),
            _ => Err(format!("{text:?} is no datastore; use local:DIR")),
        }
    }
}

impl std::fmt::Display for DatastoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(dir) => write!(f, "local:{}", dir.display()),
        }
    }
}
