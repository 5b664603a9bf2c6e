//! `GET /`: a form that shortens. One page, nothing loaded from elsewhere.

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

const PAGE: &str = include_str!("home.html");

/// Scripts and styles of the page itself alone, requests to this server alone.
const POLICY: &str = "default-src 'none'; script-src 'sha256-UejLkiSK5Mvhrv85WSiVb/Bva/4bl1PK6c1k4aziJ6I='; style-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) async fn page() -> Response {
    let mut response = Html(PAGE).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    response
}

/// Browsers ask for it; there is none.
pub(super) async fn no_icon() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Short links are for people, not for indexes.
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
