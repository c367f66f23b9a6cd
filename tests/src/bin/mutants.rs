//! `make mutants`: plants faults in the compiler, one at a time, and says which of them the tests catch.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use tortie_tests::mutants::{self, Fate, Fault, Garden};

/// Plants faults in a copy of the sources, one at a time, and runs the property tests on each.
#[derive(Parser)]
struct Arguments {
    /// Only faults whose name contains one of these texts.
    names: Vec<String>,
    /// Only list the faults.
    #[arg(long)]
    list: bool,
    /// Where the copy is built.
    #[arg(long, default_value = "target/mutants")]
    target: PathBuf,
    /// Arguments of `cargo test` that choose the tests.
    #[arg(long, default_value = "--package tortie-rules --test properties")]
    tests: String,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to be done when this cannot be said.
            let _ = writeln!(io::stderr(), "mutants: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every fault was caught.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let chosen = |fault: &Fault| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| fault.name.contains(name.as_str()))
    };
    let faults: Vec<Fault> =
        mutants::faults(&root.join("tests/mutants/faults.yaml"))?.into_iter().filter(chosen).collect();
    if arguments.list {
        for fault in &faults {
            writeln!(io::stdout(), "{}: {}", fault.file.display(), fault.name)?;
        }
        return Ok(true);
    }
    let target = std::path::absolute(&arguments.target).context("find the target folder")?;
    let tests = arguments.tests.split_whitespace().map(str::to_owned).collect();
    writeln!(io::stderr(), "building and testing without a fault")?;
    let garden = Garden::new(&root, target, tests)?;
    let (mut survived, mut broken) = (0, 0);
    for (at, fault) in faults.iter().enumerate() {
        let started = Instant::now();
        let outcome = match garden.try_out(fault) {
            Ok(Fate::Caught(tests)) => format!("caught by {}", tests.join(", ")),
            Ok(Fate::Survived) => {
                survived += 1;
                "SURVIVED".to_owned()
            }
            Err(error) => {
                broken += 1;
                format!("NOT TRIED: {error}")
            }
        };
        let seconds = started.elapsed().as_secs();
        writeln!(io::stdout(), "{:2}/{} {}: {outcome} ({seconds} s)", at + 1, faults.len(), fault.name)?;
    }
    let caught = faults.len() - survived - broken;
    writeln!(
        io::stdout(),
        "{caught} of {} faults caught, {survived} survived, {broken} not tried",
        faults.len()
    )?;
    Ok(caught == faults.len())
}
