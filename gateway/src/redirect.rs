//! `GET` and `HEAD /{slug}`: what the product exists for.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use url::Url;
use waypost_domain::{DomainId, LinkKey, Slug, SlugRef, Timestamp, Verdict};
use waypost_runtime::traces;

use crate::api::Problem;
use crate::attempts::Attempts;
use crate::clicks::{ClickedLink, Clicks, Hit};
use crate::client::{ClientAddress, TrustedHops};
use crate::limits::Limits;
use crate::lookup::{Found, Lookup};
use crate::pages::{self, Answer, Asked, NOT_KEPT};
use crate::passwords::Passwords;
use crate::protection::Bar;
use crate::target::Target;
use crate::visits::{Grant, Visits};

/// What permanence means where links can change: 90 seconds.
const KEPT_BRIEFLY: HeaderValue = HeaderValue::from_static("private, max-age=90");

/// Answers for slugs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redirects {
    pub(crate) lookup: Lookup,
    pub(crate) clicks: Clicks,
    pub(crate) trusted_hops: TrustedHops,
    pub(crate) elsewhere: Elsewhere,
    pub(crate) visits: Visits,
    pub(crate) passwords: Passwords,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) limits: Limits,
}

/// Where visitors are sent, if anywhere, who ask for none of the links.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// Instead of a 404.
    pub unknown_slug: Option<HeaderValue>,
    /// Instead of the home page.
    pub home: Option<HeaderValue>,
}

