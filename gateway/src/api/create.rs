//! `POST /api/v1/links`: what is asked for, and what of it is refused.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::json;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};
use waypost_domain::source::End;
use waypost_domain::{Change, LongUrl, RedirectStatus, Slug, Timestamp};

use super::auth::Creator;
use super::body::{Json, whole};
use super::idempotency::IdempotencyKey;
use super::link::{Shown, change};
use super::place::{Wanted, place};
use super::{Api, Code, Problem, auth, body, idempotency, problem};
use crate::lanes::Lane;
use crate::limits::Subject;
use crate::passwords;

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
    /// When the link ends; in the future. Not together with `ttlSeconds`. `null`: never,
    /// whatever the operator's default is.
    #[schema(value_type = Option<String>, format = DateTime, example = "2099-12-31T23:59:59Z")]
    #[serde(default, deserialize_with = "change")]
    valid_until: Change<String>,
    /// After how many seconds from now the link ends.
    #[schema(minimum = 1, example = json!(null))]
    #[serde(default, deserialize_with = "whole")]
    ttl_seconds: Option<u64>,
    /// How often the link may be followed; then it is gone. Without it, there is no limit.
    #[schema(minimum = 1, maximum = 9007199254740991_u64, example = json!(null))]
    #[serde(default, deserialize_with = "whole")]
    max_visits: Option<u64>,
    /// How visitors are sent on; 302 by default.
    #[schema(schema_with = redirect_status_schema)]
    #[serde(default, deserialize_with = "whole")]
    redirect_status: Option<u32>,
    /// For the owner; at most 512 bytes.
    #[schema(max_length = 512, pattern = "^[^\\u0000]*$", example = "Spring sale")]
    title: Option<String>,
    #[serde(default)]
    #[schema(schema_with = tags_schema)]
    tags: Vec<String>,
    /// Whether the query of a visit is appended to the destination; of a key that both
    /// have, the destination's value is kept.
    #[serde(default)]
    forward_query: bool,
    /// What visitors are asked for before they are sent on; at most 128 bytes. It is
    /// never shown again.
    #[schema(min_length = 1, max_length = 128, format = Password, example = json!(null))]
    password: Option<String>,
    /// Whether a link that leads to the same in the same way is as good as a new one. With
    /// an `alias`: the one that has it. Without a token, the title and tags of a link that
    /// was found are not shown.
    #[serde(default)]
    find_if_exists: bool,
}

/// The schema of how visitors are to be sent on; `null` leaves it to us.
pub(super) fn redirect_status_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
        .enum_values(Some([
            json!(301),
            json!(302),
            json!(307),
            json!(308),
            json!(null),
        ]))
        .description(Some("How visitors are sent on."))
        .examples([json!(302)])
        .build()
}

/// The schema of tags.
pub(super) fn tags_schema() -> Array {
    let tag = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_TAG_LEN))
        .pattern(Some("^[^\\u0000-\\u001f\\u007f-\\u009f]*$"));
    ArrayBuilder::new()
        .items(tag)
        .max_items(Some(MAX_TAGS))
        .description(Some(
            "For the owner, to find the link by: at most 20 of 1 to 64 bytes each.",
        ))
        .examples([json!(["sale"])])
        .build()
}

/// What may go wrong when a slug is found for a link.
pub(super) const OF_MINTED: &[Code] = &[Code::KeysUnavailable];

/// What may go wrong with one link that is asked for in full.
pub(super) const PROBLEMS: &[Code] = &[
    Code::AliasInvalid,
    Code::AliasReserved,
    Code::AliasTaken,
    Code::LinkBlocked,
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
    OF_MINTED, idempotency::PROBLEMS, problem::OF_SHARDS);

