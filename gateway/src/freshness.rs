//! Whether what is cached of a shard may be believed.
//!
//! Each shard streams its changes with a heartbeat every 250 ms. While it is
//! heard and its changes reach Redis in time, caches are right by construction.
//! Otherwise what they hold must be asked again at the shard.
//!
//! A *stretch* is the time of one subscription. What was read before a stretch
//! began may have changed unseen, so that only what was read within it is believed.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use waypost_domain::{Epoch, Timestamp};

use crate::routing::ShardIndex;

/// Silence after which a shard's changes may have been missed.
pub(crate) const SILENCE: Duration = Duration::from_millis(1_500);

/// Age of a change not yet in Redis above which Redis is behind.
const UNAPPLIED: Duration = Duration::from_secs(1);

/// How long an entry may be served that the shard cannot confirm: the longest that
/// an edit may stay unseen across a partition.
const HARD_TTL: Duration = Duration::from_secs(120);

/// Of which shard an entry was read, under which epoch of its prefix, in which stretch, and
/// when. Taken *before* the shard or Redis is asked.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    shard: ShardIndex,
    /// The low bits: a prefix that comes back to its shard has another epoch.
    epoch: u16,
    /// 32 bits last for millennia of subscriptions, and a cache holds millions of these.
    stretch: u32,
    at_ms: u64,
}

/// The stretch of what was read in none: the first has number 1.
const NO_STRETCH: u32 = 0;

impl Stamp {
    /// The same, for a prefix whose owner is known under this epoch.
    #[must_use]
    pub fn under(self, epoch: Epoch) -> Self {
        Self {
            epoch: epoch.get() as u16,
            ..self
        }
    }

    /// Whether the prefix has had the same owner since, as far as is known.
    #[must_use]
    pub fn is_under(self, epoch: Epoch) -> bool {
        self.epoch == epoch.get() as u16
    }

    pub(crate) fn shard(self) -> ShardIndex {
        self.shard
    }

    /// The same for what a replica said: it may lack changes that were told already,
    /// so that it is to be asked again, however soon.
    #[must_use]
    pub fn of_replica(self) -> Self {
        Self {
            stretch: NO_STRETCH,
            ..self
        }
    }
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
    shard: ShardIndex,
    started: Instant,
    stretch: AtomicU32,
    /// When the stretch began, in milliseconds since `started`.
    begun_ms: AtomicU64,
    /// The last heartbeat of this stretch; 0: none yet, or the stream has ended.
    heard_ms: AtomicU64,
    /// The age of the oldest change that was not in Redis then.
    unapplied_ms: AtomicU64,
    /// The shard's clock minus the time since `started`: a clock of ours that is set
    /// changes nothing.
    clock_offset_ms: AtomicI64,
    /// The last two stretches that were heard, and when last: so long their entries
    /// were right. Read only when an entry is not fresh.
    confirmed: Mutex<[(u32, u64); 2]>,
}

impl Freshness {
    #[must_use]
    pub fn of(shard: ShardIndex) -> Self {
        let ours = Timestamp::from(SystemTime::now()).millis();
        Self(Arc::new(Inner {
            shard,
            started: Instant::now(),
            stretch: AtomicU32::new(1),
            begun_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            unapplied_ms: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(ours),
            confirmed: Mutex::new([(NO_STRETCH, 0); 2]),
        }))
    }

    /// The shard has accepted a subscription: changes from now on are told.
    pub fn begin(&self) {
        self.begin_at(self.now_ms());
    }

    fn begin_at(&self, now: u64) {
        self.0.heard_ms.store(0, Ordering::Release);
        self.0.begun_ms.store(now, Ordering::Release);
        self.0.stretch.fetch_add(1, Ordering::AcqRel);
    }

    /// A heartbeat has arrived.
    pub fn heard(&self, clock_ms: i64, oldest_unapplied: Duration) {
        let now = self.now_ms();
        let offset = clock_ms.saturating_sub_unsigned(now);
        self.0.clock_offset_ms.store(offset, Ordering::Relaxed);
        self.heard_at(now, oldest_unapplied);
    }

    fn heard_at(&self, now: u64, oldest_unapplied: Duration) {
        let stretch = self.0.stretch.load(Ordering::Acquire);
        {
            let mut confirmed = self.confirmed();
            if confirmed[0].0 != stretch {
                confirmed[1] = confirmed[0];
            }
            confirmed[0] = (stretch, now);
        }
        self.0
            .unapplied_ms
            .store(millis(oldest_unapplied), Ordering::Relaxed);
        self.0.heard_ms.store(now, Ordering::Release);
    }

