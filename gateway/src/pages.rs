//! What a visitor sees when a slug leads nowhere.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::api::{Code, Problem};

/// A whole page as static bytes.
macro_rules! page {
    ($title:literal, $text:literal) => {
        concat!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            "<meta name=\"robots\" content=\"noindex\"><title>",
            $title,
            "</title><style>:root{color-scheme:light dark}body{font:1.05rem/1.5 system-ui,",
            "sans-serif;margin:0;min-height:100vh;display:grid;place-items:center}",
            "main{padding:2rem}h1{font-size:1.6rem;margin:0 0 .5rem}p{margin:0}</style></head>",
            "<body><main><h1>",
            $title,
            "</h1><p>",
            $text,
            "</p></main></body></html>\n"
        )
        .as_bytes()
    };
}

/// The body for a status, and its content type: HTML if the client accepts it by
/// name, as browsers do.
pub(crate) fn refusal(status: StatusCode, headers: &HeaderMap) -> (HeaderValue, Bytes) {
    let accepts_html = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"));
    if accepts_html {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        return (html, page(status));
    }
    let problem = match status {
        StatusCode::GONE => Problem::gone(),
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => Problem::blocked(),
        StatusCode::SERVICE_UNAVAILABLE => Problem::new(
            Code::ShardUnavailable,
            "Where this link leads cannot be found out at the moment. Try again.",
        ),
        _ => Problem::no_such_link(),
    };
    let body = serde_json::to_vec(&problem).expect("texts and numbers are JSON");
    (
        HeaderValue::from_static("application/problem+json"),
        Bytes::from(body),
    )
}

fn page(status: StatusCode) -> Bytes {
    Bytes::from_static(match status {
        StatusCode::GONE => page!("This link is gone", "It was deleted, or its time is over."),
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => page!(
            "This link was taken down",
            "The operator of this service has blocked it."
        ),
        StatusCode::SERVICE_UNAVAILABLE => page!(
            "Try again in a moment",
            "Where this link leads cannot be found out right now."
        ),
        _ => page!(
            "There is no such link",
            "Check the address: capitals and small letters differ."
        ),
    })
}
