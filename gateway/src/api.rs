//! The API: everything on the public port but the slugs themselves.

pub mod auth;
mod batch;
mod body;
mod charge;
mod cors;
mod create;
mod docs;
mod document;
mod etag;
mod home;
mod idempotency;
mod link;
mod list;
mod named;
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
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::Method;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_domain::source::SourceKey;
use waypost_proto::transport::Transport;

pub use auth::Auth;
pub use cors::Origin;
pub use problem::{Code, Problem, table as table_of_codes};

use self::document::Tagged;
use crate::keys::Keys;
use crate::lanes::{Lane, Lanes, Place};
use crate::limits::Limits;
use crate::lookup::Lookup;
use crate::pages;
use crate::protection::Protection;
use crate::redirect::Redirects;
use crate::trace;

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
    limits: Limits,
    lanes: Lanes,
    cors: cors::Allowed,
    rules: Rules,
}

/// What the operator has set for all links.
#[derive(Debug)]
pub struct Rules {
    /// What short URLs begin with, without a slash at the end.
    pub base_url: String,
    pub protection: Protection,
    /// Of links whose create says nothing of their end; `None`: they never end.
    pub default_ttl: Option<Duration>,
}

/// What the operator bounds: how much the API is asked, and by whom.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) limits: Limits,
    pub(crate) lanes: Lanes,
    pub(crate) cors_origins: Vec<Origin>,
}

impl Api {
    pub(crate) fn new(
        redirects: Redirects,
        keys: Keys,
        auth: Auth,
        analytics: Vec<Transport>,
        sources: SourceKey,
        bounds: Bounds,
        rules: Rules,
    ) -> Self {
        Self(Arc::new(Inner {
            redirects,
            keys,
            auth,
            analytics,
            sources,
            limits: bounds.limits,
            lanes: bounds.lanes,
            cors: cors::Allowed::new(bounds.cors_origins),
            rules,
        }))
    }

    /// All routes. What matches none is a 404 of the API.
    pub fn router(self) -> Router {
        let (router, openapi) = routes().split_for_parts();
        router
            .fallback(problem::no_such_route)
            .method_not_allowed_fallback(problem::method_not_allowed)
            .layer(Extension(document(openapi)))
            .layer(middleware::from_fn_with_state(
                self.clone(),
                auth::refuse_tokens_in_queries,
            ))
            .layer(middleware::from_fn_with_state(
                self.0.cors.clone(),
                cors::cors,
            ))
            .layer(middleware::map_response(async |response| guarded(response)))
            .layer(middleware::from_fn_with_state(self.clone(), measure))
            .with_state(self)
    }

    pub(crate) fn lookup(&self) -> &Lookup {
        &self.0.redirects.lookup
    }

    /// A place in a lane, to be held until the answer is there; 503 if it is full.
    fn enter(&self, lane: Lane) -> Result<Place, Problem> {
        self.0.lanes.enter(lane)
    }

    fn short_url(&self, slug: &waypost_domain::Slug) -> String {
        format!("{}/{slug}", self.0.rules.base_url)
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
        .routes(routes!(list::list, create::create))
        .routes(routes!(batch::create_batch))
        .routes(routes!(link::show, link::edit, link::delete))
        .routes(routes!(switch::disable))
        .routes(routes!(switch::enable))
        .routes(routes!(takedown::take_down, takedown::lift))
        .routes(routes!(qr::qr))
        .routes(routes!(stats::link::stats))
        .routes(routes!(stats::tenant::stats))
        .routes(routes!(stats::page::page))
        // Slugs are read elsewhere: what comes here is none, or is not read.
        .route("/{slug}", get(preview::preview).post(unlock::unlock))
}

/// The document as it is sent.
fn document(mut openapi: OpenApi) -> Tagged {
    document::complete(&mut openapi);
    let json = openapi.to_json().expect("texts and numbers are JSON");
    Tagged::of(json)
}

/// What is answered when the work on a request has panicked.
pub(crate) fn broken() -> Response {
    let problem = Problem::new(
        Code::Internal,
        "The request could not be carried out. The operator finds the reason in the log.",
    );
    guarded(problem.into_response())
}

fn guarded(mut response: Response) -> Response {
    pages::guard(response.headers_mut());
    response
}

async fn measure(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let matched = request.extensions().get::<MatchedPath>();
    let matched = matched.map(MatchedPath::as_str);
    if let Some(matched) = matched {
        trace::routed(request.method(), matched);
    }
    let route = match matched {
        Some("/shorten") => "shorten",
        Some("/api/v1/links") if request.method() == Method::POST => "create",
        Some("/api/v1/links") => "list",
        Some("/api/v1/links/batch") => "batch",
        Some("/api/v1/links/{slug}") => "link",
        Some("/api/v1/links/{slug}/disable" | "/api/v1/links/{slug}/enable") => "switch",
        Some("/api/v1/links/{slug}/takedown") => "takedown",
        Some("/api/v1/links/{slug}/qr") => "qr",
        Some("/api/v1/links/{slug}/stats") => "stats",
        Some("/api/v1/stats") => "tenant_stats",
        Some("/stats/{slug}") => "stats_page",
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
