//! `POST /api/v1/links`: from what is asked for to a stored link.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use uuid::Uuid;
use waypost_domain::{
    CreateId, DomainId, Link, LinkKey, LongUrl, NewLink, RedirectStatus, Slug, SlugKind, Timestamp,
};

use super::auth::Creator;
use super::body::Json;
use super::link::Shown;
use super::{Api, Code, Problem, auth, body, problem};
use crate::passwords;
use crate::shards::Created;

/// Slugs that are tried before a create gives up: a minted slug is unique by
/// construction, so that more than one collision means a broken keygen.
const MINT_TRIES: usize = 3;

/// The largest integer that every JSON reader takes for itself.
const MAX_VISITS: u64 = (1 << 53) - 1;

const MAX_TITLE_LEN: usize = 512;
const MAX_TAGS: usize = 20;
const MAX_TAG_LEN: usize = 64;

/// The body of a create.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = NewLink)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Request {
    /// Where the link is to lead: an absolute http or https URL.
    #[schema(
        format = "uri",
        max_length = 8192,
        example = "https://example.com/a/long/path"
    )]
    long_url: String,
    /// The slug that is wished for; without one, a slug is found.
    #[schema(
        min_length = 3,
        max_length = 64,
        example = "spring-sale",
        pattern = "^[0-9A-Za-z]{2}[0-9A-Za-z_-]{1,62}$"
    )]
    alias: Option<String>,
    /// From when on the link leads anywhere.
    #[schema(format = DateTime, example = "2026-11-22T10:00:00Z")]
    valid_since: Option<String>,
    /// When the link ends; in the future. Not together with `ttlSeconds`.
    #[schema(format = DateTime, example = "2099-12-31T23:59:59Z")]
    valid_until: Option<String>,
    /// After how many seconds from now the link ends.
    #[schema(minimum = 1, example = json!(null))]
    ttl_seconds: Option<u64>,
    /// How often the link may be followed; then it is gone. Without it, there is no limit.
    #[schema(minimum = 1, maximum = 9007199254740991_u64, example = json!(null))]
    max_visits: Option<u64>,
    /// How visitors are sent on; 302 by default.
    #[schema(schema_with = redirect_status_schema)]
    redirect_status: Option<u32>,
    /// For the owner; at most 512 bytes.
    #[schema(max_length = 512, example = "Spring sale")]
    title: Option<String>,
    /// For the owner, to find the link by: at most 20 of 1 to 64 bytes each.
    #[serde(default)]
    #[schema(max_items = 20, example = json!(["sale"]))]
    tags: Vec<String>,
    /// Whether the query of a visit is appended to the destination; of a key that both
    /// have, the destination's value is kept.
    #[serde(default)]
    forward_query: bool,
    /// What visitors are asked for before they are sent on; at most 128 bytes. It is
    /// never shown again.
    #[schema(min_length = 1, max_length = 128, format = Password, example = json!(null))]
    password: Option<String>,
}

/// The schema of how visitors are sent on.
pub(super) fn redirect_status_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .enum_values(Some([301, 302, 307, 308]))
        .description(Some("How visitors are sent on."))
        .examples([json!(302)])
        .build()
}

/// What may go wrong when a slug is found for a link.
pub(super) const OF_MINTED: &[Code] = &[Code::KeysUnavailable];

/// What may go wrong with one link that is asked for in full.
pub(super) const PROBLEMS: &[Code] = &[
    Code::AliasInvalid,
    Code::AliasReserved,
    Code::AliasTaken,
    Code::IdempotencyKeyReused,
    Code::RedirectStatusInvalid,
    Code::TimeInvalid,
    Code::ValidityAmbiguous,
    Code::ValidityInvalid,
    Code::TtlInvalid,
    Code::TitleTooLong,
    Code::TitleInvalid,
    Code::TagsInvalid,
    Code::MaxVisitsInvalid,
    Code::PasswordInvalid,
];

problem::problems!(Problems: auth::PROBLEMS, body::PROBLEMS, problem::OF_URLS, PROBLEMS,
    OF_MINTED, problem::OF_SHARDS);

