//! How the demo prints: numbered steps, commands, and what they print. In colour only on a terminal.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// How far all below a step's title is indented.
const INDENT: &str = "  ";

/// The place that the demo prints to.
pub struct Screen {
    out: Box<dyn Write>,
    colour: bool,
    steps: usize,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen")
            .field("colour", &self.colour)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// How a text is set off from others, on a terminal.
#[derive(Debug, Clone, Copy)]
enum Tone {
    Plain,
    Bold,
    Dim,
    Green,
    Red,
}

impl Tone {
    /// The terminal's code (ECMA-48, Select Graphic Rendition).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Red => "31",
        }
    }
}

impl Screen {
    /// Standard output; in colour if that is a terminal and the environment has no `NO_COLOR`.
    pub fn stdout() -> Self {
        let wants_none = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::new(io::stdout(), io::stdout().is_terminal() && !wants_none)
    }

    /// Any other place.
    pub fn new(out: impl Write + 'static, colour: bool) -> Self {
        Self { out: Box::new(out), colour, steps: 0 }
    }

    /// Whether colours are wanted.
    pub fn is_coloured(&self) -> bool {
        self.colour
    }

    /// Begins a step.
    ///
    /// # Errors
    /// When it cannot be printed; the same for all that follow.
    pub fn step(&mut self, title: &str) -> io::Result<()> {
        self.steps += 1;
        let title = format!("{}. {title}", self.steps);
        writeln!(self.out)?;
        self.line("", &title, Tone::Bold)
    }

    /// An empty line.
    pub fn gap(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// A sentence, or several lines.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        text.lines().try_for_each(|line| self.line(INDENT, line, Tone::Plain))
    }

    /// A command as a user types it on some host.
    pub fn command(&mut self, host: &str, command: &str) -> io::Result<()> {
        self.line(INDENT, &format!("{host}# {command}"), Tone::Bold)
    }

    /// What a command printed.
    pub fn output(&mut self, text: &str) -> io::Result<()> {
        text.lines().try_for_each(|line| self.line(INDENT, line, Tone::Dim))
    }

    /// Good news.
    pub fn good(&mut self, text: &str) -> io::Result<()> {
        self.line(INDENT, &format!("✓ {text}"), Tone::Green)
    }

    /// Bad news.
    pub fn bad(&mut self, text: &str) -> io::Result<()> {
        self.line(INDENT, &format!("✗ {text}"), Tone::Red)
    }

    fn line(&mut self, indent: &str, text: &str, tone: Tone) -> io::Result<()> {
        match (text, tone, self.colour) {
            ("", ..) => writeln!(self.out),
            (_, Tone::Plain, _) | (_, _, false) => writeln!(self.out, "{indent}{text}"),
            (_, tone, true) => writeln!(self.out, "{indent}\x1b[{}m{text}\x1b[0m", tone.code()),
        }
    }
}
