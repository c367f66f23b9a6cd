//! Which cases there are, and which of them Tortie claims to get right.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why the cases or the list of supported ones cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct CatalogError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A case by its place: `CASES/FAMILY/ID.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CaseFile {
    /// The family, from the directory's name.
    pub family: String,
    /// The id, from the file's name.
    pub id: String,
    /// The file.
    pub path: PathBuf,
}

impl CaseFile {
    /// `FAMILY/ID`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.family, self.id)
    }
}

/// The directory with the cases of this repository.
pub fn cases_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/policy/cases")
}

/// All case files below `dir`, by family and id.
///
/// # Errors
/// A directory that cannot be read.
pub fn find_cases(dir: &Path) -> Result<Vec<CaseFile>, CatalogError> {
    let mut found = Vec::new();
    for family in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        for path in entries(&family)? {
            if path.extension().is_some_and(|e| e == "yaml") {
                let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                found.push(CaseFile { family: name(&family), id: name(&path), path });
            }
        }
    }
    found.sort();
    Ok(found)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(|source| CatalogError { path: dir.to_owned(), source })
}

/// Patterns of the cases that must come out right.
#[derive(Debug, Clone, Default)]
pub struct Supported(Vec<String>);

impl Supported {
    /// Reads the committed list, `supported.txt` beside the cases.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(cases: &Path) -> Result<Self, CatalogError> {
        let path = cases.with_file_name("supported.txt");
        let text = fs::read_to_string(&path).map_err(|source| CatalogError { path, source })?;
        Ok(Self::parse(&text))
    }

    /// One pattern a line; `#` begins a comment.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        Self(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// Whether a pattern names this case.
    pub fn contains(&self, case: &CaseFile) -> bool {
        self.0.iter().any(|pattern| matches(pattern, &case.name()))
    }

    /// Patterns that name no case: a mistake in the list.
    pub fn idle_patterns<'a>(&'a self, cases: &'a [CaseFile]) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(String::as_str).filter(|p| !cases.iter().any(|case| matches(p, &case.name())))
    }
}

/// `*` stands for any text, several times if need be.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("k8s-e2e/*", "k8s-e2e/k8s-e2e-001"));
        assert!(matches("*/*-001", "k8s-e2e/k8s-e2e-001"));
        assert!(!matches("k8s-e2e/*", "ipv6/ipv6-001"));
        assert!(!matches("k8s-e2e", "k8s-e2e/k8s-e2e-001"));
    }

    #[test]
    fn every_case_here_reads_and_its_states_and_expectations_are_consistent() {
        use crate::cases::{Case, State};
        let cases = find_cases(&cases_dir()).unwrap();
        assert!(cases.len() >= 472, "{}", cases.len());
        for file in cases {
            let case = Case::read(&file.path).unwrap();
            assert_eq!(case.id, file.id);
            let mut state = State::new(&case).unwrap();
            for step in &case.steps {
                step.actions.iter().for_each(|action| state.act(action).unwrap());
                assert!(!step.expect.cells().unwrap().is_empty(), "{} {}", case.id, step.name);
            }
        }
    }

    #[test]
    fn manifests_read_back_as_they_were_meant() {
        use crate::cases::{Case, State, objects};
        use crate::manifests::to_yaml;
        for file in find_cases(&cases_dir()).unwrap().iter().filter(|f| f.family != "random-scale") {
            let case = Case::read(&file.path).unwrap();
            let mut state = State::new(&case).unwrap();
            case.steps[0].actions.iter().for_each(|action| state.act(action).unwrap());
            for object in objects(&state) {
                let text = to_yaml(&object).unwrap();
                assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&text).unwrap(), object, "{text}");
            }
        }
    }

    #[test]
    fn the_list_of_supported_cases_names_cases_only() {
        let cases = find_cases(&cases_dir()).unwrap();
        let supported = Supported::read(&cases_dir()).unwrap();
        assert_eq!(supported.idle_patterns(&cases).collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(cases.iter().any(|case| supported.contains(case)));
    }
}
