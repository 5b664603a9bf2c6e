//! `GET`, `PATCH` and `DELETE /api/v1/links/{slug}`: one link, its owner's view.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{Array, Object, ObjectBuilder, SchemaType, Type};
use waypost_domain::{Change, Link, LinkKey, LongUrl, Patch, State as LinkState, Timestamp};

use super::auth::{Editor, Reader};
use super::body::{Json, whole};
use super::create::{
    check_max_visits, check_password, check_tags, check_title, check_validity, hash, never_valid,
    now, redirect_status, redirect_status_schema, tags_schema, timestamp,
};
use super::etag::{IfNoneMatch, is_known};
use super::named::Named;
use super::{Api, Code, Problem, auth, body, problem};
use crate::lanes::Lane;
use crate::protection::Bar;
use crate::shards::{By, Resolved, Written};

/// A link as the API shows it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Link)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    #[schema(example = "kX3mPq7Z")]
    slug: String,
    #[schema(format = "uri", example = "https://waypost.example/kX3mPq7Z")]
    short_url: String,
    /// In the form of the WHATWG URL standard.
    #[schema(format = "uri", example = "https://example.com/a/long/path")]
    long_url: String,
    /// How visitors are sent on.
    #[schema(minimum = 301, maximum = 308, example = 302)]
    redirect_status: u16,
    #[schema(schema_with = state_schema)]
    state: &'static str,
    /// Why visitors are answered 451: `operator`, who took the link down, `blocklist`,
    /// which has its destination, or `ownDomain`, where the link would lead back to.
    #[schema(required, value_type = Option<String>, example = json!(null))]
    blocked_by: Option<&'static str>,
    /// Grows with every change, and is what `ETag` names.
    #[schema(example = 4294967297_u64)]
    version: u64,
    #[schema(format = DateTime, example = "2026-11-22T10:00:00.000Z")]
    created_at: String,
    #[schema(format = DateTime, example = "2026-11-22T10:00:00.000Z")]
    updated_at: String,
    #[schema(required, format = DateTime, example = json!(null))]
    valid_since: Option<String>,
    #[schema(required, format = DateTime, example = "2099-12-31T23:59:59.000Z")]
    valid_until: Option<String>,
    /// How often the link may be followed; `null`: there is no limit.
    #[schema(required, example = json!(null))]
    max_visits: Option<u64>,
    #[schema(required, example = "Spring sale")]
    title: Option<String>,
    #[schema(example = json!(["sale"]))]
    tags: Vec<String>,
    forward_query: bool,
    /// Of the password itself nothing is ever shown.
    has_password: bool,
}

/// The schema of the states that a link is shown in.
fn state_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["active", "disabled", "blocked"]))
        .build()
}

/// The link that a path names.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(super) struct InPath {
    /// The link's slug.
    #[param(
        min_length = 3,
        max_length = 64,
        example = "spring-sale",
        pattern = "^[0-9A-Za-z]{2}[0-9A-Za-z_-]{1,62}$"
    )]
    slug: String,
}

/// What keeps an edit from undoing somebody else's.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(super) struct IfMatch {
    /// The `ETag` of the version that is to be changed; without it, whichever is there.
    #[param(rename = "If-Match", example = "*")]
    if_match: Option<String>,
}

/// The schema of tags in an edit, where `null` clears them.
fn tags_or_none_schema() -> Array {
    let mut schema = tags_schema();
    schema.schema_type = SchemaType::from_iter([Type::Array, Type::Null]);
    schema
}

problem::problems!(ShowProblems: auth::PROBLEMS, &[Code::LinkNotFound, Code::LinkGone],
    problem::OF_SHARDS);
problem::problems!(pub(super) WriteProblems: auth::PROBLEMS, &[Code::LinkNotFound, Code::LinkGone,
    Code::LinkBlocked, Code::VersionMismatch], problem::OF_SHARDS);
problem::problems!(EditProblems: auth::PROBLEMS, body::PROBLEMS, problem::OF_URLS, &[
    Code::LinkNotFound, Code::LinkGone, Code::LinkBlocked, Code::VersionMismatch,
    Code::RedirectStatusInvalid, Code::TimeInvalid, Code::ValidityInvalid,
    Code::TitleTooLong, Code::TitleInvalid, Code::TagsInvalid,
    Code::MaxVisitsInvalid, Code::PasswordInvalid], problem::OF_SHARDS);