/// Create a link.
#[utoipa::path(
    post,
    path = "/api/v1/links",
    operation_id = "createLink",
    tag = "links",
    request_body = Request,
    responses(
        (status = 201, description = "The new link.", body = Shown, headers(
            ("Location" = String, description = "Where the API shows the link."),
            ("ETag" = String, description = "The link's version, for `If-Match`."))),
        Problems,
    ),
    security((), ("bearer" = ["links:write"])),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Creator(tenant): Creator,
    Json(request): Json<Request>,
) -> Result<Response, Problem> {
    let wanted = request.check(tenant, now())?;
    let link = place(&api, wanted).await?;
    let shown = Shown::new(&api, &link);
    let location = HeaderValue::from_str(&format!("/api/v1/links/{}", link.key.slug))
        .expect("a slug is visible ASCII");
    let mut response = (StatusCode::CREATED, axum::Json(&shown)).into_response();
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::ETAG, shown.etag());
    Ok(response)
}

/// A create that was checked and needs a slug.
#[derive(Debug)]
pub(super) struct Wanted {
    alias: Option<Slug>,
    long_url: LongUrl,
    tenant: String,
    valid_since: Option<Timestamp>,
    valid_until: Option<Timestamp>,
    max_visits: Option<u64>,
    redirect_status: RedirectStatus,
    title: Option<String>,
    tags: Vec<String>,
    forward_query: bool,
    /// In clear: it is hashed when all else is right.
    password: Option<String>,
}

impl Wanted {
    /// A link with nothing but a destination.
    pub(super) fn plain(long_url: LongUrl, tenant: String) -> Self {
        Self {
            alias: None,
            long_url,
            tenant,
            valid_since: None,
            valid_until: None,
            max_visits: None,
            redirect_status: RedirectStatus::Found,
            title: None,
            tags: Vec::new(),
            forward_query: false,
            password: None,
        }
    }

    fn at(self, slug: Slug, kind: SlugKind, password_hash: Option<String>) -> NewLink {
        NewLink {
            key: LinkKey {
                domain: DomainId::MAIN,
                slug,
            },
            kind,
            create_id: CreateId(Uuid::new_v4()),
            long_url: self.long_url,
            redirect_status: self.redirect_status,
            tenant: self.tenant,
            valid_since: self.valid_since,
            valid_until: self.valid_until,
            max_visits: self.max_visits,
            title: self.title,
            tags: self.tags,
            forward_query: self.forward_query,
            password_hash,
            source: None,
        }
    }
}

impl Request {
    /// Checks everything that can be checked without asking anybody.
    pub(super) fn check(self, tenant: String, now: Timestamp) -> Result<Wanted, Problem> {
        if self.ttl_seconds.is_some() && self.valid_until.is_some() {
            return Err(Problem::new(
                Code::ValidityAmbiguous,
                "Send validUntil or ttlSeconds, not both.",
            ));
        }
        let valid_since = self
            .valid_since
            .map(|text| timestamp("validSince", &text))
            .transpose()?;
        let valid_until = match (self.valid_until, self.ttl_seconds) {
            (Some(text), _) => Some(timestamp("validUntil", &text)?),
            (None, Some(0)) => {
                return Err(Problem::new(Code::TtlInvalid, "ttlSeconds is at least 1."));
            }
            (None, Some(seconds)) => Some(now.after(Duration::from_secs(seconds))),
            (None, None) => None,
        };
        check_validity(valid_since, valid_until, now)?;
        check_title(self.title.as_deref())?;
        check_tags(&self.tags)?;
        check_max_visits(self.max_visits)?;
        check_password(self.password.as_deref())?;
        Ok(Wanted {
            alias: self.alias.as_deref().map(alias).transpose()?,
            long_url: LongUrl::parse(&self.long_url)?,
            tenant,
            valid_since,
            valid_until,
            max_visits: self.max_visits,
            redirect_status: self
                .redirect_status
                .map_or(Ok(RedirectStatus::Found), redirect_status)?,
            title: self.title,
            tags: self.tags,
            forward_query: self.forward_query,
            password: self.password,
        })
    }
}

