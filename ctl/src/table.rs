//! Tables as kubectl prints them: no lines, columns three blanks apart.

use std::fmt;

/// Blanks after the longest cell of a column.
const PADDING: usize = 3;

/// Rows of cells, the first one usually of titles.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Adds a row. Of cells with several lines only the first is shown, and nothing that could steer a terminal.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }
}

fn printable(cell: &str) -> String {
    let (line, end) = match cell.split_once(['\n', '\r']) {
        Some((line, _)) => (line, "..."),
        None => (cell, ""),
    };
    line.chars().map(|c| if c.is_control() { '?' } else { c }).chain(end.chars()).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default() + PADDING
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for row in &self.rows {
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if index + 1 == row.len() {
                    f.write_str(cell)?;
                } else {
                    write!(f, "{cell:width$}")?;
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[&str]]) -> String {
        let mut table = Table::default();
        for row in rows {
            table.push(row.iter().map(|cell| (*cell).to_owned()));
        }
        table.to_string()
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        assert_eq!(
            table(&[&["NAME", "ORDER"], &["a-long-name", "1"], &["é", "10"]]),
            "NAME          ORDER\na-long-name   1\né             10\n"
        );
    }

    #[test]
    fn a_cell_stays_on_its_line_and_cannot_steer_the_terminal() {
        assert_eq!(table(&[&["a\nb", "c\x1b[2Jd"]]), "a...   c?[2Jd\n");
    }
}
