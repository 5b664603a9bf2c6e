//! Which pages of other origins may use the API from a browser: none, unless the
//! operator has named them.
//!
//! There is no cookie, so that nothing is allowed with credentials: a page needs a token
//! of its own. Short links themselves are followed by going there, for which nobody
//! needs leave.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, if-match, if-none-match, idempotency-key",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, location, retry-after");

/// How long a browser may keep what a preflight said: an origin that is taken off the
/// list is out after ten minutes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// An origin as browsers send it: scheme, host and, unless it is the scheme's own, port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).ok();
        let origin = url
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .map(|url| url.origin().ascii_serialization())
            .filter(|origin| origin == text && !origin.contains('*'))
            .ok_or_else(|| {
                format!("\"{text}\" is no origin as browsers send it, as in https://app.example")
            })?;
        let value = HeaderValue::from_str(&origin);
        value.map(Self).map_err(|error| error.to_string())
    }
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Allowed(Arc<[Origin]>);

impl Allowed {
    pub(super) fn new(origins: Vec<Origin>) -> Self {
        Self(origins.into())
    }

    fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let known = self.0.iter().find(|Origin(known)| known == origin)?;
        Some(known.0.clone())
    }
}

/// Answers preflights of known origins, and lets their pages read the API's answers.
pub(super) async fn cors(State(allowed): State<Allowed>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_api = path == "/shorten" || path.starts_with("/api/");
    if allowed.0.is_empty() || !is_api {
        return next.run(request).await;
    }
    let origin = allowed.origin(request.headers());
    let is_preflight = *request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if origin.is_some() && is_preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_origins_can_be_named() {
        for text in ["https://app.example", "http://localhost:3000"] {
            assert!(text.parse::<Origin>().is_ok(), "{text}");
        }
        for text in [
            "*",
            "null",
            "app.example",
            "https://app.example/",
            "https://app.example:443",
            "https://App.example",
            "https://*.example",
            "file:///",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
