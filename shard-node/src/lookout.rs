//! Watches whether Redis is still the one that took the changes.
//!
//! Redis replicates after it has acknowledged: when a replica is promoted, what the
//! master took last may be missing there, with old values in its place, and nothing
//! says so. The nodes' epoch rises with every election, so that a higher one means
//! that the last changes must be applied again. Until that is done, and while
//! nobody can see the epoch, Redis is not vouched for.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::cache::{Cache, Unseen};

/// How often the epoch is looked at: once for each heartbeat.
const LOOK: Duration = Duration::from_millis(250);

/// How old the last look may be. After that a failover may have gone by unseen.
const BLIND: Duration = Duration::from_secs(1);

/// Looks at the epoch of a cache during one term.
pub(crate) struct Lookout {
    cache: Cache,
    look: Option<BoxFuture<'static, Result<u64, Unseen>>>,
    due_at: Instant,
    vouching: Vouching,
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    None,
    /// What was applied so far may be missing.
    Changed,
}

impl Lookout {
    pub(crate) fn begin(cache: &Cache) -> Self {
        let now = Instant::now();
        Self {
            cache: cache.clone(),
            look: None,
            due_at: now,
            vouching: Vouching::begin(now),
        }
    }

    /// Waits for the next look. May be dropped and called again.
    pub(crate) async fn news(&mut self) -> News {
        if self.cache.is_none() {
            return std::future::pending().await;
        }
        if self.look.is_none() {
            sleep_until(self.due_at).await;
        }
        let cache = self.cache.clone();
        let begin = || Box::pin(async move { cache.epoch().await }) as BoxFuture<_>;
        let seen = self.look.get_or_insert_with(begin).await;
        self.look = None;
        let now = Instant::now();
        self.due_at = now + LOOK;
        match seen {
            Ok(epoch) => self.vouching.saw(epoch, now),
            Err(error) => {
                tracing::debug!(%error, "the epoch of redis cannot be seen");
                News::None
            }
        }
    }

    /// All that may be missing is known to be due again.
    pub(crate) fn settle(&mut self) {
        self.vouching.settle(Instant::now());
    }

    /// For how long Redis has not been vouched for, more than a second; zero if it is.
    pub(crate) fn unvouched(&self) -> Duration {
        if self.cache.is_none() {
            return Duration::ZERO;
        }
        self.vouching.unvouched(Instant::now())
    }
}

/// The state of it, free of I/O.
#[derive(Debug, Clone, Copy)]
struct Vouching {
    epoch: Option<u64>,
    /// The last look that found everything as it was, or since when it is not.
    at: Result<Instant, Instant>,
}

impl Vouching {
    /// Nobody has looked since the last term.
    fn begin(now: Instant) -> Self {
        Self {
            epoch: None,
            at: Err(now),
        }
    }

    fn saw(&mut self, epoch: u64, now: Instant) -> News {
        // Nodes hear of an election one after the other: a lower epoch is no news.
        if self.epoch.is_none_or(|known| epoch > known) {
            self.epoch = Some(epoch);
            self.at = Err(now);
            return News::Changed;
        }
        if let Ok(at) = &mut self.at {
            *at = now;
        }
        News::None
    }

    fn settle(&mut self, now: Instant) {
        self.at = Ok(now);
    }

    fn unvouched(&self, now: Instant) -> Duration {
        match self.at {
            Ok(at) if now - at <= BLIND => Duration::ZERO,
            Ok(at) => now - at,
            Err(since) => BLIND + Duration::from_millis(1) + (now - since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_vouched_for_only_after_a_look_and_while_looks_go_on() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut vouching = Vouching::begin(start);
        assert!(vouching.unvouched(start) > BLIND, "before the first look");
        assert_eq!(vouching.saw(7, at(10)), News::Changed);
        assert!(vouching.unvouched(at(10)) > BLIND, "not applied again yet");
        assert_eq!(vouching.saw(7, at(15)), News::None);
        assert!(vouching.unvouched(at(15)) > BLIND, "a look settles nothing");
        vouching.settle(at(20));
        assert_eq!(vouching.unvouched(at(1_020)), Duration::ZERO);
        assert!(vouching.unvouched(at(1_021)) > BLIND, "blind");
        assert_eq!(vouching.saw(6, at(1_100)), News::None, "a node behind");
        assert_eq!(vouching.unvouched(at(2_000)), Duration::ZERO);
        assert_eq!(vouching.saw(8, at(2_000)), News::Changed);
        assert!(vouching.unvouched(at(2_000)) > BLIND);
    }
}
