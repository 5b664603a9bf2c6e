//! Waiting for a condition.

use std::time::{Duration, Instant};

/// A failover takes some three seconds, on a busy machine more.
const DEADLINE: Duration = Duration::from_secs(30);

#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_until_for(what, DEADLINE, holds);
}

#[track_caller]
pub(crate) fn wait_until_for(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < deadline, "{what}: not in {deadline:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
