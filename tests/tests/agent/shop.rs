//! The manifests of the tests: four pods on one node, and policies for two of them.

use libtest_mimic::Failed;
use tortie_tests::lab::{Lab, LabBuilder};

use crate::scene::{Backend, NODE, Scene};

/// Pods of the shop: name and address. Each has its name as the label `app`.
const PODS: [(&str, &str); 4] =
    [("web", "10.65.1.2"), ("client", "10.65.1.3"), ("other", "10.65.1.4"), ("vault", "10.65.1.5")];

pub(crate) const WEB: &str = "shop/web";
pub(crate) const CLIENT: &str = "shop/client";
pub(crate) const OTHER: &str = "shop/other";
pub(crate) const VAULT: &str = "shop/vault";

/// Who reaches whom while [`policies`] are in force.
pub(crate) const SHOP: [(&str, &str, bool); 5] = [
    (CLIENT, WEB, true),
    (OTHER, WEB, false),
    (CLIENT, VAULT, true),
    (OTHER, VAULT, false),
    (OTHER, CLIENT, true),
];

/// The node and its pods.
pub(crate) fn builder() -> LabBuilder {
    PODS.iter().fold(Lab::builder().node(NODE, "172.18.0.11"), |builder, (name, address)| {
        builder.pod("shop", name, NODE, *address)
    })
}

/// The shop with its policies in force.
pub(crate) fn open(backend: Backend) -> Result<Scene, Failed> {
    let mut scene = stocked(backend)?;
    scene.start()?;
    scene.expect(&SHOP)?;
    Ok(scene)
}

/// The shop's node and pods, with neither manifests nor an agent.
pub(crate) fn empty(backend: Backend) -> Result<Scene, Failed> {
    Scene::new(builder(), backend)
}

/// The shop with its manifests in place but no agent yet.
pub(crate) fn stocked(backend: Backend) -> Result<Scene, Failed> {
    let scene = empty(backend)?;
    scene.write("pods.yaml", pods())?;
    scene.write("web.yaml", allow_to("web", "client"))?;
    scene.write("guard.yaml", allow_to("vault", "client"))?;
    Ok(scene)
}

/// The namespace and its pods.
pub(crate) fn pods() -> String {
    let pods = PODS.map(|(name, address)| pod("shop", name, NODE, address, &format!("app: {name}")));
    namespace("shop", "team: a") + &pods.concat()
}

/// A namespace; labels as YAML writes them between braces.
pub(crate) fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n---\n")
}

/// A running pod; labels as YAML writes them between braces.
pub(crate) fn pod(namespace: &str, name: &str, node: &str, address: &str, labels: &str) -> String {
    pod_in_phase(namespace, name, node, address, labels, "Running")
}

/// A pod in a phase of its life.
pub(crate) fn pod_in_phase(
    namespace: &str,
    name: &str,
    node: &str,
    address: &str,
    labels: &str,
    phase: &str,
) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
spec: {{nodeName: {node}, serviceAccountName: {name}, containers: [{{name: serve, image: none}}]}}
status: {{phase: {phase}, podIP: {address}, podIPs: [{{ip: {address}}}]}}
---
"
    )
}

/// A policy that lets nobody but the pods of one app reach those of another.
pub(crate) fn allow_to(app: &str, from: &str) -> String {
    policy(
        &format!("{app}-in"),
        &format!(
            "  selector: app == '{app}'
  ingress:
  - action: Allow
    source:
      selector: app == '{from}'
"
        ),
    )
}

/// A policy of namespace `shop`; `spec` is indented by two blanks.
pub(crate) fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: {name}
  namespace: shop
spec:
{spec}---
"
    )
}
