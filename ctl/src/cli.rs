//! What a user types.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tortie_api::control::DEFAULT_SOCKET;

use crate::duration;

/// Reads and changes the resources of Tortie, and asks this node's agent how it stands.
#[derive(Debug, Parser)]
#[command(name = "tortiectl", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where to look. Anywhere on the command line.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// Where the resources are: local:DIR, a directory of YAML manifests.
    #[arg(long, global = true, value_name = "local:DIR", env = "TORTIE_DATASTORE")]
    pub(crate) datastore: Option<OsString>,
    /// The agent's unix socket [default: /run/tortie/agent.sock].
    #[arg(long, global = true, value_name = "PATH", env = "TORTIE_SOCKET")]
    socket: Option<OsString>,
    /// The namespace [default: default].
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

impl Shared {
    /// The agent's socket. An empty environment variable counts as none.
    pub(crate) fn socket(&self) -> PathBuf {
        match &self.socket {
            Some(path) if !path.is_empty() => path.into(),
            _ => DEFAULT_SOCKET.into(),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or replace the objects of manifests.
    Apply(ApplyArgs),
    /// Show objects.
    Get(GetArgs),
    /// Delete objects.
    Delete(DeleteArgs),
    /// Wait until this node's kernel holds everything that is in the datastore.
    Wait(WaitArgs),
    /// Show how this node's agent stands.
    Status(StatusArgs),
    /// Say whether traffic passes, and why.
    Explain(ExplainArgs),
    /// Say what a change would change, without making it.
    Preview(PreviewArgs),
}

/// Manifests on the command line.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A file of manifests, a directory of them, or - for standard input. Can be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Also the subdirectories of directories.
    #[arg(short = 'R', long, requires = "files")]
    pub(crate) recursive: bool,
}

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) input: Files,
}

/// Which objects, for `get` and `delete`.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// TYPE, TYPE NAME..., TYPE/NAME..., or TYPE,TYPE; types as kubectl and calicoctl call them.
    #[arg(value_name = "TYPE[/NAME]", required_unless_present = "files", conflicts_with = "files")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) input: Files,
    /// Objects of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "files"])]
    pub(crate) all_namespaces: bool,
    /// Only objects with these labels: app=web, tier!=db, env in (a,b), env notin (a,b), app, !app.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "files")]
    pub(crate) selector: Option<String>,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// How to show them; a table if absent.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Objects that do not exist are no error.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    /// Tables without headings.
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// How `get` shows objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// As YAML.
    Yaml,
    /// As JSON.
    Json,
    /// A table with more columns.
    Wide,
    /// TYPE/NAME only.
    Name,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// All objects of the type.
    #[arg(long, conflicts_with_all = ["selector", "files"])]
    pub(crate) all: bool,
    /// Objects that do not exist are no error.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// For everything in the datastore to be in the kernel; there is nothing else to wait for yet.
    #[arg(long, required = true)]
    pub(crate) applied: bool,
    /// How long at most: 20s, 1m30s, 500ms. Seconds if there is no unit.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// How to show it; text for people if absent.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<DataFormat>,
}

/// `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Who sends: NAMESPACE/POD, POD (of the namespace of -n), an IP address, hep/HOSTENDPOINT, node/NODE.
    pub(crate) source: String,
    /// Who it is for, in the same words; an address of a pod or node means that.
    pub(crate) destination: String,
    /// tcp/80, udp/53, sctp/9, icmp, icmp/8, icmp/8/0, or the number of a protocol without ports.
    #[arg(value_name = "PROTO/PORT")]
    pub(crate) traffic: String,
    /// Manifests to ask instead of a datastore: a file, a directory, or - for standard input. Can be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Also the subdirectories of directories.
    #[arg(short = 'R', long, requires = "files")]
    pub(crate) recursive: bool,
    /// The port that it is sent from.
    #[arg(long, value_name = "PORT", default_value_t = 49152)]
    pub(crate) source_port: u16,
    /// Over IPv4.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// Over IPv6.
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// How to show it; sentences if absent.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<DataFormat>,
}

/// `preview`.
#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// The change: a file of manifests, a directory of them, or - for standard input. Can be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Also the subdirectories of directories.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// The objects of the manifests would be deleted.
    #[arg(long, requires = "files")]
    pub(crate) delete: bool,
    /// The staged policies would be put in force.
    #[arg(long, conflicts_with_all = ["files", "delete"])]
    pub(crate) staged: bool,
    /// Manifests to compare with instead of a datastore. Can be repeated.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) against: Vec<PathBuf>,
    /// How to show it; sentences if absent.
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<DataFormat>,
}

/// How answers are shown to programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataFormat {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_default_socket_in_the_help_is_the_one_that_is_used() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains(DEFAULT_SOCKET), "{help}");
    }
}