/// Stores a link under its alias, or under the first minted slug that is free.
pub(super) async fn place(api: &Api, mut wanted: Wanted) -> Result<Link, Problem> {
    let password_hash = match wanted.password.take() {
        Some(password) => Some(hash(api, password).await?),
        None => None,
    };
    if let Some(alias) = wanted.alias.take() {
        let new = Arc::new(wanted.at(alias, SlugKind::Alias, password_hash));
        let stamp = api.lookup().stamp(&new.key);
        return match api.lookup().shards.create(&new).await? {
            Created::Conflict => Err(Problem::alias_taken()),
            Created::Reused => Err(Problem::key_reused()),
            Created::Created(link) | Created::Existing(link) => {
                api.lookup().learn(&link, stamp).await;
                Ok(*link)
            }
        };
    }
    let mut new = Arc::new(wanted.at(minted(api).await?, SlugKind::Minted, password_hash));
    for _ in 0..MINT_TRIES {
        let stamp = api.lookup().stamp(&new.key);
        match api.lookup().shards.create(&new).await? {
            Created::Created(link) => {
                api.lookup().keep(&link, stamp);
                // Nobody can have asked for this slug yet, so that nobody waits.
                drop(api.lookup().write_through(&link, stamp));
                return Ok(*link);
            }
            Created::Reused | Created::Existing(_) => return Err(Problem::key_reused()),
            Created::Conflict => {
                api.lookup().metrics.key_conflict();
                Arc::make_mut(&mut new).key.slug = minted(api).await?;
            }
        }
    }
    tracing::error!("several minted slugs in a row were taken, keygen repeats itself");
    Err(Problem::no_keys())
}

/// What is stored of a password.
pub(super) async fn hash(api: &Api, password: String) -> Result<String, Problem> {
    let hashed = api.0.redirects.passwords.hash(password).await;
    hashed.map_err(|_| Problem::passwords_overloaded())
}

async fn minted(api: &Api) -> Result<Slug, Problem> {
    api.0.keys.take().await.ok_or_else(Problem::no_keys)
}

/// The instant that relative times count from. Expiry itself is judged by the
/// shard's clock.
pub(super) fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

fn alias(text: &str) -> Result<Slug, Problem> {
    let slug = Slug::parse(text)?;
    if Slug::is_reserved(text) {
        return Err(Problem::new(
            Code::AliasReserved,
            "This word is reserved. Choose another alias.",
        ));
    }
    Ok(slug)
}

pub(super) fn redirect_status(code: u32) -> Result<RedirectStatus, Problem> {
    RedirectStatus::from_code(code).ok_or_else(|| {
        Problem::new(
            Code::RedirectStatusInvalid,
            "redirectStatus is 301, 302, 307 or 308.",
        )
    })
}

pub(super) fn timestamp(field: &str, text: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse(text).ok_or_else(|| {
        Problem::new(
            Code::TimeInvalid,
            format!("{field} is a time as in 2026-11-22T10:00:00Z (RFC 3339), from 1970 on."),
        )
    })
}

pub(super) fn check_validity(
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Problem> {
    let refused = |detail: &'static str| Err(Problem::new(Code::ValidityInvalid, detail));
    match (since, until) {
        (_, Some(until)) if until <= now => refused("validUntil is in the past."),
        (Some(since), Some(until)) if since >= until => {
            refused("validSince is not before validUntil.")
        }
        _ => Ok(()),
    }
}

pub(super) fn check_title(title: Option<&str>) -> Result<(), Problem> {
    match title {
        Some(title) if title.len() > MAX_TITLE_LEN => Err(Problem::new(
            Code::TitleTooLong,
            format!("A title has at most {MAX_TITLE_LEN} bytes."),
        )),
        // Postgres cannot store U+0000.
        Some(title) if title.contains('\0') => {
            Err(Problem::new(Code::TitleInvalid, "A title holds no U+0000."))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_max_visits(max: Option<u64>) -> Result<(), Problem> {
    if max.is_none_or(|max| (1..=MAX_VISITS).contains(&max)) {
        return Ok(());
    }
    Err(Problem::new(
        Code::MaxVisitsInvalid,
        format!("maxVisits is between 1 and {MAX_VISITS}."),
    ))
}

pub(super) fn check_password(password: Option<&str>) -> Result<(), Problem> {
    if password.is_none_or(|password| (1..=passwords::MAX_LEN).contains(&password.len())) {
        return Ok(());
    }
    Err(Problem::new(
        Code::PasswordInvalid,
        format!("A password has 1 to {} bytes.", passwords::MAX_LEN),
    ))
}

pub(super) fn check_tags(tags: &[String]) -> Result<(), Problem> {
    let fits =
        |tag: &String| (1..=MAX_TAG_LEN).contains(&tag.len()) && !tag.chars().any(char::is_control);
    if tags.len() <= MAX_TAGS && tags.iter().all(fits) {
        return Ok(());
    }
    Err(Problem::new(
        Code::TagsInvalid,
        format!(
            "There are at most {MAX_TAGS} tags of 1 to {MAX_TAG_LEN} bytes each, without control characters."
        ),
    ))
}
