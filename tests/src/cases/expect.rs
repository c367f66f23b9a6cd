//! The truth of a step, one probe per cell.

use std::collections::BTreeMap;

use super::format::{CaseError, Expect, MatrixEntry};
use crate::lab::{Endpoint, Probe, Traffic};

/// A probe and whether it must pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What is asked.
    pub probe: Probe,
    /// Whether it must pass.
    pub allow: bool,
    /// Whether the source of the case states it; otherwise it is computed.
    pub is_stated: bool,
}

impl Expect {
    /// Every cell once; what the source states takes the place of the computed.
    ///
    /// # Errors
    /// [`CaseError::Inconsistent`] for a malformed name or row, or where two notations disagree.
    pub fn cells(&self) -> Result<Vec<Expected>, CaseError> {
        let mut cells = Cells::default();
        self.matrix.iter().try_for_each(|entry| cells.add_matrix(entry, false))?;
        self.stated_matrix.iter().try_for_each(|entry| cells.add_matrix(entry, true))?;
        for fact in &self.stated {
            cells.add(&fact.from, &fact.to, &fact.on.to_string(), fact.allow, true)?;
        }
        Ok(cells.0.into_values().collect())
    }
}

#[derive(Default)]
struct Cells(BTreeMap<Probe, Expected>);

impl Cells {
    fn add_matrix(&mut self, entry: &MatrixEntry, is_stated: bool) -> Result<(), CaseError> {
        for (from, signs) in &entry.rows {
            if signs.chars().count() != entry.to.len() {
                return Err(CaseError::Inconsistent(format!(
                    "row {from} does not fit its {} columns",
                    entry.to.len()
                )));
            }
            for (to, sign) in entry.to.iter().zip(signs.chars()) {
                let allow = match sign {
                    '.' => true,
                    'X' => false,
                    '-' | '?' => continue,
                    _ => return Err(CaseError::Inconsistent(format!("row {from} has the sign `{sign}`"))),
                };
                for on in &entry.on {
                    self.add(from, to, &on.to_string(), allow, is_stated)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, from: &str, to: &str, on: &str, allow: bool, is_stated: bool) -> Result<(), CaseError> {
        let wrong = |e: crate::lab::LabError| CaseError::Inconsistent(e.to_string());
        let (from, to): (Endpoint, Endpoint) = (from.parse().map_err(wrong)?, to.parse().map_err(wrong)?);
        if from == to {
            return Ok(());
        }
        let probe = Probe::new(from, to, on.parse::<Traffic>().map_err(wrong)?);
        let cell = Expected { probe: probe.clone(), allow, is_stated };
        match self.0.insert(probe, cell) {
            Some(old) if old.allow != allow => {
                Err(CaseError::Inconsistent(format!("the notations disagree on {}", old.probe)))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(text: &str) -> Result<Vec<Expected>, CaseError> {
        serde_saphyr::from_str::<Expect>(text).unwrap().cells()
    }

    #[test]
    fn open_cells_and_self_are_not_asked() {
        let cells =
            expect("matrix: [{'on': [TCP/80, 253], to: [x/a, x/b, x/c], rows: {x/a: '.X?'}}]").unwrap();
        assert_eq!(cells.len(), 2);
        assert!(cells.iter().all(|cell| !cell.allow && cell.probe.to.to_string() == "x/b"));
    }

    #[test]
    fn a_stated_cell_is_asked_once() {
        let cells = expect(
            "{matrix: [{'on': [TCP/80], to: [x/b], rows: {x/a: '.'}}], stated: [{from: x/a, to: x/b, 'on': TCP/80, allow: true}]}",
        )
        .unwrap();
        assert_eq!(cells.len(), 1);
        assert!(cells[0].is_stated);
    }

    #[test]
    fn contradictions_are_refused() {
        let contradiction = "{matrix: [{'on': [TCP/80], to: [x/b], rows: {x/a: '.'}}], stated: [{from: x/a, to: x/b, 'on': TCP/80, allow: false}]}";
        assert!(expect(contradiction).is_err());
        assert!(expect("matrix: [{'on': [TCP/80], to: [x/b], rows: {x/a: '..'}}]").is_err());
    }
}
