//! `tortiectl`, the command line client.
//!
//! ```text
//! words ──cli──► arguments ──┬─ apply get delete ──► datastore        (a directory of manifests)
//!                            ├─ wait status ───────► agent's socket   (one JSON line each way)
//!                            └─ explain preview ───► the datastore's objects, evaluated by `tortie_rules::eval`
//! ```
//!
//! | module | its part |
//! |---|---|
//! | `cli` | what a user types |
//! | `datastore` `target` `input` `labels` | what is meant by it: where, which objects, which manifests |
//! | `apply` `get` `delete` `wait` `status` `explain` `preview` | one command each |
//! | `world` | the objects that `explain` and `preview` ask |
//! | `table` `columns` `age` `output` | how objects and answers are shown |
//! | `client` | questions to the agent |
//! | `console` | output, and how many errors were reported |

use std::ffi::OsString;
use std::io;

mod age;
mod apply;
mod cli;
mod client;
mod columns;
mod console;
mod datastore;
mod delete;
mod duration;
mod explain;
mod get;
mod input;
mod labels;
mod object;
mod output;
mod preview;
mod status;
mod table;
mod target;
mod wait;
mod world;

use clap::Parser as _;
use cli::{Cli, Command};

pub use console::Console;

/// All went well.
pub const EXIT_OK: u8 = 0;
/// Something did not; what it was has been written to standard error.
pub const EXIT_FAILURE: u8 = 1;
/// The command line makes no sense.
pub const EXIT_USAGE: u8 = 2;

/// Why a command ended early. What concerns one object of several is reported to the [`Console`] instead.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The datastore failed as a whole.
    #[error(transparent)]
    Datastore(#[from] tortie_datastore::Error),
    /// The agent did not answer.
    #[error(transparent)]
    Agent(#[from] client::Error),
    /// The agent answered that it could not.
    #[error("the agent says: {0}")]
    Refused(String),
    /// The agent answered something else than was asked.
    #[error("the agent did not answer the question; is it of another version?")]
    OtherAnswer,
    /// No agent answered in time.
    #[error("no agent answered within {}", duration::show(*waited))]
    NoAgent {
        /// How long was waited.
        waited: std::time::Duration,
        /// What was wrong the last time.
        #[source]
        source: client::Error,
    },
    /// An answer could not be written as JSON.
    #[error("cannot write this as JSON")]
    Json(#[from] serde_json::Error),
}

/// Runs a command line, the program's name first. Returns the exit code.
pub fn run(words: impl IntoIterator<Item = OsString>, console: &mut Console) -> u8 {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(answer) => return say_what_clap_says(&answer, console),
    };
    let result = execute(cli, console);
    let is_usage = matches!(result, Err(Error::Usage(_)));
    if let Err(error) = result {
        console.error(&chain(&error));
    }
    match console.finish() {
        _ if is_usage => EXIT_USAGE,
        0 => EXIT_OK,
        _ => EXIT_FAILURE,
    }
}

fn execute(cli: Cli, console: &mut Console) -> Result<(), Error> {
    let shared = cli.shared;
    match cli.command {
        Command::Apply(args) => apply::run(&args, &shared, console),
        Command::Get(args) => get::run(&args, &shared, console),
        Command::Delete(args) => delete::run(&args, &shared, console),
        Command::Wait(args) => wait::run(&args, &shared.socket(), console),
        Command::Explain(args) => explain::run(&args, &shared, console),
        Command::Preview(args) => preview::run(&args, &shared, console),
        Command::Status(args) => status::run(&args, &shared.socket(), console),
    }
}

/// Help and version are no errors, everything else that clap says is about usage.
fn say_what_clap_says(answer: &clap::Error, console: &mut Console) -> u8 {
    let text = answer.render();
    if answer.use_stderr() {
        console.note(text.to_string().trim_end());
        return EXIT_USAGE;
    }
    console.say(&text.to_string());
    if console.finish() == 0 { EXIT_OK } else { EXIT_FAILURE }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What the system says, without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