/// Create a link.
#[utoipa::path(
    post,
    path = "/api/v1/links",
    operation_id = "createLink",
    tag = "links",
    params(idempotency::Header),
    request_body = Request,
    responses(
        (status = 201, description = "The new link.", body = Shown, headers(
            ("Location" = String, description = "Where the API shows the link."),
            ("ETag" = String, description = "The link's version, for `If-Match`."))),
        (status = 200, description = "The link that is there: made by an earlier request with \
            this key, or found.", body = Shown, headers(
            ("ETag" = String, description = "The link's version, for `If-Match`."))),
        Problems,
    ),
    security((), ("bearer" = ["links:write"])),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Creator(tenant): Creator,
    key: IdempotencyKey,
    Extension(subject): Extension<Subject>,
    Json(request): Json<Request>,
) -> Result<Response, Problem> {
    let _place = api.enter(Lane::Single)?;
    let now = now();
    let may_be_found = request.find_if_exists;
    let wanted = request.check(tenant, now, api.0.rules.default_ttl)?;
    let placed = place(&api, wanted, key.alone(), now).await?;
    let mut shown = Shown::new(&api, &placed.link);
    // Who has no token may have found the link of a stranger.
    if !placed.is_new && may_be_found && matches!(subject, Subject::Address(_)) {
        shown = shown.without_notes();
    }
    let mut response = (placed.status(), axum::Json(&shown)).into_response();
    response.headers_mut().insert(header::ETAG, shown.etag());
    if placed.is_new {
        let location = format!("/api/v1/links/{}", placed.link.key.slug);
        let location = HeaderValue::from_str(&location).expect("a slug is visible ASCII");
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

impl Request {
    /// Checks everything that can be checked without asking anybody.
    pub(super) fn check(
        self,
        tenant: String,
        now: Timestamp,
        default_ttl: Option<Duration>,
    ) -> Result<Wanted, Problem> {
        let valid_since = self
            .valid_since
            .map(|text| timestamp("validSince", &text))
            .transpose()?;
        let end = end(self.valid_until, self.ttl_seconds, default_ttl)?;
        check_validity(valid_since, end.instant(now), now)?;
        check_title(self.title.as_deref())?;
        check_tags(&self.tags)?;
        check_max_visits(self.max_visits)?;
        check_password(self.password.as_deref())?;
        Ok(Wanted {
            tenant,
            long_url: LongUrl::parse(&self.long_url)?,
            alias: self.alias.as_deref().map(Slug::parse).transpose()?,
            max_visits: self.max_visits,
            redirect_status: self
                .redirect_status
                .map_or(Ok(RedirectStatus::Found), redirect_status)?,
            valid_since,
            end,
            title: self.title,
            tags: self.tags,
            forward_query: self.forward_query,
            password: self.password,
            find_if_exists: self.find_if_exists,
        })
    }
}

fn end(
    until: Change<String>,
    ttl_seconds: Option<u64>,
    default_ttl: Option<Duration>,
) -> Result<End, Problem> {
    match (until, ttl_seconds) {
        (Change::Set(_) | Change::Clear, Some(_)) => Err(Problem::new(
            Code::ValidityAmbiguous,
            "Send validUntil or ttlSeconds, not both.",
        )),
        (Change::Set(text), None) => timestamp("validUntil", &text).map(End::At),
        (Change::Clear, None) => Ok(End::Never),
        (Change::Keep, Some(0)) => Err(Problem::new(Code::TtlInvalid, "ttlSeconds is at least 1.")),
        (Change::Keep, Some(seconds)) => Ok(End::After(Duration::from_secs(seconds))),
        (Change::Keep, None) => Ok(default_end(default_ttl)),
    }
}

/// When a link ends that was created without a word about it.
pub(super) fn default_end(default_ttl: Option<Duration>) -> End {
    default_ttl.map_or(End::Never, End::After)
}

/// What is stored of a password.
pub(super) async fn hash(api: &Api, password: String) -> Result<String, Problem> {
    let hashed = api.0.redirects.passwords.hash(password).await;
    hashed.map_err(|_| Problem::passwords_overloaded())
}

/// The instant that relative times count from. Expiry itself is judged by the
/// shard's clock.
pub(super) fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
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
        (Some(since), Some(until)) if since >= until => Err(never_valid()),
        _ => Ok(()),
    }
}

pub(super) fn never_valid() -> Problem {
    Problem::new(
        Code::ValidityInvalid,
        "validSince is not before validUntil.",
    )
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
