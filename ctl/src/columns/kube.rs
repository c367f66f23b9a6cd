//! Columns of Kubernetes' kinds.

use serde_json::Value;

use super::{AGE, Column, NONE, Row, column, joined, pairs, scalar, wide};

/// How many ports or addresses of an endpoint slice are shown.
const SLICE_ENTRIES: usize = 3;

/// Labels that tell what a node is for.
const ROLE_LABEL: &str = "node-role.kubernetes.io/";

pub(super) const NETWORK_POLICY: &[Column] = &[column("POD-SELECTOR", pod_selector), AGE];

const PRIORITY: Column = column("PRIORITY", |row| row.text_or_none("/spec/priority"));

pub(super) const CLUSTER_NETWORK_POLICY: &[Column] =
    &[column("TIER", |row| row.text_or_none("/spec/tier")), PRIORITY, AGE];

pub(super) const ADMIN_NETWORK_POLICY: &[Column] = &[PRIORITY, AGE];

pub(super) const NAMESPACE: &[Column] = &[
    column("STATUS", |row| {
        let default =
            if row.text("/metadata/deletionTimestamp").is_some() { "Terminating" } else { "Active" };
        row.text_or("/status/phase", default)
    }),
    AGE,
];

pub(super) const SERVICE_ACCOUNT: &[Column] =
    &[column("SECRETS", |row| row.list("/secrets").len().to_string()), AGE];

pub(super) const POD: &[Column] = &[
    column("READY", pod_ready),
    column("STATUS", pod_status),
    column("RESTARTS", |row| {
        let restarts = |status: &Value| status["restartCount"].as_u64().unwrap_or_default();
        row.list("/status/containerStatuses").iter().map(restarts).sum::<u64>().to_string()
    }),
    AGE,
    wide("IP", |row| row.text("/status/podIP").unwrap_or_else(|| row.text_or_none("/status/podIPs/0/ip"))),
    wide("NODE", |row| row.text_or_none("/spec/nodeName")),
    wide("NOMINATED NODE", |row| row.text_or_none("/status/nominatedNodeName")),
    wide("READINESS GATES", readiness_gates),
];

pub(super) const SERVICE: &[Column] = &[
    column("TYPE", |row| row.text_or("/spec/type", "ClusterIP")),
    column("CLUSTER-IP", |row| {
        row.text("/spec/clusterIP").unwrap_or_else(|| row.text_or_none("/spec/clusterIPs/0"))
    }),
    column("EXTERNAL-IP", external_ip),
    column("PORT(S)", |row| joined(row.list("/spec/ports").iter().map(service_port))),
    AGE,
    wide("SELECTOR", |row| joined(pairs(row.value.pointer("/spec/selector")).into_iter())),
];

pub(super) const ENDPOINT_SLICE: &[Column] = &[
    column("ADDRESSTYPE", |row| row.text_or_none("/addressType")),
    column("PORTS", |row| {
        let port = |entry: &Value| scalar(&entry["port"]).unwrap_or_else(|| "*".to_owned());
        first_few(&row.list("/ports").iter().map(port).collect::<Vec<_>>())
    }),
    column("ENDPOINTS", |row| {
        let endpoints = row.list("/endpoints").iter();
        let addresses = endpoints.filter_map(|endpoint| endpoint["addresses"].as_array()).flatten();
        first_few(&addresses.filter_map(scalar).collect::<Vec<_>>())
    }),
    AGE,
];

pub(super) const NODE: &[Column] = &[
    column("STATUS", node_status),
    column("ROLES", node_roles),
    AGE,
    column("VERSION", |row| row.text_or_none("/status/nodeInfo/kubeletVersion")),
    wide("INTERNAL-IP", |row| node_address(row, "InternalIP")),
    wide("EXTERNAL-IP", |row| node_address(row, "ExternalIP")),
    wide("OS-IMAGE", |row| row.text_or("/status/nodeInfo/osImage", "<unknown>")),
    wide("KERNEL-VERSION", |row| row.text_or("/status/nodeInfo/kernelVersion", "<unknown>")),
    wide("CONTAINER-RUNTIME", |row| row.text_or("/status/nodeInfo/containerRuntimeVersion", "<unknown>")),
];

