//! Whether what is cached of a shard may be believed.
//!
//! Each shard streams its changes with a heartbeat every 250 ms. While it is
//! heard and its changes reach Redis in time, caches are right by construction.
//! Otherwise what they hold must be asked again at the shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use waypost_domain::Timestamp;

/// Silence after which a shard's changes may have been missed.
const SILENCE: Duration = Duration::from_millis(1_500);

/// Age of a change not yet in Redis above which Redis is behind.
const UNAPPLIED: Duration = Duration::from_secs(1);

/// How long an entry may be served that the shard cannot confirm: the longest that
/// an edit may stay unseen across a partition.
const HARD_TTL: Duration = Duration::from_secs(120);

/// When and under which stretch of the change stream an entry was believed.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    stretch: u64,
    at_ms: u64,
}

/// What may be done with a cached entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// As good as the shard's own word.
    Fresh,
    /// To be asked again; may be served if the shard cannot be asked.
    Stale,
    /// Too old to be served at all.
    Expired,
}

/// What is known of one shard's change stream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Freshness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// Counts the stretches without a gap; entries of earlier ones are not
    /// believed. Starts at 1; 0 belongs to entries that never were fresh.
    stretch: AtomicU64,
    /// Milliseconds since `started`; 0: no heartbeat in this stretch yet.
    heard_ms: AtomicU64,
    unapplied_ms: AtomicU64,
    /// The shard's clock minus ours.
    clock_offset_ms: AtomicI64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            stretch: AtomicU64::new(1),
            heard_ms: AtomicU64::new(0),
            unapplied_ms: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(0),
        }))
    }
}

impl Freshness {
    /// A heartbeat has arrived.
    pub fn heard(&self, clock_ms: i64, oldest_unapplied: Duration) {
        let ours = Timestamp::from(SystemTime::now()).millis();
        let inner = &self.0;
        inner
            .clock_offset_ms
            .store(clock_ms.saturating_sub(ours), Ordering::Relaxed);
        let unapplied = u64::try_from(oldest_unapplied.as_millis()).unwrap_or(u64::MAX);
        inner.unapplied_ms.store(unapplied, Ordering::Relaxed);
        inner.heard_ms.store(self.now_ms(), Ordering::Release);
    }

    /// The stream has ended: changes may be missed from here on, so that nothing
    /// that was cached before is believed without being asked again.
    pub fn gap(&self) {
        self.0.heard_ms.store(0, Ordering::Release);
        self.0.stretch.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the stream is heard.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let heard = self.0.heard_ms.load(Ordering::Acquire);
        heard > 0 && self.now_ms().saturating_sub(heard) <= SILENCE.as_millis() as u64
    }

    /// Whether Redis has what the shard has, within the second.
    #[must_use]
    pub fn redis_is_current(&self) -> bool {
        self.is_live()
            && self.0.unapplied_ms.load(Ordering::Relaxed) <= UNAPPLIED.as_millis() as u64
    }

    /// The stamp for an answer that is asked for now. Taken *before* asking: what
    /// changes meanwhile comes over the stream of this very stretch, or ends it.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            stretch: self.0.stretch.load(Ordering::Acquire),
            at_ms: self.now_ms(),
        }
    }

    /// What may be done with an entry of that stamp.
    #[must_use]
    pub fn trust(&self, stamp: Stamp) -> Trust {
        if stamp.stretch == self.0.stretch.load(Ordering::Acquire) && self.is_live() {
            Trust::Fresh
        } else if self.now_ms().saturating_sub(stamp.at_ms) <= HARD_TTL.as_millis() as u64 {
            Trust::Stale
        } else {
            Trust::Expired
        }
    }

    /// The shard's clock, which alone judges expiry.
    #[must_use]
    pub fn shard_now(&self) -> Timestamp {
        let ours = Timestamp::from(SystemTime::now()).millis();
        let offset = self.0.clock_offset_ms.load(Ordering::Relaxed);
        Timestamp::from_millis(ours.saturating_add(offset)).unwrap_or(Timestamp::MAX)
    }

    /// At least 1, so that 0 can stand for "never".
    fn now_ms(&self) -> u64 {
        self.0.started.elapsed().as_millis() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_believed_only_within_one_live_stretch() {
        let freshness = Freshness::default();
        let before = freshness.stamp();
        assert_eq!(freshness.trust(before), Trust::Stale);
        freshness.heard(0, Duration::ZERO);
        assert_eq!(freshness.trust(before), Trust::Fresh);
        assert!(freshness.redis_is_current());
        freshness.heard(0, Duration::from_millis(1_001));
        assert_eq!(freshness.trust(before), Trust::Fresh);
        assert!(!freshness.redis_is_current());
        freshness.gap();
        freshness.heard(0, Duration::ZERO);
        assert_eq!(freshness.trust(before), Trust::Stale);
        assert_eq!(freshness.trust(freshness.stamp()), Trust::Fresh);
    }

    #[test]
    fn the_shards_clock_is_followed() {
        let freshness = Freshness::default();
        let ours = Timestamp::from(SystemTime::now()).millis();
        freshness.heard(ours + 60_000, Duration::ZERO);
        let ahead = freshness.shard_now().millis() - ours;
        assert!((60_000..61_000).contains(&ahead), "{ahead} ms ahead");
    }
}
