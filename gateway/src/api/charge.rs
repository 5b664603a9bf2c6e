//! Counting requests against the limits, once it is known whose they are.

use http::header::AUTHORIZATION;
use http::request::Parts;

use super::{Api, Problem};
use crate::client::ClientAddress;
use crate::limits::{Granted, Subject};

/// Counts one create. Before the body is read: who sends nonsense is limited as well.
pub(super) async fn create(api: &Api, parts: &mut Parts, tenant: &str) -> Result<(), Problem> {
    let subject = subject(parts, tenant);
    let granted = api.0.limits.creates(&subject, 1).await;
    // Counted on when a batch turns out to be many.
    parts.extensions.insert(subject);
    granted
        .exceeded
        .map_or(Ok(()), |exceeded| Err(Problem::rate_limited(exceeded)))
}

/// How many of a batch's links may be created, the first of which is counted already.
pub(super) async fn batch(api: &Api, subject: &Subject, links: usize) -> Granted {
    let more = u32::try_from(links.saturating_sub(1)).unwrap_or(u32::MAX);
    let granted = api.0.limits.creates(subject, more).await;
    Granted {
        count: granted.count + 1,
        ..granted
    }
}

/// Counts one edit. Before the body is read, as with creates.
pub(super) async fn edit(api: &Api, parts: &mut Parts, tenant: &str) -> Result<(), Problem> {
    let subject = subject(parts, tenant);
    let granted = api.0.limits.edit(&subject).await;
    granted.map_err(Problem::rate_limited)
}

/// Counts one read.
pub(super) async fn read(api: &Api, parts: &mut Parts, tenant: &str) -> Result<(), Problem> {
    let subject = subject(parts, tenant);
    api.0.limits.read(&subject).map_err(Problem::rate_limited)
}

/// Who has a token is its tenant, wherever it comes from; who has none is an address.
fn subject(parts: &Parts, tenant: &str) -> Subject {
    match parts.extensions.get::<ClientAddress>() {
        Some(client) if !parts.headers.contains_key(AUTHORIZATION) => Subject::address(*client),
        _ => Subject::Tenant(tenant.to_owned()),
    }
}
