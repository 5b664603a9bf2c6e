//! The API: everything on the public port but the slugs themselves.

mod auth;
mod batch;
mod body;
mod create;
mod home;
mod link;
mod problem;
mod shorten;
mod stats;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use waypost_proto::transport::Transport;

pub use auth::Auth;
pub use problem::{Code, Problem};

use crate::keys::Keys;
use crate::lookup::Lookup;

/// A body is what its type says, whatever it looks like.
pub(crate) const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lookup: Lookup,
    keys: Keys,
    auth: Auth,
    analytics: Vec<Transport>,
    /// Without a slash at the end.
    base_url: String,
}

impl Api {
    #[must_use]
    pub fn new(
        lookup: Lookup,
        keys: Keys,
        auth: Auth,
        analytics: Vec<Transport>,
        base_url: &str,
    ) -> Self {
        Self(Arc::new(Inner {
            lookup,
            keys,
            auth,
            analytics,
            base_url: base_url.trim_end_matches('/').to_owned(),
        }))
    }

    /// All routes. What matches none is a 404 of the API.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", get(home::page))
            .route("/favicon.ico", get(home::no_icon))
            .route("/robots.txt", get(home::robots))
            .route("/shorten", post(shorten::shorten))
            .route("/api/v1/links", post(create::create))
            .route("/api/v1/links/batch", post(batch::create_batch))
            .route(
                "/api/v1/links/{slug}",
                get(link::show).patch(link::edit).delete(link::delete),
            )
            .route("/api/v1/links/{slug}/stats", get(stats::stats))
            // Slugs are read elsewhere: what comes here is none, or is not read.
            .route("/{slug}", get(problem::no_such_route))
            .fallback(problem::no_such_route)
            .method_not_allowed_fallback(problem::method_not_allowed)
            .layer(middleware::map_response(guard))
            .layer(middleware::from_fn_with_state(self.clone(), measure))
            .with_state(self)
    }

    pub(crate) fn lookup(&self) -> &Lookup {
        &self.0.lookup
    }

    fn short_url(&self, slug: &waypost_domain::Slug) -> String {
        format!("{}/{slug}", self.0.base_url)
    }
}

/// No answer is kept by a cache or taken for another type than it says.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
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
        Some("/api/v1/links/{slug}/stats") => "stats",
        _ => "other",
    };
    let response = next.run(request).await;
    api.lookup()
        .metrics
        .request(route, response.status(), started);
    response
}
