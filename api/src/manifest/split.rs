//! Documents of a text, separated at the lines `---` and `...`.
//!
//! YAML forbids such lines inside of any value, so this needs no parser.

/// The text of one document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// Line of its first byte, counted from 1.
    pub(super) first_line: usize,
    /// Line of its first content.
    pub(super) content_line: usize,
    /// From its `---`, if it has one, to the next `---` or `...`.
    pub(super) bytes: &'a [u8],
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Chunks with content: not just blank lines, comments and `---`.
pub(super) fn chunks(text: &[u8]) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut chunks = Vec::new();
    let mut open = Open::at(0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let end = offset + line.len();
        match Line::of(line) {
            Line::Start if !open.has_only_directives() => {
                chunks.extend(open.close(text, offset));
                open = Open::at(offset, index + 1);
                open.see(index + 1, after_marker(line));
            }
            Line::End => {
                chunks.extend(open.close(text, offset));
                open = Open::at(end, index + 2);
            }
            Line::Start => open.see(index + 1, after_marker(line)),
            Line::Other => open.see(index + 1, line),
        }
        offset = end;
    }
    chunks.extend(open.close(text, text.len()));
    chunks
}

enum Line {
    Start,
    End,
    Other,
}

impl Line {
    fn of(line: &[u8]) -> Self {
        let is_marker = |marker: &[u8]| {
            line.strip_prefix(marker)
                .is_some_and(|rest| matches!(rest.first(), None | Some(b' ' | b'\t' | b'\r' | b'\n')))
        };
        if is_marker(b"---") {
            Self::Start
        } else if is_marker(b"...") {
            Self::End
        } else {
            Self::Other
        }
    }
}

fn after_marker(line: &[u8]) -> &[u8] {
    line.get(3..).unwrap_or_default()
}

/// A chunk whose end is not yet known.
struct Open {
    start: usize,
    first_line: usize,
    content_line: Option<usize>,
    has_directive: bool,
}

impl Open {
    fn at(start: usize, first_line: usize) -> Self {
        Self { start, first_line, content_line: None, has_directive: false }
    }

    /// Notes what a line holds. Directives (`%YAML 1.2`) come before content and belong to the document
    /// that the next `---` begins.
    fn see(&mut self, number: usize, line: &[u8]) {
        match line.trim_ascii_start().first() {
            None | Some(b'#') => {}
            Some(b'%') if self.content_line.is_none() && line.starts_with(b"%") => self.has_directive = true,
            Some(_) => {
                self.content_line.get_or_insert(number);
            }
        }
    }

    fn has_only_directives(&self) -> bool {
        self.has_directive && self.content_line.is_none()
    }

    fn close<'a>(&self, text: &'a [u8], end: usize) -> Option<Chunk<'a>> {
        let content_line = self.content_line?;
        Some(Chunk { first_line: self.first_line, content_line, bytes: &text[self.start..end] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(usize, usize, String)> {
        let show =
            |c: Chunk<'_>| (c.first_line, c.content_line, String::from_utf8_lossy(c.bytes).into_owned());
        chunks(text.as_bytes()).into_iter().map(show).collect()
    }

    #[test]
    fn documents_end_at_marker_lines() {
        assert_eq!(
            split("a: 1\n---\nb: 2\n...\nc: 3\n"),
            [(1, 1, "a: 1\n".into()), (2, 3, "---\nb: 2\n".into()), (5, 5, "c: 3\n".into())]
        );
    }

    #[test]
    fn documents_without_content_are_left_out() {
        assert_eq!(split("# only a comment\n---\n\n---\n  # another\n--- # and one\n---\n"), []);
        assert_eq!(split(""), []);
    }

    #[test]
    fn a_marker_may_have_content_after_it() {
        assert_eq!(split("--- {a: 1}\n---\tb\n"), [(1, 1, "--- {a: 1}\n".into()), (2, 2, "---\tb\n".into())]);
    }

    #[test]
    fn a_line_that_only_begins_like_a_marker_is_none() {
        assert_eq!(split("a: |\n  x\n----\n  ---\n").len(), 1);
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_are_no_content() {
        assert_eq!(split("\u{feff}---\r\n# x\r\na: 1\r\n---\r\n").len(), 1);
        assert_eq!(split("\u{feff}"), []);
    }

    #[test]
    fn a_directive_belongs_to_the_document_after_it() {
        assert_eq!(split("%YAML 1.2\n---\na: 1\n"), [(1, 3, "%YAML 1.2\n---\na: 1\n".into())]);
    }
}
