//! `GET /api/v1/links`: a tenant's links, newest first, a page at a time.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use url::form_urlencoded;
use waypost_domain::{Slug, Timestamp};

use super::auth::Reader;
use super::link::Shown;
use super::{Api, Code, Problem, auth, problem};
use crate::lanes::Lane;
use crate::shards::{Listing, Place};

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// Bytes of a text that is looked for.
const MAX_TEXT_LEN: usize = 256;

/// Bytes of a tag, as in a create.
const MAX_TAG_LEN: usize = 64;

/// The first byte of a cursor. Another format gets another one.
const CURSOR_FORMAT: u8 = 1;

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Links)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// The newest first.
    links: Vec<Shown>,
    /// Where the next page begins; `null` at the end, whatever this page holds.
    #[schema(required, example = "AQAAAaHIcQ8bYWJjZGVmZ2g")]
    next_cursor: Option<String>,
}

/// The query in the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(super) struct InQuery {
    /// The most links of a page. It may have fewer, or none, and not be the last.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only links with exactly this tag.
    #[param(min_length = 1, max_length = 64, example = "sale")]
    tag: Option<String>,
    /// Only links with this text in their slug, destination or title, in capitals or small
    /// letters.
    #[param(min_length = 1, max_length = 256, example = "example.com")]
    q: Option<String>,
}

problem::problems!(Problems: auth::PROBLEMS, &[Code::QueryInvalid, Code::CursorInvalid],
    problem::OF_SHARDS);

/// List the tenant's links.
#[utoipa::path(
    get,
    path = "/api/v1/links",
    operation_id = "listLinks",
    tag = "links",
    params(InQuery),
    responses((status = 200, description = "A page of links.", body = Answer), Problems),
    security(("bearer" = ["links:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Reader(tenant): Reader,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let listing = listing(tenant, query.as_deref().unwrap_or_default())?;
    let _place = api.enter(Lane::Reads)?;
    let page = api.lookup().shards.list(&listing).await?;
    let answer = Answer {
        links: page
            .links
            .iter()
            .map(|link| Shown::new(&api, link))
            .collect(),
        next_cursor: page.next.as_ref().map(cursor),
    };
    Ok(axum::Json(answer).into_response())
}

fn listing(tenant: String, query: &str) -> Result<Listing, Problem> {
    let mut listing = Listing {
        tenant,
        tag: None,
        text: None,
        after: None,
        limit: DEFAULT_LIMIT,
    };
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if seen.contains(&name) {
            return Err(refused(format!("{name} is given twice.")));
        }
        match &*name {
            "limit" => {
                listing.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                    .ok_or_else(|| refused(format!("limit is 1 to {MAX_LIMIT}.")))?;
            }
            "cursor" => listing.after = Some(place(&value).ok_or_else(bad_cursor)?),
            "tag" => listing.tag = Some(text("tag", &value, MAX_TAG_LEN)?),
            "q" => listing.text = Some(text("q", &value, MAX_TEXT_LEN)?),
            _ => {
                return Err(refused(
                    "There is a parameter that this path does not take; it takes limit, cursor, \
                     tag and q.",
                ));
            }
        }
        seen.push(name);
    }
    Ok(listing)
}

fn text(name: &str, value: &str, max_len: usize) -> Result<String, Problem> {
    let fits = (1..=max_len).contains(&value.len());
    if fits && !value.chars().any(char::is_control) {
        return Ok(value.to_owned());
    }
    Err(refused(format!(
        "{name} has 1 to {max_len} bytes, without control characters."
    )))
}

fn refused(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Code::QueryInvalid, detail)
}

fn bad_cursor() -> Problem {
    Problem::new(
        Code::CursorInvalid,
        "The cursor is none of this server's: send the nextCursor of the page before.",
    )
}

/// A place and nothing else. Whoever makes one up sees the same links, their own, from
/// another place on.
fn cursor(place: &Place) -> String {
    let mut bytes = vec![CURSOR_FORMAT];
    bytes.extend(place.created_at().millis().to_be_bytes());
    bytes.extend(place.slug().as_str().as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn place(cursor: &str) -> Option<Place> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (&CURSOR_FORMAT, rest) = bytes.split_first()? else {
        return None;
    };
    let (millis, slug) = rest.split_first_chunk()?;
    let created_at = Timestamp::from_millis(i64::from_be_bytes(*millis))?;
    let slug = Slug::parse(std::str::from_utf8(slug).ok()?).ok()?;
    Some(Place::new(created_at, slug))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_what_is_none_is_refused() {
        let at = Timestamp::from_millis(1_795_312_800_123).unwrap();
        let slug = |text: &str| Slug::parse(text).unwrap();
        let longest = "z".repeat(Slug::MAX_LEN);
        for slug in [slug("abc"), slug(&longest)] {
            let there = Place::new(at, slug);
            assert_eq!(place(&cursor(&there)), Some(there));
        }
        let good = cursor(&Place::new(at, slug("abcdefgh")));
        let other_format = URL_SAFE_NO_PAD.encode([&[9][..], &[0; 8], b"abc"].concat());
        let before_1970 = URL_SAFE_NO_PAD.encode([&[1][..], &[255; 8], b"abc"].concat());
        let no_slug = URL_SAFE_NO_PAD.encode([&[1][..], &[0; 8], b"a/c"].concat());
        for bad in [
            "",
            "AQ",
            "not base64!",
            &good[..8],
            &other_format,
            &before_1970,
            &no_slug,
        ] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }

    #[test]
    fn unknown_repeated_and_misshapen_parameters_are_refused() {
        let code = |query| listing("t".to_owned(), query).map_err(|problem| problem.code());
        assert!(code("").is_ok());
        assert!(code("limit=100&tag=a%20b&q=%C3%A4").is_ok());
        for query in [
            "limit=0",
            "limit=101",
            "limit=x",
            "tag=",
            "q=%00",
            "x=1",
            "tag=a&tag=b",
        ] {
            assert_eq!(code(query).unwrap_err(), Code::QueryInvalid, "{query}");
        }
        assert_eq!(code("cursor=x").unwrap_err(), Code::CursorInvalid);
    }
}
