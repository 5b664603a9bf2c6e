//! Sleeping until a due time, to a few tens of microseconds.
//!
//! The timers of the runtime are good to a millisecond, which would be the
//! largest part of a redirect's latency. On Linux a timer file descriptor
//! wakes the event loop itself, at the clock's own precision.

use std::io;
use std::time::Instant;

pub use platform::Timer;

#[cfg(target_os = "linux")]
mod platform {
    use std::os::fd::{AsFd as _, AsRawFd, RawFd};

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;

    use super::{Instant, io};

    /// A precise timer for one sleeper.
    #[derive(Debug)]
    pub struct Timer(AsyncFd<Descriptor>);

    #[derive(Debug)]
    struct Descriptor(TimerFd);

    impl AsRawFd for Descriptor {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }

    impl Timer {
        /// A timer on the runtime this is called in.
        ///
        /// # Errors
        /// When the system has no descriptor left.
        #[expect(
            deprecated,
            reason = "its successor is unsafe: it wants the descriptor to stay open and the same, \
                      and ours is owned by the timer and never changed"
        )]
        pub fn new() -> io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            Ok(Self(AsyncFd::new(Descriptor(timer))?))
        }

        /// Returns at `due` or just after, never before.
        ///
        /// # Errors
        /// When the system refuses to set the timer.
        pub async fn sleep_until(&mut self, due: Instant) -> io::Result<()> {
            // A loop, because a wake-up may be left over from an earlier timer.
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                let expiry = Expiration::OneShot(TimeSpec::from_duration(left));
                self.0.get_ref().0.set(expiry, TimerSetTimeFlags::empty())?;
                // Setting the timer resets its count of expiries, so there is
                // nothing to read: only the readiness has to be forgotten.
                self.0.readable().await?.clear_ready();
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use super::{Instant, io};

    /// A timer as good as the runtime's: to a millisecond.
    #[derive(Debug)]
    pub struct Timer(());

    impl Timer {
        /// Always succeeds here.
        pub fn new() -> io::Result<Self> {
            Ok(Self(()))
        }

        /// Returns at `due` or up to a millisecond after, never before.
        pub async fn sleep_until(&mut self, due: Instant) -> io::Result<()> {
            tokio::time::sleep_until(due.into()).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_sleep_never_ends_early() {
        let mut timer = Timer::new().unwrap();
        for micros in [0, 30, 150, 700, 3_000] {
            let due = Instant::now() + Duration::from_micros(micros);
            timer.sleep_until(due).await.unwrap();
            assert!(Instant::now() >= due);
        }
    }
}
