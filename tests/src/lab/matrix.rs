//! Who reaches whom: a table of results, or of what is expected.

use std::fmt::{self, Write as _};

use super::{Endpoint, LabError};

/// One cell: does traffic from the row to the column pass?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cell {
    /// It passes.
    Passes,
    /// It does not.
    Blocked,
    /// Nobody asked.
    #[default]
    NotAsked,
}

impl From<bool> for Cell {
    fn from(passed: bool) -> Self {
        if passed { Self::Passes } else { Self::Blocked }
    }
}

/// How a matrix is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// `✓` and `✗`.
    #[default]
    Signs,
    /// `✓` in green and `✗` in red, for a terminal.
    Colour,
    /// `.` and `X`, as the policy cases write them.
    Ascii,
}

/// A table of cells; rows are sources, columns destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    rows: Vec<Endpoint>,
    columns: Vec<Endpoint>,
    cells: Vec<Vec<Cell>>,
}

/// A cell that two matrices disagree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The row.
    pub from: Endpoint,
    /// The column.
    pub to: Endpoint,
    /// What the expectation says.
    pub expected: Cell,
    /// What is.
    pub actual: Cell,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |cell| match cell {
            Cell::Passes => "passes",
            Cell::Blocked => "is blocked",
            Cell::NotAsked => "was not asked",
        };
        write!(f, "{} -> {} {}, expected: {}", self.from, self.to, words(self.actual), words(self.expected))
    }
}

impl Matrix {
    /// A matrix in which nothing was asked yet.
    pub fn new(rows: Vec<Endpoint>, columns: Vec<Endpoint>) -> Self {
        let cells = vec![vec![Cell::NotAsked; columns.len()]; rows.len()];
        Self { rows, columns, cells }
    }

    /// An expectation written as the policy cases write it: the destinations, then for each source one sign per
    /// destination: `.` passes, `X` does not, `-` not asked.
    ///
    /// ```
    /// use tortie_tests::lab::Matrix;
    /// let wanted = Matrix::parse(&["shop/a", "shop/b"], &[("shop/a", "-X"), ("ext:outside", ".X")]);
    /// assert!(wanted.is_ok());
    /// ```
    ///
    /// # Errors
    /// A bad name, a row of another length, or another sign.
    pub fn parse(columns: &[&str], rows: &[(&str, &str)]) -> Result<Self, LabError> {
        let columns: Vec<Endpoint> = columns.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let mut matrix = Self { rows: Vec::new(), columns, cells: Vec::new() };
        for (name, signs) in rows {
            let bad = |reason: String| LabError::BadMatrix { row: (*name).to_owned(), reason };
            let cells: Vec<Cell> = signs
                .chars()
                .map(|sign| cell(sign).ok_or(sign))
                .collect::<Result<_, _>>()
                .map_err(|sign| bad(format!("`{sign}` is none of . X -")))?;
            if cells.len() != matrix.columns.len() {
                return Err(bad(format!("{} signs for {} columns", cells.len(), matrix.columns.len())));
            }
            matrix.rows.push(name.parse()?);
            matrix.cells.push(cells);
        }
        Ok(matrix)
    }

    /// The sources.
    pub fn rows(&self) -> &[Endpoint] {
        &self.rows
    }

    /// The destinations.
    pub fn columns(&self) -> &[Endpoint] {
        &self.columns
    }

    /// A cell; one outside the table was not asked.
    pub fn get(&self, from: &Endpoint, to: &Endpoint) -> Cell {
        self.position(from, to).map_or(Cell::NotAsked, |(row, column)| self.cells[row][column])
    }

    /// Sets a cell; one outside the table is left out.
    pub fn set(&mut self, from: &Endpoint, to: &Endpoint, cell: Cell) {
        if let Some((row, column)) = self.position(from, to) {
            self.cells[row][column] = cell;
        }
    }

    /// Where this matrix is not as `expected`: every cell that `expected` asks for counts.
    pub fn differences(&self, expected: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        for (row, from) in expected.rows.iter().enumerate() {
            for (column, to) in expected.columns.iter().enumerate() {
                let (wanted, actual) = (expected.cells[row][column], self.get(from, to));
                if wanted != Cell::NotAsked && wanted != actual {
                    found.push(Difference { from: from.clone(), to: to.clone(), expected: wanted, actual });
                }
            }
        }
        found
    }

    /// The matrix as a table; `title` stands in the corner.
    pub fn table(&self, title: &str, style: Style) -> String {
        let first = self.rows.iter().map(width).chain([title.chars().count()]).max().unwrap_or(0);
        let mut text = format!("{title:first$}");
        for column in &self.columns {
            let _ = write!(text, "  {column}"); // writing to a String cannot fail
        }
        for (row, cells) in self.rows.iter().zip(&self.cells) {
            let _ = write!(text, "\n{row:first$}");
            for (column, cell) in self.columns.iter().zip(cells) {
                let left = width(column) / 2;
                let right = width(column).saturating_sub(left + 1);
                let _ = write!(text, "  {:left$}{}{:right$}", "", sign(*cell, style), "");
            }
            text.truncate(text.trim_end().len());
        }
        text
    }

    fn position(&self, from: &Endpoint, to: &Endpoint) -> Option<(usize, usize)> {
        Some((self.rows.iter().position(|e| e == from)?, self.columns.iter().position(|e| e == to)?))
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table("", Style::Signs))
    }
}

fn width(endpoint: &Endpoint) -> usize {
    endpoint.to_string().chars().count()
}

fn cell(sign: char) -> Option<Cell> {
    match sign {
        '.' => Some(Cell::Passes),
        'X' => Some(Cell::Blocked),
        '-' => Some(Cell::NotAsked),
        _ => None,
    }
}

fn sign(cell: Cell, style: Style) -> &'static str {
    match (cell, style) {
        (Cell::Passes, Style::Signs) => "✓",
        (Cell::Passes, Style::Colour) => "\x1b[32m✓\x1b[0m",
        (Cell::Passes, Style::Ascii) => ".",
        (Cell::Blocked, Style::Signs) => "✗",
        (Cell::Blocked, Style::Colour) => "\x1b[31m✗\x1b[0m",
        (Cell::Blocked, Style::Ascii) => "X",
        (Cell::NotAsked, _) => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Matrix {
        Matrix::parse(&["s/a", "s/bbb"], &[("s/a", "-."), ("ext:o", "X-")]).unwrap()
    }

    #[test]
    fn a_table_has_its_signs_below_their_column() {
        assert_eq!(
            sample().table("TCP/80", Style::Ascii),
            "TCP/80  s/a  s/bbb\ns/a      -     .\next:o    X     -"
        );
    }

    #[test]
    fn every_asked_cell_that_is_otherwise_is_a_difference() {
        let mut actual = sample();
        assert_eq!(actual.differences(&sample()), []);
        let (from, to) = ("ext:o".parse().unwrap(), "s/a".parse().unwrap());
        actual.set(&from, &to, Cell::Passes);
        let found = actual.differences(&sample());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "ext:o -> s/a passes, expected: is blocked");
    }

    #[test]
    fn a_cell_missing_from_the_result_is_a_difference() {
        assert_eq!(Matrix::new(Vec::new(), Vec::new()).differences(&sample()).len(), 2);
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        assert!(Matrix::parse(&["s/a"], &[("s/b", "..")]).is_err());
        assert!(Matrix::parse(&["s/a"], &[("s/b", "?")]).is_err());
    }
}
