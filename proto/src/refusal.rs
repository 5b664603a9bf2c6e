//! Refusals before anything was done: safe to repeat elsewhere, whatever the call.

use std::error::Error;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Set on a status whose call had no effect.
const NOTHING_DONE: &str = "waypost-nothing-done";

/// UNAVAILABLE from a process that has not begun with the call.
#[must_use]
pub fn not_ready(message: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(NOTHING_DONE, MetadataValue::from_static("1"));
    Status::with_metadata(Code::Unavailable, message, metadata)
}

/// Whether a failed call certainly had no effect: its server says so, there was no
/// connection to send it over, or the server had closed its end before it came.
#[must_use]
pub fn nothing_done(status: &Status) -> bool {
    status.metadata().contains_key(NOTHING_DONE)
        || causes(status).any(|error| error.is::<tonic::ConnectError>() || was_not_taken(error))
}

/// Whether no server has spoken: such a status is made of a broken transport, which
/// is its source, whatever its code.
#[must_use]
pub fn is_of_transport(status: &Status) -> bool {
    causes(status).next().is_some()
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = status.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// HTTP/2's own promise that a stream was not looked at (RFC 9113, 8.7).
fn was_not_taken(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<h2::Error>().is_some_and(|error| {
        let is_going = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (is_going || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}
