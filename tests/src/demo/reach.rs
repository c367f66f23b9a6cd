//! Who reaches which port of whom: a table of results, or of what is expected, and the truth about the shop.

use std::fmt;

use crate::lab::{Cell, Endpoint, Lab, LabError, Probe, Traffic};

/// A port that somebody serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Who serves it.
    pub endpoint: Endpoint,
    /// The traffic that it is asked with.
    pub traffic: Traffic,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", short_name(&self.endpoint), self.traffic)
    }
}

/// A table; rows are sources, columns services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    rows: Vec<Endpoint>,
    columns: Vec<Service>,
    cells: Vec<Vec<Cell>>,
}

/// The shop's services: who, and which TCP port.
const SERVICES: [(&str, u16); 8] = [
    ("shop/frontend", 8080),
    ("shop/backend", 8000),
    ("shop/backend", 9100),
    ("shop/database", 5432),
    ("monitoring/prometheus", 9090),
    ("ext:payments", 443),
    ("ext:visitor", 443),
    ("ext:blocklisted", 443),
];

/// Who may reach them once the policies are in force, as the policy cases write it: `.` passes, `X` does not,
/// `-` is not asked.
const WITH_POLICIES: [(&str, &str); 7] = [
    ("shop/frontend", "-.XXXXXX"),
    ("shop/backend", "X--.X.XX"),
    ("shop/database", "XXX-XXXX"),
    ("monitoring/prometheus", "XX.X-..X"),
    ("ext:visitor", ".XXXX---"),
    ("ext:payments", ".XXXX---"),
    ("ext:blocklisted", "XXXXX---"),
];

impl Reach {
    /// A table from its parts; a row that is too short was not asked for the rest.
    pub fn new(rows: Vec<Endpoint>, columns: Vec<Service>, mut cells: Vec<Vec<Cell>>) -> Self {
        cells.resize(rows.len(), Vec::new());
        cells.iter_mut().for_each(|row| row.resize(columns.len(), Cell::NotAsked));
        Self { rows, columns, cells }
    }

    /// What the shop's policies let through.
    ///
    /// # Errors
    /// Never, as long as the names above are well-formed.
    pub fn with_policies() -> Result<Self, LabError> {
        let columns = SERVICES
            .into_iter()
            .map(|(name, port)| Ok(Service { endpoint: name.parse()?, traffic: Traffic::tcp(port) }));
        let rows = WITH_POLICIES.into_iter().map(|(name, _)| name.parse());
        let cells = WITH_POLICIES.into_iter().map(|(_, signs)| signs.chars().map(cell).collect());
        Ok(Self::new(
            rows.collect::<Result<_, LabError>>()?,
            columns.collect::<Result<_, LabError>>()?,
            cells.collect(),
        ))
    }

    /// What passes without policies: everything that is asked.
    pub fn without_policies(&self) -> Self {
        let open = |cell: &Cell| match cell {
            Cell::NotAsked => Cell::NotAsked,
            Cell::Passes | Cell::Blocked => Cell::Passes,
        };
        let cells = self.cells.iter().map(|row| row.iter().map(open).collect()).collect();
        Self { cells, ..self.clone() }
    }

    /// Asks the lab all that this table asks.
    ///
    /// # Errors
    /// When a probe could not be sent.
    pub fn ask(&self, lab: &Lab) -> Result<Self, LabError> {
        let asked: Vec<(usize, usize)> =
            self.places().filter(|&(row, column)| self.cells[row][column] != Cell::NotAsked).collect();
        let probe = |&(row, column): &(usize, usize)| {
            let Service { endpoint, traffic } = &self.columns[column];
            Probe::new(self.rows[row].clone(), endpoint.clone(), *traffic)
        };
        let probes: Vec<Probe> = asked.iter().map(probe).collect();
        let mut answer = self.clone();
        for ((row, column), passed) in asked.into_iter().zip(lab.probe(&probes)?) {
            answer.cells[row][column] = Cell::from(passed);
        }
        Ok(answer)
    }

