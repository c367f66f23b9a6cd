//! What came of playing cases, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::expect::Expected;

/// Wrong cells that a person is shown of one step.
const SHOWN: usize = 8;
/// Width that lists of names are broken at.
const LINE: usize = 110;

/// A cell that did not come out right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Source, destination and traffic.
    pub probe: String,
    /// Whether it passed though it must not (a hole in the policy); otherwise it was blocked though it must pass.
    pub passes: bool,
    /// Whether the source of the case states the truth of this cell.
    pub is_stated: bool,
}

impl From<&Expected> for Wrong {
    fn from(cell: &Expected) -> Self {
        Self { probe: cell.probe.to_string(), passes: !cell.allow, is_stated: cell.is_stated }
    }
}

/// One step.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// Cells asked.
    pub probes: usize,
    /// Cells that were still wrong when the settle time was over.
    pub wrong: Vec<Wrong>,
    /// Cells that passed though they must not when the agents had just said that everything is applied. The step is
    /// right if that ended within the settle time, but it ought not to happen.
    pub early_passes: usize,
    /// Times that all or some cells were asked.
    pub rounds: usize,
    /// From the end of the changes to the agents' word that they are applied, in seconds.
    pub applied_secs: f64,
    /// From there to the verdict, in seconds.
    pub probing_secs: f64,
}

/// One case.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CaseReport {
    /// Its family.
    pub family: String,
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it needs and the lab cannot give; then it was not played.
    pub skipped: Option<String>,
    /// What kept it from being played to its end.
    pub error: Option<String>,
    /// The steps played.
    pub steps: Vec<StepReport>,
    /// From its begin to its end, in seconds.
    pub secs: f64,
}

impl CaseReport {
    /// Whether it was played to its end and every cell was right.
    pub fn is_right(&self) -> bool {
        self.skipped.is_none() && self.error.is_none() && self.steps.iter().all(|step| step.wrong.is_empty())
    }

    /// One line, and more if something is wrong; cells that pass though they must not come first.
    pub fn text(&self) -> String {
        let probes: usize = self.steps.iter().map(|step| step.probes).sum();
        let word = match (&self.skipped, self.is_right()) {
            (Some(_), _) => "skip",
            (None, true) => "ok  ",
            (None, false) => "FAIL",
        };
        let mut text = format!("{word} {}: {} ({probes} probes, {:.1} s)", self.id, self.title, self.secs);
        // Writing to a String cannot fail.
        if let Some(reason) = &self.skipped {
            let _ = write!(text, "\n     {reason}");
        }
        if let Some(error) = &self.error {
            let _ = write!(text, "\n     {}", error.replace('\n', "\n     "));
        }
        for step in &self.steps {
            let _ = write!(text, "{}", step_text(step));
        }
        text
    }
}

fn step_text(step: &StepReport) -> String {
    let mut text = String::new();
    let holes = step.wrong.iter().filter(|wrong| wrong.passes).count();
    if holes > 0 {
        let _ = write!(text, "\n     step {}: SECURITY: {holes} cells pass that must not", step.name);
    }
    if step.wrong.len() > holes {
        let _ = write!(
            text,
            "\n     step {}: {} cells are blocked that must pass",
            step.name,
            step.wrong.len() - holes
        );
    }
    if step.early_passes > holes {
        let (name, count) = (&step.name, step.early_passes);
        let _ = write!(
            text,
            "\n     step {name}: {count} cells still passed after the agents said all is applied"
        );
    }
    for passes in [true, false] {
        for wrong in step.wrong.iter().filter(|wrong| wrong.passes == passes).take(SHOWN) {
            let verb = if passes { "passes, must not" } else { "is blocked, must pass" };
            let basis = if wrong.is_stated { " (stated by the source)" } else { "" };
            let _ = write!(text, "\n       {} {verb}{basis}", wrong.probe);
        }
    }
    text
}

/// Everything played, and what was not.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// The cases played or skipped.
    pub cases: Vec<CaseReport>,
    /// Cases that Tortie does not claim yet, by family.
    pub not_yet_supported: BTreeMap<String, Vec<String>>,
}

