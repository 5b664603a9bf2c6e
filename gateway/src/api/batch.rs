//! `POST /api/v1/links/batch`: many creates at once, each with a result of its own.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::Creator;
use super::body::{Json, MANY};
use super::create::{self, now, place};
use super::{Api, Code, Problem};

/// Links of one batch.
const MAX_LINKS: usize = 1_000;

/// Creates of one batch that are under way at once: enough to fill the calls to
/// every shard, and a bound on what one client can take.
const AT_ONCE: usize = 512;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    links: Vec<Value>,
}

#[derive(Debug, Serialize)]
struct Answer {
    results: Vec<Outcome>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    #[serde(rename_all = "camelCase")]
    Created {
        status: u16,
        slug: String,
        short_url: String,
    },
    Failed {
        status: u16,
        error: Problem,
    },
}

pub(super) async fn create_batch(
    State(api): State<Api>,
    Creator(tenant): Creator,
    Json(request): Json<Request, MANY>,
) -> Result<Response, Problem> {
    if request.links.len() > MAX_LINKS {
        return Err(Problem::new(
            Code::BatchTooLarge,
            format!("A batch has at most {MAX_LINKS} links."),
        ));
    }
    let results = stream::iter(request.links)
        .map(|link| one(&api, link, tenant.clone()))
        .buffered(AT_ONCE)
        .collect()
        .await;
    Ok(axum::Json(Answer { results }).into_response())
}

async fn one(api: &Api, link: Value, tenant: String) -> Outcome {
    match try_one(api, link, tenant).await {
        Ok(link) => Outcome::Created {
            status: 201,
            slug: link.key.slug.to_string(),
            short_url: api.short_url(&link.key.slug),
        },
        Err(error) => Outcome::Failed {
            status: error.status().as_u16(),
            error,
        },
    }
}

async fn try_one(api: &Api, link: Value, tenant: String) -> Result<waypost_domain::Link, Problem> {
    let request: create::Request = serde_json::from_value(link)
        .map_err(|error| Problem::new(Code::BodyInvalid, format!("The link: {error}.")))?;
    place(api, request.check(tenant, now())?).await
}
