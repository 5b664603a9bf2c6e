//! From a slug to its target: L1, then Redis, then the shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use waypost_domain::{DomainId, Link, LinkKey, SlugRef, Timestamp};

use crate::freshness::{Freshness, Stamp, Trust};
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::shards::{self, Resolved, Shards, Source};
use crate::shared_cache::Tier;
use crate::target::Target;

/// An answer that took longer to come may have been overtaken by a change that
/// Redis has already forgotten; it is not put there.
const FILL_WITHIN: Duration = Duration::from_millis(500);

/// What is known of a slug.
#[derive(Debug)]
pub enum Found {
    /// The link, and the shard's clock to judge it by.
    Link(Arc<Target>, Timestamp),
    /// The primary says that there is none.
    Absent,
    /// Nobody who knows could be asked.
    Unknown(shards::Error),
}

/// The read path. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub(crate) l1: Arc<L1>,
    pub(crate) shards: Shards,
    pub(crate) freshness: Arc<[Freshness]>,
    pub(crate) metrics: Metrics,
    pub(crate) shared: Tier,
}

impl Lookup {
    /// The link, if this process holds it and may believe that it is the newest, and
    /// the shard's clock to judge it by: what most visitors need, without waiting.
    #[must_use]
    pub fn held(&self, slug: SlugRef<'_>, now: Instant) -> Option<(Arc<Target>, Timestamp)> {
        let freshness = self.freshness(slug);
        let (target, stamp) = self.l1.get(DomainId::MAIN, slug)?;
        if freshness.trust(stamp, now) != Trust::Fresh {
            return None;
        }
        self.metrics.l1_hit();
        Some((target, freshness.shard_time(now)))
    }

    /// Finds a link that [`Lookup::held`] does not have.
    pub async fn find(&self, key: &LinkKey) -> Found {
        let freshness = self.freshness(key.slug.borrowed());
        let stale = self.l1.get(key.domain, key.slug.borrowed());
        self.metrics
            .cache("l1", if stale.is_some() { "stale" } else { "miss" });
        if let Some(target) = self.in_redis(key, freshness).await {
            return Found::Link(target, freshness.shard_time(Instant::now()));
        }
        match self.at_shard(key).await {
            Ok(Some(target)) => Found::Link(target, freshness.shard_time(Instant::now())),
            Ok(None) => Found::Absent,
            Err(error) => self.last_resort(stale, freshness, error),
        }
    }

    fn freshness(&self, slug: SlugRef<'_>) -> &Freshness {
        let (shard, _) = self.shards.routes().owner(slug.prefix());
        &self.freshness[shard.get()]
    }

    /// To be taken before a write, for what [`Lookup::learn`] is then told.
    #[must_use]
    pub fn stamp(&self, key: &LinkKey) -> Stamp {
        self.freshness(key.slug.borrowed()).stamp()
    }

    /// Keeps a link that a shard has just answered to a write, here and in Redis.
    pub async fn learn(&self, link: &Link, stamp: Stamp) {
        self.keep(link, stamp);
        self.write_through(link).await;
    }

    /// Keeps a link in this process: who created it here finds it here.
    pub fn keep(&self, link: &Link, stamp: Stamp) {
        self.l1.put(Arc::new(Target::from(link)), stamp);
    }

    /// Puts a link into Redis, where there is one.
    pub async fn write_through(&self, link: &Link) {
        self.shared.put(link).await;
    }

    async fn in_redis(&self, key: &LinkKey, freshness: &Freshness) -> Option<Arc<Target>> {
        if self.shared.is_none() || !freshness.redis_is_current() {
            return None;
        }
        let stamp = freshness.stamp();
        let link = self.shared.get(key).await?;
        Some(self.l1.put(Arc::new(Target::from(&link)), stamp))
    }

    async fn at_shard(&self, key: &LinkKey) -> Result<Option<Arc<Target>>, shards::Error> {
        let (stamp, asked) = (self.stamp(key), Instant::now());
        let Resolved::Found(link, source) = self.shards.resolve(key).await? else {
            return Ok(None);
        };
        let stamp = match source {
            Source::Primary => {
                self.fill_redis(&link, asked.elapsed());
                stamp
            }
            Source::Replica => stamp.of_replica(),
        };
        let target = Arc::new(Target::from(&*link));
        Ok(Some(self.l1.put(target, stamp)))
    }

    /// Puts a link into Redis without waiting for it.
    fn fill_redis(&self, link: &Link, took: Duration) {
        if !self.shared.is_none() && took < FILL_WITHIN {
            let (shared, link) = (self.shared.clone(), link.clone());
            tokio::spawn(async move { shared.put(&link).await });
        }
    }

    /// The shard cannot be asked: what L1 holds is better than an error, unless it
    /// is too old. It holds the newest version that was ever seen here, so that a
    /// link that is known to be disabled does not come back.
    fn last_resort(
        &self,
        stale: Option<(Arc<Target>, Stamp)>,
        freshness: &Freshness,
        error: shards::Error,
    ) -> Found {
        let now = Instant::now();
        match stale {
            Some((target, stamp)) if freshness.trust(stamp, now) != Trust::Expired => {
                self.metrics.cache("l1", "served_stale");
                Found::Link(target, freshness.shard_time(now))
            }
            _ => {
                self.metrics.unanswered(error.reason());
                Found::Unknown(error)
            }
        }
    }
}
