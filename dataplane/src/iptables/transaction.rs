//! The input of one `iptables-restore --noflush`, and what its error output says about it.
//!
//! ```text
//!  *filter
//!  :cali-a - -                 every chain to be written: created or emptied
//!  -A cali-a …                 its rules
//!  -D FORWARD …                our rules in the kernel's chains, out
//!  -I FORWARD 1 …              and in again
//!  COMMIT
//!  *filter                     nft back end only, see `Transaction::new`
//!  :cali-old - -               chains to be deleted: emptied first, they may refer to each other
//!  --delete-chain cali-old
//!  COMMIT
//! ```

use std::fmt::Write;

use tortie_rules::render::Table;

use super::plan::Step;
use crate::feature::Backend;

/// Text for `iptables-restore` that knows which of its lines is whose.
#[derive(Debug)]
pub(super) struct Transaction {
    text: String,
    lines: usize,
    /// First line and index of the step that begins there; a step may have several.
    spans: Vec<(usize, Option<usize>)>,
}

impl Transaction {
    /// The text that does these steps.
    ///
    /// The legacy back end edits a copy of the table in order and swaps it in, so all fits into one
    /// commit. `iptables-nft-restore` checks references as they were when the transaction began;
    /// deletions therefore go into a second one, which begins when nothing refers to the chains any more.
    pub(super) fn new(table: Table, backend: Backend, steps: &[Step]) -> Self {
        let mut this = Self { text: String::new(), lines: 0, spans: Vec::new() };
        let deletes = steps.iter().any(|step| matches!(step, Step::Delete(_)));
        let others = steps.iter().any(|step| !matches!(step, Step::Delete(_)));
        this.own(format_args!("*{table}"), None);
        this.declare(steps, false);
        for (index, step) in steps.iter().enumerate() {
            this.fill(step, index);
        }
        if deletes {
            if others && backend == Backend::Nft {
                this.own(format_args!("COMMIT"), None);
                this.own(format_args!("*{table}"), None);
            }
            this.declare(steps, true);
            for (index, step) in steps.iter().enumerate() {
                if let Step::Delete(name) = step {
                    this.own(format_args!("--delete-chain {name}"), Some(index));
                }
            }
        }
        this.own(format_args!("COMMIT"), None);
        this
    }

    /// What `iptables-restore` shall read.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The step that wrote this line, counted from 1. `None` for lines that belong to none.
    pub(super) fn owner(&self, line: usize) -> Option<usize> {
        let after = self.spans.partition_point(|(first, _)| *first <= line);
        let (_, owner) = self.spans.get(after.checked_sub(1)?)?;
        owner.filter(|_| line <= self.lines)
    }

    fn declare(&mut self, steps: &[Step], deleted: bool) {
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Write(write) if !deleted => {
                    self.own(format_args!(":{} - -", write.chain.name), Some(index));
                }
                Step::Delete(name) if deleted => self.own(format_args!(":{name} - -"), Some(index)),
                _ => {}
            }
        }
    }

    fn fill(&mut self, step: &Step, index: usize) {
        let owner = Some(index);
        match step {
            Step::Write(write) => {
                for rule in &write.chain.rules {
                    self.own(format_args!("-A {} {}", write.chain.name, rule.text), owner);
                }
            }
            Step::Hook(hook) => {
                for text in &hook.remove {
                    self.own(format_args!("-D {} {text}", hook.chain), owner);
                }
                for rule in hook.top.iter().rev() {
                    self.own(format_args!("-I {} {}", hook.chain, rule.text), owner);
                }
                for rule in &hook.bottom {
                    self.own(format_args!("-A {} {}", hook.chain, rule.text), owner);
                }
            }
            Step::Delete(_) => {}
        }
    }

    fn own(&mut self, line: std::fmt::Arguments<'_>, owner: Option<usize>) {
        self.lines += 1;
        if self.spans.last().is_none_or(|(_, last)| *last != owner) {
            self.spans.push((self.lines, owner));
        }
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

/// A line that `iptables-restore` complained about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Counted from 1.
    pub(super) line: usize,
    /// What it said.
    pub(super) message: String,
}

/// The lines that an error output names. Three forms are known, from iptables 1.8.9:
///
/// ```text
/// iptables-restore: line 7 failed: REASON                              (reason only from the nft back end)
/// REASON ⏎ Error occurred at line: 3
/// line 5: RULE_APPEND failed (Invalid argument): rule in chain cali-b  (from the kernel, nft back end)
/// ```
pub(super) fn complaints(stderr: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    for text in stderr.lines() {
        if let Some(line) = text.strip_prefix("Error occurred at line: ").and_then(leading_number) {
            found.push(Complaint { line, message: summary(stderr) });
            continue;
        }
        let Some(at) = text.find("line ") else { continue };
        let tail = &text[at + "line ".len()..];
        if let Some(line) = leading_number(tail).filter(|_| tail.contains(" failed")) {
            let message = text.trim_start_matches("iptables-").to_owned();
            found.push(Complaint { line, message });
        }
    }
    found
}

fn leading_number(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// An error output in one line, without hints on usage.
pub(super) fn summary(stderr: &str) -> String {
    let noise = ["Try `", "Ignoring deprecated", "Error occurred at line", "# Warning"];
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !noise.iter().any(|start| line.starts_with(start)))
        .take(5)
        .collect();
    if lines.is_empty() { "no error output".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests;
