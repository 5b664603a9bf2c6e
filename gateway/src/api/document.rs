//! `GET /openapi.json`: the API as OpenAPI 3.1, made of the types that the handlers use.

mod redirects;
#[cfg(test)]
mod tests;

use axum::Extension;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, PathItem, ResponseBuilder};
use xxhash_rust::xxh3::xxh3_64;

use super::etag::is_known;
use super::problem::{self, Code};

/// What is the same for all routes; each adds itself (see [`super::routes`]).
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Waypost"),
    tags(
        (name = "links", description = "Create, read, change and delete links."),
        (name = "statistics", description = "How often links are followed."),
        (name = "visits", description = "What those meet who follow a link."),
        (name = "pages", description = "Pages for people, and this document."),
    ),
    paths(
        redirects::follow,
        redirects::ask,
        super::unlock::unlock,
        super::preview::preview,
    ),
    components(schemas(super::Problem)),
)]
struct Frame;

const ABOUT: &str = "Short links, their owners and their visitors.\n\n\
    A token goes into `Authorization: Bearer <token>`. Where the operator allows it, links are \
    created and statistics are read without one.\n\n\
    Errors are problem documents (RFC 9457) with a `code` that never changes its meaning: \
    [all codes](/docs/errors). What is no HTTP is answered by a bare 400, a head that is too large \
    by a bare 431, and in both cases the connection is closed.";

/// The document before any route has added itself.
pub(super) fn frame() -> OpenApi {
    let mut openapi = Frame::openapi();
    openapi.info.description = Some(ABOUT.to_owned());
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description = Some(
        "An API key, as `waypost keys create` makes them, or a JWT of an issuer whom the operator \
         believes. Either holds scopes, of which a route needs the one that stands with it."
            .to_owned(),
    );
    let components = openapi.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    openapi
}

/// Adds what each route may answer because of where it is, not of what it does.
pub(super) fn complete(openapi: &mut OpenApi) {
    for operation in openapi.paths.paths.values_mut().flat_map(operations) {
        let responses = &mut operation.responses.responses;
        responses.entry("431".to_owned()).or_insert_with(|| {
            ResponseBuilder::new()
                .description("The head is larger than 16 KiB or has more than 64 lines.")
                .into()
        });
        let mut everywhere = vec![Code::TargetTooLong, Code::Internal];
        if operation.security.is_some() {
            everywhere.extend([Code::RateLimited, Code::Overloaded]);
        }
        for code in everywhere {
            for (status, response) in problem::responses(&[&[code]]) {
                responses.entry(status).or_insert(response);
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        options,
        head,
        patch,
        trace,
        ..
    } = item;
    [get, put, post, delete, options, head, patch, trace]
        .into_iter()
        .filter_map(Option::as_mut)
}

/// A body that stays the same for as long as the process runs, and its tag.
#[derive(Debug, Clone)]
pub(super) struct Tagged {
    body: Bytes,
    etag: HeaderValue,
}

impl Tagged {
    pub(super) fn of(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let etag = format!("\"{:016x}\"", xxh3_64(&body));
        let etag = HeaderValue::from_str(&etag).expect("hex digits are visible ASCII");
        Self { body, etag }
    }

    /// 304 if the client has it already, else the body.
    pub(super) fn answer(&self, request: &HeaderMap, kind: &'static str) -> Response {
        let mut response = if is_known(request, &self.etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut whole = self.body.clone().into_response();
            let kind = HeaderValue::from_static(kind);
            whole.headers_mut().insert(header::CONTENT_TYPE, kind);
            whole
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        // Kept, but asked after each time: another release has another document.
        let asked_after = HeaderValue::from_static("no-cache");
        headers.insert(header::CACHE_CONTROL, asked_after);
        response
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "showDocument",
    tag = "pages",
    params(("If-None-Match" = Option<String>, Header,
        description = "The `ETag` of the document that the client has.")),
    responses(
        (status = 200, description = "The document.", body = serde_json::Value,
            content_type = "application/json",
            headers(("ETag" = String, description = "Changes with the document."))),
        (status = 304, description = "The client has it already."),
    ),
)]
pub(super) async fn show(Extension(document): Extension<Tagged>, headers: HeaderMap) -> Response {
    document.answer(&headers, "application/json")
}
