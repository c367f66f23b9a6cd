//! The state of a case's cluster, followed through its actions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::format::{Action, Case, CaseError, Labels, NodeEntry, Pod};
use crate::manifests::ObjectKey;

/// The label that the API server gives every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// All that is in the cluster.
#[derive(Debug, Clone)]
pub struct State {
    /// The nodes, in the case's order.
    pub nodes: Vec<NodeEntry>,
    /// Labels by namespace.
    pub namespaces: BTreeMap<String, Labels>,
    /// Labels by (namespace, name) of the service account.
    pub accounts: BTreeMap<(String, String), Labels>,
    /// The pods by NAMESPACE/NAME.
    pub pods: BTreeMap<String, Pod>,
    /// The hosts outside, in the case's order.
    pub externals: Vec<(String, IpAddr)>,
    /// Policies and whatever else is applied.
    pub objects: BTreeMap<ObjectKey, Value>,
}

impl State {
    /// The state before the first step.
    ///
    /// # Errors
    /// An object without a name.
    pub fn new(case: &Case) -> Result<Self, CaseError> {
        let topology = &case.topology;
        let mut accounts: BTreeMap<_, _> = topology
            .namespaces
            .iter()
            .map(|n| ((n.name.clone(), "default".to_owned()), Labels::new()))
            .collect();
        accounts.extend(
            topology
                .service_accounts
                .iter()
                .map(|a| ((a.namespace.clone(), a.name.clone()), a.labels.clone())),
        );
        let mut state = Self {
            nodes: topology.nodes.clone(),
            namespaces: topology.namespaces.iter().map(|n| (n.name.clone(), n.labels.clone())).collect(),
            accounts,
            pods: topology.pods.iter().map(|p| (pod_key(p), p.clone())).collect(),
            externals: topology.externals.iter().map(|e| (e.name.clone(), e.ip)).collect(),
            objects: BTreeMap::new(),
        };
        for object in &topology.objects {
            state.objects.insert(key(object)?, object.clone());
        }
        Ok(state)
    }

    /// Takes one action.
    ///
    /// # Errors
    /// [`CaseError::Inconsistent`] when it concerns what is not there.
    pub fn act(&mut self, action: &Action) -> Result<(), CaseError> {
        match action {
            Action::Apply { object } => {
                self.objects.insert(key(object)?, object.clone());
            }
            Action::Delete { object } => {
                let key = key(object)?;
                self.objects.remove(&key).ok_or_else(|| missing(&key.file_name()))?;
            }
            Action::NamespaceLabels { namespace, labels } => {
                *self.namespaces.get_mut(namespace).ok_or_else(|| missing(namespace))? =
                    named(namespace, labels);
            }
            Action::PodLabels { pod, labels } => {
                self.pods.get_mut(pod).ok_or_else(|| missing(pod))?.labels.clone_from(labels);
            }
            Action::ServiceAccountLabels { namespace, name, labels } => {
                self.accounts.insert((namespace.clone(), name.clone()), labels.clone());
            }
            Action::CreateNamespace { namespace, labels } => {
                self.namespaces.insert(namespace.clone(), named(namespace, labels));
                self.accounts.insert((namespace.clone(), "default".to_owned()), Labels::new());
            }
            Action::DeleteNamespace { namespace } => self.delete_namespace(namespace)?,
            Action::CreatePod { pod } => {
                self.pods.insert(pod_key(pod), (**pod).clone());
            }
            Action::DeletePod { pod } => {
                self.pods.remove(pod).ok_or_else(|| missing(pod))?;
            }
        }
        Ok(())
    }

    fn delete_namespace(&mut self, namespace: &str) -> Result<(), CaseError> {
        self.namespaces.remove(namespace).ok_or_else(|| missing(namespace))?;
        self.pods.retain(|_, pod| pod.namespace != namespace);
        self.accounts.retain(|(of, _), _| of != namespace);
        self.objects.retain(|key, _| key.namespace != namespace);
        Ok(())
    }
}

fn pod_key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn named(namespace: &str, labels: &Labels) -> Labels {
    let mut all = Labels::from([(NAME_LABEL.to_owned(), namespace.to_owned())]);
    all.extend(labels.clone());
    all
}

fn key(object: &Value) -> Result<ObjectKey, CaseError> {
    ObjectKey::of(object).map_err(|e| CaseError::Inconsistent(e.to_string()))
}

fn missing(what: &str) -> CaseError {
    CaseError::Inconsistent(format!("an action concerns {what}, which is not there"))
}
