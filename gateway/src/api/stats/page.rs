//! `GET /stats/{slug}`: a link's statistics, drawn for people.
//!
//! The page is the same for all links and says of none whether it is there: its script
//! asks the API for the numbers, without a token or with one that the visitor types in.

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, header};
use waypost_domain::SlugRef;

use super::super::link::InPath;
use super::super::named::Page;
use super::super::{Code, Problem, problem};
use crate::pages::{page, policy};

const PAGE: &str = page!(
    style include_str!("page/style.css");
    "Statistics",
    include_str!("page/body.html"),
    "<script>",
    include_str!("page/script.js"),
    "</script>"
);

/// Scripts and styles of the page itself alone, requests to this server alone.
const POLICY: &str = policy!(
    style "'sha256-eJX3OAIYbL7QrQSSxqeC9nRm0UxmwUvG8ZLoM5bL45k='";
    "; script-src 'sha256-l5whSp6Rzh3oWqaXPMtKKbGrTM69TZZnoVdqhY9SK3s='"
    "; connect-src 'self'; form-action 'self'"
);

problem::problems!(Problems: &[Code::RouteNotFound]);

/// See a link's statistics.
///
/// A page, whose script reads them from `/api/v1/links/{slug}/stats`.
#[utoipa::path(
    get,
    path = "/stats/{slug}",
    operation_id = "showStatsPage",
    tag = "pages",
    params(InPath),
    responses(
        (status = 200, description = "The page, whether or not there is such a link.",
            body = String, content_type = "text/html"),
        Problems,
    ),
)]
pub(in super::super) async fn page(Page(slug): Page) -> Result<Response, Problem> {
    if SlugRef::parse(&slug).is_err() {
        return Err(problem::no_such_route().await);
    }
    let mut response = Html(PAGE).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    Ok(response)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// A browser applies and runs only what the policy names by its hash.
    #[test]
    fn the_policy_names_the_script_and_the_styles_of_the_page() {
        for (begin, end) in [("<style>", "</style>"), ("<script>", "</script>")] {
            let parts: Vec<&str> = PAGE.split(begin).skip(1).collect();
            assert!(!parts.is_empty());
            for part in parts {
                let (text, _) = part.split_once(end).unwrap();
                let hash = STANDARD.encode(Sha256::digest(text));
                assert!(
                    POLICY.contains(&format!("'sha256-{hash}'")),
                    "{begin} {hash}"
                );
            }
        }
    }
}