/// What a redirect takes over from the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit<'a> {
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) client: ClientAddress,
    /// Whether it counts as a click.
    pub(crate) counts: bool,
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
    ) -> Option<Answer> {
        let started = Instant::now();
        let (target, now) = self.lookup.held(slug, started)?;
        let response = self.at_once(&target, now, &self.visit(request, peer))?;
        self.lookup.metrics.redirect(response.status(), started);
        Some(response)
    }

    /// Looks up a slug that memory does not hold, answers, and hands the click off.
    pub async fn answer<B>(&self, slug: Slug, request: &Request<B>, peer: SocketAddr) -> Answer {
        let started = Instant::now();
        let visit = self.visit(request, peer);
        let response = match self.may_ask(slug.borrowed(), visit.client) {
            Ok(()) => self.found(slug, &visit).await,
            Err(problem) => pages::refused(&problem, visit.headers),
        };
        self.lookup.metrics.redirect(response.status(), started);
        response
    }

    async fn found(&self, slug: Slug, visit: &Visit<'_>) -> Answer {
        let key = Arc::new(LinkKey {
            domain: DomainId::MAIN,
            slug,
        });
        match self.lookup.find(&key).await {
            Found::Link(target, now) => self.link(&key, &target, now, visit).await,
            Found::Absent => {
                self.limits.missed(visit.client);
                self.refusal(StatusCode::NOT_FOUND, visit.headers)
            }
            Found::Unknown(_) => self.refusal(StatusCode::SERVICE_UNAVAILABLE, visit.headers),
        }
    }

    /// Whether a client may ask for a slug. Before anybody is asked: who guesses slugs must
    /// not learn which of them exist, nor take the shards' time for it. What memory holds
    /// is no guess, be it a link that must be asked for again.
    pub(crate) fn may_ask(&self, slug: SlugRef<'_>, client: ClientAddress) -> Result<(), Problem> {
        match self.limits.may_miss(client) {
            Err(exceeded) if !self.lookup.knows(slug) => Err(Problem::rate_limited(exceeded)),
            _ => Ok(()),
        }
    }

    fn visit<'a, B>(&self, request: &'a Request<B>, peer: SocketAddr) -> Visit<'a> {
        Visit {
            query: request.uri().query(),
            headers: request.headers(),
            client: self.trusted_hops.client(peer, request.headers()),
            // HEAD asks where a link leads; nobody has followed it.
            counts: request.method() == Method::GET,
        }
    }

    /// Answers unless a visit has to be asked for.
    fn at_once(&self, target: &Target, now: Timestamp, visit: &Visit<'_>) -> Option<Answer> {
        match target.verdict(now) {
            Verdict::Redirect if !target.has_visit_limit() => {
                Some(self.redirect(target, now, status_of(target), visit))
            }
            // Nobody follows it now, so that no visit is taken, and none is asked for.
            Verdict::Redirect if !visit.counts => Some(match self.visits.is_used_up(target) {
                true => self.refusal(StatusCode::GONE, visit.headers),
                false => self.redirect(target, now, status_of(target), visit),
            }),
            Verdict::Redirect => match self.visits.take(target)? {
                Grant::Granted => Some(self.redirect(target, now, status_of(target), visit)),
                _ => Some(self.refusal(StatusCode::GONE, visit.headers)),
            },
            verdict => Some(self.not_followed(verdict, visit.headers)),
        }
    }

    async fn link(
        &self,
        key: &Arc<LinkKey>,
        target: &Target,
        now: Timestamp,
        visit: &Visit<'_>,
    ) -> Answer {
        if let Some(answer) = self.at_once(target, now, visit) {
            return answer;
        }
        match self.visits.ask(target).await {
            // An edit that was not told yet: the link as it is now is judged anew.
            Grant::Outdated => match self.lookup.ask_shard(key).await {
                Found::Link(target, now) => match self.at_once(&target, now, visit) {
                    Some(answer) => answer,
                    None => self.follow(&target, now, status_of(&target), visit).await,
                },
                Found::Absent => self.refusal(StatusCode::NOT_FOUND, visit.headers),
                Found::Unknown(_) => self.refusal(StatusCode::SERVICE_UNAVAILABLE, visit.headers),
            },
            grant => self.granted(grant, target, now, status_of(target), visit),
        }
    }

    /// Sends a visitor on whom the link's other conditions let through, if its visits
    /// are not used up.
    pub(crate) async fn follow(
        &self,
        target: &Target,
        now: Timestamp,
        status: StatusCode,
        visit: &Visit<'_>,
    ) -> Answer {
        let grant = if target.has_visit_limit() {
            self.visits.ask(target).await
        } else {
            Grant::Granted
        };
        self.granted(grant, target, now, status, visit)
    }

    fn granted(
        &self,
        grant: Grant,
        target: &Target,
        now: Timestamp,
        status: StatusCode,
        visit: &Visit<'_>,
    ) -> Answer {
        match grant {
            Grant::Granted => self.redirect(target, now, status, visit),
            Grant::UsedUp => self.refusal(StatusCode::GONE, visit.headers),
            Grant::Outdated => self.refusal(StatusCode::SERVICE_UNAVAILABLE, visit.headers),
            Grant::Unknown(error) => {
                self.lookup.metrics.unanswered(error.reason());
                self.refusal(StatusCode::SERVICE_UNAVAILABLE, visit.headers)
            }
        }
    }

    /// Answers for a link that is not followed now.
    pub(crate) fn not_followed(&self, verdict: Verdict, headers: &HeaderMap) -> Answer {
        let status = match verdict {
            Verdict::Password => return pages::password(Asked::First, headers),
            Verdict::Gone => StatusCode::GONE,
            Verdict::Blocked => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
            Verdict::NotFound | Verdict::Redirect => StatusCode::NOT_FOUND,
        };
        self.refusal(status, headers)
    }

    /// Sends a visitor to where a link leads, or shows that first, and counts it.
    fn redirect(
        &self,
        target: &Target,
        now: Timestamp,
        status: StatusCode,
        visit: &Visit<'_>,
    ) -> Answer {
        let query = visit.query.filter(|_| target.forward_query);
        let location = query
            .and_then(|query| with_query(target.long_url(), query))
            .unwrap_or_else(|| target.location());
        let kept = if target.may_be_kept() {
            KEPT_BRIEFLY
        } else {
            NOT_KEPT
        };
        let must_be_seen = target.bar() == Some(Bar::MixedScripts);
        let status = if must_be_seen { StatusCode::OK } else { status };
        if visit.counts {
            self.clicks.record(&Hit {
                link: ClickedLink {
                    domain: target.domain.0,
                    slug: target.slug(),
                    id: target.id.0,
                    tenant: target.tenant(),
                },
                status: status.as_u16(),
                headers: visit.headers,
                client: visit.client.ip(),
                at: now,
                trace: traces::place(),
            });
        }
        if must_be_seen && let Ok(destination) = location.to_str() {
            return pages::suspect(destination);
        }
        sent_to(location, status, kept)
    }

    /// Answers that a slug leads nowhere.
    pub(crate) fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Answer {
        match status {
            StatusCode::NOT_FOUND => self.absent(&Problem::no_such_link(), headers),
            status => pages::refusal(status, headers),
        }
    }

    /// Answers that there is nothing here, unless the operator has a better place.
    pub(crate) fn absent(&self, problem: &Problem, headers: &HeaderMap) -> Answer {
        match &self.elsewhere.unknown_slug {
            Some(place) => sent_to(place.clone(), StatusCode::FOUND, NOT_KEPT),
            None => pages::refused(problem, headers),
        }
    }
}

fn status_of(target: &Target) -> StatusCode {
    StatusCode::from_u16(target.redirect_status.code()).expect("301, 302, 307 and 308 are statuses")
}

pub(crate) fn sent_to(location: HeaderValue, status: StatusCode, kept: HeaderValue) -> Answer {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, kept);
    response
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
