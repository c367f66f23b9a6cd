//! `GET /liveness` and `GET /readiness`, as Felix serves them: 200 or 503, with the reasons in plain text.
//!
//! Live: the process runs and its engine has asked for inputs within the last 90 s. Ready: the datastore is in sync and the kernel holds what
//! follows from it.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Edge, REBIND};

/// How long the engine may be at work without asking for inputs; Felix's `DataplaneWatchdogTimeout`.
const WATCHDOG: Duration = Duration::from_secs(90);

/// Serves for ever, at the address that the settings name; when that changes, at the new one.
pub(super) async fn serve(edge: Edge) {
    let mut complained = false;
    loop {
        let settings = edge.shared.settings();
        let address = (settings.health_host.clone(), settings.health_port);
        if !settings.health_enabled {
            tokio::time::sleep(REBIND).await;
            continue;
        }
        match TcpListener::bind((address.0.as_str(), address.1)).await {
            Ok(listener) => {
                complained = false;
                tracing::info!(host = address.0, port = address.1, "serving health");
                accept(&edge, &listener, &address).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(host = address.0, port = address.1, %error, "cannot serve health; trying again");
                }
                tokio::time::sleep(REBIND).await;
            }
        }
    }
}

/// Serves until the settings name another address.
async fn accept(edge: &Edge, listener: &TcpListener, address: &(String, u16)) {
    loop {
        let accepted = tokio::time::timeout(REBIND, listener.accept()).await;
        let settings = edge.shared.settings();
        if !settings.health_enabled
            || (&settings.health_host, settings.health_port) != (&address.0, address.1)
        {
            return;
        }
        let stream = match accepted {
            Ok(Ok((stream, _))) => stream,
            Ok(Err(error)) => {
                tracing::warn!(%error, "health");
                tokio::time::sleep(REBIND).await;
                continue;
            }
            Err(_) => continue,
        };
        let edge = edge.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&edge, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "health client");
            }
        });
    }
}

fn respond(edge: &Edge, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let status = edge.shared.status(&[]);
    let (code, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/liveness") => {
            match edge.shared.busy_since().map(|since| since.elapsed()).filter(|busy| *busy > WATCHDOG) {
                None => (StatusCode::OK, "live\n".to_owned()),
                Some(busy) => {
                    let text = format!("the engine has not taken inputs for {} s\n", busy.as_secs());
                    (StatusCode::SERVICE_UNAVAILABLE, text)
                }
            }
        }
        (&Method::GET | &Method::HEAD, "/readiness") => {
            let reasons = [
                (!status.in_sync).then(|| "the datastore is not in sync".to_owned()),
                (status.in_sync && !status.applied).then(|| "the kernel does not hold everything".to_owned()),
            ];
            let kernel = status.problems.iter().filter(|p| p.area == tortie_api::control::Area::Kernel);
            let details = kernel.map(|p| format!("{}: {}", p.object, p.message));
            let reasons: Vec<String> = reasons.into_iter().flatten().chain(details).collect();
            if reasons.is_empty() {
                (StatusCode::OK, "ready\n".to_owned())
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
            }
        }
        (_, "/liveness" | "/readiness") => (StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "try /liveness or /readiness\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response
}
