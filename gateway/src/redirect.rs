//! `GET` and `HEAD /{slug}`: what the product exists for.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use url::Url;
use waypost_domain::{DomainId, LinkKey, Slug, SlugRef, Timestamp, Verdict};

use crate::api::NO_SNIFF;
use crate::clicks::{ClickedLink, Clicks, Hit};
use crate::client::TrustedHops;
use crate::lookup::{Found, Lookup};
use crate::pages;
use crate::target::Target;

/// Clicks are counted, and an edit or a takedown is honoured at once.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("private, no-store");

/// What permanence means where links can change: 90 seconds.
const KEPT_BRIEFLY: HeaderValue = HeaderValue::from_static("private, max-age=90");

/// Answers for slugs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redirects {
    pub(crate) lookup: Lookup,
    pub(crate) clicks: Clicks,
    pub(crate) trusted_hops: TrustedHops,
}

/// The slug that a path names, if it names one and not a page of ours.
#[must_use]
pub fn slug_of(path: &str) -> Option<SlugRef<'_>> {
    let slug = SlugRef::parse(path.strip_prefix('/')?).ok()?;
    (!Slug::is_reserved(slug.as_str())).then_some(slug)
}

impl Redirects {
    /// Answers what can be answered from memory, and hands the click off.
    pub fn answer_held<B>(
        &self,
        slug: SlugRef<'_>,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Option<Response<Full<Bytes>>> {
        let started = Instant::now();
        let (target, now) = self.lookup.held(slug, started)?;
        let response = self.link(&target, now, request, peer);
        self.lookup.metrics.redirect(response.status(), started);
        Some(response)
    }

    /// Looks up a slug that memory does not hold, answers, and hands the click off.
    pub async fn answer<B>(
        &self,
        slug: Slug,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let key = Arc::new(LinkKey {
            domain: DomainId::MAIN,
            slug,
        });
        let response = match self.lookup.find(&key).await {
            Found::Link(target, now) => self.link(&target, now, request, peer),
            Found::Absent => refusal(StatusCode::NOT_FOUND, request.headers()),
            Found::Unknown(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, request.headers()),
        };
        self.lookup.metrics.redirect(response.status(), started);
        response
    }

    fn link<B>(
        &self,
        target: &Target,
        now: Timestamp,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let status = match target.verdict(now) {
            Verdict::Redirect if !target.has_visit_limit() => {
                return self.redirect(target, now, request, peer);
            }
            // Links of a release that knows more than this one: never sent on
            // unprotected.
            Verdict::Redirect | Verdict::Password => StatusCode::SERVICE_UNAVAILABLE,
            Verdict::NotFound => StatusCode::NOT_FOUND,
            Verdict::Gone => StatusCode::GONE,
            Verdict::Blocked => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
        };
        refusal(status, request.headers())
    }

    fn redirect<B>(
        &self,
        target: &Target,
        now: Timestamp,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let status = StatusCode::from_u16(target.redirect_status.code())
            .expect("301, 302, 307 and 308 are statuses");
        let query = request.uri().query().filter(|_| target.forward_query);
        let location = query
            .and_then(|query| with_query(target.long_url(), query))
            .unwrap_or_else(|| target.location());
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(LOCATION, location);
        let kept = if target.may_be_kept() {
            KEPT_BRIEFLY
        } else {
            NOT_KEPT
        };
        headers.insert(CACHE_CONTROL, kept);
        // HEAD asks where a link leads; nobody has followed it.
        if request.method() == Method::GET {
            self.clicks.record(&Hit {
                link: ClickedLink {
                    domain: target.domain.0,
                    slug: target.slug(),
                    id: target.id.0,
                    tenant: target.tenant(),
                },
                status: status.as_u16(),
                headers: request.headers(),
                client: self.trusted_hops.client(peer, request.headers()).ip(),
                at: now,
            });
        }
        response
    }
}

/// The destination with the visitor's query appended; of a key that both have,
/// the link's own value wins. `None` if the outcome is no URL that can be sent.
fn with_query(long_url: &str, query: &str) -> Option<HeaderValue> {
    let mut url = Url::parse(long_url).ok()?;
    let own: HashSet<String> = url.query_pairs().map(|(key, _)| key.into_owned()).collect();
    let forwarded: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| !own.contains(key.as_ref()))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    if !forwarded.is_empty() {
        url.query_pairs_mut().extend_pairs(forwarded);
    }
    HeaderValue::from_str(url.as_str()).ok()
}

/// An answer that leads nowhere: a page for browsers, a problem document for
/// programs.
fn refusal(status: StatusCode, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let (kind, body) = pages::refusal(status, headers);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    headers.insert(CACHE_CONTROL, NOT_KEPT);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_are_slugs_are_looked_up() {
        assert_eq!(slug_of("/abc").unwrap().as_str(), "abc");
        for path in [
            "/", "/ab", "/abc/", "/abc/d", "/api", "/docs", "/-abc", "/ab%63",
        ] {
            assert_eq!(slug_of(path), None, "{path}");
        }
    }

    #[test]
    fn the_links_own_keys_win_over_the_visitors() {
        let link = "https://example.com/?a=1";
        let joined = with_query(link, "a=2&b=3&b=4").unwrap();
        assert_eq!(joined, "https://example.com/?a=1&b=3&b=4");
        let same = with_query(link, "a=9").unwrap();
        assert_eq!(same, "https://example.com/?a=1");
    }
}
