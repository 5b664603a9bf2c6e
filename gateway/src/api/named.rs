//! What a path names. Axum's own extractor answers in plain text where the percent-encoding
//! is broken; here that names nothing, as any other text does that is no slug.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use waypost_domain::{DomainId, LinkKey, Slug};

use super::Problem;
use super::problem::no_such_route;

/// The link that a path names, whether or not there is one.
#[derive(Debug)]
pub(super) struct Named(pub(super) LinkKey);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let slug = segment(parts, state).await;
        let slug = slug.and_then(|slug| Slug::parse(&slug).ok());
        // What is no slug names no link.
        let slug = slug.ok_or_else(Problem::no_such_link)?;
        Ok(Self(LinkKey {
            domain: DomainId::MAIN,
            slug,
        }))
    }
}

/// The page that a path names, by a slug or the name of a file.
#[derive(Debug)]
pub(super) struct Page(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match segment(parts, state).await {
            Some(name) => Ok(Self(name)),
            None => Err(no_such_route().await),
        }
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> Option<String> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.ok().map(|Path(segment)| segment)
}
