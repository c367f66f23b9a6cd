//! A datastore directory of one file per object.
//!
//! An agent may be watching: a file appears whole, by a rename from a directory beside it, and an object that did not
//! change keeps its file, so that one step of a test is one small change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;

/// Why a manifest could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The object lacks what names it.
    #[error("an object has no {0}")]
    Unnamed(&'static str),
    /// The object does not print as YAML.
    #[error("cannot write {0} as YAML: {1}")]
    Yaml(String, String),
    /// A file could not be written or removed.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// What tells one object from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The API group: `v1` for Kubernetes' core, as nothing else tells it.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace; empty for what is not in one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// Reads the key of a manifest.
    ///
    /// # Errors
    /// [`ManifestError::Unnamed`] when `apiVersion`, `kind` or `metadata.name` is missing.
    pub fn of(object: &Value) -> Result<Self, ManifestError> {
        let text = |pointer: &'static str| object.pointer(pointer).and_then(Value::as_str);
        let needed = |pointer: &'static str| text(pointer).ok_or(ManifestError::Unnamed(pointer));
        let version = needed("/apiVersion")?;
        Ok(Self {
            group: version.split('/').next().unwrap_or(version).to_owned(),
            kind: needed("/kind")?.to_owned(),
            namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
            name: needed("/metadata/name")?.to_owned(),
        })
    }

    /// The file that the object is written to. Underscores cannot be in any part but the kind.
    pub fn file_name(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.namespace.as_str() {
            "" => format!("{kind}.{}_{}.yaml", self.group, self.name),
            namespace => format!("{kind}.{}_{namespace}_{}.yaml", self.group, self.name),
        }
    }
}

/// The directory, and what is in it.
#[derive(Debug)]
pub struct ManifestDir {
    dir: PathBuf,
    staging: PathBuf,
    written: BTreeMap<ObjectKey, Value>,
}

impl ManifestDir {
    /// Makes `dir`, empty.
    ///
    /// # Errors
    /// When that or the staging directory beside it cannot be made.
    pub fn create(dir: &Path) -> Result<Self, ManifestError> {
        let staging = dir.with_extension("staging");
        for path in [dir, &staging] {
            fs::create_dir_all(path).map_err(failed(path))?;
        }
        Ok(Self { dir: dir.to_owned(), staging, written: BTreeMap::new() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes an object; one that is there already, and the same, is left alone.
    ///
    /// # Errors
    /// When the object has no name or the file cannot be written.
    pub fn apply(&mut self, object: &Value) -> Result<(), ManifestError> {
        let key = ObjectKey::of(object)?;
        if self.written.get(&key) == Some(object) {
            return Ok(());
        }
        let text = to_yaml(object)?;
        let (draft, path) = (self.staging.join(key.file_name()), self.dir.join(key.file_name()));
        fs::write(&draft, text).map_err(failed(&draft))?;
        fs::rename(&draft, &path).map_err(failed(&path))?;
        self.written.insert(key, object.clone());
        Ok(())
    }

    /// Removes an object's file; one that is not there is no error.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&mut self, key: &ObjectKey) -> Result<(), ManifestError> {
        if self.written.remove(key).is_some() {
            let path = self.dir.join(key.file_name());
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        Ok(())
    }

    /// Makes the directory hold exactly `objects`, by as few changes as that takes.
    ///
    /// # Errors
    /// The first file that cannot be written or removed.
    pub fn sync(&mut self, objects: &[Value]) -> Result<(), ManifestError> {
        let keys: Vec<ObjectKey> = objects.iter().map(ObjectKey::of).collect::<Result<_, _>>()?;
        for object in objects {
            self.apply(object)?;
        }
        let gone: Vec<ObjectKey> = self.written.keys().filter(|key| !keys.contains(key)).cloned().collect();
        gone.iter().try_for_each(|key| self.remove(key))
    }
}

/// An object as YAML.
///
/// # Errors
/// [`ManifestError::Yaml`] when it cannot be printed, which no JSON value should cause.
pub fn to_yaml(object: &Value) -> Result<String, ManifestError> {
    serde_saphyr::to_string(object).map_err(|e| {
        ManifestError::Yaml(
            object.pointer("/metadata/name").unwrap_or(&Value::Null).to_string(),
            e.to_string(),
        )
    })
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    let path = path.to_owned();
    move |source| ManifestError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn files(dir: &ManifestDir) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_holds_what_it_was_synced_to() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = ManifestDir::create(&root.path().join("ds")).unwrap();
        let tier = json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "t"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}});
        dir.sync(&[tier.clone(), pod.clone()]).unwrap();
        assert_eq!(files(&dir), ["pod.v1_n_p.yaml", "tier.projectcalico.org_t.yaml"]);
        dir.sync(std::slice::from_ref(&pod)).unwrap();
        assert_eq!(files(&dir), ["pod.v1_n_p.yaml"]);
    }

    #[test]
    fn an_unchanged_object_keeps_its_file() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().unwrap();
        let mut dir = ManifestDir::create(&root.path().join("ds")).unwrap();
        let mut tier =
            json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "t"}});
        let inode =
            |dir: &ManifestDir| fs::metadata(dir.path().join("tier.projectcalico.org_t.yaml")).unwrap().ino();
        dir.apply(&tier).unwrap();
        let first = inode(&dir);
        dir.apply(&tier).unwrap();
        assert_eq!(inode(&dir), first);
        tier["spec"] = json!({"order": 5});
        dir.apply(&tier).unwrap();
        assert_ne!(inode(&dir), first);
    }

    #[test]
    fn text_that_looks_like_another_type_stays_text() {
        let labels = json!({"a": "true", "b": "5", "c": "null", "d": "on", "e": "1e3", "f": "0x1f", "g": "", "h": "~", "i": ": #",
            "j": "0o17", "k": " x ", "l": "a\nb", "m": "-", "n": "* x", "on": "y", "null": "2026-01-01"});
        let text = to_yaml(&labels).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), labels, "{text}");
    }
}
