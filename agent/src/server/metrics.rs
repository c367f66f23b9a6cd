//! `GET /metrics` for Prometheus, in its text format: under Felix's names what means the same here, under ours the rest.
//!
//! The page is made from the status at each request, so nothing is counted twice. What is counted begins anew with the
//! process, and most of it when settings change, as counters of Prometheus may.

use hyper::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TEXT_FORMAT, TextEncoder};
use tortie_api::control::{Area, Status};

use super::Edge;
use super::http::{Answer, Service};
use crate::config::Settings;

/// See the module's documentation.
pub(super) const SERVICE: Service = Service {
    name: "metrics",
    setting: "PrometheusMetricsPort",
    address: Settings::metrics_address,
    respond,
};

fn respond(edge: &Edge, method: &Method, path: &str) -> Answer {
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            match text(&edge.shared.status(&edge.store.problems()), edge.shared.apply_times()) {
                Ok(text) => Answer { code: StatusCode::OK, content: TEXT_FORMAT, text },
                Err(error) => Answer::plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        (_, "/metrics") => Answer::plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
        _ => Answer::plain(StatusCode::NOT_FOUND, "try /metrics\n"),
    }
}

/// What Felix says in `felix_resync_state`.
const RESYNC: u64 = 2;
const IN_SYNC: u64 = 3;

/// The whole page.
fn text(status: &Status, apply_times: Histogram) -> prometheus::Result<String> {
    let page = Page(Registry::new());
    felix(&page, status)?;
    ours(&page, status)?;
    page.add(apply_times)?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

/// What Felix has too.
fn felix(page: &Page, status: &Status) -> prometheus::Result<()> {
    let counters = &status.counters;
    page.gauges("felix_host", "The node.", &["host"], [(vec![status.node.as_str()], 1)])?;
    let state = if status.in_sync { IN_SYNC } else { RESYNC };
    page.gauge("felix_resync_state", "2 while the datastore is read, 3 when it is in sync.", state)?;
    page.gauge(
        "felix_active_local_endpoints",
        "Endpoints of this node, of workloads and hosts.",
        status.endpoints as u64,
    )?;
    page.gauge(
        "felix_active_local_policies",
        "Policies that select one of this node's endpoints.",
        status.policies as u64,
    )?;
    let sets = ["inet", "inet6"].into_iter().zip(counters.ip_sets).map(|(v, n)| (vec![v], n as u64));
    page.gauges("felix_ipsets_calico", "IP sets kept in the kernel.", &["ip_version"], sets)?;
    page.counter(
        "felix_iptables_restore_calls",
        "Runs of iptables-restore, those that failed too.",
        counters.restores,
    )?;
    page.counter(
        "felix_iptables_restore_errors",
        "Runs of iptables-restore that failed.",
        counters.restore_errors,
    )
}

/// What only we have.
fn ours(page: &Page, status: &Status) -> prometheus::Result<()> {
    let info = vec![status.version.as_str(), status.iptables_backend.as_str()];
    page.gauges(
        "tortie_info",
        "The agent's version and the back end in use.",
        &["version", "backend"],
        [(info, 1)],
    )?;
    let applied = u64::from(status.in_sync && status.applied);
    page.gauge("tortie_applied", "1 when the kernel holds all that follows from the datastore.", applied)?;
    page.gauge(
        "tortie_quarantined_objects",
        "Kernel objects that are not as wanted; what they guard is closed.",
        status.counters.quarantined,
    )?;
    page.counter(
        "tortie_foreign_changes",
        "How often others changed our tables (nft back end).",
        status.counters.foreign_changes,
    )?;
    page.gauge(
        "tortie_pending_interfaces",
        "Interfaces of endpoints that are not there or down.",
        status.pending_interfaces.len() as u64,
    )?;
    let areas = [
        ("datastore", Area::Datastore),
        ("kernel", Area::Kernel),
        ("policy", Area::Policy),
        ("setting", Area::Setting),
    ];
    let problems = areas.map(|(name, area)| {
        let count = status.problems.iter().filter(|problem| problem.area == area).count();
        (vec![name], count as u64)
    });
    page.gauges("tortie_problems", "What is not as it should be, by its kind.", &["area"], problems)
}

/// What a page is collected in.
struct Page(Registry);

impl Page {
    fn add(&self, metric: impl Collector + 'static) -> prometheus::Result<()> {
        self.0.register(Box::new(metric))
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.add(counter)
    }

    fn gauge(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        self.add(gauge)
    }

    /// One value for each of some labels' values.
    fn gauges<'a>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: impl IntoIterator<Item = (Vec<&'a str>, u64)>,
    ) -> prometheus::Result<()> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            let gauge = gauges.get_metric_with_label_values(&labels)?;
            gauge.set(value.try_into().unwrap_or(i64::MAX));
        }
        self.add(gauges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shared;
    use tortie_api::control::{Apply, Counters, StatusProblem};

    #[test]
    fn a_page_has_felixs_names_and_ours_in_the_text_format() {
        let problem = |area| StatusProblem { area, object: "o".to_owned(), message: "m".to_owned() };
        let status = Status {
            node: "a \"b\"\n".to_owned(),
            version: "0.1.0".to_owned(),
            iptables_backend: "nft".to_owned(),
            in_sync: true,
            applied: false,
            endpoints: 4,
            policies: 3,
            pending_interfaces: vec!["cali1".to_owned()],
            counters: Counters {
                restores: 12,
                restore_errors: 2,
                ip_sets: [5, 6],
                foreign_changes: 7,
                quarantined: 1,
            },
            problems: vec![problem(Area::Kernel), problem(Area::Policy), problem(Area::Policy)],
            ..Status::default()
        };
        let shared = Shared::new(status.clone(), Settings::default());
        for millis in [0.5, 3.0, 20_000.0] {
            shared.applied(Apply { millis, ..Apply::default() });
        }
        let text = text(&status, shared.apply_times()).unwrap();
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "felix_active_local_endpoints 4",
                "felix_active_local_policies 3",
                "felix_host{host=\"a \\\"b\\\"\\n\"} 1",
                "felix_ipsets_calico{ip_version=\"inet\"} 5",
                "felix_ipsets_calico{ip_version=\"inet6\"} 6",
                "felix_iptables_restore_calls 12",
                "felix_iptables_restore_errors 2",
                "felix_resync_state 3",
                "tortie_applied 0",
                "tortie_apply_milliseconds_bucket{le=\"1\"} 1",
                "tortie_apply_milliseconds_bucket{le=\"2\"} 1",
                "tortie_apply_milliseconds_bucket{le=\"5\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"10\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"20\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"50\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"100\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"200\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"500\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"1000\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"2000\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"5000\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"10000\"} 2",
                "tortie_apply_milliseconds_bucket{le=\"+Inf\"} 3",
                "tortie_apply_milliseconds_sum 20003.5",
                "tortie_apply_milliseconds_count 3",
                "tortie_foreign_changes 7",
                "tortie_info{backend=\"nft\",version=\"0.1.0\"} 1",
                "tortie_pending_interfaces 1",
                "tortie_problems{area=\"datastore\"} 0",
                "tortie_problems{area=\"kernel\"} 1",
                "tortie_problems{area=\"policy\"} 2",
                "tortie_problems{area=\"setting\"} 0",
                "tortie_quarantined_objects 1",
            ]
        );
        assert!(text.contains("# TYPE felix_iptables_restore_calls counter\n"), "{text}");
        assert!(text.contains("# TYPE felix_resync_state gauge\n"), "{text}");
        assert!(text.contains("# TYPE tortie_apply_milliseconds histogram\n"), "{text}");
    }
}
