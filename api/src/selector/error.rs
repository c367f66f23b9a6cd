//! What can be wrong with a selector.

use super::{MAX_LABEL, MAX_NESTING};

/// What is wrong with a selector. Columns count characters, from 1.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectorError {
    /// Something else should stand here.
    #[error("expected {expected} at column {column}, found {found}")]
    Unexpected {
        /// What may stand here.
        expected: &'static str,
        /// What does.
        found: String,
        /// Where.
        column: usize,
    },
    /// A string begins and does not end.
    #[error("the string that begins at column {column} has no closing {quote}")]
    UnterminatedString {
        /// The quote that would end it.
        quote: char,
        /// Where the opening quote is.
        column: usize,
    },
    /// A label has more than [`MAX_LABEL`] characters.
    #[error("the label at column {column} has {length} characters, at most {MAX_LABEL} are allowed")]
    LabelTooLong {
        /// Its length.
        length: usize,
        /// Where it begins.
        column: usize,
    },
    /// More than [`MAX_NESTING`] groups stand within each other.
    #[error("nested more than {MAX_NESTING} levels deep at column {column}")]
    TooDeep {
        /// Where the outermost group that is too much begins.
        column: usize,
    },
    /// A label that code has put into an expression could not be written.
    #[error("{0:?} is no label: use a-z A-Z 0-9 _ . / -")]
    NotALabel(String),
    /// A value that code has put into an expression could not be written: there are no escapes.
    #[error("the value {0:?} has both kinds of quotes, which a selector cannot express")]
    UnquotableValue(String),
}

impl SelectorError {
    /// Where the fault is, counted in characters from 1. `None` for an expression that never was a text.
    pub fn column(&self) -> Option<usize> {
        match *self {
            Self::Unexpected { column, .. }
            | Self::UnterminatedString { column, .. }
            | Self::LabelTooLong { column, .. }
            | Self::TooDeep { column } => Some(column),
            Self::NotALabel(_) | Self::UnquotableValue(_) => None,
        }
    }
}