    /// Where this table is not as `expected`, in words.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (row, column) in expected.places() {
            let (from, to) = (&expected.rows[row], &expected.columns[column]);
            let (wanted, actual) = (expected.cells[row][column], self.get(from, to));
            if wanted != actual {
                let (from, wanted, actual) = (short_name(from), words(wanted), words(actual));
                found.push(format!("{from} -> {to} {actual}, expected: {wanted}"));
            }
        }
        found
    }

    /// How many cells were asked, and how many of them passed.
    pub fn counts(&self) -> (usize, usize) {
        let count = |wanted| self.cells.iter().flatten().filter(|cell| **cell == wanted).count();
        (count(Cell::Passes) + count(Cell::Blocked), count(Cell::Passes))
    }

    /// The sources.
    pub fn rows(&self) -> &[Endpoint] {
        &self.rows
    }

    /// The services.
    pub fn columns(&self) -> &[Service] {
        &self.columns
    }

    /// The table as text, its columns below each other; signs in colour for a terminal.
    pub fn table(&self, colour: bool) -> String {
        let first = self.rows.iter().map(|row| short_name(row).len()).max().unwrap_or(0);
        let widths: Vec<usize> = self.columns.iter().map(width).collect();
        let line = |head: &str, parts: Vec<String>| {
            format!("{head:first$}  {}", parts.join("  ")).trim_end().to_owned()
        };
        let heading = |text: &dyn Fn(&Service) -> String| {
            self.columns.iter().zip(&widths).map(|(c, width)| format!("{:^width$}", text(c))).collect()
        };
        let mut lines = vec![
            line("", heading(&|service| short_name(&service.endpoint).to_owned())),
            line("", heading(&|service| service.traffic.to_string())),
        ];
        for (row, cells) in self.rows.iter().zip(&self.cells) {
            let signs = cells.iter().zip(&widths).map(|(cell, width)| {
                // Set in the middle before it is coloured, as a colour has no width.
                format!("{:^width$}", "?").replace('?', sign(*cell, colour))
            });
            lines.push(line(short_name(row), signs.collect()));
        }
        lines.join("\n")
    }

    fn get(&self, from: &Endpoint, to: &Service) -> Cell {
        let row = self.rows.iter().position(|row| row == from);
        let column = self.columns.iter().position(|column| column == to);
        row.zip(column).map_or(Cell::NotAsked, |(row, column)| self.cells[row][column])
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let columns = self.columns.len();
        (0..self.rows.len()).flat_map(move |row| (0..columns).map(move |column| (row, column)))
    }
}

/// A name without its namespace: the shop has none twice.
pub fn short_name(endpoint: &Endpoint) -> &str {
    match endpoint {
        Endpoint::Pod { name, .. } | Endpoint::Node(name) | Endpoint::External(name) => name,
    }
}

fn width(service: &Service) -> usize {
    short_name(&service.endpoint).len().max(service.traffic.to_string().len())
}

fn cell(sign: char) -> Cell {
    match sign {
        '.' => Cell::Passes,
        'X' => Cell::Blocked,
        _ => Cell::NotAsked,
    }
}

fn sign(cell: Cell, colour: bool) -> &'static str {
    match (cell, colour) {
        (Cell::Passes, false) => "✓",
        (Cell::Passes, true) => "\x1b[32m✓\x1b[0m",
        (Cell::Blocked, false) => "✗",
        (Cell::Blocked, true) => "\x1b[31m✗\x1b[0m",
        (Cell::NotAsked, _) => " ",
    }
}

fn words(cell: Cell) -> &'static str {
    match cell {
        Cell::Passes => "passes",
        Cell::Blocked => "is blocked",
        Cell::NotAsked => "not asked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cells: [&str; 2]) -> Reach {
        let service =
            |name: &str, port| Service { endpoint: name.parse().unwrap(), traffic: Traffic::tcp(port) };
        let rows = vec!["n/a".parse().unwrap(), "ext:out".parse().unwrap()];
        let cells = cells.map(|signs| signs.chars().map(cell).collect()).to_vec();
        Reach::new(rows, vec![service("n/a", 80), service("n/server", 1)], cells)
    }

    #[test]
    fn a_table_has_its_signs_below_their_service() {
        let expected = "       a     server\n     TCP/80  TCP/1\na              ✓\nout    ✗       ✓";
        assert_eq!(sample(["-.", "X."]).table(false), expected);
    }

    #[test]
    fn every_cell_that_is_otherwise_is_a_difference() {
        assert_eq!(sample(["-.", "X."]).differences(&sample(["-.", "X."])), [""; 0]);
        let found = sample(["-X", "X."]).differences(&sample(["-.", ".."]));
        let words = [
            "a -> server TCP/1 is blocked, expected: passes",
            "out -> a TCP/80 is blocked, expected: passes",
        ];
        assert_eq!(found, words);
    }

    #[test]
    fn a_cell_that_was_not_asked_is_not_taken_for_blocked() {
        assert_eq!(sample(["--", "--"]).differences(&sample(["X-", "--"])).len(), 1);
    }

    #[test]
    fn the_shops_truth_asks_every_source_for_every_service_in_the_cluster() {
        let truth = Reach::with_policies().unwrap();
        // 4 pods × 8 services without the 5 of their own, and 3 outside hosts × 5 services of pods.
        assert_eq!(truth.counts().0, 4 * 8 - 5 + 3 * 5);
        assert_eq!(truth.without_policies().counts(), (42, 42));
    }
}
