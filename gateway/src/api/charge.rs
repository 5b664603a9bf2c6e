//! Counting requests against the limits, once it is known whose they are.

use http::request::Parts;

use super::auth::Asker;
use super::{Api, Problem};
use crate::client::ClientAddress;
use crate::limits::{Granted, Subject};

/// Counts one create. Before the body is read: who sends nonsense is limited as well.
pub(super) async fn create(api: &Api, parts: &mut Parts, asker: &Asker) -> Result<(), Problem> {
    let subject = subject(parts, asker);
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
pub(super) async fn edit(api: &Api, parts: &mut Parts, asker: &Asker) -> Result<(), Problem> {
    let subject = subject(parts, asker);
    let granted = api.0.limits.edit(&subject).await;
    granted.map_err(Problem::rate_limited)
}

/// Counts one read.
pub(super) async fn read(api: &Api, parts: &mut Parts, asker: &Asker) -> Result<(), Problem> {
    let subject = subject(parts, asker);
    api.0.limits.read(&subject).map_err(Problem::rate_limited)
}

/// Who has a token is its holder, wherever it comes from; who has none is an address.
fn subject(parts: &Parts, asker: &Asker) -> Subject {
    match (&asker.key, parts.extensions.get::<ClientAddress>()) {
        (Some(key), _) => Subject::Key(key.clone()),
        (None, Some(client)) => Subject::address(*client),
        (None, None) => Subject::Key(asker.tenant.clone()),
    }
}
