//! Tokens in query strings: refused, since a URL is kept in histories, logs and
//! `Referer` headers, where a token must not be.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::api::{Api, Code, Problem};

/// The names that tokens go by, without what separates their words.
const NAMES: [&str; 6] = [
    "accesstoken",
    "token",
    "apikey",
    "key",
    "authorization",
    "bearertoken",
];

/// Answers a request to the API that has a token in its query, whatever else it asks.
/// The query is not repeated in the answer and not logged.
pub(in crate::api) async fn refuse_tokens_in_queries(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_of_the_api = path == "/shorten" || path == "/api" || path.starts_with("/api/");
    if !is_of_the_api || !request.uri().query().is_some_and(names_a_token) {
        return next.run(request).await;
    }
    let code = Code::TokenInQuery;
    api.lookup().metrics.token_refused(code.name());
    Problem::new(
        code,
        "Send the token as Authorization: Bearer <token>, never in the URL, and revoke \
         this one: it may be in logs by now.",
    )
    .challenge("Bearer realm=\"waypost\", error=\"invalid_request\"")
    .into_response()
}

fn names_a_token(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| {
        let letters = name.chars().filter(|c| !matches!(c, '_' | '-'));
        let name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
        NAMES.contains(&name.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_however_its_name_is_written() {
        for query in [
            "access_token=x",
            "a=b&ACCESS_TOKEN=x",
            "token",
            "Token=",
            "api_key=x",
            "apiKey=x",
            "api-key=x",
            "key=x&limit=3",
            "%6bey=x",
            "access%5Ftoken=x",
        ] {
            assert!(names_a_token(query), "{query}");
        }
        for query in [
            "",
            "q=token",
            "keys=x",
            "cursor=key",
            "tag=api_key",
            "monkey=1",
        ] {
            assert!(!names_a_token(query), "{query}");
        }
    }
}
