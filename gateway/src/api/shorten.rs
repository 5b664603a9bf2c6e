//! `POST /shorten`: one URL in, one short URL out.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use waypost_domain::LongUrl;

use super::auth::Creator;
use super::body::Json;
use super::create::{self, Wanted};
use super::{Api, Problem};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    url: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    slug: String,
    short_url: String,
}

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
