//! `GET /liveness` and `GET /readiness`, as Felix serves them: 200 or 503, with the reasons in plain text.
//!
//! Live: the process runs and its engine has asked for inputs within the last 90 s. Ready: the datastore is in sync and the kernel holds what
//! follows from it.

use std::time::Duration;

use hyper::{Method, StatusCode};
use tortie_api::control::Area;

use super::Edge;
use super::http::{Answer, Service};
use crate::config::Settings;

/// How long the engine may be at work without asking for inputs; Felix's `DataplaneWatchdogTimeout`.
const WATCHDOG: Duration = Duration::from_secs(90);

/// See the module's documentation.
pub(super) const SERVICE: Service =
    Service { name: "health", setting: "HealthPort", address: Settings::health_address, respond };

fn respond(edge: &Edge, method: &Method, path: &str) -> Answer {
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/liveness") => liveness(edge),
        (&Method::GET | &Method::HEAD, "/readiness") => readiness(edge),
        (_, "/liveness" | "/readiness") => Answer::plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
        _ => Answer::plain(StatusCode::NOT_FOUND, "try /liveness or /readiness\n"),
    }
}

fn liveness(edge: &Edge) -> Answer {
    match edge.shared.busy_since().map(|since| since.elapsed()).filter(|busy| *busy > WATCHDOG) {
        None => Answer::plain(StatusCode::OK, "live\n"),
        Some(busy) => {
            let text = format!("the engine has not taken inputs for {} s\n", busy.as_secs());
            Answer::plain(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

fn readiness(edge: &Edge) -> Answer {
    let status = edge.shared.status(&[]);
    let reasons = [
        (!status.in_sync).then(|| "the datastore is not in sync".to_owned()),
        (status.in_sync && !status.applied).then(|| "the kernel does not hold everything".to_owned()),
    ];
    // What holds up nothing is no reason; `tortiectl status` tells it.
    let kernel = status.problems.iter().filter(|p| !status.applied && p.area == Area::Kernel);
    let details = kernel.map(|p| format!("{}: {}", p.object, p.message));
    let reasons: Vec<String> = reasons.into_iter().flatten().chain(details).collect();
    if reasons.is_empty() {
        Answer::plain(StatusCode::OK, "ready\n")
    } else {
        Answer::plain(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}
