//! `GET`, `PATCH` and `DELETE /api/v1/links/{slug}`: one link, its owner's view.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use waypost_domain::{
    Change, DomainId, Link, LinkKey, LongUrl, Patch, Slug, State as LinkState, Timestamp,
};

use super::auth::{Editor, Reader};
use super::body::Json;
use super::create::{check_tags, check_title, check_validity, now, redirect_status, timestamp};
use super::{Api, Problem};
use crate::shards::{Resolved, Written};

/// A link as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    slug: String,
    short_url: String,
    long_url: String,
    redirect_status: u16,
    state: &'static str,
    version: u64,
    created_at: String,
    updated_at: String,
    valid_since: Option<String>,
    valid_until: Option<String>,
    title: Option<String>,
    tags: Vec<String>,
    forward_query: bool,
}

impl Shown {
    pub(super) fn new(api: &Api, link: &Link) -> Self {
        let text = |at: Timestamp| at.to_string();
        Self {
            slug: link.key.slug.to_string(),
            short_url: api.short_url(&link.key.slug),
            long_url: link.long_url.to_string(),
            redirect_status: link.redirect_status.code(),
            state: link.state.name(),
            version: link.version.get(),
            created_at: text(link.created_at),
            updated_at: text(link.updated_at),
            valid_since: link.valid_since.map(text),
            valid_until: link.valid_until.map(text),
            title: link.title.clone(),
            tags: link.tags.clone(),
            forward_query: link.forward_query,
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

pub(super) async fn show(
    State(api): State<Api>,
    Reader(tenant): Reader,
    Path(slug): Path<String>,
) -> Result<Response, Problem> {
    let link = own_link(&api, &tenant, &slug).await?;
    Ok(Shown::new(&api, &link).into_response())
}

/// The link, if it is this tenant's; else it does not exist. 410 for a tombstone.
pub(super) async fn own_link(api: &Api, tenant: &str, slug: &str) -> Result<Link, Problem> {
    let Resolved::Found(link, _) = api.lookup().shards.resolve(&Arc::new(key(slug)?)).await? else {
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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Edit {
    long_url: Option<String>,
    redirect_status: Option<u32>,
    #[serde(default, deserialize_with = "change")]
    valid_since: Change<String>,
    #[serde(default, deserialize_with = "change")]
    valid_until: Change<String>,
    #[serde(default, deserialize_with = "change")]
    title: Change<String>,
    #[serde(default, deserialize_with = "change")]
    tags: Change<Vec<String>>,
    forward_query: Option<bool>,
}

fn change<'de, D, T>(from: D) -> Result<Change<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let value = Option::deserialize(from)?;
    Ok(value.map_or(Change::Clear, Change::Set))
}

fn instant(field: &str, change: Change<String>) -> Result<Change<Timestamp>, Problem> {
    Ok(match change {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(text) => Change::Set(timestamp(field, &text)?),
    })
}

impl Edit {
    fn check(self) -> Result<Patch, Problem> {
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
        Ok(Patch {
            long_url: self.long_url.as_deref().map(LongUrl::parse).transpose()?,
            redirect_status: self.redirect_status.map(redirect_status).transpose()?,
            valid_since,
            valid_until,
            title: self.title,
            tags,
            forward_query: self.forward_query,
            ..Patch::default()
        })
    }
}

pub(super) async fn edit(
    State(api): State<Api>,
    Editor(tenant): Editor,
    Path(slug): Path<String>,
    headers: HeaderMap,
    Json(edit): Json<Edit>,
) -> Result<Response, Problem> {
    let if_version = if_match(&headers)?;
    let (key, patch) = (key(&slug)?, edit.check()?);
    let (shards, stamp) = (&api.lookup().shards, api.lookup().stamp(&key));
    match shards.update(&key, &tenant, if_version, &patch).await? {
        Written::Written(link) => {
            api.lookup().learn(&link, stamp).await;
            Ok(Shown::new(&api, &link).into_response())
        }
        Written::Absent => Err(Problem::no_such_link()),
        Written::Gone => Err(Problem::gone()),
        Written::Blocked => Err(Problem::blocked()),
        Written::VersionMismatch(_) => Err(Problem::version_mismatch()),
    }
}

pub(super) async fn delete(
    State(api): State<Api>,
    Editor(tenant): Editor,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let if_version = if_match(&headers)?;
    let key = key(&slug)?;
    let stamp = api.lookup().stamp(&key);
    match api
        .lookup()
        .shards
        .delete(&key, &tenant, if_version)
        .await?
    {
        Written::Written(link) => {
            api.lookup().learn(&link, stamp).await;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Written::Absent => Err(Problem::no_such_link()),
        Written::Gone => Err(Problem::gone()),
        Written::Blocked => Err(Problem::blocked()),
        Written::VersionMismatch(_) => Err(Problem::version_mismatch()),
    }
}

fn key(slug: &str) -> Result<LinkKey, Problem> {
    // What is no slug names no link.
    let slug = Slug::parse(slug).map_err(|_| Problem::no_such_link())?;
    Ok(LinkKey {
        domain: DomainId::MAIN,
        slug,
    })
}

/// The version that `If-Match` asks for; `*` and no header ask for none.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
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
        .map(Some)
        // A tag that we never gave out matches nothing.
        .ok_or_else(Problem::version_mismatch)
}
