//! The table of who reaches whom, as the shop's README has it.
//!
//! Its header names services (`backend TCP/8000`), the first column of each row a source with its address
//! (`backend, 10.65.2.10`); a cell says `yes`, `no`, `–` (itself) or nothing.

use std::net::IpAddr;

use super::DemoError;
use super::reach::{Reach, Service, short_name};
use crate::lab::{Cell, Endpoint};

/// How the header of the table begins.
const HEADER: &str = "| from";

/// The README's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Who reaches whom.
    pub reach: Reach,
    /// The addresses of the sources, in the order of the rows.
    pub addresses: Vec<IpAddr>,
}

impl Table {
    /// Reads the table of a README; `known` are the endpoints that it may name.
    ///
    /// # Errors
    /// [`DemoError::Readme`] when there is no such table, or something in it is not understood.
    pub fn parse(text: &str, known: &[Endpoint]) -> Result<Self, DemoError> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(HEADER));
        let header =
            lines.next().ok_or_else(|| DemoError::Readme(format!("no line begins with `{HEADER}`")))?;
        let columns: Vec<Service> =
            fields(header).skip(1).map(|text| service(text, known)).collect::<Result<_, _>>()?;
        let (mut rows, mut addresses, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
            let mut fields = fields(line);
            let (source, address) = source(fields.next().unwrap_or_default(), known)?;
            let row: Vec<Cell> = fields.map(cell).collect::<Result<_, _>>()?;
            if row.len() != columns.len() {
                let name = short_name(&source);
                let message = format!("{name} has {} cells for {} services", row.len(), columns.len());
                return Err(DemoError::Readme(message));
            }
            rows.push(source);
            addresses.push(address);
            cells.push(row);
        }
        Ok(Self { reach: Reach::new(rows, columns, cells), addresses })
    }
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim();
    line.strip_prefix('|').unwrap_or(line).strip_suffix('|').unwrap_or(line).split('|').map(str::trim)
}

fn service(text: &str, known: &[Endpoint]) -> Result<Service, DemoError> {
    let bad = |reason: &str| DemoError::Readme(format!("the service `{text}`: {reason}"));
    let (name, traffic) = text.split_once(' ').ok_or_else(|| bad("no name and port"))?;
    let traffic = traffic.parse().map_err(|error: crate::lab::LabError| bad(&error.to_string()))?;
    Ok(Service { endpoint: endpoint(name, known)?, traffic })
}

fn source(text: &str, known: &[Endpoint]) -> Result<(Endpoint, IpAddr), DemoError> {
    let bad = || DemoError::Readme(format!("the source `{text}` has no name and address"));
    let (name, address) = text.split_once(", ").ok_or_else(bad)?;
    Ok((endpoint(name, known)?, address.parse().map_err(|_| bad())?))
}

fn endpoint(name: &str, known: &[Endpoint]) -> Result<Endpoint, DemoError> {
    let found = known.iter().find(|endpoint| short_name(endpoint) == name);
    found.cloned().ok_or_else(|| DemoError::Readme(format!("the shop has no `{name}`")))
}

fn cell(text: &str) -> Result<Cell, DemoError> {
    match text {
        "yes" => Ok(Cell::Passes),
        "no" => Ok(Cell::Blocked),
        "" | "–" => Ok(Cell::NotAsked),
        other => Err(DemoError::Readme(format!("`{other}` is none of yes, no and –"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> [Endpoint; 2] {
        [Endpoint::pod("n", "a"), Endpoint::External("out".to_owned())]
    }

    #[test]
    fn a_table_is_read_between_other_text() {
        let text = "# T\n\n| x | y |\n|---|---|\n\n| from ↓ to → | a TCP/80 | out UDP/53 |\n|---|---|---|\n\
                    | a, 10.0.0.1 | – | no |\n| out, 192.0.2.1 | yes | |\n\nmore\n";
        let table = Table::parse(text, &known()).unwrap();
        assert_eq!(table.reach.rows(), known());
        assert_eq!(table.reach.columns()[1].to_string(), "out UDP/53");
        assert_eq!(table.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "192.0.2.1".parse().unwrap()]);
        assert_eq!(table.reach.counts(), (2, 1));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = |rows: &str| {
            let text = format!("| from | a TCP/80 |\n|---|---|\n{rows}\n");
            Table::parse(&text, &known()).unwrap_err().to_string()
        };
        assert!(error("| a, 10.0.0.1 | maybe |").contains("`maybe`"));
        assert!(error("| b, 10.0.0.1 | no |").contains("no `b`"));
        assert!(error("| a, here | no |").contains("`a, here`"));
        assert!(error("| a, 10.0.0.1 | no | no |").contains("2 cells for 1 services"));
        assert!(Table::parse("# T\n", &known()).is_err());
    }
}
