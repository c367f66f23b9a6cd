//! Any bytes as a manifest: what is in order goes through the graph and the compiler, and out again.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use tortie_api::Key;
use tortie_api::manifest::parse_documents;
use tortie_api::resource::Resource;
use tortie_rules::compile::Config;
use tortie_rules::compile::classic::Classic;
use tortie_rules::graph::{Graph, Options};
use tortie_rules::render::iptables::Features;

fuzz_target!(|text: &[u8]| {
    let documents = parse_documents(text).into_iter().filter_map(|d| d.outcome.ok());
    let resources: BTreeMap<Key, Resource> =
        documents.map(|manifest| (manifest.resource.key(), manifest.resource)).collect();
    if resources.is_empty() {
        return;
    }
    let options = Options {
        node: "node-a".to_owned(),
        interface_prefixes: vec!["cali".to_owned()],
        suppress_covered: false,
    };
    let mut graph = Graph::new(options);
    let mut classic = Classic::new(Config::default(), Features::default());
    let mut follow = |graph: &mut Graph| {
        let events = graph.flush();
        events.iter().for_each(|event| classic.handle(event));
        classic.poll_sets();
        classic.poll_tables();
        events
    };
    resources.values().for_each(|resource| graph.set(resource));
    follow(&mut graph);
    graph.problems();
    resources.values().rev().for_each(|resource| graph.set(resource));
    assert_eq!(follow(&mut graph), [], "what is known already changes nothing");
    resources.keys().for_each(|key| graph.remove(key));
    follow(&mut graph);
    assert_eq!(graph.counts(), (0, 0, 0), "nothing is left behind");
    assert_eq!(graph.problems(), []);
});
