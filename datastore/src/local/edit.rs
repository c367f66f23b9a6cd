//! Changing one document in the text of a file, leaving every other byte of the file alone. Pure.
//!
//! YAML ends a document at any line that starts with `---` or `...`, also inside of quotes and blocks, so the
//! text can be divided without parsing it.

use std::ops::Range;

#[cfg(test)]
mod tests;

/// A document's part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    /// Lines, from 1, the document's `---` line included.
    lines: Range<usize>,
    /// Bytes, the document's `---` line included.
    bytes: Range<usize>,
    /// Whether it begins with a `---` line.
    has_marker: bool,
}

/// Replaces the document that has the given line, from 1. Comments before and after the document's content stay;
/// `content` ends with a line feed. `None` if no document has that line.
pub(super) fn replace(text: &str, line: usize, content: &str) -> Option<String> {
    let span = span_at(text, line)?;
    let (marker, body) = split_marker(&text[span.bytes.clone()], span.has_marker);
    let head: usize = body.split_inclusive('\n').take_while(|line| is_comment(line)).map(str::len).sum();
    // Further in, a `#` after spaces may belong to the content; in the first column it cannot.
    let is_tail = |line: &&str| line.trim().is_empty() || line.starts_with('#');
    let tail: usize = body[head..].split_inclusive('\n').rev().take_while(is_tail).map(str::len).sum();

    let mut new = String::with_capacity(text.len() + content.len());
    new.push_str(&text[..span.bytes.start]);
    new.push_str(marker);
    new.push_str(&body[..head]);
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str(content);
    new.push_str(&body[body.len() - tail..]);
    new.push_str(&text[span.bytes.end..]);
    Some(new)
}

/// The text of the document that has the given line, and the line that it begins in.
pub(super) fn document_at(text: &str, line: usize) -> Option<(&str, usize)> {
    let span = span_at(text, line)?;
    Some((&text[span.bytes], span.lines.start))
}

/// Removes the document that has the given line, from 1, with its comments and its `---` line.
pub(super) fn remove(text: &str, line: usize) -> Option<String> {
    let span = span_at(text, line)?;
    Some([&text[..span.bytes.start], &text[span.bytes.end..]].concat())
}

fn span_at(text: &str, line: usize) -> Option<Span> {
    spans(text).into_iter().find(|span| span.lines.contains(&line))
}

fn spans(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut current = Span { lines: 1..1, bytes: 0..0, has_marker: false };
    let mut offset = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let end = offset + line.len();
        if is_marker(line, "---") {
            spans.push(current);
            current = Span { lines: number..number + 1, bytes: offset..end, has_marker: true };
        } else if is_marker(line, "...") {
            spans.push(current);
            current = Span { lines: number + 1..number + 1, bytes: end..end, has_marker: false };
        } else {
            current.lines.end = number + 1;
            current.bytes.end = end;
        }
        offset = end;
    }
    spans.push(current);
    spans
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// The `---` line and the rest. Content on the `---` line itself is counted to neither: it is to be replaced.
fn split_marker(text: &str, has_marker: bool) -> (&str, &str) {
    if !has_marker {
        return ("", text);
    }
    let line_end = text.find('\n').map_or(text.len(), |index| index + 1);
    let (line, body) = text.split_at(line_end);
    if is_comment(&line[3..]) { (line, body) } else { ("---", body) }
}

/// An empty line or one that is all comment.
fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}