impl Shown {
    pub(super) fn new(api: &Api, link: &Link) -> Self {
        let text = |at: Timestamp| at.to_string();
        Self {
            slug: link.key.slug.to_string(),
            short_url: api.short_url(&link.key.slug),
            long_url: link.long_url.to_string(),
            redirect_status: link.redirect_status.code(),
            state: link.state.name(),
            blocked_by: blocked_by(api, link),
            version: link.version.get(),
            created_at: text(link.created_at),
            updated_at: text(link.updated_at),
            valid_since: link.valid_since.map(text),
            valid_until: link.valid_until.map(text),
            max_visits: link.max_visits,
            title: link.title.clone(),
            tags: link.tags.clone(),
            forward_query: link.forward_query,
            has_password: link.password_hash.is_some(),
        }
    }

    /// Without what its owner has written for himself alone.
    pub(super) fn without_notes(self) -> Self {
        Self {
            title: None,
            tags: Vec::new(),
            ..self
        }
    }

    pub(super) fn etag(&self) -> HeaderValue {
        HeaderValue::from_str(&format!("\"{}\"", self.version)).expect("a number is visible ASCII")
    }

    fn into_response(self) -> Response {
        let etag = self.etag();
        let mut response = axum::Json(self).into_response();
        response.headers_mut().insert(header::ETAG, etag);
        response
    }
}

fn blocked_by(api: &Api, link: &Link) -> Option<&'static str> {
    if link.state == LinkState::Blocked {
        return Some("operator");
    }
    api.0
        .rules
        .protection
        .bar(link.long_url.as_str())
        .filter(|bar| bar.is_closed())
        .map(Bar::name)
}

/// Read a link.
#[utoipa::path(
    get,
    path = "/api/v1/links/{slug}",
    operation_id = "showLink",
    tag = "links",
    params(InPath, IfNoneMatch),
    responses(
        (status = 200, description = "The link.", body = Shown, headers(
            ("ETag" = String, description = "The link's version, for `If-Match`."))),
        (status = 304, description = "The client has this version already."),
        ShowProblems,
    ),
    security(("bearer" = ["links:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Reader(tenant): Reader,
    Named(key): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let _place = api.enter(Lane::Single)?;
    let link = own_link(&api, &tenant, key).await?;
    let shown = Shown::new(&api, &link);
    if is_known(&headers, &shown.etag()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, shown.etag())]).into_response());
    }
    Ok(shown.into_response())
}

/// The link, if it is this tenant's; else it does not exist. 410 for a tombstone.
pub(super) async fn own_link(api: &Api, tenant: &str, key: LinkKey) -> Result<Link, Problem> {
    let Resolved::Found(link, _) = api.lookup().shards.resolve(&Arc::new(key)).await? else {
        return Err(Problem::no_such_link());
    };
    if link.tenant != tenant {
        return Err(Problem::no_such_link());
    }
    if link.state == LinkState::Deleted {
        return Err(Problem::gone());
    }
    Ok(*link)
}

/// What is absent stays as it is; `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Edit {
    #[schema(
        format = "uri",
        max_length = 8192,
        example = "https://example.com/elsewhere"
    )]
    long_url: Option<String>,
    #[schema(schema_with = redirect_status_schema)]
    #[serde(default, deserialize_with = "whole")]
    redirect_status: Option<u32>,
    #[schema(value_type = Option<String>, format = DateTime, example = json!(null))]
    #[serde(default, deserialize_with = "change")]
    valid_since: Change<String>,
    #[schema(value_type = Option<String>, format = DateTime, example = "2099-12-31T23:59:59Z")]
    #[serde(default, deserialize_with = "change")]
    valid_until: Change<String>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9007199254740991_u64,
        example = json!(null))]
    #[serde(default, deserialize_with = "whole_change")]
    max_visits: Change<u64>,
    #[schema(value_type = Option<String>, max_length = 512, pattern = "^[^\\u0000]*$",
        example = "Summer sale")]
    #[serde(default, deserialize_with = "change")]
    title: Change<String>,
    #[schema(schema_with = tags_or_none_schema)]
    #[serde(default, deserialize_with = "change")]
    tags: Change<Vec<String>>,
    forward_query: Option<bool>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128,
        format = Password, example = json!(null))]
    #[serde(default, deserialize_with = "change")]
    password: Change<String>,
}

pub(super) fn change<'de, D, T>(from: D) -> Result<Change<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let value = Option::deserialize(from)?;
    Ok(value.map_or(Change::Clear, Change::Set))
}

fn whole_change<'de, D: Deserializer<'de>>(from: D) -> Result<Change<u64>, D::Error> {
    Ok(whole(from)?.map_or(Change::Clear, Change::Set))
}

fn instant(field: &str, change: Change<String>) -> Result<Change<Timestamp>, Problem> {
    Ok(match change {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(text) => Change::Set(timestamp(field, &text)?),
    })
}

