//! `tortie-agent`: brings a node's kernel in line with the datastore, and keeps it so.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = tortie_agent::cli::Args::parse();
    match tortie_agent::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tortie-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
