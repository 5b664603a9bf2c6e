//! `GET /docs`: the API's document as a page on which it can be tried out.
//!
//! Swagger UI and all that it loads is in the binary.

pub(super) mod errors;

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, header};

use super::document::Tagged;
use super::named::Page;
use super::{Code, Problem};

const PAGE: &str = include_str!("docs/page.html");

/// Styles are set on elements by Swagger UI, and its pictures are in its sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page loads: the name, the type, the bytes, and whether they are in gzip's
/// frame.
const FILES: [(&str, &str, &[u8], bool); 3] = [
    ("start.js", SCRIPT, include_bytes!("docs/start.js"), false),
    (
        "swagger-ui-bundle.js",
        SCRIPT,
        include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz")),
        true,
    ),
    (
        "swagger-ui.css",
        "text/css; charset=utf-8",
        include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz")),
        true,
    ),
];

/// This documentation, to read and to try out.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "showDocs",
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

super::problem::problems!(Problems: &[Code::RouteNotFound]);

/// What the documentation's page loads.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "showDocsFile",
    tag = "pages",
    params(("file" = String, Path, description = "The file's name.", example = "start.js")),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/javascript"), (String = "text/css"))),
        (status = 304, description = "It is what `If-None-Match` names."),
        Problems,
    ),
)]
pub(super) async fn file(Page(name): Page, headers: HeaderMap) -> Result<Response, Problem> {
    let Some((_, kind, bytes, is_compressed)) = FILES.iter().find(|file| file.0 == name) else {
        return Err(super::problem::no_such_route().await);
    };
    let mut response = Tagged::of(*bytes).answer(&headers, kind);
    // A client that names no coding takes any (RFC 9110, 12.5.3), and no browser
    // goes without this one.
    if *is_compressed {
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
