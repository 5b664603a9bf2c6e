//! `POST /api/v1/links/{slug}/disable` and `/enable`: a link switched off and on again
//! by its owner.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use waypost_domain::{LinkKey, Patch, State as LinkState};

use super::auth::Editor;
use super::link::{IfMatch, InPath, Shown, WriteProblems, answer, if_match, update};
use super::named::Named;
use super::{Api, Problem};
use crate::lanes::Lane;
use crate::shards::{By, Written};

/// Switch a link off.
///
/// Its visitors get 404 until it is switched on again. It may be off already.
#[utoipa::path(
    post,
    path = "/api/v1/links/{slug}/disable",
    operation_id = "disableLink",
    tag = "links",
    params(InPath, IfMatch),
    responses(
        (status = 200, description = "The link as it is now.", body = Shown, headers(
            ("ETag" = String, description = "The link's version, for `If-Match`."))),
        WriteProblems,
    ),
    security(("bearer" = ["links:write"])),
)]
pub(super) async fn disable(
    State(api): State<Api>,
    Editor(tenant): Editor,
    Named(key): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    switch(&api, &tenant, &key, &headers, LinkState::Disabled).await
}

/// Switch a link on again.
///
/// It may be on already.
#[utoipa::path(
    post,
    path = "/api/v1/links/{slug}/enable",
    operation_id = "enableLink",
    tag = "links",
    params(InPath, IfMatch),
    responses(
        (status = 200, description = "The link as it is now.", body = Shown, headers(
            ("ETag" = String, description = "The link's version, for `If-Match`."))),
        WriteProblems,
    ),
    security(("bearer" = ["links:write"])),
)]
pub(super) async fn enable(
    State(api): State<Api>,
    Editor(tenant): Editor,
    Named(key): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    switch(&api, &tenant, &key, &headers, LinkState::Active).await
}

async fn switch(
    api: &Api,
    tenant: &str,
    key: &LinkKey,
    headers: &HeaderMap,
    to: LinkState,
) -> Result<Response, Problem> {
    let _place = api.enter(Lane::Single)?;
    let if_version = if_match(headers)?;
    answer(
        api,
        change(api, key, By::Tenant(tenant), if_version, to).await?,
    )
}

/// Changes nothing but the state.
pub(super) async fn change(
    api: &Api,
    key: &LinkKey,
    by: By<'_>,
    if_version: Option<u64>,
    to: LinkState,
) -> Result<Written, Problem> {
    let patch = Patch {
        state: Some(to),
        ..Patch::default()
    };
    update(api, key, by, if_version, &patch).await
}
