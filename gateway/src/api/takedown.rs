//! `POST` and `DELETE /api/v1/links/{slug}/takedown`: a link taken down by the operator,
//! whoever's it is, and the end of that. They wait in no lane: they are few, and matter
//! most when others ask too much.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use waypost_domain::State as LinkState;

use super::auth::Operator;
use super::link::{InPath, Shown, answer};
use super::named::Named;
use super::switch::change;
use super::{Api, Code, Problem, auth, problem};
use crate::shards::{By, Resolved, Written};

/// Times that a takedown is lifted anew when the link changes between the look and the
/// change: its owner cannot change it, so that it hardly ever does.
const LIFT_TRIES: usize = 3;

problem::problems!(Problems: auth::PROBLEMS, &[Code::LinkNotFound, Code::LinkGone,
    Code::VersionMismatch], problem::OF_SHARDS);

/// Take a link down, whoever's it is.
///
/// Its visitors get 451, and its owner can change nothing about it. One that its owner
/// has deleted can be taken down as well, so that it is not made again.
#[utoipa::path(
    post,
    path = "/api/v1/links/{slug}/takedown",
    operation_id = "takeLinkDown",
    tag = "links",
    params(InPath),
    responses(
        (status = 200, description = "The link as it is now.", body = Shown, headers(
            ("ETag" = String, description = "The link's version."))),
        Problems,
    ),
    security(("bearer" = ["links:takedown"])),
)]
pub(super) async fn take_down(
    State(api): State<Api>,
    Operator(operator): Operator,
    Named(key): Named,
) -> Result<Response, Problem> {
    let taken = change(&api, &key, By::Operator, None, LinkState::Blocked).await?;
    if let Written::Written(link) = &taken {
        tracing::info!(slug = %key.slug, tenant = link.tenant, operator, "link taken down");
    }
    answer(&api, taken)
}

/// Lift a takedown.
///
/// The link is again what it was before: one that its owner had disabled stays off, and
/// one that was deleted is gone (410). A link that is not taken down stays as it is.
#[utoipa::path(
    delete,
    path = "/api/v1/links/{slug}/takedown",
    operation_id = "liftTakedown",
    tag = "links",
    params(InPath),
    responses(
        (status = 200, description = "The link as it is now.", body = Shown, headers(
            ("ETag" = String, description = "The link's version."))),
        Problems,
    ),
    security(("bearer" = ["links:takedown"])),
)]
pub(super) async fn lift(
    State(api): State<Api>,
    Operator(operator): Operator,
    Named(key): Named,
) -> Result<Response, Problem> {
    let key = Arc::new(key);
    let Resolved::Found(mut link, _) = api.lookup().shards.resolve(&key).await? else {
        return Err(Problem::no_such_link());
    };
    for _ in 0..LIFT_TRIES {
        match link.state {
            LinkState::Blocked => {}
            LinkState::Deleted => return Err(Problem::gone()),
            LinkState::Active | LinkState::Disabled => {
                return answer(&api, Written::Written(link));
            }
        }
        let if_version = Some(link.version.get());
        match change(&api, &key, By::Operator, if_version, LinkState::Active).await? {
            Written::VersionMismatch(newer) => link = newer,
            Written::Written(lifted) => {
                tracing::info!(slug = %key.slug, tenant = lifted.tenant, operator, "takedown lifted");
                if lifted.state == LinkState::Deleted {
                    return Err(Problem::gone());
                }
                return answer(&api, Written::Written(lifted));
            }
            other => return answer(&api, other),
        }
    }
    Err(Problem::version_mismatch())
}
