//! The route driver against the real kernel, checked with the real `ip`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{sh, wait_for};
use tortie_api::net::IpVersion;
use tortie_dataplane::link::{LinkEvent, Links, MacAddr};
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_dataplane::route::{RouteSpec, Routes, RoutesConfig};

fn main() -> ExitCode {
    common::run(tests![["ip"];
        routes_and_neighbours_print_as_calico_prints_them,
        ipv6_routes_print_as_calico_prints_them,
        observing_again_after_an_apply_finds_nothing_to_do,
        an_unchanged_state_costs_no_call,
        an_interface_that_appears_later_gets_its_routes,
        an_interface_that_is_down_is_pending_and_gets_its_routes_when_up,
        an_interface_made_anew_gets_its_routes_again,
        an_old_route_with_metric_0_is_replaced_without_a_gap,
        a_route_that_a_plugin_made_meanwhile_is_taken_over,
        an_address_that_moves_to_another_interface_takes_its_route_along,
        two_interfaces_that_want_one_address_are_a_problem,
        a_foreign_route_in_the_way_is_a_problem_and_stays,
        unknown_routes_stay_for_the_grace_and_go_then,
        routes_elsewhere_and_of_others_are_not_touched,
        what_is_no_longer_wanted_goes,
        a_source_address_and_a_protocol_are_set,
        a_route_that_the_kernel_refuses_is_a_problem_and_stops_no_other,
        a_thousand_interfaces_are_few_calls,
        a_wrong_neighbour_is_corrected,
        without_a_workload_name_only_our_own_routes_go,
        refused_requests_of_a_large_batch_are_all_reported,
    ])
}

const MAC: &str = "ca:fe:1d:52:bb:e9";

/// A driver with a clock of its own, and the observer that tells it about links.
struct Bench {
    routes: Routes,
    links: Links,
    seconds: Arc<AtomicU64>,
}

impl Bench {
    fn new(version: IpVersion, config: RoutesConfig) -> Self {
        let seconds = Arc::new(AtomicU64::new(0));
        let (start, clock) = (Instant::now(), Arc::clone(&seconds));
        let now = move || start + Duration::from_secs(clock.load(Ordering::SeqCst));
        let mut routes = Routes::new(version, config, Box::new(now));
        let links = Links::open().unwrap();
        routes.observe().unwrap();
        Self { routes, links, seconds }
    }

    fn v4() -> Self {
        Self::new(IpVersion::V4, RoutesConfig::default())
    }

    fn poll(&mut self) -> Vec<LinkEvent> {
        let events = self.links.poll_events().unwrap();
        for event in &events {
            self.routes.handle_link(event);
        }
        events
    }

    /// Takes in link events and applies.
    fn try_apply(&mut self) -> Report {
        self.poll();
        self.routes.apply(Phase::Connect)
    }

    fn apply(&mut self) -> Report {
        let report = self.try_apply();
        assert_eq!(report.problems, [], "no problems");
        report
    }

    fn want(&mut self, interface: &str, addrs: &[&str]) {
        let routes = addrs.iter().map(|addr| RouteSpec::to(addr.parse().unwrap())).collect();
        let mac: MacAddr = MAC.parse().unwrap();
        let neighbours = addrs.iter().map(|addr| (addr.split('/').next().unwrap().parse().unwrap(), mac));
        self.routes.set_interface(interface, routes, neighbours.collect());
    }

    fn plan(&self) -> String {
        self.routes.plan(Phase::Connect).to_string()
    }
}

/// A veth pair, this end up or not; the other end is `<name>p`, up.
fn veth(name: &str, up: bool) {
    sh(&format!("ip link add {name} type veth peer name {name}p && ip link set {name}p up"));
    if up {
        sh(&format!("ip link set {name} up"));
        wait_running(name);
    }
}

fn wait_running(name: &str) {
    wait_for("the link runs", || sh(&format!("ip -o link show {name}")).contains("LOWER_UP"));
}

