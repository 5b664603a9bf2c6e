//! `GET /`: a form that shortens. One page, nothing loaded from elsewhere.

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

const PAGE: &str = include_str!("home.html");

/// Scripts and styles of the page itself alone, requests to this server alone.
const POLICY: &str = "default-src 'none'; script-src 'sha256-UejLkiSK5Mvhrv85WSiVb/Bva/4bl1PK6c1k4aziJ6I='; style-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A form that shortens.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "showHome",
    tag = "pages",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(super) async fn page() -> Response {
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
