//! Where settings come from.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tortie_api::felix::FelixConfigurationSpec;

use super::params;

/// Prefix of environment variables that are settings.
const PREFIX: &str = "FELIX_";

/// The settings of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// In words: `environment`, `file /etc/calico/felix.cfg`, `FelixConfiguration default`.
    pub source: String,
    /// Values by name as written.
    pub values: BTreeMap<String, String>,
    /// For values that are not understood, those that this layer had before.
    pub last_good: BTreeMap<String, String>,
}

impl Layer {
    /// Remembers what the layer had before in the place of values that are not understood: that stays in force.
    pub fn remember(&mut self, before: &Self) {
        for (name, value) in &self.values {
            let good = before.last_good.get(name).or_else(|| before.values.get(name));
            if !params::is_understood(name, value)
                && let Some(good) = good.filter(|good| params::is_understood(name, good))
            {
                self.last_good.insert(name.clone(), good.clone());
            }
        }
    }
}

/// `FELIX_<NAME>` variables, names in any case. Empty values count as not set.
pub fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Layer {
    let is_ours = |name: &str| name.get(..PREFIX.len()).is_some_and(|p| p.eq_ignore_ascii_case(PREFIX));
    let ours = variables.filter(|(name, value)| is_ours(name) && !value.is_empty());
    let values = ours.map(|(name, value)| (name[PREFIX.len()..].to_owned(), value)).collect();
    Layer { source: "environment".to_owned(), values, last_good: BTreeMap::new() }
}

/// A line of a configuration file that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: expected `Name = value`, `[section]` or a comment, found {text:?}")]
pub struct FileError {
    file: String,
    line: usize,
    text: String,
}

/// An INI file; all its sections are one.
pub fn from_file(path: &Path, text: &str) -> Result<Layer, FileError> {
    let mut values = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_section = line.starts_with('[') && line.ends_with(']');
        if line.is_empty() || line.starts_with(['#', ';']) || is_section {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(FileError { file: path.display().to_string(), line: at + 1, text: line.to_owned() });
        };
        values.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(Layer { source: format!("file {}", path.display()), values, last_good: BTreeMap::new() })
}

/// A `FelixConfiguration`.
pub fn from_resource(name: &str, spec: &FelixConfigurationSpec) -> Layer {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let values = spec.settings.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    Layer { source: format!("FelixConfiguration {name}"), values, last_good: BTreeMap::new() }
}
