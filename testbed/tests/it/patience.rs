//! Waiting for a condition.

use std::time::{Duration, Instant};

/// A failover takes some three seconds, on a busy machine more.
const DEADLINE: Duration = Duration::from_secs(30);

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what}: not in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
