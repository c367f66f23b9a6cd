//! The policy cases, asked of the evaluator: a second opinion on what policy means, from elsewhere. No kernel and no
//! agent take part; that the kernel does the same is the test `policy_cases`.

use std::net::IpAddr;

use serde_json::Value;
use tortie_api::resource::Resource;
use tortie_rules::eval::{Cluster, Flow, Party, Verdict};
use tortie_tests::cases::{Case, CaseFile, State, cases_dir, find_cases, objects};
use tortie_tests::lab::{Endpoint, Traffic};

/// The interface of a node to the outside, in every case.
const UPLINK: &str = "eth0";
/// A fresh source port.
const SOURCE_PORT: u16 = 40_000;

/// Cells that came out right, and what came out wrong.
#[derive(Default)]
struct Report {
    right: usize,
    wrong: Vec<String>,
}

#[test]
fn every_cell_of_every_case_is_what_the_evaluator_says() {
    let files = find_cases(&cases_dir()).unwrap();
    let mut report = Report::default();
    for file in &files {
        report.play(file, &Case::read(&file.path).unwrap());
    }
    let Report { right, wrong } = report;
    println!("{right} cells of {} cases are right", files.len());
    assert!(
        wrong.is_empty(),
        "{} cells are wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n\n")
    );
    assert!(right > 100_000, "{right}");
}

impl Report {
    fn play(&mut self, file: &CaseFile, case: &Case) {
        let mut state = State::new(case).expect("a consistent case");
        for step in &case.steps {
            step.actions.iter().for_each(|action| state.act(action).expect("a consistent case"));
            let cluster = Cluster::new(objects(&state).iter().map(|object| read(file, object)));
            for cell in step.expect.cells().expect("a consistent case") {
                let probe = &cell.probe;
                let flow = flow(&state, &probe.from, &probe.to, probe.traffic);
                let verdict = cluster.verdict(&flow);
                if (verdict == Verdict::Allow) == cell.allow {
                    self.right += 1;
                } else {
                    let explanation = cluster.explain(&flow);
                    self.wrong.push(format!("{} {}: {probe}: {explanation}", file.name(), step.name));
                }
            }
        }
    }
}

fn read(file: &CaseFile, object: &Value) -> Resource {
    Resource::from_value(object).unwrap_or_else(|e| panic!("{}: {e}: {object}", file.name()))
}

fn flow(state: &State, from: &Endpoint, to: &Endpoint, traffic: Traffic) -> Flow {
    let (source, destination) = (party(state, from), party(state, to));
    match traffic {
        Traffic::Tcp { port, source_port }
        | Traffic::Udp { port, source_port }
        | Traffic::Sctp { port, source_port } => {
            let source_port = source_port.unwrap_or(SOURCE_PORT);
            Flow::with_ports(source, destination, traffic.protocol(), source_port, port)
        }
        Traffic::Icmp { kind, code } | Traffic::Icmpv6 { kind, code } => {
            let flow = Flow::of_protocol(source, destination, traffic.protocol());
            Flow { icmp: Some((kind, code)), ..flow }
        }
        Traffic::Ip { protocol } => Flow::of_protocol(source, destination, protocol),
    }
}

fn party(state: &State, endpoint: &Endpoint) -> Party {
    match endpoint {
        Endpoint::Pod { namespace, name } => {
            let pod = &state.pods[&format!("{namespace}/{name}")];
            Party::workload(namespace, name, pod.ip).through(&pod.node, UPLINK)
        }
        Endpoint::Node(name) => Party::host(name, node_address(state, name)).through(name, UPLINK),
        Endpoint::External(name) => {
            let (_, address) =
                state.externals.iter().find(|(external, _)| external == name).expect("a name of the case");
            Party::outside(*address)
        }
    }
}

fn node_address(state: &State, name: &str) -> IpAddr {
    state.nodes.iter().find(|node| node.name == name).expect("a name of the case").ip
}
