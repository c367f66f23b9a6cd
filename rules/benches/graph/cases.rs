//! What is measured.

use tortie_api::resource::Resource;
use tortie_rules::graph::model::Event;
use tortie_rules::graph::{Graph, Options};

use crate::meter::{Figures, Meter};
use crate::shapes::{self, Addresses, LOCAL, REMOTE};

/// One row of the table. Felix's figures are those of its own bench, measured on a machine of this kind.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> Figures,
    /// Felix's time is that of one unit, not of the whole.
    pub(crate) per_unit: bool,
    pub(crate) felix_secs: Option<f64>,
    pub(crate) felix_megabytes: Option<f64>,
}

const fn whole(name: &'static str, run: fn() -> Figures, felix: Option<(f64, f64)>) -> Case {
    let (felix_secs, felix_megabytes) = match felix {
        Some((secs, megabytes)) => (Some(secs), Some(megabytes)),
        None => (None, None),
    };
    Case { name, run, per_unit: false, felix_secs, felix_megabytes }
}

const fn each(name: &'static str, run: fn() -> Figures, felix_secs: Option<f64>) -> Case {
    Case { name, run, per_unit: true, felix_secs, felix_megabytes: None }
}

pub(crate) const ALL: [Case; 25] = [
    whole("snapshot-250k", || snapshot(250_000, 10_000, 0), Some((6.34, 283.0))),
    whole("snapshot-250k-then-delete", || then_delete(250_000, 10_000, 0), None),
    whole("netsets-1k", || snapshot(10_000, 0, 1_000), Some((0.88, 98.0))),
    whole("netsets-1k-then-delete", || then_delete(10_000, 0, 1_000), None),
    whole("netsets-10k", || snapshot(10_000, 0, 10_000), Some((11.7, 792.0))),
    whole("netsets-10k-then-delete", || then_delete(10_000, 0, 10_000), None),
    whole("customers-1k", || customers(1_000, shapes::customer_policies), Some((0.041, 9.0))),
    whole("customers-10k", || customers(10_000, shapes::customer_policies), Some((0.431, 39.0))),
    whole("customers-100k", || customers(100_000, shapes::customer_policies), Some((8.04, 315.0))),
    whole("customers-100k-namespaced", || customers(100_000, shapes::namespaced_customer_policies), None),
    whole("production-node", production, None),
    each("workload-update-10", || workload_updates(10), None),
    each("workload-update-100", || workload_updates(100), None),
    each("workload-update-1k", || workload_updates(1_000), None),
    each("workload-update-10k", || workload_updates(10_000), Some(3.66e-3)),
    each("parent-update-100", || parent_updates(100), None),
    each("parent-update-1k", || parent_updates(1_000), None),
    each("parent-update-10k", || parent_updates(10_000), None),
    each("parent-update-100k", || parent_updates(100_000), None),
    each("selector-update-100", || selector_updates(100), None),
    each("selector-update-1k", || selector_updates(1_000), None),
    each("selector-update-10k", || selector_updates(10_000), None),
    each("selector-update-100k", || selector_updates(100_000), Some(11.8e-3)),
    each("selectors-then-items", selectors_then_items, None),
    each("customer-churn-100k", customer_churn, None),
];

fn graph() -> Graph {
    let interface_prefixes = vec!["cali".to_owned()];
    Graph::new(Options { node: LOCAL.to_owned(), interface_prefixes, suppress_covered: true })
}

fn take(graph: &mut Graph, resources: &[Resource]) -> Vec<Event> {
    resources.iter().for_each(|resource| graph.set(resource));
    graph.flush()
}

/// In Felix's order: policies, namespaces, endpoints, network sets, endpoints of this node.
fn snapshot_inputs(endpoints: usize, policies: usize, sets: usize) -> Vec<Resource> {
    const LOCALS: usize = 200;
    let mut addresses = Addresses::new();
    let mut all = shapes::marker_policies(policies);
    all.extend(shapes::namespaces());
    all.extend(shapes::endpoints(REMOTE, 0, endpoints, &mut addresses));
    all.extend(shapes::network_sets(sets));
    all.extend(shapes::endpoints(LOCAL, endpoints, LOCALS, &mut addresses));
    all
}

/// Time to the first flush, memory after it.
fn start(inputs: fn() -> Vec<Resource>, units: usize) -> Figures {
    start_with(&inputs, units)
}

fn start_with(inputs: &dyn Fn() -> Vec<Resource>, units: usize) -> Figures {
    let before = crate::heap().used;
    let inputs = inputs();
    let mut meter = Meter::default();
    let (graph, events) = meter.measure(units, || {
        let mut graph = graph();
        let events = take(&mut graph, &inputs);
        (graph, events)
    });
    drop(events);
    drop(inputs);
    let figures = meter.finish(before);
    drop(graph);
    figures
}

