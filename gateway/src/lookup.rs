//! From a slug to its target: L1, then Redis, then the shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use waypost_domain::{DomainId, Link, LinkKey, SlugRef, Timestamp, Verdict};
use waypost_runtime::traces;

use crate::fetch::{Fetched, Fetcher};
use crate::freshness::{Freshness, Stamp, Trust};
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::shards::{self, Resolved, Shards, Source};
use crate::target::Target;

/// How long a write waits for Redis to know of it. After that it goes on without.
const WRITE_THROUGH: Duration = Duration::from_millis(5);

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

/// A link with all that no cache holds of it.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) link: Box<Link>,
    /// The newest of it that is known here. If the link is older, nobody follows this one.
    pub(crate) target: Arc<Target>,
    /// By the shard's clock, which is `now`.
    pub(crate) verdict: Verdict,
    pub(crate) now: Timestamp,
}

/// The read path. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub(crate) l1: Arc<L1>,
    pub(crate) shards: Shards,
    pub(crate) metrics: Metrics,
    pub(crate) fetcher: Fetcher,
}

impl Lookup {
    /// The link, if this process holds it and may believe that it is the newest, and
    /// the shard's clock to judge it by: what most visitors need, without waiting.
    #[must_use]
    pub fn held(&self, slug: SlugRef<'_>, now: Instant) -> Option<(Arc<Target>, Timestamp)> {
        let (freshness, epoch) = self.shards.standing(slug.prefix());
        let (target, stamp) = self.l1.get(DomainId::MAIN, slug)?;
        if !stamp.is_under(epoch) || freshness.trust(stamp, now) != Trust::Fresh {
            return None;
        }
        self.metrics.l1_hit();
        Some((target, freshness.shard_time(now)))
    }

    /// Whether this process holds the link, be it one that must be asked for again.
    #[must_use]
    pub fn knows(&self, slug: SlugRef<'_>) -> bool {
        self.l1.get(DomainId::MAIN, slug).is_some()
    }

    /// Finds a link that [`Lookup::held`] does not have.
    pub async fn find(&self, key: &Arc<LinkKey>) -> Found {
        let freshness = self.freshness(key.slug.borrowed());
        let stale = self.l1.get(key.domain, key.slug.borrowed());
        let trust = |stamp| self.shards.trust(key.slug.prefix(), stamp, Instant::now());
        match stale {
            // Memory has it, and not all that its answer takes.
            Some((target, stamp)) if trust(stamp) == Trust::Fresh => {
                return Found::Link(target, freshness.shard_time(Instant::now()));
            }
            Some(_) => self.metrics.cache("l1", "stale"),
            None => self.metrics.l1_miss(),
        }
        match self.fetcher.fetch(key).await {
            Fetched::Link(target) => Found::Link(target, freshness.shard_time(Instant::now())),
            Fetched::Absent => Found::Absent,
            Fetched::Unknown(error) => self.last_resort(key, freshness, error),
        }
    }

    /// Asks the shard past every cache, which may lag behind a change.
    pub async fn ask_shard(&self, key: &Arc<LinkKey>) -> Found {
        match self.fetcher.ask_shard(key).await {
            Fetched::Link(target) => Found::Link(target, self.shard_time(key, Instant::now())),
            Fetched::Absent => Found::Absent,
            Fetched::Unknown(error) => {
                self.metrics.unanswered(error.reason());
                Found::Unknown(error)
            }
        }
    }

    /// Reads a link whole at its shard; `None` if the primary says that there is none. A
    /// replica may lag behind a change that is known here.
    ///
    /// # Errors
    /// If the owner cannot be asked, or all that it gives of a link that is followed is
    /// older than what is known here.
    pub(crate) async fn whole(&self, key: &Arc<LinkKey>) -> Result<Option<Whole>, shards::Error> {
        // An edit may overtake the first answer, also the primary's.
        for _ in 0..2 {
            let stamp = self.stamp(key);
            let Resolved::Found(link, source) = self.shards.resolve(key).await? else {
                return Ok(None);
            };
            let stamp = match source {
                Source::Primary => stamp,
                Source::Replica => stamp.of_replica(),
            };
            let target = self.l1.put(Arc::new(Target::from(&*link)), stamp);
            let now = self.shard_time(key, Instant::now());
            let verdict = target.verdict(now);
            let is_followed = matches!(verdict, Verdict::Redirect | Verdict::Password);
            if target.version == link.version || !is_followed {
                return Ok(Some(Whole {
                    link,
                    target,
                    verdict,
                    now,
                }));
            }
        }
        Err(shards::Error::Unconfirmed)
    }

    /// The clock of the shard that has this slug.
    #[must_use]
    pub fn shard_time(&self, key: &LinkKey, now: Instant) -> Timestamp {
        self.freshness(key.slug.borrowed()).shard_time(now)
    }

    fn freshness(&self, slug: SlugRef<'_>) -> &Freshness {
        self.shards.freshness(slug.prefix())
    }

    /// To be taken before a write, for what [`Lookup::learn`] is then told.
    #[must_use]
    pub fn stamp(&self, key: &LinkKey) -> Stamp {
        self.shards.stamp(key.slug.prefix())
    }

    /// Keeps a link that a shard has just answered to a write, here and in Redis, for
    /// which it waits a moment: others may be asking for the slug already.
    pub async fn learn(&self, link: &Link, stamp: Stamp) {
        self.l1.change(Arc::new(Target::from(link)), stamp);
        self.fetcher.changed(&link.key);
        if let Some(put) = self.write_through(link, stamp) {
            let _ = tokio::time::timeout(WRITE_THROUGH, put).await;
        }
    }

    /// Keeps a new link in this process: who created it here finds it here.
    pub fn keep(&self, link: &Link, stamp: Stamp) {
        self.l1.put(Arc::new(Target::from(link)), stamp);
        self.fetcher.changed(&link.key);
    }

    /// Begins to put a link into Redis, where there is one; it need not be awaited.
    pub fn write_through(&self, link: &Link, stamp: Stamp) -> Option<JoinHandle<()>> {
        let (fetcher, link) = (self.fetcher.clone(), link.clone());
        fetcher.has_redis().then(|| {
            let put = async move { fetcher.write_through(&link, stamp).await };
            tokio::spawn(traces::carried(put))
        })
    }

    /// The shard cannot be asked: what L1 holds is better than an error, unless it
    /// is too old. It holds the newest version that was ever seen here, so that a
    /// link that is known to be disabled does not come back.
    fn last_resort(&self, key: &LinkKey, freshness: &Freshness, error: shards::Error) -> Found {
        let now = Instant::now();
        // Looked at again: a change may have been told while the shard was asked.
        match self.l1.get(key.domain, key.slug.borrowed()) {
            Some((target, stamp))
                if self.shards.trust(key.slug.prefix(), stamp, now) != Trust::Expired =>
            {
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
