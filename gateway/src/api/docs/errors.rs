//! `GET /docs/errors`: every code of a problem document, to be linked to.

use std::fmt::Write as _;

use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};

use super::super::Code;

const STYLE: &str = ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;\
    max-width:60rem;padding:0 1rem}table{border-collapse:collapse}td,th{border-top:1px solid #8886;\
    padding:.5rem;text-align:left;vertical-align:top}td:nth-child(2){overflow-wrap:anywhere}\
    tr:target{background:#ffd70033}";

/// What each error code means, and what to do.
#[utoipa::path(
    get,
    path = "/docs/errors",
    operation_id = "showErrors",
    tag = "pages",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(in super::super) async fn page() -> Response {
    let mut response = Html(html()).into_response();
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_str(&policy).expect("base64 is visible ASCII"),
    );
    response
}

fn html() -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>Waypost: error codes</title>\
         <style>{STYLE}</style></head><body><h1>Error codes</h1>\
         <p>What the <a href=\"/docs\">API</a> refuses with: the <code>code</code> of its problem \
         documents.</p><table><tr><th>Status<th>Code<th>Meaning<th>What to do"
    );
    for code in Code::ALL {
        let (status, name) = (code.status().as_u16(), code.name());
        let (meaning, remedy) = (marked(code.meaning()), marked(code.remedy()));
        write!(
            html,
            "<tr id=\"{name}\"><td>{status}<td><code>{name}</code><td>{meaning}<td>{remedy}"
        )
        .expect("a text takes text");
    }
    html + "</table></body></html>\n"
}

/// Markdown's `code` as HTML, everything else as it stands.
fn marked(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let mut html = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            html.extend(["<code>", part, "</code>"]);
        } else {
            html.push_str(part);
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_marked_and_the_rest_is_text() {
        let html = marked("Send `Authorization: Bearer <token>` & wait.");
        let expected = "Send <code>Authorization: Bearer &lt;token></code> &amp; wait.";
        assert_eq!(html, expected);
    }

    #[test]
    fn each_code_has_an_anchor() {
        let html = html();
        for code in Code::ALL {
            assert!(html.contains(&format!("id=\"{}\"", code.name())));
        }
    }
}
