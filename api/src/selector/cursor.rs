//! A place in the text of a selector, and the words and punctuation that can be read from there.
//!
//! There is no list of tokens: what a word means depends on what stands before it (`in` is an operator after a
//! label and a label elsewhere), so the parser asks for what the grammar allows.

use super::{MAX_LABEL, SelectorError};

/// Longest piece of the text that an error message repeats, in characters.
const FOUND_MAX: usize = 32;

/// Whether a label may contain this byte.
pub(super) const fn is_label_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-')
}

/// A place in a text. Never stands within a character: all that is matched by byte is ASCII.
pub(super) struct Cursor<'a> {
    text: &'a str,
    /// Byte offset.
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Byte offset, for [`Self::column_of`].
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Steps over `word` if it stands right here.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Whether `word` stands right here.
    pub(super) fn sees(&self, word: &str) -> bool {
        self.rest().starts_with(word)
    }

    /// Skips blanks, then steps over `word` or fails.
    pub(super) fn expect(&mut self, word: &str, expected: &'static str) -> Result<(), SelectorError> {
        self.skip_blanks();
        if self.eat(word) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// Steps over the characters that may form a label; possibly none.
    pub(super) fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let len = rest.bytes().take_while(|b| is_label_byte(*b)).count();
        self.at += len;
        &rest[..len]
    }

    /// Skips blanks, then reads a label. `expected` is for the error if there is none.
    pub(super) fn label(&mut self, expected: &'static str) -> Result<&'a str, SelectorError> {
        self.skip_blanks();
        let start = self.at;
        match self.word() {
            "" => Err(self.unexpected(expected)),
            long if long.len() > MAX_LABEL => {
                Err(SelectorError::LabelTooLong { length: long.len(), column: self.column_of(start) })
            }
            label => Ok(label),
        }
    }

    /// Skips blanks, then reads a quoted string, if there is one.
    pub(super) fn string(&mut self) -> Result<Option<&'a str>, SelectorError> {
        self.skip_blanks();
        let start = self.at;
        let quote = if self.eat("\"") {
            '"'
        } else if self.eat("'") {
            '\''
        } else {
            return Ok(None);
        };
        match self.rest().split_once(quote) {
            Some((value, _)) => {
                self.at += value.len() + quote.len_utf8();
                Ok(Some(value))
            }
            None => Err(SelectorError::UnterminatedString { quote, column: self.column_of(start) }),
        }
    }

    /// The error that something else should stand here.
    pub(super) fn unexpected(&self, expected: &'static str) -> SelectorError {
        self.unexpected_at(self.at, expected)
    }

    /// The error that something else should stand at an offset.
    pub(super) fn unexpected_at(&self, at: usize, expected: &'static str) -> SelectorError {
        let rest = &self.text[at..];
        let word: String =
            rest.chars().take_while(|c| c.is_ascii() && is_label_byte(*c as u8)).take(FOUND_MAX).collect();
        let found = match rest.chars().next() {
            None => "the end".to_owned(),
            Some(c) if word.is_empty() => format!("{:?}", c.to_string()),
            Some(_) => format!("{word:?}"),
        };
        SelectorError::Unexpected { expected, found, column: self.column_of(at) }
    }

    /// The column of a byte offset, in characters from 1.
    pub(super) fn column_of(&self, at: usize) -> usize {
        self.text[..at].chars().count() + 1
    }
}
