//! The API: everything on the public port but the slugs themselves.

mod auth;
mod batch;
mod body;
mod create;
mod docs;
mod document;
mod etag;
mod home;
mod idempotency;
mod link;
mod place;
mod preview;
mod problem;
mod qr;
mod shorten;
mod stats;
mod switch;
mod takedown;
mod unlock;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::Method;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_domain::source::SourceKey;
use waypost_proto::transport::Transport;

pub use auth::Auth;
pub use problem::{Code, Problem, table as table_of_codes};

use self::document::Tagged;
use crate::keys::Keys;
use crate::lookup::Lookup;
use crate::pages;
use crate::redirect::Redirects;

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redirects: Redirects,
    keys: Keys,
    auth: Auth,
    analytics: Vec<Transport>,
    /// What repeated creates are recognised by.
    sources: SourceKey,
    /// Without a slash at the end.
    base_url: String,
    /// Of links whose create says nothing of their end.
    default_ttl: Option<Duration>,
}

impl Api {
    #[must_use]
    pub fn new(
        redirects: Redirects,
        keys: Keys,
        auth: Auth,
        analytics: Vec<Transport>,
        sources: SourceKey,
        base_url: &str,
        default_ttl: Option<Duration>,
    ) -> Self {
        Self(Arc::new(Inner {
            redirects,
            keys,
            auth,
            analytics,
            sources,
            default_ttl,
            base_url: base_url.trim_end_matches('/').to_owned(),
        }))
    }

    /// All routes. What matches none is a 404 of the API.
    pub fn router(self) -> Router {
        let (router, openapi) = routes().split_for_parts();
        router
            .fallback(problem::no_such_route)
            .method_not_allowed_fallback(problem::method_not_allowed)
            .layer(Extension(document(openapi)))
            .layer(middleware::map_response(guard))
            .layer(middleware::from_fn_with_state(self.clone(), measure))
            .with_state(self)
    }

    pub(crate) fn lookup(&self) -> &Lookup {
        &self.0.redirects.lookup
    }

    fn short_url(&self, slug: &waypost_domain::Slug) -> String {
        format!("{}/{slug}", self.0.base_url)
    }
}

/// Each route, and with it what the document says of it.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(home::page))
        .routes(routes!(home::no_icon))
        .routes(routes!(home::robots))
        .routes(routes!(docs::page))
        .routes(routes!(docs::errors::page))
        .routes(routes!(docs::file))
        .routes(routes!(document::show))
        .routes(routes!(shorten::shorten))
        .routes(routes!(create::create))
        .routes(routes!(batch::create_batch))
        .routes(routes!(link::show, link::edit, link::delete))
        .routes(routes!(switch::disable))
        .routes(routes!(switch::enable))
        .routes(routes!(takedown::take_down, takedown::lift))
        .routes(routes!(qr::qr))
        .routes(routes!(stats::stats))
        // Slugs are read elsewhere: what comes here is none, or is not read.
        .route("/{slug}", get(preview::preview).post(unlock::unlock))
}

/// The document as it is sent.
fn document(mut openapi: OpenApi) -> Tagged {
    document::complete(&mut openapi);
    let json = openapi.to_json().expect("texts and numbers are JSON");
    Tagged::of(json)
}

async fn guard(mut response: Response) -> Response {
    pages::guard(response.headers_mut());
    response
}

async fn measure(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = match request
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str)
    {
        Some("/shorten") => "shorten",
        Some("/api/v1/links") => "create",
        Some("/api/v1/links/batch") => "batch",
        Some("/api/v1/links/{slug}") => "link",
        Some("/api/v1/links/{slug}/disable" | "/api/v1/links/{slug}/enable") => "switch",
        Some("/api/v1/links/{slug}/takedown") => "takedown",
        Some("/api/v1/links/{slug}/qr") => "qr",
        Some("/api/v1/links/{slug}/stats") => "stats",
        Some("/{slug}") if request.method() == Method::POST => "unlock",
        Some("/{slug}") => "preview",
        _ => "other",
    };
    let response = next.run(request).await;
    api.lookup()
        .metrics
        .request(route, response.status(), started);
    response
}