impl Summary {
    /// Whether every case played was right.
    pub fn is_right(&self) -> bool {
        self.cases.iter().all(|case| case.skipped.is_some() || case.is_right())
    }

    /// The table by family, then the names of failed, skipped and not yet supported cases.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<16}{:>8}{:>8}{:>9}{:>9}{:>20}",
            "family", "passed", "failed", "skipped", "cells", "not yet supported"
        );
        for family in self.families() {
            let of: Vec<&CaseReport> = self.cases.iter().filter(|case| case.family == family).collect();
            let skipped = of.iter().filter(|case| case.skipped.is_some()).count();
            let right = of.iter().filter(|case| case.is_right()).count();
            let cells: usize = of.iter().flat_map(|case| &case.steps).map(|step| step.probes).sum();
            let later = self.not_yet_supported.get(family).map_or(0, Vec::len);
            let failed = of.len() - right - skipped;
            let _ = write!(text, "\n{family:<16}{right:>8}{failed:>8}{skipped:>9}{cells:>9}{later:>20}");
        }
        let names = |wanted: fn(&CaseReport) -> bool| {
            self.cases.iter().filter(|case| wanted(case)).map(|case| case.id.clone()).collect::<Vec<_>>()
        };
        text += &name_list("failed", &names(|case| case.skipped.is_none() && !case.is_right()));
        text += &name_list("skipped", &names(|case| case.skipped.is_some()));
        for (family, ids) in &self.not_yet_supported {
            text += &name_list(&format!("not yet supported: {family}"), ids);
        }
        let holes: usize = self
            .cases
            .iter()
            .flat_map(|c| &c.steps)
            .flat_map(|s| &s.wrong)
            .filter(|wrong| wrong.passes)
            .count();
        if holes > 0 {
            let _ = write!(text, "\nSECURITY: {holes} cells pass that must not");
        }
        text
    }

    fn families(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.cases.iter().map(|case| case.family.as_str()).collect();
        all.extend(self.not_yet_supported.keys().map(String::as_str));
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A heading and names, broken into lines; nothing for no names.
fn name_list(heading: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let (mut text, mut line) = (format!("\n{heading} ({}):", names.len()), String::new());
    for name in names {
        if line.len() + name.len() + 3 > LINE {
            let _ = write!(text, "\n {line}");
            line.clear();
        }
        let _ = write!(line, " {name}");
    }
    text + "\n " + &line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(wrong: Vec<Wrong>) -> CaseReport {
        let step = StepReport { name: "policy".to_owned(), probes: 9, wrong, ..StepReport::default() };
        CaseReport {
            family: "f".to_owned(),
            id: "f-1".to_owned(),
            steps: vec![step],
            ..CaseReport::default()
        }
    }

    #[test]
    fn a_hole_is_called_one_and_comes_first() {
        let cell = |passes| Wrong { probe: format!("a/b -> c/d {passes}"), passes, is_stated: false };
        let case = report(vec![cell(false), cell(true)]);
        let text = case.text();
        assert!(text.starts_with("FAIL f-1"), "{text}");
        assert!(text.contains("SECURITY: 1 cells pass that must not"), "{text}");
        assert!(text.find("must not").unwrap() < text.find("is blocked, must pass").unwrap(), "{text}");
        let summary = Summary { cases: vec![case], ..Summary::default() };
        assert!(!summary.is_right());
        assert!(summary.text().contains("SECURITY"), "{}", summary.text());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let not_yet_supported = BTreeMap::from([("g".to_owned(), vec!["g-1".to_owned(), "g-2".to_owned()])]);
        let summary = Summary { cases: vec![report(Vec::new())], not_yet_supported };
        assert!(summary.is_right());
        assert!(summary.text().contains("not yet supported: g (2):\n  g-1 g-2"), "{}", summary.text());
    }

    #[test]
    fn a_case_that_broke_off_is_not_right() {
        let case = CaseReport { error: Some("no agent".to_owned()), ..report(Vec::new()) };
        assert!(!case.is_right());
    }
}
