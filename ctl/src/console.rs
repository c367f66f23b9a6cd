//! Output, and the count of errors.
//!
//! A reader that closes the pipe early (`tortiectl get pods | head -1`) is no error: the rest of the output is
//! dropped, and the command finishes what it has begun.

use std::fmt;
use std::io::{self, Write};

/// Standard output and standard error of one command.
pub struct Console {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    out_state: OutState,
    errors: usize,
}

enum OutState {
    Open,
    Closed,
    Failed(io::Error),
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("errors", &self.errors).finish_non_exhaustive()
    }
}

impl Console {
    /// A console that writes results to `out`, everything else to `err`.
    pub fn new(out: impl Write + 'static, err: impl Write + 'static) -> Self {
        Self { out: Box::new(out), err: Box::new(err), out_state: OutState::Open, errors: 0 }
    }

    /// Writes a text as it is.
    pub(crate) fn say(&mut self, text: &str) {
        if matches!(self.out_state, OutState::Open) {
            self.out_state = match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
                Ok(()) => OutState::Open,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => OutState::Closed,
                Err(error) => OutState::Failed(error),
            };
        }
    }

    /// Writes a line to standard error that is no error.
    pub(crate) fn note(&mut self, text: &str) {
        // There is nobody left to tell that standard error cannot be written.
        let _ = writeln!(self.err, "{text}").and_then(|()| self.err.flush());
    }

    /// Reports an error; the exit code will not be 0.
    pub(crate) fn error(&mut self, text: &str) {
        self.errors += 1;
        self.note(&format!("error: {text}"));
    }

    /// Errors reported so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Reports output that was lost, and returns the number of errors of the whole command.
    pub(crate) fn finish(&mut self) -> usize {
        if let OutState::Failed(error) = std::mem::replace(&mut self.out_state, OutState::Closed) {
            self.error(&format!("cannot write the output: {}", crate::reason(&error)));
        }
        self.errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails every write.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let mut console = Console::new(Broken(io::ErrorKind::BrokenPipe), io::sink());
        console.say("x\n");
        console.say("y\n");
        assert_eq!(console.finish(), 0);
    }

    #[test]
    fn output_that_is_lost_is_an_error() {
        let mut console = Console::new(Broken(io::ErrorKind::StorageFull), io::sink());
        console.say("x\n");
        assert_eq!(console.finish(), 1);
    }

    #[test]
    fn a_closed_standard_error_does_not_hide_the_failure() {
        let mut console = Console::new(io::sink(), Broken(io::ErrorKind::BrokenPipe));
        console.error("x");
        assert_eq!(console.finish(), 1);
    }
}
