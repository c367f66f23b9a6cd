//! The folder of manifests, and the cluster that it describes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tortie_api::manifest::parse_documents;

use super::DemoError;
use crate::lab::{Addresses, Lab, LabBuilder, PodSpec};

/// The hosts outside the cluster that the shop's README speaks of: name and address.
pub const OUTSIDE: [(&str, &str); 3] =
    [("visitor", "192.0.2.10"), ("payments", "198.51.100.10"), ("blocklisted", "192.0.2.66")];

/// Where the shop is in this repository.
pub fn shop_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop")
}

/// The shop: a folder, and the nodes and pods that its manifests name.
#[derive(Debug)]
pub struct Shop {
    dir: PathBuf,
    nodes: Vec<(String, Addresses)>,
    pods: Vec<PodSpec>,
}

impl Shop {
    /// Reads the nodes and pods of the manifests in `dir`; its subfolders hold none.
    ///
    /// # Errors
    /// When a file cannot be read, holds a document that is not valid, or a node or pod has no address.
    pub fn load(dir: &Path) -> Result<Self, DemoError> {
        let mut shop = Self { dir: dir.to_owned(), nodes: Vec::new(), pods: Vec::new() };
        for path in files(dir)?.into_iter().filter(|path| is_manifest(path)) {
            let text = fs::read(&path).map_err(DemoError::file("read", &path))?;
            for document in parse_documents(&text) {
                let noted = document
                    .outcome
                    .map_err(|error| error.to_string())
                    .and_then(|manifest| shop.take(&manifest.value));
                noted.map_err(|message| DemoError::Manifest { path: path.clone(), message })?;
            }
        }
        Ok(shop)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the policies in it.
    pub fn policies(&self) -> PathBuf {
        self.dir.join("policies")
    }

    /// The pods.
    pub fn pods(&self) -> &[PodSpec] {
        &self.pods
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The lab that is like this cluster, with the hosts outside it.
    pub fn lab(&self) -> LabBuilder {
        let mut lab = Lab::builder();
        for (name, addresses) in &self.nodes {
            lab = lab.node(name, *addresses);
        }
        for pod in &self.pods {
            lab = lab.pod(&pod.namespace, &pod.name, &pod.node, pod.addresses);
        }
        OUTSIDE.into_iter().fold(lab, |lab, (name, address)| lab.external(name, address))
    }

    /// Makes `to` and copies the folder into it, without its subfolder of policies.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_without_policies(&self, to: &Path) -> Result<(), DemoError> {
        fs::create_dir(to).map_err(DemoError::file("make", to))?;
        copy_files(&self.dir, to)
    }

    /// Copies the policies into a copy of the folder.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_policies(&self, to: &Path) -> Result<(), DemoError> {
        let to = to.join("policies");
        fs::create_dir(&to).map_err(DemoError::file("make", &to))?;
        copy_files(&self.policies(), &to)
    }

    /// Notes a node or a pod; other kinds are the agent's business alone.
    fn take(&mut self, object: &Value) -> Result<(), String> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or_default();
        let needed = |pointer: &str| {
            text(pointer).map(str::to_owned).ok_or_else(|| format!("a {kind} has no {pointer}"))
        };
        let addresses = |pointer| {
            let address = needed(pointer)?;
            Addresses::try_from(address.as_str()).map_err(|error| error.to_string())
        };
        match kind {
            "Node" => self.nodes.push((needed("/metadata/name")?, addresses("/status/addresses/0/address")?)),
            "Pod" => self.pods.push(PodSpec {
                namespace: needed("/metadata/namespace")?,
                name: needed("/metadata/name")?,
                node: needed("/spec/nodeName")?,
                addresses: addresses("/status/podIP")?,
            }),
            _ => {}
        }
        Ok(())
    }
}

/// The files of a folder in the order of their names, without those of its subfolders.
///
/// # Errors
/// When it cannot be listed.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, DemoError> {
    let failed = || DemoError::file("read", dir);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file's name is that of a manifest.
pub fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml")
}

fn copy_files(from: &Path, to: &Path) -> Result<(), DemoError> {
    for path in files(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &target).map_err(DemoError::file("copy", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shop_has_the_nodes_and_pods_of_its_manifests() {
        let shop = Shop::load(&shop_dir()).unwrap();
        assert_eq!(shop.node_count(), 2);
        let pods: Vec<String> =
            shop.pods().iter().map(|p| format!("{}/{} {}", p.namespace, p.name, p.node)).collect();
        assert_eq!(
            pods,
            [
                "shop/frontend node-1",
                "shop/backend node-2",
                "shop/database node-2",
                "monitoring/prometheus node-1"
            ]
        );
    }

    #[test]
    fn a_pod_without_an_address_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ns}\nspec: {nodeName: a, containers: []}\n";
        fs::write(dir.path().join("pods.yaml"), pod).unwrap();
        let error = Shop::load(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("pods.yaml: a Pod has no /status/podIP"), "{error}");
    }

    #[test]
    fn the_copy_has_no_policies_until_they_are_copied() {
        let root = tempfile::tempdir().unwrap();
        let (shop, copy) = (Shop::load(&shop_dir()).unwrap(), root.path().join("copy"));
        shop.copy_without_policies(&copy).unwrap();
        assert_eq!(files(&copy).unwrap().len(), files(shop.dir()).unwrap().len());
        assert!(!copy.join("policies").exists());
        shop.copy_policies(&copy).unwrap();
        assert_eq!(files(&copy.join("policies")).unwrap().len(), files(&shop.policies()).unwrap().len());
    }
}
