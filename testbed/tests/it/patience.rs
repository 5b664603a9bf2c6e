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

/// Waits until something is what it should be, and shows what it is if it never is.
#[track_caller]
pub(crate) fn wait_for<T: PartialEq + std::fmt::Debug>(expected: &T, is: impl Fn() -> T) {
    let started = Instant::now();
    while is() != *expected && started.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(is(), *expected);
}
