//! `POST /api/v1/links/batch`: many creates at once, each with a result of its own.

use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::{self, Either};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::auth::Creator;
use super::body::{Json, MANY};
use super::create::{self, now};
use super::idempotency::{IdempotencyKey, ItemKey};
use super::place::{Placed, place};
use super::{Api, Code, Problem, auth, body, charge, idempotency, problem};
use crate::lanes::Lane;
use crate::limits::Subject;

/// Links of one batch.
const MAX_LINKS: usize = 1_000;

/// Creates of one batch that are under way at once: enough to fill the calls to
/// every shard, and a bound on what one client can take.
const AT_ONCE: usize = 512;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = NewLinks)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// At most 1000, of which each fails or succeeds by itself.
    #[schema(value_type = Vec<create::Request>, max_items = 1000)]
    links: Vec<Box<RawValue>>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = NewLinksResults)]
struct Answer {
    /// In the order of the links.
    results: Vec<Outcome>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = NewLinkResult)]
#[serde(untagged)]
enum Outcome {
    #[serde(rename_all = "camelCase")]
    Placed {
        status: u16,
        slug: String,
        short_url: String,
    },
    Failed {
        status: u16,
        error: Problem,
    },
}

problem::problems!(Problems: auth::PROBLEMS, body::PROBLEMS, &[Code::BatchTooLarge,
    Code::IdempotencyKeyInvalid]);

/// Create many links.
///
/// The body has at most 1 MiB.
#[utoipa::path(
    post,
    path = "/api/v1/links/batch",
    operation_id = "createLinks",
    tag = "links",
    params(idempotency::Header),
    request_body = Request,
    responses(
        (status = 200, description = "What became of each link.", body = Answer), Problems),
    security((), ("bearer" = ["links:write"])),
)]
pub(super) async fn create_batch(
    State(api): State<Api>,
    Creator(tenant): Creator,
    key: IdempotencyKey,
    Extension(subject): Extension<Subject>,
    Json(request): Json<Request, MANY>,
) -> Result<Response, Problem> {
    if request.links.len() > MAX_LINKS {
        return Err(Problem::new(
            Code::BatchTooLarge,
            format!("A batch has at most {MAX_LINKS} links."),
        ));
    }
    let _place = api.enter(Lane::Batches)?;
    let granted = charge::batch(&api, &subject, request.links.len()).await;
    let limited = granted.exceeded.map(Problem::rate_limited);
    let results = stream::iter(request.links.into_iter().enumerate())
        .map(|(index, link)| match &limited {
            Some(problem) if index >= granted.count as usize => {
                Either::Left(future::ready(Outcome::from(problem.clone())))
            }
            _ => Either::Right(one(&api, link, tenant.clone(), key.item(index))),
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    Ok(axum::Json(Answer { results }).into_response())
}

impl From<Problem> for Outcome {
    fn from(error: Problem) -> Self {
        Self::Failed {
            status: error.status().as_u16(),
            error,
        }
    }
}

async fn one(api: &Api, link: Box<RawValue>, tenant: String, key: Option<ItemKey<'_>>) -> Outcome {
    match try_one(api, link, tenant, key).await {
        Ok(placed) => Outcome::Placed {
            status: placed.status().as_u16(),
            slug: placed.link.key.slug.to_string(),
            short_url: api.short_url(&placed.link.key.slug),
        },
        Err(error) => error.into(),
    }
}

async fn try_one(
    api: &Api,
    link: Box<RawValue>,
    tenant: String,
    key: Option<ItemKey<'_>>,
) -> Result<Placed, Problem> {
    // Out of its text: a value in between would have swallowed what is repeated.
    let request: create::Request = serde_json::from_str(link.get())
        .map_err(|error| Problem::new(Code::BodyInvalid, format!("The link: {error}.")))?;
    let now = now();
    place(
        api,
        request.check(tenant, now, api.0.rules.default_ttl)?,
        key,
        now,
    )
    .await
}
