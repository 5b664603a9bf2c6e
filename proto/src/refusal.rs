//! Refusals before anything was done: safe to repeat elsewhere, whatever the call.

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

/// Whether a failed call certainly had no effect: there was no connection to send
/// it over, or its server says so.
#[must_use]
pub fn nothing_done(status: &Status) -> bool {
    if status.metadata().contains_key(NOTHING_DONE) {
        return true;
    }
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
