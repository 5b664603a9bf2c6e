//! Errors as RFC 9457 problem documents, each with a code that never changes.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use waypost_domain::{long_url, slug};

use crate::shards;

/// What a client is told when something is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            code,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// Tells the client to come back, in seconds.
    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn refused(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    pub(crate) fn no_such_link() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "link_not_found",
            "There is no such link.",
        )
    }

    pub(crate) fn gone() -> Self {
        Self::new(
            StatusCode::GONE,
            "link_gone",
            "The link was deleted or has expired.",
        )
    }

    pub(crate) fn blocked() -> Self {
        Self::new(
            StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
            "link_blocked",
            "The link was taken down.",
        )
    }

    pub(crate) fn alias_taken() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "alias_taken",
            "The alias belongs to another link. Choose another one.",
        )
    }

    pub(crate) fn key_reused() -> Self {
        Self::refused(
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request. Nothing was created; \
             use a new key.",
        )
    }

    pub(crate) fn version_mismatch() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "version_mismatch",
            "The link has changed meanwhile. Read it again, then repeat the edit.",
        )
    }

    pub(crate) fn no_keys() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "keys_unavailable",
            "No slug is free at the moment. Nothing was created; try again.",
        )
        .retry_after(1)
    }

    pub(crate) fn statistics_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "statistics_unavailable",
            "Statistics cannot be read at the moment. Clicks are counted all the same.",
        )
        .retry_after(2)
    }
}

/// A read that no shard answered.
impl From<shards::Error> for Problem {
    fn from(error: shards::Error) -> Self {
        match error {
            shards::Error::Overloaded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "Too many requests wait for this part of the links. Nothing was done; try again.",
            )
            .retry_after(1),
            shards::Error::Unavailable | shards::Error::Unconfirmed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shard_unavailable",
                "The part of the links that this one belongs to cannot be reached. \
                 A change may or may not have been made; try again.",
            )
            .retry_after(2),
            shards::Error::Refused(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The request could not be carried out. The operator finds the reason in the log.",
            ),
        }
    }
}

impl From<long_url::Error> for Problem {
    fn from(error: long_url::Error) -> Self {
        let detail = match error {
            long_url::Error::TooLong => "A URL has at most 8192 bytes.",
            long_url::Error::Malformed => {
                "This is not an absolute URL. It starts with https:// or http://."
            }
            long_url::Error::Scheme => "Only http and https URLs can be shortened.",
            long_url::Error::NoHost => "The URL names no host.",
            long_url::Error::UserInfo => "The URL holds a user name or a password; leave them out.",
            long_url::Error::ControlCharacter => {
                "The URL holds control characters, or spaces around it; leave them out."
            }
        };
        Self::refused(error.code(), detail)
    }
}

impl From<slug::Error> for Problem {
    fn from(error: slug::Error) -> Self {
        let detail = match error {
            slug::Error::Length => "An alias has 3 to 64 characters.",
            slug::Error::Character => "An alias consists of 0-9, A-Z, a-z, '-' and '_'.",
            slug::Error::Prefix => "An alias starts with two characters of 0-9, A-Z, a-z.",
        };
        Self::refused("alias_invalid", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("texts and numbers are JSON");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"waypost\""),
            );
        }
        response
    }
}

pub(super) async fn no_such_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "route_not_found",
        "There is nothing at this path.",
    )
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path does not take this method.",
    )
}
