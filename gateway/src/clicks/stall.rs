//! Says when clicks have waited for long, and when they no longer do.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::log::PublishError;

/// A broker that restarts is back by then; what lasts longer needs a human.
const STALLED: Duration = Duration::from_secs(30);

/// How far the wait has to fall until it is over, so that it is not said by turns.
const OVER: Duration = Duration::from_secs(5);

/// Whether the log takes clicks, as it is told to an operator.
#[derive(Debug, Default)]
pub(super) struct Stall(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_told: bool,
    /// What the log said last; a log that does not answer says nothing.
    reason: Option<String>,
}

impl Stall {
    /// A batch was not taken, and is sent again.
    pub(super) fn note(&self, error: &PublishError) {
        let source = std::error::Error::source(error);
        let reason = source.map_or_else(|| error.to_string(), ToString::to_string);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reason = Some(reason);
    }

    /// So long the oldest click waits.
    pub(super) fn look(&self, waited: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_told && waited > STALLED {
            state.is_told = true;
            let reason = state.reason.as_deref().unwrap_or("no answer");
            let seconds = waited.as_secs();
            tracing::warn!(
                seconds,
                error = reason,
                "the click log takes no clicks, they stay in the spool"
            );
        } else if state.is_told && waited < OVER {
            state.is_told = false;
            tracing::info!("the click log takes clicks again");
        }
        if waited < OVER {
            state.reason = None;
        }
    }
}
