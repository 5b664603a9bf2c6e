//! The admin port: `/live`, `/ready`, `/metrics`. Never the public port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;

use crate::metrics::Registry;

/// Probes and scrapes are few; whatever opens more connections than this is
/// neither.
const MAX_CONNECTIONS: usize = 64;

/// How long a scraper may take to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What must hold before a process is ready. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By name, whether it holds.
    conditions: BTreeMap<&'static str, bool>,
    is_draining: bool,
}

impl Readiness {
    /// Adds a condition, which does not hold yet.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition {
            name,
            readiness: self.clone(),
        };
        condition.set(false);
        condition
    }

    /// What does not hold. A process that has not named its conditions yet has not
    /// started.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let state = self.lock();
        let mut missing: Vec<&'static str> = state
            .conditions
            .iter()
            .filter(|(_, holds)| !**holds)
            .map(|(name, _)| *name)
            .collect();
        if state.conditions.is_empty() {
            missing.push("started");
        }
        if state.is_draining {
            missing.push("not draining");
        }
        missing
    }

    /// From now on the process is not ready, whatever else holds.
    pub(crate) fn drain(&self) {
        self.lock().is_draining = true;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that must hold before a process is ready.
#[derive(Debug, Clone)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Condition {
    pub fn set(&self, holds: bool) {
        self.readiness.lock().conditions.insert(self.name, holds);
    }
}

/// Answers on the admin port until the process ends; it is the last to go, so
/// that a drain can be watched.
pub(crate) async fn serve(listener: TcpListener, readiness: Readiness, registry: Registry) {
    let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin port could not accept");
                // Out of file descriptors: others must close theirs first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (readiness, registry) = (readiness.clone(), registry.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &readiness, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            // A peer that goes away is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    readiness: &Readiness,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" => match readiness.missing() {
            missing if missing.is_empty() => text(StatusCode::OK, "ready\n"),
            missing => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {}\n", missing.join(", ")),
            ),
        },
        "/metrics" => metrics(registry),
        _ => text(StatusCode::NOT_FOUND, "/live, /ready, /metrics\n"),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut body) {
        Ok(()) => text(StatusCode::OK, body),
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            text(StatusCode::INTERNAL_SERVER_ERROR, "see the log\n")
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_only_between_its_start_and_its_drain() {
        let readiness = Readiness::default();
        assert_eq!(readiness.missing(), ["started"]);
        let reached = readiness.condition("database reached");
        assert_eq!(readiness.missing(), ["database reached"]);
        reached.set(true);
        assert!(readiness.missing().is_empty());
        readiness.drain();
        assert_eq!(readiness.missing(), ["not draining"]);
    }
}
