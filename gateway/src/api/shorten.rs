//! `POST /shorten`: one URL in, one short URL out.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use waypost_domain::{LongUrl, RedirectStatus};

use super::auth::Creator;
use super::body::Json;
use super::create::{self, default_end, now};
use super::idempotency::IdempotencyKey;
use super::place::{Wanted, place};
use super::{Api, Problem, auth, body, idempotency, problem};
use crate::lanes::Lane;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = Shorten)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// Where the link is to lead: an absolute http or https URL.
    #[schema(
        format = "uri",
        max_length = 8192,
        example = "https://example.com/a/long/path"
    )]
    url: String,
}

/// A link by its name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ShortLink)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[schema(example = "kX3mPq7Z")]
    slug: String,
    #[schema(format = "uri", example = "https://waypost.example/kX3mPq7Z")]
    short_url: String,
}

problem::problems!(Problems: auth::PROBLEMS, body::PROBLEMS, problem::OF_URLS,
    create::OF_MINTED, idempotency::PROBLEMS, problem::OF_SHARDS);

/// Shorten a URL.
///
/// The quick way to a link; `POST /api/v1/links` knows more.
#[utoipa::path(
    post,
    path = "/shorten",
    operation_id = "shorten",
    tag = "links",
    params(idempotency::Header),
    request_body = Request,
    responses(
        (status = 201, description = "The new link.", body = Answer),
        (status = 200, description = "The link that this key has made already.", body = Answer),
        Problems,
    ),
    security((), ("bearer" = ["links:write"])),
)]
pub(super) async fn shorten(
    State(api): State<Api>,
    Creator(tenant): Creator,
    key: IdempotencyKey,
    Json(request): Json<Request>,
) -> Result<Response, Problem> {
    let _place = api.enter(Lane::Single)?;
    let wanted = Wanted {
        tenant,
        long_url: LongUrl::parse(&request.url)?,
        alias: None,
        redirect_status: RedirectStatus::Found,
        valid_since: None,
        end: default_end(api.0.rules.default_ttl),
        title: None,
        tags: Vec::new(),
        max_visits: None,
        forward_query: false,
        password: None,
        find_if_exists: false,
    };
    let placed = place(&api, wanted, key.alone(), now()).await?;
    let slug = &placed.link.key.slug;
    let answer = Answer {
        slug: slug.to_string(),
        short_url: api.short_url(slug),
    };
    Ok((placed.status(), axum::Json(answer)).into_response())
}
