//! `tortiectl`: see the library of this crate.

use std::process::ExitCode;

use tortie_ctl::Console;

fn main() -> ExitCode {
    let mut console = Console::new(std::io::stdout(), std::io::stderr());
    ExitCode::from(tortie_ctl::run(std::env::args_os(), &mut console))
}
