//! A case file as it is written (format 1; `conformance/policy/README.md` describes it).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use serde_json::Value;

/// The format that this reader knows.
const FORMAT: u32 = 1;

/// Why a case cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file is not a case.
    #[error("{}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
    /// A step refers to what is not there, or an expectation is malformed.
    #[error("{0}")]
    Inconsistent(String),
}

/// Labels, as everywhere in Kubernetes.
pub type Labels = BTreeMap<String, String>;

/// One case: a small cluster, and steps that change it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    format: u32,
    /// Unique.
    pub id: String,
    /// One line.
    pub title: String,
    /// The family that it is reported under.
    pub family: String,
    #[serde(rename = "visibility")]
    _visibility: String,
    /// Where the facts come from; for readers.
    pub source: Value,
    /// Features, for choosing and reporting.
    pub tags: Vec<String>,
    /// What a harness must offer.
    pub requires: Vec<String>,
    /// What is unusual about it.
    pub notes: Option<String>,
    /// The state before the first step.
    pub topology: Topology,
    /// In order.
    pub steps: Vec<Step>,
}

/// The cluster before the first step.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Topology {
    /// The nodes.
    pub nodes: Vec<NodeEntry>,
    /// The namespaces; their labels hold `kubernetes.io/metadata.name` already.
    pub namespaces: Vec<NamespaceEntry>,
    /// Service accounts in addition to every namespace's `default`.
    pub service_accounts: Vec<AccountEntry>,
    /// The pods.
    pub pods: Vec<Pod>,
    /// Hosts outside the cluster.
    pub externals: Vec<ExternalEntry>,
    /// Kubernetes or Calico objects at the start.
    #[serde(default)]
    pub objects: Vec<Value>,
}

/// A node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
}

/// A namespace.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceEntry {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}

/// A service account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountEntry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// Its service account.
    #[serde(default = "default_account")]
    pub serviceaccount: String,
    /// Its named container ports.
    #[serde(default)]
    pub ports: Vec<NamedPort>,
    /// What is served, where that is not what `ports` says. The lab serves whatever is probed.
    #[serde(default)]
    pub listen: Option<Vec<Served>>,
}

fn default_account() -> String {
    "default".to_owned()
}

/// A container port.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its number.
    pub port: u16,
}

/// A port that is served.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its number.
    pub port: u16,
}

/// A host outside the cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalEntry {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
}

/// Changes, and what holds after them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// In order, before probing.
    pub actions: Vec<Action>,
    /// The truth after them.
    pub expect: Expect,
}

/// One change of the cluster. Labels given are the whole new set, but a namespace keeps its name's label.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum Action {
    /// Creates or replaces an object.
    Apply { object: Value },
    /// Deletes the object of that kind and name.
    Delete { object: Value },
    /// Sets a namespace's labels.
    NamespaceLabels { namespace: String, labels: Labels },
    /// Sets the labels of the pod NAMESPACE/NAME.
    PodLabels { pod: String, labels: Labels },
    /// Sets a service account's labels.
    #[serde(rename = "serviceaccount-labels")]
    ServiceAccountLabels { namespace: String, name: String, labels: Labels },
    /// Creates a namespace and its default service account.
    CreateNamespace {
        namespace: String,
        #[serde(default)]
        labels: Labels,
    },
    /// Deletes a namespace with all in it.
    DeleteNamespace { namespace: String },
    /// Creates a pod.
    CreatePod { pod: Box<Pod> },
    /// Deletes the pod NAMESPACE/NAME.
    DeletePod { pod: String },
}

/// The truth after a step, in three notations. Where they cover the same cell they agree.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expect {
    /// Computed.
    #[serde(default)]
    pub matrix: Vec<MatrixEntry>,
    /// Stated by the source.
    #[serde(default)]
    pub stated_matrix: Vec<MatrixEntry>,
    /// Stated by the source, one by one.
    #[serde(default)]
    pub stated: Vec<StatedEntry>,
}

/// Rows of signs: `.` passes, `X` does not, `-` not asked, `?` left open.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixEntry {
    /// Kinds of traffic.
    pub on: Vec<Text>,
    /// Destinations.
    pub to: Vec<String>,
    /// For each source one sign per destination.
    pub rows: BTreeMap<String, String>,
}

/// One fact.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedEntry {
    /// The source.
    pub from: String,
    /// The destination.
    pub to: String,
    /// The kind of traffic.
    pub on: Text,
    /// Whether it passes.
    pub allow: bool,
}

/// Text, or a number to be taken as its text: an IP protocol without ports is written as a bare number.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// As text.
    Text(String),
    /// As a number.
    Number(u8),
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Case {
    /// Reads a case file.
    ///
    /// # Errors
    /// [`CaseError`] with the file's name.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let text =
            fs::read_to_string(path).map_err(|source| CaseError::Read { path: path.to_owned(), source })?;
        let failed = |reason: String| CaseError::Parse { path: path.to_owned(), reason };
        // A namespace called `y` is a string, as in YAML 1.2.
        let options = serde_saphyr::options! { strict_booleans: true };
        let case: Self =
            serde_saphyr::from_str_with_options(&text, options).map_err(|e| failed(e.to_string()))?;
        if case.format == FORMAT {
            Ok(case)
        } else {
            Err(failed(format!("its format is {}, not {FORMAT}", case.format)))
        }
    }
}