/// The label selector as text: `app=web,env in (a,b),!old`.
fn pod_selector(row: &Row<'_>) -> String {
    let labels = pairs(row.value.pointer("/spec/podSelector/matchLabels"));
    let expressions = row.list("/spec/podSelector/matchExpressions").iter().map(|expression| {
        let key = scalar(&expression["key"]).unwrap_or_default();
        let values = expression["values"].as_array().into_iter().flatten().filter_map(scalar);
        let values = values.collect::<Vec<_>>().join(",");
        match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        }
    });
    joined(labels.into_iter().chain(expressions))
}

fn pod_ready(row: &Row<'_>) -> String {
    let is_ready = |status: &&Value| status["ready"] == true;
    let ready = row.list("/status/containerStatuses").iter().filter(is_ready).count();
    format!("{ready}/{}", row.list("/spec/containers").len())
}

/// What keeps a container from running says more than the phase.
fn pod_status(row: &Row<'_>) -> String {
    if row.text("/metadata/deletionTimestamp").is_some() {
        return "Terminating".to_owned();
    }
    let reason_of = |status: &Value| {
        let state = &status["state"];
        scalar(&state["waiting"]["reason"]).or_else(|| scalar(&state["terminated"]["reason"]))
    };
    let container = row.list("/status/containerStatuses").iter().find_map(reason_of);
    container
        .or_else(|| row.text("/status/reason"))
        .unwrap_or_else(|| row.text_or("/status/phase", "Pending"))
}

fn readiness_gates(row: &Row<'_>) -> String {
    let gates = row.list("/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let is_true = |gate: &&Value| {
        let name = gate["conditionType"].as_str().unwrap_or_default();
        row.condition(name, "status").as_deref() == Some("True")
    };
    format!("{}/{}", gates.iter().filter(is_true).count(), gates.len())
}

fn external_ip(row: &Row<'_>) -> String {
    let external: Vec<String> = row.list("/spec/externalIPs").iter().filter_map(scalar).collect();
    match row.text("/spec/type").as_deref() {
        Some("ExternalName") => row.text_or_none("/spec/externalName"),
        Some("LoadBalancer") => {
            let ingress = row.list("/status/loadBalancer/ingress").iter();
            let addresses =
                ingress.filter_map(|entry| scalar(&entry["ip"]).or_else(|| scalar(&entry["hostname"])));
            let addresses: Vec<String> = addresses.chain(external).collect();
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        _ => joined(external.into_iter()),
    }
}

/// `80/TCP`, or `80:30080/TCP` with a node port.
fn service_port(port: &Value) -> String {
    let number = scalar(&port["port"]).unwrap_or_default();
    let protocol = scalar(&port["protocol"]).unwrap_or_else(|| "TCP".to_owned());
    match scalar(&port["nodePort"]) {
        Some(node_port) => format!("{number}:{node_port}/{protocol}"),
        None => format!("{number}/{protocol}"),
    }
}

fn first_few(entries: &[String]) -> String {
    match entries.len() {
        0 => "<unset>".to_owned(),
        count if count <= SLICE_ENTRIES => entries.join(","),
        count => format!("{} + {} more...", entries[..SLICE_ENTRIES].join(","), count - SLICE_ENTRIES),
    }
}

fn node_status(row: &Row<'_>) -> String {
    let ready = match row.condition("Ready", "status").as_deref() {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let is_cordoned = row.value.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    if is_cordoned { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn node_roles(row: &Row<'_>) -> String {
    let labels = row.stored.resource.metadata().labels.keys();
    joined(
        labels
            .filter_map(|label| label.strip_prefix(ROLE_LABEL))
            .filter(|role| !role.is_empty())
            .map(str::to_owned),
    )
}

fn node_address(row: &Row<'_>, address_type: &str) -> String {
    let found = row.list("/status/addresses").iter().find(|entry| entry["type"] == address_type);
    found.and_then(|entry| scalar(&entry["address"])).unwrap_or_else(|| NONE.to_owned())
}
