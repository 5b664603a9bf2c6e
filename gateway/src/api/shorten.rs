//! `POST /shorten`: one URL in, one short URL out.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use waypost_domain::LongUrl;

use super::auth::Creator;
use super::body::Json;
use super::create::{self, Wanted};
use super::{Api, Problem, auth, body, problem};

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
    create::OF_MINTED, problem::OF_SHARDS);

/// Shorten a URL.
///
/// The quick way to a link; `POST /api/v1/links` knows more.
#[utoipa::path(
    post,
    path = "/shorten",
    operation_id = "shorten",
    tag = "links",
    request_body = Request,
    responses((status = 201, description = "The new link.", body = Answer), Problems),
    security((), ("bearer" = ["links:write"])),
)]
pub(super) async fn shorten(
    State(api): State<Api>,
    Creator(tenant): Creator,
    Json(request): Json<Request>,
) -> Result<Response, Problem> {
    let wanted = Wanted::plain(LongUrl::parse(&request.url)?, tenant);
    let link = create::place(&api, wanted).await?;
    let answer = Answer {
        slug: link.key.slug.to_string(),
        short_url: api.short_url(&link.key.slug),
    };
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}