impl Edit {
    /// The patch, all but the hash of a new password.
    fn check(self) -> Result<(Patch, Change<String>), Problem> {
        let valid_since = instant("validSince", self.valid_since)?;
        let valid_until = instant("validUntil", self.valid_until)?;
        let set = |change: &Change<Timestamp>| match change {
            Change::Set(at) => Some(*at),
            Change::Keep | Change::Clear => None,
        };
        check_validity(set(&valid_since), set(&valid_until), now())?;
        if let Change::Set(title) = &self.title {
            check_title(Some(title))?;
        }
        let tags = match self.tags {
            Change::Keep => None,
            Change::Clear => Some(Vec::new()),
            Change::Set(tags) => Some(tags),
        };
        check_tags(tags.as_deref().unwrap_or_default())?;
        if let Change::Set(max) = self.max_visits {
            check_max_visits(Some(max))?;
        }
        if let Change::Set(password) = &self.password {
            check_password(Some(password))?;
        }
        let patch = Patch {
            long_url: self.long_url.as_deref().map(LongUrl::parse).transpose()?,
            redirect_status: self.redirect_status.map(redirect_status).transpose()?,
            valid_since,
            valid_until,
            max_visits: self.max_visits,
            title: self.title,
            tags,
            forward_query: self.forward_query,
            ..Patch::default()
        };
        Ok((patch, self.password))
    }
}

/// Change a link.
///
/// Fields that are left out stay as they are; `null` clears one.
#[utoipa::path(
    patch,
    path = "/api/v1/links/{slug}",
    operation_id = "editLink",
    tag = "links",
    params(InPath, IfMatch),
    request_body = Edit,
    responses(
        (status = 200, description = "The link as it is now.", body = Shown, headers(
            ("ETag" = String, description = "The link's version, for `If-Match`."))),
        EditProblems,
    ),
    security(("bearer" = ["links:write"])),
)]
pub(super) async fn edit(
    State(api): State<Api>,
    Editor(tenant): Editor,
    Named(key): Named,
    headers: HeaderMap,
    Json(edit): Json<Edit>,
) -> Result<Response, Problem> {
    let _place = api.enter(Lane::Single)?;
    let if_version = if_match(&headers)?;
    let (mut patch, password) = edit.check()?;
    if let Some(long_url) = &patch.long_url {
        api.0.rules.protection.check(long_url)?;
    }
    patch.password_hash = match password {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(password) => Change::Set(hash(&api, password).await?),
    };
    let written = update(&api, &key, By::Tenant(&tenant), if_version, &patch).await?;
    answer(&api, written)
}

/// Has the shard change a link, and keeps what it then is.
pub(super) async fn update(
    api: &Api,
    key: &LinkKey,
    by: By<'_>,
    if_version: Option<u64>,
    patch: &Patch,
) -> Result<Written, Problem> {
    let (shards, stamp) = (&api.lookup().shards, api.lookup().stamp(key));
    let written = shards.update(key, by, if_version, patch).await?;
    if let Written::Written(link) = &written {
        api.lookup().learn(link, stamp).await;
    }
    Ok(written)
}

/// The link as it is now, or why it was not changed.
pub(super) fn answer(api: &Api, written: Written) -> Result<Response, Problem> {
    match written {
        Written::Written(link) => Ok(Shown::new(api, &link).into_response()),
        Written::Absent => Err(Problem::no_such_link()),
        Written::Gone => Err(Problem::gone()),
        Written::Blocked => Err(Problem::blocked()),
        Written::NeverValid => Err(never_valid()),
        Written::VersionMismatch(_) => Err(Problem::version_mismatch()),
    }
}

/// Delete a link.
///
/// Nobody else gets its slug for 90 days.
#[utoipa::path(
    delete,
    path = "/api/v1/links/{slug}",
    operation_id = "deleteLink",
    tag = "links",
    params(InPath, IfMatch),
    responses((status = 204, description = "It is gone."), WriteProblems),
    security(("bearer" = ["links:write"])),
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Editor(tenant): Editor,
    Named(key): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let _place = api.enter(Lane::Single)?;
    let if_version = if_match(&headers)?;
    let stamp = api.lookup().stamp(&key);
    let shards = &api.lookup().shards;
    let written = shards.delete(&key, &tenant, if_version).await?;
    let Written::Written(link) = &written else {
        return answer(&api, written);
    };
    api.lookup().learn(link, stamp).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The version that `If-Match` asks for; `*` and no header ask for none.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    text.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|version| version.parse().ok())
        // To the shard, 0 means whichever version is there.
        .filter(|version| *version != 0)
        .map(Some)
        // A tag that we never gave out matches nothing.
        .ok_or_else(Problem::version_mismatch)
}