fn routes() -> Vec<String> {
    let mut lines: Vec<String> = sh("ip -4 route show")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

fn routes_and_neighbours_print_as_calico_prints_them() {
    veth("cali12345", true);
    let mut bench = Bench::v4();
    let mut spec = RouteSpec::to("10.65.0.2/32".parse().unwrap());
    spec.protocol = 3;
    bench.routes.set_interface(
        "cali12345",
        vec![spec],
        vec![("10.65.0.2".parse().unwrap(), MAC.parse().unwrap())],
    );
    bench.apply();
    assert_eq!(
        sh("ip -4 route show table all type unicast").trim(),
        "10.65.0.2 dev cali12345 scope link metric 1024"
    );
    let neighbours = sh("ip neigh show nud permanent");
    assert!(neighbours.contains(&format!("10.65.0.2 dev cali12345 lladdr {MAC} PERMANENT")), "{neighbours}");
    bench.want("cali12345", &["10.65.0.2/32"]);
    bench.apply();
    assert_eq!(routes(), ["10.65.0.2 dev cali12345 proto 80 scope link metric 1024"]);
}

fn ipv6_routes_print_as_calico_prints_them() {
    veth("cali1", true);
    let mut bench = Bench::new(IpVersion::V6, RoutesConfig::default());
    let mut spec = RouteSpec::to("fd00:65::2/128".parse().unwrap());
    spec.protocol = 3;
    bench.routes.set_interface("cali1", vec![spec, RouteSpec::to("10.0.0.1/32".parse().unwrap())], vec![]);
    bench.apply();
    let shown = sh("ip -6 route show");
    assert!(shown.contains("fd00:65::2 dev cali1 metric 1024 pref medium"), "{shown}");
    assert!(shown.contains("fe80::/64 dev cali1 proto kernel"), "the kernel's own stays: {shown}");
    bench.routes.observe().unwrap();
    assert_eq!(bench.plan(), "");
    bench.routes.remove_interface("cali1");
    bench.seconds.store(11, Ordering::SeqCst);
    bench.apply();
    let shown = sh("ip -6 route show");
    assert!(!shown.contains("fd00:65::2") && shown.contains("fe80::/64 dev cali1"), "{shown}");
}

fn observing_again_after_an_apply_finds_nothing_to_do() {
    for number in 0..10 {
        veth(&format!("cali{number}"), true);
    }
    for version in IpVersion::BOTH {
        let mut bench = Bench::new(version, RoutesConfig::default());
        for number in 0..10 {
            let (v4, v6) = (format!("10.0.0.{number}/32"), format!("fd00::{number}/128"));
            bench.want(&format!("cali{number}"), &[&v4, &v6, "10.1.0.0/24"][..2]);
        }
        bench.apply();
        bench.routes.observe().unwrap();
        assert_eq!(bench.plan(), "");
        assert_eq!(bench.routes.apply(Phase::Connect), Report::default());
    }
}

fn an_unchanged_state_costs_no_call() {
    veth("cali1", true);
    let mut bench = Bench::v4();
    bench.want("cali1", &["10.0.0.1/32"]);
    bench.apply();
    assert_eq!(bench.apply(), Report::default());
    bench.want("cali1", &["10.0.0.1/32"]);
    assert_eq!(bench.apply(), Report::default(), "the same wanted once more");
}

fn an_interface_that_appears_later_gets_its_routes() {
    let mut bench = Bench::v4();
    bench.want("cali1", &["10.0.0.1/32"]);
    assert_eq!(bench.apply(), Report::default());
    assert_eq!(bench.routes.pending(), ["cali1"]);
    veth("cali1", true);
    bench.apply();
    assert_eq!(routes(), ["10.0.0.1 dev cali1 proto 80 scope link metric 1024"]);
    assert_eq!(bench.routes.pending(), [""; 0]);
}

fn an_interface_that_is_down_is_pending_and_gets_its_routes_when_up() {
    veth("cali1", true);
    let mut bench = Bench::v4();
    bench.want("cali1", &["10.0.0.1/32"]);
    bench.apply();
    sh("ip link set cali1 down");
    assert_eq!(bench.apply(), Report::default(), "no problem");
    assert_eq!(bench.routes.pending(), ["cali1"]);
    assert_eq!(routes(), [""; 0], "the kernel has removed it");
    sh("ip link set cali1 up");
    wait_running("cali1");
    bench.apply();
    assert_eq!(routes(), ["10.0.0.1 dev cali1 proto 80 scope link metric 1024"]);
    // Down and up between two polls.
    sh("ip link set cali1 down; ip link set cali1 up");
    wait_running("cali1");
    bench.apply();
    assert_eq!(routes(), ["10.0.0.1 dev cali1 proto 80 scope link metric 1024"]);
    assert!(sh("ip neigh show nud permanent").contains("10.0.0.1 dev cali1"));
}

fn an_interface_made_anew_gets_its_routes_again() {
    veth("cali1", true);
    let mut bench = Bench::v4();
    bench.want("cali1", &["10.0.0.1/32"]);
    bench.apply();
    sh("ip link del cali1");
    veth("cali1", true);
    bench.apply();
    assert_eq!(routes(), ["10.0.0.1 dev cali1 proto 80 scope link metric 1024"]);
}

fn an_old_route_with_metric_0_is_replaced_without_a_gap() {
    veth("cali1", true);
    sh("ip route add 10.0.0.1/32 dev cali1 scope link");
    let monitor = std::process::Command::new("ip")
        .args(["monitor", "route"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut bench = Bench::v4();
    let mut monitor = Monitor::new(monitor);
    monitor.wait_until_listening();
    bench.want("cali1", &["10.0.0.1/32"]);
    assert_eq!(
        bench.plan(),
        "set neighbour 10.0.0.1 dev cali1 lladdr ca:fe:1d:52:bb:e9\n\
         add route 10.0.0.1/32 dev cali1 metric 1024\n\
         delete route 10.0.0.1/32 dev cali1 metric 0"
    );
    bench.apply();
    assert_eq!(sh("ip -4 route show 10.0.0.1").trim(), "10.0.0.1 dev cali1 proto 80 scope link metric 1024");
    assert_eq!(monitor.lines_about("10.0.0.1", 2), ["10.0.0.1 added", "10.0.0.1 deleted"], "in this order");
}

/// The order of events as `ip monitor` prints them.
struct Monitor {
    child: std::process::Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Monitor {
    fn new(mut child: std::process::Child) -> Self {
        use std::io::BufRead;
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    fn wait_until_listening(&mut self) {
        wait_for("ip monitor listens", || {
            sh(
                "ip route add 192.0.2.1/32 dev lo 2>/dev/null || ip route del 192.0.2.1/32 dev lo || ip link set lo up",
            );
            self.lines.try_iter().any(|line| line.contains("192.0.2.1"))
        });
    }

    fn lines_about(&mut self, dest: &str, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < count {
            let line = self.lines.recv_timeout(Duration::from_secs(10)).expect("an event");
            if line.contains(dest) {
                let verb = if line.starts_with("Deleted") { "deleted" } else { "added" };
                found.push(format!("{dest} {verb}"));
            }
        }
        found
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn a_route_that_a_plugin_made_meanwhile_is_taken_over() {
    veth("cali1", true);
    let mut bench = Bench::v4();
    sh("ip route add 10.0.0.1/32 dev cali1 scope link metric 1024");
    bench.want("cali1", &["10.0.0.1/32", "10.0.0.2/32"]);
    bench.apply();
    assert_eq!(
        routes(),
        [
            "10.0.0.1 dev cali1 proto 80 scope link metric 1024",
            "10.0.0.2 dev cali1 proto 80 scope link metric 1024"
        ]
    );
    bench.routes.observe().unwrap();
    assert_eq!(bench.plan(), "");
}

fn an_address_that_moves_to_another_interface_takes_its_route_along() {
    veth("cali1", true);
    veth("cali2", true);
    for version in IpVersion::BOTH {
        let addr = if version == IpVersion::V4 { "10.0.0.1/32" } else { "fd00::1/128" };
        let show = format!("ip -{} route show {addr}", version.number());
        let mut bench = Bench::new(version, RoutesConfig::default());
        bench.want("cali1", &[addr]);
        bench.apply();
        bench.want("cali2", &[addr]);
        bench.routes.remove_interface("cali1");
        bench.apply();
        let shown = sh(&show);
        assert!(shown.contains("dev cali2") && !shown.contains("dev cali1"), "{shown}");
        bench.routes.observe().unwrap();
        assert_eq!(bench.plan(), "", "{version}");
    }
}

fn two_interfaces_that_want_one_address_are_a_problem() {
    veth("cali1", true);
    veth("cali2", true);
    let mut bench = Bench::v4();
    bench.want("cali1", &["10.0.0.1/32"]);
    bench.want("cali2", &["10.0.0.1/32", "10.0.0.2/32"]);
    let report = bench.try_apply();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(
        report.problems[0].to_string(),
        "route 10.0.0.1/32 dev cali2: interface cali1 has a route to it"
    );
    assert_eq!(routes().len(), 2);
    bench.routes.remove_interface("cali1");
    bench.apply();
    assert!(routes().contains(&"10.0.0.1 dev cali2 proto 80 scope link metric 1024".to_owned()));
}

fn a_foreign_route_in_the_way_is_a_problem_and_stays() {
    veth("cali1", true);
    veth("eth7", true);
    sh("ip route add 10.0.0.1/32 dev eth7 scope link metric 1024");
    sh("ip route add blackhole 10.0.0.2/32 metric 1024");
    let mut bench = Bench::v4();
    bench.want("cali1", &["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"]);
    let report = bench.try_apply();
    let objects: Vec<&str> = report.problems.iter().map(|problem| problem.object.as_str()).collect();
    assert_eq!(objects, ["route 10.0.0.1/32 dev cali1", "route 10.0.0.2/32 dev cali1"]);
    assert_eq!(
        routes(),
        [
            "10.0.0.1 dev eth7 scope link metric 1024",
            "10.0.0.3 dev cali1 proto 80 scope link metric 1024",
            "blackhole 10.0.0.2 metric 1024"
        ]
    );
}

fn unknown_routes_stay_for_the_grace_and_go_then() {
    veth("cali1", true);
    sh("ip route add 10.0.0.9/32 dev cali1 scope link");
    sh("ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev cali1 nud permanent");
    let mut bench = Bench::v4();
    assert_eq!(bench.apply(), Report::default());
    assert_eq!(routes(), ["10.0.0.9 dev cali1 scope link"]);
    assert!(bench.routes.next_deadline().is_some());
    bench.seconds.store(9, Ordering::SeqCst);
    assert_eq!(bench.apply(), Report::default());
    bench.seconds.store(10, Ordering::SeqCst);
    assert_eq!(
        bench.plan(),
        "delete route 10.0.0.9/32 dev cali1 metric 0\ndelete neighbour 10.0.0.9 dev cali1"
    );
    bench.apply();
    assert_eq!(routes(), [""; 0]);
    assert_eq!(sh("ip neigh show nud permanent dev cali1"), "");
    assert_eq!(bench.routes.next_deadline(), None);
}

fn routes_elsewhere_and_of_others_are_not_touched() {
    veth("cali1", true);
    veth("eth7", true);
    sh("ip addr add 192.0.2.1/24 dev eth7");
    sh("ip addr add 198.51.100.1/24 dev cali1");
    sh("ip route add 10.1.0.0/24 dev eth7 proto 80");
    sh("ip route add 10.2.0.0/24 via 192.0.2.9 proto bird");
    sh("ip route add 10.3.0.0/24 dev cali1 proto bird");
    sh("ip route add 10.4.0.0/24 dev cali1 table 99");
    sh("ip route add unreachable 10.5.0.0/24");
    let before = sh("ip route show table all");
    let mut bench = Bench::v4();
    bench.seconds.store(60, Ordering::SeqCst);
    assert_eq!(bench.apply(), Report::default());
    assert_eq!(sh("ip route show table all"), before);
}

fn what_is_no_longer_wanted_goes() {
    veth("cali1", true);
    let mut bench = Bench::v4();
    bench.seconds.store(60, Ordering::SeqCst);
    bench.want("cali1", &["10.0.0.1/32", "10.0.0.2/32"]);
    bench.apply();
    bench.want("cali1", &["10.0.0.2/32"]);
    bench.apply();
    assert_eq!(routes(), ["10.0.0.2 dev cali1 proto 80 scope link metric 1024"]);
    assert!(!sh("ip neigh show nud permanent").contains("10.0.0.1 "));
    bench.routes.remove_interface("cali1");
    bench.apply();
    assert_eq!(routes(), [""; 0]);
}

fn a_source_address_and_a_protocol_are_set() {
    veth("cali1", true);
    sh("ip link set lo up; ip addr add 192.0.2.1/32 dev lo");
    let mut bench = Bench::v4();
    let mut spec = RouteSpec::to("10.0.0.1/32".parse().unwrap());
    spec.protocol = 99;
    spec.src = Some("192.0.2.1".parse().unwrap());
    bench.routes.set_interface("cali1", vec![spec], vec![]);
    bench.apply();
    let shown = sh("ip -N -4 route show 10.0.0.1");
    assert_eq!(shown.trim(), "10.0.0.1 dev cali1 proto 99 scope 253 src 192.0.2.1 metric 1024");
    bench.routes.observe().unwrap();
    assert_eq!(bench.plan(), "");
}

fn a_route_that_the_kernel_refuses_is_a_problem_and_stops_no_other() {
    veth("cali1", true);
    let mut bench = Bench::v4();
    let mut spec = RouteSpec::to("10.0.0.1/32".parse().unwrap());
    spec.src = Some("203.0.113.77".parse().unwrap());
    bench.routes.set_interface("cali1", vec![spec, RouteSpec::to("10.0.0.2/32".parse().unwrap())], vec![]);
    // It must not cost the old route to the same destination.
    sh("ip route add 10.0.0.1/32 dev cali1 scope link");
    bench.routes.observe().unwrap();
    let report = bench.try_apply();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].error.contains("Invalid"), "the kernel's words: {}", report.problems[0]);
    assert_eq!(
        routes(),
        ["10.0.0.1 dev cali1 scope link", "10.0.0.2 dev cali1 proto 80 scope link metric 1024"]
    );
}

fn a_thousand_interfaces_are_few_calls() {
    let commands: Vec<String> = (0..1000)
        .map(|number| {
            let (near, far) = (format!("cali{number}"), format!("p{number}"));
            format!("link add {near} type veth peer name {far}\nlink set {far} up\nlink set {near} up")
        })
        .collect();
    std::fs::write("/run/links", commands.join("\n")).unwrap();
    sh("ip -batch /run/links");
    wait_running("cali999");
    let mut bench = Bench::v4();
    for number in 0..1000 {
        bench.want(&format!("cali{number}"), &[&format!("10.0.{}.{}/32", number / 250, number % 250)]);
    }
    let report = bench.apply();
    assert_eq!(report.changed, 2000, "a route and a neighbour each");
    assert!(report.calls <= 10, "{} calls", report.calls);
    assert_eq!(routes().len(), 1000);
    bench.routes.observe().unwrap();
    assert_eq!(bench.plan(), "");
}

fn a_wrong_neighbour_is_corrected() {
    veth("cali1", true);
    sh("ip neigh add 10.0.0.1 lladdr 02:00:00:00:00:09 dev cali1 nud permanent");
    let mut bench = Bench::v4();
    bench.want("cali1", &["10.0.0.1/32"]);
    bench.apply();
    assert!(sh("ip neigh show nud permanent").contains(&format!("10.0.0.1 dev cali1 lladdr {MAC}")));
}

fn without_a_workload_name_only_our_own_routes_go() {
    veth("eth7", true);
    sh("ip route add 10.9.0.0/24 dev eth7 proto static");
    let mut bench = Bench::v4();
    bench.seconds.store(60, Ordering::SeqCst);
    bench.want("eth7", &["10.0.0.1/32"]);
    bench.apply();
    bench.routes.remove_interface("eth7");
    bench.seconds.store(120, Ordering::SeqCst);
    bench.apply();
    assert_eq!(routes(), ["10.9.0.0/24 dev eth7 proto static scope link"]);
}

fn refused_requests_of_a_large_batch_are_all_reported() {
    veth("cali1", true);
    let mut bench = Bench::v4();
    let refused = (0..2000_u32).map(|number| {
        let mut spec = RouteSpec::to(format!("10.0.{}.{}/32", number / 250, number % 250).parse().unwrap());
        spec.src = Some("203.0.113.77".parse().unwrap());
        spec
    });
    let good = RouteSpec::to("10.1.0.0/32".parse().unwrap());
    bench.routes.set_interface("cali1", refused.chain([good]).collect(), vec![]);
    assert_eq!(bench.try_apply().problems.len(), 2000);
    assert_eq!(routes(), ["10.1.0.0 dev cali1 proto 80 scope link metric 1024"]);
}
