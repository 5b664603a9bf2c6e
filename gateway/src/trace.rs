//! One span for a request that is traced; nothing at all for the others.

use http::{HeaderMap, Method, StatusCode};
use waypost_runtime::traces::{self, Kind, Sampler, Span};

/// The methods that a span names: what else is sent is not repeated.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
    Method::PUT,
    Method::OPTIONS,
];

/// The span of a request, if it is to be traced. It continues the caller's trace.
#[must_use]
pub fn begin(sampler: &Sampler, method: &Method, headers: &HeaderMap) -> Option<Span> {
    if sampler.is_off() || !sampler.decide(traces::asked_for(headers), fastrand::u32(..)) {
        return None;
    }
    let method = name(method);
    let caller = traces::of_caller(headers);
    let span = Span::under(&caller, Kind::Server, method.to_owned());
    span.set("http.request.method", method.to_owned());
    Some(span)
}

/// Says where the request that runs goes, by the route's pattern: what stands in its
/// place, a slug, is nobody else's business.
pub(crate) fn routed(method: &Method, route: &str) {
    traces::rename(|| format!("{} {route}", name(method)));
    traces::note("http.route", route.to_owned());
}

/// Says what was answered.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.failed(status.as_u16().to_string());
    }
}

fn name(method: &Method) -> &str {
    match METHODS.contains(method) {
        true => method.as_str(),
        false => "_OTHER",
    }
}
