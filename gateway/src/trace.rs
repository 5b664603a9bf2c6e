//! One span for a request that is traced; nothing at all for the others.

use http::{HeaderMap, Method};
use opentelemetry::propagation::Extractor;
use tracing::Span;
use waypost_runtime::traces::{self, Sampler};

/// W3C trace context.
const TRACEPARENT: &str = "traceparent";

/// The span of a request, if it is to be traced. It continues the caller's trace.
pub(crate) fn span(sampler: Sampler, method: &Method, headers: &HeaderMap) -> Option<Span> {
    if sampler.is_off() {
        return None;
    }
    let parent = headers.get(TRACEPARENT).map(http::HeaderValue::as_bytes);
    if !sampler.decide(parent, fastrand::u32(..)) {
        return None;
    }
    let span = tracing::info_span!(
        target: "waypost::trace",
        "request",
        otel.kind = "server",
        http.request.method = %method,
        http.response.status_code = tracing::field::Empty,
    );
    traces::continue_from(&span, &Headers(headers));
    Some(span)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