fn snapshot(endpoints: usize, policies: usize, sets: usize) -> Figures {
    start_with(&|| snapshot_inputs(endpoints, policies, sets), endpoints)
}

/// Deletion of this node's endpoints after the snapshot.
fn then_delete(endpoints: usize, policies: usize, sets: usize) -> Figures {
    let before = crate::heap().used;
    let inputs = snapshot_inputs(endpoints, policies, sets);
    let mut graph = graph();
    drop(take(&mut graph, &inputs));
    let keys: Vec<_> = inputs[inputs.len() - 200..].iter().map(Resource::key).collect();
    drop(inputs);
    let mut meter = Meter::default();
    let events = meter.measure(keys.len(), || {
        keys.iter().for_each(|key| graph.remove(key));
        graph.flush()
    });
    assert!(events.iter().filter(|e| matches!(e, Event::EndpointGone(_))).count() == keys.len());
    drop((events, keys));
    let figures = meter.finish(before);
    drop(graph);
    figures
}

fn customers(count: usize, policies: fn(usize) -> Vec<Resource>) -> Figures {
    let inputs = || {
        let mut all = policies(count);
        all.extend(shapes::customer_namespaces(count));
        all.extend(shapes::customer_endpoints(count, 100));
        all
    };
    start_with(&inputs, count)
}

fn production() -> Figures {
    start(shapes::production, 260_000)
}

/// Measures each resource by itself, with its flush.
fn updates(graph: &mut Graph, resources: &[Resource], meter: &mut Meter) {
    for resource in resources {
        let events = meter.measure(1, || {
            graph.set(resource);
            graph.flush()
        });
        drop(events);
    }
}

/// New endpoints against many selectors that came before any endpoint.
fn workload_updates(selectors: usize) -> Figures {
    let before = crate::heap().used;
    let mut graph = graph();
    drop(take(&mut graph, &shapes::update_selectors(selectors)));
    let inputs = shapes::update_endpoints(2_000);
    let mut meter = Meter::default();
    updates(&mut graph, &inputs, &mut meter);
    drop(inputs);
    meter.finish(before)
}

fn parent_updates(endpoints: usize) -> Figures {
    let before = crate::heap().used;
    let mut graph = graph();
    drop(take(&mut graph, &shapes::update_endpoints(endpoints)));
    drop(take(&mut graph, &shapes::parent_selectors()));
    let inputs = shapes::parent_updates(2_000);
    let mut meter = Meter::default();
    updates(&mut graph, &inputs, &mut meter);
    drop(inputs);
    meter.finish(before)
}

/// New selectors, of which every tenth selects all endpoints. As equal selectors would share their set, each goes
/// before the next one comes.
fn selector_updates(endpoints: usize) -> Figures {
    let before = crate::heap().used;
    let mut graph = graph();
    drop(take(&mut graph, &shapes::update_endpoints(endpoints)));
    let mut meter = Meter::default();
    for n in 0..100 {
        let resource = shapes::asking(format!("ipset-{n}"), &shapes::update_selector(n % 10));
        updates(&mut graph, std::slice::from_ref(&resource), &mut meter);
        graph.remove(&resource.key());
        drop(graph.flush());
    }
    meter.finish(before)
}

/// Selectors on many keys over endpoints that were there before, all flushed at once.
fn selectors_then_items() -> Figures {
    let before = crate::heap().used;
    let mut graph = graph();
    drop(take(&mut graph, &shapes::endpoints(REMOTE, 0, 250_000, &mut Addresses::new())));
    let inputs = shapes::marker_policies(10_000);
    let locals = shapes::endpoints(LOCAL, 250_000, 200, &mut Addresses::new());
    let mut meter = Meter::default();
    let events = meter.measure(inputs.len(), || {
        locals.iter().for_each(|resource| graph.set(resource));
        take(&mut graph, &inputs)
    });
    drop((events, inputs, locals));
    meter.finish(before)
}

/// Endpoints of a large cluster that go and come again.
fn customer_churn() -> Figures {
    const COUNT: usize = 100_000;
    let before = crate::heap().used;
    let mut graph = graph();
    drop(take(&mut graph, &shapes::customer_policies(COUNT)));
    drop(take(&mut graph, &shapes::customer_namespaces(COUNT)));
    let endpoints = shapes::customer_endpoints(COUNT, 100);
    drop(take(&mut graph, &endpoints));
    let mut meter = Meter::default();
    for resource in endpoints.iter().step_by(97) {
        let key = resource.key();
        let events = meter.measure(1, || {
            graph.remove(&key);
            graph.set(resource);
            graph.flush()
        });
        drop(events);
    }
    drop(endpoints);
    meter.finish(before)
}
