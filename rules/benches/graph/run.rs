//! Each case in a process of its own, so that none sees the memory of another.

use std::process::{Command, ExitCode, Stdio};

use crate::report::Columns;
use crate::{cases, report};

/// Runs the one case that is named next, and prints its row for the parent process.
const ONE: &str = "--one";

/// Runs the chosen cases and prints their table.
pub(crate) fn main(columns: Columns) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, name] = &args[..]
        && flag == ONE
    {
        let case = cases::ALL.iter().find(|case| case.name == *name).expect("the parent names a case");
        report::print_raw(&(case.run)());
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&cases::Case> = cases::ALL
        .iter()
        .filter(|case| args.is_empty() || args.iter().any(|arg| case.name.contains(arg.as_str())))
        .collect();
    if chosen.is_empty() {
        report::print_names(&cases::ALL);
        return ExitCode::FAILURE;
    }
    report::print_head(columns);
    let program = std::env::current_exe().expect("this program has a path");
    for case in chosen {
        let output = Command::new(&program)
            .args([ONE, case.name])
            .stderr(Stdio::inherit())
            .output()
            .expect("a case can be started");
        if !output.status.success() {
            report::print_failure(case.name);
            return ExitCode::FAILURE;
        }
        report::print_row(columns, case, &report::parse_raw(&String::from_utf8_lossy(&output.stdout)));
    }
    ExitCode::SUCCESS
}
