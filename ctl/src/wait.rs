//! `tortiectl wait`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tortie_api::control::{Reply, Request};

use crate::Error;
use crate::cli::WaitArgs;
use crate::client;
use crate::console::Console;
use crate::duration;

/// Time between attempts to reach an agent that is not there yet.
const RETRY: Duration = Duration::from_millis(50);

/// What an agent gets beyond the timeout for saying what is missing.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// The agent answers for what is in the datastore when it gets the question, which is no earlier than the
/// beginning of the command.
pub(crate) fn run(args: &WaitArgs, socket: &Path, console: &mut Console) -> Result<(), Error> {
    let began = Instant::now();
    let mut has_told = false;
    loop {
        let left = args.timeout.saturating_sub(began.elapsed());
        let timeout_millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let error = match client::ask(socket, &Request::Wait { timeout_millis }, left + GRACE) {
            Ok(reply) => return conclude(reply, args.timeout, console),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error.into()),
        };
        if left.is_zero() {
            return Err(Error::NoAgent { waited: args.timeout, source: error });
        }
        if !has_told {
            console.note(&format!("waiting: {error}"));
            has_told = true;
        }
        thread::sleep(RETRY.min(left));
    }
}

fn conclude(reply: Reply, timeout: Duration, console: &mut Console) -> Result<(), Error> {
    match reply {
        Reply::Applied { notes } => {
            for note in notes {
                console.note(&format!("note: {note}"));
            }
            console.say("applied\n");
            Ok(())
        }
        Reply::NotApplied { missing } => {
            console.error(&format!("not applied within {}", duration::show(timeout)));
            for what in missing {
                console.note(&format!("  missing: {what}"));
            }
            Ok(())
        }
        Reply::Error { message } => Err(Error::Refused(message)),
        Reply::Status(_) => Err(Error::OtherAnswer),
    }
}
