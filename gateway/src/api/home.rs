//! `GET /`: a form that shortens. One page, nothing loaded from elsewhere.

use axum::extract::State;
use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

use super::Api;
use crate::pages::{NOT_KEPT, page, policy};
use crate::redirect::sent_to;

const PAGE: &str = page!("Waypost", include_str!("home.html"));

/// Scripts and styles of the page itself alone, requests to this server alone.
const POLICY: &str = policy!(
    "; script-src 'sha256-neTGDZQYcyG2yfwS874QUjk8TqXFQ43nCxyAj3PJxNc='"
    "; connect-src 'self'; form-action 'self'"
);

/// A form that shortens.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "showHome",
    tag = "pages",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
        (status = 302, description = "Where the operator sends visitors of the page.", headers(
            ("Location" = String, description = "The place."))),
    ),
)]
pub(super) async fn page(State(api): State<Api>) -> Response {
    if let Some(place) = &api.0.redirects.elsewhere.home {
        let answer = sent_to(place.clone(), StatusCode::FOUND, NOT_KEPT);
        return answer.map(axum::body::Body::new);
    }
    let mut response = Html(PAGE).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    response
}

/// Browsers ask for it; there is none.
#[utoipa::path(
    get,
    path = "/favicon.ico",
    operation_id = "showIcon",
    tag = "pages",
    responses((status = 204, description = "There is no icon.")),
)]
pub(super) async fn no_icon() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Short links are for people, not for indexes.
#[utoipa::path(
    get,
    path = "/robots.txt",
    operation_id = "showRobots",
    tag = "pages",
    responses((status = 200, description = "What robots may read.", body = String)),
)]
pub(super) async fn robots() -> &'static str {
    "User-agent: *\nDisallow: /\n"
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// A browser runs the script only if the policy names its hash.
    #[test]
    fn the_policy_names_the_script_of_the_page() {
        let (_, rest) = PAGE.split_once("<script>").unwrap();
        let (script, _) = rest.split_once("</script>").unwrap();
        let hash = STANDARD.encode(Sha256::digest(script));
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
    }
}
