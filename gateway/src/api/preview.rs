//! `GET /{slug}+`: where a link leads, without going there. Nobody's click.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use waypost_domain::{DomainId, Link, LinkKey, SlugRef, Verdict};

use super::link::InPath;
use super::problem::no_such_route;
use super::{Api, Code, Problem};
use crate::client::ClientAddress;
use crate::lanes::Lane;
use crate::limits::Subject;
use crate::lookup::Whole;
use crate::pages::{self, Answer, escape};
use crate::redirect::slug_of;

/// A link as anybody may see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Preview {
    #[schema(example = "kX3mPq7Z")]
    slug: String,
    #[schema(format = "uri", example = "https://waypost.example/kX3mPq7Z")]
    short_url: String,
    /// `null` behind a password, as is the title.
    #[schema(required, format = "uri", example = "https://example.com/a/long/path")]
    long_url: Option<String>,
    #[schema(required, example = "Spring sale")]
    title: Option<String>,
    #[schema(format = DateTime, example = "2026-11-22T10:00:00.000Z")]
    created_at: String,
    has_password: bool,
    /// Whoever looks may see them, without a token.
    #[serde(skip)]
    has_open_statistics: bool,
}

super::problem::problems!(Problems: &[Code::LinkNotFound, Code::RouteNotFound, Code::LinkGone,
    Code::LinkBlocked, Code::RateLimited, Code::Overloaded, Code::ShardUnavailable]);

/// See what a link is before following it.
///
/// Who accepts `text/html` by name, as browsers do, gets a page. Nothing is counted.
#[utoipa::path(
    get,
    path = "/{slug}+",
    operation_id = "previewLink",
    tag = "visits",
    params(InPath),
    responses(
        (status = 200, description = "The link.", content(
            (Preview = "application/json"), (String = "text/html"))),
        (status = 302, description = "There is no such link, and the operator has a place for \
            those who ask for one.", headers(
            ("Location" = String, description = "The place."))),
        Problems,
    ),
)]
pub(super) async fn preview(
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = match previewed(uri.path()) {
        Some(slug) => match preview_of(&api, slug, client, &headers).await {
            Ok(preview) if pages::accepts_html(&headers) => preview.page(&uri),
            Ok(preview) => return axum::Json(preview).into_response(),
            Err(refusal) => refusal,
        },
        // Neither a slug nor any page: to a person, just a wrong address.
        None => api.0.redirects.absent(&no_such_route().await, &headers),
    };
    answer.map(axum::body::Body::new)
}

/// The slug in front of a plus, which some clients encode.
pub(super) fn previewed(path: &str) -> Option<SlugRef<'_>> {
    let path = ["+", "%2B", "%2b"]
        .iter()
        .find_map(|plus| path.strip_suffix(plus))?;
    slug_of(path)
}

async fn preview_of(
    api: &Api,
    slug: SlugRef<'_>,
    client: ClientAddress,
    headers: &HeaderMap,
) -> Result<Preview, Answer> {
    let key = Arc::new(LinkKey {
        domain: DomainId::MAIN,
        slug: slug.into(),
    });
    let redirects = &api.0.redirects;
    let asked = redirects.may_ask(slug, client);
    asked.map_err(|problem| pages::refused(&problem, headers))?;
    // No cache spares the shard this read.
    let read = redirects.limits.read(&Subject::address(client));
    let _place = read
        .map_err(Problem::rate_limited)
        .and_then(|()| api.enter(Lane::Reads))
        .map_err(|problem| pages::refused(&problem, headers))?;
    // The caches know neither title nor age.
    let Whole {
        link,
        target,
        verdict,
        ..
    } = match redirects.lookup.whole(&key).await {
        Ok(Some(whole)) => whole,
        Ok(None) => {
            redirects.limits.missed(client);
            return Err(redirects.refusal(StatusCode::NOT_FOUND, headers));
        }
        Err(error) => {
            redirects.lookup.metrics.unanswered(error.reason());
            return Err(redirects.refusal(StatusCode::SERVICE_UNAVAILABLE, headers));
        }
    };
    match verdict {
        Verdict::Redirect | Verdict::Password => {
            if target.has_visit_limit() && redirects.visits.is_used_up(&target) {
                return Err(redirects.refusal(StatusCode::GONE, headers));
            }
            Ok(Preview::new(api, &link))
        }
        verdict => Err(redirects.not_followed(verdict, headers)),
    }
}

impl Preview {
    fn new(api: &Api, link: &Link) -> Self {
        let has_password = link.password_hash.is_some();
        Self {
            slug: link.key.slug.to_string(),
            short_url: api.short_url(&link.key.slug),
            long_url: (!has_password).then(|| link.long_url.to_string()),
            title: link.title.clone().filter(|_| !has_password),
            created_at: link.created_at.to_string(),
            has_password,
            has_open_statistics: api.0.auth.tells_everybody_of(&link.tenant),
        }
    }

    fn page(&self, uri: &Uri) -> Answer {
        let mut body = String::from("<dl>");
        let mut row = |name: &str, class: &str, text: &str| {
            let _ = write!(body, "<dt>{name}</dt><dd{class}>{}</dd>", escape(text));
        };
        match &self.long_url {
            Some(url) => row("It leads to", " class=\"target\"", url),
            None => row(
                "It leads to",
                "",
                "Shown only to those who know its password.",
            ),
        }
        if let Some(title) = self.title.as_deref().filter(|title| !title.is_empty()) {
            row("Title", " class=\"title\"", title);
        }
        row("Short link", "", &self.short_url);
        row("Created", "", &day(&self.created_at));
        // What the visitor would have sent along is sent along.
        let query = uri.query().map(|query| format!("?{query}"));
        let go_on = format!("/{}{}", self.slug, query.unwrap_or_default());
        let _ = write!(
            body,
            "</dl><p><a class=\"button\" href=\"{}\" rel=\"noreferrer nofollow\">Go on</a>",
            escape(&go_on)
        );
        if self.has_open_statistics {
            let _ = write!(
                body,
                " <a class=\"beside\" href=\"/stats/{}\">Statistics</a>",
                self.slug
            );
        }
        body += "</p>";
        pages::preview(&body)
    }
}

/// The day of an instant: more would only be read as a time zone.
fn day(instant: &str) -> String {
    instant.split('T').next().unwrap_or(instant).to_owned()
}