    /// The stream has ended.
    pub fn end(&self) {
        self.0.heard_ms.store(0, Ordering::Release);
    }

    /// Time since the last heartbeat of any stretch, or since the start.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let heard = self.confirmed()[0].1;
        Duration::from_millis(self.now_ms().saturating_sub(heard))
    }

    /// The number of the present stretch, or of the last one.
    #[must_use]
    pub fn stretch(&self) -> u32 {
        self.0.stretch.load(Ordering::Acquire)
    }

    /// Whether there was a heartbeat, ever.
    #[must_use]
    pub fn was_heard(&self) -> bool {
        self.confirmed()[0].0 != NO_STRETCH
    }

    /// The age of the oldest change that Redis lacked at the last heartbeat.
    #[must_use]
    pub fn unapplied(&self) -> Duration {
        Duration::from_millis(self.0.unapplied_ms.load(Ordering::Relaxed))
    }

    /// Whether the stream is heard.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.is_live_at(self.now_ms())
    }

    fn is_live_at(&self, now: u64) -> bool {
        let heard = self.0.heard_ms.load(Ordering::Acquire);
        heard > 0 && now.saturating_sub(heard) <= millis(SILENCE)
    }

    /// Whether Redis has what the shard has, within the second. A change that is
    /// older than the stretch and not in Redis was perhaps never told to us.
    #[must_use]
    pub fn redis_is_current(&self) -> bool {
        self.redis_is_current_at(self.now_ms())
    }

    fn redis_is_current_at(&self, now: u64) -> bool {
        let unapplied = self.0.unapplied_ms.load(Ordering::Relaxed);
        let heard = self.0.heard_ms.load(Ordering::Acquire);
        let listened = heard.saturating_sub(self.0.begun_ms.load(Ordering::Acquire));
        let is_told = unapplied == 0 || unapplied < listened;
        self.is_live_at(now) && is_told && unapplied <= millis(UNAPPLIED)
    }

    /// The stamp for what is asked for now. What changes meanwhile is told in this
    /// very stretch, or the stretch ends.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp_at(self.now_ms())
    }

    fn stamp_at(&self, now: u64) -> Stamp {
        Stamp {
            shard: self.0.shard,
            epoch: 0,
            stretch: self.0.stretch.load(Ordering::Acquire),
            at_ms: now,
        }
    }

    /// When the stamp was taken, to the millisecond.
    #[must_use]
    pub fn when(&self, stamp: Stamp) -> Instant {
        self.0.started + Duration::from_millis(stamp.at_ms)
    }

    /// What may be done with an entry of that stamp.
    #[must_use]
    pub fn trust(&self, stamp: Stamp, now: Instant) -> Trust {
        self.trust_at(stamp, self.ms(now))
    }

    fn trust_at(&self, stamp: Stamp, now: u64) -> Trust {
        let is_ours = stamp.shard == self.0.shard;
        let stretch = self.0.stretch.load(Ordering::Acquire);
        if is_ours && stamp.stretch == stretch && self.is_live_at(now) {
            return Trust::Fresh;
        }
        // An entry was right as long as its stretch was heard, however old it is.
        let heard = self
            .confirmed()
            .iter()
            .find(|(stretch, _)| is_ours && *stretch == stamp.stretch)
            .map_or(0, |(_, heard)| *heard);
        let right_until = stamp.at_ms.max(heard);
        if now.saturating_sub(right_until) <= millis(HARD_TTL) {
            Trust::Stale
        } else {
            Trust::Expired
        }
    }

    /// The shard's clock, which alone judges expiry.
    #[must_use]
    pub fn shard_time(&self, now: Instant) -> Timestamp {
        let offset = self.0.clock_offset_ms.load(Ordering::Relaxed);
        let millis = offset.saturating_add_unsigned(self.ms(now));
        Timestamp::from_millis(millis).unwrap_or(Timestamp::MAX)
    }

    fn confirmed(&self) -> std::sync::MutexGuard<'_, [(u32, u64); 2]> {
        self.0
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.ms(Instant::now())
    }

    /// At least 1, so that 0 can stand for "never".
    fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0.started).as_millis() as u64 + 1
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshness() -> Freshness {
        Freshness::of(ShardIndex(0))
    }

    #[test]
    fn only_what_was_read_within_the_live_stretch_is_believed() {
        let freshness = freshness();
        freshness.begin_at(10);
        freshness.heard_at(20, Duration::ZERO);
        let read = freshness.stamp_at(21);
        assert_eq!(freshness.trust_at(read, 1_520), Trust::Fresh);
        assert_eq!(freshness.trust_at(read, 1_521), Trust::Stale, "silence");
        freshness.end();
        // Read at the shard between two streams: a change may go by unseen.
        let between = freshness.stamp_at(30);
        freshness.begin_at(40);
        freshness.heard_at(50, Duration::ZERO);
        assert_eq!(freshness.trust_at(between, 51), Trust::Stale);
        assert_eq!(freshness.trust_at(read, 51), Trust::Stale);
        assert_eq!(freshness.trust_at(freshness.stamp_at(51), 52), Trust::Fresh);
    }

    #[test]
    fn an_old_entry_that_was_confirmed_until_now_outlives_its_shard_by_the_hard_ttl() {
        let freshness = freshness();
        freshness.begin_at(10);
        freshness.heard_at(11, Duration::ZERO);
        let read = freshness.stamp_at(12);
        freshness.heard_at(900_000, Duration::ZERO);
        freshness.end();
        assert_eq!(freshness.trust_at(read, 1_020_000), Trust::Stale);
        assert_eq!(freshness.trust_at(read, 1_020_001), Trust::Expired);
        // Tries to subscribe that fail do not make it older.
        freshness.begin_at(900_100);
        freshness.end();
        assert_eq!(freshness.trust_at(read, 1_020_000), Trust::Stale);
    }

    #[test]
    fn redis_is_believed_only_if_we_were_told_of_all_that_it_lacks() {
        let freshness = freshness();
        freshness.begin_at(10_000);
        freshness.heard_at(10_100, Duration::from_millis(50));
        assert!(freshness.redis_is_current_at(10_101));
        // Older than our subscription: told to somebody else, or to nobody.
        freshness.heard_at(10_200, Duration::from_millis(300));
        assert!(!freshness.redis_is_current_at(10_201));
        freshness.heard_at(20_000, Duration::from_millis(1_001));
        assert!(!freshness.redis_is_current_at(20_001), "too far behind");
        freshness.heard_at(20_100, Duration::ZERO);
        assert!(freshness.redis_is_current_at(20_101));
        assert!(!freshness.redis_is_current_at(30_000), "silence");
    }

    #[test]
    fn what_a_replica_said_is_never_believed_and_expires_from_when_it_was_asked() {
        let freshness = freshness();
        freshness.begin_at(10);
        freshness.heard_at(20, Duration::ZERO);
        let read = freshness.stamp_at(21).of_replica();
        assert_eq!(freshness.trust_at(read, 22), Trust::Stale);
        freshness.heard_at(100_000, Duration::ZERO);
        assert_eq!(freshness.trust_at(read, 120_021), Trust::Stale);
        assert_eq!(freshness.trust_at(read, 120_022), Trust::Expired);
    }

    #[test]
    fn a_stamp_is_under_the_epoch_that_it_was_given() {
        let epoch = |number| Epoch::new(number).unwrap();
        let stamp = freshness().stamp();
        assert!(!stamp.is_under(epoch(1)));
        let stamp = stamp.under(epoch(1)).of_replica();
        assert!(stamp.is_under(epoch(1)) && !stamp.is_under(epoch(2)));
        // No entry of the cache is larger for it.
        assert_eq!(size_of::<Stamp>(), 16);
    }

    #[test]
    fn another_shards_stamp_is_not_believed() {
        let (here, there) = (freshness(), Freshness::of(ShardIndex(1)));
        for each in [&here, &there] {
            each.begin_at(10);
            each.heard_at(11, Duration::ZERO);
        }
        assert_eq!(here.trust_at(there.stamp_at(12), 13), Trust::Stale);
    }

    #[test]
    fn the_shards_clock_is_followed() {
        let freshness = freshness();
        assert!(!freshness.was_heard());
        let ours = Timestamp::from(SystemTime::now()).millis();
        freshness.heard(ours + 60_000, Duration::ZERO);
        assert!(freshness.was_heard());
        let ahead = freshness.shard_time(Instant::now()).millis() - ours;
        assert!((60_000..61_000).contains(&ahead), "{ahead} ms ahead");
    }
}
