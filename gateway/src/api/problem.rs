//! Errors as RFC 9457 problem documents, each with a code that never changes.

mod code;
mod documented;

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Serialize;
use waypost_domain::destination::{Purpose, Refusal};
use waypost_domain::{long_url, slug};

pub use code::Code;
pub use documented::table;
pub(crate) use documented::{problems, responses};

use super::preview;
use crate::limits::Exceeded;
use crate::protection::Refused;
use crate::shards;

/// What a client is told when something is wrong.
///
/// A problem document (RFC 9457).
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status and the code say what it is about.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    status: u16,
    #[schema(schema_with = documented::code_schema)]
    code: Code,
    /// What is wrong this time, for people.
    #[schema(example = "There is no such link.")]
    detail: Cow<'static, str>,
    #[serde(skip)]
    retry_after: Option<u32>,
    /// What `WWW-Authenticate` says (RFC 6750, section 3).
    #[serde(skip)]
    challenge: Option<Cow<'static, str>>,
}

impl Problem {
    /// The code says the status; the detail is about this one case.
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let status = code.status();
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            retry_after: None,
            challenge: None,
        }
    }

    /// Tells the client to come back, in seconds.
    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Tells the client what kind of token would do.
    pub(crate) fn challenge(mut self, challenge: impl Into<Cow<'static, str>>) -> Self {
        self.challenge = Some(challenge.into());
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The answer that says so.
    pub(crate) fn answer(&self) -> http::Response<Full<Bytes>> {
        let body = serde_json::to_vec(self).expect("texts and numbers are JSON");
        let mut response = http::Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        self.say_when(headers);
        if let Some(challenge) = &self.challenge {
            let challenge = HeaderValue::try_from(challenge.as_ref());
            let challenge = challenge.expect("challenges are made of visible ASCII");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// Adds the time to come back, if there is one.
    pub(crate) fn say_when(&self, headers: &mut HeaderMap) {
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn no_such_link() -> Self {
        Self::new(Code::LinkNotFound, "There is no such link.")
    }

    pub(crate) fn gone() -> Self {
        Self::new(Code::LinkGone, "The link was deleted or has expired.")
    }

    /// It would be a surprise to find a link again that was deleted, because a request was
    /// sent twice.
    pub(crate) fn key_ended() -> Self {
        Self::new(
            Code::LinkGone,
            "The link that was made with this Idempotency-Key was deleted or has expired. Send \
             another key to make another link.",
        )
    }

    pub(crate) fn blocked() -> Self {
        Self::new(Code::LinkBlocked, "The link was taken down.")
    }

    pub(crate) fn cannot_be_found_out() -> Self {
        Self::new(
            Code::ShardUnavailable,
            "Where this link leads cannot be found out at the moment. Try again.",
        )
        .retry_after(2)
    }

    pub(crate) fn password_required() -> Self {
        Self::new(
            Code::PasswordRequired,
            "The link asks for a password. Send it to this address: POST, \
             Content-Type: application/x-www-form-urlencoded, password=..",
        )
        .challenge("Form realm=\"link\"")
    }

    pub(crate) fn password_wrong() -> Self {
        Self::new(Code::PasswordWrong, "That is not the password of the link.")
    }

    pub(crate) fn too_many_attempts(seconds: u32) -> Self {
        Self::new(
            Code::TooManyAttempts,
            "Too many passwords were tried. Wait, then try again.",
        )
        .retry_after(seconds)
    }

    pub(crate) fn passwords_overloaded() -> Self {
        Self::new(
            Code::Overloaded,
            "Too many passwords wait to be worked out. Nothing was done; try again.",
        )
        .retry_after(1)
    }

    pub(crate) fn alias_reserved() -> Self {
        Self::new(
            Code::AliasReserved,
            "This word is reserved. Choose another alias.",
        )
    }

    pub(crate) fn alias_taken() -> Self {
        Self::new(
            Code::AliasTaken,
            "The alias belongs to another link. Choose another one.",
        )
    }

    pub(crate) fn key_reused() -> Self {
        Self::new(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key was used for another request. Nothing was created; \
             use a new key.",
        )
    }

    pub(crate) fn version_mismatch() -> Self {
        Self::new(
            Code::VersionMismatch,
            "The link has changed meanwhile. Read it again, then repeat the edit.",
        )
    }

    pub(crate) fn no_keys() -> Self {
        Self::new(
            Code::KeysUnavailable,
            "No slug is free at the moment. Nothing was created; try again.",
        )
        .retry_after(1)
    }

    pub(crate) fn rate_limited(exceeded: Exceeded) -> Self {
        Self::new(
            Code::RateLimited,
            format!(
                "The limit \"{}\" is reached. Nothing was done; try again after the seconds of \
                 Retry-After.",
                exceeded.limit.name()
            ),
        )
        .retry_after(exceeded.retry_after())
    }

    pub(crate) fn overloaded() -> Self {
        Self::new(
            Code::Overloaded,
            "Too many requests of this kind are under way. Nothing was done; try again.",
        )
        .retry_after(1)
    }

    pub(crate) fn statistics_unavailable() -> Self {
        Self::new(
            Code::StatisticsUnavailable,
            "Statistics cannot be read at the moment. Clicks are counted all the same.",
        )
        .retry_after(2)
    }
}

/// What any request may meet that asks a shard.
pub(super) const OF_SHARDS: &[Code] = &[Code::Overloaded, Code::ShardUnavailable, Code::Internal];

/// A read that no shard answered.
impl From<shards::Error> for Problem {
    fn from(error: shards::Error) -> Self {
        match error {
            shards::Error::Overloaded => Self::new(
                Code::Overloaded,
                "Too many requests wait for this part of the links. Nothing was done; try again.",
            )
            .retry_after(1),
            shards::Error::Unavailable | shards::Error::Unconfirmed => Self::new(
                Code::ShardUnavailable,
                "The part of the links that this one belongs to cannot be reached. \
                 A change may or may not have been made; try again.",
            )
            .retry_after(2),
            shards::Error::Refused(_) => Self::new(
                Code::Internal,
                "The request could not be carried out. The operator finds the reason in the log.",
            ),
        }
    }
}

/// What may be wrong with a destination.
pub(super) const OF_URLS: &[Code] = &[
    Code::UrlTooLong,
    Code::UrlMalformed,
    Code::UrlSchemeRefused,
    Code::UrlWithoutHost,
    Code::UrlWithCredentials,
    Code::UrlWithControlCharacters,
    Code::UrlHostInvalid,
    Code::UrlPortInvalid,
    Code::UrlOwnDomain,
    Code::UrlNotPublic,
    Code::UrlMixedScripts,
    Code::UrlBlocked,
];

impl From<long_url::Error> for Problem {
    fn from(error: long_url::Error) -> Self {
        let (code, detail) = match error {
            long_url::Error::TooLong => (Code::UrlTooLong, "A URL has at most 8192 bytes."),
            long_url::Error::Malformed => (
                Code::UrlMalformed,
                "This is not an absolute URL. It starts with https:// or http://.",
            ),
            long_url::Error::Scheme => (
                Code::UrlSchemeRefused,
                "Only http and https URLs can be shortened.",
            ),
            long_url::Error::NoHost => (Code::UrlWithoutHost, "The URL names no host."),
            long_url::Error::UserInfo => (
                Code::UrlWithCredentials,
                "The URL holds a user name or a password; leave them out.",
            ),
            long_url::Error::ControlCharacter => (
                Code::UrlWithControlCharacters,
                "The URL holds control characters, or spaces around it; leave them out.",
            ),
            long_url::Error::HostName => (
                Code::UrlHostInvalid,
                "The URL's host name has an empty part, or one that is too long to exist.",
            ),
            long_url::Error::Port => (
                Code::UrlPortInvalid,
                "The URL's port is no number from 1 to 65535.",
            ),
        };
        Self::new(code, detail)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (code, detail) = match refused {
            Refused::Rule(Refusal::OwnDomain) => (
                Code::UrlOwnDomain,
                "The URL leads back to this service. Use the URL that the short link leads to.",
            ),
            Refused::Rule(Refusal::Address(purpose)) => (Code::UrlNotPublic, not_public(purpose)),
            Refused::Rule(Refusal::LocalName) => (
                Code::UrlNotPublic,
                "The URL's host name is only known on a machine or in a network of its own. \
                 Use a public one.",
            ),
            Refused::Rule(Refusal::MixedScripts) => (
                Code::UrlMixedScripts,
                "The URL's host mixes alphabets, as hosts do that imitate others. Check each \
                 letter of it.",
            ),
            Refused::Blocked => (
                Code::UrlBlocked,
                "The operator of this service has blocked the URL's host, or this part of it. \
                 Use another destination.",
            ),
        };
        Self::new(code, detail)
    }
}

fn not_public(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Loopback => {
            "The URL's address is each visitor's own machine. Use a public host name."
        }
        Purpose::Private => "The URL's address is in a private network. Use a public host name.",
        Purpose::LinkLocal => {
            "The URL's address holds on a single network link. Use a public host name."
        }
        Purpose::Shared => {
            "The URL's address is in a provider's own network. Use a public host name."
        }
        Purpose::Metadata => {
            "The URL's address is the one of a cloud's metadata service. Use a public host name."
        }
        Purpose::Unspecified => "The URL's address is none. Use a public host name.",
        Purpose::Multicast => {
            "The URL's address is that of a group, not of a site. Use a public host name."
        }
        Purpose::Reserved => {
            "The URL's address is reserved, and no site is there. Use a public host name."
        }
    }
}

impl From<slug::Error> for Problem {
    fn from(error: slug::Error) -> Self {
        let detail = match error {
            slug::Error::Length => "An alias has 3 to 64 characters.",
            slug::Error::Character => "An alias consists of 0-9, A-Z, a-z, '-' and '_'.",
            slug::Error::Prefix => "An alias starts with two characters of 0-9, A-Z, a-z.",
        };
        Self::new(Code::AliasInvalid, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.answer().map(axum::body::Body::new)
    }
}

pub(super) async fn no_such_route() -> Problem {
    Problem::new(Code::RouteNotFound, "There is nothing at this path.")
}

pub(super) async fn method_not_allowed(uri: Uri) -> Response {
    let problem = Problem::new(
        Code::MethodNotAllowed,
        "This path does not take this method.",
    );
    let mut response = problem.into_response();
    // It shares the route of its link, which takes more.
    if preview::previewed(uri.path()).is_some() {
        let read_only = HeaderValue::from_static("GET,HEAD");
        response.headers_mut().insert(header::ALLOW, read_only);
    }
    response
}
