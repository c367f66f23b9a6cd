//! A small HTTP server at the address that the settings name; when that changes, at the new one.
//!
//! It may be open to a network. Who holds connections open and says nothing costs a bounded number of file descriptors, as
//! the engine needs some too, and holds up others for a bounded time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Edge, REBIND};
use crate::config::Settings;

/// How many connections are served at a time; the next wait in the kernel.
const CONNECTIONS: usize = 32;

/// How long a connection lasts. It is for one request.
const CONNECTION: Duration = Duration::from_secs(5);

/// What an answer is made of.
pub(super) struct Answer {
    pub(super) code: StatusCode,
    /// Its type.
    pub(super) content: &'static str,
    pub(super) text: String,
}

impl Answer {
    /// Text for people.
    pub(super) fn plain(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, content: "text/plain; charset=utf-8", text: text.into() }
    }
}

/// Something that is served.
pub(super) struct Service {
    /// In words.
    pub(super) name: &'static str,
    /// The setting to look at when it cannot be served.
    pub(super) setting: &'static str,
    /// Host and port, if it is to be served; no host stands for all addresses.
    pub(super) address: fn(&Settings) -> Option<(String, u16)>,
    /// The answer to a method and a path. It may look at a disk.
    pub(super) respond: fn(&Edge, &Method, &str) -> Answer,
}

/// Serves for ever.
pub(super) async fn serve(edge: Edge, service: &'static Service) {
    let mut complained = false;
    loop {
        let Some(address) = (service.address)(&edge.shared.settings()) else {
            edge.shared.set_unserved(service.name, None);
            complained = false;
            tokio::time::sleep(REBIND).await;
            continue;
        };
        let (host, port) = &address;
        match bind(host, *port).await {
            Ok(listener) => {
                complained = false;
                edge.shared.set_unserved(service.name, None);
                tracing::info!(host, port, "serving {}", service.name);
                accept(&edge, service, &listener, &address).await;
            }
            Err(error) => {
                let why = format!("cannot serve {} at {host}:{port}: {error}", service.name);
                edge.shared.set_unserved(service.name, Some((service.setting, why)));
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(host, port, %error, "cannot serve {}; trying again", service.name);
                }
                tokio::time::sleep(REBIND).await;
            }
        }
    }
}

/// Listens at a host's address; without one, at all addresses, of IPv6 too where the node has it.
async fn bind(host: &str, port: u16) -> std::io::Result<TcpListener> {
    if !host.is_empty() {
        return TcpListener::bind((host, port)).await;
    }
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
    }
}

/// Serves until the settings name another address.
async fn accept(edge: &Edge, service: &'static Service, listener: &TcpListener, address: &(String, u16)) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let accepted = tokio::time::timeout(REBIND, next).await;
        if (service.address)(&edge.shared.settings()).as_ref() != Some(address) {
            return;
        }
        match accepted {
            Ok(Ok((stream, place))) => {
                let answer = tokio::time::timeout(CONNECTION, answer(edge.clone(), service, stream));
                tokio::spawn(async move {
                    let _ = answer.await;
                    drop(place);
                });
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "{}", service.name);
                tokio::time::sleep(REBIND).await;
            }
            Err(_) => {}
        }
    }
}

/// Answers the request of a connection.
async fn answer(edge: Edge, service: &'static Service, stream: TcpStream) {
    let respond = service_fn(move |request: Request<Incoming>| {
        let edge = edge.clone();
        let respond = move || (service.respond)(&edge, request.method(), request.uri().path());
        let answered = tokio::task::spawn_blocking(respond);
        async move {
            let answer = answered.await;
            let failed =
                |e: tokio::task::JoinError| Answer::plain(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
            Ok::<_, Infallible>(response(answer.unwrap_or_else(failed)))
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let connection = server.keep_alive(false).serve_connection(TokioIo::new(stream), respond);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "{} client", service.name);
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.text)));
    *response.status_mut() = answer.code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content));
    response
}
